//! Chinook's shape: orders of one invoice and its five lines, with foreign keys, indexes and a NUMERIC column, in a
//! copy of the whole database. `ROWCAST_CHINOOK` names the file.

use std::time::{Duration, Instant};

use rowcast_tests::{Cluster, chinook};
use rusqlite::{Connection, params};

use crate::bench::Bench;
use crate::figures::Measured;
use crate::replica::{self, Watch};
use crate::service::Service;
use crate::stats::{Samples, ms, rate};

const ORDERS: u64 = 5_000;
const LINES: u64 = 5;

/// Measures; nothing where the file is not there.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let Some(file) = chinook::file() else {
        bench.note("skipped: chinook.sqlite is not there; ROWCAST_CHINOOK may name it");
        return Vec::new();
    };
    let folder = bench.folder();
    let cluster = Cluster::prepare_copy(&bench.nats, &file, ["a", "b"]);
    let nodes = cluster.nodes::<2>();
    nodes.iter().for_each(|node| node.as_shipped());
    std::fs::copy(&file, folder.path().join("plain.db")).unwrap();
    replica::start(&nodes);
    let plain = Service::existing(&folder.path().join("plain.db"));
    let service = Service::of(&nodes[0]);
    let watch = Watch::tables(&nodes[1], &["InvoiceLine".to_owned()]);
    let (mut own, mut floor) = (Samples::default(), Samples::default());
    let (mut cost, mut plain_cost) = (Samples::default(), Samples::default());
    let orders = bench.rows(ORDERS);
    // The first round warms statements and caches.
    for round in 0..=bench.rounds(3) {
        let (first, lines) = (next(plain.connection(), "Invoice"), next(plain.connection(), "InvoiceLine"));
        let (took, times) = write(&plain, first, lines, orders);
        let start = Instant::now();
        let (_, own_times) = write(&service, first, lines, orders);
        let arrived = watch.until(lines + orders * LINES - 1) - start;
        if round > 0 {
            floor.single(rate(orders * (LINES + 1), took));
            own.single(rate(orders * (LINES + 1), arrived));
            plain_cost.round(times);
            cost.round(own_times);
        }
    }
    let (own, floor) = (own.median(), floor.median());
    vec![
        Measured::beside("chinook_rows_s", own.clone(), &floor),
        Measured::new("chinook_over_service", own.paired(&floor)),
        Measured::new("chinook_write_cost_ratio", cost.median().over(&plain_cost.median())),
    ]
}

fn next(connection: &Connection, table: &str) -> u64 {
    let sql = format!("SELECT max({table}Id) + 1 FROM {table}");
    connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Writes orders, each in a transaction; gives the time of all, and of each in ms.
fn write(service: &Service, first: u64, first_line: u64, orders: u64) -> (Duration, Vec<f64>) {
    let start = Instant::now();
    let times = (0..orders).map(|at| {
        let (invoice, line) = (first + at, first_line + at * LINES);
        ms(service.transaction(|| order(service.connection(), invoice, line)))
    });
    let times = times.collect();
    (start.elapsed(), times)
}

fn order(connection: &Connection, invoice: u64, first_line: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO Invoice VALUES (?1, ?2, '2025-12-24 00:00:00', 'Rua Dr. Falcão Filho, 155', 'São Paulo', 'SP', 'Brazil', '01007-010', 4.95)";
    connection.prepare_cached(sql)?.execute(params![invoice, invoice % 59 + 1])?;
    for line in first_line..first_line + LINES {
        let sql = "INSERT INTO InvoiceLine VALUES (?1, ?2, ?3, 0.99, 1)";
        connection.prepare_cached(sql)?.execute(params![line, invoice, line % 3_503 + 1])?;
    }
    Ok(())
}
