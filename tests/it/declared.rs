//! What the declaration leaves out stays at home.

use rowcast_tests::{Cluster, NatsServer, eventually_eq};

const SQL: &str = "
CREATE TABLE devices(id TEXT NOT NULL PRIMARY KEY, name TEXT, local_note TEXT DEFAULT 'none', seen INTEGER);
CREATE TABLE sessions(id TEXT NOT NULL PRIMARY KEY, user TEXT);
CREATE TABLE undeclared(id TEXT NOT NULL PRIMARY KEY, v TEXT);
INSERT INTO devices VALUES ('d1', 'one', 'of a', 1);
INSERT INTO sessions VALUES ('s', 'ann');
INSERT INTO undeclared VALUES ('u', 'here');";

const DECLARED: &str = "service = \"story\"
[tables.devices]
exclude = [\"local_note\"]
[tables.sessions]
enabled = false
";

#[test]
fn an_excluded_column_is_each_nodes_own() {
    let nats = NatsServer::start();
    let cluster =
        Cluster::prepare_declared(&nats, SQL, DECLARED, ["a", "b"]).ignoring(&["devices.local_note"]).started();
    let [a, b] = cluster.nodes();
    assert_eq!(b.rows("SELECT * FROM devices"), ["'d1' | 'one' | 'none' | 1"]);
    b.sql("UPDATE devices SET local_note = 'of b'");
    a.sql("UPDATE devices SET name = 'uno'");
    eventually_eq!(b.rows("SELECT * FROM devices"), ["'d1' | 'uno' | 'of b' | 1"]);
    b.sql("UPDATE devices SET seen = 2, local_note = 'still of b'");
    eventually_eq!(a.rows("SELECT * FROM devices"), ["'d1' | 'uno' | 'of a' | 2"]);
    cluster.converged();
    // A change of nothing but that column is no event at all.
    assert_eq!(a.number("SELECT count(*) FROM devices_Events"), 3);
    assert_eq!(a.number("SELECT count(*) FROM devices_Events WHERE data LIKE '%of b%' OR data LIKE '%of a%'"), 0);
    a.sql("INSERT OR REPLACE INTO devices VALUES ('d1', 'anew', 'own', 3), ('d2', 'two', 'own', 1)");
    eventually_eq!(
        b.rows("SELECT * FROM devices ORDER BY id"),
        ["'d1' | 'anew' | 'still of b' | 3", "'d2' | 'two' | 'none' | 1"]
    );
}

#[test]
fn two_services_on_one_nats_server_keep_apart() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER)";
    let music = Cluster::declared(&nats, sql, "service = \"music\"\n[tables.items]\n", ["a", "b"]);
    let film = Cluster::declared(&nats, sql, "service = \"music-film\"\n[tables.items]\n", ["a", "b"]);
    for (cluster, row) in [(&music, "'music' | 1"), (&film, "'film' | 2")] {
        let [a, _] = cluster.nodes();
        a.sql(&format!("INSERT INTO items VALUES ({})", row.replace(" |", ",")));
        assert_eq!(cluster.converged()["items"], [row]);
    }
    for cluster in [&music, &film] {
        assert_eq!(cluster.converged()["items"].len(), 1);
        for node in cluster.nodes::<2>() {
            // The page may be a moment older than the rows.
            eventually_eq!(node.status()["members"].as_array().map(Vec::len), Some(1));
        }
    }
}

#[test]
fn tables_that_are_not_declared_or_not_enabled_stay_where_they_are() {
    let nats = NatsServer::start();
    let cluster =
        Cluster::prepare_declared(&nats, SQL, DECLARED, ["a", "b"]).ignoring(&["devices.local_note"]).started();
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO sessions VALUES ('t', 'bob'); UPDATE undeclared SET v = 'changed'; INSERT INTO devices(id) VALUES ('d2')");
    cluster.converged();
    for node in [&a, &b] {
        let own = "SELECT name FROM sqlite_master WHERE name LIKE 'sessions#_%' ESCAPE '#' OR name LIKE 'undeclared#_%' ESCAPE '#'";
        assert_eq!(node.rows(own), [""; 0], "nothing of Rowcast's on {}", node.name());
    }
    let rows = "SELECT (SELECT count(*) FROM sqlite_master WHERE name = 'sessions')";
    assert_eq!(a.rows("SELECT * FROM sessions"), ["'s' | 'ann'", "'t' | 'bob'"]);
    // The other node need not have the table at all; if it has, its rows are not those of the first.
    if b.rows(rows) == ["1"] {
        assert_eq!(b.number("SELECT count(*) FROM sessions"), 0);
    }
}
