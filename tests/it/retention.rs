//! What is kept of the past, with real processes: files do not grow for ever, and a node that is gone is retired.

use rowcast_tests::{Cluster, NatsServer, binary, eventually};

const ITEMS: &str = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n, body);";
const LATEST: &str = "service = \"story\"\n[tables.items]\nhistory = \"latest\"\n";

const USED: &str = "SELECT sum(pgsize) FROM dbstat WHERE name NOT LIKE '%_rowcast_conflicts%'";
// All but the rows, their events and the conflicts.
const BOOKS: &str =
    "SELECT sum(pgsize) FROM dbstat WHERE name NOT LIKE '%items%' AND name NOT LIKE '%_rowcast_conflicts%'";
const BYTES: &str = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";

#[test]
fn under_churn_with_the_latest_history_the_files_stay_bounded() {
    let nats = NatsServer::start();
    let cluster = Cluster::declared(&nats, ITEMS, LATEST, ["a", "b", "c"]);
    let nodes: [_; 3] = cluster.nodes();
    // Most of a row lies in pages of its own: how full the shared ones are comes and goes with the order of the writes.
    nodes[0].sql(
        "WITH RECURSIVE row(at) AS (SELECT 0 UNION ALL SELECT at + 1 FROM row WHERE at < 89)
         INSERT INTO items SELECT 'i' || at, 0, hex(randomblob(4000)) FROM row",
    );
    cluster.converged();
    // After each round: bytes in use, of the file, and of the bookkeeping.
    let mut bytes = Vec::new();
    for round in 0..5 {
        for step in 0..300 {
            let node = &nodes[step % 3];
            // Each node has rows of its own, and makes and deletes others.
            node.transaction(&format!(
                "UPDATE items SET n = {step}, body = hex(randomblob(4000)) WHERE rowid % 3 = {} AND rowid % 10 = {};
                 INSERT INTO items VALUES ('x{round}-{step}', 0, hex(randomblob(4000)));
                 DELETE FROM items WHERE id = 'x{round}-{}'",
                step % 3,
                step % 10,
                step.saturating_sub(6)
            ));
        }
        for node in &nodes {
            node.sql("DELETE FROM items WHERE id LIKE 'x%'");
        }
        cluster.converged();
        for node in &nodes {
            // Deletes of one row on several nodes meet: what is left is what rows come from.
            eventually!(node.number("SELECT count(*) FROM items_Events") == node.number("SELECT count(*) FROM items"));
        }
        let most = |sql: &str| nodes.iter().map(|node| node.number(sql)).max().unwrap();
        bytes.push((most(USED), most(BYTES), most(BOOKS)));
    }
    // What is in use is what it was; the last conflicts are kept beside it. The file is as large as it had to be for what waited
    // to be compacted at a time: the first round, which makes it, is not the measure.
    let ((used, file, books), (used_last, file_last, books_last)) = (bytes[1], bytes[4]);
    assert!(used_last * 20 <= used.min(bytes[0].0) * 21, "{bytes:?}");
    assert!(books_last <= books.max(bytes[0].2) + 4_096, "{bytes:?}");
    assert!(file_last * 10 <= file * 13, "{bytes:?}");
    assert!(file_last <= bytes[0].1 * 2, "{bytes:?}");
    assert!(nodes.iter().all(|node| node.number("SELECT count(*) FROM _rowcast_contexts") < 1000));
    cluster.sound_with_references();
}

#[test]
fn a_node_that_is_gone_is_retired_by_the_operator_and_comes_back_as_another() {
    let nats = NatsServer::start();
    let cluster = Cluster::declared(&nats, ITEMS, LATEST, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('deleted', 1, ''), ('kept', 1, '')");
    cluster.converged();
    let old_id = b.status()["node_id"].clone();
    b.kill();
    b.sql("UPDATE items SET n = 2; INSERT INTO items VALUES ('new', 2, '')");
    a.sql("DELETE FROM items WHERE id = 'deleted'");
    eventually!(a.status()["warnings"].to_string().contains("members are heard"));
    assert!(a.number("SELECT count(*) FROM items_Events") >= 3);
    for (command, told) in
        [(&["list"][..], "member, heard last"), (&["expel", "b"], "is expelled"), (&["list"], "expelled, heard")]
    {
        let mut members = binary::command();
        members.arg("members").arg(command[0]).arg("--database").arg(a.database()).args(&command[1..]);
        let said = binary::outcome("rowcast members", members).well();
        assert!(said.contains(told), "{said}");
    }
    eventually!(a.number("SELECT count(*) FROM items_Events") == 1);
    b.start();
    eventually!(b.is_ready() && b.status()["node_id"] != old_id);
    cluster.converged();
    for node in [&a, &b] {
        assert_eq!(node.rows("SELECT id, n FROM items ORDER BY id"), ["'kept' | 2", "'new' | 2"]);
    }
}
