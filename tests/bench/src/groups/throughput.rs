//! How many rows a second are written on A and visible on the others, from the first write until the last row is there;
//! by turns with the service alone, on the same rows. As W0 has it, each time begins with an empty table: what rows that are
//! there already change is a question of `growth`.

use std::time::Instant;

use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica::{self, Watch};
use crate::service::Service;
use crate::stats::{Samples, rate};
use crate::{floors, w0};

const ROWS: u64 = 100_000;
/// Written before: statements are prepared then, files are there, and nothing of it counts.
const WARM: u64 = 1_000;

/// Two nodes.
pub fn two_nodes(bench: &Bench) -> Vec<Measured> {
    let figures = [
        "throughput_batch100_rows_s",
        "throughput_over_service",
        "throughput_single_rows_s",
        "throughput_single_over_service",
    ];
    measure(bench, 3, ["a", "b"], figures)
}

/// Three nodes.
pub fn three_nodes(bench: &Bench) -> Vec<Measured> {
    let figures = [
        "throughput_batch100_3nodes_rows_s",
        "throughput_over_service_3nodes",
        "throughput_single_3nodes_rows_s",
        "throughput_single_over_service_3nodes",
    ];
    measure(bench, 2, ["a", "b", "c"], figures)
}

fn measure<const N: usize>(bench: &Bench, rounds: usize, names: [&str; N], figures: [&str; 4]) -> Vec<Measured> {
    let mut samples: [Samples; 4] = Default::default();
    for round in 0..bench.rounds(rounds) {
        for (size, samples) in [100, 1].into_iter().zip(samples.chunks_mut(2)) {
            let [alone, replicated] = from_nothing(bench, names, size, round == 0);
            samples[0].single(alone);
            samples[1].single(replicated);
        }
    }
    let [alone, batches, alone_single, singles] = samples.map(|samples| samples.median());
    vec![
        Measured::beside(figures[0], batches.clone(), &alone),
        Measured::new(figures[1], batches.paired(&alone)),
        Measured::beside(figures[2], singles.clone(), &alone_single),
        Measured::new(figures[3], singles.paired(&alone_single)),
    ]
}

/// The rates of a service alone, and of one in a new cluster, in transactions of `size` rows.
fn from_nothing<const N: usize>(bench: &Bench, names: [&str; N], size: usize, sizes_noted: bool) -> [f64; 2] {
    let cluster = replica::cluster(&bench.nats, 0, names);
    let nodes = cluster.nodes::<N>();
    let (a, others) = nodes.split_first().expect("bug: a cluster has nodes");
    let folder = bench.folder();
    let plain = Service::plain(folder.path(), "plain.db");
    let service = Service::of(a);
    let watches: Vec<Watch> = others.iter().map(|node| Watch::on(node)).collect();
    let warm = w0::rows(0..WARM);
    plain.batches(&warm, 100);
    arrived(&watches, &warm, WARM, || service.batches(&warm, 100));
    let total = WARM + bench.rows(ROWS);
    let rows = w0::rows(WARM..total);
    let alone = rate(rows.len(), floors::alone(&plain, &rows, size));
    let replicated = arrived(&watches, &rows, total, || service.batches(&rows, size));
    others.iter().for_each(|node| replica::same(a, node));
    if sizes_noted {
        bench.note_sizes(&nodes.iter().map(|node| &**node).collect::<Vec<_>>());
    }
    [alone, replicated]
}

/// Has rows written; gives the rows a second until `total` rows are visible on every other node.
pub fn arrived(others: &[Watch], rows: &[w0::Row], total: u64, write: impl FnOnce()) -> f64 {
    let start = Instant::now();
    write();
    let last = others.iter().map(|watch| watch.until(total)).max().expect("bug: there are others");
    rate(rows.len(), last - start)
}
