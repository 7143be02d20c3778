//! What a donor had and has no more goes here, too: while everything is loaded from it, page by page.

use std::collections::BTreeSet;

use rowcast_schema::record;

use super::Applier;
use crate::edge::store::{Error, Replicated, SnapshotPage};
use crate::event::{EventId, Operation};
use crate::flow::capture::Change;
use crate::flow::ingest;
use crate::position::{NodeId, Vector};

impl Applier<'_, '_> {
    /// Takes out the events of the records after `after` and up to the end of the page that the donor's vector covers
    /// and the page does not have: they were superseded, or their record was deleted and its tombstone is compacted.
    ///
    /// Where a record is gone there, and this node has written to it since without making it anew, its writes stay in
    /// the event table, and a delete goes on top of them: no deleted row comes back, and nothing of it is lost unseen.
    /// The page itself is applied before. Answers how many events went.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget(&mut self, table: &str, after: Option<&str>, page: &SnapshotPage) -> Result<u64, Error> {
        let Some(table) = self.tx.tables().get(table).cloned() else { return Ok(0) };
        let given: BTreeSet<EventId> =
            page.rows.iter().map(|row| EventId { origin: row.origin, sequence: row.sequence }).collect();
        let records: BTreeSet<&str> = page.rows.iter().map(|row| row.event.record_id.as_str()).collect();
        let stored = self.tx.events_of_records(&table, after, page.next.as_deref())?;
        let mut gone = 0;
        for events in stored.chunk_by(|one, next| one.record_id == next.record_id) {
            let (out, stay): (Vec<_>, Vec<_>) = events
                .iter()
                .partition(|event| !given.contains(&event.id) && event.id.sequence <= page.vector.of(event.id.origin));
            if out.is_empty() {
                continue;
            }
            let ids: Vec<EventId> = out.iter().map(|event| event.id).collect();
            gone += ids.len() as u64;
            self.tx.drop_events(&table, &ids, &page.vector)?;
            let record_id = &events[0].record_id;
            let own = self.tx.durable.node;
            let written = |event: &&_| -> bool {
                let event: &crate::edge::store::Stored = event;
                event.id.origin == own && event.operation == Operation::Update
            };
            if !records.contains(record_id.as_str()) && !stay.is_empty() && stay.iter().all(written) {
                self.bury(&table, record_id)?;
            }
            self.refold(&table.name, record_id)?;
            self.delete_unknown(&table, record_id)?;
        }
        Ok(gone)
    }

    /// Takes out events of an origin beyond its position, at most `limit` of each table: they came with a load, and nobody can
    /// hand over what comes before them. Answers how many.
    ///
    /// # Errors
    /// When the database fails.
    pub fn let_go(&mut self, origin: NodeId, limit: usize) -> Result<usize, Error> {
        let mut gone = 0;
        let last = EventId { origin, sequence: self.tx.durable.vector.of(origin) };
        for table in self.tx.tables().iter() {
            let loose = self.tx.events_beyond(table, last, limit)?;
            let ids: Vec<EventId> = loose.iter().map(|event| event.id).collect();
            self.tx.drop_events(table, &ids, &Vector::default())?;
            gone += ids.len();
            let records: BTreeSet<&String> = loose.iter().map(|event| &event.record_id).collect();
            for record_id in records {
                self.refold(&table.name, record_id)?;
                self.delete_unknown(table, record_id)?;
            }
        }
        Ok(gone)
    }

    /// Puts a delete on top of what this node wrote to a record that the others had deleted.
    fn bury(&mut self, table: &Replicated, record_id: &str) -> Result<(), Error> {
        let Some(shape) = &table.shape else { return Ok(()) };
        tracing::warn!(
            table = table.name,
            record = record_id,
            "a record that was written here had been deleted by the others meanwhile: it is deleted; the writes stay in the event table"
        );
        let change = Change {
            table: table.name.clone(),
            operation: Operation::Delete,
            record_id: record_id.to_owned(),
            data: None,
            layout: shape.layout.id,
            changed: 0,
            at: Some(self.now),
        };
        let ingested = ingest::changes(self.tx, vec![change], self.now)?;
        self.done.ingested.push(ingested);
        Ok(())
    }

    /// The row of a record that no event knows any more goes.
    fn delete_unknown(&mut self, table: &Replicated, record_id: &str) -> Result<(), Error> {
        let Some(shape) = &table.shape else { return Ok(()) };
        let known = self.tx.newest(table, record_id)?.is_some() || !self.tx.parked_of(table, record_id)?.is_empty();
        match record::parse_record_id(record_id, &shape.key) {
            Ok(key) if !known => self.tx.delete(shape, &key)?,
            _ => {}
        }
        Ok(())
    }
}
