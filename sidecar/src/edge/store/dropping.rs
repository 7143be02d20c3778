//! Events here that another node had, and has no more: they were superseded there and compacted, and are taken out here,
//! too.

use std::collections::BTreeSet;

use rowcast_schema::identifier::quoted;
use rowcast_schema::{bookkeeping, event_table};
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use super::error::{Doing as _, Error, damaged};
use super::replicated::Replicated;
use super::state;
use super::tx::{Tx, event_id};
use crate::clock::Timestamp;
use crate::event::{EventId, Operation, Version};
use crate::position::{NodeId, Vector};

/// An event that is stored, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Which one, and its place in the order.
    pub version: Version,
    /// Its record.
    pub record_id: String,
    /// What it did.
    pub operation: Operation,
}

/// Some events, by record.
#[derive(Debug)]
pub struct StoredPage {
    /// All events of each record.
    pub events: Vec<Stored>,
    /// The record to go on after; none when these were the last.
    pub next: Option<String>,
}

/// Where it stands that everything has to be loaded again.
const LOAD_AGAIN: &str = "load_again";

/// Where it stands what is to be reached before what was loaded is whole.
const LOAD_TARGET: &str = "load_target";

impl Store {
    /// Whether this node, which had everything once, has to load everything again; and then the ids that it had before.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn must_load_again(&self) -> Result<Option<BTreeSet<NodeId>>, Error> {
        read(&self.connection, LOAD_AGAIN)
    }
}

/// What is to be reached before what was loaded is whole; empty when it is.
pub(super) fn load_target(connection: &Connection) -> Result<Vector, Error> {
    read(connection, LOAD_TARGET).map(Option::unwrap_or_default)
}

fn read<T: DeserializeOwned>(connection: &Connection, key: &str) -> Result<Option<T>, Error> {
    let text = state::state(connection, key)?;
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| damaged(bookkeeping::STATE, error))
}

impl Tx<'_> {
    /// Notes that everything has to be loaded again, with the ids that this node had before; or that it is loaded.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_load_again(&self, left: Option<&BTreeSet<NodeId>>) -> Result<(), Error> {
        self.note_or_forget(LOAD_AGAIN, left)
    }

    /// Notes what is to be reached before what was loaded is whole, or that it is.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_load_target(&mut self, target: Option<&Vector>) -> Result<(), Error> {
        self.durable.load_target = target.cloned().unwrap_or_default();
        self.note_or_forget(LOAD_TARGET, target)
    }

    fn note_or_forget<T: Serialize>(&self, key: &str, value: Option<&T>) -> Result<(), Error> {
        let json = |value| serde_json::to_string(value).expect("bug: lists of node ids have a JSON form");
        match value {
            Some(value) => state::set_state(self.connection, key, &json(value)),
            None => self.forget_state(key),
        }
    }

    /// All events of the records after one and up to another one; without it, to the end. Some `limit` of them, but all of
    /// each record, by their timestamps.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn events_of_records(
        &self,
        table: &Replicated,
        after: Option<&str>,
        until: Option<&str>,
        limit: usize,
    ) -> Result<StoredPage, Error> {
        // No record id is empty: the empty text stands before the first.
        let after = after.unwrap_or_default();
        let mut events = self.stored_between(table, (after, until), Some(limit))?;
        if events.len() < limit {
            return Ok(StoredPage { events, next: None });
        }
        let last = events.pop().map(|event| event.record_id).unwrap_or_default();
        events.retain(|event| event.record_id != last);
        let next = match events.last() {
            Some(event) => event.record_id.clone(),
            None => {
                events = self.stored_between(table, (after, Some(&last)), None)?;
                last
            }
        };
        Ok(StoredPage { events, next: Some(next) })
    }

    fn stored_between(
        &self,
        table: &Replicated,
        (after, until): (&str, Option<&str>),
        limit: Option<usize>,
    ) -> Result<Vec<Stored>, Error> {
        let sql = format!(
            "SELECT id, record_id, operation_type, timestamp FROM {} WHERE ?1 < record_id AND (?2 IS NULL OR record_id <= ?2)
             ORDER BY record_id, timestamp LIMIT ?3",
            quoted(&event_table::name(&table.name))
        );
        let limit = limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Vec<(String, String, String, i64)> = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_map((after, until, limit), row)?.collect()
            })
            .doing(format!("read the events of `{}`", table.name))?;
        let stored = |(id, record_id, operation, timestamp): (String, String, String, i64)| {
            let broken = || damaged(event_table::name(&table.name), &id);
            let EventId { origin, sequence } = event_id(&id).ok_or_else(broken)?;
            Ok(Stored {
                version: Version { timestamp: Timestamp(timestamp), origin, sequence },
                record_id,
                operation: Operation::parse(&operation).ok_or_else(broken)?,
            })
        };
        let mut stored: Vec<Stored> = rows.into_iter().map(stored).collect::<Result<_, _>>()?;
        stored.sort_by(|one, other| (&one.record_id, one.version).cmp(&(&other.record_id, other.version)));
        Ok(stored)
    }

    /// Takes events out, parked or not.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn drop_events(&mut self, table: &Replicated, ids: &[EventId]) -> Result<(), Error> {
        let sql = format!("DELETE FROM {} WHERE id = ?1", quoted(&event_table::name(&table.name)));
        for id in ids {
            let id = id.to_string();
            for sql in [sql.as_str(), "DELETE FROM _rowcast_parked WHERE event = ?1"] {
                self.connection
                    .prepare_cached(sql)
                    .and_then(|mut statement| statement.execute([&id]))
                    .doing(format!("take out event {id}"))?;
            }
        }
        self.recount_parked()
    }
}
