//! Runs seeds: the history, the healing, the verdict; one, or many in several processes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use rowcast::edge::store::{expel, members_of};

use crate::faults::Fault;
use crate::judge::kept::{Aside, read_aside};
use crate::judge::{Stored, differences};
use crate::schema::{Made, STEPS};
use crate::service;
use crate::world::World;

/// What came of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong; nothing, when all is well.
    pub wrong: Vec<String>,
    /// The number of the story.
    pub hash: u64,
    /// How often each kind of fault happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The story, when it was kept.
    pub story: Vec<String>,
}

/// How long the healed world may take until everybody is READY and equal, in microseconds of its own time.
const HEALING_MAX: u64 = 400_000_000;

/// With this variable old copies of files come back also where events are compacted. Not all seeds end well then.
pub const COPIES: &str = "ROWCAST_SIM_COPIES";

/// Where files lie: in memory where the system has that, as nothing is really synced here.
fn memory() -> PathBuf {
    Some(PathBuf::from("/dev/shm")).filter(|shm| shm.is_dir()).unwrap_or_else(std::env::temp_dir)
}

/// How the folders of a process are named.
fn prefix_of(process: u32) -> String {
    format!("rowcast-sim-{process}-")
}

/// Takes away what a process that was ended left.
fn sweep_after(process: u32) {
    let prefix = prefix_of(process);
    for entry in std::fs::read_dir(memory()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Runs one seed.
pub fn run(seed: u64, keep_story: bool) -> Outcome {
    let folder = tempfile::Builder::new().prefix(&prefix_of(std::process::id())).tempdir_in(memory());
    let folder = folder.expect("a folder for the simulation can be made");
    let copies = std::env::var_os(COPIES).is_some();
    let mut world = World::new(seed, folder.path(), keep_story, copies);
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.begin();
        let latest = world.now + 300_000_000;
        while world.operations_left > 0 && world.now < latest {
            world.run_until(world.now + 1_000_000);
        }
        world.heal();
        world.converge();
        world.verdict();
    }));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default();
        world.judge.wrong.push(format!("panic: {text}"));
    }
    crate::disk::disarm();
    world.story.add("events", world.judge.events() as u64);
    Outcome {
        wrong: std::mem::take(&mut world.judge.wrong),
        hash: world.story.hash(),
        counts: std::mem::take(&mut world.story.counts),
        story: world.story.lines().to_vec(),
    }
}

impl World {
    /// No fault any more: disks, clocks and links work, and everybody runs.
    fn heal(&mut self) {
        self.healed = true;
        self.net.heal(self.now);
        self.story.tell(self.now, format_args!("everything is healed"));
        for node in 0..self.nodes.len() {
            self.nodes[node].failing = None;
            self.nodes[node].clock_off = 0;
            self.nodes[node].clock_drift = 0;
            self.declare(node);
            self.fault(Fault::Start { node });
            self.fault(Fault::Connect { node });
        }
    }

    /// Waits until everybody is READY and has everything, for long enough that nothing more comes.
    fn converge(&mut self) {
        let begin = self.now;
        let mut quiet = 0;
        let (mut waited_for_clocks, mut retired) = (false, false);
        // What was announced and got lost is found by the next comparison, ten seconds later at most.
        while quiet < 15 {
            self.run_until(self.now + 1_000_000);
            // One table after the other comes to a node that had none.
            self.migrate_all();
            match self.unfinished() {
                None => quiet += 1,
                Some(why) => {
                    quiet = 0;
                    // Who put another node's files in a node's place has taken with them what only that node had; a lost
                    // disk has, too.
                    let replaced = self.judge.copies || self.nodes.iter().any(|node| node.disk_lost);
                    if replaced && !retired && begin + 60_000_000 < self.now {
                        retired = true;
                        self.retire_the_replaced();
                    }
                    if !waited_for_clocks && self.nodes.iter().any(waits_for_a_clock) {
                        waited_for_clocks = true;
                        self.skip(3_700_000_000);
                        self.story.count("waited for a clock");
                    }
                    if begin + HEALING_MAX < self.now.saturating_sub(if waited_for_clocks { 3_700_000_000 } else { 0 })
                    {
                        self.judge.wrong.push(format!("stalled: {why}"));
                        self.tell_why_not_ready();
                        return;
                    }
                }
            }
        }
    }

    /// The operator expels the ids that no node has any more.
    fn retire_the_replaced(&mut self) {
        let Some(node) = self.nodes.iter().find(|node| node.sidecar.is_some()) else { return };
        let path = node.file("");
        for member in members_of(&path).expect("a node that runs has members") {
            let replaced = self.nodes.iter().all(|node| !node.is(member.node));
            let replaced = replaced && (self.judge.copies || self.judge.is_ended(member.node));
            if replaced && expel(&path, member.node).expect("it is in the table") {
                self.story.tell(self.now, format_args!("the operator expels {:?}", member.node));
                self.story.count("expelled by the operator");
            }
        }
    }

    /// What is not as it must be in the end.
    /// What each node says of itself, for whoever reads the story of a stall.
    fn tell_why_not_ready(&mut self) {
        for node in &mut self.nodes {
            let moment = node.moment(self.now);
            let Some(sidecar) = &mut node.sidecar else { continue };
            let reasons = sidecar.replica.status(moment).reasons;
            self.story.tell(self.now, format_args!("n{} says {reasons:?}", node.number));
        }
    }

    fn unfinished(&mut self) -> Option<String> {
        let now = self.now;
        for node in &mut self.nodes {
            let (number, moment) = (node.number, node.moment(now));
            let Some(sidecar) = &mut node.sidecar else { return Some(format!("n{number} does not run")) };
            if !sidecar.replica.is_ready() {
                return Some(format!("n{number} is not READY: {:?}", sidecar.replica.status(moment).reasons));
            }
        }
        let mut first = None;
        for node in &self.nodes {
            let number = node.number;
            let Some(sidecar) = &node.sidecar else { return Some(format!("n{number} does not run")) };
            if waits_for_a_clock(node) {
                return Some(format!("n{number} has events from the future"));
            }
            let vector = &sidecar.replica.store().durable().vector;
            match first {
                None => first = Some(vector),
                Some(first) if first != vector => {
                    return Some(format!("n{number} has {vector:?}, and n0 has {first:?}"));
                }
                Some(_) => {}
            }
            let journal = node.service.as_ref().map(|service| {
                service.query_row("SELECT count(*) FROM _rowcast_journal", [], |row| row.get::<_, i64>(0))
            });
            if journal.is_none_or(|journal| journal.is_ok_and(|rows| rows > 0)) {
                return Some(format!("n{number} has a journal"));
            }
            let due = |service: &rusqlite::Connection| STEPS.iter().any(|step| step.is_due(service).unwrap_or(true));
            if self.faults.migrates() && node.service.as_ref().is_none_or(due) {
                return Some(format!("n{number} has not had every migration"));
            }
            if !sidecar.replica.store().pending().is_empty() {
                return Some(format!("n{number} compares its tables"));
            }
        }
        None
    }

    /// Compares every node with the reference, and all changes with all events.
    fn verdict(&mut self) {
        for node in &mut self.nodes {
            let moment = node.moment(self.now);
            let Some(sidecar) = &mut node.sidecar else { continue };
            let counters = sidecar.replica.status(moment).counters;
            self.story.add("events compacted", counters.compacted);
            self.story.add("records compared between nodes", counters.verified);
        }
        let vectors = self.nodes.iter().filter_map(|node| node.sidecar.as_ref());
        let vectors: Vec<_> = vectors.map(|sidecar| sidecar.replica.store().durable().vector.clone()).collect();
        self.judge.settle_ended(&vectors);
        let mut stored = Stored::new();
        let (mut tables, mut aside) = (Vec::new(), Aside::new());
        for at in 0..self.nodes.len() {
            let Some(service) = &self.nodes[at].service else { continue };
            let read = self.judge.read((at, service), &mut stored);
            let read = read.and_then(|()| read_aside(service, &mut aside)).and_then(|()| service::all_rows(service));
            match read {
                Ok(rows) => tables.push((at, rows)),
                Err(error) => self.judge.wrong.push(format!("node {at} cannot be read: {error}")),
            }
            let sound = service.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
            if sound.as_deref() != Ok("ok") {
                self.judge.wrong.push(format!("node {at}: {sound:?}"));
            }
        }
        let made = self.nodes[0].service.as_ref().and_then(|service| Made::of(service).ok()).unwrap_or_default();
        let expected = self.judge.fold(&stored, &made);
        self.story.add("records at the end", expected.len() as u64);
        for (at, rows) in tables {
            for (table, record, what) in differences(&expected, &rows) {
                self.judge.wrong.push(format!("node {at} differs: {table} {record}: {what}"));
                // What a reader asks for next.
                if self.judge.wrong.len() < 4 {
                    let events = self.judge.events_of(table, &record);
                    self.judge.wrong.extend(events.into_iter().map(|event| format!("  of its events: {event}")));
                }
            }
        }
        let mut lost = self.judge.lost();
        if !self.judge.copies {
            lost.extend(self.judge.unkept(&aside, &mut self.story));
        }
        self.judge.wrong.extend(lost.into_iter().map(|line| format!("lost: {line}")));
    }
}

fn waits_for_a_clock(node: &crate::node::Node) -> bool {
    node.sidecar.as_ref().is_some_and(|sidecar| sidecar.replica.store().durable().doubtful > 0)
}

/// Tells the story of one seed. Answers whether it ended well.
pub fn story(seed: u64) -> bool {
    let outcome = run(seed, true);
    outcome.story.iter().for_each(|line| println!("{line}"));
    println!("\nseed {seed}, story {:016x}", outcome.hash);
    outcome.counts.iter().for_each(|(what, times)| println!("  {what}: {times}"));
    outcome.wrong.iter().take(60).for_each(|line| println!("WRONG: {line}"));
    outcome.wrong.is_empty()
}

/// One of several processes: a line a seed on standard output.
pub fn worker(from: u64, seeds: u64) -> bool {
    std::panic::set_hook(Box::new(|_| {})); // It is in the line.
    let mut out = std::io::stdout().lock();
    for seed in from..from + seeds {
        let outcome = run(seed, false);
        let line = serde_json::json!({
            "seed": seed, "hash": outcome.hash, "wrong": outcome.wrong, "counts": outcome.counts,
        });
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return false; // Nobody reads any more.
        }
    }
    true
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// What was wrong, by seed.
    pub wrong: BTreeMap<u64, Vec<String>>,
    /// The number of each seed's story.
    pub hashes: BTreeMap<u64, u64>,
    /// How often each kind of fault happened, all seeds together.
    pub counts: BTreeMap<String, u64>,
}

impl Summary {
    /// Whether all of them ended well, and met what there is to meet.
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.not_met().is_empty()
    }

    /// What never happened of what so many seeds meet; of fewer than a hundred nobody expects it.
    pub fn not_met(&self) -> Vec<&'static str> {
        let never = |what: &&str| self.counts.get(*what).is_none_or(|times| *times == 0);
        if self.seeds < 100 { Vec::new() } else { MET.into_iter().filter(never).collect() }
    }
}

/// What a run has to have met, or it proves nothing.
const MET: [&str; 47] = [
    "announcements lost",
    "answers lost",
    "away for long",
    "backups",
    "became NOT READY",
    "checkpoints",
    "clock drifts",
    "clock far off",
    "clock stepped",
    "cloned",
    "connection lost",
    "databases not taken whole",
    "databases taken whole",
    "disk errors, lasting",
    "disk errors, one",
    "disk full",
    "disk lost",
    "ended by a failed sync",
    "events",
    "events compacted",
    "killed with a database that has come",
    "killed within its work",
    "messages cut off",
    "messages lost",
    "messages repeated",
    "node cut off",
    "node killed",
    "partition, both ways",
    "partition, one way",
    "power cut",
    "power cut once caught up",
    "records compared between nodes",
    "requests lost",
    "restored",
    "schema, column added",
    "schema, column renamed",
    "schema, column with default added",
    "schema, table rebuilt",
    "sidecar stopped",
    "starts that failed",
    "table declared again",
    "table not declared any more",
    "transactions",
    "transactions that no trigger saw",
    "wake-ups missed",
    "went on under another id",
    "writes lost by power cuts",
];

/// Seeds that one process runs before a new one takes over: SQLite's caches and the allocator start afresh.
const SLICE: u64 = 50;

/// Runs many seeds in several processes, and prints what failed.
pub fn many(from: u64, seeds: u64, jobs: Option<usize>, fail_fast: bool) -> Summary {
    let program = std::env::current_exe().expect("this program has a path");
    many_with(&program, from, seeds, jobs, fail_fast)
}

/// The same, with another program as worker.
pub fn many_with(program: &Path, from: u64, seeds: u64, jobs: Option<usize>, fail_fast: bool) -> Summary {
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let began = Instant::now();
    let slices: Vec<(u64, u64)> =
        (from..from + seeds).step_by(SLICE as usize).map(|first| (first, SLICE.min(from + seeds - first))).collect();
    let slices = std::sync::Mutex::new(slices.into_iter());
    let (lines, results) = mpsc::sync_channel::<serde_json::Value>(jobs * 4);
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (lines, slices) = (lines.clone(), &slices);
            scope.spawn(move || {
                loop {
                    let next = slices.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some((first, count)) = next else { break };
                    if !slice(program, first, count, &lines) {
                        break;
                    }
                }
            });
        }
        drop(lines);
        for line in results {
            summary.take(&line, began);
            if fail_fast && !summary.wrong.is_empty() {
                break; // The workers end when nobody reads their lines.
            }
        }
    });
    summary.print(began);
    summary
}

/// Runs a few seeds in a process of their own. Answers whether anybody still listens.
fn slice(program: &Path, first: u64, count: u64, lines: &mpsc::SyncSender<serde_json::Value>) -> bool {
    let mut child = Command::new(program)
        .args(["--worker", "--from", &first.to_string(), "--seeds", &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a worker can be started");
    let out = BufReader::new(child.stdout.take().expect("its output is piped"));
    let mut seen = 0;
    for line in out.lines().map_while(Result::ok) {
        seen += 1;
        let line = serde_json::from_str(&line).unwrap_or(serde_json::Value::Null);
        if lines.send(line).is_err() {
            child.kill().ok();
            child.wait().ok();
            sweep_after(child.id());
            return false;
        }
    }
    let ended = child.wait();
    if seen < count {
        sweep_after(child.id());
        let wrong = vec![format!("the process of the simulation ended: {ended:?}")];
        let line = serde_json::json!({ "seed": first + seen, "hash": 0, "wrong": wrong, "counts": {} });
        return lines.send(line).is_ok();
    }
    true
}

impl Summary {
    fn take(&mut self, line: &serde_json::Value, began: Instant) {
        let seed = line["seed"].as_u64().unwrap_or(u64::MAX);
        self.seeds += 1;
        self.hashes.insert(seed, line["hash"].as_u64().unwrap_or(0));
        for (what, times) in line["counts"].as_object().into_iter().flatten() {
            *self.counts.entry(what.clone()).or_default() += times.as_u64().unwrap_or(0);
        }
        let wrong: Vec<String> = line["wrong"]
            .as_array()
            .map(|lines| lines.iter().map(|line| line.as_str().unwrap_or("?").to_owned()).collect())
            .unwrap_or_else(|| vec!["a line of a worker does not read".into()]);
        if !wrong.is_empty() {
            println!("seed {seed} FAILED: {}", wrong[0]);
            self.wrong.insert(seed, wrong);
        }
        if self.seeds.is_multiple_of(1000) {
            println!("{} seeds, {} failed, {:.0?}", self.seeds, self.wrong.len(), began.elapsed());
        }
    }

    fn print(&self, began: Instant) {
        println!("{} seeds, {} failed, in {:.1?}", self.seeds, self.wrong.len(), began.elapsed());
        self.counts.iter().for_each(|(what, times)| println!("  {what}: {times}"));
        self.not_met().iter().for_each(|what| println!("{what}: NEVER HAPPENED, so this run proves nothing"));
        if let Some((seed, wrong)) = self.wrong.first_key_value() {
            println!("the first that failed, {seed} (`just sim {seed}` tells its story):");
            wrong.iter().take(10).for_each(|line| println!("  {line}"));
        }
    }
}
