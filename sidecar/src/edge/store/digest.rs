//! Reads records for comparing: what is really in the table, beside the events that it should come from.
//!
//! Everything of one call is of one moment. What it means that two differ is decided in `steady/digest.rs`.

use rowcast_schema::declaration::{Capture, Declaration};
use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rowcast_schema::layout::LayoutId;
use rowcast_schema::record;
use rowcast_schema::value::Value;
use rusqlite::Connection;

use super::cell::keeps;
use super::contexts::Contexts;
use super::error::{Doing as _, Error};
use super::replicated::{Replicated, Shape, Tables};
use super::tx::Tx;
use super::{catalogue, install, references, serve, state};
use crate::event::Operation;
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};
use crate::steady::digest::{self, Compared, Entry, Hash, Range, State};

/// Some records of one table as they are here.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The position vector at that moment.
    pub vector: Vector,
    /// The table's layout.
    pub layout: LayoutId,
    /// The records, in the order of their ids.
    pub entries: Vec<Entry>,
    /// The record id to go on after; none at the end of the table.
    pub next: Option<String>,
}

/// Some rows that were gone through: those that no event knows, and those that refer to nothing.
#[derive(Clone, Debug, Default)]
pub struct Unknown {
    /// Their record ids.
    pub records: Vec<String>,
    /// Record ids of rows, known or not, whose foreign key refers to nothing.
    pub dangling: Vec<String>,
    /// The key to go on after; none at the end of the table.
    pub next: Option<Vec<Value>>,
}

/// What a [`super::Reader`] keeps to read records: the tables, as of a version of the schema.
#[derive(Debug, Default)]
pub(super) struct Known(Option<(i64, Tables)>);

/// The events that a record's content comes from, without the content.
struct Sources {
    ids: Vec<(NodeId, Sequence)>,
    newest: crate::clock::Timestamp,
    deleted: bool,
    events: u64,
}

impl super::Reader {
    /// Records after one of them, each with its row and its events compared. `None` when the table is not here.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn survey(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Option<Survey>, Error> {
        self.looking(table, |tx, table, shape, settled| {
            let records = tx.records_after(table, after, limit)?;
            let next = (records.len() == limit).then(|| records[limit - 1].clone());
            let entries = records.iter().map(|id| tx.entry(table, shape, id, settled)).collect::<Result<_, _>>()?;
            Ok(Survey { vector: tx.durable.vector.clone(), layout: shape.layout.id, entries, next })
        })
    }

    /// Rows after a key that no event knows, and those that refer to nothing. `None` when the table is not here.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn unknown(&self, table: &str, after: Option<&[Value]>, limit: usize) -> Result<Option<Unknown>, Error> {
        self.looking(table, |tx, table, shape, _| {
            let (rows, more) = tx.rows_after(shape, after, limit)?;
            let next = rows.last().filter(|_| more).map(|row| shape.key_of(row));
            let (mut records, mut dangling) = (Vec::new(), Vec::new());
            let references = references::of(tx.connection, shape)?;
            for row in &rows {
                let record = shape.record_id(row);
                for reference in &references {
                    if reference.dangles(tx.connection, row)? {
                        dangling.push(record.clone());
                        break;
                    }
                }
                if tx.newest(table, &record)?.is_none() {
                    records.push(record);
                }
            }
            Ok(Unknown { records, dangling, next })
        })
    }

    /// Answers another node that compares its records with those here, by ranges of record ids.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn compare(
        &self,
        table: &str,
        layout: LayoutId,
        after: Option<&str>,
        ranges: &[Range],
    ) -> Result<Option<Compared>, Error> {
        self.looking(table, |tx, table, shape, settled| {
            let mut answer =
                Compared { vector: tx.durable.vector.clone(), layout: shape.layout.id.0, ..Default::default() };
            if shape.layout.id != layout {
                return Ok(answer);
            }
            let mut left = limits::DIGEST_RECORDS_MAX;
            let mut after = after.map(str::to_owned);
            for (range, at) in ranges.iter().zip(0..) {
                let (records, whole) = records_of(tx, table, after.as_deref(), range.until.as_deref(), left)?;
                left -= records.len();
                // A range that is not walked to its end has no sum: its records speak for themselves.
                let differs = !whole || sum(tx, table, shape, &records)? != range.sum;
                if differs {
                    answer.differ.push(at);
                    for record in &records {
                        answer.entries.push(tx.entry(table, shape, record, settled)?);
                    }
                }
                if !whole {
                    answer.reached = records.into_iter().last();
                    break;
                }
                if left == 0 {
                    answer.reached.clone_from(&range.until);
                    break;
                }
                after.clone_from(&range.until);
            }
            Ok(answer)
        })
    }

    /// Records by name, as they are here. `None` when the table is not here.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn entries(&self, table: &str, records: &[String]) -> Result<Option<Compared>, Error> {
        self.looking(table, |tx, table, shape, settled| {
            let asked = records.iter().take(limits::DIGEST_RECORDS_MAX);
            let entries = asked.map(|id| tx.entry(table, shape, id, settled)).collect::<Result<_, _>>()?;
            let (vector, layout) = (tx.durable.vector.clone(), shape.layout.id.0);
            Ok(Compared { vector, layout, entries, ..Default::default() })
        })
    }

    /// The events of some records that their content comes from, as in a snapshot.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn records(&self, table: &str, records: &[String]) -> Result<Option<serve::SnapshotPage>, Error> {
        let Some(name) = self.tables.iter().find(|name| name.eq_ignore_ascii_case(table)) else { return Ok(None) };
        let page = self.in_one_moment(|| pages(&self.connection, name, records))?;
        self.harden()?;
        Ok(Some(page))
    }

    /// Reads in one moment, with the table as it is at that moment. Says also whether a row that differs from its events
    /// can have no other reason than damage.
    fn looking<R>(
        &self,
        table: &str,
        read: impl FnOnce(&mut Tx<'_>, &Replicated, &Shape, bool) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        self.in_one_moment(|| {
            let mut known = self.known.borrow_mut();
            let tables = known.tables(&self.connection, &self.declaration)?;
            let Some(found) = tables.get(table).cloned() else { return Ok(None) };
            let Some(shape) = found.shape.as_ref().filter(|_| is_utf8(&self.connection)) else { return Ok(None) };
            let mut tx = Tx::new(&self.connection, tables, &[], state::load(&self.connection)?);
            let settled = found.declared.capture == Capture::Triggers && tx.journal_extent()?.is_none();
            read(&mut tx, &found, shape, settled).map(Some)
        })
    }
}

impl Known {
    fn tables(&mut self, connection: &Connection, declaration: &Declaration) -> Result<&Tables, Error> {
        let version = install::schema_version(connection)?;
        if self.0.as_ref().is_none_or(|(known, _)| *known != version) {
            let tables = Tables::of(connection, declaration, catalogue::tables(connection)?, false)?;
            self.0 = Some((version, tables));
        }
        Ok(&self.0.as_ref().expect("bug: it was just set").1)
    }
}

/// Record ids have one order on all nodes only where SQLite keeps text as UTF-8.
fn is_utf8(connection: &Connection) -> bool {
    connection
        .prepare_cached("PRAGMA encoding")
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, String>(0)))
        .is_ok_and(|encoding| encoding == "UTF-8")
}

/// The events that the content of some records comes from.
fn pages(connection: &Connection, table: &str, records: &[String]) -> Result<serve::SnapshotPage, Error> {
    let mut page = serve::SnapshotPage { vector: serve::vector(connection)?, ..Default::default() };
    let events = quoted(&event_table::name(table));
    let sql = format!(
        "SELECT source_node_id, sequence_number, operation_type, record_id, data, timestamp, layout, changed, group_last, processed
         FROM {events} WHERE record_id = ?1 ORDER BY timestamp DESC, source_node_id DESC"
    );
    let doing = || format!("read the events of records of `{table}`");
    let mut statement = connection.prepare_cached(&sql).doing_with(doing)?;
    let mut contexts = Contexts::default();
    for record in records.iter().take(limits::DIGEST_LOOK_MAX) {
        let mut rows = statement.query([record]).doing_with(doing)?;
        let mut known = serve::Record::default();
        while let Some(row) = rows.next().doing_with(doing)? {
            let (id, event, group_last) = serve::event_of(row, table)?;
            let processed: bool = row.get(9).doing_with(doing)?;
            if id.sequence <= page.vector.of(id.origin) && known.needs(&event, processed) {
                serve::keep_layout(connection, &mut page.layouts, event.layout)?;
                contexts.of(connection, id)?;
                let (origin, sequence) = (id.origin, id.sequence);
                page.rows.push(serve::SnapshotRow { origin, sequence, group_last, processed, event });
            }
        }
    }
    page.contexts = contexts.found();
    Ok(page)
}

/// The records that events know in a range, at most `limit`, and whether these are all of them.
fn records_of(
    tx: &Tx<'_>,
    table: &Replicated,
    after: Option<&str>,
    until: Option<&str>,
    limit: usize,
) -> Result<(Vec<String>, bool), Error> {
    // One more than fits tells whether there is one more.
    let mut records = match until {
        None => tx.records_after(table, after, limit + 1)?,
        Some(until) => tx.records_between(table, (after, until), limit + 1)?,
    };
    let whole = records.len() <= limit;
    records.truncate(limit);
    Ok((records, whole))
}

fn sum(tx: &mut Tx<'_>, table: &Replicated, shape: &Shape, records: &[String]) -> Result<u64, Error> {
    let mut sum = 0_u64;
    for record in records {
        sum = sum.wrapping_add(tx.part(table, shape, record)?);
    }
    Ok(sum)
}

impl Tx<'_> {
    /// Record ids that events know, after one and up to and with another, in order.
    fn records_between(
        &self,
        table: &Replicated,
        (after, until): (Option<&str>, &str),
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let events = quoted(&event_table::name(&table.name));
        let sql = format!(
            "SELECT DISTINCT record_id FROM {events} WHERE ?1 < record_id AND record_id <= ?2 ORDER BY record_id LIMIT ?3"
        );
        self.connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                statement.query_map((after.unwrap_or_default(), until, limit), |row| row.get(0))?.collect()
            })
            .doing(format!("list the records of `{}`", table.name))
    }

    /// A record as it is here. `settled` says that a row which is not what its events say has no better explanation.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn entry(&mut self, table: &Replicated, shape: &Shape, id: &str, settled: bool) -> Result<Entry, Error> {
        let Ok(key) = record::parse_record_id(id, &shape.key) else {
            // It has another key here now: there is nothing to compare it with.
            return Ok(Entry { parked: true, ..Entry::absent(id) });
        };
        let parked = !self.parked_of(table, id)?.is_empty();
        let row = self.row(shape, &key)?;
        let sources = self.sources(table, shape, id)?;
        let content = match self.content(table, shape, id) {
            Ok(content) => Some(content.and_then(|content| content.cells)),
            Err(Error::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let agrees = match (&content, &row) {
            (None, _) => false,
            (Some(None), None) => true,
            (Some(Some(cells)), Some(row)) => is_as_said(shape, cells, row),
            _ => false,
        };
        let state = match (agrees, settled) {
            (true, _) => State::Agrees,
            (false, true) => State::Differs,
            (false, false) => State::Unsettled,
        };
        let said = content.flatten();
        let hash = row.map_or(0, |row| hash_row(&row, said.as_deref()));
        Ok(Entry {
            record: id.to_owned(),
            newest: sources.newest,
            deleted: sources.deleted,
            events: sources.events,
            sources: sources.ids,
            row: hash,
            state,
            parked,
        })
    }

    /// What a record adds to the sum of its range: as [`Entry::part`], with less reading.
    fn part(&mut self, table: &Replicated, shape: &Shape, id: &str) -> Result<u64, Error> {
        match self.newest(table, id)? {
            Some(newest) if newest.layout == shape.layout.id && !newest.kept_out => {
                let Ok(key) = record::parse_record_id(id, &shape.key) else { return Ok(0) };
                let row = self.row(shape, &key)?.map_or(0, |row| hash_row(&row, None));
                let deleted = newest.operation == Operation::Delete;
                Ok(digest::part(id, &[(newest.version.origin, newest.version.sequence)], row, deleted))
            }
            _ => self.entry(table, shape, id, false).map(|entry| entry.part()),
        }
    }

    fn sources(&mut self, table: &Replicated, shape: &Shape, id: &str) -> Result<Sources, Error> {
        let doing = || format!("read the events of `{}` {id}", table.name);
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&table.events.history).doing_with(doing)?;
        let mut rows = statement.query((id, false)).doing_with(doing)?;
        let mut found = Sources { ids: Vec::new(), newest: Default::default(), deleted: false, events: 0 };
        let mut missing: Vec<&str> = shape.layout.columns.iter().map(String::as_str).collect();
        let mut hash = Hash::default();
        while let Some(row) = rows.next().doing_with(doing)? {
            let (event_id, event, _) = serve::event_of(row, &table.name)?;
            if found.ids.is_empty() {
                found.newest = event.timestamp;
                found.deleted = event.operation == Operation::Delete;
            }
            let layout = self.layout(event.layout)?;
            let adds = layout.as_ref().is_none_or(|layout| missing.iter().any(|column| layout.place(column).is_some()));
            let ends = event.operation == Operation::Delete;
            if found.ids.is_empty() || (adds && !ends) {
                found.ids.push((event_id.origin, event_id.sequence));
                hash.event(event_id, &event);
            }
            missing.retain(|column| layout.as_ref().is_some_and(|layout| layout.place(column).is_none()));
            if ends || missing.is_empty() || limits::DIGEST_SOURCES_MAX <= found.ids.len() {
                break;
            }
        }
        if !found.ids.is_empty() {
            found.events = hash.value();
        }
        Ok(found)
    }
}

/// Whether a row is what its events say. A column that no event has may hold anything; and a cell may read as a column
/// of another affinity keeps it.
pub(super) fn is_as_said(shape: &Shape, said: &[Option<Value>], row: &[Value]) -> bool {
    said.iter().zip(row).enumerate().all(|(at, (said, held))| match said {
        None => true,
        Some(said) => keeps(shape.affinity(at), said, held),
    })
}

/// The hash of a row: of the columns that its events have.
fn hash_row(row: &[Value], said: Option<&[Option<Value>]>) -> u64 {
    let mut hash = Hash::default();
    for (at, cell) in row.iter().enumerate() {
        if said.is_none_or(|said| said[at].is_some()) {
            hash.cell(cell);
        } else {
            hash.number(u64::MAX);
        }
    }
    hash.value()
}
