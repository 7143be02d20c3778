//! Real processes under fire: sidecars, services and nats-server are killed, stopped and cut off at random points while
//! services write. What a service was told to be committed is counted, and none of it may be missing anywhere.
//!
//! `ROWCAST_CHAOS_SEED` repeats the faults of a run (not their moments: those are the machine's), `ROWCAST_CHAOS_CYCLES`
//! sets how many there are, `ROWCAST_CHAOS_REPLICAS` how many nodes converge, `ROWCAST_CHAOS_PARTITION` how many seconds
//! a partition lasts. `just chaos` sets them all higher.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rowcast_tests::eventually::{bound, within};
use rowcast_tests::process::{Process, Signal, tail};
use rowcast_tests::random::Random;
use rowcast_tests::{Cluster, NatsServer, Node, Proxy, Way, binary, eventually, rows};
use rusqlite::params;

const MARKS: &str = "CREATE TABLE marks(id TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL);
                     CREATE TABLE shared(id TEXT NOT NULL PRIMARY KEY, mark TEXT NOT NULL);";

/// Cycles of an ordinary run.
const CYCLES: usize = 50;

// === Kill -9 ===

#[test]
fn kills_stops_and_cuts_at_random_points_lose_nothing_that_a_service_was_told_is_committed() {
    let cycles = number("ROWCAST_CHAOS_CYCLES", CYCLES);
    let seed = seed();
    println!("chaos: {cycles} cycles, ROWCAST_CHAOS_SEED={seed}");
    let mut fire = Fire::begin(seed);
    let start = Instant::now();
    for cycle in 1..=cycles {
        fire.cycle();
        if cycle % 5 == 0 {
            fire.all_ready();
        }
        if cycle % 100 == 0 {
            println!("chaos: {cycle} cycles in {:?}: {:?}", start.elapsed(), fire.done);
        }
    }
    let burnt = start.elapsed();
    let acknowledged = fire.end();
    let healed = fire.equal();
    let count = acknowledged.marks.len();
    for node in &fire.nodes {
        acknowledged.all_on(node);
        no_gaps(node);
        // None was taken for a copy of itself.
        assert_eq!(events_by_origin(node).len(), fire.nodes.len(), "a node has changed its id");
    }
    fire.cluster.sound_with_references();
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let rate = count as f64 / burnt.as_secs_f64();
    println!(
        "chaos: {cycles} cycles in {burnt:.1?}, {:?}; {count} transactions acknowledged ({rate:.0} a second), 0 missing \
         on {} nodes; all READY at most {:.1?} after faults under load, equal {healed:.1?} after the last one",
        fire.done,
        fire.nodes.len(),
        fire.longest
    );
    assert!(count > cycles * 20, "only {count} transactions were acknowledged in {cycles} cycles");
    assert!(cycles < CYCLES || KILLS.iter().all(|kind| fire.done.contains_key(kind)), "{:?}", fire.done);
}

/// What every run of some length must have done.
const KILLS: [&str; 3] = ["kill sidecar", "kill service", "kill nats-server"];

/// Three nodes, each behind a link of its own, and their services.
struct Fire {
    services: Vec<Service>,
    nodes: [Arc<Node>; 3],
    links: Vec<Proxy>,
    cluster: Cluster,
    nats: NatsServer,
    random: Random,
    done: BTreeMap<&'static str, usize>,
    longest: Duration,
}

/// A fault that lasts for a while, and what it is done to.
#[derive(Clone, Copy)]
enum Lasting {
    Stopped(usize),
    Linked(usize),
}

impl Fire {
    fn begin(seed: u64) -> Self {
        let nats = NatsServer::start();
        let cluster = Cluster::prepare(&nats, MARKS, ["a", "b", "c"]);
        let nodes: [Arc<Node>; 3] = cluster.nodes();
        let links: Vec<Proxy> = nodes.iter().map(|_| Proxy::to(&nats)).collect();
        for (node, link) in nodes.iter().zip(&links) {
            node.through(&link.url());
        }
        let cluster = cluster.started();
        let mut services: Vec<Service> = nodes.iter().map(|node| Service::of(node)).collect();
        services.iter_mut().for_each(Service::start);
        let (random, done, longest) = (Random::seeded(seed), BTreeMap::new(), Duration::ZERO);
        Self { services, nodes, links, cluster, nats, random, done, longest }
    }

    /// One kill -9 at least, and half of the time while something else is wrong already.
    fn cycle(&mut self) {
        self.pause(300);
        let lasting = self.random.chance(1, 2).then(|| self.disturb());
        self.pause(300);
        match self.random.below(20) {
            0..9 => {
                let at = self.random.below(3);
                self.kill_sidecar(at);
            }
            9..15 => {
                let at = self.random.below(3);
                self.kill_service(at);
            }
            15..17 => {
                // A machine that goes down takes both.
                let at = self.random.below(3);
                self.count("kill both at once");
                self.services[at].kill();
                self.kill_sidecar(at);
                self.services[at].start();
            }
            _ => {
                self.count("kill nats-server");
                self.nats.kill();
                self.pause(600);
                if self.random.chance(1, 3) {
                    let at = self.random.below(3);
                    self.kill_sidecar(at);
                }
                self.nats.restart();
            }
        }
        let long = self.random.chance(1, 5);
        self.pause(if long { 2_500 } else { 300 });
        if let Some(lasting) = lasting {
            self.heal(lasting);
        }
    }

    fn kill_sidecar(&mut self, at: usize) {
        let node = Arc::clone(&self.nodes[at]);
        assert!(node.alive(), "the sidecar of {} ended by itself:\n{}", node.name(), node.log());
        self.count("kill sidecar");
        node.kill();
        self.pause(200);
        node.start();
    }

    fn kill_service(&mut self, at: usize) {
        self.count("kill service");
        self.services[at].kill();
        self.pause(200);
        self.services[at].start();
    }

    fn disturb(&mut self) -> Lasting {
        let at = self.random.below(3);
        let way = *self.random.pick(&[Way::Out, Way::In]);
        let (what, lasting) = match self.random.below(5) {
            0 | 1 => {
                self.nodes[at].signal(Signal::STOP);
                ("stop and go on", Lasting::Stopped(at))
            }
            2 => {
                self.links[at].hold(way);
                ("hold one way", Lasting::Linked(at))
            }
            3 => {
                self.links[at].lose_all(way);
                ("lose one way", Lasting::Linked(at))
            }
            _ => {
                self.links[at].cut();
                ("cut both ways", Lasting::Linked(at))
            }
        };
        self.count(what);
        lasting
    }

    fn heal(&mut self, lasting: Lasting) {
        match lasting {
            // Killed and started again meanwhile, it is not stopped; then this does nothing.
            Lasting::Stopped(at) => self.nodes[at].signal(Signal::CONT),
            Lasting::Linked(at) => {
                let link = &self.links[at];
                if self.random.chance(1, 3) {
                    // What was held never arrives.
                    link.cut();
                }
                link.release();
                link.lose_nothing();
                link.heal();
            }
        }
    }

    /// Between two cycles nothing is wrong any more: then nothing may be stuck.
    fn all_ready(&mut self) {
        let start = Instant::now();
        for (node, service) in self.nodes.iter().zip(&self.services) {
            node.ready();
            service.went_on();
        }
        self.longest = self.longest.max(start.elapsed());
    }

    /// The services end; gives what they had been told.
    fn end(&mut self) -> Acknowledged {
        self.services.iter_mut().for_each(Service::kill);
        let mut all = Acknowledged::default();
        for service in &self.services {
            service.acknowledged(&mut all);
        }
        all
    }

    /// Waits until all are READY and equal. Gives how long that took.
    fn equal(&self) -> Duration {
        let start = Instant::now();
        for node in &self.nodes {
            node.ready();
        }
        same_events(&self.nodes);
        self.cluster.converged();
        start.elapsed()
    }

    fn pause(&mut self, milliseconds: usize) {
        thread::sleep(Duration::from_micros(self.random.below(milliseconds * 1000) as u64));
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }
}

/// A service in a process of its own, that says what it was told is committed.
struct Service {
    name: String,
    database: PathBuf,
    said: PathBuf,
    runs: usize,
    process: Option<Process>,
}

impl Service {
    fn of(node: &Node) -> Self {
        let said = node.folder().join("service.log");
        Self { name: node.name().to_owned(), database: node.database().to_owned(), said, runs: 0, process: None }
    }

    /// A hundred transactions a second.
    fn start(&mut self) {
        self.runs += 1;
        let mut command = Command::new("python3");
        command.arg(binary::root().join("tests/services/marks.py")).arg(&self.database);
        command.arg(format!("{}{}", self.name, self.runs)).arg("0.01");
        self.process = Some(Process::spawn(&format!("the service of {}", self.name), command, &self.said));
    }

    fn kill(&mut self) {
        let mut process = self.process.take().expect("bug: the service runs");
        let ended = process.ended();
        assert!(ended.is_none(), "the service of {} failed:\n{}", self.name, tail(&self.said, 4_000));
        process.kill();
    }

    /// Waits until it was told something new.
    fn went_on(&self) {
        let length = || std::fs::metadata(&self.said).map_or(0, |file| file.len());
        let before = length();
        eventually!(length() > before);
    }

    fn acknowledged(&self, all: &mut Acknowledged) {
        for line in std::fs::read_to_string(&self.said).unwrap().lines() {
            let ["ok", mark, shared, gone] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("the service of {} failed:\n{}", self.name, tail(&self.said, 4_000));
            };
            all.marks.insert(mark.to_owned());
            for (set, mark) in [(&mut all.shared, shared), (&mut all.gone, gone)] {
                if mark != "-" {
                    set.insert(mark.to_owned());
                }
            }
        }
    }
}

/// What services were told is committed.
#[derive(Default)]
struct Acknowledged {
    marks: BTreeSet<String>,
    shared: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Acknowledged {
    /// Checks that a node has all of it: as events, and as the rows that they make.
    fn all_on(&self, node: &Node) {
        let set = |sql: &str| -> BTreeSet<String> { texts(node, sql).into_iter().collect() };
        let made = set("SELECT json_extract(data, '$.id') FROM marks_Events WHERE operation_type <> 'DELETE'");
        nothing("inserts", node, self.marks.difference(&made));
        let put = set("SELECT json_extract(data, '$.mark') FROM shared_Events");
        nothing("updates of shared rows", node, self.shared.difference(&put));
        let there = set("SELECT id FROM marks");
        nothing("deletes", node, self.gone.intersection(&there));
        // The delete of a service that was killed before it could say so counts, too.
        let deleted = set("SELECT made.id FROM marks_Events AS gone JOIN
                           (SELECT record_id, json_extract(data, '$.id') AS id FROM marks_Events WHERE data IS NOT NULL)
                           AS made USING (record_id) WHERE gone.operation_type = 'DELETE'");
        let rows: BTreeSet<String> = there.union(&deleted).cloned().collect();
        nothing("rows", node, self.marks.difference(&rows));
        assert!(deleted.len() >= self.gone.len(), "{} deletes of {}", deleted.len(), self.gone.len());
    }
}

fn nothing<'a>(what: &str, node: &Node, missing: impl Iterator<Item = &'a String>) {
    let missing: Vec<&String> = missing.collect();
    assert!(missing.is_empty(), "{} {what} are missing on {}: {:?}", missing.len(), node.name(), shortened(&missing));
}

fn shortened<T>(list: &[T]) -> &[T] {
    &list[..list.len().min(20)]
}

// === Many replicas ===

const ITEMS: &str = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL, pad BLOB)";

#[test]
fn ten_replicas_and_more_converge_on_what_several_of_them_write() {
    const ROWS: usize = 10_000;
    const WRITERS: usize = 5;
    let replicas = number("ROWCAST_CHAOS_REPLICAS", 10);
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, ITEMS, ["n0"]).started();
    let mut nodes = cluster.nodes::<1>().to_vec();
    nodes.extend((1..replicas).map(|at| cluster.add(&format!("n{at}"))));
    nodes[1..].iter().for_each(|node| node.start());
    for node in &nodes {
        node.ready();
    }
    let start = Instant::now();
    thread::scope(|scope| {
        for node in &nodes[..WRITERS.min(replicas)] {
            scope.spawn(|| write_rows(node, ROWS / WRITERS));
        }
    });
    let written = start.elapsed();
    same_events(&nodes);
    assert_eq!(cluster.converged()["items"].len(), ROWS);
    println!("{replicas} replicas: {ROWS} rows written in {written:.1?}, equal after {:.1?}", start.elapsed());
    nodes.iter().for_each(|node| no_gaps(node));
}

/// Ten rows to a transaction.
fn write_rows(node: &Node, rows: usize) {
    let service = node.service();
    service.busy_timeout(Duration::from_secs(30)).unwrap();
    for at in (0..rows).step_by(10) {
        service.execute_batch("BEGIN IMMEDIATE").unwrap();
        for row in at..at + 10 {
            let id = format!("{}-{row}", node.name());
            service.execute("INSERT INTO items VALUES (?1, ?2, randomblob(20))", params![id, row]).unwrap();
        }
        service.execute_batch("COMMIT").unwrap();
    }
}

// === A slow consumer ===

#[test]
fn a_sidecar_that_nats_drops_as_a_slow_consumer_catches_up() {
    // As little as it takes: one message of the greatest size.
    let nats = NatsServer::with_config("max_pending: 1048576\nwrite_deadline: \"1s\"");
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('before', 0, NULL)");
    cluster.converged();
    b.signal(Signal::STOP);
    let mut batches = 0;
    let write = |batches: &mut i64| {
        a.transaction(&format!(
            "INSERT INTO items SELECT '{batches}-' || value, value, randomblob(4000) FROM
             (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 20)
              SELECT value FROM s)"
        ));
        *batches += 1;
    };
    // The kernel keeps some for it, too.
    within(bound() * 3, "nats-server drops the consumer that does not read", || {
        (0..10).for_each(|_| write(&mut batches));
        let said = nats.log();
        if said.contains("Slow Consumer") { Ok(()) } else { Err(format!("{batches} transactions:\n{said}")) }
    });
    // And a while longer, with nobody at the other end.
    (0..10).for_each(|_| write(&mut batches));
    let start = Instant::now();
    b.signal(Signal::CONT);
    eventually!(b.number("SELECT count(*) FROM items") == batches * 20 + 1);
    let rows = cluster.converged();
    println!("a slow consumer: dropped after {batches} transactions, equal {:.1?} after it went on", start.elapsed());
    assert_eq!(rows["items"].len(), usize::try_from(batches * 20 + 1).unwrap());
    b.ready();
    no_gaps(&a);
    no_gaps(&b);
}

// === A partition ===

#[test]
fn a_partition_in_which_both_sides_write_heals_to_equal_rows() {
    let seconds = number("ROWCAST_CHAOS_PARTITION", 8);
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, MARKS, ["a", "b"]).started();
    let [a, b] = cluster.nodes();
    let c = cluster.add("c");
    let link = Proxy::to(&nats);
    c.through(&link.url());
    c.start();
    c.ready();
    let mut services = [&a, &b, &c].map(|node| Service::of(node));
    services.iter_mut().for_each(Service::start);
    services.iter().for_each(Service::went_on);
    link.cut();
    thread::sleep(Duration::from_secs(seconds as u64));
    let mut all = Acknowledged::default();
    for service in &mut services {
        service.went_on();
        service.kill();
        service.acknowledged(&mut all);
    }
    // Nothing went through, so there is something to heal.
    let of_c =
        |node: &Node| node.number("SELECT count(*) FROM marks_Events WHERE json_extract(data, '$.id') LIKE 'c%'");
    assert!(of_c(&a) < of_c(&c), "the link was not cut");
    let start = Instant::now();
    link.heal();
    let nodes = [a, b, c];
    same_events(&nodes);
    cluster.converged();
    let healed = start.elapsed();
    println!(
        "a partition of {seconds} s, {} transactions on both sides: equal {healed:.2?} after it healed",
        all.marks.len()
    );
    assert!(healed <= bound(), "equal only {healed:.2?} after the partition healed");
    for node in &nodes {
        node.ready();
        all.all_on(node);
        no_gaps(node);
    }
    cluster.sound_with_references();
}

// === What they share ===

/// Waits until no journal holds a change and all nodes have equally many events, which is cheap to ask often.
fn same_events(nodes: &[Arc<Node>]) {
    within(bound() * 5, "all nodes have the same events", || {
        let mut counts = BTreeSet::new();
        for node in nodes {
            if node.journal()? > 0 {
                return Err(format!("the journal of {} is not empty", node.name()));
            }
            counts.insert(events_by_origin(node));
        }
        if counts.len() == 1 { Ok(()) } else { Err(format!("{counts:?}")) }
    });
}

/// Each origin's events on a node: how many, the first, the last.
fn events_by_origin(node: &Node) -> Vec<String> {
    let tables = rows::replicated_tables(&node.service()).unwrap();
    let all: Vec<String> = tables
        .iter()
        .map(|name| format!("SELECT source_node_id AS o, sequence_number AS n FROM {name}_Events"))
        .collect();
    node.rows(&format!(
        "SELECT o, count(DISTINCT n), min(n), max(n) FROM ({}) GROUP BY o ORDER BY o",
        all.join(" UNION ALL ")
    ))
}

/// Every origin's events from the first one on, without a hole, and none of them waiting.
fn no_gaps(node: &Node) {
    let origins = events_by_origin(node);
    assert!(!origins.is_empty(), "{} has no events", node.name());
    for origin in &origins {
        let cells: Vec<&str> = origin.split(" | ").collect();
        assert!(cells[2] == "1" && cells[1] == cells[3], "a gap on {}: {origin}", node.name());
    }
    for table in rows::replicated_tables(&node.service()).unwrap() {
        assert_eq!(node.number(&format!("SELECT count(*) FROM {table}_Events WHERE processed = 0")), 0, "{table}");
    }
}

/// A column of texts.
fn texts(node: &Node, sql: &str) -> Vec<String> {
    let service = node.service();
    let mut statement = service.prepare(sql).unwrap();
    let texts = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
    texts.filter_map(|text| text.unwrap()).collect()
}

fn number(variable: &str, otherwise: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")),
        Err(_) => otherwise,
    }
}

/// Another one each time, so that runs add up.
fn seed() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    number("ROWCAST_CHAOS_SEED", usize::try_from(now).unwrap()) as u64
}
