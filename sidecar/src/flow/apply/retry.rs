//! Tries parked events again: those whose way may be free at once, the others now and then.

use rowcast_schema::record;

use super::{Applier, Arriving};
use crate::clock;
use crate::edge::store::{Error, ParkReason, ParkedEvent, Replicated, Shape};
use crate::event::{Event, Operation};
use crate::flow::capture::Change;
use crate::flow::ingest;
use crate::limits;

impl Applier<'_, '_> {
    /// Tries what is due, the greatest version first, a bounded number. The rest stays due.
    ///
    /// # Errors
    /// When the database fails.
    pub fn retry_due(&mut self) -> Result<(), Error> {
        for _ in 0..limits::PARKED_TRIED_MAX {
            let Some(parked) = self.tx.next_due()? else { break };
            self.retry_one(&parked)?;
        }
        Ok(())
    }

    /// Tries parked events with these reasons, those that were not tried for the longest time, a bounded number.
    ///
    /// # Errors
    /// When the database fails.
    pub fn retry(&mut self, reasons: &[ParkReason]) -> Result<(), Error> {
        let mut parked = self.tx.parked(reasons, limits::PARKED_TRIED_MAX)?;
        parked.sort_by_key(|parked| std::cmp::Reverse(parked.version));
        parked.iter().try_for_each(|parked| self.retry_one(parked))
    }

    fn retry_one(&mut self, parked: &ParkedEvent) -> Result<(), Error> {
        // Whatever comes of it: it is not due any more, unless something else changes.
        self.tx.tried(parked.id, self.now)?;
        let Some(table) = self.tx.tables().get(&parked.table) else { return Ok(()) };
        let Some(shape) = &table.shape else { return Ok(()) };
        let Some((event, _)) = self.tx.event(table, parked.id)? else { return Ok(()) };
        if parked.dropping && parked.reason != ParkReason::Clock {
            return self.give_up(parked, &event, (table, shape));
        }
        if parked.reason == ParkReason::Unique {
            return match self.read(&event, shape)? {
                Ok((key, _)) => {
                    self.ingest_unseen(table, shape, &key)?;
                    self.settle(table, shape, &event.record_id)
                }
                Err(reason) => self.park_alone(parked.id, &event, table, (ParkReason::Schema, &reason)),
            };
        }
        self.believe(parked, &event)?;
        let (id, context) = (parked.id, self.tx.context(parked.id)?);
        let held = self.tx.newest_beside(table, &event.record_id, id, id.sequence)?;
        self.tx.set_processed(table, id, self.sees_all(table))?;
        self.again = parked.reason == ParkReason::Constraint;
        let placed = self.place(table, Arriving { id, event: &event, context: Some(&context), held });
        self.again = false;
        placed
    }

    /// Makes a new event of the record as it is here, which is later than the parked one: every node gives that up then.
    fn give_up(
        &mut self,
        parked: &ParkedEvent,
        event: &Event,
        (table, shape): (&Replicated, &Shape),
    ) -> Result<(), Error> {
        tracing::warn!(event = %parked.id, table = table.name, record = event.record_id, "dropped a parked event, as was asked");
        self.believe(parked, event)?;
        let Ok(key) = record::parse_record_id(&event.record_id, &shape.key) else {
            // There is no such record, and none of a node that could read it: it is put aside here alone.
            self.tx.set_processed(table, parked.id, true)?;
            return self.unpark(table, parked.id);
        };
        let row = self.tx.row(shape, &key)?;
        let (operation, changed) = if row.is_some() { (Operation::Update, -1) } else { (Operation::Delete, 0) };
        let change = Change {
            table: table.name.clone(),
            operation,
            record_id: event.record_id.clone(),
            data: row.map(|row| record::row_to_json(&shape.layout.columns, &row)),
            layout: shape.layout.id,
            changed,
            at: Some(self.now),
        };
        let ingested = ingest::changes(self.tx, vec![change], self.now)?;
        self.done.ingested.push(ingested);
        Ok(())
    }

    /// What the service writes from here on is later than this event, if it is not too far ahead still.
    fn believe(&mut self, parked: &ParkedEvent, event: &Event) -> Result<(), Error> {
        let doubtful = clock::is_doubtful(event.timestamp, self.now, limits::DRIFT_MAX);
        if doubtful || event.timestamp <= self.tx.durable.clock.last() {
            return Ok(());
        }
        let position = self.tx.durable.vector.of(parked.id.origin);
        self.tx.set_position(parked.id.origin, position, event.timestamp)
    }
}
