//! A million rows: as a backlog for both sidecars at once, in the table while rows are written, and into an empty node.
//!
//! One cluster for all of it, because a million rows take their time.

use std::time::Instant;

use super::growth;
use crate::bench::Bench;
use crate::figures::Measured;
use crate::floors::Applier;
use crate::replica::{self, Watch, memory_mb};
use crate::service::Service;
use crate::stats::{Samples, rate};
use crate::w0;

const ROWS: u64 = 1_000_000;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    // Fewer would not tell memory that grows with them from memory that does not.
    let rows = if bench.is_short() { ROWS / 10 } else { ROWS };
    let mut cluster = replica::cluster(&bench.nats, 0, ["a", "b"]);
    let nodes = cluster.nodes::<2>();
    let mut measured = vec![backlog(bench, &nodes[0], &nodes[1], rows)];
    if bench.is_short() {
        return measured;
    }
    measured.extend(growth::of_rows(bench, &nodes, rows, "1m"));
    measured.extend(into_an_empty_node(bench, &mut cluster));
    measured
}

/// The service writes while both sidecars are away. Then one has it in the journal, and the other far ahead of it.
fn backlog(bench: &Bench, a: &rowcast_tests::Node, b: &rowcast_tests::Node, rows: u64) -> Measured {
    for node in [a, b] {
        assert!(node.stop().success(), "{} did not end well:\n{}", node.name(), node.log());
    }
    Service::of(a).fill(0..rows, 5_000);
    let start = Instant::now();
    a.start();
    b.start();
    let taken = Watch::on(b).until(rows) - start;
    bench.note(format!("{rows} rows from the journal of a into b: {:.1} s", taken.as_secs_f64()));
    bench.note_sizes(&[a, b]);
    let mut peak = Samples::default();
    peak.single(memory_mb(a.id(), "VmHWM").max(memory_mb(b.id(), "VmHWM")));
    for node in [a, b] {
        replica::ready(node);
    }
    replica::same(a, b);
    Measured::new("rss_backlog_mb", peak.median())
}

/// A node with an empty table takes all of it as events. By turns with a bulk insert of the same rows and events.
fn into_an_empty_node(bench: &Bench, cluster: &mut rowcast_tests::Cluster) -> Vec<Measured> {
    let folder = bench.folder();
    let [a, _] = cluster.nodes::<2>();
    let rows = a.number("SELECT count(*) FROM items").unsigned_abs();
    let (mut own, mut floor) = (Samples::default(), Samples::default());
    for round in 0..bench.rounds(2) {
        let joiner = cluster.add(&format!("empty{round}"));
        joiner.as_shipped();
        joiner.create(&w0::table("items"));
        let start = Instant::now();
        joiner.start();
        own.single(rate(rows, replica::ready(&joiner) - start));
        replica::same(&a, &joiner);
        bench.note_sizes(&[&joiner]);
        assert!(joiner.stop().success(), "the joiner did not end well:\n{}", joiner.log());
        let applier = Applier::like(&a, folder.path(), &format!("floor{round}.db"));
        let (items, events) = ("SELECT * FROM items ORDER BY id", "SELECT * FROM items_Events ORDER BY record_id");
        floor.single(rate(rows, applier.apply(&a, items, events)));
    }
    let (own, floor) = (own.median(), floor.median());
    vec![
        Measured::beside("bootstrap_rows_s", own.clone(), &floor),
        Measured::new("bootstrap_over_floor", own.paired(&floor)),
    ]
}
