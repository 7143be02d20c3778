//! One node writes, ten others follow, all on this machine.

use std::time::Instant;

use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica::{self, Watch};
use crate::service::Service;
use crate::stats::Samples;
use crate::w0;

const ROWS: u64 = 10_000;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    let cluster = replica::cluster(&bench.nats, 1_000, names);
    let nodes = cluster.nodes::<11>();
    let service = Service::of(&nodes[0]);
    let watches: Vec<Watch> = nodes[1..].iter().map(|node| Watch::on(node)).collect();
    let mut samples = Samples::default();
    let mut at = 1_000;
    for _ in 0..bench.rounds(3) {
        let rows = w0::rows(at..at + ROWS);
        at += ROWS;
        let start = Instant::now();
        service.batches(&rows, 100);
        let last = watches.iter().map(|watch| watch.until(at)).max().expect("bug: there are replicas");
        samples.single((last - start).as_secs_f64());
    }
    nodes[1..].iter().for_each(|node| replica::same(&nodes[0], node));
    bench.note_sizes(&[&nodes[0], &nodes[1], &nodes[10]]);
    vec![Measured::new("fanout10_converge_s", samples.median())]
}
