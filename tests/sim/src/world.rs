//! The simulated world: time by hand, who does what when, and the bus between the nodes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rowcast::bootstrap::donor;
use rowcast::flow::fetch::{AskId, Request};
use rowcast::limits;
use rowcast::position::NodeId;
use rowcast::replica::{Input, Output, Worked};
use rowcast::wire::{self, Message};

use crate::chance::Chance;
use crate::disk::{self, Failing};
use crate::faults::{Fault, Faults};
use crate::judge::Judge;
use crate::net::{Fate, Net};
use crate::node::Node;
use crate::schema::Made;
use crate::service;
use crate::story::Story;
use crate::whole::Said;

/// Something that happens at a moment.
#[derive(Debug)]
enum Happening {
    /// A sidecar looks at the time, and works. The regular one comes again.
    Turn { node: usize, life: u64, regular: bool },
    /// Something arrives at a sidecar.
    Arrives { node: usize, life: u64, input: Input },
    /// A request arrives at a node that is asked.
    Asked { from: usize, life: u64, ask: AskId, to: NodeId, request: Request },
    /// Something about a database that is handed over whole arrives.
    Told { node: usize, life: u64, said: Said },
    /// A request was not answered in time.
    Unanswered { node: usize, life: u64, ask: AskId },
    /// A service does something.
    Service { node: usize },
    /// Something goes wrong, or goes right again.
    Fault(Fault),
}

/// The world of one seed.
#[derive(Debug)]
pub struct World {
    /// Microseconds since it began.
    pub now: u64,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The bus.
    pub net: Net,
    /// What happened.
    pub story: Story,
    /// What is right.
    pub judge: Judge,
    /// Transactions that the services still do.
    pub operations_left: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    scheduled: u64,
    /// Whatever is no fault, no work and no message.
    pub chance: Chance,
    work: Chance,
    /// What goes wrong.
    pub faults: Faults,
    mark: u64,
    records: u64,
    /// When time passed last with nothing happening.
    pub skipped_at: Option<u64>,
    /// No fault any more.
    pub healed: bool,
}

/// How often a sidecar looks at the time.
const TURN: u64 = 50_000;

impl World {
    /// A world that is about to begin. Its files lie under `folder`.
    pub fn new(seed: u64, folder: &Path, keep_story: bool, copies: bool) -> Self {
        disk::install();
        disk::begin(seed);
        let mut chance = Chance::new(seed);
        let faults = Faults::draw(chance.fork(), copies);
        let nodes = chance.between(3, 7) as usize;
        let mut nodes: Vec<Node> = (0..nodes).map(|number| Node::new(number, folder, faults.history())).collect();
        nodes[0].first = true;
        let verify = chance.one_in(4);
        let member_timeout = Duration::from_secs(*chance.pick(Faults::member_timeouts()));
        nodes.iter_mut().for_each(|node| (node.verifies, node.member_timeout) = (verify, member_timeout));
        // Coarse clocks stand still for a while, and agree: then the timestamps of several nodes are the same.
        let grain = *chance.pick(&[1, 1, 20, 1_000]);
        nodes.iter_mut().for_each(|node| node.clock_grain = grain);
        let records = *chance.pick(&[3, 8, 30]);
        Self {
            now: 0,
            nodes,
            net: Net::new(chance.fork()),
            story: Story::new(keep_story, folder),
            judge: Judge::default(),
            operations_left: chance.between(300, 420),
            queue: BTreeMap::new(),
            scheduled: 0,
            work: chance.fork(),
            faults,
            mark: 0,
            skipped_at: None,
            records,
            healed: false,
            chance,
        }
    }

    fn at(&mut self, when: u64, happening: Happening) {
        self.scheduled += 1;
        self.queue.insert((when.max(self.now), self.scheduled), happening);
    }

    /// Has a fault happen.
    pub fn plan(&mut self, when: u64, fault: Fault) {
        self.at(when, Happening::Fault(fault));
    }

    /// Everybody starts, and the services begin to work.
    pub fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.start_service(node);
            if self.chance.one_in(2) || node == 0 {
                let service = self.nodes[node].service.as_ref().expect("it was just started");
                service.execute_batch(service::SQL).expect("the service makes its tables");
            }
            let delay = if node == 0 { 0 } else { self.chance.below(8_000_000) };
            self.plan(delay, Fault::Start { node });
            let delay = 3_000_000 + self.chance.below(200_000);
            self.at(delay, Happening::Service { node });
        }
        let first = self.faults.next_at(self.now);
        self.plan(first, Fault::Draw);
    }

    /// Lets the world go on until a moment.
    pub fn run_until(&mut self, until: u64) {
        while let Some(entry) = self.queue.first_entry() {
            if until < entry.key().0 {
                break;
            }
            let ((when, _), happening) = entry.remove_entry();
            self.now = when;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Lets time pass with nothing happening: for waits of hours.
    pub fn skip(&mut self, by: u64) {
        let waiting = std::mem::take(&mut self.queue);
        self.now += by;
        self.skipped_at = Some(self.now);
        self.nodes.iter_mut().for_each(|node| node.told.clear());
        self.queue = waiting.into_iter().map(|((when, order), happening)| ((when + by, order), happening)).collect();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Turn { node, life, regular } if self.nodes[node].life == life => self.turn(node, regular),
            Happening::Arrives { node, life, input } if self.nodes[node].life == life => self.arrives(node, input),
            Happening::Asked { from, life, ask, to, request } => self.asked(from, life, ask, to, &request),
            Happening::Unanswered { node, life, ask } if self.nodes[node].life == life => {
                self.answer(node, ask, None);
            }
            Happening::Told { node, life, said } if self.nodes[node].life == life => self.told(node, said),
            Happening::Service { node } => self.service(node),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Turn { .. }
            | Happening::Arrives { .. }
            | Happening::Told { .. }
            | Happening::Unanswered { .. } => {}
        }
    }

    /// Starts a node's service. A disk that fails makes it try again.
    pub fn start_service(&mut self, node: usize) {
        if self.nodes[node].service.is_some() {
            return;
        }
        disk::set_wall(self.nodes[node].wall_millis(self.now));
        if let Err(error) = self.nodes[node].start_service() {
            self.judge.wrong.push(format!("node {node}: the service cannot open its database: {error}"));
        }
    }

    /// Starts a node's sidecar, unless it runs.
    pub fn start_sidecar(&mut self, node: usize) {
        if self.nodes[node].sidecar.is_none() {
            self.nodes[node].life += 1;
            self.note_what_others_have(node);
            self.turn_regularly(node);
            self.start_sidecar_with(node, Vec::new());
        }
    }

    /// The process of a sidecar opens the database, with what it has heard before.
    pub fn start_sidecar_with(&mut self, node: usize, before: Vec<Input>) {
        self.arm(node);
        let started = self.nodes[node].start_sidecar(self.now, &mut self.chance);
        let fired = self.disarm(node);
        let now = self.now;
        if let Err(error) = started {
            self.story.tell(now, format_args!("n{node} does not start: {error}"));
            self.story.count("starts that failed");
            if fired.is_none() && self.nodes[node].failing.is_none() {
                self.judge.wrong.push(format!("node {node} does not start: {error}"));
            }
            self.nodes[node].stop_sidecar();
            self.plan(now + 1_000_000, Fault::Start { node });
            return;
        }
        if fired == Some(Failing::Dead) {
            return self.sidecar_dies(node);
        }
        self.story.tell(now, format_args!("n{node} starts as {:?}", self.nodes[node].id()));
        self.judge_still_complete(node);
        before.into_iter().for_each(|input| self.arrives(node, input));
        self.connect(node, true);
    }

    /// From now on a node's sidecar looks at the time.
    pub fn turn_regularly(&mut self, node: usize) {
        let life = self.nodes[node].life;
        self.at(self.now, Happening::Turn { node, life, regular: true });
    }

    /// Has something about a whole database arrive.
    pub(crate) fn hear(&mut self, when: u64, node: usize, said: Said) {
        let life = self.nodes[node].life;
        self.at(when, Happening::Told { node, life, said });
    }

    /// The connection of a node to the bus comes or goes.
    pub fn connect(&mut self, node: usize, connected: bool) {
        if let Some(sidecar) = &mut self.nodes[node].sidecar {
            sidecar.connected = connected;
            sidecar.connected_at = self.now;
            if !connected {
                sidecar.asked.clear();
            }
            self.arrives(node, Input::Connected(connected));
        }
    }

    fn arrives(&mut self, node: usize, input: Input) {
        let moment = self.nodes[node].moment(self.now);
        let life = self.nodes[node].life;
        if let (Some(seeker), Input::Presence(frame)) = (&mut self.nodes[node].seeker, &input) {
            seeker.heard(frame, moment);
        }
        if let Input::Presence(frame) = &input {
            self.note_told(node, frame);
        }
        let Some(sidecar) = &mut self.nodes[node].sidecar else { return };
        sidecar.replica.handle(input, moment);
        self.at(self.now + 50, Happening::Turn { node, life, regular: false });
    }

    /// The disk of a node fails from now on, if it is to.
    pub fn arm(&mut self, node: usize) {
        if let Some((left, failing)) = self.nodes[node].failing {
            disk::arm(left, failing);
        }
    }

    /// The work of a node is done: what is left of its disk's failing. Answers what failed.
    pub fn disarm(&mut self, node: usize) -> Fired {
        let fired = disk::disarm_counting();
        let node = &mut self.nodes[node];
        let failing = node.failing.map(|(_, failing)| failing);
        node.failing = match (node.failing, fired) {
            (Some((_, Failing::Once | Failing::Dead)), (true, _)) => None,
            (Some((_, failing)), (_, left)) => Some((left, failing)),
            (None, _) => None,
        };
        if fired.0 { failing } else { None }
    }

    fn turn(&mut self, node: usize, regular: bool) {
        let life = self.nodes[node].life;
        let now = self.now;
        if regular {
            // When all is quiet, a slower pace does.
            let pace = if self.healed { 4 * TURN } else { TURN };
            self.at(now + pace, Happening::Turn { node, life, regular: true });
        }
        if self.nodes[node].seeker.is_some() {
            return self.seek_on(node);
        }
        let moment = self.nodes[node].moment(now);
        let Some(sidecar) = &mut self.nodes[node].sidecar else { return };
        sidecar.replica.tick(moment);
        self.arm(node);
        let Some(sidecar) = &mut self.nodes[node].sidecar else { return };
        let worked = sidecar.replica.work(moment);
        let fired = self.disarm(node);
        if let Some(failing) = fired {
            self.story.tell(now, format_args!("n{node} disk: {failing:?}, {worked:?}"));
            self.story.count(match failing {
                Failing::Once => "disk errors, one",
                Failing::Always => "disk errors, lasting",
                Failing::Full => "disk full",
                Failing::Dead => "killed within its work",
            });
            if failing == Failing::Dead {
                return self.sidecar_dies(node);
            }
        }
        let worked = match worked {
            Ok(worked) => worked,
            Err(fatal) => {
                self.story.tell(now, format_args!("n{node} ends: {fatal}"));
                self.story.count("ended by a failed sync");
                if fired.is_none() && self.nodes[node].failing.is_none() {
                    self.judge.wrong.push(format!("node {node} ends without a failing disk: {fatal}"));
                }
                return self.sidecar_dies(node);
            }
        };
        self.note_synced(node);
        self.note_made(node);
        self.send(node);
        self.note_ready(node);
        if worked != Worked::Idle {
            self.story.tell(now, format_args!("n{node} {worked:?}: {:?}", self.vector_of(node)));
            let pause = 100 + self.chance.below(1_500);
            self.at(now + pause, Happening::Turn { node, life, regular: false });
        }
    }

    /// Up to where a node that runs has everything.
    pub fn vector_of(&self, node: usize) -> Vec<(NodeId, u64)> {
        let sidecar = self.nodes[node].sidecar.as_ref();
        sidecar.map(|sidecar| sidecar.replica.store().durable().vector.iter().collect()).unwrap_or_default()
    }

    /// The sidecar is killed: what it wrote stays, what it had in memory is gone.
    pub fn sidecar_dies(&mut self, node: usize) {
        disk::arm(0, Failing::Dead);
        self.nodes[node].stop_sidecar();
        disk::disarm();
        let again = self.now + 50_000 + self.chance.below(3_000_000);
        self.story.tell(self.now, format_args!("n{node} sidecar is gone"));
        self.plan(again, Fault::Start { node });
    }

    /// Hands what a sidecar wants to send to the bus.
    fn send(&mut self, node: usize) {
        let Some(sidecar) = &mut self.nodes[node].sidecar else { return };
        let (outputs, connected, id) = (sidecar.replica.take_outputs(), sidecar.connected, sidecar.replica.node());
        for output in outputs {
            match output {
                Output::Feed(frame) => {
                    self.judge.frame(Some(id), &frame);
                    if connected {
                        let frame = Bytes::from(frame);
                        self.everybody_gets(node, |_| Input::Feed { subject: id, frame: frame.clone() });
                    }
                }
                Output::Presence(frame) => {
                    self.note_said(node, &frame);
                    if connected {
                        let frame = Bytes::from(frame);
                        self.everybody_gets(node, |_| Input::Presence(frame.clone()));
                    }
                }
                Output::Ask { ask, to, request } => self.ask(node, ask, to, request),
                Output::Reply { .. } => {}
            }
        }
    }

    /// A node says something to all that hear it.
    pub fn everybody_gets(&mut self, from: usize, input: impl Fn(usize) -> Input) {
        for to in 0..self.nodes.len() {
            // The connection asks not to hear itself.
            if to == from || !self.nodes[to].hears() {
                continue;
            }
            let life = self.nodes[to].life;
            match self.net.fate(from, to) {
                Fate::Comes(times) => {
                    self.story.add("messages repeated", times.len() as u64 - 1);
                    for time in times {
                        self.at(self.now + time, Happening::Arrives { node: to, life, input: input(to) });
                    }
                }
                Fate::Lost => self.story.count("messages lost"),
                Fate::Cut => self.story.count("messages cut off"),
            }
        }
    }

    fn ask(&mut self, from: usize, ask: AskId, to: NodeId, request: Request) {
        let life = self.nodes[from].life;
        let Some(sidecar) = &mut self.nodes[from].sidecar else { return };
        sidecar.asked.push(ask);
        self.story.tell(self.now, format_args!("n{from} asks {to:?}: {request:?}"));
        let late = self.now + limits::REQUEST_TIMEOUT.as_micros() as u64;
        self.at(late, Happening::Unanswered { node: from, life, ask });
        let asked = |node: &Node| node.number != from && node.id() == Some(to);
        let Some(holder) = self.nodes.iter().position(asked) else { return };
        if let (true, Fate::Comes(times)) = (self.nodes[from].hears(), self.net.fate(from, holder)) {
            self.at(self.now + times[0], Happening::Asked { from, life, ask, to, request });
        } else {
            self.story.count("requests lost");
        }
    }

    fn asked(&mut self, from: usize, life: u64, ask: AskId, to: NodeId, request: &Request) {
        let asked = |node: &Node| node.number != from && node.id() == Some(to) && node.hears();
        let Some(holder) = self.nodes.iter().position(asked) else { return };
        self.nodes[holder].moment(self.now);
        self.arm(holder);
        let sidecar = self.nodes[holder].sidecar.as_ref().expect("it hears");
        let answer = donor::answer(&sidecar.reader, request);
        let fired = self.disarm(holder);
        if fired == Some(Failing::Dead) {
            return self.sidecar_dies(holder);
        }
        self.note_synced(holder);
        let message = answer.unwrap_or_else(|error| Message::Refused(error.chain()));
        let frame = wire::encode(&message);
        let origin = if let Request::Fetch { origin, .. } = request { Some(*origin) } else { None };
        self.judge.frame(origin, &frame);
        match self.net.fate(holder, from) {
            Fate::Comes(times) if self.nodes[from].hears() => {
                let input = Input::Answer { ask, frame: Some(Bytes::from(frame)) };
                self.at(self.now + times[0], Happening::Arrives { node: from, life, input });
            }
            _ => self.story.count("answers lost"),
        }
    }

    fn answer(&mut self, node: usize, ask: AskId, frame: Option<Bytes>) {
        self.arrives(node, Input::Answer { ask, frame });
    }

    /// A service does a transaction, and goes on later.
    fn service(&mut self, node: usize) {
        if self.operations_left == 0 || self.healed {
            return;
        }
        let pause = if self.work.one_in(3) { self.work.below(5_000) } else { self.work.below(500_000) };
        self.at(self.now + pause, Happening::Service { node });
        let may_write = self.nodes[node].was_ready;
        if !may_write || self.nodes[node].service.is_none() {
            return;
        }
        self.operations_left -= 1;
        self.write(node);
    }

    fn write(&mut self, node: usize) {
        if let Some(table) = self.nodes[node].undeclared {
            self.make_missing(node, table);
        }
        let made = self.nodes[node].service.as_ref().and_then(|service| Made::of(service).ok()).unwrap_or_default();
        let sql = service::draw(&mut self.work, &mut self.mark, self.records, &made);
        let wall = self.nodes[node].wall_millis(self.now);
        disk::set_wall(wall);
        self.nodes[node].greatest_wall = self.nodes[node].greatest_wall.max(wall);
        let Some(service) = &self.nodes[node].service else { return };
        if self.work.one_in(40) {
            service.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").ok();
            self.story.count("checkpoints");
        }
        match service::run(service, sql) {
            Ok(done) => {
                self.story.tell(self.now, format_args!("n{node} commits {:?}", done.sql));
                self.story.count("transactions");
                if done.changed.iter().any(|changed| !changed.seen) {
                    self.story.count("transactions that no trigger saw");
                }
                let announcements = service::announcements(&done);
                let promises = self.judge.promises();
                self.nodes[node].unsynced_from.get_or_insert(promises);
                self.judge.committed(node, done);
                self.note_synced(node);
                self.wake(node, announcements);
            }
            Err(error) => {
                self.story.tell(self.now, format_args!("n{node} service fails: {error}"));
                self.judge.wrong.push(format!("node {node}: the service's transaction failed: {error}"));
            }
        }
    }

    /// A service tells its sidecar that it wrote, which does not always hear of it.
    pub fn wake(&mut self, node: usize, announcements: Vec<String>) {
        let life = self.nodes[node].life;
        if self.nodes[node].sidecar.is_none() {
            return;
        }
        if self.work.one_in(4) {
            self.story.count("wake-ups missed");
        } else {
            let delay = self.work.below(3_000);
            self.at(self.now + delay, Happening::Arrives { node, life, input: Input::Wake });
        }
        for payload in announcements {
            if self.work.per_mille(self.net.loss) || !self.nodes[node].hears() {
                self.story.count("announcements lost");
                continue;
            }
            let delay = self.work.below(5_000);
            let input = Input::Announced { payload: Bytes::from(payload), reply: None };
            self.at(self.now + delay, Happening::Arrives { node, life, input });
        }
    }
}

/// What the disk did.
pub type Fired = Option<Failing>;
