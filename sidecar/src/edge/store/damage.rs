//! What is needed to mend a damaged record: the proof that no change went unseen, the record of what stood there, and
//! an event put back.
//!
//! The proof, per table: its triggers are those that belong to it, and since a comparison of all its rows with their events
//! ended, the schema has not been touched. Then a row that differs was not written by a service with its triggers on.

use std::collections::HashMap;

use rowcast_schema::declaration::Capture;
use rowcast_schema::journal;
use rowcast_schema::value::Value;
use rowcast_schema::{OWN_PREFIX, record};

use super::digest::is_as_said;
use super::error::{Doing as _, Error};
use super::replicated::{Replicated, Shape};
use super::tx::{Place, Tx};
use super::{install, state};
use crate::clock::Timestamp;
use crate::event::Event;

/// What stood where a record was mended; kept in `_rowcast_mended`.
#[derive(Clone, Debug)]
pub struct Kept<'a> {
    /// The record id.
    pub record: &'a str,
    /// What was mended: the row, or an event.
    pub what: &'a str,
    /// What stood there, as JSON; none where nothing did.
    pub found: Option<String>,
    /// What stands there now.
    pub made: Option<String>,
}

/// The rows of `_rowcast_mended` that are kept: the newest.
const KEPT_MAX: u32 = 10_000;

impl Tx<'_> {
    /// The version of the schema, which every change of it raises.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn schema_version(&self) -> Result<i64, Error> {
        install::schema_version(self.connection)
    }

    /// Whether the rows of a table wait to be compared, because its triggers were not there all the time.
    pub fn is_pending(&self, table: &Replicated) -> bool {
        self.pending.iter().any(|pending| pending.table == table.name)
    }

    /// Whether the triggers of a table were there all the time since its rows were last known to agree with its events.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn is_proved(&self, table: &Replicated) -> Result<bool, Error> {
        if self.is_pending(table) || !self.durable.loaded || table.declared.capture != Capture::Triggers {
            return Ok(false);
        }
        let proved = state::state(self.connection, &key(&table.name))?;
        Ok(proved == Some(self.schema_version()?.to_string()) && self.triggers_fit(table)?)
    }

    /// Notes that all rows of a table agree with its events, compared since the schema was at `version`.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn prove(&self, table: &str, version: i64) -> Result<(), Error> {
        let Some(table) = self.tables().get(table) else { return Ok(()) };
        let text = version.to_string();
        if version == self.schema_version()?
            && self.triggers_fit(table)?
            && state::state(self.connection, &key(&table.name))?.as_ref() != Some(&text)
        {
            state::set_state(self.connection, &key(&table.name), &text)?;
        }
        Ok(())
    }

    /// Whether the triggers are what they should be: `PRAGMA writable_schema` changes them without a trace.
    fn triggers_fit(&self, table: &Replicated) -> Result<bool, Error> {
        let Some(shape) = &table.shape else { return Ok(false) };
        if table.declared.capture != Capture::Triggers {
            return Ok(true);
        }
        let present: HashMap<String, String> = self
            .connection
            .prepare_cached(
                "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
                 AND substr(name, 1, ?2) = ?3",
            )
            .and_then(|mut statement| {
                statement
                    .query_map((&shape.table.name, OWN_PREFIX.len(), OWN_PREFIX), |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .doing("list the triggers")?;
        Ok(journal::triggers(&shape.table, &shape.layout)
            .iter()
            .all(|trigger| present.get(&trigger.name) == Some(&trigger.sql)))
    }

    /// Whether the row with that key is what these cells say; no cells: that it is not there.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn is_as_said(&self, shape: &Shape, key: &[Value], said: Option<&[Option<Value>]>) -> Result<bool, Error> {
        Ok(match (said, self.row(shape, key)?) {
            (None, None) => true,
            (Some(said), Some(row)) => is_as_said(shape, said, &row),
            _ => false,
        })
    }

    /// The row of a record as JSON.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn row_json(&self, shape: &Shape, key: &[Value]) -> Result<Option<String>, Error> {
        Ok(self.row(shape, key)?.map(|row| record::row_to_json(&shape.layout.columns, &row)))
    }

    /// Keeps what stood where something is mended, so that nothing is lost by it.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn keep_found(&self, table: &Replicated, kept: &Kept<'_>, now: Timestamp) -> Result<(), Error> {
        self.connection
            .prepare_cached(
                "INSERT INTO _rowcast_mended (at, table_name, record_id, what, found, made) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )
            .and_then(|mut statement| {
                statement.execute((now.millis(), &table.name, kept.record, kept.what, &kept.found, &kept.made))
            })
            .and_then(|_| {
                self.connection
                    .prepare_cached("DELETE FROM _rowcast_mended WHERE n <= (SELECT max(n) FROM _rowcast_mended) - ?1")?
                    .execute([KEPT_MAX])
            })
            .doing("keep what stood where a record is mended")
            .map(drop)
    }

    /// Makes a stored event what another node says it is.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn replace_event(&self, place: &Place<'_>, event: &Event) -> Result<(), Error> {
        let name = rowcast_schema::identifier::quoted(&rowcast_schema::event_table::name(&place.table.name));
        let id = place.id.to_string();
        self.connection
            .execute(&format!("DELETE FROM {name} WHERE id = ?1"), [&id])
            .doing(format!("take out event {id}"))?;
        self.insert_event(place, event).map(drop)
    }
}

/// Where it is kept how far a table's events were proved.
pub(super) fn key(table: &str) -> String {
    format!("proved:{table}")
}
