//! Says what is right: a reference that knows nothing of Rowcast but its promises.
//!
//! It remembers every committed change of every service, and every event that was ever seen on the bus or in a file. At
//! the end each change must be an event, each event number must stand for one content, and each node's tables must be
//! the fold of all events: the greatest version of each record, and of two records with one UNIQUE value the greater.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rowcast::clock::Timestamp;
use rowcast::event::{Event, EventId, Piece};
use rowcast::position::{NodeId, Sequence, Vector};
use rowcast::wire::{self, Message};
use rusqlite::{Connection, OpenFlags};

pub mod kept;

use crate::schema::{self, Made};
use crate::service::{Changed, Done, Rows, TABLES, Table};

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

/// Events that say the same of a record.
#[derive(Debug, Default)]
struct Alike {
    /// How many of them no promise was found for yet.
    left: u64,
    /// The timestamp of the last of them.
    greatest: i64,
    /// How many changes had been promised when each was first seen, and its timestamp.
    each: Vec<(usize, i64)>,
}

impl Alike {
    /// The timestamp of the one that made the row which a service had before it when it made its change of that number:
    /// the last that was seen by then. An event that nobody had seen by then did, where a service had written that row: it was
    /// in a journal still. Else the row came from events of another layout, and what says the same in this one came later.
    fn before(&self, number: usize, was_written: bool) -> Option<i64> {
        let seen = self.each.iter().filter(|(seen, _)| *seen <= number).map(|(_, timestamp)| *timestamp).max();
        let waiting = || self.each.iter().map(|(_, timestamp)| *timestamp).min();
        seen.or_else(|| waiting().filter(|_| was_written))
    }
}

/// A record of a table, as one node has it.
type OfNode = (usize, &'static str, String);

/// What is known of a history.
#[derive(Debug, Default)]
pub struct Judge {
    /// What was seen under each number, on the bus or in a file.
    events: BTreeMap<(NodeId, Sequence), Vec<Known>>,
    /// How many changes had been promised when a number was first seen.
    first_seen: BTreeMap<(NodeId, Sequence), usize>,
    /// What was sent: it is on its author's disk for good.
    sent: Stored,
    /// Ids that nodes left behind, and up to where the others had their events: what lies beyond goes along, or does not hold.
    left: BTreeMap<NodeId, Sequence>,
    /// Ids of which the disk is gone.
    ended: BTreeSet<NodeId>,
    /// Old copies of files were used: numbers may be given out twice, until that is noticed.
    pub copies: bool,
    /// Committed changes that must become events.
    promised: Vec<(usize, usize, Done)>,
    promises: usize,
    /// Changes of a record that are void, each with its number: they may have happened or not.
    void: BTreeMap<OfNode, Vec<(usize, Changed)>>,
    forked: BTreeSet<NodeId>,
    /// Which nodes keep an event in the end.
    holders: BTreeMap<(NodeId, Sequence), Vec<usize>>,
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

    /// The disk of the node that had this id is gone. What others had of its events holds, which is known in the end.
    pub fn ended(&mut self, id: NodeId) {
        self.ended.insert(id);
    }

    /// Whether the disk of the node that had this id is gone.
    pub fn is_ended(&self, id: NodeId) -> bool {
        self.ended.contains(&id)
    }

    /// Up to where the others have the events of the ids whose disks are gone.
    pub fn settle_ended(&mut self, vectors: &[Vector]) {
        for &id in &self.ended {
            let known = vectors.iter().map(|vector| vector.of(id)).max().unwrap_or(0);
            self.left.insert(id, known);
        }
    }

    /// How many changes were promised so far.
    pub fn promises(&self) -> usize {
        self.promises
    }

    /// Promises of a node from a number on are void: a power cut or a restore took the commit with it. What was published
    /// all the same stays.
    pub fn void(&mut self, node: usize, from: usize) {
        for (number, _, done) in self.promised.extract_if(.., |&mut (number, of, _)| of == node && from <= number) {
            for changed in done.changed {
                self.void.entry((node, changed.table, changed.record.clone())).or_default().push((number, changed));
            }
        }
    }

    /// What a node's service did to a table, and no trigger saw, is void: everything was loaded meanwhile.
    pub fn void_unseen(&mut self, node: usize, table: &str) {
        for (number, _, done) in self.promised.iter_mut().filter(|(_, of, _)| *of == node) {
            for changed in done.changed.extract_if(.., |changed| changed.table == table && !changed.seen) {
                self.void.entry((node, changed.table, changed.record.clone())).or_default().push((*number, changed));
            }
        }
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
        self.first_seen.entry((origin, sequence)).or_insert(self.promises);
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
        for table in with_events(connection)? {
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
    pub fn read(&mut self, (node, connection): (usize, &Connection), stored: &mut Stored) -> rusqlite::Result<()> {
        let positions: BTreeMap<String, i64> = connection
            .prepare("SELECT origin, position FROM _rowcast_positions")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for ((origin, sequence), known) in all_events(connection)? {
            self.saw(origin, sequence, &known);
            let position = positions.get(&origin.to_string()).map_or(0, |position| position.cast_unsigned());
            // A part of a group of which the rest is gone with its author never counts.
            if position < sequence && self.left.contains_key(&origin) {
                continue;
            }
            self.holders.entry((origin, sequence)).or_default().push(node);
            let first = stored.entry((origin, sequence)).or_insert_with(|| known.clone());
            if *first != known && self.forked.insert(origin) {
                let held = self.holders[&(origin, sequence)][0];
                self.wrong.push(format!(
                    "{origin:?}:{sequence} is stored on node {held} as {first:?}, and on node {node} as {known:?}"
                ));
            }
        }
        Ok(())
    }

    /// A whole database is handed over: what is in it is sent.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn copied(&mut self, path: &Path) -> rusqlite::Result<()> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        for ((origin, sequence), known) in all_events(&connection)? {
            self.saw(origin, sequence, &known);
            self.sent.entry((origin, sequence)).or_insert(known);
        }
        Ok(())
    }

    /// What the tables must be: the fold of the events that are stored anywhere, and of those that were ever sent, also
    /// where they are compacted since. What an old copy of a file had not seen may be gone. Of each column the greatest event
    /// counts whose author's table had it, back to the last delete; where there is none the column has its default.
    pub fn fold(&self, stored: &Stored, made: &Made) -> Rows {
        let counts = |id: &(NodeId, Sequence)| self.left.get(&id.0).is_none_or(|known| id.1 <= *known);
        // What its author superseded itself, and nobody keeps, was compacted; perhaps before anybody heard of what did it.
        let mut latest: BTreeMap<(NodeId, &str, &str), Version> = BTreeMap::new();
        for (&(origin, sequence), known) in
            self.events.iter().flat_map(|(id, known)| known.iter().map(move |k| (id, k)))
        {
            // What went with a disk superseded nothing that others have.
            if self.ended.contains(&origin) && !counts(&(origin, sequence)) {
                continue;
            }
            let version = (known.timestamp, origin, sequence);
            let latest = latest.entry((origin, &known.table, &known.record)).or_insert(version);
            *latest = version.max(*latest);
        }
        let stands = |id: &(NodeId, Sequence), known: &Known| {
            latest.get(&(id.0, &known.table, &known.record)).is_none_or(|latest| {
                let latest = (latest.1, latest.2);
                latest.1 <= id.1 || stored.contains_key(&latest) || self.sent.contains_key(&latest)
            })
        };
        let counts = |id: &(NodeId, Sequence), known| counts(id) && stands(id, known) && !stored.contains_key(id);
        let sent = self.sent.iter().filter(|(id, known)| !self.copies && counts(id, known));
        let mut all: BTreeMap<(&str, &str), BTreeMap<Version, &Known>> = BTreeMap::new();
        for (&(origin, sequence), known) in stored.iter().chain(sent) {
            let version = (known.timestamp, origin, sequence);
            all.entry((&known.table, &known.record)).or_default().insert(version, known);
        }
        let mut rows = Rows::new();
        for table in &TABLES {
            let columns = made.columns(table.name);
            let mut records: Vec<_> = all.iter().filter(|((name, _), _)| *name == table.name).collect();
            records.sort_by_key(|(_, events)| std::cmp::Reverse(events.last_key_value().map(|(version, _)| *version)));
            let mut taken = BTreeSet::new();
            for ((_, record), events) in records {
                let Some(row) = content(table.name, &columns, events.values().rev().copied()) else { continue };
                if let Some(column) = table.unique {
                    let value = &row[column];
                    if !value.is_null() && !taken.insert(value.to_string()) {
                        continue; // A greater version holds it.
                    }
                }
                rows.insert((table.name, (*record).to_owned()), serde_json::Value::Object(row).to_string());
            }
        }
        rows
    }

    /// Changes that were committed and are no event anywhere; and those whose event would lose to what the service had
    /// before its eyes when it made them.
    pub fn lost(&self) -> Vec<String> {
        let mut made: BTreeMap<(&str, &str, Option<&str>), Alike> = BTreeMap::new();
        for (id, known) in self.events.iter().flat_map(|(id, known)| known.iter().map(move |known| (id, known))) {
            let made = made.entry((&known.table, &known.record, known.data.as_deref())).or_default();
            made.left += 1;
            made.greatest = made.greatest.max(known.timestamp);
            made.each.push((self.first_seen[id], known.timestamp));
        }
        let mut lost = Vec::new();
        let mut last: BTreeMap<(usize, &str, &str), (usize, &Changed)> = BTreeMap::new();
        for (number, node, done) in &self.promised {
            for changed in &done.changed {
                last.insert((*node, changed.table, &changed.record), (*number, changed));
            }
        }
        for ((node, table, record), (number, changed)) in last.into_iter().filter(|(_, (_, changed))| !changed.seen) {
            // What is void may have stayed on the disk all the same, and have ended what stood there.
            let void = self.void.get(&(node, table, record.to_owned())).map_or(&[][..], Vec::as_slice);
            let void: Vec<&Changed> = void.iter().filter(|(at, _)| number < *at).map(|(_, changed)| changed).collect();
            if let Some(why) = self.lost_unseen(node, changed, &void) {
                lost.push(format!("node {node}: {why}"));
                lost.extend(self.events_of(changed.table, &changed.record));
            }
        }
        let void = self.void.values().flatten().map(|(_, changed)| (changed.table, &changed.record, &changed.after));
        let mut written: BTreeSet<_> = void.collect();
        for (number, node, done) in &self.promised {
            for Changed { table, record, before, after, seen } in &done.changed {
                let before_was_written = written.contains(&(*table, record, before));
                written.insert((*table, record, after));
                if !seen {
                    continue;
                }
                let of = TABLES.iter().find(|other| other.name == *table);
                // A row that another one's REPLACE evicted, and that was made again before the sidecar looked, was not
                // gone; and of announced changes only the last one is promised. The fold holds both to their end.
                if of.is_some_and(|of| of.announced || (after.is_none() && of.unique.is_some())) {
                    continue;
                }
                let seen = before.as_ref().and_then(|row| made.get(&(*table, record.as_str(), Some(row.as_str()))));
                let seen = seen.and_then(|alike| alike.before(*number, before_was_written));
                match made.get_mut(&(*table, record.as_str(), after.as_deref())) {
                    // Each delete is one of its own; a row that was written is known by its marks.
                    Some(alike) if alike.left > 0 && after.is_none() => alike.left -= 1,
                    Some(alike) if alike.left > 0 => {
                        let timestamp = alike.greatest;
                        if !self.copies && seen.is_some_and(|seen| timestamp <= seen) {
                            lost.push(format!(
                                "node {node}: {table} {record} {after:?} at {timestamp} loses to {before:?} at {seen:?}, which it saw"
                            ));
                            lost.extend(self.events_of(table, record));
                        }
                    }
                    _ => lost.push(format!("node {node}: {table} {record} {after:?} by {:?}", done.sql)),
                }
            }
        }
        lost
    }

    /// What was written between a migration and new triggers is found by comparing: its last state, but for what `void` changes
    /// made of it. Answers what is missing.
    fn lost_unseen(&self, node: usize, changed: &Changed, void: &[&Changed]) -> Option<String> {
        // A table of which no row is left gets its rows back, and announced tables are held to their end by the fold.
        let of = TABLES.iter().find(|other| other.name == changed.table);
        let after = changed.after.as_ref().filter(|_| of.is_some_and(|of| !of.announced))?;
        let before = changed.before.as_deref().map(cells).unwrap_or_default();
        let events = self.events.values().flatten();
        let events = events.filter(|known| known.table == changed.table && known.record == changed.record);
        let events: Vec<_> = events.filter_map(|known| known.data.as_deref().map(cells)).collect();
        for (column, value) in cells(after).iter().filter(|(column, value)| before.get(*column) != Some(value)) {
            if *value == schema::default(changed.table, column) {
                continue; // So it is where no event says anything.
            }
            let told = |row: &Option<String>| row.as_deref().map(cells).unwrap_or_default().get(column).cloned();
            if void.iter().any(|void| void.after.is_none() || told(&void.before) != told(&void.after)) {
                continue;
            }
            let other = schema::other_name(changed.table, column).unwrap_or(column);
            let says = |row: &serde_json::Map<_, _>| row.get(column) == Some(value) || row.get(other) == Some(value);
            if !events.iter().any(says) && !self.may_be_a_filler(node, changed.table, column, value) {
                return Some(format!("{} {}: {column} = {value}, unseen", changed.table, changed.record));
            }
        }
        None
    }

    /// Whether several rows of a node got this value, unseen, in a column that a migration makes: what most rows hold there
    /// counts as the migration's, and gives way.
    fn may_be_a_filler(&self, node: usize, table: &str, column: &str, value: &serde_json::Value) -> bool {
        let of_node = self.promised.iter().filter(|(_, of, _)| *of == node).flat_map(|(_, _, done)| &done.changed);
        let unseen = of_node.filter(|changed| changed.table == table && !changed.seen);
        let got = |row: &&Changed| row.after.as_deref().map(cells).is_some_and(|row| row.get(column) == Some(value));
        let records: BTreeSet<&str> = unseen.filter(got).map(|changed| changed.record.as_str()).collect();
        schema::is_made(table, column) && 1 < records.len()
    }

    /// The last events of a record that were ever seen, in the order of their versions, a line each.
    pub fn events_of(&self, table: &str, record: &str) -> Vec<String> {
        let all = self.events.iter().flat_map(|(id, known)| known.iter().map(move |known| (id, known)));
        let mut all: Vec<_> = all.filter(|(_, known)| known.table == table && known.record == record).collect();
        all.sort_by_key(|(id, known)| (known.timestamp, **id));
        let line = |((origin, sequence), known): &(&(NodeId, Sequence), &Known)| {
            let holders = self.holders.get(&(*origin, *sequence)).map_or(&[][..], Vec::as_slice);
            format!("{} {origin:?}:{sequence} {:?}, kept by {holders:?}", known.timestamp, known.data)
        };
        all.iter().skip(all.len().saturating_sub(10)).map(line).collect()
    }

    /// Events seen.
    pub fn events(&self) -> usize {
        self.events.len()
    }
}

/// The tables that were declared there once.
fn with_events(connection: &Connection) -> rusqlite::Result<Vec<&'static Table>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM sqlite_master WHERE name = ?1 || '_Events'")?;
    let mut tables = Vec::new();
    for table in &TABLES {
        if statement.exists([table.name])? {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// All events that are in a database.
fn all_events(connection: &Connection) -> rusqlite::Result<Vec<((NodeId, Sequence), Known)>> {
    // Not a map: the same number in two tables is what somebody looks for.
    let mut stored = Vec::new();
    for table in with_events(connection)? {
        let sql =
            format!("SELECT source_node_id, sequence_number, record_id, data, timestamp FROM {}_Events", table.name);
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let origin: String = row.get(0)?;
            let origin: NodeId = origin.parse().expect("a node id stands there");
            let sequence: u64 = row.get::<_, i64>(1)?.try_into().expect("a sequence number stands there");
            let known =
                Known { table: table.name.into(), record: row.get(2)?, data: row.get(3)?, timestamp: row.get(4)? };
            stored.push(((origin, sequence), known));
        }
    }
    Ok(stored)
}

/// What events of one record, the greatest first, say of the columns. None: there is no row.
fn content<'a>(
    table: &str,
    columns: &[String],
    events: impl Iterator<Item = &'a Known>,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    let mut row: Option<serde_json::Map<_, _>> = None;
    for known in events {
        let Some(data) = &known.data else { break };
        let row = row.get_or_insert_default();
        for (column, value) in cells(data) {
            row.entry(column).or_insert(value);
        }
    }
    let mut row = row?;
    row.retain(|column, _| columns.contains(column));
    for column in columns {
        row.entry(column.clone()).or_insert_with(|| schema::default(table, column));
    }
    Some(row)
}

/// The cells of a row.
fn cells(data: &str) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(data).expect("a row is JSON")
}

/// How two tables differ, record by record: its table, its id, and what is wrong.
pub fn differences(expected: &Rows, found: &Rows) -> Vec<(&'static str, String, String)> {
    let found: Rows =
        found.iter().map(|(key, row)| (key.clone(), serde_json::Value::Object(cells(row)).to_string())).collect();
    let mut lines = Vec::new();
    for (key, row) in expected {
        match found.get(key) {
            None => lines.push((key.0, key.1.clone(), format!("missing, should be {row}"))),
            Some(other) if other != row => lines.push((key.0, key.1.clone(), format!("{other}, should be {row}"))),
            Some(_) => {}
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        lines.push((key.0, key.1.clone(), format!("should not be there: {}", found[key])));
    }
    lines
}
