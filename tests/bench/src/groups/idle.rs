//! A sidecar that has nothing to do, in a cluster of two with some rows; and what its events take on the disk.

use std::thread;
use std::time::{Duration, Instant};

use rowcast_tests::Node;

use crate::bench::Bench;
use crate::figures::Measured;
use crate::stats::{Samples, count};
use crate::{floors, replica};

const FILLED: u64 = 10_000;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let folder = bench.folder();
    let cluster = replica::cluster(&bench.nats, FILLED, ["a", "b"]);
    let nodes = cluster.nodes::<2>();
    let (settled, watched) = if bench.is_short() { (2, 3) } else { (5, 6) };
    thread::sleep(Duration::from_secs(settled));
    let (mut memory, mut busy) = (Samples::default(), Samples::default());
    for _ in 0..bench.rounds(3) {
        let start = Instant::now();
        let before: Vec<Duration> = nodes.iter().map(|node| replica::processor(node.id())).collect();
        thread::sleep(Duration::from_secs(watched));
        let used = nodes.iter().zip(before).map(|(node, before)| replica::processor(node.id()) - before);
        let most = used.max().expect("bug: there are nodes");
        busy.single(most.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0);
        let taken = nodes.iter().map(|node| replica::memory_mb(node.id(), "VmRSS"));
        memory.single(taken.fold(0.0, f64::max));
    }
    let plain = floors::plain(folder.path(), "plain.db", FILLED);
    let used: i64 = plain.connection().query_row(USED, [], |row| row.get(0)).unwrap();
    let mut disk = Samples::default();
    disk.single(count(of_events(&nodes[1], used)) / count(FILLED));
    vec![
        Measured::new("rss_idle_mb", memory.median()),
        Measured::new("cpu_idle_percent", busy.mean()),
        Measured::new("disk_bytes_per_event", disk.median()),
    ]
}

/// The bytes of a database that hold something.
const USED: &str =
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size";

fn of_events(node: &Node, plain: i64) -> i64 {
    node.number(USED) - plain
}
