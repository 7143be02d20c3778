//! A node that was away for many rows: how fast it has them all from its start on, by turns with one writer that stores
//! the same rows and events from memory; and what its service feels of it.

use std::time::{Duration, Instant};

use rowcast_tests::Node;

use crate::bench::Bench;
use crate::figures::Measured;
use crate::floors::Applier;
use crate::replica::{self, BOUND, Watch};
use crate::service::{Service, paced};
use crate::stats::{Samples, ms, rate, whole};
use crate::w0;

const ROWS: u64 = 200_000;
const FILLED: u64 = 10_000;
/// Rows of B's service have numbers of their own.
const OF_B: u64 = 1_000_000_000;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let folder = bench.folder();
    let cluster = replica::cluster(&bench.nats, FILLED, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let count = bench.rows(ROWS);
    let applier = Applier::like(&a, folder.path(), "floor.db");
    store(&applier, &a, 0);
    let (mut own, mut floor) = (Samples::default(), Samples::default());
    let mut at = FILLED;
    for _ in 0..bench.rounds(2) {
        write_without(&a, &b, at..at + count);
        at += count;
        let watch = Watch::on(&b);
        let start = Instant::now();
        b.start();
        own.single(rate(count, watch.until(at) - start));
        replica::ready(&b);
        floor.single(rate(count, store(&applier, &a, at - count)));
    }
    replica::same(&a, &b);
    bench.note_sizes(&[&a, &b]);
    let writes = felt(bench, &a, &b, at, count);
    replica::same(&a, &b);
    let (own, floor) = (own.median(), floor.median());
    vec![
        Measured::beside("catchup_rows_s", own.clone(), &floor),
        Measured::new("catchup_over_floor", own.paired(&floor)),
        Measured::new("write_p99_during_catchup_ms", writes.percentile(99.0)),
    ]
}

/// The rows after `before` are written on `a` while `b` is away.
fn write_without(a: &Node, b: &Node, numbers: std::ops::Range<u64>) {
    assert!(b.stop().success(), "the sidecar of b did not end well:\n{}", b.log());
    Service::of(a).fill(numbers, 100);
    replica::ingested(a);
}

fn store(applier: &Applier, a: &Node, after: u64) -> Duration {
    let rows = format!("SELECT * FROM items WHERE rowid > {after} ORDER BY rowid");
    // One origin: its events have the order of its rows.
    let events = format!("SELECT * FROM items_Events WHERE sequence_number > {after} ORDER BY sequence_number");
    applier.apply(a, &rows, &events)
}

/// The times of the writes of `b`'s own service while `b` catches up, in ms.
fn felt(bench: &Bench, a: &Node, b: &Node, at: u64, count: u64) -> Samples {
    write_without(a, b, at..at + count);
    let (service, watch) = (Service::of(b), Watch::on(b));
    let mut times = Vec::new();
    b.start();
    let start = Instant::now();
    while watch.rows() < at + count + whole(times.len()) {
        assert!(start.elapsed() < BOUND, "b does not catch up while its service writes");
        let first = OF_B + whole(times.len());
        paced(200, 20, |i| times.push(ms(service.single(&w0::row(first + whole(i))))));
    }
    bench.note(format!(
        "{} writes of b's service while it caught up in {:.1} s",
        times.len(),
        start.elapsed().as_secs_f64()
    ));
    Watch::on(a).until(watch.rows());
    let mut samples = Samples::default();
    samples.round(times);
    samples
}
