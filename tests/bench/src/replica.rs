//! What can be seen of a replica from outside: rows in its file, memory and processor time of its process.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rowcast_tests::eventually::within;
use rowcast_tests::{Cluster, NatsServer, Node};
use rusqlite::Connection;

use crate::stats::count;
use crate::w0;

/// How long anything may take before the run is given up.
pub const BOUND: Duration = Duration::from_secs(600);

/// A cluster on W0's table: the first node has the rows `0..filled` before Rowcast comes. Nothing runs yet.
pub fn prepare<const N: usize>(nats: &NatsServer, filled: u64, names: [&str; N]) -> Cluster {
    prepare_tables(nats, &w0::items(), filled, names)
}

/// As [`prepare`], with several tables of W0's shape, which share the rows.
pub fn prepare_tables<const N: usize>(nats: &NatsServer, tables: &[String], filled: u64, names: [&str; N]) -> Cluster {
    let sql: Vec<String> = tables.iter().map(|table| w0::table(table)).collect();
    let declaration = w0::declaration(tables, "triggers");
    let cluster = Cluster::prepare_declared(nats, &sql.join(";"), &declaration, names);
    let nodes: [Arc<Node>; N] = cluster.nodes();
    let service = crate::service::Service::of(&nodes[0]);
    let mut at = 0;
    while at < filled {
        let next = filled.min(at + 10_000);
        service.spread(&w0::rows(at..next), tables);
        at = next;
    }
    nodes.iter().for_each(|node| node.as_shipped());
    cluster
}

/// A cluster on W0's table that runs, all nodes READY.
pub fn cluster<const N: usize>(nats: &NatsServer, filled: u64, names: [&str; N]) -> Cluster {
    let cluster = prepare(nats, filled, names);
    start(&cluster.nodes::<N>());
    cluster
}

/// Starts nodes, the first with `--first`, and waits until they are READY.
pub fn start(nodes: &[Arc<Node>]) {
    for (at, node) in nodes.iter().enumerate() {
        node.start_with(if at == 0 { &["--first"] } else { &[] });
        // The others can only begin when the first is READY; they begin together.
        if at == 0 {
            ready(node);
        }
    }
    for node in nodes {
        ready(node);
    }
}

/// Waits until the node is READY; gives the moment.
pub fn ready(node: &Node) -> Instant {
    let start = Instant::now();
    loop {
        if node.is_ready() {
            return Instant::now();
        }
        assert!(node.alive(), "the sidecar of {} has ended:\n{}", node.name(), node.log());
        assert!(start.elapsed() < BOUND, "{} is not READY: {:?}\n{}", node.name(), node.readyz(), node.log());
        thread::sleep(Duration::from_millis(2));
    }
}

/// Looks at the rows of a node's file.
pub struct Watch {
    connection: Connection,
    count: String,
    node: String,
}

impl Watch {
    /// On the table of W0.
    pub fn on(node: &Node) -> Self {
        Self::tables(node, &w0::items())
    }

    /// On several tables together.
    pub fn tables(node: &Node, tables: &[String]) -> Self {
        // Nothing is deleted and nothing is written twice, so the last rowid is the number of rows; to count them
        // would take time from what is measured. `whole` counts.
        let parts: Vec<String> =
            tables.iter().map(|table| format!("(SELECT coalesce(max(rowid), 0) FROM {table})")).collect();
        let count = format!("SELECT {}", parts.join(" + "));
        Self { connection: node.service(), count, node: node.name().to_owned() }
    }

    /// The rows that are visible now.
    pub fn rows(&self) -> u64 {
        self.connection.prepare_cached(&self.count).unwrap().query_row([], |row| row.get(0)).unwrap()
    }

    /// Waits until so many rows are visible; gives the moment.
    pub fn until(&self, rows: u64) -> Instant {
        let start = Instant::now();
        loop {
            let seen = self.rows();
            if seen >= rows {
                return Instant::now();
            }
            assert!(start.elapsed() < BOUND, "{} has {seen} of {rows} rows after {BOUND:?}", self.node);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Checks that two nodes hold the same rows of W0's table: their number and sums over every column.
pub fn same(a: &Node, b: &Node) {
    let sums = "SELECT count(*), sum(qty), sum(CAST(round(price * 100) AS INTEGER)), sum(length(id || name || email || note)), max(id), min(id) FROM items";
    let (left, right) = (a.rows(sums), b.rows(sums));
    assert_eq!(left, right, "{} and {} do not hold the same rows", a.name(), b.name());
}

/// Waits until the journal of a node is empty.
pub fn ingested(node: &Node) {
    within(BOUND, "the journal is empty", || match node.journal() {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?} of {}", node.name())),
    });
}

/// Memory of a process as `/proc` tells it, in MB of 10^6 bytes: `VmRSS` now, `VmHWM` at most so far.
pub fn memory_mb(id: u32, which: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("Linux tells it");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    count(kib.parse::<u64>().expect("a number of KiB")) * 1024.0 / 1e6
}

/// The processor time that a process has used so far, all its threads. The kernel counts exactly, and tells hundredths of a
/// second: what hardly does anything is to be watched for a while.
pub fn processor(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("a running process has a stat");
    // After the name, which may hold anything: the state, ten numbers, then user and system time in hundredths.
    let numbers: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = numbers[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number of ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// The size of a database in bytes: its file and its WAL.
pub fn file_bytes(database: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let wal = database.with_file_name(format!("{}-wal", database.file_name().unwrap_or_default().to_string_lossy()));
    size(database) + size(&wal)
}
