//! What a donor had and has no more goes here, too: while everything is loaded from it, page by page.

use std::collections::{BTreeMap, BTreeSet};

use rowcast_schema::declaration::History;
use rowcast_schema::record;

use super::Applier;
use crate::clock::Timestamp;
use crate::edge::store::{Error, Kept, ParkReason, Replicated, SnapshotPage, SnapshotRow, Stored, Tx};
use crate::event::{Event, EventId, Operation, Version};
use crate::flow::capture::Change;
use crate::flow::ingest;
use crate::limits;
use crate::position::{NodeId, Vector};

impl Applier<'_, '_> {
    /// Stores the events of a page, and makes the rows of their records. They come by record, and are stored by id where that comes to
    /// the same: what a page has lies close together in the table and in the index of the records, in any order, and in
    /// the index of the ids it is spread over all.
    ///
    /// In the tables that are `held` there may be events that another donor brought, or this one before it was restored from a backup:
    /// what stands there under the number of another event gives way.
    ///
    /// # Errors
    /// When the database fails.
    pub fn snapshot_page(&mut self, page: &SnapshotPage, held: &[String]) -> Result<(), Error> {
        self.loads = true;
        let gave_way = if held.is_empty() { BTreeSet::new() } else { self.give_way(page, held)? };
        page.layouts.iter().try_for_each(|layout| self.tx.save_layout(layout))?;
        page.contexts.iter().try_for_each(|(origin, first, vector)| self.tx.save_context(*origin, *first, vector))?;
        let mut rows: Vec<&SnapshotRow> = page.rows.iter().collect();
        if rows.iter().all(|row| self.plain(&row.event).is_some()) {
            rows.sort_unstable_by_key(|row| (row.origin, row.sequence));
        }
        for row in rows {
            let id = EventId { origin: row.origin, sequence: row.sequence };
            // Of a table that is not declared any more it may be in the event table still.
            if self.tx.tables().get(&row.event.table).is_none() && self.tx.stored(id)?.is_some() {
                continue;
            }
            self.snapshot_event(id, row.group_last, &row.event)?;
        }
        gave_way.iter().try_for_each(|(table, record_id)| self.make_anew(table, record_id))
    }

    /// Takes out what stands under the number of an event of the page, and is another event: the number was given out twice, the first
    /// time by a node that was set back since. Nothing here counts it, so the donor's counts; what it made of its record is kept
    /// beside. Answers the records, to be made anew.
    fn give_way(&mut self, page: &SnapshotPage, held: &[String]) -> Result<BTreeSet<(String, String)>, Error> {
        let own = self.tx.durable.node;
        let mut records = BTreeSet::new();
        for row in page.rows.iter().filter(|row| row.origin != own) {
            let id = EventId { origin: row.origin, sequence: row.sequence };
            let stored = self.tx.event_among(held, id)?;
            if let Some(stored) = stored.filter(|stored| stored.fingerprint() != row.event.fingerprint()) {
                records.extend(self.take_out(id, stored)?);
            }
        }
        Ok(records)
    }

    /// The same of an event that arrives after a load, while parts of what that brought are beyond the position.
    pub(super) fn make_room(&mut self, id: EventId, event: &Event) -> Result<(), Error> {
        let durable = &self.tx.durable;
        if id.origin == durable.node || durable.load_target.of(id.origin) < id.sequence {
            return Ok(());
        }
        let stored = self.tx.event_anywhere(id)?.filter(|stored| stored.fingerprint() != event.fingerprint());
        let Some(stored) = stored else { return Ok(()) };
        match self.take_out(id, stored)? {
            Some((table, record_id)) => self.make_anew(&table, &record_id),
            None => Ok(()),
        }
    }

    /// Takes an event out whose number stands for another one. Answers the record that is to be made anew.
    fn take_out(&mut self, id: EventId, stored: Event) -> Result<Option<(String, String)>, Error> {
        tracing::warn!(
            event = %id,
            table = stored.table,
            "an event of an earlier load gives way to the one that has its number now: the node that made it was set back"
        );
        let Some(table) = self.tx.tables().get(&stored.table).cloned() else {
            self.tx.drop_strays(&stored.table, &[id])?;
            return Ok(None);
        };
        // I3, as in `forget`.
        self.ingest_unseen_of(&table, &stored.record_id)?;
        let kept = Kept { record: &stored.record_id, what: "renumbered", found: stored.data, made: None };
        self.tx.keep_found(&table, &kept, self.now)?;
        self.tx.drop_events(&table, &[id])?;
        Ok(Some((table.name.clone(), stored.record_id)))
    }

    /// Makes a row what its record's events say, where one of them was taken out.
    fn make_anew(&mut self, table: &str, record_id: &str) -> Result<(), Error> {
        self.refold(table, record_id)?;
        match self.tx.tables().get(table).cloned() {
            Some(table) => self.delete_unknown(&table, record_id),
            None => Ok(()),
        }
    }

    /// Whether anything is stored here of the records after `after` and up to the end of the page.
    ///
    /// # Errors
    /// When the database fails.
    pub fn has_events(&self, table: &str, after: Option<&str>, page: &SnapshotPage) -> Result<bool, Error> {
        let Some(table) = self.tx.tables().get(table) else {
            return Ok(!self.tx.strays_between(table, (after, page.next.as_deref()), 1)?.0.is_empty());
        };
        Ok(!self.tx.events_of_records(table, after, page.next.as_deref(), 1)?.events.is_empty())
    }

    /// Takes out what is stored here of the records after `after` and up to the end of the page, and is not on the page: it was
    /// superseded, or its record was deleted and the tombstone is compacted; or only this node ever had it, and whoever
    /// made it brings it again. This node's own events that the donor does not have stay. A table that is never
    /// compacted keeps its history, too: it is superseded here as it is there.
    ///
    /// What nobody brings again goes along: events that the donor does not have of the ids that this node has `left`. Where
    /// they hold the record against what the donor has of it, and against what another node made of it that brings it
    /// again itself, the newest is emitted again as this node's own, stamped now: with its old timestamp it would come
    /// back to life where a later delete is compacted, and not where it is still stored. Where they do not, they go, and
    /// what the newest made of the record is kept beside.
    ///
    /// A record that the donor does not know was deleted, if it was known here to have been shared. Then what was written to
    /// it without knowing that goes, too; and where it is this node's own, and has its number, a delete goes on top of it.
    ///
    /// The page itself is applied before. Answers after which record to go on, or that it is done.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget(
        &mut self,
        table: &str,
        after: Option<&str>,
        page: &SnapshotPage,
        left: &BTreeSet<NodeId>,
    ) -> Result<Option<String>, Error> {
        let Some(table) = self.tx.tables().get(table).cloned() else { return self.forget_strays(table, after, page) };
        self.loads = true;
        let mut given: BTreeMap<&str, BTreeSet<Version>> = BTreeMap::new();
        for row in &page.rows {
            let version = Version { timestamp: row.event.timestamp, origin: row.origin, sequence: row.sequence };
            given.entry(&row.event.record_id).or_default().insert(version);
        }
        let read = |tx: &Tx<'_>| tx.events_of_records(&table, after, page.next.as_deref(), limits::FORGET_EVENTS_MAX);
        let mut stored = read(self.tx)?;
        // I3: the rows are made from what is left, and what the service did to them would be gone.
        let mut unseen = false;
        for events in stored.events.chunk_by(|one, next| one.record_id == next.record_id) {
            unseen |= self.ingest_unseen_of(&table, &events[0].record_id)?;
        }
        if unseen {
            stored = read(self.tx)?;
        }
        let none = BTreeSet::new();
        for events in stored.events.chunk_by(|one, next| one.record_id == next.record_id) {
            let given = given.get(events[0].record_id.as_str()).unwrap_or(&none);
            self.forget_of_record(&table, events, given, (&page.vector, left))?;
        }
        Ok(stored.next)
    }

    /// The same of a table that is not declared here: what the donor's vector counts it brings again, or nobody needs it any more.
    fn forget_strays(
        &mut self,
        table: &str,
        after: Option<&str>,
        page: &SnapshotPage,
    ) -> Result<Option<String>, Error> {
        let given: BTreeSet<EventId> =
            page.rows.iter().map(|row| EventId { origin: row.origin, sequence: row.sequence }).collect();
        let (kept, next) = self.tx.strays_between(table, (after, page.next.as_deref()), limits::FORGET_EVENTS_MAX)?;
        let goes = |id: &EventId| id.sequence <= page.vector.of(id.origin) && !given.contains(id);
        let gone: Vec<EventId> = kept.into_iter().map(|(id, _)| id).filter(goes).collect();
        self.tx.drop_strays(table, &gone)?;
        Ok(next)
    }

    /// What the service did to the row of a record, and no trigger saw, becomes an event. Answers whether there was anything.
    fn ingest_unseen_of(&mut self, table: &Replicated, record_id: &str) -> Result<bool, Error> {
        let Some(shape) = table.shape.as_ref().filter(|_| !self.sees_all(table)) else { return Ok(false) };
        match record::parse_record_id(record_id, &shape.key) {
            Ok(key) => self.ingest_unseen(table, shape, &key),
            Err(_) => Ok(false),
        }
    }

    /// The same for the events of one record, the oldest first, beside those that the donor has.
    fn forget_of_record(
        &mut self,
        table: &Replicated,
        events: &[Stored],
        given: &BTreeSet<Version>,
        (covered, left): (&Vector, &BTreeSet<NodeId>),
    ) -> Result<(), Error> {
        let own = self.tx.durable.node;
        let (is_known, keeps_history) = (!given.is_empty(), table.declared.history == History::Forever);
        let is_covered = |event: &Stored| event.version.sequence <= covered.of(event.version.origin);
        let counted = &self.tx.durable.vector;
        let stays = |event: &&Stored| {
            // What the donor has of it, too, is not newer than what it gives. What only an earlier load brought is counted by nobody: its
            // author may have been set back since, and have given its number to another event.
            let superseded = given.last().is_some_and(|newest| event.version < *newest);
            let is_counted = event.version.sequence <= counted.of(event.version.origin);
            let kept = keeps_history && superseded && is_covered(event) && is_counted;
            given.contains(&event.version) || kept || (event.version.origin == own && !is_covered(event))
        };
        let (stay, out): (Vec<&Stored>, Vec<&Stored>) = events.iter().partition(stays);
        let Some(record_id) = out.first().map(|event| &event.record_id) else { return Ok(()) };
        let written = stay.iter().any(|event| !given.contains(&event.version) && event.version.origin == own);
        let unshared: Vec<&Stored> =
            out.iter().filter(|event| !is_covered(event) && left.contains(&event.version.origin)).copied().collect();
        let shared = out.iter().rfind(|event| is_covered(event));
        let existed = shared.is_some_and(|event| event.operation != Operation::Delete);
        let made_anew = |events: &[&Stored]| {
            let deleted = events.iter().position(|event| event.operation == Operation::Delete);
            deleted.is_some_and(|at| events[at..].iter().any(|event| event.operation != Operation::Delete))
        };
        let holds = |newest: &Stored| match given.last() {
            Some(theirs) => *theirs < newest.version,
            None => !existed || made_anew(&unshared),
        };
        let replaced = out.last().is_some_and(|event| !is_covered(event) && !left.contains(&event.version.origin));
        let carried = match unshared.last() {
            Some(newest) if !written && !replaced && holds(newest) => self.tx.event(table, newest.version.id())?,
            _ => None,
        };
        if let (None, Some(newest), false) = (&carried, unshared.last(), written) {
            let found = self.tx.event(table, newest.version.id())?.and_then(|(event, _)| event.data);
            self.tx.keep_found(table, &Kept { record: record_id, what: "unshared", found, made: None }, self.now)?;
            tracing::warn!(
                table = table.name,
                record = record_id,
                writes = unshared.len(),
                "what was written here while the others had given this node up does not hold: the record was changed or deleted by another node; its last state is kept in `_rowcast_mended`"
            );
        }
        let ids: Vec<EventId> = out.iter().map(|event| event.version.id()).collect();
        self.tx.drop_events(table, &ids)?;
        if let Some((event, _)) = carried {
            self.emit_again(table, event)?;
        }
        // Nothing speaks of a delete where somebody brings again what it was made from.
        let nobody_brings = out.iter().all(|event| is_covered(event));
        let updates_only = nobody_brings && stay.iter().all(|event| event.operation == Operation::Update);
        if !is_known && written && ((existed && !made_anew(&unshared)) || updates_only) {
            self.bury(table, record_id)?;
        }
        self.refold(&table.name, record_id)?;
        self.delete_unknown(table, record_id)
    }

    /// What this node did under an id that it has left is done again under the one that it has.
    fn emit_again(&mut self, table: &Replicated, event: Event) -> Result<(), Error> {
        let Event { operation, record_id, data, layout, changed, .. } = event;
        let name = table.name.clone();
        let change = Change { table: name, operation, record_id, data, layout, changed, at: Some(self.now) };
        self.done.ingested.push(ingest::changes(self.tx, vec![change], self.now)?);
        Ok(())
    }

    /// Puts a delete on top of what this node wrote to a record that the others had deleted.
    fn bury(&mut self, table: &Replicated, record_id: &str) -> Result<(), Error> {
        let Some(shape) = &table.shape else { return Ok(()) };
        tracing::warn!(
            table = table.name,
            record = record_id,
            "a record that was written here had been deleted by the others meanwhile: it is deleted; the writes stay in the event table"
        );
        let Some(newest) = self.tx.newest(table, record_id)? else { return Ok(()) };
        let change = Change {
            table: table.name.clone(),
            operation: Operation::Delete,
            record_id: record_id.to_owned(),
            data: None,
            layout: shape.layout.id,
            changed: 0,
            at: None,
        };
        // Right behind them, and not now: who made the record anew meanwhile does not know of it.
        let behind = Timestamp(newest.version.timestamp.0 + 1);
        let ingested = ingest::carried(self.tx, vec![(change, behind)])?;
        self.done.ingested.push(ingested);
        Ok(())
    }

    /// The row of a record that no event knows any more goes. What waits for the clock makes it again in its time; until then
    /// nothing would say what the row comes from, and it would pass for a write of the service.
    fn delete_unknown(&mut self, table: &Replicated, record_id: &str) -> Result<(), Error> {
        let Some(shape) = &table.shape else { return Ok(()) };
        let waits = self.tx.parked_of(table, record_id)?.iter().any(|parked| parked.reason != ParkReason::Clock);
        let known = waits || self.tx.newest(table, record_id)?.is_some();
        match record::parse_record_id(record_id, &shape.key) {
            Ok(key) if !known => self.tx.delete(shape, &key)?,
            _ => {}
        }
        Ok(())
    }
}
