//! Applies groups: the event and its row, one transaction with the position.
//!
//! Everything local is ingested before, in the same transaction (the caller does that for the journal; for tables whose
//! changes are announced it is done here, record by record), so a remote event never overwrites what no event knows.
//!
//! Invariants: I3 (local changes first), I4 (a record's content is the fold of its events), I6 (twice is once),
//! I10 (applied, or parked and visible).

use rowcast_schema::declaration::Capture;
use rowcast_schema::layout::Layout;
use rowcast_schema::record;
use rowcast_schema::value::Value;

use crate::clock::{self, Timestamp};
use crate::edge::store::{Error, Newest, ParkReason, ParkedEvent, Place, Replicated, Shape, Tx, Written};
use crate::event::{Event, EventId, Operation, Piece, Version};
use crate::flow::capture::{self, Change};
use crate::flow::conflict::{self, Verdict};
use crate::flow::ingest::{self, Ingested};
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};

/// What applying did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Events stored for the first time.
    pub events: u64,
    /// Events that were stored already.
    pub duplicates: u64,
    /// Events that met another one without either author knowing of the other's.
    pub conflicts: u64,
    /// Events parked.
    pub parked: u64,
    /// The timestamp of the newest group applied.
    pub newest: Timestamp,
    /// Own groups that came to be on the way: published once hardened.
    pub ingested: Vec<Ingested>,
}

/// Applies one whole group, or events of a snapshot, within the transaction.
pub struct Applier<'t, 'a> {
    tx: &'t mut Tx<'a>,
    now: Timestamp,
    /// Parking again what was parked before is no news.
    retrying: bool,
    /// What it did so far.
    pub done: Applied,
}

impl<'t, 'a> Applier<'t, 'a> {
    /// Begins. `now` is the wall time.
    pub fn new(tx: &'t mut Tx<'a>, now: Timestamp) -> Self {
        Self { tx, now, retrying: false, done: Applied::default() }
    }

    /// How far everything is applied, in this transaction.
    pub fn position(&self) -> &Vector {
        &self.tx.durable.vector
    }

    /// Applies a whole group and moves the position.
    ///
    /// # Errors
    /// When the database fails. Nothing of the group is kept then.
    pub fn group(&mut self, origin: NodeId, group: &Piece, layouts: &[Layout]) -> Result<(), Error> {
        self.keep(origin, group, layouts)?;
        let mut greatest = Timestamp::default();
        for (event, sequence) in group.events.iter().zip(group.first..) {
            let id = EventId { origin, sequence };
            self.arrived(id, group.group_last, event, &group.context)?;
            greatest = greatest.max(self.trusted(event.timestamp));
        }
        self.done.newest = self.done.newest.max(greatest);
        self.tx.set_position(origin, group.last(), greatest)
    }

    /// Stores a piece of a long group without applying it. The position does not move.
    ///
    /// # Errors
    /// When the database fails.
    pub fn stage(&mut self, origin: NodeId, piece: &Piece, layouts: &[Layout]) -> Result<(), Error> {
        self.keep(origin, piece, layouts)?;
        for (event, sequence) in piece.events.iter().zip(piece.first..) {
            let id = EventId { origin, sequence };
            match self.tx.tables().get(&event.table) {
                Some(table) => {
                    let place = Place { id, group_last: piece.group_last, table, processed: false };
                    self.count(self.tx.insert_event(&place, event)?);
                }
                None => self.tx.insert_stray(id, piece.group_last, event)?,
            }
        }
        Ok(())
    }

    /// Applies the staged events of `origin` up to `last`, and moves the position.
    ///
    /// # Errors
    /// When the database fails. Everything stays staged then.
    pub fn staged_group(&mut self, origin: NodeId, last: Sequence) -> Result<(), Error> {
        let first = self.tx.durable.vector.of(origin) + 1;
        let context = self.tx.context(EventId { origin, sequence: first })?;
        let mut greatest = Timestamp::default();
        for table in self.tx.tables().iter() {
            // From the newest down: a record's last event takes its row, and the others find it taken. The other way
            // round every one of them would be written, and would look past all that are still unplaced above it.
            let mut until = last;
            while first <= until {
                let events = self.tx.staged(table, origin, (first, until), limits::APPLY_ROWS_MAX)?;
                let Some((oldest, _)) = events.last() else { break };
                until = oldest.sequence - 1;
                for (id, event) in &events {
                    self.place(*id, event, table, &context)?;
                    greatest = greatest.max(self.trusted(event.timestamp));
                }
            }
            self.tx.set_range_processed(table, origin, (first, last))?;
        }
        self.tx.set_position(origin, last, greatest)
    }

    /// Applies one event that another node gave as part of a snapshot. The position does not move.
    ///
    /// # Errors
    /// When the database fails.
    pub fn snapshot_event(&mut self, id: EventId, group_last: Sequence, event: &Event) -> Result<(), Error> {
        let context = self.tx.context(id)?;
        self.arrived(id, group_last, event, &context)?;
        self.tx.durable.clock.merge(self.trusted(event.timestamp));
        Ok(())
    }

    /// Ends: parked events whose turn may have come are tried again.
    ///
    /// # Errors
    /// When the database fails.
    pub fn finish(mut self) -> Result<Applied, Error> {
        if self.tx.durable.parked > 0 {
            self.retry(&[ParkReason::Unique])?;
        }
        Ok(self.done)
    }

    /// Makes a row what its record's events say now: one of them has another author than before.
    ///
    /// # Errors
    /// When the database fails.
    pub fn refold(&mut self, table: &str, record_id: &str) -> Result<(), Error> {
        let Some(table) = self.tx.tables().get(table) else { return Ok(()) };
        let Some(shape) = &table.shape else { return Ok(()) };
        let Some(newest) = self.tx.newest(table, record_id)? else { return Ok(()) };
        let id = EventId { origin: newest.version.origin, sequence: newest.version.sequence };
        let Some((event, _)) = self.tx.event(table, id)? else { return Ok(()) };
        self.write(id, &event, table, shape)
    }

    /// The timestamp, unless it is one that must not come near the clock.
    fn trusted(&self, timestamp: Timestamp) -> Timestamp {
        if clock::is_doubtful(timestamp, self.now, limits::DRIFT_MAX) { Timestamp::default() } else { timestamp }
    }

    /// Keeps what came with a piece: layouts, and the context where it changed.
    fn keep(&mut self, origin: NodeId, piece: &Piece, layouts: &[Layout]) -> Result<(), Error> {
        for layout in layouts {
            self.tx.save_layout(layout)?;
        }
        let id = EventId { origin, sequence: piece.first };
        if self.tx.context(id)? != piece.context {
            self.tx.save_context(origin, piece.first, &piece.context)?;
        }
        Ok(())
    }

    fn count(&mut self, stored: bool) {
        if stored {
            self.done.events += 1;
        } else {
            self.done.duplicates += 1;
        }
    }

    /// Stores an event, and applies it if its record's content comes from it.
    fn arrived(&mut self, id: EventId, group_last: Sequence, event: &Event, context: &Vector) -> Result<(), Error> {
        let Some(table) = self.tx.tables().get(&event.table) else {
            tracing::warn!(event = %id, table = event.table, "kept an event of a table that is not declared here");
            return self.tx.insert_stray(id, group_last, event);
        };
        let stored = self.tx.insert_event(&Place { id, group_last, table, processed: false }, event)?;
        self.count(stored);
        // A long group may have begun to come in pieces, and come whole later: its beginning is stored, and not applied.
        if stored || self.tx.is_staged(table, id)? {
            self.place(id, event, table, context)?;
        }
        Ok(())
    }

    /// Applies an event that is stored and not processed.
    fn place(&mut self, id: EventId, event: &Event, table: &Replicated, context: &Vector) -> Result<(), Error> {
        if clock::is_doubtful(event.timestamp, self.now, limits::DRIFT_MAX) {
            let ahead = format!("its timestamp {} lies too far ahead of the clock here", event.timestamp);
            return self.park(id, event, table, (ParkReason::Clock, &ahead));
        }
        let Some(shape) = &table.shape else {
            return self.park(id, event, table, (ParkReason::Schema, "the table is not in this database yet"));
        };
        if let Some(reason) = self.unreadable(event, shape)? {
            return self.park(id, event, table, (ParkReason::Schema, &reason));
        }
        let key = record::parse_record_id(&event.record_id, &shape.key).expect("bug: it was read above");
        if table.declared.capture == Capture::Events {
            self.ingest_unannounced(table, shape, &key)?;
        }
        let held = self.tx.newest(table, &event.record_id)?;
        let arriving = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
        self.note_conflict(table, &event.record_id, held, (id, context))?;
        self.tx.set_processed(table, id, true)?;
        match conflict::decide(table.declared.conflict, held.map(|held| held.version), arriving) {
            Verdict::Take => self.write(id, event, table, shape),
            // An older event can still know a column that the newer one's table did not have.
            Verdict::Keep if held.is_some_and(|held| held.layout != event.layout) => {
                self.write_content(table, shape, &event.record_id)
            }
            Verdict::Keep => Ok(()),
        }
    }

    /// Why the event cannot be understood under the table as it is here.
    fn unreadable(&mut self, event: &Event, shape: &Shape) -> Result<Option<String>, Error> {
        let Some(layout) = self.tx.layout(event.layout)? else { return Ok(Some("its layout is not known".into())) };
        if !shape.has_key_of(&layout) {
            return Ok(Some("the table has another primary key here".into()));
        }
        let key = record::parse_record_id(&event.record_id, &shape.key);
        let row = event.data.as_deref().map(|data| record::row_from_json(&layout.columns, data)).transpose();
        Ok(key.err().or(row.err()).map(|error| format!("it does not read: {error}")))
    }

    /// What the service did to the row and did not announce (yet) becomes an event first.
    fn ingest_unannounced(&mut self, table: &Replicated, shape: &Shape, key: &[Value]) -> Result<(), Error> {
        if !self.tx.durable.loaded {
            return Ok(()); // Rows from before are looked at when everything is loaded.
        }
        if let Some(change) = capture::difference(self.tx, table, shape, key, Some(self.now))? {
            let ingested = ingest::changes(self.tx, vec![change], self.now)?;
            self.done.ingested.push(ingested);
        }
        Ok(())
    }

    fn note_conflict(
        &mut self,
        table: &Replicated,
        record_id: &str,
        held: Option<Newest>,
        (id, context): (EventId, &Vector),
    ) -> Result<(), Error> {
        let Some(held) = held else { return Ok(()) };
        let held_id = EventId { origin: held.version.origin, sequence: held.version.sequence };
        if conflict::are_concurrent(held_id, id, context, || self.tx.context(held_id))? {
            self.done.conflicts += 1;
            tracing::info!(
                table = table.name,
                record = record_id,
                held = %held_id,
                arriving = %id,
                "two nodes changed one record without knowing of each other's change"
            );
        }
        Ok(())
    }

    /// Makes the row what the event says.
    fn write(&mut self, id: EventId, event: &Event, table: &Replicated, shape: &Shape) -> Result<(), Error> {
        let version = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
        if self.tx.greatest_parked(table, &event.record_id)?.is_some_and(|parked| version < parked) {
            return Ok(()); // Superseded by an event that waits for its place; so does the record.
        }
        match &event.data {
            None => {
                let key = record::parse_record_id(&event.record_id, &shape.key);
                self.tx.delete(shape, &key.expect("bug: it was read before"))
            }
            Some(data) if event.layout == shape.layout.id => {
                let cells = self.tx.decode(event.layout, data)?.1;
                self.claim(id, event, table, shape, |tx| tx.upsert(shape, &cells))
            }
            Some(_) => self.write_content(table, shape, &event.record_id),
        }
    }

    /// Makes the row what all events of the record say together: where layouts differ, columns come from several.
    fn write_content(&mut self, table: &Replicated, shape: &Shape, record_id: &str) -> Result<(), Error> {
        let Some(content) = self.tx.content(table, shape, record_id)? else { return Ok(()) };
        let Some(cells) = content.cells else { return Ok(()) };
        let id = EventId { origin: content.version.origin, sequence: content.version.sequence };
        let Some((event, _)) = self.tx.event(table, id)? else { return Ok(()) };
        self.claim(id, &event, table, shape, |tx| tx.upsert_some(shape, &cells))
    }

    /// Writes a row. Where other records hold a UNIQUE value that it claims, the greater version gets it; the others leave
    /// the table and are parked.
    fn claim(
        &mut self,
        id: EventId,
        event: &Event,
        table: &Replicated,
        shape: &Shape,
        upsert: impl Fn(&Tx<'_>) -> Result<Written, Error>,
    ) -> Result<(), Error> {
        let version = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
        loop {
            let holders = match upsert(self.tx)? {
                Written::Done => return Ok(()),
                Written::Refused(words) => return self.park(id, event, table, (ParkReason::Constraint, &words)),
                Written::Claimed(holders) => holders,
            };
            let mut evicted = Vec::with_capacity(holders.len());
            for key in holders {
                let holder = self.holder(table, shape, &key)?;
                if version < holder.version {
                    let record = shape.record_id_of_key(&key);
                    let reason = format!("record {record} holds a UNIQUE value that it claims");
                    self.delete_by_record(shape, &event.record_id)?;
                    return self.park(id, event, table, (ParkReason::Unique, &reason));
                }
                evicted.push((key, holder));
            }
            for (key, holder) in evicted {
                self.evict(table, shape, &key, &holder, &event.record_id)?;
            }
        }
    }

    /// The event that a row's content comes from. A row from before Rowcast gets one now.
    fn holder(&mut self, table: &Replicated, shape: &Shape, key: &[Value]) -> Result<Newest, Error> {
        let record_id = shape.record_id_of_key(key);
        if table.declared.capture == Capture::Events {
            self.ingest_unannounced(table, shape, key)?;
        }
        if let Some(newest) = self.tx.newest(table, &record_id)? {
            return Ok(newest);
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
        Ok(self.tx.newest(table, &record_id)?.expect("bug: its event was just stored"))
    }

    fn evict(
        &mut self,
        table: &Replicated,
        shape: &Shape,
        key: &[Value],
        holder: &Newest,
        winner: &str,
    ) -> Result<(), Error> {
        self.tx.delete(shape, key)?;
        let id = EventId { origin: holder.version.origin, sequence: holder.version.sequence };
        let (event, _) = self.tx.event(table, id)?.expect("bug: the newest event is stored");
        let reason = format!("record {winner} holds a UNIQUE value that it claims");
        self.park(id, &event, table, (ParkReason::Unique, &reason))
    }

    fn delete_by_record(&mut self, shape: &Shape, record_id: &str) -> Result<(), Error> {
        let key = record::parse_record_id(record_id, &shape.key).expect("bug: it was read before");
        self.tx.delete(shape, &key)
    }

    fn park(&mut self, id: EventId, event: &Event, table: &Replicated, why: (ParkReason, &str)) -> Result<(), Error> {
        if !self.retrying {
            tracing::warn!(
                event = %id,
                table = table.name,
                record = event.record_id,
                reason = why.0.as_str(),
                detail = why.1,
                "parked an event: it is kept and tried again"
            );
            self.done.parked += 1;
        }
        self.tx.park(&Place { id, group_last: id.sequence, table, processed: false }, event, why, self.now)
    }

    /// Tries parked events again, the greatest version first: so the outcome depends on the events alone.
    ///
    /// # Errors
    /// When the database fails.
    pub fn retry(&mut self, reasons: &[ParkReason]) -> Result<(), Error> {
        let parked = self.tx.parked(reasons, limits::APPLY_ROWS_MAX)?;
        let mut waiting = Vec::new();
        for ParkedEvent { id, table, reason } in parked {
            if !reasons.iter().any(|wanted| wanted.as_str() == reason) {
                continue;
            }
            let Some(table) = self.tx.tables().get(&table) else { continue };
            if let Some((event, _)) = self.tx.event(table, id)? {
                waiting.push((Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence }, event));
            }
        }
        waiting.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        self.retrying = true;
        let tried = waiting.iter().try_for_each(|(version, event)| self.retry_one(*version, event));
        self.retrying = false;
        tried
    }

    fn retry_one(&mut self, version: Version, event: &Event) -> Result<(), Error> {
        let Some(table) = self.tx.tables().get(&event.table) else { return Ok(()) };
        let Some(shape) = &table.shape else { return Ok(()) };
        let id = EventId { origin: version.origin, sequence: version.sequence };
        let newest = self.tx.newest(table, &event.record_id)?;
        if clock::is_doubtful(event.timestamp, self.now, limits::DRIFT_MAX) || self.unreadable(event, shape)?.is_some()
        {
            return Ok(());
        }
        self.tx.unpark(table, id)?;
        // What the service writes from here on is later than this.
        let position = self.tx.durable.vector.of(id.origin);
        self.tx.set_position(id.origin, position, event.timestamp)?;
        if newest.is_none_or(|newest| newest.version < version) {
            self.write(id, event, table, shape)?;
        }
        Ok(())
    }
}
