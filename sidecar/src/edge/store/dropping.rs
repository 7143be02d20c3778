//! Events here that another node had, and has no more: they were superseded there and compacted, and are taken out here,
//! too.

use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;

use super::error::{Doing as _, Error, damaged};
use super::replicated::Replicated;
use super::state;
use super::tx::{Tx, event_id, signed, unsigned};
use super::{Store, parse};
use crate::event::{EventId, Operation};
use crate::position::{NodeId, Sequence, Vector};
use rusqlite::OptionalExtension as _;

/// An event that is stored, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Which one.
    pub id: EventId,
    /// Its record.
    pub record_id: String,
    /// What it did.
    pub operation: Operation,
}

/// Where it stands that everything has to be loaded again.
const LOAD_AGAIN: &str = "load_again";

impl Store {
    /// Whether this node, which had everything once, has to load everything again.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn must_load_again(&self) -> Result<bool, Error> {
        Ok(state::state(&self.connection, LOAD_AGAIN)?.is_some())
    }
}

impl Tx<'_> {
    /// Notes that everything has to be loaded again, or that it is.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_load_again(&self, must: bool) -> Result<(), Error> {
        if must {
            return state::set_state(self.connection, LOAD_AGAIN, "1");
        }
        self.connection
            .execute("DELETE FROM _rowcast_state WHERE key = ?1", [LOAD_AGAIN])
            .doing("forget a state")
            .map(drop)
    }

    /// All events of the records after one and up to another one; without it, to the end.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn events_of_records(
        &self,
        table: &Replicated,
        after: Option<&str>,
        until: Option<&str>,
    ) -> Result<Vec<Stored>, Error> {
        let sql = format!(
            "SELECT id, record_id, operation_type FROM {} WHERE ?1 < record_id AND (?2 IS NULL OR record_id <= ?2)
             ORDER BY record_id",
            quoted(&event_table::name(&table.name))
        );
        let rows: Vec<(String, String, String)> = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                // No record id is empty: the empty text stands before the first.
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                statement.query_map((after.unwrap_or_default(), until), row)?.collect()
            })
            .doing(format!("read the events of `{}`", table.name))?;
        let stored = |(id, record_id, operation): (String, String, String)| {
            let broken = || damaged(event_table::name(&table.name), &id);
            Ok(Stored {
                id: event_id(&id).ok_or_else(broken)?,
                record_id,
                operation: Operation::parse(&operation).ok_or_else(broken)?,
            })
        };
        rows.into_iter().map(stored).collect()
    }

    /// The events of one origin that are stored beyond a number, at most `limit` of a table.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn events_beyond(&self, table: &Replicated, last: EventId, limit: usize) -> Result<Vec<Stored>, Error> {
        let end = EventId { origin: last.origin, sequence: unsigned(i64::MAX) };
        let sql = format!(
            "SELECT sequence_number, record_id, operation_type FROM {} WHERE ?1 < id AND id <= ?2 LIMIT ?3",
            quoted(&event_table::name(&table.name))
        );
        let rows: Vec<(i64, String, String)> = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                statement.query_map((last.to_string(), end.to_string(), limit), row)?.collect()
            })
            .doing(format!("read the events of `{}`", table.name))?;
        let stored = |(sequence, record_id, operation): (i64, String, String)| {
            let operation = Operation::parse(&operation)
                .ok_or_else(|| damaged(event_table::name(&table.name), "an unknown operation_type"))?;
            Ok(Stored { id: EventId { origin: last.origin, sequence: unsigned(sequence) }, record_id, operation })
        };
        rows.into_iter().map(stored).collect()
    }

    /// The other origins of which events are stored that lie beyond the position, and the last such event: a load that was
    /// not finished brought them. Looks at every table, and is asked before READY only.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn loose(&self) -> Result<Vec<(NodeId, Sequence)>, Error> {
        let origins: Vec<String> = self
            .connection
            .prepare_cached("SELECT origin FROM _rowcast_contexts UNION SELECT origin FROM _rowcast_positions")
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .doing("list the origins")?;
        let mut loose = Vec::new();
        for origin in origins {
            let origin: NodeId = parse("_rowcast_contexts", &origin)?;
            if origin == self.durable.node {
                continue;
            }
            let last = EventId { origin, sequence: self.durable.vector.of(origin) };
            let mut greatest = last.sequence;
            for table in self.tables().iter() {
                greatest = greatest.max(self.greatest_beyond(table, last)?.unwrap_or(0));
            }
            if last.sequence < greatest {
                loose.push((origin, greatest));
            }
        }
        Ok(loose)
    }

    fn greatest_beyond(&self, table: &Replicated, last: EventId) -> Result<Option<Sequence>, Error> {
        let end = EventId { origin: last.origin, sequence: unsigned(i64::MAX) };
        let sql = format!(
            "SELECT sequence_number FROM {} WHERE ?1 < id AND id <= ?2 ORDER BY id DESC LIMIT 1",
            quoted(&event_table::name(&table.name))
        );
        self.connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                statement.query_row((last.to_string(), end.to_string()), |row| row.get(0)).optional()
            })
            .map(|found: Option<i64>| found.map(unsigned))
            .doing(format!("read the events of `{}`", table.name))
    }

    /// Takes events out, parked or not. The horizon moves for those that `covered` has: they are not served any more. The
    /// others will come again.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn drop_events(&mut self, table: &Replicated, ids: &[EventId], covered: &Vector) -> Result<(), Error> {
        let mut horizon = Vector::default();
        let had = |id: &&EventId| id.sequence <= covered.of(id.origin);
        ids.iter().filter(had).for_each(|id| horizon.raise(id.origin, id.sequence));
        for (origin, sequence) in horizon.iter() {
            self.connection
                .prepare_cached(
                    "INSERT INTO _rowcast_positions (origin, position, horizon, timestamp) VALUES (?1, 0, ?2, 0)
                     ON CONFLICT (origin) DO UPDATE SET horizon = max(horizon, excluded.horizon)",
                )
                .and_then(|mut statement| statement.execute((origin.to_string(), signed(sequence))))
                .doing(format!("move the horizon of {origin}"))?;
            self.durable.horizon.raise(origin, sequence);
        }
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
