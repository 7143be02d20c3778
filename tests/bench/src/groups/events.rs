//! How long a write takes to be visible on the other node when the service announces its changes: it commits, then says
//! the row on the bus.

use rowcast_tests::{Bus, Cluster};
use serde_json::json;

use super::latency;
use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica;
use crate::service::Service;
use crate::stats::Samples;
use crate::w0::{self, Row};

const FILLED: u64 = 10_000;
const PER_SECOND: u32 = 200;
const WRITES: u64 = 600;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let tables = w0::items();
    let declaration = w0::declaration(&tables, "events");
    let cluster = Cluster::prepare_declared(&bench.nats, &w0::table(&tables[0]), &declaration, ["a", "b"]);
    let [a, b] = cluster.nodes();
    Service::of(&a).fill(0..FILLED, 1_000);
    replica::start(&[a.clone(), b.clone()]);
    let bus = Bus::connect(&bench.nats);
    let subject = format!("rowcast.{}.changes.{}", rowcast_tests::cluster::SERVICE, a.name());
    let service = Service::of(&a);
    let mut samples = Samples::default();
    let mut at = FILLED;
    for round in 0..=bench.rounds(3) {
        let rows = w0::rows(at..at + WRITES);
        at += WRITES;
        let times = latency::carried_by(&b, &tables, &rows, PER_SECOND, |row, table| {
            service.single(row);
            bus.publish(&subject, said(row, table));
        });
        if round > 0 {
            samples.round(times);
        }
    }
    replica::same(&a, &b);
    vec![Measured::new("latency_events_p50_ms", samples.median())]
}

fn said(row: &Row, table: &str) -> String {
    let Row { id, name, email, qty, price, note } = row;
    // A whole price is a REAL, too: serde_json writes its point.
    let data = json!({"id": id, "name": name, "email": email, "qty": qty, "price": price, "note": note});
    json!({"table": table, "operation": "create", "data": data}).to_string()
}
