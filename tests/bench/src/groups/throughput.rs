//! How many rows a second are written on A and visible on the others, from the first write until the last row is there;
//! by turns with the service alone, on the same rows and a table that grows alike.

use std::sync::Arc;
use std::time::Instant;

use rowcast_tests::Node;

use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica::{self, Watch};
use crate::service::Service;
use crate::stats::{Samples, rate};
use crate::{floors, w0};

const ROWS: u64 = 100_000;

/// Two nodes.
pub fn two_nodes(bench: &Bench) -> Vec<Measured> {
    let cluster = replica::cluster(&bench.nats, 0, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let names = [
        "throughput_batch100_rows_s",
        "throughput_over_service",
        "throughput_single_rows_s",
        "throughput_single_over_service",
    ];
    measure(bench, 3, &a, &[b], names)
}

/// Three nodes.
pub fn three_nodes(bench: &Bench) -> Vec<Measured> {
    let cluster = replica::cluster(&bench.nats, 0, ["a", "b", "c"]);
    let [a, b, c] = cluster.nodes();
    let names = [
        "throughput_batch100_3nodes_rows_s",
        "throughput_over_service_3nodes",
        "throughput_single_3nodes_rows_s",
        "throughput_single_over_service_3nodes",
    ];
    measure(bench, 2, &a, &[b, c], names)
}

fn measure(bench: &Bench, rounds: usize, a: &Node, others: &[Arc<Node>], names: [&str; 4]) -> Vec<Measured> {
    let folder = bench.folder();
    let plain = Service::plain(folder.path(), "plain.db");
    let service = Service::of(a);
    let watches: Vec<Watch> = others.iter().map(|node| Watch::on(node)).collect();
    let count = bench.rows(ROWS);
    // Statements are prepared, files are there, and nothing of it counts.
    let warm = w0::rows(0..1_000);
    plain.batches(&warm, 100);
    arrived(&watches, &warm, 1_000, || service.batches(&warm, 100));
    let mut at = 1_000;
    let mut samples: [Samples; 4] = Default::default();
    for _ in 0..bench.rounds(rounds) {
        for (size, samples) in [100, 1].into_iter().zip(samples.chunks_mut(2)) {
            let rows = w0::rows(at..at + count);
            at += count;
            samples[0].single(rate(count, floors::alone(&plain, &rows, size)));
            samples[1].single(arrived(&watches, &rows, at, || service.batches(&rows, size)));
        }
    }
    others.iter().for_each(|node| replica::same(a, node));
    bench.note_sizes(&std::iter::once(a).chain(others.iter().map(|node| &**node)).collect::<Vec<_>>());
    let [alone, batches, alone_single, singles] = samples.map(|samples| samples.median());
    vec![
        Measured::beside(names[0], batches.clone(), &alone),
        Measured::new(names[1], batches.over(&alone)),
        Measured::beside(names[2], singles.clone(), &alone_single),
        Measured::new(names[3], singles.over(&alone_single)),
    ]
}

/// Has rows written; gives the rows a second until `total` rows are visible on every other node.
pub fn arrived(others: &[Watch], rows: &[w0::Row], total: u64, write: impl FnOnce()) -> f64 {
    let start = Instant::now();
    write();
    let last = others.iter().map(|watch| watch.until(total)).max().expect("bug: there are others");
    rate(rows.len(), last - start)
}
