//! Compares rows with their content by the events, in short transactions.
//!
//! Whose word counts depends on why they may differ:
//! - where the triggers were not there all the time (a schema change), and for announced tables always, the row is the
//!   truth and the difference becomes an event;
//! - on a node that has just loaded everything from the others, the events are the truth, and only a row that no event
//!   knows becomes one.

use rowcast_schema::record;
use rowcast_schema::value::Value;

use crate::clock::Timestamp;
use crate::edge::store::{Error, Replicated, Shape, Tx, Want, Written};
use crate::event::Operation;
use crate::flow::apply::Applier;
use crate::flow::capture::compared::{self, Found};
use crate::flow::capture::{self, Change};
use crate::flow::ingest::{self, Ingested};
use crate::limits;

/// Whose word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The row: a difference becomes an event, stamped now. What a migration did by itself is told apart.
    Row(Want),
    /// The row, from before this node was complete: it becomes an event with the lowest stamps.
    RowFromBefore,
    /// The events: the row is made what they say. A row that no event knows becomes an event, stamped now: later than any
    /// delete of its record that is compacted already.
    Events,
}

/// How far a reconciliation has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The table, as declared.
    pub table: String,
    /// Whose word counts.
    pub truth: Truth,
    /// The change of the schema that it answers; 0: none.
    pub round: i64,
    /// What is looked at now.
    pub at: Phase,
    /// Rows and records looked at so far.
    pub seen: u64,
}

/// The two walks of a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Over the rows, after this key.
    Rows(Option<Vec<Value>>),
    /// Over the records that events know, after this record id: finds rows that are gone.
    Records(Option<String>),
}

impl Cursor {
    /// At the beginning.
    pub fn start(table: String, truth: Truth, round: i64) -> Self {
        Self { table, truth, round, at: Phase::Rows(None), seen: 0 }
    }
}

/// Goes on by a bounded number of rows. Answers where to go on next, or `None` at the end, and what was ingested.
///
/// # Errors
/// When the database fails.
pub fn step(tx: &mut Tx<'_>, cursor: Cursor, now: Timestamp) -> Result<(Option<Cursor>, Vec<Ingested>), Error> {
    let Some(table) = tx.tables().get(&cursor.table).cloned() else { return Ok((None, Vec::new())) };
    let Some(shape) = &table.shape else { return Ok((None, Vec::new())) };
    let walk = Walk { table: &table, shape, truth: &cursor.truth, now };
    let (next, seen, found) = match cursor.at {
        Phase::Rows(after) => walk.rows(tx, after)?,
        Phase::Records(after) => walk.records(tx, after)?,
    };
    let (mut changes, mut carried) = (Vec::new(), Vec::new());
    for found in found {
        match found {
            Found::Same | Found::Restore => {}
            Found::Change(change) => changes.push(change),
            Found::Carried(change, at) => carried.push((change, at)),
        }
    }
    let ingested = vec![ingest::changes(tx, changes, now)?, ingest::carried(tx, carried)?];
    let seen = cursor.seen + seen as u64;
    let next = next.map(|at| Cursor { table: cursor.table, truth: cursor.truth, round: cursor.round, at, seen });
    Ok((next, ingested))
}

/// Where to go on, how many were looked at, and what they were found to be.
type Page = (Option<Phase>, usize, Vec<Found>);

struct Walk<'a> {
    table: &'a Replicated,
    shape: &'a Shape,
    truth: &'a Truth,
    now: Timestamp,
}

impl Walk<'_> {
    fn rows(&self, tx: &mut Tx<'_>, after: Option<Vec<Value>>) -> Result<Page, Error> {
        let (rows, more) = tx.rows_after(self.shape, after.as_deref(), limits::RECONCILE_ROWS_MAX)?;
        let mut found = Vec::new();
        for row in &rows {
            found.push(self.look_at_row(tx, row)?);
        }
        let next = match rows.last() {
            Some(last) if more => Phase::Rows(Some(self.shape.key_of(last))),
            _ => Phase::Records(None),
        };
        Ok((Some(next), rows.len(), found))
    }

    fn look_at_row(&self, tx: &mut Tx<'_>, row: &[Value]) -> Result<Found, Error> {
        let key = self.shape.key_of(row);
        let change = match self.truth {
            Truth::RowFromBefore => capture::difference(tx, self.table, self.shape, &key, None)?,
            Truth::Row(want) => return self.compare(tx, &key, want),
            Truth::Events => self.obey(tx, &key, Some(row))?,
        };
        Ok(change.map_or(Found::Same, Found::Change))
    }

    fn compare(&self, tx: &mut Tx<'_>, key: &[Value], want: &Want) -> Result<Found, Error> {
        let found = compared::row(tx, (self.table, self.shape, want), key, self.now)?;
        if found == Found::Restore {
            let record_id = self.shape.record_id_of_key(key);
            Applier::new(tx, self.now).settle(self.table, self.shape, &record_id)?;
        }
        Ok(found)
    }

    /// Makes the row what the events say; a row that they do not know becomes an event.
    fn obey(&self, tx: &mut Tx<'_>, key: &[Value], row: Option<&[Value]>) -> Result<Option<Change>, Error> {
        let record_id = self.shape.record_id_of_key(key);
        if tx.is_kept_out(self.table, &record_id)? || tx.large_row(self.table, self.shape, &record_id)?.is_some() {
            return Ok(None);
        }
        let content = tx.content(self.table, self.shape, &record_id)?;
        if content.is_none() && !tx.parked_of(self.table, &record_id)?.is_empty() {
            return Ok(None); // What is known of it waits, and is not overtaken by what was here before.
        }
        let Some(content) = content else {
            return Ok(row.map(|row| Change {
                table: self.table.name.clone(),
                operation: Operation::Create,
                record_id,
                data: Some(record::row_to_json(&self.shape.layout.columns, row)),
                layout: self.shape.layout.id,
                changed: -1,
                at: Some(self.now),
            }));
        };
        match (content.cells, row) {
            (None, Some(_)) => tx.delete(self.shape, key)?,
            (Some(cells), row) => {
                let same = row.is_some_and(|row| {
                    cells.iter().zip(row).all(|(cell, held)| cell.as_ref().is_none_or(|cell| cell == held))
                });
                if !same {
                    // With regard to who else claims its UNIQUE values.
                    Applier::new(tx, self.now).settle(self.table, self.shape, &record_id)?;
                }
                // What was here before the events came stands in no column of which they say nothing, as on the other nodes.
                let written = tx.empty_untold(self.shape, key, &cells)?;
                if !matches!(written, Written::Done) {
                    tracing::warn!(
                        table = self.table.name,
                        record = record_id,
                        outcome = ?written,
                        "a row holds what no event says, and could not be mended"
                    );
                }
            }
            (None, None) => {}
        }
        Ok(None)
    }

    fn records(&self, tx: &mut Tx<'_>, after: Option<String>) -> Result<Page, Error> {
        let records = tx.records_after(self.table, after.as_deref(), limits::RECONCILE_ROWS_MAX)?;
        let mut found = Vec::new();
        for record_id in &records {
            let Ok(key) = record::parse_record_id(record_id, &self.shape.key) else { continue };
            if tx.row(self.shape, &key)?.is_some() {
                continue; // Looked at in the first walk.
            }
            let change = match self.truth {
                Truth::Events => self.obey(tx, &key, None)?,
                Truth::RowFromBefore => capture::difference(tx, self.table, self.shape, &key, None)?,
                Truth::Row(want) => {
                    found.push(self.compare(tx, &key, want)?);
                    continue;
                }
            };
            found.extend(change.map(Found::Change));
        }
        let more = records.len() == limits::RECONCILE_ROWS_MAX;
        let seen = records.len();
        Ok((records.into_iter().last().filter(|_| more).map(|last| Phase::Records(Some(last))), seen, found))
    }
}
