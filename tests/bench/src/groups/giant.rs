//! Five million rows in the table: is it slower then?
//!
//! Rows are put in before Rowcast comes, in key order, which is fast; the second node begins without a database file.

use std::time::Instant;

use super::growth;
use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica;
use crate::service::Service;
use crate::stats::rate;
use crate::w0;

const ROWS: u64 = 5_000_000;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let rows = bench.rows(ROWS);
    let mut cluster = replica::prepare(&bench.nats, 0, ["a"]);
    let [a] = cluster.nodes();
    let start = Instant::now();
    Service::of(&a).fill_in_key_order(rows, &w0::items());
    bench.note(format!("{rows} rows written: {:.0} s", start.elapsed().as_secs_f64()));
    let start = Instant::now();
    replica::start(&cluster.nodes::<1>());
    bench.note(format!("{:.0} rows a second made events of", rate(rows, start.elapsed())));
    let b = cluster.add("b");
    b.as_shipped();
    let start = Instant::now();
    b.start();
    let taken = replica::ready(&b) - start;
    bench.note(format!("a second node, without a database file, is READY: {:.0} s", taken.as_secs_f64()));
    bench.note_sizes(&[&a, &b]);
    growth::of_rows(bench, &cluster.nodes(), rows, "5m")
}
