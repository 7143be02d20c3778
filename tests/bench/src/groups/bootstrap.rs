//! A new node: how long until it is READY.

use std::time::Instant;

use crate::bench::Bench;
use crate::figures::Measured;
use crate::stats::Samples;
use crate::{floors, replica};

const ROWS: u64 = 231_200;

/// A node that has no database file, from the start of its process on.
pub fn without_a_file(bench: &Bench) -> Vec<Measured> {
    let folder = bench.folder();
    let rows = bench.rows(ROWS);
    let mut cluster = replica::cluster(&bench.nats, rows, ["a"]);
    let [a] = cluster.nodes();
    a.close_service();
    let (mut own, mut floor) = (Samples::default(), Samples::default());
    for round in 0..bench.rounds(3) {
        floor.single(floors::copy(&a, folder.path()).as_secs_f64());
        let joiner = cluster.add(&format!("joiner{round}"));
        joiner.as_shipped();
        let start = Instant::now();
        joiner.start();
        own.single((replica::ready(&joiner) - start).as_secs_f64());
        replica::same(&a, &joiner);
        if round == 0 {
            bench.note_sizes(&[&a, &joiner]);
        }
        assert!(joiner.stop().success(), "the joiner did not end well:\n{}", joiner.log());
    }
    let (own, floor) = (own.median(), floor.median());
    vec![
        Measured::beside("bootstrap_231k_s", own.clone(), &floor),
        Measured::new("bootstrap_231k_over_copy", own.paired(&floor)),
    ]
}
