//! Looks at records a second time, with the write lock held and the journal empty, and mends those that are damaged.
//!
//! Whose word counts: where the triggers were there all the time, the events'; the row is made what they say, and what
//! stood there is kept in `_rowcast_mended`. Where that is not proved, the row's: the difference becomes an event.
//! Events that another node has otherwise, or alone, are taken from there; who is right is decided in `digest`.

use rowcast_schema::declaration::Capture;
use rowcast_schema::record;

use crate::clock::Timestamp;
use crate::edge::store::{Error, Kept, Place, Replicated, Shape, SnapshotPage, SnapshotRow, Tx, Written};
use crate::event::EventId;
use crate::flow::apply::Applier;
use crate::flow::capture;
use crate::flow::ingest::{self, Ingested};
use crate::position::Vector;
use crate::steady::digest::{Entry, State};

/// Records as they are when nothing is under way.
#[derive(Debug, Default)]
pub struct Looked {
    /// The position vector at that moment.
    pub vector: Vector,
    /// The records, in the order in which they were asked for.
    pub entries: Vec<Entry>,
    /// What became events meanwhile: published once hardened.
    pub ingested: Vec<Ingested>,
}

/// What became of a record that was to be mended.
#[derive(Debug, Default)]
pub struct Mended {
    /// Why it could not be; none when its row now is what its events say.
    pub refused: Option<String>,
    /// What became events meanwhile: published once hardened.
    pub ingested: Vec<Ingested>,
}

/// Looks at records of one table again. `None` when it is not the time for it: a long journal, a schema that changed.
///
/// # Errors
/// When the database fails.
pub fn look(tx: &mut Tx<'_>, table: &str, records: &[String], now: Timestamp) -> Result<Option<Looked>, Error> {
    let Some(mut ingested) = settle(tx, table, now)? else { return Ok(None) };
    let Some(table) = tx.tables().get(table).cloned() else { return Ok(Some(Looked::default())) };
    let Some(shape) = &table.shape else { return Ok(Some(Looked::default())) };
    let settled = table.declared.capture == Capture::Triggers;
    let adopted = settled && !tx.is_proved(&table)?;
    let mut entries = Vec::with_capacity(records.len());
    for id in records {
        let mut entry = tx.entry(&table, shape, id, settled)?;
        if adopted
            && entry.state == State::Differs
            && !entry.parked
            && adopt(tx, &table, shape, id, now, &mut ingested)?
        {
            entry = tx.entry(&table, shape, id, settled)?;
        }
        entries.push(entry);
    }
    Ok(Some(Looked { vector: tx.durable.vector.clone(), entries, ingested }))
}

/// Ingests what is local. `None` when that is too much for one short transaction, or the table waits to be compared after
/// a change of the schema.
fn settle(tx: &mut Tx<'_>, table: &str, now: Timestamp) -> Result<Option<Vec<Ingested>>, Error> {
    let pending = tx.tables().get(table).is_some_and(|table| tx.is_pending(table));
    if pending || ingest::is_long(tx)? { Ok(None) } else { ingest::drain(tx, now).map(Some) }
}

/// Makes an event of what no trigger may have seen.
fn adopt(
    tx: &mut Tx<'_>,
    table: &Replicated,
    shape: &Shape,
    id: &str,
    now: Timestamp,
    ingested: &mut Vec<Ingested>,
) -> Result<bool, Error> {
    let Ok(key) = record::parse_record_id(id, &shape.key) else { return Ok(false) };
    let change = match capture::difference(tx, table, shape, &key, Some(now)) {
        Ok(Some(change)) => change,
        Ok(None) | Err(Error::Damaged { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    tracing::info!(table = table.name, record = id, "a change that no trigger saw became an event");
    ingested.push(ingest::changes(tx, vec![change], now)?);
    Ok(true)
}

/// Makes a row what its events say. `None` when it is not the time for it.
///
/// # Errors
/// When the database fails.
pub fn mend_row(tx: &mut Tx<'_>, table: &str, id: &str, now: Timestamp) -> Result<Option<Mended>, Error> {
    let Some(ingested) = settle(tx, table, now)? else { return Ok(None) };
    let Some(table) = tx.tables().get(table).cloned() else { return Ok(None) };
    let Some(shape) = &table.shape else { return Ok(None) };
    if !tx.is_proved(&table)? {
        return Ok(None); // Looked at again, it becomes an event.
    }
    let refused = obey(tx, &table, shape, id, now)?;
    Ok(Some(Mended { refused, ingested }))
}

/// Makes the row what the events say, and keeps what stood there. Answers why that cannot be.
fn obey(tx: &mut Tx<'_>, table: &Replicated, shape: &Shape, id: &str, now: Timestamp) -> Result<Option<String>, Error> {
    let Ok(key) = record::parse_record_id(id, &shape.key) else { return Ok(Some("its key does not read".into())) };
    if !tx.parked_of(table, id)?.is_empty() {
        return Ok(Some("an event of it is parked".into()));
    }
    let said = match tx.content(table, shape, id) {
        Ok(content) => content.and_then(|content| content.cells),
        Err(Error::Damaged { reason, .. }) => return Ok(Some(format!("its events do not read: {reason}"))),
        Err(error) => return Err(error),
    };
    if tx.is_as_said(shape, &key, said.as_deref())? {
        return Ok(None);
    }
    let found = tx.row_json(shape, &key)?;
    let refused = match &said {
        None => tx.delete(shape, &key).map(|()| None)?,
        Some(cells) => match tx.upsert_some(shape, cells)? {
            Written::Done => None,
            // Who gets the value is as with any other event.
            Written::Claimed(_) => {
                Applier::new(tx, now).settle(table, shape, id)?;
                None
            }
            Written::Refused(words) => Some(words),
        },
    };
    if refused.is_some() {
        return Ok(refused);
    }
    if tx.parked_of(table, id)?.is_empty() && !tx.is_as_said(shape, &key, said.as_deref())? {
        return Ok(Some("the table here makes another row of what its events say".into()));
    }
    let made = tx.row_json(shape, &key)?;
    tx.keep_found(table, &Kept { record: id, what: "row", found, made }, now)?;
    Ok(None)
}

/// Takes the events of a record as another node has them, where they are missing or different here, and makes the row of
/// them. Only events below this node's position: the others come in their own time. `None` when it is not the time for it.
///
/// # Errors
/// When the database fails.
pub fn take(
    tx: &mut Tx<'_>,
    table: &str,
    id: &str,
    page: &SnapshotPage,
    now: Timestamp,
) -> Result<Option<Mended>, Error> {
    let Some(mut ingested) = settle(tx, table, now)? else { return Ok(None) };
    let Some(table) = tx.tables().get(table).cloned() else { return Ok(None) };
    let Some(shape) = &table.shape else { return Ok(None) };
    let before = tx.entry(&table, shape, id, true)?;
    page.layouts.iter().try_for_each(|layout| tx.save_layout(layout))?;
    page.contexts.iter().try_for_each(|(origin, first, vector)| tx.save_context(*origin, *first, vector))?;
    for row in &page.rows {
        let due = row.sequence <= tx.durable.vector.of(row.origin);
        if due && row.event.record_id == id && row.event.table.eq_ignore_ascii_case(&table.name) {
            ingested.extend(take_event(tx, &table, row, now)?);
        }
    }
    // A row that was what the events said is now what they say. Another one was damaged, or written unseen.
    let refused =
        if before.state == State::Agrees || tx.is_proved(&table)? { obey(tx, &table, shape, id, now)? } else { None };
    Ok(Some(Mended { refused, ingested }))
}

fn take_event(tx: &mut Tx<'_>, table: &Replicated, row: &SnapshotRow, now: Timestamp) -> Result<Vec<Ingested>, Error> {
    let id = EventId { origin: row.origin, sequence: row.sequence };
    let found = match tx.event(table, id) {
        Ok(None) => {
            let mut applier = Applier::new(tx, now);
            applier.snapshot_event(id, row.group_last, &row.event)?;
            return Ok(applier.done.ingested);
        }
        Ok(Some((stored, _))) if stored == row.event => return Ok(Vec::new()),
        Ok(Some((stored, _))) => stored.data,
        Err(Error::Damaged { reason, .. }) => Some(reason),
        Err(error) => return Err(error),
    };
    if row.processed {
        let what = format!("event {id}");
        let kept = Kept { record: &row.event.record_id, what: &what, found, made: row.event.data.clone() };
        tx.keep_found(table, &kept, now)?;
        let place = Place { id, group_last: row.group_last, table, processed: true };
        tx.replace_event(&place, &row.event)?;
    }
    Ok(Vec::new())
}
