//! What the core promises, each broken once by a scenario that was found by reading it.
//!
//! Nodes here are replicas without a bus: a test hands their outputs on, or does not.
#![expect(clippy::disallowed_methods, reason = "the test plays the service, which opens its own database")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod claims;
mod cluster;
mod conflict;
mod crash;
mod deferred;
mod digest;
mod fetches;
mod forget;
mod ingest;
mod kept;
mod large;
mod migrate;
mod order;
mod peers;
mod poison;
#[path = "../../../tests/src/random.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared; not all of it is used here")]
mod random;
mod references;
mod room;
mod schema_change;
mod schema_random;
mod schema_rules;
mod service_triggers;
#[path = "../stage/mod.rs"]
mod stage;
mod stale_columns;
mod unique;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::edge::store::Store;
use rowcast::event::{Event, Fingerprint, Operation, Piece};
use rowcast::members::Presence;
use rowcast::position::{NodeId, Sequence, Vector};
use rowcast::replica::{Input, Moment, Options, Replica, Worked};
use rowcast::wire::{self, Feed, Message};
use rowcast_schema::layout::Layout;
use rusqlite::Connection;
use uuid::Uuid;

pub(crate) use self::stage::declaration;
use self::stage::{options, service};

/// A node and its service.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    toml: String,
    pub(crate) service: Connection,
    pub(crate) replica: Option<Replica>,
    pub(crate) uptime: Duration,
    pub(crate) verify_interval: Duration,
    /// Frames that one piece of work added to the write-ahead log at most, where that is looked at.
    pub(crate) longest: Option<i64>,
    /// What it is told of how long each applying transaction held the write lock.
    pub(crate) held: Duration,
    /// Such transactions.
    pub(crate) applied: u32,
}

pub(crate) fn toml(tables: &[&str]) -> String {
    let tables: String = tables.iter().map(|table| format!("[tables.{table}]\n")).collect();
    format!("service = \"s\"\n{tables}")
}

impl Node {
    /// A node over a database that holds what `sql` makes.
    pub(crate) fn new(toml: &str, sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder.path().join("app.db"), sql);
        Self {
            folder,
            toml: toml.to_owned(),
            service,
            replica: None,
            uptime: Duration::from_secs(1),
            verify_interval: Duration::ZERO,
            longest: None,
            held: Duration::ZERO,
            applied: 0,
        }
    }

    /// The same, and it is the first node and READY.
    pub(crate) fn ready(toml: &str, sql: &str) -> Self {
        let mut node = Self::new(toml, sql);
        node.start(true);
        node.run();
        assert!(node.replica().is_ready(), "{:?}", node.replica());
        node
    }

    /// From its next start on it has another declaration.
    pub(crate) fn redeclared(&mut self, toml: &str) -> &mut Self {
        toml.clone_into(&mut self.toml);
        self
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// Its database, for a test that works on it without a replica.
    pub(crate) fn store(&mut self) -> Store {
        self.replica = None;
        Store::open(&self.path(), declaration(&self.toml)).unwrap()
    }

    pub(crate) fn start(&mut self, first: bool) {
        let store = self.store();
        let options = Options { verify_interval: self.verify_interval, ..options("n", first) };
        let mut replica = Replica::new(store, options, self.at()).unwrap();
        replica.handle(Input::Connected(true), self.at());
        self.replica = Some(replica);
    }

    pub(crate) fn at(&self) -> Moment {
        Moment { wall: clock::now(), uptime: self.uptime }
    }

    pub(crate) fn replica(&mut self) -> &mut Replica {
        self.replica.as_mut().unwrap()
    }

    pub(crate) fn sql(&self, sql: &str) {
        self.service.execute_batch(sql).unwrap();
    }

    pub(crate) fn text(&self, sql: &str) -> Option<String> {
        let text = self.service.query_row(&format!("SELECT group_concat(v, ',') FROM ({sql})"), [], |row| row.get(0));
        text.unwrap()
    }

    pub(crate) fn wake(&mut self) {
        let at = self.at();
        self.replica().handle(Input::Wake, at);
    }

    pub(crate) fn work(&mut self) -> Worked {
        let (at, held) = (self.at(), self.held);
        let before = self.longest.map(|_| self.frames());
        let worked = self.replica().work(at).unwrap();
        if worked == Worked::Applied {
            self.replica().note_applied(held, at);
            self.applied += 1;
        }
        if let (Some(longest), Some(before)) = (self.longest, before) {
            let frames = self.frames();
            // It began anew where it is shorter now.
            let added = if before <= frames { frames - before } else { frames };
            self.longest = Some(longest.max(added));
        }
        worked
    }

    fn frames(&mut self) -> i64 {
        self.replica().store().log().unwrap().frames
    }

    pub(crate) fn tick(&mut self, later: Duration) {
        self.uptime += later;
        let at = self.at();
        self.replica().tick(at);
    }

    /// Until there is nothing to do any more, for three seconds of the node's own time.
    pub(crate) fn run(&mut self) {
        self.wake();
        for _ in 0..30 {
            self.tick(Duration::from_millis(100));
            for _ in 0..1000 {
                if self.work() == Worked::Idle {
                    break;
                }
            }
        }
    }

    pub(crate) fn feed(&mut self, origin: NodeId, pieces: Vec<Piece>, layouts: Vec<Layout>) {
        self.feed_on(None, origin, pieces, layouts);
    }

    /// The same, put on an event.
    pub(crate) fn feed_on(
        &mut self,
        before: Option<Fingerprint>,
        origin: NodeId,
        pieces: Vec<Piece>,
        layouts: Vec<Layout>,
    ) {
        let frame = wire::encode(&Message::Feed(Feed { origin, pieces, layouts, before })).into();
        let at = self.at();
        self.replica().handle(Input::Feed { subject: origin, frame }, at);
    }

    /// Hears what a member says of itself.
    pub(crate) fn hear(&mut self, said: Presence) {
        let at = self.at();
        self.replica().handle(Input::Presence(wire::encode(&Message::Presence(said)).into()), at);
    }
}

/// What is written from here on is later, by the clock that the triggers read: they note whole milliseconds.
pub(crate) fn a_millisecond_passes() {
    let before = clock::now().millis();
    while clock::now().millis() <= before {
        std::thread::sleep(Duration::from_micros(100));
    }
}

pub(crate) fn node_id(id: u128) -> NodeId {
    NodeId(Uuid::from_u128(id))
}

pub(crate) fn layout(table: &str, columns: &[&str]) -> Layout {
    Layout::new(table.into(), columns.iter().map(|&column| column.into()).collect(), vec![0])
}

pub(crate) fn event(layout: &Layout, record: &str, data: Option<&str>, timestamp: Timestamp) -> Event {
    Event {
        table: layout.table.clone(),
        operation: if data.is_some() { Operation::Create } else { Operation::Delete },
        record_id: record.into(),
        data: data.map(str::to_owned),
        timestamp,
        layout: layout.id,
        changed: -1,
    }
}

pub(crate) fn piece(first: Sequence, group_last: Sequence, events: Vec<Event>) -> Piece {
    Piece { first, group_last, context: Vector::default(), events }
}

pub(crate) fn layouts(layouts: &[&Layout]) -> Arc<[Layout]> {
    layouts.iter().map(|&layout| layout.clone()).collect()
}
