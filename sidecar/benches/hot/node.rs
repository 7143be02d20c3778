//! Nodes without a bus: replicas over real files, and what one says handed to another.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use rowcast::edge::clock;
use rowcast::edge::store::{Reader, Store};
use rowcast::replica::{Input, Moment, Output, Replica, Worked};
use rowcast_schema::declaration::Declaration;
use rusqlite::Connection;

use crate::rows;
use crate::stage::{self, answer, options, service};

/// A node and its service.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    pub(crate) service: Connection,
    pub(crate) replica: Replica,
    uptime: Duration,
}

/// The declaration of all benchmarks.
pub(crate) fn declaration() -> Declaration {
    stage::declaration(rows::TOML)
}

impl Node {
    /// A node with an empty table. `first`: it is READY alone.
    pub(crate) fn new(first: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let service = service(&path, rows::SQL);
        let store = Store::open(&path, declaration()).unwrap();
        let uptime = Duration::from_secs(1);
        let mut replica = Replica::new(store, options("n", first), Moment { wall: clock::now(), uptime }).unwrap();
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
        stage::reader(&self.path(), &declaration())
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
                        asked = Some((ask, answer(&reader, &request).into()));
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
