//! Applies groups: the event and its row, one transaction with the position.
//!
//! Everything local is ingested before, in the same transaction (the caller does that for the journal; for tables whose
//! changes are announced it is done here, record by record), so a remote event never overwrites what no event knows.
//!
//! Invariants: I3 (local changes first), I4 (a record's content is the fold of its events), I6 (twice is once),
//! I10 (applied, or parked and visible).

mod deferred;
mod forget;
mod retry;
mod settle;
mod staged;

use std::borrow::Cow;
use std::collections::BTreeMap;

use rowcast_schema::declaration::Capture;
use rowcast_schema::layout::Layout;
use rowcast_schema::record;
use rowcast_schema::value::Value;

use crate::clock::{self, Timestamp};
use crate::edge::store::{Error, Met, Newest, ParkReason, Place, Replicated, Shape, Tx, Why};
use crate::event::{Event, EventId, Piece, Version};
use crate::flow::capture::{self, compared::Found};
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
    /// Events of long groups that an earlier transaction had begun to store, and this one applied.
    pub staged: u64,
    /// Beginnings of groups that were deleted, in events.
    pub discarded: u64,
    /// Events that met another one without either author knowing of the other's.
    pub conflicts: u64,
    /// Events parked.
    pub parked: u64,
    /// The timestamp of the newest group applied.
    pub newest: Timestamp,
    /// Own groups that came to be on the way: published once hardened.
    pub ingested: Vec<Ingested>,
}

/// Events parked by one transaction that get a line of their own in the log.
const LOGGED_MAX: usize = 10;

/// Applies one whole group, or events of a snapshot, within the transaction.
pub struct Applier<'t, 'a> {
    tx: &'t mut Tx<'a>,
    now: Timestamp,
    /// Events that were parked in this transaction, and why: most of what a swap of UNIQUE values parks is back before it ends.
    fresh: BTreeMap<EventId, ParkReason>,
    /// Per origin, the context of the last piece: nearly always that of the next one.
    contexts: BTreeMap<NodeId, Vector>,
    /// What is tried was tried before, and met what it had to meet.
    again: bool,
    /// The row that is written has been compared: no service's word is in it that no event knows.
    compared: bool,
    /// What is applied is a page of a load: others may have forgotten deletes that lie behind what is here.
    loads: bool,
    /// Groups that are applied together.
    deferred: deferred::Deferred<'a>,
    /// Events that were kept for tables that are not declared here.
    strays: u64,
    /// What it did so far.
    pub done: Applied,
}

impl<'t, 'a> Applier<'t, 'a> {
    /// Begins. `now` is the wall time.
    pub fn new(tx: &'t mut Tx<'a>, now: Timestamp) -> Self {
        Self {
            tx,
            now,
            fresh: BTreeMap::new(),
            contexts: BTreeMap::new(),
            again: false,
            compared: false,
            loads: false,
            deferred: deferred::Deferred::default(),
            strays: 0,
            done: Applied::default(),
        }
    }

    /// How far everything is applied in this transaction, or deferred.
    pub fn position(&self) -> &Vector {
        self.deferred.ahead.as_ref().unwrap_or(&self.tx.durable.vector)
    }

    /// Applies a whole group and moves the position.
    ///
    /// # Errors
    /// When the database fails. Nothing of the group is kept then.
    pub fn group(&mut self, origin: NodeId, group: &Piece, layouts: &[Layout]) -> Result<(), Error> {
        self.keep(origin, group, layouts)?;
        for (event, sequence) in group.events.iter().zip(group.first..) {
            let id = EventId { origin, sequence };
            self.arrived(id, group.group_last, event, Some(&group.context))?;
        }
        self.pass(origin, group)
    }

    /// Moves the position past a group.
    fn pass(&mut self, origin: NodeId, group: &Piece) -> Result<(), Error> {
        let greatest = group.events.iter().map(|event| self.trusted(event.timestamp)).max().unwrap_or_default();
        self.done.newest = self.done.newest.max(greatest);
        self.tx.move_position(origin, group.last(), greatest)
    }

    /// Applies one event that another node gave as part of a snapshot. The position does not move; that the clock did is on the disk
    /// with the row: a crash in the middle of a load, and a machine's clock that is set back then, must not have the service
    /// write behind what it sees.
    ///
    /// # Errors
    /// When the database fails.
    pub fn snapshot_event(&mut self, id: EventId, group_last: Sequence, event: &Event) -> Result<(), Error> {
        self.arrived(id, group_last, event, None)?;
        let own = self.tx.durable.node;
        self.tx.move_position(own, self.tx.durable.vector.of(own), self.trusted(event.timestamp))
    }

    /// Ends: what is deferred is applied, and parked events whose turn may have come are tried again, a bounded number of them.
    ///
    /// # Errors
    /// When the database fails.
    pub fn finish(mut self) -> Result<Applied, Error> {
        self.apply_deferred()?;
        self.retry_due()?;
        if self.strays > 0 {
            tracing::warn!(events = self.strays, "kept events of tables that are not declared here");
        }
        self.done.parked = self.fresh.len() as u64;
        for (id, reason) in self.fresh.iter().take(LOGGED_MAX) {
            tracing::warn!(event = %id, reason = reason.as_str(), "parked an event: it is kept and tried again");
        }
        if LOGGED_MAX < self.fresh.len() {
            tracing::warn!(events = self.fresh.len(), "parked events: they are kept and tried again");
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
        self.compared = false;
        self.settle(table, shape, record_id)
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
        if self.contexts.get(&origin) == Some(&piece.context) {
            return Ok(()); // As of the piece before it.
        }
        let id = EventId { origin, sequence: piece.first };
        if self.tx.context(id)? != piece.context {
            self.tx.save_context(origin, piece.first, &piece.context)?;
        }
        self.contexts.insert(origin, piece.context.clone());
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
    /// No context: it is in the database, where it is looked for if that is needed.
    fn arrived(
        &mut self,
        id: EventId,
        group_last: Sequence,
        event: &Event,
        context: Option<&Vector>,
    ) -> Result<(), Error> {
        self.make_room(id, event)?;
        let Some(table) = self.tx.tables().get(&event.table) else {
            self.strays += 1;
            return self.tx.insert_stray(id, group_last, event);
        };
        // Before it is stored: of a record that is new the index then has nothing, and no event needs to be read.
        let held = self.tx.newest_beside(table, &event.record_id, id, id.sequence)?;
        // Marked as applied when it is stored, since it nearly always is: a mark that is set later writes the event twice.
        let processed = self.sees_all(table);
        let stored = self.tx.insert_event(&Place { id, group_last, table, processed }, event)?;
        self.count(stored);
        if !stored {
            // A long group may have begun to come in pieces, and come whole later: its beginning is stored, and not applied.
            if !self.tx.is_staged(table, id)? {
                return Ok(());
            }
            self.tx.set_processed(table, id, processed)?;
        }
        self.place(table, Arriving { id, event, context, held })
    }

    /// Applies an event that is stored, and marked as applied, unless the row is to be compared first.
    fn place(&mut self, table: &Replicated, arriving: Arriving<'_>) -> Result<(), Error> {
        self.compared = false;
        let Arriving { id, event, context, held } = arriving;
        let Some(shape) = &table.shape else {
            let reason = table.refused.as_deref().unwrap_or("the table is not in this database yet");
            return self.park_alone(id, event, table, (ParkReason::Schema, reason));
        };
        let arriving = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
        let superseded = held.is_some_and(|held| arriving < held.version);
        if !superseded && clock::is_doubtful(event.timestamp, self.now, limits::DRIFT_MAX) {
            let ahead = format!("its timestamp {} lies too far ahead of the clock here", event.timestamp);
            return self.park_alone(id, event, table, (ParkReason::Clock, &ahead));
        }
        let (key, cells) = match self.read(event, shape)? {
            Ok(read) => read,
            // Nothing of it would be seen any more.
            Err(_) if superseded => {
                self.tx.set_processed(table, id, true)?;
                return self.unpark(table, id);
            }
            Err(reason) => return self.park_unread(id, event, table, &reason),
        };
        let mut held = held;
        if !self.sees_all(table) {
            if self.ingest_unseen(table, shape, &key)? {
                held = self.tx.newest_beside(table, &event.record_id, id, id.sequence)?;
            }
            self.tx.set_processed(table, id, true)?;
            self.compared = self.tx.durable.loaded;
        }
        if !self.again {
            self.note_conflict(table, held, (id, event, context))?;
            self.tx.stir_own(table, &event.record_id)?;
        }
        match conflict::decide(table.declared.conflict, held.map(|held| held.version), arriving) {
            // What is later than the event is in no event, but it is in the row, and nowhere else.
            Verdict::Take if self.is_behind_large_row(arriving, (table, shape), &event.record_id)? => {
                self.unpark(table, id)
            }
            Verdict::Take => self.take(table, shape, (arriving, event, cells)),
            Verdict::Keep => {
                self.unpark(table, id)?;
                // An older event can still know a column that the newer one's table did not have; or be a delete, before which
                // nothing counts.
                if held.is_some_and(|held| held.layout != shape.layout.id) {
                    self.settle(table, shape, &event.record_id)?;
                }
                Ok(())
            }
        }
    }

    /// The key and the cells that the event speaks of, or why it cannot be understood under the table as it is here.
    fn read(&mut self, event: &Event, shape: &Shape) -> Result<Result<Read, String>, Error> {
        let Some(layout) = self.tx.layout(event.layout)? else { return Ok(Err("its layout is not known".into())) };
        if let Some(fault) = event.fault(&layout) {
            return Ok(Err(format!("it does not read: {fault}")));
        }
        if !shape.has_key_of(&layout) {
            return Ok(Err("the table has another primary key here".into()));
        }
        if let Some(reason) = event.left_out(&layout) {
            return Ok(Err(reason));
        }
        let row = event.data.as_deref().map(|data| record::row_from_json(&layout.columns, data)).transpose();
        let read = record::parse_record_id(&event.record_id, &shape.key).and_then(|key| Ok((key, row?)));
        Ok(match read {
            Err(error) => Err(format!("it does not read: {error}")),
            // Another row would be written than the one that is looked at.
            Ok((_, Some(cells))) if event.record_id != key_text(shape, &layout, &cells) => {
                Err("its row has another key than its record".into())
            }
            Ok(read) => Ok(read),
        })
    }

    /// Parks an event that cannot be understood here, for the reason that [`Applier::read`] gave.
    fn park_unread(&mut self, id: EventId, event: &Event, table: &Replicated, reason: &str) -> Result<(), Error> {
        let is_large = self.tx.layout(event.layout)?.is_some_and(|layout| event.left_out(&layout).is_some());
        let why = if is_large { ParkReason::Size } else { ParkReason::Schema };
        self.park_alone(id, event, table, (why, reason))
    }

    /// Whether no row of the table can hold what no event knows. Else each is compared with its events, without the one that
    /// arrives, before that is applied.
    fn sees_all(&self, table: &Replicated) -> bool {
        table.declared.capture == Capture::Triggers && self.tx.pending(table).is_none()
    }

    /// What the service did to the row and did not announce (yet), or did while no trigger saw it, becomes an event first.
    /// Answers whether there was anything.
    fn ingest_unseen(&mut self, table: &Replicated, shape: &Shape, key: &[Value]) -> Result<bool, Error> {
        if self.sees_all(table) || !self.tx.durable.loaded {
            return Ok(false); // Rows from before are looked at when everything is loaded.
        }
        let want = self.tx.pending(table).cloned().unwrap_or_default();
        match capture::compared::row(self.tx, (table, shape, &want), key, self.now)? {
            Found::Same => return Ok(false),
            Found::Restore => self.settle(table, shape, &shape.record_id_of_key(key))?,
            Found::Change(change) => self.done.ingested.push(ingest::changes(self.tx, vec![change], self.now)?),
            // Right behind what the row comes from may lie below a delete that the others have forgotten. What the page does not change is
            // compared again when everything is loaded; of a row that it changes, what a migration made of the old one goes.
            Found::Carried(..) if self.loads => return Ok(false),
            Found::Carried(change, at) => self.done.ingested.push(ingest::carried(self.tx, vec![(change, at)])?),
        }
        Ok(true)
    }

    /// Counts and keeps a conflict. Two events that say the same are none.
    fn note_conflict(
        &mut self,
        table: &Replicated,
        held: Option<Newest>,
        (id, event, context): (EventId, &Event, Option<&Vector>),
    ) -> Result<(), Error> {
        let Some(held) = held else { return Ok(()) };
        let context = match context {
            Some(context) => Cow::Borrowed(context),
            None => Cow::Owned(self.tx.context(id)?),
        };
        let held_id = held.id();
        if !conflict::are_concurrent(held_id, id, &context, || self.tx.context(held_id))? {
            return Ok(());
        }
        let same = |other: &Event| other.layout == event.layout && other.data == event.data;
        if self.tx.event(table, held_id)?.is_some_and(|(other, _)| same(&other)) {
            return Ok(());
        }
        self.done.conflicts += 1;
        let arriving = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
        let (winner, loser) = match conflict::decide(table.declared.conflict, Some(held.version), arriving) {
            Verdict::Take => (id, held_id),
            Verdict::Keep => (held_id, id),
        };
        tracing::info!(
            table = table.name,
            record = event.record_id,
            %winner,
            %loser,
            "two nodes changed one record without knowing of each other's change"
        );
        let rule = table.declared.conflict.word();
        self.tx.keep_conflict(table, Met { record_id: &event.record_id, winner, loser, rule }, self.now)
    }

    fn park_alone(
        &mut self,
        id: EventId,
        event: &Event,
        table: &Replicated,
        (reason, detail): (ParkReason, &str),
    ) -> Result<(), Error> {
        self.park(id, event, table, Why { reason, detail, holder: None })
    }

    fn park(&mut self, id: EventId, event: &Event, table: &Replicated, why: Why<'_>) -> Result<(), Error> {
        let place = Place { id, group_last: id.sequence, table, processed: false };
        if self.tx.park(&place, event, why, self.now)? {
            self.fresh.insert(id, why.reason);
        }
        Ok(())
    }

    fn unpark(&mut self, table: &Replicated, id: EventId) -> Result<(), Error> {
        self.fresh.remove(&id);
        self.tx.unpark(table, id)
    }
}

/// The record id of a row under the layout that it was captured with.
fn key_text(shape: &Shape, layout: &Layout, cells: &[Value]) -> String {
    let key: Vec<Value> = layout.key.iter().map(|&at| cells[at].clone()).collect();
    shape.record_id_of_key(&key)
}

/// An event that is to be applied.
struct Arriving<'a> {
    id: EventId,
    event: &'a Event,
    /// What its author had seen; none: it is in the database.
    context: Option<&'a Vector>,
    /// The newest event of its record beside it.
    held: Option<Newest>,
}

/// The key of an event's record, and its cells in the order of the event's own layout; none for a delete.
type Read = (Vec<Value>, Option<Vec<Value>>);
