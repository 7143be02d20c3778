//! Five million rows in the table: is it slower then?
//!
//! Rows are put in before Rowcast comes, in key order, which is fast; the second node begins with a copy of the first
//! one's file, as from a backup, and takes an id of its own.

use std::sync::Arc;
use std::time::Instant;

use rowcast_tests::Node;

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
    let cluster = replica::prepare(&bench.nats, 0, ["a", "b"]);
    let nodes = cluster.nodes::<2>();
    let start = Instant::now();
    fill_in_key_order(&nodes[0], rows);
    bench.note(format!("{rows} rows written: {:.0} s", start.elapsed().as_secs_f64()));
    let start = Instant::now();
    replica::start(&nodes[..1]);
    bench.note(format!("{:.0} rows a second made events of", rate(rows, start.elapsed())));
    let start = Instant::now();
    give_copy(&nodes);
    replica::start(&nodes);
    bench.note(format!("a second node with a copy of the file is READY: {:.0} s", start.elapsed().as_secs_f64()));
    bench.note_sizes(&[&nodes[0], &nodes[1]]);
    growth::of_rows(bench, &nodes, rows, "5m")
}

fn fill_in_key_order(node: &Node, rows: u64) {
    let mut keys: Vec<(u128, u64)> = (0..rows).map(|i| (w0::key(i), i)).collect();
    keys.sort_unstable();
    let service = Service::of(node);
    for numbers in keys.chunks(10_000) {
        let rows: Vec<w0::Row> = numbers.iter().map(|(_, i)| w0::row(*i)).collect();
        service.batch(&rows);
    }
}

/// Gives the second node the file of the first, which is stopped for it.
fn give_copy([a, b]: &[Arc<Node>; 2]) {
    assert!(a.stop().success(), "a did not end well:\n{}", a.log());
    // Closing a file outside of SQLite would drop the locks of a connection that is open.
    a.close_service();
    std::fs::copy(a.database(), b.database()).unwrap();
}
