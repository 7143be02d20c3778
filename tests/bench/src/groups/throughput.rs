//! How many rows a second are written on A and visible on the others, from the first write until the last row is there;
//! by turns with the service alone, on the same rows. As W0 has it, each time begins with an empty table: what rows that are
//! there already change is a question of `growth`.

use std::thread;
use std::time::Instant;

use rowcast_tests::Node;

use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica::{self, Watch};
use crate::service::Service;
use crate::stats::{Samples, rate};
use crate::w0::{self, Row};

/// Written before: statements are prepared then, files are there, and nothing of it counts.
const WARM: u64 = 1_000;

/// How a service writes.
struct Manner {
    /// Rows in each transaction.
    size: usize,
    /// Connections that write at once.
    connections: usize,
    /// Rows, all together.
    rows: u64,
    /// The figure, and the one over the service alone.
    figures: [&'static str; 2],
}

/// Rows in transactions of `size` on one connection.
const fn one_by_one(size: usize, figures: [&'static str; 2]) -> Manner {
    Manner { size, connections: 1, rows: 100_000, figures }
}

/// Two nodes.
pub fn two_nodes(bench: &Bench) -> Vec<Measured> {
    let figures = ["throughput_single8_rows_s", "throughput_single8_over_service"];
    let manners = [
        one_by_one(100, ["throughput_batch100_rows_s", "throughput_over_service"]),
        one_by_one(1, ["throughput_single_rows_s", "throughput_single_over_service"]),
        Manner { size: 1, connections: 8, rows: 20_000, figures },
    ];
    measure(bench, 3, ["a", "b"], &manners)
}

/// Three nodes.
pub fn three_nodes(bench: &Bench) -> Vec<Measured> {
    let manners = [
        one_by_one(100, ["throughput_batch100_3nodes_rows_s", "throughput_over_service_3nodes"]),
        one_by_one(1, ["throughput_single_3nodes_rows_s", "throughput_single_over_service_3nodes"]),
    ];
    measure(bench, 2, ["a", "b", "c"], &manners)
}

fn measure<const N: usize>(bench: &Bench, rounds: usize, names: [&str; N], manners: &[Manner]) -> Vec<Measured> {
    let mut samples: Vec<[Samples; 2]> = manners.iter().map(|_| Default::default()).collect();
    for round in 0..bench.rounds(rounds) {
        for (manner, [alone, replicated]) in manners.iter().zip(&mut samples) {
            let rates = from_nothing(bench, names, manner, round == 0);
            alone.single(rates[0]);
            replicated.single(rates[1]);
        }
    }
    let both = |(manner, samples): (&Manner, &[Samples; 2])| {
        let [alone, replicated] = [samples[0].median(), samples[1].median()];
        let over = Measured::new(manner.figures[1], replicated.paired(&alone));
        [Measured::beside(manner.figures[0], replicated, &alone), over]
    };
    manners.iter().zip(&samples).flat_map(both).collect()
}

/// The rates of a service alone, and of one in a new cluster.
fn from_nothing<const N: usize>(bench: &Bench, names: [&str; N], manner: &Manner, sizes_noted: bool) -> [f64; 2] {
    let cluster = replica::cluster(&bench.nats, 0, names);
    let nodes = cluster.nodes::<N>();
    let (a, others) = nodes.split_first().expect("bug: a cluster has nodes");
    let folder = bench.folder();
    let mut plain = vec![Service::plain(folder.path(), "plain.db")];
    plain.extend((1..manner.connections).map(|_| Service::existing(&folder.path().join("plain.db"))));
    let mut services: Vec<Service> = (0..manner.connections).map(|_| Service::of(a)).collect();
    let watches: Vec<Watch> = others.iter().map(|node| Watch::on(node)).collect();
    let warm = w0::rows(0..WARM);
    write(&mut plain, &warm, 100);
    arrived(&watches, &warm, WARM, || write(&mut services, &warm, 100));
    let total = WARM + bench.rows(manner.rows);
    let rows = w0::rows(WARM..total);
    let start = Instant::now();
    write(&mut plain, &rows, manner.size);
    let alone = rate(rows.len(), start.elapsed());
    let replicated = arrived(&watches, &rows, total, || write(&mut services, &rows, manner.size));
    others.iter().for_each(|node| replica::same(a, node));
    if sizes_noted {
        bench.note_sizes(&nodes.iter().map(|node| &**node).collect::<Vec<&Node>>());
    }
    [alone, replicated]
}

/// Writes rows on all connections of a service at once, in transactions of `size`.
fn write(connections: &mut [Service], rows: &[Row], size: usize) {
    let share = rows.len().div_ceil(connections.len());
    thread::scope(|scope| {
        for (service, rows) in connections.iter_mut().zip(rows.chunks(share)) {
            scope.spawn(move || service.batches(rows, size));
        }
    });
}

/// Has rows written; gives the rows a second until `total` rows are visible on every other node.
pub fn arrived(others: &[Watch], rows: &[Row], total: u64, write: impl FnOnce()) -> f64 {
    let start = Instant::now();
    write();
    let last = others.iter().map(|watch| watch.until(total)).max().expect("bug: there are others");
    rate(rows.len(), last - start)
}
