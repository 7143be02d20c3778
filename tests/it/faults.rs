//! Sidecars and nats-server die in the middle of writes: no change is missing, none is there twice.

use std::thread;
use std::time::Duration;

use rowcast_tests::{Cluster, NatsServer, Node, Story, eventually, meanwhile};
use rusqlite::params;

const ITEMS: &str = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL);
                     CREATE TABLE notes(id TEXT NOT NULL PRIMARY KEY, item TEXT NOT NULL);";

#[test]
fn a_sidecar_killed_ten_times_in_a_stream_of_writes_loses_nothing_and_repeats_nothing() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let written = while_writing(&a, || {
        for _ in 0..10 {
            let before = a.number("SELECT count(*) FROM items_Events");
            a.kill();
            a.start();
            // It is at work again before it is killed again.
            eventually!(a.number("SELECT count(*) FROM items_Events") > before);
        }
    });
    cluster.converged();
    all_is_there_once(&[&a, &b], written);
}

#[test]
fn a_receiver_killed_ten_times_in_a_stream_of_writes_misses_nothing_and_applies_nothing_twice() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let written = while_writing(&a, || {
        for _ in 0..10 {
            let before = b.number("SELECT count(*) FROM items");
            b.kill();
            b.start();
            eventually!(b.number("SELECT count(*) FROM items") > before);
        }
    });
    cluster.converged();
    all_is_there_once(&[&a, &b], written);
}

#[test]
fn nats_server_killed_and_restarted_under_load_loses_nothing() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let written = while_writing(&a, || {
        for _ in 0..4 {
            let before = b.number("SELECT count(*) FROM items");
            nats.kill();
            thread::sleep(Duration::from_millis(300));
            nats.restart();
            eventually!(b.number("SELECT count(*) FROM items") > before);
        }
    });
    cluster.converged();
    all_is_there_once(&[&a, &b], written);
}

#[test]
fn what_is_written_while_a_sidecar_is_stopped_arrives_afterwards() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('before', 0)");
    cluster.converged();
    assert!(a.stop().success());
    a.sql("INSERT INTO items VALUES ('meanwhile', 1); UPDATE items SET n = 5 WHERE id = 'before'; INSERT INTO notes VALUES ('1', 'meanwhile')");
    // The other node wrote later than that: a late sidecar does not make an old write win.
    thread::sleep(Duration::from_millis(50));
    b.sql("UPDATE items SET n = 6 WHERE id = 'before'; INSERT INTO items VALUES ('there', 2)");
    eventually!(b.number("SELECT count(*) FROM items_Events WHERE json_extract(data, '$.n') = 6") == 1);
    thread::sleep(Duration::from_millis(50));
    a.start();
    a.ready();
    let rows = cluster.converged();
    assert_eq!(rows["items"], ["'before' | 6", "'meanwhile' | 1", "'there' | 2"]);
    assert_eq!(rows["notes"], ["'1' | 'meanwhile'"]);
}

#[test]
fn a_receiver_that_was_away_for_thousands_of_changes_catches_up_and_keeps_its_own() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    assert!(b.stop().success());
    for round in 0..50 {
        a.transaction(&format!(
            "INSERT INTO items SELECT 'a{round}-' || value, value FROM
             (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 100) SELECT value FROM s)"
        ));
    }
    b.sql("INSERT INTO items VALUES ('b', 1), ('c', 2)");
    b.start();
    b.ready();
    // READY again is to have all of it.
    assert_eq!(b.number("SELECT count(*) FROM items"), 5_002);
    assert_eq!(cluster.converged()["items"].len(), 5_002);
}

#[test]
fn timestamps_sort_by_the_time_of_the_write() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a"]);
    let [a] = cluster.nodes();
    let now = || i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    assert!(a.stop().success());
    let before = now();
    a.sql("INSERT INTO items VALUES ('x', 1)");
    let after = now();
    thread::sleep(Duration::from_millis(2_100));
    a.start();
    eventually!(a.number("SELECT count(*) FROM items_Events") == 1);
    // The time of the write, not of the ingest.
    let stamp = a.number("SELECT timestamp >> 31 FROM items_Events");
    assert!((before..=after).contains(&stamp), "{before} {stamp} {after}");
    a.sql("UPDATE items SET n = 2; UPDATE items SET n = 3");
    eventually!(a.number("SELECT count(*) FROM items_Events") == 3);
    let by_time = a.rows("SELECT sequence_number FROM items_Events ORDER BY timestamp");
    assert_eq!(by_time, a.rows("SELECT sequence_number FROM items_Events ORDER BY sequence_number"));
    assert_eq!(a.rows("SELECT DISTINCT typeof(timestamp), timestamp > 0 FROM items_Events"), ["'integer' | 1"]);
}

/// Writes to `node` until `faults` is over; gives the number of items written.
fn while_writing(node: &Node, faults: impl FnOnce()) -> i64 {
    let write = |story: &Story| {
        let service = node.service();
        let mut written = 0;
        while story.goes_on() {
            let (item, note) = (format!("i{written}"), format!("n{written}"));
            service.execute_batch("BEGIN IMMEDIATE").unwrap();
            service.execute("INSERT INTO items VALUES (?1, ?2)", params![item, written]).unwrap();
            service.execute("INSERT INTO notes VALUES (?1, ?2)", params![note, item]).unwrap();
            service.execute_batch("COMMIT").unwrap();
            written += 1;
            thread::sleep(Duration::from_millis(1));
        }
        written
    };
    meanwhile(write, faults)
}

/// Every item is one row and one event on every node, and the author's sequence numbers have no hole.
fn all_is_there_once(nodes: &[&Node], written: i64) {
    assert!(written > 50, "only {written} items were written");
    for node in nodes {
        let name = node.name();
        let all = "(SELECT * FROM items_Events UNION ALL SELECT * FROM notes_Events)";
        assert_eq!(node.number("SELECT count(*) FROM items"), written, "items on {name}");
        assert_eq!(node.number("SELECT count(*) FROM notes"), written, "notes on {name}");
        assert_eq!(node.number(&format!("SELECT count(*) FROM {all}")), 2 * written, "events on {name}");
        assert_eq!(
            node.number(&format!("SELECT count(DISTINCT record_id) FROM {all}")),
            2 * written,
            "records on {name}"
        );
        assert_eq!(
            node.rows(&format!("SELECT min(sequence_number), max(sequence_number), count(DISTINCT sequence_number), count(DISTINCT source_node_id), min(processed) FROM {all}")),
            [format!("1 | {0} | {0} | 1 | 1", 2 * written)],
            "sequence numbers on {name}"
        );
    }
}
