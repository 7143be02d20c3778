//! Rules of a table on the applying side, from service to service: swaps of UNIQUE values, collisions, rules with a
//! conflict clause of their own, NOT NULL and CHECK.

use rowcast::edge::clock;
use rowcast::flow::apply::Applier;
use rowcast::replica::{Input, Output};
use std::time::Duration;

use super::{Node, a_millisecond_passes, event, layout, layouts, node_id, piece, toml};

/// Hands everything that the nodes say on to the others, until nobody says anything more.
pub(crate) fn exchange(nodes: &mut [Node]) {
    for _ in 0..20 {
        let mut said = Vec::new();
        for node in nodes.iter_mut() {
            node.run();
            let origin = node.replica().node();
            let feeds = node.replica().take_outputs().into_iter().filter_map(|output| match output {
                Output::Feed(frame) => Some((origin, frame)),
                _ => None,
            });
            said.extend(feeds);
        }
        if said.is_empty() {
            return;
        }
        for (origin, frame) in said {
            for node in nodes.iter_mut() {
                if node.replica().node() != origin {
                    let at = node.at();
                    node.replica().handle(Input::Feed { subject: origin, frame: frame.clone().into() }, at);
                }
            }
        }
    }
    panic!("the nodes never come to rest");
}

pub(crate) fn all_have(nodes: &[Node], sql: &str, expected: &str) {
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(node.text(sql).unwrap_or_default(), expected, "node {at}: {sql}");
    }
}

const ROWS: &str = "SELECT id || '=' || coalesce(u, 'null') AS v FROM t ORDER BY id";
const PARKED: &str = "SELECT record_id || ':' || reason AS v FROM _rowcast_parked ORDER BY 1";

fn pair(create: &str) -> [Node; 2] {
    let mut nodes = [(); 2].map(|()| Node::ready(&toml(&["t"]), create));
    exchange(&mut nodes);
    nodes
}

fn legal_moves_replay(create: &str) {
    let mut nodes = pair(create);
    nodes[0].sql("INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)");
    exchange(&mut nodes);
    all_have(&nodes, ROWS, "a=1,b=2,c=3,d=4");
    // A swap, through a value that nobody holds.
    nodes[0].sql("BEGIN; UPDATE t SET u = -1 WHERE id = 'a'; UPDATE t SET u = 1 WHERE id = 'b'; UPDATE t SET u = 2 WHERE id = 'a'; COMMIT;");
    exchange(&mut nodes);
    all_have(&nodes, ROWS, "a=2,b=1,c=3,d=4");
    // A rotation of three, on the other node.
    nodes[1].sql("BEGIN; UPDATE t SET u = -u WHERE id <> 'd'; UPDATE t SET u = -u % 3 + 1 WHERE id <> 'd'; COMMIT;");
    exchange(&mut nodes);
    all_have(&nodes, ROWS, "a=3,b=2,c=1,d=4");
    // Everybody one up, and one down.
    for (by, expected) in [(1, "a=4,b=3,c=2,d=5"), (-1, "a=3,b=2,c=1,d=4")] {
        nodes[0].sql(&format!("BEGIN; UPDATE t SET u = -u; UPDATE t SET u = -u + {by}; COMMIT;"));
        exchange(&mut nodes);
        all_have(&nodes, ROWS, expected);
    }
    all_have(&nodes, PARKED, "");
    all_have(&nodes, "SELECT count(*) AS v FROM t_Events WHERE NOT processed", "0");
}

#[test]
fn swaps_rotations_and_shifts_of_one_transaction_replay() {
    legal_moves_replay("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE);");
}

/// What the table itself says about conflicts is meant for the service's statements.
#[test]
fn so_they_do_where_the_table_declares_what_to_do_on_a_conflict() {
    for clause in ["REPLACE", "IGNORE", "ROLLBACK", "FAIL"] {
        legal_moves_replay(&format!(
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE ON CONFLICT {clause});"
        ));
    }
}

fn collisions_end_alike(create: &str) {
    let mut nodes = pair(create);
    nodes[0].sql("INSERT INTO t VALUES ('a', 1)");
    a_millisecond_passes();
    nodes[1].sql("INSERT INTO t VALUES ('b', 1)");
    exchange(&mut nodes);
    all_have(&nodes, ROWS, "b=1");
    all_have(&nodes, PARKED, "a:unique");
    // A service makes room: the record that waited is back, everywhere.
    nodes[0].sql("UPDATE t SET u = 2 WHERE id = 'b'");
    exchange(&mut nodes);
    all_have(&nodes, ROWS, "a=1,b=2");
    all_have(&nodes, PARKED, "");
}

#[test]
fn the_lesser_of_two_records_leaves_every_node_and_comes_back_when_a_service_makes_room() {
    collisions_end_alike("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE);");
    // The value is one that only SQLite can compute.
    collisions_end_alike(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER, g AS (u % 10) STORED UNIQUE ON CONFLICT ROLLBACK);",
    );
    for clause in ["REPLACE", "IGNORE", "ROLLBACK", "FAIL"] {
        collisions_end_alike(&format!(
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE ON CONFLICT {clause});"
        ));
    }
}

#[test]
fn a_local_write_onto_a_parked_record_supersedes_what_was_parked() {
    let mut nodes = pair("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE);");
    nodes[0].sql("INSERT INTO t VALUES ('a', 1)");
    a_millisecond_passes();
    nodes[1].sql("INSERT INTO t VALUES ('b', 1)");
    exchange(&mut nodes);
    nodes[1].sql("INSERT INTO t VALUES ('a', 5)");
    exchange(&mut nodes);
    all_have(&nodes, ROWS, "a=5,b=1");
    all_have(&nodes, PARKED, "");
    nodes[0].sql("DELETE FROM t WHERE id = 'b'");
    exchange(&mut nodes);
    all_have(&nodes, ROWS, "a=5");
}

/// A evicts B, and what B held goes to C.
#[test]
fn an_eviction_that_makes_room_lets_a_third_one_in() {
    let rows = "SELECT id AS v FROM t ORDER BY id";
    let create = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE, w INTEGER UNIQUE);";
    let mut nodes = [(); 3].map(|()| Node::ready(&toml(&["t"]), create));
    exchange(&mut nodes);
    nodes[2].sql("INSERT INTO t VALUES ('c', NULL, 1)");
    a_millisecond_passes();
    nodes[1].sql("INSERT INTO t VALUES ('b', 1, 1)");
    exchange(&mut nodes[1..]);
    all_have(&nodes[1..], rows, "b");
    a_millisecond_passes();
    nodes[0].sql("INSERT INTO t VALUES ('a', 1, NULL)");
    exchange_from_the_start(&mut nodes);
    all_have(&nodes, rows, "a,c");
    all_have(&nodes, PARKED, "b:unique");
}

/// As [`exchange`], after some of the nodes were kept apart: what they said then is taken from their events.
fn exchange_from_the_start(nodes: &mut [Node]) {
    nodes.iter_mut().for_each(Node::run);
    let pages: Vec<_> = nodes
        .iter_mut()
        .map(|node| {
            let origin = node.replica().node();
            let store = node.replica().store();
            (origin, store.events(origin, 1, store.durable().vector.of(origin)).unwrap())
        })
        .collect();
    for (origin, page) in pages {
        for node in nodes.iter_mut().filter_map(|node| (node.replica().node() != origin).then_some(node)) {
            node.feed(origin, page.pieces.clone(), page.layouts.clone());
        }
    }
    exchange(nodes);
}

/// An older event of another layout adds a column to a record that is kept out: it stays out.
#[test]
fn an_older_event_with_other_columns_does_not_bring_a_parked_record_back() {
    let mut node =
        Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE, a TEXT);");
    let mut store = node.store();
    let (old, new) = (layout("t", &["id", "u", "a"]), layout("t", &["id", "u"]));
    let base = clock::now();
    let at = |millis| base.plus(Duration::from_millis(millis));
    let known = layouts(&[&old, &new]);
    let said = [
        (7, event(&new, "y", Some(r#"{"id":"y","u":1}"#), at(30))),
        (8, event(&new, "x", Some(r#"{"id":"x","u":1}"#), at(20))),
        (9, event(&old, "x", Some(r#"{"id":"x","u":2,"a":"kept"}"#), at(10))),
    ];
    for (origin, event) in said {
        store
            .write(|tx| {
                let mut applier = Applier::new(tx, at(100));
                applier.group(node_id(origin), &piece(1, 1, vec![event]), &known)?;
                applier.finish()
            })
            .unwrap();
    }
    let text = |sql: &str| node.service.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap();
    assert_eq!(text("SELECT group_concat(id || u) FROM t").as_deref(), Some("y1"));
    assert_eq!(store.durable().parked, 1);
    let gone = event(&new, "y", None, at(40));
    store
        .write(|tx| {
            let mut applier = Applier::new(tx, at(100));
            applier.group(node_id(7), &piece(2, 2, vec![gone]), &known)?;
            applier.finish()
        })
        .unwrap();
    assert_eq!(
        text("SELECT group_concat(id || u || a) FROM t").as_deref(),
        Some("x1kept"),
        "all its columns come back"
    );
    assert_eq!(store.durable().parked, 0);
}

/// What the table's rules forbid is parked, and the record stays what the event before it says, in every order.
#[test]
fn what_not_null_or_check_forbids_is_parked_and_the_rest_ends_alike_in_every_order() {
    let create = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER NOT NULL CHECK (u < 10) UNIQUE);";
    let shape = layout("t", &["id", "u"]);
    let base = clock::now();
    let said: Vec<_> = [("x", "1"), ("x", "null"), ("y", "1"), ("x", "99")]
        .iter()
        .zip(0..)
        .map(|((id, u), at)| {
            event(&shape, id, Some(&format!(r#"{{"id":"{id}","u":{u}}}"#)), base.plus(Duration::from_millis(at)))
        })
        .collect();
    for order in super::unique::orders(said.len()) {
        let mut node = Node::ready(&toml(&["t"]), create);
        let mut store = node.store();
        for &at in &order {
            let one = piece(1, 1, vec![said[at].clone()]);
            store
                .write(|tx| {
                    let mut applier = Applier::new(tx, base);
                    applier.group(node_id(at as u128 + 7), &one, &layouts(&[&shape]))?;
                    applier.finish()
                })
                .unwrap();
        }
        let text = |sql: &str| node.service.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap();
        assert_eq!(text("SELECT group_concat(id || u) FROM t").as_deref(), Some("y1"), "{order:?}");
        let parked = "SELECT group_concat(v, ',') FROM (SELECT substr(event, 36, 1) || ':' || reason AS v FROM _rowcast_parked ORDER BY 1)";
        assert_eq!(text(parked).as_deref(), Some("7:unique,8:constraint,a:constraint"), "{order:?}");
    }
}

/// An expression or a predicate compares with the collations and affinities of the columns, in the new row as in those that
/// are there.
#[test]
fn a_value_that_an_index_sees_by_a_collation_or_an_affinity_has_one_holder_on_all_nodes() {
    let indexes =
        ["email) WHERE status = 'active'", "CASE WHEN status = 'ACTIVE' THEN email END", "email) WHERE flag = '1'"];
    for index in indexes {
        let end = if index.contains(')') { "" } else { ")" };
        let mut nodes = pair(&format!(
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u TEXT GENERATED ALWAYS AS (status), email TEXT, flag INTEGER,
                            status TEXT COLLATE NOCASE);
             CREATE UNIQUE INDEX i ON t({index}{end};"
        ));
        nodes[0].sql("INSERT INTO t(id, email, flag, status) VALUES ('lesser', 'e', 1, 'active')");
        nodes[0].run();
        a_millisecond_passes();
        nodes[1].sql("INSERT INTO t(id, email, flag, status) VALUES ('greater', 'e', 1, 'Active')");
        exchange(&mut nodes);
        all_have(&nodes, ROWS, "greater=Active");
        all_have(&nodes, PARKED, "lesser:unique");
    }
}
