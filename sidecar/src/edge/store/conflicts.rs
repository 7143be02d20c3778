//! Conflicts that were met: which two events, of which record, and which of them holds it. A bounded number is kept.

use std::path::Path;

use rowcast_schema::bookkeeping;
use rusqlite::Connection;
use serde::Serialize;

use super::error::{Doing as _, Error};
use super::open;
use super::replicated::Replicated;
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::event::EventId;
use crate::limits;

/// Two events of one record whose authors did not know of each other's.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    /// The record.
    pub record_id: &'a str,
    /// The event that holds it.
    pub winner: EventId,
    /// The one that was given up.
    pub loser: EventId,
    /// The rule by which it was decided, as the schema TOML has it.
    pub rule: &'a str,
}

impl Met<'_> {
    /// The same on every node, whichever event came first there.
    fn id(&self) -> String {
        let (lesser, greater) = (self.winner.min(self.loser), self.winner.max(self.loser));
        format!("{lesser}/{greater}")
    }
}

impl Tx<'_> {
    /// Keeps a conflict. The oldest beyond [`limits::CONFLICTS_KEPT`] go.
    pub fn keep_conflict(&mut self, table: &Replicated, met: Met<'_>, now: Timestamp) -> Result<(), Error> {
        let kept = self
            .connection
            .prepare_cached(
                "INSERT INTO _rowcast_conflicts (id, table_name, record_id, winner, loser, rule, met_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
            )
            .and_then(|mut statement| {
                let (winner, loser) = (met.winner.to_string(), met.loser.to_string());
                statement.execute((met.id(), &table.name, met.record_id, winner, loser, met.rule, now.millis()))
            })
            .doing("keep a conflict")?;
        if kept > 0 {
            let oldest = self.connection.last_insert_rowid() - limits::CONFLICTS_KEPT;
            self.connection
                .prepare_cached("DELETE FROM _rowcast_conflicts WHERE n <= ?1")
                .and_then(|mut statement| statement.execute([oldest]))
                .doing("forget the oldest conflicts")?;
        }
        Ok(())
    }
}

/// A conflict, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConflictRow {
    /// The same on every node.
    pub id: String,
    /// The table.
    pub table: String,
    /// The record.
    pub record: String,
    /// The event that holds the record: its id in the event table.
    pub winner: String,
    /// The event that was given up.
    pub loser: String,
    /// By which rule.
    pub rule: String,
    /// When it was met here: milliseconds since 1970.
    pub met: i64,
}

/// The conflicts that were met on this node, the newest first, at most `limit`.
///
/// # Errors
/// When the file is missing, or Rowcast never ran on it.
pub fn conflicts(path: &Path, limit: usize) -> Result<Vec<ConflictRow>, Error> {
    let connection = open::for_reading(path)?;
    refuse_stranger(&connection, path)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(ConflictRow {
            id: row.get(0)?,
            table: row.get(1)?,
            record: row.get(2)?,
            winner: row.get(3)?,
            loser: row.get(4)?,
            rule: row.get(5)?,
            met: row.get(6)?,
        })
    };
    connection
        .prepare(
            "SELECT id, table_name, record_id, winner, loser, rule, met_at FROM _rowcast_conflicts
             ORDER BY n DESC LIMIT ?1",
        )
        .and_then(|mut statement| statement.query_map([limit], read)?.collect())
        .doing("list the conflicts")
}

fn refuse_stranger(connection: &Connection, path: &Path) -> Result<(), Error> {
    if connection.table_exists(None, bookkeeping::CONFLICTS).doing("look for Rowcast's tables")? {
        return Ok(());
    }
    Err(Error::Unusable {
        path: path.to_owned(),
        reason: "it has none of Rowcast's tables".to_owned(),
        fix: "name the database of a service that a sidecar runs beside".to_owned(),
    })
}
