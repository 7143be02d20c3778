//! A row that is damaged on one node is found, told and mended; an operator can look for it, too.

use std::process::Command;

use rowcast_tests::eventually::eventually;
use rowcast_tests::{Cluster, NatsServer, Node, binary, eventually, eventually_eq};
use rusqlite::config::DbConfig;
use serde_json::Value as Json;

const TRACKS: &str = "CREATE TABLE tracks(id TEXT NOT NULL PRIMARY KEY, title TEXT, seconds INTEGER);
     WITH RECURSIVE i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < 2000)
     INSERT INTO tracks SELECT printf('t%05d', x), 'title ' || x, x FROM i";

/// As a damaged page does it, or a tool with triggers switched off.
fn damage(node: &Node, sql: &str) {
    let connection = node.service();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn metric(node: &Node, name: &str) -> Option<f64> {
    let (_, page) = node.get("/metrics")?;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// How many comparisons by the interval the node has ended, by the time of the last one.
fn last_ended(node: &Node) -> i64 {
    node.status()["verification"]["last"]["ended_at"].as_i64().unwrap_or(0)
}

#[test]
fn of_ten_nodes_one_with_one_damaged_row_finds_it_at_its_next_comparison_and_all_are_equal_again() {
    let nats = NatsServer::start();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let cluster = Cluster::prepare(&nats, TRACKS, names);
    let nodes: [_; 10] = cluster.nodes();
    nodes.iter().for_each(|node| node.set("VERIFY_INTERVAL", "2s"));
    let cluster = cluster.started();
    let whole = cluster.converged();
    let damaged = &nodes[6];
    // Its triggers are proved to have been there since the comparison at its start.
    eventually!(last_ended(damaged) > 0);
    damage(damaged, "UPDATE tracks SET title = 'damaged' WHERE id = 't01234'");
    eventually_eq!(metric(damaged, "rowcast_repaired_total"), Some(1.0));
    assert_eq!(cluster.converged(), whole);
    let log = damaged.log();
    assert!(log.contains("a record diverges") && log.contains("t01234"), "{log}");
    let kept = damaged.rows("SELECT table_name, record_id, what, found FROM _rowcast_mended");
    assert_eq!(kept, [r#"'tracks' | 't01234' | 'row' | '{\"id\":\"t01234\",\"title\":\"damaged\",\"seconds\":1234}'"#]);
    assert_eq!(metric(damaged, "rowcast_diverged_records"), Some(0.0));
    for node in &nodes {
        assert!(node.is_ready(), "{}", node.name());
        if node.name() != damaged.name() {
            assert_eq!(metric(node, "rowcast_repaired_total"), Some(0.0), "{} mended what was whole", node.name());
        }
    }
}

fn verify(node: &Node, more: &[&str]) -> (Option<i32>, String) {
    let mut command: Command = binary::command();
    command.args(["verify", "--http", &format!("127.0.0.1:{}", node.http_port())]).args(more);
    let output = command.output().unwrap();
    // How far it is, every five seconds: on a loaded machine it takes so long.
    let beside = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(beside.lines().all(|line| line.starts_with("comparing table ")), "{beside}");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn an_operator_looks_for_what_diverges_while_the_service_writes_and_has_it_mended() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, TRACKS, ["a", "b", "c"]);
    let [a, b, c] = cluster.nodes();
    [&a, &b, &c].iter().for_each(|node| node.set("VERIFY_INTERVAL", "0s"));
    let cluster = cluster.started();
    let whole = cluster.converged();
    eventually("all see all READY", || {
        let (code, text) = verify(&b, &["--table", "tracks"]);
        if code == Some(0) && text.contains("compared with a, c") { Ok(()) } else { Err(text) }
    });
    damage(&b, "UPDATE tracks SET seconds = -1 WHERE id = 't00001'; DELETE FROM tracks WHERE id = 't02000'");
    let (code, text) = verify(&b, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("DIVERGENT  2 records, 0 repaired here\n"), "{text}");
    for part in ["tracks t00001: the row is not what its events say", "tracks t02000: the row is missing", "--repair"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(b.readyz().1["reasons"][0]["code"], "diverged");
    // From another node it is seen, too, and left to the one that is damaged.
    let (code, text) = verify(&a, &["--repair", "--json"]);
    let report: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["found"][0]["member"]), (Some(1), &Json::from("b")), "{text}");
    assert_eq!(report["tables"][0]["repaired"], 0);
    let (code, text) = verify(&b, &["--repair"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("DIVERGENT  2 records, 2 repaired here\n"), "{text}");
    assert_eq!(cluster.converged(), whole);
    // While everything is written to, and positions differ, nothing diverges.
    std::thread::scope(|scope| {
        let writers = [&a, &b, &c].map(|node| {
            scope.spawn(move || {
                for at in 0..300 {
                    node.sql(&format!(
                        "UPDATE tracks SET title = '{} {at}' WHERE seconds % 100 = {}",
                        node.name(),
                        at % 7
                    ));
                }
            })
        });
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let (code, text) = verify(&c, &[]);
            assert_eq!(code, Some(0), "{text}");
        }
    });
    cluster.converged();
    assert_eq!(verify(&c, &["--json"]).0, Some(0));
    let (code, text) = verify(&c, &["--table", "nothing"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no table of that name"), "{text}");
}
