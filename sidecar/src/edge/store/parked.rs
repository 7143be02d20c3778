//! Parked events: stored, not applied, with the reason.

use rowcast_schema::bookkeeping;
use rusqlite::Connection;

use super::error::{Doing as _, Error, damaged};
use super::replicated::Replicated;
use super::tx::{Place, Tx, event_id};
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Version};

/// Why an event is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// A record with a greater version holds a UNIQUE value that it claims.
    Unique,
    /// The table's rules forbid the row here.
    Constraint,
    /// Its timestamp lies too far ahead.
    Clock,
    /// The table is not in this database (yet), or has another key.
    Schema,
}

impl ParkReason {
    /// As the column `reason` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Constraint => "constraint",
            Self::Clock => "clock",
            Self::Schema => "schema",
        }
    }
}

/// A parked event.
#[derive(Clone, Debug)]
pub struct ParkedEvent {
    /// Which one.
    pub id: EventId,
    /// Its table, as declared.
    pub table: String,
    /// Why, as it was last found.
    pub reason: String,
}

impl Tx<'_> {
    /// Parks a stored event, with its reason.
    pub fn park(
        &mut self,
        place: &Place<'_>,
        event: &Event,
        why: (ParkReason, &str),
        now: Timestamp,
    ) -> Result<(), Error> {
        self.set_processed(place.table, place.id, false)?;
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO _rowcast_parked (event, table_name, record_id, reason, detail, parked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (event) DO UPDATE SET reason = excluded.reason, detail = excluded.detail",
            )
            .and_then(|mut statement| {
                statement.execute((
                    place.id.to_string(),
                    &place.table.name,
                    &event.record_id,
                    why.0.as_str(),
                    why.1,
                    now.millis(),
                ))
            })
            .doing("park an event")?;
        debug_assert_eq!(added, 1);
        self.count_parked()
    }

    /// Takes an event out of the parked ones: it is applied, or superseded.
    pub fn unpark(&mut self, table: &Replicated, id: EventId) -> Result<(), Error> {
        self.set_processed(table, id, true)?;
        self.connection
            .prepare_cached("DELETE FROM _rowcast_parked WHERE event = ?1")
            .and_then(|mut statement| statement.execute([id.to_string()]))
            .doing("unpark an event")?;
        self.count_parked()
    }

    /// The greatest parked event of a record.
    pub fn greatest_parked(&self, table: &Replicated, record_id: &str) -> Result<Option<Version>, Error> {
        if self.durable.parked == 0 {
            return Ok(None);
        }
        let ids = self
            .connection
            .prepare_cached("SELECT event FROM _rowcast_parked WHERE table_name = ?1 AND record_id = ?2")
            .and_then(|mut statement| {
                statement
                    .query_map((&table.name, record_id), |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<String>>>()
            })
            .doing("find the parked events of a record")?;
        let mut greatest = None;
        for id in ids {
            let id = event_id(&id).ok_or_else(|| damaged(bookkeeping::PARKED, id))?;
            let version = self.event(table, id)?.map(|(event, _)| Version {
                timestamp: event.timestamp,
                origin: id.origin,
                sequence: id.sequence,
            });
            greatest = greatest.max(version);
        }
        Ok(greatest)
    }

    fn count_parked(&mut self) -> Result<(), Error> {
        (self.durable.parked, self.durable.doubtful) = count(self.connection)?;
        Ok(())
    }

    /// Parked events with one of these reasons, at most `limit`.
    pub fn parked(&self, reasons: &[ParkReason], limit: usize) -> Result<Vec<ParkedEvent>, Error> {
        let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
        let reasons = serde_json::to_string(&reasons).expect("bug: words have a JSON form");
        // Those that were tried last come last: one that can never be applied keeps no other from being tried.
        let found = self
            .connection
            .prepare_cached(
                "SELECT event, table_name, reason FROM _rowcast_parked
                 WHERE reason IN (SELECT value FROM json_each(?2)) ORDER BY parked_at, event LIMIT ?1",
            )
            .and_then(|mut statement| {
                statement
                    .query_map((limit, &reasons), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect::<rusqlite::Result<Vec<(String, String, String)>>>()
            })
            .doing("list the parked events")?;
        let event = |(id, table, reason): (String, String, String)| {
            event_id(&id).map(|id| ParkedEvent { id, table, reason }).ok_or_else(|| damaged(bookkeeping::PARKED, id))
        };
        found.into_iter().map(event).collect()
    }
}

/// The number of parked events, and how many of them wait because of their timestamps.
pub(super) fn count(connection: &Connection) -> Result<(u64, u64), Error> {
    connection
        .prepare_cached("SELECT count(*), count(*) FILTER (WHERE reason = 'clock') FROM _rowcast_parked")
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .doing("count the parked events")
}
