//! What is kept, for whom, and what goes: compaction, expulsion, and the way back.
//!
//! Nodes here are replicas without a bus, and the time is made by hand: a test says who hears whom.
#![expect(clippy::disallowed_methods, reason = "the test plays the service, which opens its own database")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod compaction;
mod expulsion;
mod restored;
mod returning;
#[path = "../stage/mod.rs"]
mod stage;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Sub;
use std::time::Duration;

use rowcast::edge::clock;
use rowcast::edge::store::Store;
use rowcast::position::NodeId;
use rowcast::replica::{Input, Moment, Options, Output, Replica, Worked};
use rusqlite::Connection;

use self::stage::{answer, declaration, options, reader, service};

pub(crate) const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";
/// How long members may be silent that are to be expelled. An eighth of it the others listen, half a second a step.
pub(crate) const MEMBER_TIMEOUT: Duration = Duration::from_secs(200);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The declaration of `t` with that history.
pub(crate) fn toml(history: &str) -> String {
    format!("service = \"s\"\n[tables.t]\nhistory = \"{history}\"\n")
}

/// A node and its service.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    pub(crate) service: Connection,
    replica: Option<Replica>,
}

/// What has gone over the bus.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Nodes that said that they are there.
    pub(crate) presences: usize,
    /// Requests.
    pub(crate) asks: usize,
    /// Bytes that were said, to however many.
    pub(crate) bytes: usize,
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let (presences, asks) = (self.presences - before.presences, self.asks - before.asks);
        Self { presences, asks, bytes: self.bytes - before.bytes }
    }
}

/// Nodes that hear each other where no link is cut.
pub(crate) struct Cluster {
    toml: String,
    pub(crate) nodes: Vec<Node>,
    /// Who does not hear whom: from, to.
    cut: BTreeSet<(usize, usize)>,
    /// Feeds that wait to be delivered, when they are held back: from, frame.
    pub(crate) held: Option<Vec<(usize, bytes::Bytes)>>,
    /// How many requests are still answered, when that is limited.
    pub(crate) answers: Option<usize>,
    pub(crate) traffic: Traffic,
    /// How long a member may be silent.
    member_timeout: Duration,
    /// Since everything began; added to the wall clock, too.
    pub(crate) passed: Duration,
}

impl Cluster {
    /// `count` nodes that have joined one another.
    pub(crate) fn new(toml: &str, count: usize) -> Self {
        Self::with_timeout(toml, count, 100 * DAY)
    }

    /// The same, of which members may be silent for some time only.
    pub(crate) fn with_timeout(toml: &str, count: usize, member_timeout: Duration) -> Self {
        let mut cluster = Self {
            member_timeout,
            toml: toml.to_owned(),
            nodes: Vec::new(),
            cut: BTreeSet::new(),
            held: None,
            answers: None,
            traffic: Traffic::default(),
            passed: Duration::ZERO,
        };
        for at in 0..count {
            cluster.add(TABLE);
            cluster.start(at, at == 0);
            cluster.run(10);
            assert!(cluster.replica(at).is_ready(), "{:?}", cluster.why(at));
        }
        cluster
    }

    /// A node that is not started.
    pub(crate) fn add(&mut self, sql: &str) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder.path().join("app.db"), sql);
        self.nodes.push(Node { folder, service, replica: None });
        self.nodes.len() - 1
    }

    pub(crate) fn start(&mut self, at: usize, first: bool) {
        let moment = self.moment();
        self.stop(at);
        let store = Store::open(&self.path(at), declaration(&self.toml)).unwrap();
        let options = Options {
            verify_interval: Duration::from_secs(600),
            member_timeout: self.member_timeout,
            ..options(&format!("n{at}"), first)
        };
        let mut replica = Replica::new(store, options, moment).unwrap();
        replica.handle(Input::Connected(true), moment);
        self.nodes[at].replica = Some(replica);
    }

    pub(crate) fn stop(&mut self, at: usize) {
        self.nodes[at].replica = None;
    }

    pub(crate) fn replica(&mut self, at: usize) -> &mut Replica {
        self.nodes[at].replica.as_mut().unwrap()
    }

    pub(crate) fn why(&mut self, at: usize) -> Vec<String> {
        let moment = self.moment();
        let status = self.replica(at).status(moment);
        status.reasons.iter().map(|reason| reason.text.clone()).chain(status.warnings).collect()
    }

    pub(crate) fn path(&self, at: usize) -> std::path::PathBuf {
        self.nodes[at].folder.path().join("app.db")
    }

    pub(crate) fn id(&mut self, at: usize) -> NodeId {
        self.replica(at).node()
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment { wall: clock::now().plus(self.passed), uptime: Duration::from_secs(10) + self.passed }
    }

    /// Nobody of the one side hears anybody of the other.
    pub(crate) fn split(&mut self, one: &[usize], other: &[usize]) {
        for &one in one {
            for &other in other {
                self.cut.extend([(one, other), (other, one)]);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// The service writes. Its clock is the machine's, in milliseconds: two writes in one would be in no order.
    pub(crate) fn sql(&mut self, at: usize, sql: &str) {
        std::thread::sleep(Duration::from_millis(3));
        self.nodes[at].service.execute_batch(sql).unwrap();
        let moment = self.moment();
        if let Some(replica) = &mut self.nodes[at].replica {
            replica.handle(Input::Wake, moment);
        }
    }

    pub(crate) fn one(&self, at: usize, sql: &str) -> i64 {
        self.nodes[at].service.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub(crate) fn rows(&self, at: usize) -> Vec<(String, String)> {
        let mut statement = self.nodes[at].service.prepare("SELECT id, a FROM t ORDER BY id").unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn events(&self, at: usize) -> i64 {
        self.one(at, "SELECT count(*) FROM t_Events")
    }

    /// That many steps of half a second.
    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step(Duration::from_millis(500));
        }
    }

    /// Long enough that who hears a majority gives up who was silent.
    pub(crate) fn outlast(&mut self) {
        self.step(2 * MEMBER_TIMEOUT);
        self.run(100);
    }

    /// Time passes, then everybody does everything that there is to do.
    pub(crate) fn step(&mut self, time: Duration) {
        self.passed += time;
        for at in 0..self.nodes.len() {
            let moment = self.moment();
            if let Some(replica) = &mut self.nodes[at].replica {
                replica.tick(moment);
            }
        }
        while self.turn() {}
    }

    /// Everybody works once, and what comes of it is delivered. Answers whether anything came of it.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.nodes.len() {
            let moment = self.moment();
            let Some(replica) = &mut self.nodes[at].replica else { continue };
            while replica.work(moment).unwrap() != Worked::Idle {
                moved = true;
            }
            let outputs = replica.take_outputs();
            moved |= !outputs.is_empty();
            self.deliver(at, outputs);
        }
        moved
    }

    fn deliver(&mut self, from: usize, outputs: VecDeque<Output>) {
        let node = self.id(from);
        for output in outputs {
            match output {
                Output::Feed(frame) => {
                    self.traffic.bytes += frame.len();
                    let frame = bytes::Bytes::from(frame);
                    match &mut self.held {
                        Some(held) => held.push((from, frame)),
                        None => self.tell(from, |_| Input::Feed { subject: node, frame: frame.clone() }),
                    }
                }
                Output::Presence(frame) => {
                    self.traffic.presences += 1;
                    self.traffic.bytes += frame.len();
                    let frame = bytes::Bytes::from(frame);
                    self.tell(from, |_| Input::Presence(frame.clone()));
                }
                Output::Ask { ask, to, request } => {
                    self.traffic.asks += 1;
                    let at = (0..self.nodes.len()).find(|&at| {
                        self.nodes[at].replica.as_ref().is_some_and(|replica| replica.node() == to)
                            && !self.cut.contains(&(from, at))
                    });
                    let answered = self.answers.as_mut().is_none_or(|left| {
                        let some = *left > 0;
                        *left = left.saturating_sub(1);
                        some
                    });
                    let asked = at.filter(|_| answered);
                    let frame: Option<bytes::Bytes> =
                        asked.map(|at| answer(&reader(&self.path(at), &declaration(&self.toml)), &request).into());
                    self.traffic.bytes += frame.as_ref().map_or(0, bytes::Bytes::len);
                    let moment = self.moment();
                    self.replica(from).handle(Input::Answer { ask, frame }, moment);
                }
                Output::Reply { .. } => {}
            }
        }
    }

    fn tell(&mut self, from: usize, input: impl Fn(usize) -> Input) {
        let moment = self.moment();
        for to in (0..self.nodes.len()).filter(|to| *to != from && !self.cut.contains(&(from, *to))) {
            if let Some(replica) = &mut self.nodes[to].replica {
                replica.handle(input(to), moment);
            }
        }
    }

    /// Delivers a feed that was held back.
    pub(crate) fn hand_over(&mut self, from: usize, node: NodeId, frame: &bytes::Bytes) {
        self.tell(from, |_| Input::Feed { subject: node, frame: frame.clone() });
    }
}
