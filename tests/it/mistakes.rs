//! What other replicators of SQLite were seen to get wrong, each as a promise.

use std::thread;
use std::time::{Duration, Instant};

use rowcast_tests::{Cluster, NatsServer, Node, eventually, eventually_eq};

#[test]
fn two_thousand_increments_on_one_node_end_at_two_thousand_on_both_and_never_go_back() {
    let nats = NatsServer::start();
    let sql =
        "CREATE TABLE counters(id TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL); INSERT INTO counters VALUES ('c', 0)";
    let cluster = Cluster::start(&nats, sql, ["a", "b"]);
    let [a, b] = cluster.nodes();
    thread::scope(|scope| {
        let watchers = [&a, &b].map(|node| scope.spawn(|| never_goes_back(node)));
        let service = a.service();
        let start = Instant::now();
        for step in 1..=2_000 {
            service.execute("UPDATE counters SET n = n + 1 WHERE id = 'c'", []).unwrap();
            // A thousand a second.
            thread::sleep(Duration::from_millis(step).saturating_sub(start.elapsed()));
        }
        for watcher in watchers {
            watcher.join().unwrap();
        }
    });
    let rows = cluster.converged();
    assert_eq!(rows["counters"], ["'c' | 2000"]);
    // Every step was an event, and every one of them arrived.
    for node in [&a, &b] {
        let sql = "SELECT count(*) FROM counters_Events WHERE operation_type = 'UPDATE'";
        assert_eq!(node.number(sql), 2_000, "{}", node.name());
    }
}

fn never_goes_back(node: &Node) {
    let service = node.service();
    let mut last = 0;
    eventually!({
        let n: i64 = service.query_row("SELECT n FROM counters", [], |row| row.get(0)).unwrap();
        assert!(n >= last, "{} went back from {last} to {n}", node.name());
        last = n;
        n == 2_000
    });
}

#[test]
fn datetime_and_boolean_columns_keep_whatever_is_in_them() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE odd(id INTEGER NOT NULL PRIMARY KEY, d DATETIME, b BOOLEAN, t TIMESTAMP, j JSON)";
    let cluster = Cluster::start(&nats, sql, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let odd = [
        "NULL",
        "'2024-01-02 03:04:05'",
        "'2024-01-02T03:04:05Z'",
        "1704164645",
        "1.5",
        "'yesterday'",
        "''",
        "'true'",
        "TRUE",
        "2",
        "-1",
        "'0'",
        "'1'",
        "x'00'",
        "' 12 '",
        "'1e3'",
        "'0x10'",
        "'12:00'",
        "9e999",
        "CAST(x'ff' AS TEXT)",
        "'{\"a\": 1.0}'",
    ];
    for (at, value) in odd.iter().enumerate() {
        let author = if at % 2 == 0 { &a } else { &b };
        author.sql(&format!("INSERT INTO odd VALUES ({at}, {value}, {value}, {value}, {value})"));
    }
    let alone = rusqlite::Connection::open_in_memory().unwrap();
    alone.execute_batch(sql).unwrap();
    for (at, value) in odd.iter().enumerate() {
        alone.execute_batch(&format!("INSERT INTO odd VALUES ({at}, {value}, {value}, {value}, {value})")).unwrap();
    }
    let expected = rowcast_tests::rows::query(&alone, "SELECT * FROM odd ORDER BY id").unwrap();
    for node in [&a, &b] {
        eventually_eq!(node.rows("SELECT * FROM odd ORDER BY id"), expected);
    }
    // An update of one column leaves the others as they are, on every node.
    a.sql("UPDATE odd SET j = 'new'");
    let others = "SELECT id, d, b, t FROM odd ORDER BY id";
    let before = a.rows(others);
    cluster.converged();
    assert_eq!(a.rows(others), before);
    assert_eq!(b.rows("SELECT DISTINCT j FROM odd"), ["'new'"]);
}

#[test]
fn text_that_is_not_utf8_is_carried_and_kills_nobody_not_at_a_restart_either() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE texts(id TEXT NOT NULL PRIMARY KEY, t TEXT)";
    let cluster = Cluster::start(&nats, sql, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO texts VALUES ('1', CAST(x'ff' AS TEXT)), ('2', CAST(x'61c328' AS TEXT)), ('3', 'a' || char(0) || CAST(x'80' AS TEXT)),
           (CAST(x'fe' AS TEXT), 'in the key'), ('k' || char(0), 'NUL in the key')");
    cluster.converged();
    b.sql("UPDATE texts SET t = t || CAST(x'c0' AS TEXT); DELETE FROM texts WHERE id = CAST(x'fe' AS TEXT)");
    let rows = cluster.converged();
    assert_eq!(rows["texts"].len(), 4);
    for node in [&a, &b] {
        assert!(node.alive());
        node.restart();
        node.ready();
    }
    b.sql("INSERT INTO texts VALUES ('after', CAST(x'ff' AS TEXT))");
    assert_eq!(cluster.converged()["texts"].len(), 5);
}

#[test]
fn deletes_on_one_node_against_updates_of_the_same_rows_on_another_converge() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE rows(id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL);
      INSERT INTO rows SELECT value, 0 FROM (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 400) SELECT value FROM s)";
    let cluster = Cluster::start(&nats, sql, ["a", "b", "c"]);
    let [a, b, c] = cluster.nodes();
    thread::scope(|scope| {
        scope.spawn(|| (1..=200).for_each(|id| a.sql(&format!("DELETE FROM rows WHERE id = {id}"))));
        scope.spawn(|| (1..=400).for_each(|id| b.sql(&format!("UPDATE rows SET n = n + 1 WHERE id = {id}"))));
    });
    let rows = cluster.converged();
    // The rows that only one node wrote are as it wrote them; of the others each is gone, or updated: never as before.
    assert_eq!(c.number("SELECT count(*) FROM rows WHERE id > 200 AND n = 1"), 200);
    assert_eq!(c.number("SELECT count(*) FROM rows WHERE n <> 1"), 0, "{:?}", rows["rows"]);
    // Neither side's word was lost: every delete and every update is an event on every node.
    for node in [&a, &b, &c] {
        assert_eq!(
            node.number("SELECT count(*) FROM rows_Events WHERE operation_type = 'DELETE'"),
            200,
            "{}",
            node.name()
        );
        let updates = node.number(
            "SELECT count(*) FROM rows_Events WHERE operation_type <> 'DELETE' AND json_extract(data, '$.n') = 1",
        );
        let made = node.number("SELECT count(*) FROM rows WHERE n = 1");
        assert!(updates >= made && updates <= 400, "{}: {updates} updates, {made} rows", node.name());
    }
    // And the last word holds: a delete after everything has arrived removes the row everywhere.
    a.sql("DELETE FROM rows");
    assert!(cluster.converged()["rows"].is_empty());
}

#[test]
fn a_delete_that_has_seen_an_update_wins_over_it() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE rows(id INTEGER NOT NULL PRIMARY KEY, n INTEGER)";
    let cluster = Cluster::start(&nats, sql, ["a", "b"]);
    let [a, b] = cluster.nodes();
    for round in 0..30 {
        a.sql(&format!("INSERT INTO rows VALUES ({round}, 1)"));
        eventually_eq!(b.number("SELECT count(*) FROM rows"), 1);
        b.sql(&format!("UPDATE rows SET n = 2 WHERE id = {round}"));
        eventually_eq!(a.number("SELECT n FROM rows"), 2);
        a.sql("DELETE FROM rows");
        eventually_eq!(b.number("SELECT count(*) FROM rows"), 0);
    }
    assert!(cluster.converged()["rows"].is_empty());
}

#[test]
fn a_column_added_while_running_loses_nothing_and_is_replicated_once_both_have_it() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER); INSERT INTO items VALUES ('old', 1)";
    let cluster = Cluster::start(&nats, sql, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("ALTER TABLE items ADD COLUMN note TEXT DEFAULT 'none'");
    a.sql("INSERT INTO items VALUES ('new', 2, 'with a note')");
    a.sql("UPDATE items SET note = 'noted' WHERE id = 'old'");
    // The writer keeps what it wrote; the other node, whose table has no such column yet, takes the rest.
    eventually_eq!(b.rows("SELECT * FROM items ORDER BY id"), ["'new' | 2", "'old' | 1"]);
    assert_eq!(a.rows("SELECT * FROM items ORDER BY id"), ["'new' | 2 | 'with a note'", "'old' | 1 | 'noted'"]);
    for note in ["with a note", "noted"] {
        let known = format!("SELECT count(*) FROM items_Events WHERE json_extract(data, '$.note') = '{note}'");
        eventually_eq!(b.number(&known), 1);
    }
    // The old table's writes go on meanwhile, and erase nothing of the column they do not know.
    b.sql("UPDATE items SET n = 20 WHERE id = 'new'");
    eventually_eq!(a.rows("SELECT * FROM items ORDER BY id"), ["'new' | 20 | 'with a note'", "'old' | 1 | 'noted'"]);
    // Then the other node is migrated, too.
    b.sql("ALTER TABLE items ADD COLUMN note TEXT DEFAULT 'none'");
    let expected = ["'new' | 20 | 'with a note'", "'old' | 1 | 'noted'"];
    eventually_eq!(b.rows("SELECT * FROM items ORDER BY id"), expected);
    b.sql("UPDATE items SET note = 'from b' WHERE id = 'old'");
    eventually_eq!(a.rows("SELECT note FROM items WHERE id = 'old'"), ["'from b'"]);
    for node in [&a, &b] {
        node.restart();
        node.ready();
        node.sql(&format!("INSERT INTO items VALUES ('after {0}', 3, 'and {0}')", node.name()));
    }
    assert_eq!(cluster.converged()["items"].len(), 4);
}

#[test]
fn a_table_rebuilt_under_its_name_goes_on_being_replicated() {
    let nats = NatsServer::start();
    let sql =
        "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER); INSERT INTO items VALUES ('x', 1), ('y', 2)";
    let cluster = Cluster::start(&nats, sql, ["a", "b"]);
    let [a, b] = cluster.nodes();
    // The way of SQLite's own documentation. It drops every trigger of the table, and no error tells.
    a.transaction(
        "CREATE TABLE items_new(id TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0);
         INSERT INTO items_new SELECT id, n * 10 FROM items; DROP TABLE items; ALTER TABLE items_new RENAME TO items",
    );
    a.sql("INSERT INTO items VALUES ('z', 3); UPDATE items SET n = 11 WHERE id = 'x'");
    eventually_eq!(b.rows("SELECT * FROM items ORDER BY id"), ["'x' | 11", "'y' | 20", "'z' | 3"]);
    a.sql("VACUUM");
    a.sql("DELETE FROM items WHERE id = 'y'");
    b.sql("INSERT INTO items VALUES ('w', 0)");
    assert_eq!(cluster.converged()["items"], ["'w' | 0", "'x' | 11", "'z' | 3"]);
}

#[test]
fn two_records_that_claim_one_unique_value_converge_and_the_loser_comes_back_when_it_is_free() {
    // However the value comes about: written, computed by SQLite, or by the index itself.
    one_claim_is_parked("email TEXT UNIQUE", "");
    one_claim_is_parked("email TEXT, name TEXT AS (substr(email, 1, 3)) UNIQUE", "");
    one_claim_is_parked(
        "email TEXT, name TEXT AS (upper(email)) STORED",
        "CREATE UNIQUE INDEX names ON users(lower(name)) WHERE name <> ''",
    );
}

fn one_claim_is_parked(columns: &str, index: &str) {
    let nats = NatsServer::start();
    let sql = format!("CREATE TABLE users(id TEXT NOT NULL PRIMARY KEY, {columns}); {index}");
    let cluster = Cluster::start(&nats, &sql, ["a", "b", "c"]);
    let [a, b, c] = cluster.nodes();
    nats.stop();
    a.sql("INSERT INTO users(id, email) VALUES ('1', 'same@x')");
    thread::sleep(Duration::from_millis(20));
    b.sql("INSERT INTO users(id, email) VALUES ('2', 'same@x')");
    nats.restart();
    for node in [&a, &b, &c] {
        // The later claim holds the value, on its rival's own node, too.
        eventually_eq!(node.rows("SELECT id, email FROM users"), ["'2' | 'same@x'"]);
        eventually_eq!(node.number("SELECT count(*) FROM users_Events WHERE processed = 0"), 1);
        assert_eq!(node.number("SELECT count(*) FROM _rowcast_parked"), 1, "it is parked, and visible");
    }
    c.sql("UPDATE users SET email = 'other@x' WHERE id = '2'");
    for node in [&a, &b, &c] {
        eventually_eq!(node.rows("SELECT id, email FROM users ORDER BY id"), ["'1' | 'same@x'", "'2' | 'other@x'"]);
    }
    cluster.converged();
}
