//! Many groups in one transaction, their events in the order of their records.
//!
//! In the order in which their authors made them, events meet the pages of two indexes at random where keys are random: of the
//! records in the event table, and of the table's own key. In the order of the records each such page is met once in a
//! transaction, however little of the database is kept in memory. Nobody sees what is in between.
//!
//! It comes to the same, but for the rowids of a table that has none of its own: events of one record stay in their order, and
//! those of different records of such tables do not know of each other. Where they do (a UNIQUE value, the service's
//! triggers), or where it is not sure, everything before is applied first, and then the group as it came.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rowcast_schema::layout::Layout;

use super::Applier;
use crate::clock;
use crate::edge::store::{Error, Replicated};
use crate::event::{Event, EventId, Piece};
use crate::limits;
use crate::position::{NodeId, Vector};

/// Groups that wait for the end of the transaction.
#[derive(Default)]
pub(super) struct Deferred<'a> {
    groups: Vec<(NodeId, Piece)>,
    /// The position with them; none: there are none.
    pub(super) ahead: Option<Vector>,
    /// The transaction has had a group.
    begun: bool,
    /// Per origin and table, whether nothing was stored there beyond the position when the first event came.
    clear: BTreeMap<(NodeId, &'a str), bool>,
}

impl<'a> Applier<'_, 'a> {
    /// Takes a whole group, and applies it later in the transaction, with others: at the latest when it ends.
    ///
    /// # Errors
    /// When the database fails.
    pub fn defer(&mut self, origin: NodeId, group: Piece, layouts: &[Layout]) -> Result<(), Error> {
        // The first one is mostly the only one: then there is nothing to put in order.
        let begun = std::mem::replace(&mut self.deferred.begun, true);
        if !begun || !self.may_wait(origin, &group)? {
            self.apply_deferred()?;
            return self.group(origin, &group, layouts);
        }
        self.keep(origin, &group, layouts)?;
        let position = &self.tx.durable.vector;
        self.deferred.ahead.get_or_insert_with(|| position.clone()).set(origin, group.last());
        self.deferred.groups.push((origin, group));
        Ok(())
    }

    /// Applies what is deferred, and moves the position past it.
    ///
    /// # Errors
    /// When the database fails. Nothing of the transaction may be kept then.
    pub(super) fn apply_deferred(&mut self) -> Result<(), Error> {
        let groups = std::mem::take(&mut self.deferred.groups);
        let mut turns: Vec<(&Event, EventId, &Piece)> = Vec::new();
        for (origin, group) in &groups {
            let ids = (group.first..).map(|sequence| EventId { origin: *origin, sequence });
            turns.extend(group.events.iter().zip(ids).map(|(event, id)| (event, id, group)));
        }
        // By the table's own name: events may spell it in another case.
        let tables = self.tx.tables();
        turns.sort_by_cached_key(|(event, ..)| (tables.get(&event.table).map(|table| &table.name), &event.record_id));
        for (event, id, group) in turns {
            self.arrived(id, group.group_last, event, Some(&group.context))?;
        }
        // Not before: what this node says of its own meanwhile does not claim to have seen them.
        self.deferred.ahead = None;
        groups.iter().try_for_each(|(origin, group)| self.pass(*origin, group))
    }

    /// Whether all of a group is plain, and not there yet: a load may have brought what comes now, and what stands here then is
    /// looked at as soon as the group was taken.
    fn may_wait(&mut self, origin: NodeId, group: &Piece) -> Result<bool, Error> {
        let mut looked_at = None;
        for event in &group.events {
            let Some(table) = self.plain(event) else { return Ok(false) };
            let name = table.name.as_str();
            if looked_at.replace(name) == Some(name) {
                continue;
            }
            let clear = match self.deferred.clear.entry((origin, name)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => *unknown.insert(!self.tx.has_beyond(table, origin)?),
            };
            if !clear {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The table of an event that only makes its record's row what it says, if it is the newest one.
    pub(super) fn plain(&self, event: &Event) -> Option<&'a Replicated> {
        let table = self.tx.tables().get(&event.table)?;
        let shape = table.shape.as_ref().filter(|shape| shape.layout.id == event.layout)?;
        let plain = shape.keeps_to_its_row()
            && self.sees_all(table)
            && !clock::is_doubtful(event.timestamp, self.now, limits::DRIFT_MAX);
        plain.then_some(table)
    }
}
