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
use crate::edge::store::{Error, Replicated, Shape, Tx, Written};
use crate::event::Operation;
use crate::flow::apply::Applier;
use crate::flow::capture::{self, Change};
use crate::flow::ingest::{self, Ingested};
use crate::limits;

/// Whose word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The row: a difference becomes an event, stamped now. A column listed here that has only its default is filled from
    /// the events instead.
    Row(Vec<String>),
    /// The row, from before this node was complete: it becomes an event with the lowest stamps.
    RowFromBefore,
    /// The events: the row is made what they say. A row that no event knows becomes an event with the lowest stamps.
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
        Self { table, truth, round, at: Phase::Rows(None) }
    }
}

/// Goes on by a bounded number of rows. Answers where to go on next, or `None` at the end, and what was ingested.
///
/// # Errors
/// When the database fails.
pub fn step(tx: &mut Tx<'_>, cursor: Cursor, now: Timestamp) -> Result<(Option<Cursor>, Ingested), Error> {
    let Some(table) = tx.tables().get(&cursor.table).cloned() else { return Ok((None, Ingested::default())) };
    let Some(shape) = &table.shape else { return Ok((None, Ingested::default())) };
    let walk = Walk { table: &table, shape, truth: &cursor.truth, now };
    let (next, changes) = match cursor.at {
        Phase::Rows(after) => walk.rows(tx, after)?,
        Phase::Records(after) => walk.records(tx, after)?,
    };
    let ingested = ingest::changes(tx, changes, now)?;
    Ok((next.map(|at| Cursor { table: cursor.table, truth: cursor.truth, round: cursor.round, at }), ingested))
}

struct Walk<'a> {
    table: &'a Replicated,
    shape: &'a Shape,
    truth: &'a Truth,
    now: Timestamp,
}

impl Walk<'_> {
    fn rows(&self, tx: &mut Tx<'_>, after: Option<Vec<Value>>) -> Result<(Option<Phase>, Vec<Change>), Error> {
        let rows = tx.rows_after(self.shape, after.as_deref(), limits::RECONCILE_ROWS_MAX)?;
        let mut changes = Vec::new();
        for row in &rows {
            changes.extend(self.look_at_row(tx, row)?);
        }
        let more = rows.len() == limits::RECONCILE_ROWS_MAX;
        let next = match rows.last() {
            Some(last) if more => Phase::Rows(Some(self.shape.key_of(last))),
            _ => Phase::Records(None),
        };
        Ok((Some(next), changes))
    }

    fn look_at_row(&self, tx: &mut Tx<'_>, row: &[Value]) -> Result<Option<Change>, Error> {
        let key = self.shape.key_of(row);
        match self.truth {
            Truth::RowFromBefore => capture::difference(tx, self.table, self.shape, &key, None),
            Truth::Row(new_columns) => {
                if !new_columns.is_empty() {
                    self.fill(tx, row, new_columns)?;
                }
                capture::difference(tx, self.table, self.shape, &key, Some(self.now))
            }
            Truth::Events => self.obey(tx, &key, Some(row)),
        }
    }

    /// Gives new columns that have only their default what the events say.
    fn fill(&self, tx: &mut Tx<'_>, row: &[Value], new_columns: &[String]) -> Result<(), Error> {
        let Some(content) = tx.content(self.table, self.shape, &self.shape.record_id(row))? else { return Ok(()) };
        let Some(content) = content.cells else { return Ok(()) };
        let mut cells: Vec<Option<Value>> = row.iter().cloned().map(Some).collect();
        let mut filled = false;
        for column in new_columns {
            let Some(at) = self.shape.layout.place(column) else { continue };
            if row[at] == self.shape.defaults[at]
                && let Some(value) = &content[at]
                && *value != row[at]
            {
                cells[at] = Some(value.clone());
                filled = true;
            }
        }
        if filled {
            self.written(tx.upsert_some(self.shape, &cells)?, row);
        }
        Ok(())
    }

    /// Makes the row what the events say; a row that they do not know becomes an event.
    fn obey(&self, tx: &mut Tx<'_>, key: &[Value], row: Option<&[Value]>) -> Result<Option<Change>, Error> {
        let record_id = self.shape.record_id_of_key(key);
        if tx.is_kept_out(self.table, &record_id)? {
            return Ok(None);
        }
        let Some(content) = tx.content(self.table, self.shape, &record_id)? else {
            return Ok(row.map(|row| Change {
                table: self.table.name.clone(),
                operation: Operation::Create,
                record_id,
                data: Some(record::row_to_json(&self.shape.layout.columns, row)),
                layout: self.shape.layout.id,
                changed: -1,
                at: None,
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
            }
            (None, None) => {}
        }
        Ok(None)
    }

    fn written(&self, written: Written, row: &[Value]) {
        match written {
            Written::Done => {}
            other => tracing::warn!(
                table = self.table.name,
                record = ?row.first(),
                outcome = ?other,
                "a row differs from its events and could not be mended"
            ),
        }
    }

    fn records(&self, tx: &mut Tx<'_>, after: Option<String>) -> Result<(Option<Phase>, Vec<Change>), Error> {
        let records = tx.records_after(self.table, after.as_deref(), limits::RECONCILE_ROWS_MAX)?;
        let mut changes = Vec::new();
        for record_id in &records {
            let Ok(key) = record::parse_record_id(record_id, &self.shape.key) else { continue };
            if tx.row(self.shape, &key)?.is_some() {
                continue; // Looked at in the first walk.
            }
            changes.extend(match self.truth {
                Truth::Events => self.obey(tx, &key, None)?,
                Truth::RowFromBefore => capture::difference(tx, self.table, self.shape, &key, None)?,
                Truth::Row(_) => capture::difference(tx, self.table, self.shape, &key, Some(self.now))?,
            });
        }
        let more = records.len() == limits::RECONCILE_ROWS_MAX;
        Ok((records.into_iter().last().filter(|_| more).map(|last| Phase::Records(Some(last))), changes))
    }
}
