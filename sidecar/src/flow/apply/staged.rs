//! Long groups: stored piece by piece as they come, and applied in one transaction when they are whole.
//!
//! That transaction holds the write lock for as long as it takes, so all that can be done before is done before, and what
//! is left is done in bulk: one mark over the whole range, one walk over its events, and a look at the other events of a
//! record only where there are any.

use rowcast_schema::layout::Layout;

use super::{Applier, Arriving};
use crate::clock::Timestamp;
use crate::edge::store::{Error, Place, Staged};
use crate::event::{EventId, Fingerprint, Piece};
use crate::limits;
use crate::position::{NodeId, Sequence};

impl Applier<'_, '_> {
    /// Stores a piece of a long group without applying it. The position does not move.
    ///
    /// # Errors
    /// When the database fails.
    pub fn stage(&mut self, origin: NodeId, piece: &Piece, layouts: &[Layout]) -> Result<(), Error> {
        self.keep(origin, piece, layouts)?;
        for (event, sequence) in piece.events.iter().zip(piece.first..) {
            let id = EventId { origin, sequence };
            self.make_room(id, event)?;
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

    /// Applies what is deferred, then deletes at most `limit` events of `origin` that are staged. Answers how many: fewer when none
    /// is left.
    ///
    /// # Errors
    /// When the database fails.
    pub fn discard_staged(&mut self, origin: NodeId, limit: usize) -> Result<usize, Error> {
        self.apply_deferred()?;
        self.contexts.remove(&origin);
        let gone = self.tx.discard_staged(origin, limit)?;
        self.done.discarded += gone as u64;
        Ok(gone)
    }

    /// The number and the fingerprint of an event, where it is stored.
    ///
    /// # Errors
    /// When the database fails.
    pub fn stored(&self, id: EventId) -> Result<Option<(Sequence, Fingerprint)>, Error> {
        self.tx.stored(id)
    }

    /// Applies what is deferred, then the staged events of `origin` up to `last`, and moves the position.
    ///
    /// # Errors
    /// When the database fails. Everything stays staged then.
    pub fn staged_group(&mut self, origin: NodeId, last: Sequence) -> Result<(), Error> {
        self.apply_deferred()?;
        let first = self.tx.durable.vector.of(origin) + 1;
        let context = self.tx.context(EventId { origin, sequence: first })?;
        let mut greatest = Timestamp::default();
        for table in self.tx.tables().iter() {
            if self.sees_all(table) {
                self.tx.set_range_processed(table, origin, (first, last))?;
            }
            // From the newest down: a record's last event takes its row, and the others find it taken. The other way
            // round every one of them would be written.
            let mut until = last;
            while first <= until {
                let events = self.tx.staged(table, origin, (first, until), limits::APPLY_ROWS_MAX)?;
                let Some(oldest) = events.last() else { break };
                until = oldest.id.sequence - 1;
                for Staged { id, event, contested } in &events {
                    let held = match contested {
                        false => None,
                        true => self.tx.newest_beside(table, &event.record_id, *id, first)?,
                    };
                    self.place(table, Arriving { id: *id, event, context: Some(&context), held })?;
                    greatest = greatest.max(self.trusted(event.timestamp));
                }
            }
        }
        self.tx.set_position(origin, last, greatest)
    }
}
