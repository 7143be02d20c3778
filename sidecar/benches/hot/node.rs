//! Nodes without a bus: replicas over real files, and what one says handed to another.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use rowcast::bootstrap::donor;
use rowcast::edge::clock;
use rowcast::edge::store::{Reader, Store};
use rowcast::replica::{Input, Moment, Options, Output, Replica, Worked};
use rowcast::wire;
use rowcast_schema::declaration::Declaration;
use rusqlite::Connection;
use uuid::Uuid;

use crate::rows;

/// A node and its service.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    pub(crate) service: Connection,
    pub(crate) replica: Replica,
    uptime: Duration,
}

/// The declaration of all benchmarks.
pub(crate) fn declaration() -> Declaration {
    Declaration::parse("schema.toml", rows::TOML).unwrap()
}

/// A connection as services have it: WAL, synchronous=NORMAL.
pub(crate) fn service(path: &std::path::Path) -> Connection {
    let service = Connection::open(path).unwrap();
    service.pragma_update(None, "journal_mode", "wal").unwrap();
    service.pragma_update(None, "synchronous", "NORMAL").unwrap();
    service.busy_timeout(Duration::from_secs(5)).unwrap();
    service
}

impl Node {
    /// A node with an empty table. `first`: it is READY alone.
    pub(crate) fn new(first: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let service = service(&path);
        service.execute_batch(rows::SQL).unwrap();
        let store = Store::open(&path, declaration()).unwrap();
        let options = Options {
            name: "n".into(),
            servers: String::new(),
            first,
            presence_interval: Duration::from_secs(1),
            presence_wait: Duration::from_secs(2),
            context_timeout: Duration::from_secs(30),
            reconcile_interval: Duration::from_secs(3600),
            verify_interval: Duration::ZERO,
            member_timeout: Duration::from_secs(7 * 24 * 3600),
            session: Uuid::now_v7(),
        };
        let uptime = Duration::from_secs(1);
        let mut replica = Replica::new(store, options, Moment { wall: clock::now(), uptime }).unwrap();
        replica.handle(Input::Connected(true), Moment { wall: clock::now(), uptime });
        let mut node = Self { folder, service, replica, uptime };
        if first {
            while !node.replica.is_ready() {
                node.turn();
            }
            node.replica.take_outputs();
        }
        node
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    pub(crate) fn at(&self) -> Moment {
        Moment { wall: clock::now(), uptime: self.uptime }
    }

    /// A reader as the answers to other nodes have it.
    pub(crate) fn reader(&self) -> Reader {
        Reader::open(&self.path(), &declaration()).unwrap()
    }

    /// Works until there is nothing to do.
    pub(crate) fn work(&mut self) {
        loop {
            let at = self.at();
            if self.replica.work(at).unwrap() == Worked::Idle {
                return;
            }
        }
    }

    /// What the service wrote becomes events; answers what is to be sent.
    pub(crate) fn ingest(&mut self) -> VecDeque<Output> {
        let at = self.at();
        self.replica.handle(Input::Wake, at);
        self.work();
        self.replica.take_outputs()
    }

    /// 100 ms go by.
    pub(crate) fn turn(&mut self) {
        self.uptime += Duration::from_millis(100);
        let at = self.at();
        self.replica.handle(Input::Wake, at);
        self.replica.tick(at);
        self.work();
    }

    /// The rows in the table.
    pub(crate) fn count(&self) -> u64 {
        self.service.query_row("SELECT count(*) FROM items", [], |row| row.get(0)).unwrap()
    }

    /// Hears what `other` said, and is answered by it, until `done`. Time passes only when nothing is to be done.
    pub(crate) fn follow(&mut self, other: &mut Self, done: impl Fn(&Self) -> bool) {
        let reader = other.reader();
        let mut asked: Option<(u64, Bytes)> = None;
        while !done(self) {
            let at = self.at();
            if let Some((ask, frame)) = asked.take() {
                self.replica.handle(Input::Answer { ask, frame: Some(frame) }, at);
            }
            self.replica.tick(at);
            self.work();
            let outputs = self.replica.take_outputs();
            let quiet = outputs.is_empty();
            for output in outputs {
                match output {
                    Output::Ask { ask, request, .. } => {
                        let at = self.at();
                        if let Some((ask, frame)) = asked.take() {
                            self.replica.handle(Input::Answer { ask, frame: Some(frame) }, at);
                        }
                        asked = Some((ask, wire::encode(&donor::answer(&reader, &request).unwrap()).into()));
                    }
                    Output::Presence(frame) => {
                        let at = other.at();
                        other.replica.handle(Input::Presence(frame.into()), at);
                    }
                    Output::Feed(_) | Output::Reply { .. } => {}
                }
            }
            if quiet && asked.is_none() {
                self.uptime += Duration::from_millis(100);
                other.turn();
                self.hear(other);
            }
        }
    }

    /// Hears what `other` says of itself.
    pub(crate) fn hear(&mut self, other: &mut Self) {
        let at = self.at();
        for output in other.replica.take_outputs() {
            if let Output::Presence(frame) = output {
                self.replica.handle(Input::Presence(frame.into()), at);
            }
        }
    }
}
