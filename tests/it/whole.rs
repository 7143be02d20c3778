//! Whole databases, declared by `rowcast init` alone, on three nodes of which two begin with nothing.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rowcast_tests::rows::{self, Dump};
use rowcast_tests::workload::Writer;
use rowcast_tests::{Cluster, NatsServer, Node, chinook, traps};
use rusqlite::{Connection, OpenFlags};

#[test]
fn chinook_arrives_row_for_row_on_two_empty_nodes_and_stays_equal_under_a_mixed_workload() {
    let Some(file) = chinook::file() else {
        println!("skipped: chinook.sqlite is not there; ROWCAST_CHINOOK may name it");
        return;
    };
    let original = dump_of_file(&file);
    assert_eq!(original.len(), 11, "{:?}", original.keys());
    let nats = NatsServer::start();
    let cluster = Cluster::prepare_copy(&nats, &file, ["a", "b", "c"]);
    assert!(
        cluster.init_said().contains("WAL"),
        "init says that it switched the journal mode:\n{}",
        cluster.init_said()
    );
    arrives_and_stays_equal(cluster.started(), &original, 120);
}

#[test]
fn the_trap_database_arrives_row_for_row_on_two_empty_nodes_and_stays_equal_under_a_mixed_workload() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, &traps::sql(), ["a", "b", "c"]);
    // Some of its cells are random: what the first node's file holds is the original.
    let original = dump_of_file(cluster.nodes::<3>()[0].database());
    assert_eq!(original.keys().collect::<Vec<_>>(), dump_of(&traps::database()).keys().collect::<Vec<_>>());
    arrives_and_stays_equal(cluster.started(), &original, 250);
}

fn arrives_and_stays_equal(cluster: Cluster, original: &Dump, transactions: usize) {
    let nodes: [_; 3] = cluster.nodes();
    for node in &nodes {
        // READY is to hold everything: there is no waiting here.
        equal_now(node, original);
    }
    let tables: Vec<String> = original.keys().cloned().collect();
    let seed = seed();
    let mut writers: Vec<(Writer, Connection)> = nodes
        .iter()
        .enumerate()
        .map(|(number, node)| {
            let service = node.service();
            // The workload leaves references alone, as Chinook's own services do.
            service.pragma_update(None, "foreign_keys", "OFF").unwrap();
            (Writer::new(seed, number, nodes.len(), &service, &tables), service)
        })
        .collect();
    thread::scope(|scope| {
        for (writer, service) in &mut writers {
            scope.spawn(move || (0..transactions).for_each(|_| writer.transact(service)));
        }
    });
    let after = cluster.converged();
    cluster.sound();
    assert!(writers.iter().all(|(writer, _)| writer.done() > transactions), "the workload did its work");
    assert_eq!(after.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>());
    assert!(after.iter().all(|(table, rows)| *rows != original[table]), "the workload touched every table");
}

#[test]
fn a_mixed_workload_on_the_same_rows_and_keys_converges() {
    let conflicts = quarrel(|_| true, 60, "conflicts");
    assert!(conflicts > 100, "they quarrelled: {conflicts} conflicts");
}

#[test]
fn unique_values_that_all_nodes_fight_for_converge() {
    let parked = quarrel(|table| ["uniques", "generated_columns"].contains(&table), 200, "parked");
    // What waits for the rest of its transaction alone is not counted.
    assert!(parked > 0, "they did not quarrel");
}

/// So long after one transaction the next one is a group of its own: of those that are ingested together only the last value
/// of a row is seen, and hardly anything is left to quarrel about.
const ALONE: Duration = Duration::from_millis(10);

/// All nodes write the same rows of some tables. Gives the sum of a counter of theirs.
fn quarrel(of: impl Fn(&str) -> bool, transactions: usize, counter: &str) -> i64 {
    let nats = NatsServer::start();
    let mut cluster = Cluster::start(&nats, &traps::sql(), ["a", "b", "c"]);
    let nodes: [_; 3] = cluster.nodes();
    let mut tables = rows::replicated_tables(&nodes[0].service()).unwrap();
    tables.retain(|table| of(table));
    let seed = seed();
    let writer = |(number, node): (usize, &std::sync::Arc<Node>)| {
        let service = node.service();
        service.pragma_update(None, "foreign_keys", "OFF").unwrap();
        (Writer::quarrelling(seed, number, &service, &tables), service)
    };
    let mut writers: Vec<(Writer, Connection)> = nodes.iter().enumerate().map(writer).collect();
    for round in 0..3 {
        // The second round is without a bus: what they write then, nobody else has seen.
        if round == 1 {
            nats.stop();
        }
        thread::scope(|scope| {
            for (writer, service) in &mut writers {
                scope.spawn(move || {
                    for _ in 0..transactions {
                        writer.transact(service);
                        thread::sleep(ALONE);
                    }
                });
            }
        });
        if round == 1 {
            nats.restart();
        }
        cluster.converged();
    }
    let count = nodes.iter().map(|node| node.status()["counters"][counter].as_i64().unwrap()).sum::<i64>();
    println!("{counter}: {count}");
    // A node that comes now, with nothing, makes the same of the same events.
    let late = cluster.add("late");
    late.start();
    late.ready();
    cluster.converged();
    cluster.sound();
    count
}

/// What `ROWCAST_SEED` says, else always the same; a failure shows it.
fn seed() -> u64 {
    let seed = std::env::var("ROWCAST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("ROWCAST_SEED={seed}");
    seed
}

/// What the node holds now, compared with what it must hold.
fn equal_now(node: &Node, expected: &Dump) {
    let difference = rows::difference(expected, &node.dump().unwrap());
    assert!(difference.is_none(), "{} differs from the original\n{}", node.name(), difference.unwrap_or_default());
}

fn dump_of_file(file: &Path) -> Dump {
    // Immutable: it is only read, wherever it lies.
    let uri = format!("file:{}?immutable=1", file.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    dump_of(&Connection::open_with_flags(uri, flags).unwrap())
}

fn dump_of(connection: &Connection) -> Dump {
    let tables = rows::service_tables(connection).unwrap();
    rows::dump_of(connection, &tables, &[]).unwrap()
}
