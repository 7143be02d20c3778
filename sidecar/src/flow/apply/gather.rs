//! Many groups in one transaction, their events in the order of their records.
//!
//! In the order in which their authors made them, events meet the pages of two indexes at random where keys are random: of the
//! records in the event table, and of the table's own key. In the order of the records each such page is met once in a
//! transaction, however little of the database is kept in memory. Nobody sees what is in between.
//!
//! It comes to the same: events of one record stay in their order, and those of different records of such tables do not know
//! of each other. Where they do, or where it is not sure, everything before is applied first, and then the group as it came.

use std::collections::BTreeMap;

use rowcast_schema::layout::Layout;

use super::Applier;
use crate::clock;
use crate::edge::store::Error;
use crate::event::{Event, EventId, Piece};
use crate::limits;
use crate::position::NodeId;

/// Groups that wait for the end of the transaction. The position is beyond them.
#[derive(Default)]
pub(super) struct Gathered {
    groups: Vec<(NodeId, Piece)>,
    /// The transaction has had a group.
    begun: bool,
    /// Whether nothing was stored of an origin beyond its position when the first group of it came.
    clear: BTreeMap<NodeId, bool>,
}

impl Applier<'_, '_> {
    /// Moves the position past a whole group, and applies it later in the transaction, with others: at the latest when
    /// it ends.
    ///
    /// # Errors
    /// When the database fails.
    pub fn gather(&mut self, origin: NodeId, group: Piece, layouts: &[Layout]) -> Result<(), Error> {
        // The first one is mostly the only one: then there is nothing to put in order.
        let begun = std::mem::replace(&mut self.gathered.begun, true);
        if !begun || !self.is_clear(origin)? || !group.events.iter().all(|event| self.is_plain(event)) {
            self.apply_gathered()?;
            return self.group(origin, &group, layouts);
        }
        self.keep(origin, &group, layouts)?;
        self.pass(origin, &group)?;
        self.gathered.groups.push((origin, group));
        Ok(())
    }

    /// Applies what is gathered.
    ///
    /// # Errors
    /// When the database fails. Nothing of the transaction may be kept then.
    pub fn apply_gathered(&mut self) -> Result<(), Error> {
        let groups = std::mem::take(&mut self.gathered.groups);
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
        Ok(())
    }

    /// Whether an event only makes its record's row what it says, if it is the newest one.
    pub(super) fn is_plain(&self, event: &Event) -> bool {
        let Some(table) = self.tx.tables().get(&event.table) else { return false };
        let Some(shape) = table.shape.as_ref().filter(|shape| shape.layout.id == event.layout) else { return false };
        shape.keeps_to_its_row()
            && self.sees_all(table)
            && !clock::is_doubtful(event.timestamp, self.now, limits::DRIFT_MAX)
    }

    /// Whether nothing is stored of an origin beyond its position: a load may have brought what comes now.
    fn is_clear(&mut self, origin: NodeId) -> Result<bool, Error> {
        if let Some(&clear) = self.gathered.clear.get(&origin) {
            return Ok(clear);
        }
        let clear = !self.tx.has_beyond(origin)?;
        self.gathered.clear.insert(origin, clear);
        Ok(clear)
    }
}
