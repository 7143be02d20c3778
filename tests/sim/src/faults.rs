//! What goes wrong, when, and how it goes right again.

use crate::chance::Chance;
use crate::disk::{self, Failing};
use crate::schema::{STEPS, Step};
use crate::service::{self, TABLES};
use crate::world::World;

/// Something that is done to the world.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Draws the next fault.
    Draw,
    /// Service and sidecar of a node run again.
    Start {
        /// Which node.
        node: usize,
    },
    /// A node is connected to the bus again.
    Connect {
        /// Which node.
        node: usize,
    },
    /// Links carry messages again.
    Mend {
        /// From and to.
        links: Vec<(usize, usize)>,
    },
    /// A node's declaration names all tables again.
    Declare {
        /// Whose.
        node: usize,
    },
    /// A disk works again.
    MendDisk {
        /// Whose.
        node: usize,
    },
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    StopSidecar,
    KillWithinWork,
    KillNode,
    PowerCut,
    Disconnect,
    Partition,
    OneWay,
    Isolate,
    DiskOnce,
    DiskAlways,
    DiskFull,
    ClockStep,
    ClockFar,
    ClockDrift,
    Backup,
    Restore,
    Clone,
    LongAway,
    Migrate,
    DiskLost,
    Undeclare,
}

const KINDS: [Kind; 19] = [
    Kind::StopSidecar,
    Kind::KillWithinWork,
    Kind::KillNode,
    Kind::PowerCut,
    Kind::Disconnect,
    Kind::Partition,
    Kind::OneWay,
    Kind::Isolate,
    Kind::DiskOnce,
    Kind::DiskAlways,
    Kind::DiskFull,
    Kind::ClockStep,
    Kind::ClockFar,
    Kind::ClockDrift,
    Kind::Backup,
    Kind::Restore,
    Kind::Clone,
    Kind::LongAway,
    Kind::Migrate,
];

/// The faults of one seed: some kinds more than others, so that seeds differ (swarm testing: Groce et al., 2012).
#[derive(Debug)]
pub struct Faults {
    chance: Chance,
    kinds: Vec<Kind>,
    every: u64,
    history: &'static str,
}

impl Faults {
    /// Draws which kinds this seed has, and how often. Old copies of files come back where every event is kept, and with
    /// `always` in every history.
    pub fn draw(mut chance: Chance, always: bool) -> Self {
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| chance.one_in(2)).collect();
        let every = *chance.pick(&[300_000, 1_000_000, 3_000_000]);
        let history = *chance.pick(&["forever", "latest", "1m"]);
        if !always && history != "forever" {
            // Stated in the guarantees: an old copy of a database, brought back after the others have compacted, is to be
            // emptied first. It goes on under a new id with timestamps from before what they have forgotten.
            kinds.retain(|kind| !matches!(kind, Kind::Restore | Kind::Clone));
        }
        // Drawn aside: the seeds without them go on as they did.
        let mut aside = chance.clone();
        for kind in [Kind::DiskLost, Kind::Undeclare] {
            if aside.one_in(4) {
                kinds.push(kind);
            }
        }
        Self { kinds, every, history, chance }
    }

    /// How long the tables' events are kept.
    pub fn history(&self) -> &'static str {
        self.history
    }

    /// Whether the tables' columns change in the course of the history.
    pub fn migrates(&self) -> bool {
        self.kinds.contains(&Kind::Migrate)
    }

    /// How long members may be silent, in seconds.
    pub fn member_timeouts() -> &'static [u64] {
        &[12, 3_600, 600_000]
    }

    /// When the next one comes.
    pub fn next_at(&mut self, now: u64) -> u64 {
        now + 3_000_000 + self.chance.below(2 * self.every)
    }
}

impl World {
    /// Carries out a fault.
    pub fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Draw if self.healed => {}
            Fault::Draw => {
                let next = self.now + 1 + self.faults.chance.below(2 * self.faults.every);
                self.plan(next, Fault::Draw);
                if !self.faults.kinds.is_empty() {
                    let kind = *self.faults.chance.pick(&self.faults.kinds.clone());
                    self.break_something(kind);
                }
            }
            Fault::Start { node } if self.nodes[node].has_no_database() => self.seek(node),
            Fault::Start { node } => {
                self.start_service(node);
                self.start_sidecar(node);
            }
            Fault::Connect { node } => {
                if !self.nodes[node].hears() {
                    self.tell(format_args!("n{node} is connected again"));
                    self.connect(node, true);
                }
            }
            Fault::Mend { links } => {
                self.tell(format_args!("links are mended: {links:?}"));
                links.iter().for_each(|link| {
                    self.net.cut.remove(link);
                    self.net.mended.insert(*link, self.now);
                });
            }
            Fault::Declare { node } => self.declare(node),
            Fault::MendDisk { node } => self.nodes[node].failing = None,
        }
    }

    fn tell(&mut self, text: std::fmt::Arguments<'_>) {
        self.story.tell(self.now, text);
    }

    fn break_something(&mut self, kind: Kind) {
        let node = self.faults.chance.below(self.nodes.len() as u64) as usize;
        let for_a_while = 50_000 + self.faults.chance.below(8_000_000);
        let until = self.now + for_a_while;
        let runs = self.nodes[node].sidecar.is_some();
        match kind {
            Kind::StopSidecar if runs => {
                self.tell(format_args!("n{node} sidecar is stopped"));
                self.story.count("sidecar stopped");
                self.nodes[node].stop_sidecar();
                self.plan(until, Fault::Start { node });
            }
            Kind::KillWithinWork if runs => {
                self.nodes[node].failing = Some((self.faults.chance.below(60), Failing::Dead));
            }
            Kind::KillNode => {
                self.tell(format_args!("n{node} is killed, with its service"));
                self.story.count("node killed");
                self.nodes[node].die();
                self.plan(until, Fault::Start { node });
            }
            Kind::PowerCut => self.cut_power(node, until),
            Kind::LongAway => {
                self.tell(format_args!("n{node} is away for long"));
                self.story.count("away for long");
                self.nodes[node].die();
                self.plan(self.now + 20_000_000, Fault::Start { node });
            }
            Kind::Disconnect if runs && self.nodes[node].hears() => {
                self.tell(format_args!("n{node} loses its connection"));
                self.story.count("connection lost");
                self.connect(node, false);
                self.plan(until, Fault::Connect { node });
            }
            Kind::Partition | Kind::OneWay | Kind::Isolate => self.partition(kind, node, until),
            Kind::DiskOnce => {
                self.nodes[node].failing = Some((self.faults.chance.below(60), Failing::Once));
            }
            Kind::DiskAlways | Kind::DiskFull => {
                let failing = if kind == Kind::DiskFull { Failing::Full } else { Failing::Always };
                self.nodes[node].failing = Some((self.faults.chance.below(60), failing));
                self.plan(until, Fault::MendDisk { node });
            }
            Kind::ClockStep | Kind::ClockFar | Kind::ClockDrift => self.bend_clock(kind, node),
            Kind::Backup => self.back_up(node),
            Kind::Restore => self.restore(node, until),
            Kind::Clone => self.clone_onto(node, until),
            Kind::DiskLost => self.lose_disk(node, until),
            Kind::Undeclare if runs && self.nodes[node].undeclared.is_none() => self.undeclare(node, until),
            Kind::Migrate => {
                let step = *self.faults.chance.pick(&STEPS);
                self.migrate(node, step);
            }
            Kind::StopSidecar | Kind::KillWithinWork | Kind::Disconnect | Kind::Undeclare => {}
        }
    }

    /// A node's service carries out a migration, unless it has it. The sidecar may run, or not.
    fn migrate(&mut self, node: usize, step: Step) {
        self.start_service(node);
        let Some(service) = &self.nodes[node].service else { return };
        if !step.is_due(service).unwrap_or(false) {
            return;
        }
        let done = step.sql(service, &mut self.faults.chance).and_then(|(sql, rebuilds)| {
            // As tools do it: one transaction.
            service.execute_batch(&format!("BEGIN IMMEDIATE; {sql} COMMIT;"))?;
            Ok((sql, rebuilds))
        });
        match done {
            Ok((sql, rebuilds)) => {
                self.tell(format_args!("n{node} migrates: {sql}"));
                self.story.count(step.counted);
                if rebuilds {
                    self.story.count("schema, table rebuilt");
                }
            }
            Err(error) => self.judge.wrong.push(format!("node {node}: a migration failed: {error}")),
        }
        self.wake(node, Vec::new());
    }

    /// In the end everybody has had every migration, where there are any.
    pub fn migrate_all(&mut self) {
        for step in STEPS.iter().filter(|_| self.faults.migrates()).copied().collect::<Vec<_>>() {
            // The service of a node that takes a database whole begins with that.
            let begun = (0..self.nodes.len()).filter(|&node| !self.nodes[node].has_no_database());
            begun.collect::<Vec<_>>().into_iter().for_each(|node| self.migrate(node, step));
        }
    }

    /// Power may fail as soon as a node has said that it has everything.
    pub fn strike_at_the_worst_moment(&mut self, node: usize) {
        let strikes = !self.healed && self.faults.kinds.contains(&Kind::PowerCut) && self.faults.chance.one_in(3);
        if strikes {
            let until = self.now + 50_000 + self.faults.chance.below(3_000_000);
            self.story.count("power cut once caught up");
            self.cut_power(node, until);
        }
    }

    /// A node's sidecar starts with a declaration that has a table less, as on the first or the last node of a rollout.
    fn undeclare(&mut self, node: usize, until: u64) {
        // Often the same as elsewhere: then these nodes have it from each other.
        let elsewhere = self.nodes.iter().find_map(|node| node.undeclared).filter(|_| self.faults.chance.one_in(2));
        let table = elsewhere.unwrap_or_else(|| self.faults.chance.pick(&TABLES).name);
        self.nodes[node].stop_sidecar();
        self.nodes[node].undeclared = Some(table);
        self.tell(format_args!("n{node} does not declare {table} any more"));
        self.story.count("table not declared any more");
        self.plan(until, Fault::Start { node });
        let again = until + self.faults.chance.below(10_000_000);
        self.plan(again, Fault::Declare { node });
    }

    /// All tables are declared again. A sidecar that runs starts again.
    pub fn declare(&mut self, node: usize) {
        let Some(table) = self.nodes[node].undeclared.take() else { return };
        self.tell(format_args!("n{node} declares {table} again"));
        self.story.count("table declared again");
        if !self.nodes[node].has_no_database() {
            self.start_service(node);
            self.make_missing(node, table);
            if !self.nodes[node].service.as_ref().is_some_and(|service| service::is_known_to_be_left(service, table)) {
                self.judge.void_unseen(node, table);
            }
        }
        if self.nodes[node].sidecar.is_some() || self.nodes[node].seeker.is_some() {
            self.nodes[node].stop_sidecar();
            self.fault(Fault::Start { node });
        }
    }

    /// The service makes a table that its sidecar was not told of: what loaded everything meanwhile has none.
    pub fn make_missing(&mut self, node: usize, table: &str) {
        let Some(service) = &self.nodes[node].service else { return };
        if let Err(error) = service.execute_batch(&service::sql_of(table)) {
            self.judge.wrong.push(format!("node {node}: `{table}` cannot be made: {error}"));
        }
    }

    fn cut_power(&mut self, node: usize, until: u64) {
        self.note_synced(node);
        self.nodes[node].die();
        let lost = disk::cut_power(self.nodes[node].folder(), &mut self.faults.chance);
        self.tell(format_args!("n{node} loses power, and {lost} writes"));
        self.story.count("power cut");
        self.story.add("writes lost by power cuts", lost);
        if let Some(from) = self.nodes[node].unsynced_from.take() {
            self.judge.void(node, from);
            self.forget_what_it_had(node);
        }
        self.plan(until, Fault::Start { node });
    }

    fn partition(&mut self, kind: Kind, node: usize, until: u64) {
        let all = self.nodes.len();
        let side: Vec<bool> = (0..all).map(|_| self.faults.chance.one_in(2)).collect();
        let pairs = (0..all).flat_map(|from| (0..all).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let links: Vec<(usize, usize)> = pairs
            .filter(|&(from, to)| match kind {
                Kind::OneWay => side[from] && !side[to],
                Kind::Isolate => from == node || to == node,
                _ => side[from] != side[to],
            })
            .collect();
        self.tell(format_args!("{kind:?}: nothing comes through {links:?}"));
        self.story.count(match kind {
            Kind::OneWay => "partition, one way",
            Kind::Isolate => "node cut off",
            _ => "partition, both ways",
        });
        self.net.cut.extend(&links);
        self.plan(until + 4_000_000, Fault::Mend { links });
    }

    fn bend_clock(&mut self, kind: Kind, node: usize) {
        let chance = &mut self.faults.chance;
        let sign = if chance.one_in(2) { 1 } else { -1 };
        match kind {
            Kind::ClockStep => {
                self.nodes[node].clock_off = sign * chance.below(20_000) as i64;
                self.story.count("clock stepped");
            }
            Kind::ClockFar => {
                self.nodes[node].clock_off = sign * chance.between(100_000, 3_600_000) as i64;
                self.story.count("clock far off");
            }
            _ => {
                self.nodes[node].clock_drift = sign * chance.below(5_000) as i64;
                self.story.count("clock drifts");
            }
        }
        let (off, drift) = (self.nodes[node].clock_off, self.nodes[node].clock_drift);
        self.tell(format_args!("n{node} clock is off by {off} ms, and drifts by {drift} ppm"));
    }

    fn back_up(&mut self, node: usize) {
        if !self.nodes[node].was_ready {
            return;
        }
        let folder = self.nodes[node].folder().join("backup");
        self.nodes[node].copy_to(&folder, false);
        self.nodes[node].backup = Some((folder, self.judge.promises()));
        self.tell(format_args!("n{node} is backed up"));
        self.story.count("backups");
    }

    /// An old copy of the files comes back.
    fn restore(&mut self, node: usize, until: u64) {
        let Some((folder, promises)) = self.nodes[node].backup.clone() else { return };
        self.nodes[node].die();
        self.nodes[node].replace_by(&folder, false);
        self.judge.void(node, promises);
        self.forget_what_it_had(node);
        // Its numbers go on from lower ones.
        self.nodes[node].seen.1 = 1;
        self.nodes[node].unsynced_from = None;
        self.tell(format_args!("n{node} is restored from its backup"));
        self.judge.copies = true;
        self.story.count("restored");
        self.plan(until, Fault::Start { node });
    }

    /// A node's files are put in another node's place.
    fn clone_onto(&mut self, node: usize, until: u64) {
        let from = self.faults.chance.below(self.nodes.len() as u64) as usize;
        if from == node || !self.nodes[from].was_ready || self.nodes[from].sidecar.is_none() {
            return;
        }
        let folder = self.nodes[node].folder().join("clone");
        self.nodes[from].copy_to(&folder, false);
        self.nodes[node].die();
        self.nodes[node].replace_by(&folder, false);
        // What was only here is gone with the files.
        self.judge.void(node, 0);
        self.forget_what_it_had(node);
        self.nodes[node].unsynced_from = None;
        self.nodes[node].was_ready = true;
        self.nodes[node].backup = None;
        self.tell(format_args!("n{node} gets a copy of the files of n{from}"));
        self.judge.copies = true;
        self.story.count("cloned");
        self.plan(until, Fault::Start { node });
    }
}
