//! Says what is right: a reference that knows nothing of Rowcast but its promises.
//!
//! It remembers every committed change of every service, and every event that was ever seen on the bus or in a file. At
//! the end each change must be an event, each event number must stand for one content, and each node's tables must be
//! the fold of all events: the greatest version of each record, and of two records with one UNIQUE value the greater.

use std::collections::{BTreeMap, BTreeSet};

use rowcast::clock::Timestamp;
use rowcast::event::{Event, EventId, Piece};
use rowcast::position::{NodeId, Sequence};
use rowcast::wire::{self, Message};
use rusqlite::Connection;

use crate::service::{Changed, Done, Rows, TABLES};

/// An event, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its table.
    pub table: String,
    /// Its record.
    pub record: String,
    /// The row, or that it went.
    pub data: Option<String>,
    /// When it was written.
    pub timestamp: i64,
}

/// How far an event may lie ahead of the latest that its author's clock ever showed: as far as the others may be ahead.
const AHEAD_MAX_MILLIS: i64 = 61_000;

/// What decides between two events of a record.
type Version = (i64, NodeId, Sequence);

/// Events that are stored somewhere.
pub type Stored = BTreeMap<(NodeId, Sequence), Known>;

/// What is known of a history.
#[derive(Debug, Default)]
pub struct Judge {
    /// What was seen under each number, on the bus or in a file.
    events: BTreeMap<(NodeId, Sequence), Vec<Known>>,
    /// What was sent: it is on its author's disk for good.
    sent: Stored,
    /// Ids that nodes left behind, and up to where the others had their events: what lies beyond goes along, or does not hold.
    left: BTreeMap<NodeId, Sequence>,
    /// Old copies of files were used: numbers may be given out twice, until that is noticed.
    pub copies: bool,
    /// Committed changes that must become events.
    promised: Vec<(usize, usize, Done)>,
    promises: usize,
    forked: BTreeSet<NodeId>,
    /// What is wrong already.
    pub wrong: Vec<String>,
}

impl Judge {
    /// A service was told that its transaction is committed.
    pub fn committed(&mut self, node: usize, done: Done) {
        self.promised.push((self.promises, node, done));
        self.promises += 1;
    }

    /// A node speaks under another id from now on.
    pub fn left(&mut self, id: NodeId, known: Sequence) {
        self.left.insert(id, known);
    }

    /// How many changes were promised so far.
    pub fn promises(&self) -> usize {
        self.promises
    }

    /// Promises of a node from a number on are void: a power cut or a restore took the commit with it. What was published
    /// all the same stays.
    pub fn void(&mut self, node: usize, from: usize) {
        self.promised.retain(|&(number, of, _)| number < from || of != node);
    }

    /// A frame was sent.
    pub fn frame(&mut self, origin: Option<NodeId>, frame: &[u8]) {
        match (wire::decode(frame), origin) {
            (Ok(Message::Feed(feed)), _) => self.pieces(feed.origin, &feed.pieces),
            (Ok(Message::Fetched(rowcast::edge::store::Answer::Events(page))), Some(origin)) => {
                self.pieces(origin, &page.pieces);
            }
            (Ok(Message::Snapshot(page)), _) => {
                for row in &page.rows {
                    self.sent_event(row.origin, row.sequence, &row.event);
                }
            }
            _ => {}
        }
    }

    fn pieces(&mut self, origin: NodeId, pieces: &[Piece]) {
        for piece in pieces {
            for (event, sequence) in piece.events.iter().zip(piece.first..) {
                self.sent_event(origin, sequence, event);
            }
        }
    }

    fn sent_event(&mut self, origin: NodeId, sequence: Sequence, event: &Event) {
        let known = Known {
            table: event.table.clone(),
            record: event.record_id.clone(),
            data: event.data.clone(),
            timestamp: event.timestamp.0,
        };
        self.saw(origin, sequence, &known);
        self.sent.entry((origin, sequence)).or_insert(known);
    }

    fn saw(&mut self, origin: NodeId, sequence: Sequence, known: &Known) {
        let seen = self.events.entry((origin, sequence)).or_default();
        if seen.contains(known) {
            return;
        }
        seen.push(known.clone());
        if 1 < seen.len() && !self.copies && self.forked.insert(origin) {
            self.wrong.push(format!("{origin:?}:{sequence} stands for two events: {seen:?}"));
        }
    }

    /// Reads the events of one origin that a node has stored from a number on, and compares them with its clock.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn read_new(
        &mut self,
        connection: &Connection,
        (origin, from): (NodeId, Sequence),
        clock_millis: i64,
    ) -> rusqlite::Result<()> {
        for table in &TABLES {
            let sql = format!(
                "SELECT sequence_number, record_id, data, timestamp FROM {}_Events WHERE id BETWEEN ?1 AND ?2",
                table.name
            );
            let range = [from, Sequence::MAX >> 1].map(|sequence| EventId { origin, sequence }.to_string());
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(range)?;
            while let Some(row) = rows.next()? {
                let sequence: u64 = row.get::<_, i64>(0)?.try_into().expect("a sequence number stands there");
                let known =
                    Known { table: table.name.into(), record: row.get(1)?, data: row.get(2)?, timestamp: row.get(3)? };
                let ahead = Timestamp(known.timestamp).millis() - clock_millis;
                if AHEAD_MAX_MILLIS < ahead && !self.copies {
                    self.wrong.push(format!("{origin:?}:{sequence} lies {ahead} ms ahead of its author's clock"));
                }
                self.saw(origin, sequence, &known);
            }
        }
        Ok(())
    }

    /// Reads the events that a node has stored, beside those of the others, which must be the same.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn read(&mut self, connection: &Connection, stored: &mut Stored) -> rusqlite::Result<()> {
        for table in &TABLES {
            let sql = format!(
                "SELECT source_node_id, sequence_number, record_id, data, timestamp FROM {}_Events",
                table.name
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let origin: String = row.get(0)?;
                let origin: NodeId = origin.parse().expect("a node id stands there");
                let sequence: u64 = row.get::<_, i64>(1)?.try_into().expect("a sequence number stands there");
                let known =
                    Known { table: table.name.into(), record: row.get(2)?, data: row.get(3)?, timestamp: row.get(4)? };
                self.saw(origin, sequence, &known);
                let first = stored.entry((origin, sequence)).or_insert_with(|| known.clone());
                if *first != known && self.forked.insert(origin) {
                    self.wrong.push(format!("{origin:?}:{sequence} is stored as {first:?} and as {known:?}"));
                }
            }
        }
        Ok(())
    }

    /// What the tables must be: the fold of the events that are stored anywhere, and of those that were ever sent, also
    /// where they are compacted since. What an old copy of a file had not seen may be gone.
    pub fn fold(&self, stored: &Stored) -> Rows {
        let counts = |id: &(NodeId, Sequence)| self.left.get(&id.0).is_none_or(|known| id.1 <= *known);
        let sent = self.sent.iter().filter(|(id, _)| !self.copies && counts(id) && !stored.contains_key(id));
        let mut newest: BTreeMap<(&str, &str), (Version, &Known)> = BTreeMap::new();
        for (&(origin, sequence), known) in stored.iter().chain(sent) {
            let version = (known.timestamp, origin, sequence);
            let slot = newest.entry((&known.table, &known.record)).or_insert((version, known));
            if slot.0 < version {
                *slot = (version, known);
            }
        }
        let mut rows = Rows::new();
        for table in &TABLES {
            let mut records: Vec<_> = newest.iter().filter(|((name, _), _)| *name == table.name).collect();
            records.sort_by_key(|(_, (version, _))| std::cmp::Reverse(*version));
            let mut taken = BTreeSet::new();
            for ((_, record), (_, known)) in records {
                let Some(data) = &known.data else { continue };
                if let Some(column) = table.unique {
                    let row: serde_json::Value = serde_json::from_str(data).expect("a row is JSON");
                    let value = &row[column];
                    if !value.is_null() && !taken.insert(value.to_string()) {
                        continue; // A greater version holds it.
                    }
                }
                rows.insert((table.name, (*record).to_owned()), data.clone());
            }
        }
        rows
    }

    /// Changes that were committed and are no event anywhere; and those whose event would lose to what the service had
    /// before its eyes when it made them.
    pub fn lost(&self) -> Vec<String> {
        let mut made: BTreeMap<(&str, &str, Option<&str>), (u64, i64)> = BTreeMap::new();
        for known in self.events.values().flatten() {
            let made = made.entry((&known.table, &known.record, known.data.as_deref())).or_default();
            *made = (made.0 + 1, made.1.max(known.timestamp));
        }
        let mut lost = Vec::new();
        for (_, node, done) in &self.promised {
            for Changed { table, record, before, after } in &done.changed {
                let of = TABLES.iter().find(|other| other.name == *table);
                // A row that another one's REPLACE evicted, and that was made again before the sidecar looked, was not
                // gone; and of announced changes only the last one is promised. The fold holds both to their end.
                if of.is_some_and(|of| of.announced || (after.is_none() && of.unique.is_some())) {
                    continue;
                }
                let seen = before.as_ref().and_then(|row| made.get(&(*table, record.as_str(), Some(row.as_str()))));
                let seen = seen.map(|(_, timestamp)| *timestamp);
                match made.get_mut(&(*table, record.as_str(), after.as_deref())) {
                    // Each delete is one of its own; a row that was written is known by its marks.
                    Some((left, _)) if *left > 0 && after.is_none() => *left -= 1,
                    Some((left, timestamp)) if *left > 0 => {
                        if !self.copies && seen.is_some_and(|seen| *timestamp <= seen) {
                            lost.push(format!(
                                "node {node}: {table} {record} {after:?} at {timestamp} loses to {before:?} at {seen:?}, which it saw"
                            ));
                        }
                    }
                    _ => lost.push(format!("node {node}: {table} {record} {after:?} by {:?}", done.sql)),
                }
            }
        }
        lost
    }

    /// Events seen.
    pub fn events(&self) -> usize {
        self.events.len()
    }
}

/// How two tables differ, a line a record.
pub fn differences(expected: &Rows, found: &Rows) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, row) in expected {
        match found.get(key) {
            None => lines.push(format!("{} {}: missing, should be {row}", key.0, key.1)),
            Some(other) if other != row => lines.push(format!("{} {}: {other}, should be {row}", key.0, key.1)),
            Some(_) => {}
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        lines.push(format!("{} {}: should not be there: {}", key.0, key.1, found[key]));
    }
    lines
}
