//! A few nodes, their bus and their time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rowcast::clock::Timestamp;
use rowcast::edge::store::Store;
use rowcast::position::NodeId;
use rowcast::replica::{Input, Moment, Options, Output, Replica, Worked};
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use super::stage::{answer, declaration, options, reader, service};

// The wall clock here is weeks ahead of that of the triggers: with a history of a time events would be old at once.
pub(crate) const TOML: &str = "service = \"s\"\n[defaults]\nhistory = \"forever\"\n[tables.t]\n[tables.u]\n";
const SQL: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a); CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, a);";

/// The time at which every test begins.
const BEGIN: i64 = 1_800_000_000_000;

/// A turn of all nodes.
const TURN: Duration = Duration::from_millis(20);

/// A node and its service.
pub(crate) struct Node {
    folder: PathBuf,
    service: Option<Connection>,
    pub(crate) replica: Option<Replica>,
    /// What it is cut off from: nodes of another network number.
    network: u32,
    /// How far its wall clock is wrong, in milliseconds.
    pub(crate) skew: i64,
    inputs: Vec<Input>,
    last_speaker: Option<NodeId>,
}

/// All of them.
pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Duration,
    sessions: u128,
}

impl Cluster {
    /// Nodes that are READY; the first one was the first.
    pub(crate) fn start(count: usize) -> Self {
        let mut cluster =
            Self { folder: TempDir::new().unwrap(), nodes: Vec::new(), now: Duration::from_secs(1), sessions: 0 };
        for at in 0..count {
            cluster.join(&format!("n{at}"), at == 0);
        }
        cluster.assert_ready();
        cluster
    }

    /// One more node, with empty tables, that loads, or is the first.
    pub(crate) fn join(&mut self, name: &str, first: bool) -> usize {
        let node = self.add(name);
        self.create(node);
        self.boot(node, first);
        self.run(6);
        node
    }

    /// A node with an empty folder.
    pub(crate) fn add(&mut self, name: &str) -> usize {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let node =
            Node { folder, service: None, replica: None, network: 0, skew: 0, inputs: Vec::new(), last_speaker: None };
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn create(&mut self, node: usize) {
        self.nodes[node].service = Some(service(&self.nodes[node].path(), SQL));
    }

    /// Starts the sidecar of a node.
    pub(crate) fn boot(&mut self, node: usize, first: bool) {
        self.sessions += 1;
        let store = Store::open(&self.nodes[node].path(), declaration(TOML)).unwrap();
        let session = Uuid::from_u128(self.sessions);
        let options = Options { session, ..options(&format!("n{node}"), first) };
        let at = self.moment(node);
        let mut replica = Replica::new(store, options, at).unwrap();
        replica.handle(Input::Connected(true), at);
        self.nodes[node].replica = Some(replica);
    }

    /// Ends the sidecar of a node, at once.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].replica = None;
        self.nodes[node].inputs.clear();
    }

    pub(crate) fn moment(&self, node: usize) -> Moment {
        let millis = BEGIN + i64::try_from(self.now.as_millis()).unwrap() + self.nodes[node].skew;
        Moment { wall: Timestamp::from_millis(millis), uptime: self.now }
    }

    /// A node goes to another network: nodes of one network hear each other.
    pub(crate) fn cut(&mut self, node: usize, network: u32) {
        self.nodes[node].network = network;
        let at = self.moment(node);
        if let Some(replica) = &mut self.nodes[node].replica {
            replica.handle(Input::Connected(false), at);
            replica.handle(Input::Connected(true), at);
        }
    }

    /// All networks are one again, and no connection has noticed.
    pub(crate) fn meet(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.network = 0);
    }

    /// Lets that many seconds pass for all.
    pub(crate) fn run(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.turn();
        }
    }

    /// One turn: everybody takes what came, works, and says something.
    pub(crate) fn turn(&mut self) {
        self.now += TURN;
        for node in 0..self.nodes.len() {
            self.work(node, usize::MAX);
        }
    }

    /// Lets one node work, at most that many steps.
    pub(crate) fn work(&mut self, node: usize, steps: usize) {
        let at = self.moment(node);
        let inputs = std::mem::take(&mut self.nodes[node].inputs);
        let Some(replica) = &mut self.nodes[node].replica else { return };
        inputs.into_iter().for_each(|input| replica.handle(input, at));
        replica.handle(Input::Wake, at);
        replica.tick(at);
        for _ in 0..steps.min(2_000) {
            if replica.work(at).unwrap() == Worked::Idle {
                break;
            }
        }
        let speaker = replica.node();
        self.nodes[node].last_speaker = Some(speaker);
        for output in self.nodes[node].replica.as_mut().unwrap().take_outputs() {
            self.deliver(node, speaker, output);
        }
    }

    fn deliver(&mut self, from: usize, speaker: NodeId, output: Output) {
        let network = self.nodes[from].network;
        let hear = |node: &Node| node.network == network && node.replica.is_some();
        match output {
            Output::Feed(frame) => {
                for (at, node) in self.nodes.iter_mut().enumerate() {
                    if at != from && hear(node) {
                        node.inputs.push(Input::Feed { subject: speaker, frame: frame.clone().into() });
                    }
                }
            }
            Output::Presence(frame) => {
                for (at, node) in self.nodes.iter_mut().enumerate() {
                    if at != from && hear(node) {
                        node.inputs.push(Input::Presence(frame.clone().into()));
                    }
                }
            }
            Output::Ask { ask, to, request } => {
                // Nobody hears itself on this bus, so a node that asks its own id asks the other one that has it.
                let asked = self.nodes.iter().enumerate().find(|(at, node)| {
                    *at != from && hear(node) && node.replica.as_ref().unwrap().speaks_as() == Some(to)
                });
                let frame = asked.map(|(_, node)| answer(&reader(&node.path(), &declaration(TOML)), &request).into());
                self.nodes[from].inputs.push(Input::Answer { ask, frame });
            }
            Output::Reply { .. } => {}
        }
    }

    /// Copies all files of a node, with the one beside the database or without.
    pub(crate) fn copy(&self, from: &Path, to: &Path, with_the_file: bool) {
        std::fs::create_dir_all(to).unwrap();
        for suffix in ["", "-wal", "-rowcast"] {
            let name = format!("app.db{suffix}");
            std::fs::remove_file(to.join(&name)).ok();
            if (with_the_file || suffix != "-rowcast") && from.join(&name).exists() {
                std::fs::copy(from.join(&name), to.join(&name)).unwrap();
            }
        }
        std::fs::remove_file(to.join("app.db-shm")).ok();
    }

    pub(crate) fn folder(&self, node: usize) -> PathBuf {
        self.nodes[node].folder.clone()
    }

    /// A place for a copy.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Stops a node, service and all, and puts the files of a copy in the place of its own.
    pub(crate) fn restore(&mut self, node: usize, from: &Path, with_the_file: bool) {
        self.kill(node);
        self.nodes[node].service = None;
        self.copy(from, &self.folder(node), with_the_file);
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        self.nodes[node].replica.as_ref().unwrap().node()
    }

    /// The service writes. Its triggers know the time of this machine; here they noted the time of the test.
    pub(crate) fn sql(&mut self, node: usize, sql: &str) {
        let millis = self.moment(node).wall.millis();
        let service = self.nodes[node].service();
        service
            .execute_batch(&format!("BEGIN IMMEDIATE; {sql}; UPDATE _rowcast_journal SET at = {millis}; COMMIT"))
            .unwrap();
    }

    pub(crate) fn text(&mut self, node: usize, sql: &str) -> String {
        let sql = format!("SELECT ifnull(group_concat(v, ' '), '') FROM ({sql})");
        self.nodes[node].service().query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    pub(crate) fn replica(&mut self, node: usize) -> &mut Replica {
        self.nodes[node].replica.as_mut().unwrap()
    }

    pub(crate) fn assert_ready(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.moment(node);
            if let Some(replica) = &mut self.nodes[node].replica {
                assert!(replica.is_ready(), "n{node}: {:?}", replica.status(at).reasons);
            }
        }
    }

    /// All nodes run, are READY, and have the same rows, everything is an event, and each number of each origin is the
    /// same event wherever it is stored. Gives the rows of `t`.
    pub(crate) fn assert_equal(&mut self) -> String {
        self.assert_ready();
        let rows = "SELECT id || '=' || a AS v FROM (SELECT id, a FROM t ORDER BY id)";
        let more = "SELECT id || '=' || a AS v FROM (SELECT id, a FROM u ORDER BY id)";
        let first = (self.text(0, rows), self.text(0, more));
        let mut events = BTreeMap::new();
        for node in 0..self.nodes.len() {
            assert_eq!((self.text(node, rows), self.text(node, more)), first, "n{node} against n0");
            assert_eq!(self.text(node, "SELECT count(*) AS v FROM _rowcast_journal"), "0", "n{node}");
            let all = "SELECT id, record_id, operation_type, ifnull(data, ''), timestamp FROM t_Events
                 UNION ALL SELECT id, record_id, operation_type, ifnull(data, ''), timestamp FROM u_Events";
            let mut statement = self.nodes[node].service().prepare(all).unwrap();
            let found = statement.query_map([], |row| {
                let rest: (String, String, String, i64) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((row.get::<_, String>(0)?, rest))
            });
            for event in found.unwrap() {
                let (id, what) = event.unwrap();
                let known = events.entry(id.clone()).or_insert_with(|| what.clone());
                assert_eq!(*known, what, "event {id} on n{node}");
            }
        }
        let vectors: Vec<_> =
            (0..self.nodes.len()).map(|node| self.replica(node).store().durable().vector.clone()).collect();
        assert!(vectors.iter().all(|vector| *vector == vectors[0]), "{vectors:?}");
        first.0
    }
}

impl Node {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("app.db")
    }

    /// The service's connection.
    fn service(&mut self) -> &mut Connection {
        let path = self.path();
        self.service.get_or_insert_with(|| {
            let service = Connection::open(path).unwrap();
            service.busy_timeout(Duration::from_secs(5)).unwrap();
            service
        })
    }
}
