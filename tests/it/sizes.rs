//! Rows larger than a message, transactions larger than memory should be: they arrive, and no node grows with them.

use rowcast_tests::{Cluster, NatsServer, eventually, eventually_eq};

const FILES: &str = "CREATE TABLE files(id TEXT NOT NULL PRIMARY KEY, body BLOB, note TEXT)";

/// Mebibytes that a sidecar may take in a debug build, whatever waits for it.
const MEMORY_MAX: u64 = 150;

#[test]
fn a_row_larger_than_a_message_arrives_live_and_by_a_fetch() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, FILES, ["a", "b"]);
    let [a, b] = cluster.nodes();
    // nats-server takes 1 MiB; JSON makes a blob a third longer.
    a.sql("INSERT INTO files VALUES ('live', randomblob(6000000), printf('%.*c', 3000000, 'ä'))");
    eventually_eq!(b.rows("SELECT * FROM files WHERE id = 'live'"), a.rows("SELECT * FROM files WHERE id = 'live'"));
    assert!(b.stop().success());
    a.sql("INSERT INTO files VALUES ('meanwhile', randomblob(5000000), NULL); UPDATE files SET note = 'short' WHERE id = 'live'");
    b.start();
    b.ready();
    assert_eq!(cluster.converged()["files"].len(), 2);
    let mut cluster = cluster;
    let late = cluster.add("late");
    late.start();
    late.ready();
    cluster.converged();
}

#[test]
fn a_transaction_of_many_megabytes_arrives_whole_and_no_sidecar_grows_with_it() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, FILES, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let many =
        "WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 800) SELECT value FROM s";
    a.sql(&format!("INSERT INTO files SELECT 'f' || value, randomblob(30000), NULL FROM ({many})"));
    let count = || b.number("SELECT count(*) FROM files");
    eventually!({
        let seen = count();
        assert!(seen == 0 || seen == 800, "{seen} of 800 rows were seen");
        seen == 800
    });
    assert!(b.stop().success());
    a.sql("UPDATE files SET note = 'changed'");
    b.start();
    b.ready();
    cluster.converged();
    for node in [&a, &b] {
        let peak = node.peak_memory_mib();
        println!("{} took {peak} MiB at most", node.name());
        assert!(peak < MEMORY_MAX, "{} took {peak} MiB", node.name());
    }
}
