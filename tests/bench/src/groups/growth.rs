//! Whether Rowcast becomes slower with more rows in a table, or with more tables.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rowcast_tests::Node;

use super::{latency, throughput};
use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica::{self, Watch};
use crate::service::Service;
use crate::stats::{Samples, rate};
use crate::w0;

const ROWS: u64 = 20_000;
const WRITES: u64 = 200;
const PER_SECOND: u32 = 200;

/// With 10,000 rows in the table.
pub fn few_rows(bench: &Bench) -> Vec<Measured> {
    let cluster = replica::cluster(&bench.nats, 10_000, ["a", "b"]);
    of_rows(bench, &cluster.nodes(), 10_000, "10k")
}

/// With `filled` rows in the table of a cluster that runs; `size` is how the figure calls them.
pub fn of_rows(bench: &Bench, [a, b]: &[Arc<Node>; 2], filled: u64, size: &str) -> Vec<Measured> {
    measure(bench, a, b, &w0::items(), filled, &format!("growth_{size}_rows"))
}

/// With 1, 10 and 100 tables.
pub fn tables(bench: &Bench) -> Vec<Measured> {
    let mut measured = Vec::new();
    for (count, figure) in [(1, "growth_1_table"), (10, "growth_10_tables"), (100, "growth_100_tables")] {
        let tables: Vec<String> = (0..count).map(|at| format!("items{at}")).collect();
        let cluster = replica::prepare_tables(&bench.nats, &tables, 10_000, ["a", "b"]);
        let nodes = cluster.nodes::<2>();
        replica::start(&nodes);
        measured.extend(measure(bench, &nodes[0], &nodes[1], &tables, 10_000, figure));
    }
    measured
}

/// Throughput in transactions of 100, by turns with a service alone on as many rows, and latency, on `tables` in turn.
fn measure(bench: &Bench, a: &Node, b: &Node, tables: &[String], filled: u64, figure: &str) -> Vec<Measured> {
    let folder = bench.folder();
    let plain = Service::plain_tables(folder.path(), "plain.db", tables);
    plain.fill_in_key_order(filled, tables);
    // What the kernel still has to write, some gigabytes at most, is not what is measured. To open a file here and close it would drop
    // the locks of SQLite's connections in this process.
    assert!(Command::new("sync").status().unwrap().success(), "`sync` fails");
    let service = Service::of(a);
    let watch = [Watch::tables(b, tables)];
    let (mut alone, mut rates, mut times) = (Samples::default(), Samples::default(), Samples::default());
    let write = |service: &Service, rows: &[w0::Row]| -> Duration {
        rows.chunks(100).map(|rows| service.spread(rows, tables)).sum()
    };
    let mut at = filled;
    // The first round fills the caches.
    for round in 0..=bench.rounds(2) {
        let rows = w0::rows(at..at + ROWS);
        let few = w0::rows(at + ROWS..at + ROWS + WRITES);
        at += ROWS + WRITES;
        let alone_rate = rate(ROWS, write(&plain, &rows));
        let together = throughput::arrived(&watch, &rows, at - WRITES, || {
            write(&service, &rows);
        });
        let carried = latency::carried_by(b, tables, &few, PER_SECOND, |row, table| service.single_into(row, table));
        if round > 0 {
            alone.single(alone_rate);
            rates.single(together);
            times.round(carried);
        }
    }
    vec![
        Measured::beside(&format!("{figure}_throughput_rows_s"), rates.median(), &alone.median()),
        Measured::new(&format!("{figure}_latency_p50_ms"), times.median()),
    ]
}
