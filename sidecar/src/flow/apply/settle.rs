//! Makes a record's row what its newest event says, and decides who gets a UNIQUE value that several records claim.
//!
//! Whatever the order of arrival, it ends alike: a record is in the table if and only if no record of a greater version
//! that is in it holds one of its UNIQUE values. The others are parked. That is kept up by small steps: whoever comes
//! in puts out the lesser ones in its way; whoever changes or goes makes those due that it kept out (`retry`). A state in
//! which nothing is due is the only one of its kind: the greatest record is in it, then the next one that may be, and so
//! on down.

use rowcast_schema::record;
use rowcast_schema::value::Value;

use super::Applier;
use crate::edge::store::{Error, Newest, ParkReason, Replicated, Shape, Tx, Why, Written};
use crate::event::{Event, EventId, Operation, Version};
use crate::flow::capture::{Change, compared};
use crate::flow::ingest;

/// What became of a row that was to be written.
enum Outcome {
    /// It is as it should be.
    Stands,
    /// This record, of a greater version, holds a UNIQUE value that it claims.
    Outranked(String),
    /// The table's rules forbid it: SQLite's words.
    Refused(String),
}

impl Applier<'_, '_> {
    /// The record takes the content of an event that is greater than all it had.
    pub(super) fn take(
        &mut self,
        table: &Replicated,
        shape: &Shape,
        (version, event, cells): (Version, &Event, Option<Vec<Value>>),
    ) -> Result<(), Error> {
        // Before the row is written: those that it puts out are not due for that.
        self.tx.stir(table, &event.record_id)?;
        let outcome = match cells {
            None => self.delete(shape, &event.record_id)?,
            Some(cells) if event.layout == shape.layout.id => {
                self.claim(version, &event.record_id, table, shape, |tx| tx.upsert(shape, &cells))?
            }
            Some(_) => self.claim_content(version, table, shape, &event.record_id)?,
        };
        if self.came_out(table, shape, (version, event), outcome)? {
            return Ok(());
        }
        self.settle(table, shape, &event.record_id)
    }

    /// Makes the row what all events of the record say together.
    ///
    /// # Errors
    /// When the database fails.
    pub fn settle(&mut self, table: &Replicated, shape: &Shape, record_id: &str) -> Result<(), Error> {
        self.tx.stir(table, record_id)?;
        // What the table's rules forbid is parked, and the event before it counts.
        while let Some(newest) = self.tx.newest(table, record_id)? {
            let id = newest.id();
            if self.is_behind_large_row(newest.version, (table, shape), record_id)? {
                break;
            }
            if newest.kept_out {
                self.tx.set_processed(table, id, true)?; // Only so it is part of the content.
            }
            let (event, _) = self.tx.event(table, id)?.expect("bug: the newest event is stored");
            let has_key = self.tx.layout(event.layout)?.is_none_or(|layout| shape.has_key_of(&layout));
            // It was older than another one when it was found to be of no use, and that one is forbidden or gone by now.
            if let Err(reason) = self.read(&event, shape)?
                && has_key
            {
                self.park_unread(id, &event, table, &reason)?;
                continue;
            }
            let outcome = match newest.operation {
                // Under another primary key the same words named another record: nothing of it goes.
                Operation::Delete if has_key => self.delete(shape, record_id)?,
                _ => self.claim_content(newest.version, table, shape, record_id)?,
            };
            if self.came_out(table, shape, (newest.version, &event), outcome)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the record's row says something later that does not travel.
    pub(super) fn is_behind_large_row(
        &self,
        version: Version,
        (table, shape): (&Replicated, &Shape),
        record_id: &str,
    ) -> Result<bool, Error> {
        Ok(self.tx.large_row(table, shape, record_id)?.is_some_and(|large| version < large))
    }

    /// Takes in what became of the row. Answers false when the event before this one counts.
    fn came_out(
        &mut self,
        table: &Replicated,
        shape: &Shape,
        (version, event): (Version, &Event),
        outcome: Outcome,
    ) -> Result<bool, Error> {
        let id = EventId { origin: version.origin, sequence: version.sequence };
        let stands = matches!(outcome, Outcome::Stands);
        match outcome {
            Outcome::Stands => self.unpark(table, id)?,
            Outcome::Outranked(holder) => {
                self.delete(shape, &event.record_id)?;
                self.keep_out(table, id, event, &holder)?;
            }
            Outcome::Refused(words) => {
                self.park_alone(id, event, table, (ParkReason::Constraint, &words))?;
                return Ok(false);
            }
        }
        if self.tx.durable.parked > 0 {
            for id in self.tx.unpark_below(table, &event.record_id, version, stands)? {
                self.fresh.remove(&id);
            }
        }
        Ok(true)
    }

    fn delete(&mut self, shape: &Shape, record_id: &str) -> Result<Outcome, Error> {
        let key = record::parse_record_id(record_id, &shape.key).expect("bug: it was read before");
        self.tx.delete(shape, &key)?;
        Ok(Outcome::Stands)
    }

    /// Writes what all events of the record say together: where layouts differ, columns come from several.
    fn claim_content(
        &mut self,
        version: Version,
        table: &Replicated,
        shape: &Shape,
        record_id: &str,
    ) -> Result<Outcome, Error> {
        let content = self.tx.content_as_of(version, table, shape, record_id)?;
        let Some(cells) = content.and_then(|content| content.cells) else { return Ok(Outcome::Stands) };
        let outcome = self.claim(version, record_id, table, shape, |tx| tx.upsert_some(shape, &cells))?;
        // What stands in the other columns came from before a delete that is known only now. It goes with what was deleted; where
        // it cannot, all nodes get it.
        if matches!(outcome, Outcome::Stands) && self.tx.durable.loaded && cells.iter().any(Option::is_none) {
            let key = record::parse_record_id(record_id, &shape.key).expect("bug: it was read before");
            if self.compared || self.sees_all(table) {
                self.tx.empty_untold(shape, &key, &cells)?;
            }
            let untold = compared::ingest_untold(self.tx, (table, shape), &key, &version)?;
            self.done.ingested.extend(untold);
        }
        Ok(outcome)
    }

    /// Writes a row. Where other records hold a UNIQUE value that it claims, the greater version gets it; lesser ones leave
    /// the table and are parked.
    fn claim(
        &mut self,
        version: Version,
        record_id: &str,
        table: &Replicated,
        shape: &Shape,
        upsert: impl Fn(&Tx<'_>) -> Result<Written, Error>,
    ) -> Result<Outcome, Error> {
        loop {
            let holders = match upsert(self.tx)? {
                Written::Done => return Ok(Outcome::Stands),
                Written::Refused(words) => return Ok(Outcome::Refused(words)),
                Written::Claimed(holders) => holders,
            };
            let mut lesser = Vec::with_capacity(holders.len());
            for key in holders {
                let held_by = shape.record_id_of_key(&key);
                // What such a row says would be nowhere any more. The next word of its record lets this one in.
                if self.tx.large_row(table, shape, &held_by)?.is_some() {
                    return Ok(Outcome::Outranked(held_by));
                }
                match self.holder(table, shape, &key)? {
                    Some(holder) if holder.version < version => lesser.push((key, holder)),
                    _ => return Ok(Outcome::Outranked(held_by)),
                }
            }
            for (key, holder) in lesser {
                self.evict(table, shape, (&key, holder), record_id)?;
            }
        }
    }

    /// The event that a row's content comes from. A row from before Rowcast gets one now; none, if it is too large for that.
    fn holder(&mut self, table: &Replicated, shape: &Shape, key: &[Value]) -> Result<Option<Newest>, Error> {
        let record_id = shape.record_id_of_key(key);
        self.ingest_unseen(table, shape, key)?;
        if let Some(newest) = self.tx.newest(table, &record_id)? {
            return Ok(Some(newest));
        }
        let row = self.tx.row(shape, key)?.expect("bug: a row that holds a value is there");
        let change = Change {
            table: table.name.clone(),
            operation: Operation::Create,
            record_id: record_id.clone(),
            data: Some(record::row_to_json(&shape.layout.columns, &row)),
            layout: shape.layout.id,
            changed: -1,
            at: None,
        };
        let ingested = ingest::changes(self.tx, vec![change], self.now)?;
        self.done.ingested.push(ingested);
        self.tx.newest(table, &record_id)
    }

    fn evict(
        &mut self,
        table: &Replicated,
        shape: &Shape,
        (key, holder): (&[Value], Newest),
        winner: &str,
    ) -> Result<(), Error> {
        self.tx.delete(shape, key)?;
        let id = holder.id();
        let (event, _) = self.tx.event(table, id)?.expect("bug: the newest event is stored");
        self.keep_out(table, id, &event, winner)?;
        self.tx.stir(table, &event.record_id)
    }

    fn keep_out(&mut self, table: &Replicated, id: EventId, event: &Event, holder: &str) -> Result<(), Error> {
        let detail = format!("record {holder} holds a UNIQUE value that it claims");
        self.park(id, event, table, Why { reason: ParkReason::Unique, detail: &detail, holder: Some(holder) })
    }
}
