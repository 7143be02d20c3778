//! A database that was copied or restored never speaks under an id whose numbers it could give out twice.

use std::path::Path;

use rowcast_tests::eventually::eventually;
use rowcast_tests::{Cluster, NatsServer, Node, Proxy, eventually_eq};

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

/// All files of a node, the one beside the database, too: what a snapshot of its volume has, or `cp -r`.
fn copy_all(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-rowcast"] {
        let name = |database: &Path| format!("{}{suffix}", database.display());
        std::fs::remove_file(name(to)).ok();
        if Path::new(&name(from)).exists() {
            std::fs::copy(name(from), name(to)).unwrap();
        }
    }
    std::fs::remove_file(format!("{}-shm", to.display())).ok();
}

fn metric(node: &Node, name: &str) -> String {
    let page = node.get("/metrics").map(|(_, page)| page).unwrap_or_default();
    let value = |line: &str| line.strip_prefix(name).map(|value| value.trim().to_owned());
    page.lines().find_map(value).unwrap_or_default()
}

#[test]
fn a_machine_set_back_to_a_snapshot_gets_its_lost_commits_back_under_a_new_id() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('old', 1)");
    cluster.converged();
    a.kill();
    a.close_service();
    let snapshot = cluster.folder().join("snapshot.db");
    copy_all(a.database(), &snapshot);
    a.start();
    a.ready();
    a.sql("INSERT INTO items VALUES ('lost', 1); UPDATE items SET n = 2 WHERE id = 'old'");
    cluster.converged();
    let before = a.status()["node_id"].clone();
    a.kill();
    a.close_service();
    copy_all(&snapshot, a.database());
    a.start();
    eventually("it has a new id", || {
        let status = a.status();
        if status["node_id"] != before && !status["node_id"].is_null() { Ok(()) } else { Err(status.to_string()) }
    });
    a.ready();
    a.sql("UPDATE items SET n = n + 1");
    assert_eq!(cluster.converged()["items"], ["'lost' | 2", "'old' | 3"]);
    numbers_are_given_out_once(&[&a, &b]);
    eventually_eq!(metric(&a, "rowcast_renewed_total"), "1");
    assert!(a.log().contains("restored from an older copy"), "the log says why");
}

#[test]
fn a_restore_that_writes_past_its_old_head_before_anyone_answers_loses_nothing_of_either_side() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b", "c"]);
    let [a, b, c] = cluster.nodes();
    let link = Proxy::to(&nats);
    a.sql("INSERT INTO items VALUES ('old', 1), ('both', 1)");
    cluster.converged();
    assert!(a.stop().success());
    a.close_service();
    let snapshot = cluster.folder().join("snapshot.db");
    copy_all(a.database(), &snapshot);
    a.through(&link.url());
    a.start();
    a.ready();
    a.sql("INSERT INTO items VALUES ('lost', 1); UPDATE items SET n = 2 WHERE id = 'both'");
    cluster.converged();
    let before = a.status()["node_id"].clone();
    a.kill();
    a.close_service();
    link.cut();
    copy_all(&snapshot, a.database());
    a.start();
    for n in 0..3 {
        a.sql(&format!("INSERT INTO items VALUES ('alone {n}', 1); UPDATE items SET n = 3 WHERE id = 'both'"));
        eventually_eq!(a.journal(), Ok(0));
    }
    assert_eq!(a.status()["node_id"], before, "nobody has told it");
    link.heal();
    eventually("it has a new id", || {
        let status = a.status();
        if status["node_id"] != before && !status["node_id"].is_null() { Ok(()) } else { Err(status.to_string()) }
    });
    a.ready();
    let rows = cluster.converged();
    let wanted = ["'alone 0' | 1", "'alone 1' | 1", "'alone 2' | 1", "'both' | 3", "'lost' | 1", "'old' | 1"];
    assert_eq!(rows["items"], wanted);
    numbers_are_given_out_once(&[&a, &b, &c]);
}

#[test]
fn a_live_twin_that_copied_everything_leaves_the_id_and_both_keep_what_they_wrote() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('x', 1)");
    cluster.converged();
    let twin = cluster.add("twin");
    // While it runs. Nothing is being written, so that the files fit each other.
    copy_all(a.database(), twin.database());
    let before = a.status()["node_id"].clone();
    twin.sql("INSERT INTO items VALUES ('twin', 1)");
    twin.start();
    a.sql("INSERT INTO items VALUES ('original', 1)");
    eventually("the twin has a new id", || {
        let status = twin.status();
        if status["node_id"] != before && !status["node_id"].is_null() { Ok(()) } else { Err(status.to_string()) }
    });
    twin.ready();
    a.ready();
    twin.sql("UPDATE items SET n = 2 WHERE id = 'original'");
    assert_eq!(cluster.converged()["items"], ["'original' | 2", "'twin' | 1", "'x' | 1"]);
    assert_eq!(a.status()["node_id"], before, "the one that was there keeps its id");
    numbers_are_given_out_once(&[&a, &b, &twin]);
}

/// The service's own clock notes the time of a write; a trigger that noted nonsense moves no stamp. And no restart does.
#[test]
fn a_far_future_time_of_a_write_stamps_nothing_ahead_and_stamps_grow_over_restarts() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let now = || std::time::UNIX_EPOCH.elapsed().map(|since| i64::try_from(since.as_secs()).unwrap()).unwrap();
    for n in 1..4 {
        a.kill();
        a.sql(&format!(
            "BEGIN IMMEDIATE; INSERT INTO items VALUES ('x', 1) ON CONFLICT DO UPDATE SET n = {n};
             UPDATE _rowcast_journal SET at = 4102444800000; COMMIT"
        ));
        a.start();
        a.ready();
        assert_eq!(cluster.converged()["items"], [format!("'x' | {n}")]);
    }
    let stamps = b.rows("SELECT timestamp FROM items_Events ORDER BY sequence_number");
    let stamps: Vec<i64> = stamps.iter().map(|stamp| stamp.parse().unwrap()).collect();
    assert!(stamps.len() == 3 && stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    assert!(stamps.iter().all(|stamp| stamp >> 31 <= now() + 60), "{stamps:?}");
}
