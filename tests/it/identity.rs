//! A database that was copied or restored never speaks under an id whose numbers it could give out twice.

use rowcast_tests::{Cluster, NatsServer, Node, eventually_eq};

const ITEMS: &str = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER)";

/// Every event on every node: the same number of one origin is the same event everywhere.
fn numbers_are_given_out_once(nodes: &[&Node]) {
    let mut seen = std::collections::BTreeMap::new();
    for node in nodes {
        for event in node.rows("SELECT id, record_id, operation_type, timestamp, data FROM items_Events") {
            let (id, what) = event.split_once(" | ").unwrap();
            let first = seen.entry(id.to_owned()).or_insert_with(|| what.to_owned());
            assert_eq!(*first, what, "event {id} on {}", node.name());
        }
    }
}

#[test]
fn a_database_file_copied_to_another_node_gets_an_id_of_its_own() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('a', 1)");
    b.sql("INSERT INTO items VALUES ('b', 1)");
    cluster.converged();
    assert!(b.stop().success());
    b.close_service();
    let c = cluster.add("c");
    // Nobody has either file open.
    std::fs::copy(b.database(), c.database()).unwrap();
    for node in [&b, &c] {
        node.start();
    }
    for node in [&b, &c] {
        node.ready();
        node.sql(&format!(
            "INSERT INTO items VALUES ('{0} after', 1); UPDATE items SET n = n + 1 WHERE id = '{0}'",
            node.name()
        ));
    }
    let ids: std::collections::BTreeSet<String> =
        [&a, &b, &c].map(|node| node.status()["node_id"].to_string()).into_iter().collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(cluster.converged()["items"], ["'a' | 1", "'b after' | 1", "'b' | 2", "'c after' | 1"]);
    numbers_are_given_out_once(&[&a, &b, &c]);
}

#[test]
fn a_database_restored_from_an_older_copy_gets_back_what_it_lost_and_repeats_no_number() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('old', 1)");
    cluster.converged();
    let copy = cluster.folder().join("copy.db");
    assert!(a.stop().success());
    a.close_service();
    std::fs::copy(a.database(), &copy).unwrap();
    a.start();
    a.ready();
    a.sql("INSERT INTO items VALUES ('after the copy', 1); UPDATE items SET n = 2 WHERE id = 'old'");
    cluster.converged();
    let before = a.status()["node_id"].clone();
    assert!(a.stop().success());
    a.close_service();
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", a.database().display())).ok();
    }
    std::fs::copy(&copy, a.database()).unwrap();
    // The service writes before the sidecar is back.
    a.sql("INSERT INTO items VALUES ('after the restore', 1)");
    a.start();
    a.ready();
    let rows = cluster.converged();
    assert_eq!(rows["items"], ["'after the copy' | 1", "'after the restore' | 1", "'old' | 2"]);
    assert_ne!(a.status()["node_id"], before, "the old id's numbers go on where the copy knows nothing of");
    numbers_are_given_out_once(&[&a, &b]);
    a.sql("DELETE FROM items WHERE id = 'old'");
    eventually_eq!(b.number("SELECT count(*) FROM items"), 2);
}
