//! Parked events: stored, not applied, with the reason; which of them are to be tried again, and which are superseded.
//!
//! A node with none of them pays nothing: [`Durable::parked`](super::Durable) says so without a look at the database.

use rowcast_schema::{bookkeeping, record};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::error::{Doing as _, Error, damaged};
use super::replicated::{Replicated, Shape};
use super::tx::{Place, Tx, event_id};
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Version};
use crate::limits;
use crate::position::NodeId;

/// Why an event is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// A record with a greater version holds a UNIQUE value that it claims. Its own record is not in the table.
    Unique,
    /// The table's rules forbid the row here. Its record stays what the event before it says.
    Constraint,
    /// Its timestamp lies too far ahead.
    Clock,
    /// The table is not in this database (yet), or has another key.
    Schema,
    /// Its row is too large to travel. On the node that wrote it the row stays as it is.
    Size,
}

impl ParkReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unique, Self::Constraint, Self::Clock, Self::Schema, Self::Size];

    /// As the column `reason` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Constraint => "constraint",
            Self::Clock => "clock",
            Self::Schema => "schema",
            Self::Size => "size",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// Why an event is parked, in full.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    /// The kind of reason.
    pub reason: ParkReason,
    /// In words, for the operator.
    pub detail: &'a str,
    /// Of [`ParkReason::Unique`]: the record that holds the value. When that changes, the event is tried again.
    pub holder: Option<&'a str>,
}

/// A parked event.
#[derive(Clone, Debug)]
pub struct ParkedEvent {
    /// Which one.
    pub id: EventId,
    /// Its place in the order of versions.
    pub version: Version,
    /// Its table, as declared.
    pub table: String,
    /// Why, as it was last found.
    pub reason: ParkReason,
    /// Whether the operator gave it up: a new event is to supersede it.
    pub dropping: bool,
}

const EVENT: &str = "event, timestamp, table_name, reason, dropping FROM _rowcast_parked";

impl Tx<'_> {
    /// Parks a stored event, with its reason. Answers whether it was not parked before.
    pub fn park(&mut self, place: &Place<'_>, event: &Event, why: Why<'_>, now: Timestamp) -> Result<bool, Error> {
        self.set_processed(place.table, place.id, false)?;
        let id = place.id.to_string();
        let before = self.parked_reason(&id)?;
        self.connection
            .prepare_cached(
                "INSERT INTO _rowcast_parked
                   (event, table_name, record_id, reason, detail, parked_at, timestamp, holder, due, tried_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?6)
                 ON CONFLICT (event) DO UPDATE SET reason = excluded.reason, detail = excluded.detail,
                   holder = excluded.holder, due = 0, tried_at = excluded.tried_at",
            )
            .and_then(|mut statement| {
                statement.execute((
                    id,
                    &place.table.name,
                    &event.record_id,
                    why.reason.as_str(),
                    why.detail,
                    now.millis(),
                    event.timestamp.0,
                    why.holder,
                ))
            })
            .doing("park an event")?;
        self.count_out(before);
        self.durable.parked += 1;
        self.durable.doubtful += u64::from(why.reason == ParkReason::Clock);
        Ok(before.is_none())
    }

    /// Takes an event out of the parked ones: it is applied, or superseded.
    pub fn unpark(&mut self, table: &Replicated, id: EventId) -> Result<(), Error> {
        if self.durable.parked == 0 {
            return Ok(());
        }
        let text = id.to_string();
        let before = self.parked_reason(&text)?;
        if before.is_some() {
            self.set_processed(table, id, true)?;
            self.connection
                .prepare_cached("DELETE FROM _rowcast_parked WHERE event = ?1")
                .and_then(|mut statement| statement.execute([text]))
                .doing("unpark an event")?;
            self.count_out(before);
        }
        Ok(())
    }

    /// Takes a record's parked events below `version` out: they are superseded. Answers which. Those whose row did not travel stay
    /// until the row is what a later event says (`stands`): nothing could be made of them, and they must not be the newest.
    pub fn unpark_below(
        &mut self,
        table: &Replicated,
        record_id: &str,
        version: Version,
        stands: bool,
    ) -> Result<Vec<EventId>, Error> {
        let mut settled = Vec::new();
        for parked in self.parked_of(table, record_id)? {
            if parked.version < version && (stands || parked.reason != ParkReason::Size) {
                self.unpark(table, parked.id)?;
                settled.push(parked.id);
            }
        }
        Ok(settled)
    }

    /// What is in the way of other records may be gone: `record_id` has changed. Those that it kept out are due.
    pub fn stir(&mut self, table: &Replicated, record_id: &str) -> Result<(), Error> {
        if self.durable.parked == 0 {
            return Ok(());
        }
        let stirred = self
            .connection
            .prepare_cached("UPDATE _rowcast_parked SET due = 1 WHERE table_name = ?1 AND holder = ?2")
            .and_then(|mut statement| statement.execute((&table.name, record_id)))
            .doing("look for parked events that a record kept out")?;
        self.durable.due |= stirred > 0;
        Ok(())
    }

    /// An older event of the record has come, which may know columns that the newer ones lack: what the table's rules
    /// forbade of it is due.
    pub fn stir_own(&mut self, table: &Replicated, record_id: &str) -> Result<(), Error> {
        if self.durable.parked == 0 {
            return Ok(());
        }
        let stirred = self
            .connection
            .prepare_cached(
                "UPDATE _rowcast_parked SET due = 1 WHERE table_name = ?1 AND record_id = ?2 AND reason = 'constraint'",
            )
            .and_then(|mut statement| statement.execute((&table.name, record_id)))
            .doing("look for parked events of a record")?;
        self.durable.due |= stirred > 0;
        Ok(())
    }

    /// A record has a newer event, and its row is what that says, or more than it can say (`large`): what was parked of it is
    /// superseded, and what it kept out of the table may come in.
    pub fn settle_parked(
        &mut self,
        table: &Replicated,
        record_id: &str,
        version: Version,
        large: bool,
    ) -> Result<(), Error> {
        if self.durable.parked > 0 {
            self.unpark_below(table, record_id, version, !large)?;
            self.stir(table, record_id)?;
        }
        Ok(())
    }

    fn parked_reason(&self, id: &str) -> Result<Option<ParkReason>, Error> {
        let reason: Option<String> = self
            .connection
            .prepare_cached("SELECT reason FROM _rowcast_parked WHERE event = ?1")
            .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
            .doing("look for a parked event")?;
        reason.map(|reason| ParkReason::parse(&reason).ok_or_else(|| damaged(bookkeeping::PARKED, reason))).transpose()
    }

    /// Whether an event is parked because another record holds its value: it is the newest of its record all the same.
    pub(super) fn waits_for_value(&self, id: &str) -> Result<bool, Error> {
        Ok(self.durable.parked > 0 && self.parked_reason(id)? == Some(ParkReason::Unique))
    }

    /// Counts the parked events anew, after some were taken out with their events.
    pub(super) fn recount_parked(&mut self) -> Result<(), Error> {
        if self.durable.parked > 0 {
            (self.durable.parked, self.durable.doubtful, self.durable.due) = count(self.connection)?;
        }
        Ok(())
    }

    fn count_out(&mut self, before: Option<ParkReason>) {
        self.durable.parked -= u64::from(before.is_some());
        self.durable.doubtful -= u64::from(before == Some(ParkReason::Clock));
    }

    /// The parked events of a record, in no order.
    pub fn parked_of(&self, table: &Replicated, record_id: &str) -> Result<Vec<ParkedEvent>, Error> {
        if self.durable.parked == 0 {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT {EVENT} WHERE table_name = ?1 AND record_id = ?2");
        self.listed(&sql, (&table.name, record_id))
    }

    /// Whether a record is kept out of the table by another one that holds its UNIQUE value.
    pub fn is_kept_out(&self, table: &Replicated, record_id: &str) -> Result<bool, Error> {
        Ok(self.parked_of(table, record_id)?.iter().any(|parked| parked.reason == ParkReason::Unique))
    }

    /// The version of a record's row, where that was written here and is too large to become an event: nobody else has what it
    /// says.
    pub fn large_row(&self, table: &Replicated, shape: &Shape, record_id: &str) -> Result<Option<Version>, Error> {
        let own = |node: NodeId| node == self.durable.node || self.durable.former.contains(&node);
        let is_large = |parked: &ParkedEvent| parked.reason == ParkReason::Size && own(parked.id.origin);
        let parked = self.parked_of(table, record_id)?;
        let Some(version) = parked.into_iter().filter(is_large).map(|parked| parked.version).max() else {
            return Ok(None);
        };
        // The row can have been made from another event since, and that one be parked by now.
        let Ok(key) = record::parse_record_id(record_id, &shape.key) else { return Ok(None) };
        let row = self.row_json(shape, &key)?;
        Ok(row.is_some_and(|row| limits::ROW_BYTES_MAX < row.len()).then_some(version))
    }

    /// The due event of the greatest version.
    pub fn next_due(&mut self) -> Result<Option<ParkedEvent>, Error> {
        if !self.durable.due {
            return Ok(None);
        }
        let found =
            self.listed(&format!("SELECT {EVENT} WHERE due ORDER BY timestamp DESC, event DESC LIMIT 1"), ())?;
        self.durable.due = !found.is_empty();
        Ok(found.into_iter().next())
    }

    /// It was tried, and stays what it is.
    pub fn tried(&mut self, id: EventId, now: Timestamp) -> Result<(), Error> {
        self.connection
            .prepare_cached("UPDATE _rowcast_parked SET due = 0, tried_at = ?2 WHERE event = ?1")
            .and_then(|mut statement| statement.execute((id.to_string(), now.millis())))
            .doing("note that a parked event was tried")
            .map(drop)
    }

    /// Parked events with one of these reasons, at most `limit`: those that were not tried for the longest time.
    pub fn parked(&self, reasons: &[ParkReason], limit: usize) -> Result<Vec<ParkedEvent>, Error> {
        let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
        let reasons = serde_json::to_string(&reasons).expect("bug: words have a JSON form");
        // One that can never be applied keeps no other from being tried.
        let sql = format!(
            "SELECT {EVENT} WHERE reason IN (SELECT value FROM json_each(?2)) ORDER BY tried_at, event LIMIT ?1"
        );
        self.listed(&sql, (limit, &reasons))
    }

    fn listed(&self, sql: &str, bound: impl rusqlite::Params) -> Result<Vec<ParkedEvent>, Error> {
        let found: Vec<(String, i64, String, String, bool)> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
                statement.query_map(bound, read)?.collect()
            })
            .doing("list the parked events")?;
        let event = |(id, timestamp, table, reason, dropping): (String, i64, String, String, bool)| {
            let (Some(id), Some(reason)) = (event_id(&id), ParkReason::parse(&reason)) else {
                return Err(damaged(bookkeeping::PARKED, id));
            };
            let version = Version { timestamp: Timestamp(timestamp), origin: id.origin, sequence: id.sequence };
            Ok(ParkedEvent { id, version, table, reason, dropping })
        };
        found.into_iter().map(event).collect()
    }
}

/// The number of parked events, how many of them wait because of their timestamps, and whether any is due.
pub(super) fn count(connection: &Connection) -> Result<(u64, u64, bool), Error> {
    connection
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE reason = 'clock'),
             EXISTS (SELECT 1 FROM _rowcast_parked WHERE due) FROM _rowcast_parked",
        )
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))))
        .doing("count the parked events")
}

/// The schema has changed: whatever kept an event out of its table may be gone. A timestamp is what it was.
pub(super) fn stir_all(connection: &Connection) -> Result<(), Error> {
    connection
        .execute("UPDATE _rowcast_parked SET due = 1 WHERE reason <> 'clock'", [])
        .doing("look at the parked events again")
        .map(drop)
}
