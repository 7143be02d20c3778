//! Compares one row with its content by the events, where the triggers were not there all the time.
//!
//! The row is the truth, and what differs becomes an event, with one exception: a column that is new here. What a
//! migration put there by itself (the default, the value of the column that it replaces, what most rows got) is no
//! word of the service, and gives way to what the events say of it. Where they say nothing, it becomes an event that
//! stands right behind what it was made from, so that it wins over no write that it had not seen.
//!
//! Under either name of a renamed column the later write wins: what was written under the old name after the last event
//! with the new one stays.

use rowcast_schema::layout::Layout;
use rowcast_schema::record;
use rowcast_schema::value::Value;

use super::{Change, difference, equals};
use crate::clock::Timestamp;
use crate::edge::store::{Content, Error, ParkReason, Replicated, Shape, Tx, Want, Written, keeps};
use crate::event::{Operation, Version};
use crate::flow::ingest::{self, Ingested};

/// What a row was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// What the events say.
    Same,
    /// Not there, and to be made again from the events.
    Restore,
    /// Something that the service did.
    Change(Change),
    /// Something that a migration did: an event with this timestamp.
    Carried(Change, Timestamp),
}

/// Compares the row with that key, and mends what is for the events to say. `now` is the wall time.
///
/// # Errors
/// When the database fails.
pub fn row(
    tx: &mut Tx<'_>,
    (table, shape, want): (&Replicated, &Shape, &Want),
    key: &[Value],
    now: Timestamp,
) -> Result<Found, Error> {
    let record_id = shape.record_id_of_key(key);
    let Some(row) = tx.row(shape, key)? else {
        let lives = |content: Option<Content>| content.is_some_and(|content| content.cells.is_some());
        if want.returned && !tx.is_kept_out(table, &record_id)? && lives(tx.content(table, shape, &record_id)?) {
            return Ok(Found::Restore);
        }
        return Ok(difference(tx, table, shape, key, Some(now))?.map_or(Found::Same, Found::Change));
    };
    // Of a table that is declared for the first time, or whose key changed: what others made of the record is there already, and comes onto the row.
    let waits = tx.parked_of(table, &record_id)?.iter().any(|parked| parked.reason == ParkReason::Schema);
    if waits && !want.again && tx.content(table, shape, &record_id)?.is_none() {
        return Ok(Found::Same);
    }
    // A row that is there although its greatest event is parked is compared all the same: what waits comes onto it later.
    let content = if want.new_columns.is_empty() { None } else { tx.content(table, shape, &record_id)? };
    let Some(content @ Content { cells: Some(_), .. }) = content else {
        let found = difference(tx, table, shape, key, Some(now))?;
        return Ok(found.map_or(Found::Same, Found::Change));
    };
    let goes = is_to_go(tx, table, &record_id, &content.version)?;
    let found = with_new_columns(tx, (table, shape, want), (record_id, row), &content, now)?;
    Ok(match found {
        Found::Carried(..) if goes => Found::Same,
        Found::Change(change) | Found::Carried(change, _) if super::is_told_large(tx, (table, shape), &change)? => {
            Found::Same
        }
        found => found,
    })
}

/// Makes an event of what a row holds in columns of which no event says anything, if that is not their default.
///
/// # Errors
/// When the database fails.
pub fn ingest_untold(
    tx: &mut Tx<'_>,
    (table, shape): (&Replicated, &Shape),
    key: &[Value],
    version: &Version,
) -> Result<Option<Ingested>, Error> {
    let record_id = shape.record_id_of_key(key);
    if tx.is_kept_out(table, &record_id)? || is_to_go(tx, table, &record_id, version)? {
        return Ok(None);
    }
    match difference(tx, table, shape, key, None)? {
        Some(change) if change.operation == Operation::Update => {
            ingest::carried(tx, vec![(change, right_behind(version))]).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether a delete of the record waits here, greater than what its row comes from, or anything that waits for the clock: deletes may lie
/// before that, too. Where such a delete is applied it may be forgotten already: an event that stands before it would bring the row back
/// there, or a column of it.
fn is_to_go(tx: &Tx<'_>, table: &Replicated, record_id: &str, version: &Version) -> Result<bool, Error> {
    for parked in tx.parked_of(table, record_id)? {
        let is_delete = || Ok(tx.event(table, parked.id)?.is_some_and(|(event, _)| event.data.is_none()));
        if *version < parked.version && (parked.reason == ParkReason::Clock || is_delete()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn right_behind(version: &Version) -> Timestamp {
    Timestamp(version.timestamp.0.saturating_add(1))
}

fn warn_unless_done(table: &Replicated, record_id: &str, written: &Written) {
    if !matches!(written, Written::Done) {
        tracing::warn!(
            table = table.name,
            record = record_id,
            outcome = ?written,
            "a row differs from its events and could not be mended"
        );
    }
}

/// What is for a column that differs.
enum Word {
    /// The service's: an event of now.
    Row,
    /// The migration's, and no event is greater: an event behind what it was made from.
    Migration,
    /// The events'.
    Events,
}

fn with_new_columns(
    tx: &mut Tx<'_>,
    (table, shape, want): (&Replicated, &Shape, &Want),
    (record_id, row): (String, Vec<Value>),
    content: &Content,
    now: Timestamp,
) -> Result<Found, Error> {
    let told_new = tx.told(table, &record_id, &want.new_columns, None)?;
    let told_gone = tx.told(table, &record_id, &want.gone_columns, want.since)?;
    let cells = content.cells.as_ref().expect("bug: asked for a record that is there");
    let mut cells_now: Vec<Option<Value>> = row.iter().cloned().map(Some).collect();
    let (mut of_row, mut of_migration, mut filled) = (0_i64, 0_i64, false);
    for (at, value) in row.iter().enumerate() {
        if equals(shape, at, cells[at].as_ref(), value) {
            continue;
        }
        let new = want.new_columns.iter().position(|name| shape.layout.place(name) == Some(at));
        let word = match new {
            None => Word::Row,
            Some(new) => {
                let name = &want.new_columns[new];
                let is_default = *value == shape.defaults[at];
                // NULL in a column that went and NULL in one that came say nothing, unless one can only be the other.
                let one_for_one = want.gone_columns.len() == 1 && want.new_columns.len() == 1;
                let same = |value_gone: &Value| keeps(shape.affinity(at), value_gone, value);
                let carried = told_gone.iter().flatten().filter(|gone| same(&gone.value));
                let carried = carried.filter(|_| one_for_one || !is_default).max_by_key(|gone| gone.changed);
                let explained =
                    is_default || carried.is_some() || want.calm || want.filler(name).as_ref() == Some(value);
                match (&told_new[new], carried) {
                    _ if !explained => Word::Row,
                    (None, _) => Word::Migration,
                    (Some(new), Some(gone)) if gone.changed.is_some_and(|changed| new.version < changed) => {
                        Word::Migration
                    }
                    (Some(_), _) => Word::Events,
                }
            }
        };
        match word {
            Word::Row => of_row |= Layout::changed_bit(at),
            Word::Migration => of_migration |= Layout::changed_bit(at),
            Word::Events => {
                cells_now[at].clone_from(&cells[at]);
                filled = true;
            }
        }
    }
    if filled {
        warn_unless_done(table, &record_id, &tx.upsert_some(shape, &cells_now)?);
    }
    if of_row | of_migration == 0 {
        return Ok(Found::Same);
    }
    let row = tx.row(shape, &shape.key_of(&row))?.unwrap_or(row);
    let change = Change {
        table: table.name.clone(),
        operation: Operation::Update,
        record_id,
        data: Some(record::row_to_json(&shape.layout.columns, &row)),
        layout: shape.layout.id,
        changed: of_row | of_migration,
        at: Some(now),
    };
    if of_row == 0 { Ok(Found::Carried(change, right_behind(&content.version))) } else { Ok(Found::Change(change)) }
}
