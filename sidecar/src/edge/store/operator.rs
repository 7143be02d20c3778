//! What an operator sees and asks of parked events, beside a running sidecar: through SQLite alone.
//!
//! A wish is a mark on the parked event. The sidecar looks for marks once a second, and at its next start.

use std::path::Path;

use rowcast_schema::identifier::quoted;
use rowcast_schema::{bookkeeping, event_table};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

use super::error::{Doing as _, Error};
use super::open;

/// A parked event, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedRow {
    /// Its id in its event table.
    pub event: String,
    /// The table.
    pub table: String,
    /// The record.
    pub record: String,
    /// The node that made it.
    pub origin: String,
    /// Its number there.
    pub sequence: u64,
    /// `unique`, `constraint`, `clock`, `schema` or `size`.
    pub reason: String,
    /// In words.
    pub detail: String,
    /// Since when: milliseconds since 1970.
    pub since: i64,
    /// When it was last tried: milliseconds since 1970.
    pub tried: i64,
    /// The size of its row as JSON, in bytes.
    pub bytes: u64,
    /// Whether it is to be dropped, and is not yet.
    pub dropping: bool,
}

/// The parked events, those that wait for the longest time first, at most `limit`; and how many there are.
///
/// # Errors
/// When the file is missing, or Rowcast never ran on it.
pub fn parked(path: &Path, limit: usize) -> Result<(Vec<ParkedRow>, u64), Error> {
    let connection = open::for_reading(path)?;
    refuse_stranger(&connection, path)?;
    let doing = || "list the parked events";
    let mut statement = connection
        .prepare(
            "SELECT event, table_name, record_id, substr(event, 1, 36), reason, detail, parked_at, tried_at, dropping
             FROM _rowcast_parked ORDER BY parked_at, event LIMIT ?1",
        )
        .doing(doing())?;
    let read = |row: &rusqlite::Row<'_>| {
        let event: String = row.get(0)?;
        let sequence = event.get(37..).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
        Ok(ParkedRow {
            event,
            table: row.get(1)?,
            record: row.get(2)?,
            origin: row.get(3)?,
            sequence,
            reason: row.get(4)?,
            detail: row.get(5)?,
            since: row.get(6)?,
            tried: row.get(7)?,
            bytes: 0,
            dropping: row.get(8)?,
        })
    };
    let found: rusqlite::Result<Vec<ParkedRow>> = statement.query_map([limit], read).doing(doing())?.collect();
    let mut found = found.doing(doing())?;
    for row in &mut found {
        row.bytes = size(&connection, row)?;
    }
    let all = connection.query_row("SELECT count(*) FROM _rowcast_parked", [], |row| row.get(0)).doing(doing())?;
    Ok((found, all))
}

/// The bytes of an event's row.
fn size(connection: &Connection, row: &ParkedRow) -> Result<u64, Error> {
    let events = event_table::name(&row.table);
    if !connection.table_exists(None, events.as_str()).doing("look for an event table")? {
        return Ok(0);
    }
    let sql = format!("SELECT coalesce(length(CAST(data AS BLOB)), 0) FROM {} WHERE id = ?1", quoted(&events));
    connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([&row.event], |row| row.get(0)).optional())
        .doing("look at a parked event")
        .map(Option::unwrap_or_default)
}

/// Has all parked events, or one, tried as soon as the sidecar looks. Answers how many.
///
/// # Errors
/// When the file is missing, Rowcast never ran on it, or it is busy for too long.
pub fn retry_parked(path: &Path, event: Option<&str>) -> Result<usize, Error> {
    mark(path, "UPDATE _rowcast_parked SET due = 1 WHERE ?1 IS NULL OR event = ?1", event)
}

/// Has one parked event given up: what is here of its record counts from then on, on every node. Answers whether it is
/// one that can be.
///
/// # Errors
/// When the file is missing, Rowcast never ran on it, or it is busy for too long.
pub fn drop_parked(path: &Path, event: &str) -> Result<bool, Error> {
    // One from the future would win over whatever is written now.
    let sql = "UPDATE _rowcast_parked SET due = 1, dropping = 1 WHERE event = ?1 AND reason <> 'clock'";
    Ok(mark(path, sql, Some(event))? > 0)
}

fn mark(path: &Path, sql: &str, event: Option<&str>) -> Result<usize, Error> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    let connection = open::for_writing(path)?;
    refuse_stranger(&connection, path)?;
    connection.execute(sql, [event]).doing("mark parked events")
}

fn refuse_stranger(connection: &Connection, path: &Path) -> Result<(), Error> {
    if connection.table_exists(None, bookkeeping::PARKED).doing("look for Rowcast's tables")? {
        return Ok(());
    }
    Err(Error::Unusable {
        path: path.to_owned(),
        reason: "it has none of Rowcast's tables".to_owned(),
        fix: "name the database of a service that a sidecar runs beside".to_owned(),
    })
}
