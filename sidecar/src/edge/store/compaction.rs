//! Takes events out for good, with their contexts; the horizon moves in the same transaction. Which ones is for
//! `steady::compaction`.
//!
//! The freed pages stay in the file, and SQLite uses them again.

use std::collections::BTreeSet;
use std::sync::Arc;

use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rowcast_schema::layout::{Layout, LayoutId};
use rusqlite::{Connection, OptionalExtension as _};

use super::error::{Doing as _, Error, damaged};
use super::replicated::Replicated;
use super::tx::{Tx, signed, unsigned};
use super::{Store, serve, strays};
use crate::clock::Timestamp;
use crate::event::{EventId, Operation, Version};
use crate::position::{NodeId, Sequence, Vector};
use crate::steady::compaction::Kept;

/// An event to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Its number.
    pub sequence: Sequence,
    /// Its record.
    pub record_id: String,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its record has no other event, and it deletes nothing: it is the record's content, and stays.
    pub stays: bool,
}

/// Newer events of a record that are looked at beside one: the nearest of them nearly always supersedes it.
const NEWER_MAX: usize = 16;

/// Older events of a record that are looked at in one go.
const OLDER_MAX: usize = 64;

impl Store {
    /// Events of one origin in one table, after a number, in order, at most `limit`. Takes no lock.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn visits(
        &self,
        table: &Replicated,
        origin: NodeId,
        (after, until): (Sequence, Sequence),
        limit: usize,
    ) -> Result<Vec<Visit>, Error> {
        let range = [after + 1, until].map(|sequence| EventId { origin, sequence }.to_string());
        let sql = format!(
            "SELECT sequence_number, record_id, timestamp, operation_type <> 'DELETE' AND NOT EXISTS (
               SELECT 1 FROM {events} AS other WHERE other.record_id = event.record_id AND other.rowid <> event.rowid)
             FROM {events} AS event WHERE ?1 <= id AND id <= ?2 ORDER BY id LIMIT ?3",
            events = quoted(&event_table::name(&table.name))
        );
        self.connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                let visit = |row: &rusqlite::Row<'_>| {
                    Ok(Visit {
                        sequence: unsigned(row.get(0)?),
                        record_id: row.get(1)?,
                        timestamp: Timestamp(row.get(2)?),
                        stays: row.get(3)?,
                    })
                };
                statement.query_map((&range[0], &range[1], limit), visit)?.collect()
            })
            .doing(format!("look for events of `{}` that can go", table.name))
    }
}

impl Tx<'_> {
    /// The events of a record around a timestamp, newest first: some newer ones, and the older ones; and whether nothing
    /// older is stored than the last.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn around(
        &mut self,
        table: &Replicated,
        record_id: &str,
        timestamp: Timestamp,
    ) -> Result<(Vec<Kept>, bool), Error> {
        let mut kept = self.kept(table, record_id, timestamp, ("<", "ASC"), NEWER_MAX)?;
        let older = self.kept(table, record_id, timestamp, (">=", "DESC"), OLDER_MAX + 1)?;
        let whole = older.len() <= OLDER_MAX;
        kept.extend(older);
        // Where the list is cut through events of one timestamp, nothing is said of the rest.
        kept.sort_by_key(|event| std::cmp::Reverse(event.version));
        Ok((kept, whole))
    }

    fn kept(
        &mut self,
        table: &Replicated,
        record_id: &str,
        timestamp: Timestamp,
        (side, direction): (&str, &str),
        limit: usize,
    ) -> Result<Vec<Kept>, Error> {
        let sql = format!(
            "SELECT timestamp, source_node_id, sequence_number, operation_type, layout, processed FROM {}
             WHERE record_id = ?1 AND ?2 {side} timestamp ORDER BY timestamp {direction} LIMIT ?3",
            quoted(&event_table::name(&table.name))
        );
        let doing = || format!("read the events of `{}` {record_id}", table.name);
        type Row = (i64, String, i64, String, i64, bool);
        let rows: Vec<Row> = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
                };
                statement.query_map((record_id, timestamp.0, limit), row)?.collect()
            })
            .doing_with(doing)?;
        let mut kept = Vec::with_capacity(rows.len());
        for (timestamp, origin, sequence, operation, layout, processed) in rows {
            let version = Version {
                timestamp: Timestamp(timestamp),
                origin: super::parse(&event_table::name(&table.name), &origin)?,
                sequence: unsigned(sequence),
            };
            let operation =
                Operation::parse(&operation).ok_or_else(|| damaged(doing(), "an unknown operation_type"))?;
            let layout: Arc<Layout> =
                self.layout(LayoutId(layout))?.ok_or_else(|| damaged(doing(), "an event's layout is missing"))?;
            kept.push(Kept { version, operation, layout, processed });
        }
        Ok(kept)
    }

    /// Takes events out, and contexts that held for them alone. The horizon moves first: nobody is served a hole.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn compact(&mut self, table: &Replicated, ids: &[EventId]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut horizon = Vector::default();
        ids.iter().for_each(|id| horizon.raise(id.origin, id.sequence));
        horizon.iter().try_for_each(|(origin, sequence)| self.set_horizon(origin, sequence))?;
        let sql = format!("DELETE FROM {} WHERE id = ?1", quoted(&event_table::name(&table.name)));
        let mut statement = self.connection.prepare_cached(&sql).doing("take out an event")?;
        for id in ids {
            statement.execute([id.to_string()]).doing(format!("take out event {id}"))?;
        }
        let mut looked: BTreeSet<(NodeId, Sequence)> = BTreeSet::new();
        for id in ids {
            // What held for the last numbers when its events went is found by the first that go after it.
            let (mut at, mut own) = (id.sequence, true);
            while let Some((first, last)) = context_range(self.connection, EventId { sequence: at, ..*id })? {
                let empty = match last {
                    Some(last) if looked.insert((id.origin, first)) => {
                        let tables = self.tables().with_events(self.connection)?;
                        !has_events(self.connection, tables, id.origin, first, last)?
                    }
                    _ => false,
                };
                if empty {
                    self.connection
                        .prepare_cached("DELETE FROM _rowcast_contexts WHERE origin = ?1 AND first = ?2")
                        .and_then(|mut statement| statement.execute((id.origin.to_string(), signed(first))))
                        .doing("take out a context")?;
                }
                if first <= 1 || !(empty || own) {
                    break;
                }
                (at, own) = (first - 1, false);
            }
        }
        Ok(())
    }
}

/// The numbers that the context of an event holds for: the first, and the last when another context follows.
fn context_range(connection: &Connection, id: EventId) -> Result<Option<(Sequence, Option<Sequence>)>, Error> {
    let Some((first, _)) = serve::context(connection, id)? else { return Ok(None) };
    let next: Option<i64> = connection
        .prepare_cached("SELECT first FROM _rowcast_contexts WHERE origin = ?1 AND ?2 < first ORDER BY first LIMIT 1")
        .and_then(|mut statement| {
            statement.query_row((id.origin.to_string(), signed(id.sequence)), |row| row.get(0)).optional()
        })
        .doing("read a context")?;
    Ok(Some((first, next.map(|next| unsigned(next) - 1))))
}

/// Whether any event of an origin is stored between two numbers.
fn has_events(
    connection: &Connection,
    tables: &[String],
    origin: NodeId,
    first: Sequence,
    last: Sequence,
) -> Result<bool, Error> {
    let range = [first, last].map(|sequence| EventId { origin, sequence }.to_string());
    let names = tables.iter().map(|table| event_table::name(table)).chain([strays::STRAYS.to_owned()]);
    for name in names {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE ?1 <= id AND id <= ?2)", quoted(&name));
        let found: bool = connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([&range[0], &range[1]], |row| row.get(0)))
            .doing("look for events")?;
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
