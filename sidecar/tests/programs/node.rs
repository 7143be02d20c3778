//! A node in this process: a database file, its replica, and what it wants to send.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rowcast::edge::clock;
use rowcast::edge::store::Store;
use rowcast::flow::fetch::{AskId, Request};
use rowcast::position::NodeId;
use rowcast::replica::{Input, Moment, Options, Output, Replica, Worked};
use rowcast_schema::declaration::Declaration;
use rusqlite::Connection;

use super::stage::{self, options};

/// Pieces of work after which a node that still has some is stuck.
const WORK_MAX: usize = 10_000;

/// A node and its service.
pub(crate) struct Node {
    /// The service's own connection.
    pub(crate) service: Connection,
    pub(crate) replica: Replica,
    path: PathBuf,
    declaration: Declaration,
    uptime: Duration,
}

/// What a node sent, taken apart.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) feeds: Vec<Vec<u8>>,
    pub(crate) presences: Vec<Vec<u8>>,
    pub(crate) asks: Vec<(AskId, Request)>,
}

impl Node {
    /// A first node, READY, over the database at `path`.
    pub(crate) fn start(path: &Path, service: Connection, declaration: &Declaration) -> Self {
        let store = Store::open(path, declaration.clone()).unwrap_or_else(|error| panic!("{error}: {}", error.chain()));
        let options = Options { verify_interval: Duration::from_secs(3600), ..options("n", true) };
        let uptime = Duration::from_secs(1);
        let replica = Replica::new(store, options, Moment { wall: clock::now(), uptime }).unwrap();
        let mut node = Self { service, replica, path: path.to_owned(), declaration: declaration.clone(), uptime };
        node.handle(Input::Connected(true));
        node.run();
        node.tick(Duration::from_secs(3));
        node.run();
        assert!(node.replica.is_ready(), "{:?}", node.replica);
        node
    }

    pub(crate) fn id(&self) -> NodeId {
        self.replica.node()
    }

    fn at(&self) -> Moment {
        Moment { wall: clock::now(), uptime: self.uptime }
    }

    pub(crate) fn handle(&mut self, input: Input) {
        let at = self.at();
        self.replica.handle(input, at);
    }

    pub(crate) fn tick(&mut self, later: Duration) {
        self.uptime += later;
        let at = self.at();
        self.replica.tick(at);
    }

    /// At most so many pieces of work.
    pub(crate) fn work(&mut self, pieces: usize) -> bool {
        for _ in 0..pieces {
            let at = self.at();
            if self.replica.work(at).unwrap() == Worked::Idle {
                return true;
            }
        }
        false
    }

    /// Until there is nothing to do.
    pub(crate) fn run(&mut self) {
        self.handle(Input::Wake);
        assert!(self.work(WORK_MAX), "it is never done: {:?}", self.replica);
    }

    pub(crate) fn sent(&mut self) -> Sent {
        let mut sent = Sent::default();
        for output in self.replica.take_outputs() {
            match output {
                Output::Feed(frame) => sent.feeds.push(frame),
                Output::Presence(frame) => sent.presences.push(frame),
                Output::Ask { ask, request, .. } => sent.asks.push((ask, request)),
                Output::Reply { .. } => {}
            }
        }
        sent
    }

    /// What it answers to a request.
    pub(crate) fn answer(&self, request: &Request) -> Vec<u8> {
        stage::answer(&stage::reader(&self.path, &self.declaration), request)
    }
}
