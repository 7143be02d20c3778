//! Comparing rows with events, a little at a time; and trying parked events again.

use std::time::Duration;

use rowcast_schema::declaration::Capture;

use super::{Failure, Moment, Replica};
use crate::edge::store::{ParkReason, Want};
use crate::flow::apply::Applier;
use crate::flow::ingest;
use crate::steady::reconcile::{self, Cursor, Truth};

/// How often it is looked whether the time of those has come whose timestamps lie ahead.
const PARKED_INTERVAL: Duration = Duration::from_secs(1);

/// How often all parked events are tried again, some at a time: a net, since what changes makes them due.
const PARKED_ALL_INTERVAL: Duration = Duration::from_secs(30);

impl Replica {
    /// Has the announced tables compared with their events: an announcement may have been lost.
    pub(super) fn sweep_announced(&mut self) {
        if !self.store.durable().loaded {
            return;
        }
        let announced = self.store.tables().iter().filter(|table| table.declared.capture == Capture::Events);
        let tables: Vec<String> = announced.map(|table| table.name.clone()).collect();
        for table in tables {
            self.want_sweep(table, Truth::Row(Want::default()), 0);
        }
    }

    /// Has tables compared whose triggers were not there all the time.
    pub(super) fn want_pending_sweeps(&mut self) {
        if !self.store.durable().loaded || self.store.pending().is_empty() {
            return;
        }
        for pending in self.store.pending().to_vec() {
            let round = pending.want.round;
            self.want_sweep(pending.table, Truth::Row(pending.want), round);
        }
    }

    /// A comparison that is on its way serves, unless the schema has changed since it began.
    fn want_sweep(&mut self, table: String, truth: Truth, round: i64) {
        match self.sweeps.iter_mut().find(|cursor| cursor.table == table) {
            Some(cursor) if round != 0 && cursor.round != round => *cursor = Cursor::start(table, truth, round),
            Some(_) => {}
            None => self.sweeps.push_back(Cursor::start(table, truth, round)),
        }
    }

    /// Compares some rows. Answers whether it did anything.
    pub(super) fn sweep_once(&mut self, at: Moment) -> Result<bool, Failure> {
        let Some(cursor) = self.sweeps.front().cloned() else { return Ok(false) };
        // A group that has begun to become events goes on to its end before.
        let begun = self.store.durable().open_group.is_some();
        let forget = !self.journal_forgotten && !self.store.durable().loaded && !begun;
        let (table, round) = (cursor.table.clone(), cursor.round);
        let begins = cursor.at == reconcile::Phase::Rows(None);
        let schema = self.verify.swept_since;
        let done = self.store.write(|tx| {
            if forget {
                tx.journal_forget()?;
            } else if ingest::is_long(tx)? {
                return Ok(None);
            }
            // What is written while the rows of a new node are looked at is a change like any other.
            let mut ingested = ingest::drain(tx, at.wall)?;
            let schema = if begins { tx.schema_version()? } else { schema };
            let (next, more) = reconcile::step(tx, cursor, at.wall)?;
            ingested.extend(more);
            if next.is_none() {
                tx.reconciled(&table, round)?;
                // Compared from its beginning, and the triggers were there all the while.
                tx.prove(&table, schema)?;
            }
            Ok(Some((next, ingested, schema)))
        })?;
        let Some((next, ingested, schema)) = done else {
            self.ingest_journal(at)?;
            return Ok(true);
        };
        self.journal_forgotten = true;
        self.verify.swept_since = schema;
        // The schema may have changed again meanwhile: then the sweep begins anew, with what is pending now.
        match next {
            Some(next) => self.sweeps[0] = next,
            None => {
                self.sweeps.pop_front();
                self.store.forget_pending(&table, round);
            }
        }
        self.publish(ingested)?;
        Ok(true)
    }

    /// Tries parked events again: at once where something changed that was in their way, and the others now and then.
    /// Answers whether it did anything.
    pub(super) fn retry_parked(&mut self, at: Moment) -> Result<bool, Failure> {
        let durable = self.store.durable();
        let now_and_then = durable.parked > 0 && self.parked_tried_at + PARKED_INTERVAL <= at.uptime;
        if !durable.due && !now_and_then {
            return Ok(false);
        }
        let reasons: &[ParkReason] = match now_and_then {
            false => &[],
            true if self.parked_all_tried_at + PARKED_ALL_INTERVAL <= at.uptime => &ParkReason::ALL,
            true => &[ParkReason::Clock],
        };
        let done = self.store.write(|tx| {
            if ingest::is_long(tx)? {
                return Ok(None);
            }
            let drained = ingest::drain(tx, at.wall)?;
            // The operator marks events beside this process.
            tx.durable.due |= now_and_then;
            let mut applier = Applier::new(tx, at.wall);
            applier.done.ingested = drained;
            applier.retry(reasons)?;
            applier.finish().map(Some)
        })?;
        let Some(applied) = done else {
            self.dirty = true;
            return Ok(false);
        };
        if now_and_then {
            self.parked_tried_at = at.uptime;
        }
        if reasons.len() > 1 {
            self.parked_all_tried_at = at.uptime;
        }
        self.counters.parked += applied.parked;
        self.publish(applied.ingested)?;
        Ok(true)
    }
}
