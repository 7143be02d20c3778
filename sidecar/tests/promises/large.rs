//! A row that is too large to travel.

use std::time::Duration;

use rowcast::edge::clock;
use rowcast::edge::store::operator;
use rowcast::limits;

use super::cluster::Cluster;
use super::{Node, event, layout, node_id, piece, toml};

/// It stays where it was written, whatever compares it there; the record is on the others what it was; both say so; and
/// everything behind it arrives.
#[test]
fn a_row_that_is_too_large_to_travel_stays_on_its_node_and_keeps_nothing_else_waiting() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    cluster.nodes[0].sql("INSERT INTO t VALUES ('grows', 'small')");
    cluster.settle();
    let bytes = limits::ROW_BYTES_MAX;
    cluster.nodes[0].sql(&format!("UPDATE t SET a = printf('%.*c', {bytes}, 'x'); INSERT INTO t VALUES ('next', '1')"));
    cluster.settle();
    cluster.nodes[1].sql("INSERT INTO t VALUES ('other', '1')");
    cluster.settle();
    let lengths = "SELECT id || length(a) AS v FROM t ORDER BY id";
    let here = format!("grows{bytes},next1,other1");
    assert_eq!(cluster.nodes[0].text(lengths).unwrap(), here);
    assert_eq!(cluster.nodes[1].text(lengths).unwrap(), "grows5,next1,other1");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "size");
    for node in &cluster.nodes {
        let (rows, _) = operator::parked(&node.path(), 10).unwrap();
        assert!(rows[0].detail.contains("more than the"), "{rows:?}");
    }
    // A start, a comparison with its own events and with the other node, a migration.
    cluster.nodes[0].verify_interval = Duration::from_secs(1);
    cluster.nodes[0].start(false);
    cluster.nodes[0].sql("ALTER TABLE t ADD COLUMN b");
    cluster.settle();
    assert_eq!(cluster.nodes[0].text(lengths).unwrap(), here);
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "size");
    // The next word of its record ends it.
    cluster.nodes[0].sql("UPDATE t SET a = 'small again' WHERE id = 'grows'");
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", "growssmall again,next1,other1");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}

/// An older word of another node comes after it: what the row says is nowhere else. A later one supersedes it.
#[test]
fn a_row_that_is_too_large_to_travel_is_not_overwritten_by_an_older_event() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    node.sql("INSERT INTO t VALUES ('grows', 'small')");
    node.run();
    let bytes = limits::ROW_BYTES_MAX;
    let before = clock::now();
    node.sql(&format!("UPDATE t SET a = printf('%.*c', {bytes}, 'x')"));
    node.run();
    let shape = layout("t", &["id", "a"]);
    let said = |a: &str, at| event(&shape, "grows", Some(&format!(r#"{{"id":"grows","a":"{a}"}}"#)), at);
    let length = "SELECT length(a) AS v FROM t";
    node.feed(node_id(9), vec![piece(1, 1, vec![said("older", before)])], vec![shape.clone()]);
    node.run();
    assert_eq!(node.text(length), Some(bytes.to_string()));
    node.feed(node_id(9), vec![piece(2, 2, vec![said("later", clock::now())])], vec![shape.clone()]);
    node.run();
    assert_eq!(node.text("SELECT a AS v FROM t").as_deref(), Some("later"));
}

/// What is read at a time is bounded by bytes as well as by rows, and what was not read comes next: rows that a first node has from
/// before, and those of a long transaction of another node.
#[test]
fn large_rows_are_read_a_few_at_a_time_and_all_of_them() {
    let bytes = limits::READ_BYTES_MAX / 2 + 1;
    let table = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";
    let fill = format!("INSERT INTO t SELECT value, printf('%.*c', {bytes}, 'x') FROM json_each('[1,2,3,4,5]')");
    let mut node = Node::ready(&toml(&["t"]), &format!("{table}{fill}"));
    assert_eq!(node.text("SELECT count(*) AS v FROM t_Events").as_deref(), Some("5"));
    let shape = layout("t", &["id", "a"]);
    let data = |id| format!(r#"{{"id":"{id}","a":"{}"}}"#, "y".repeat(bytes));
    for at in 1..=5 {
        let large = event(&shape, &format!("y{at}"), Some(&data(format!("y{at}"))), clock::now());
        node.feed(node_id(9), vec![piece(at, 5, vec![large])], vec![shape.clone()]);
        node.run();
    }
    assert_eq!(node.text("SELECT count(*) AS v FROM t WHERE id LIKE 'y%'").as_deref(), Some("5"));
    let mut store = node.store();
    let found = store.tables().get("t").cloned().unwrap();
    let shape = found.shape.as_ref().unwrap();
    store
        .write(|tx| {
            let (rows, more) = tx.rows_after(shape, None, 500)?;
            assert_eq!((rows.len(), more), (2, true));
            let events = tx.staged(&found, node_id(9), (1, 5), 500)?;
            assert_eq!(events.iter().map(|staged| staged.id.sequence).collect::<Vec<_>>(), [5, 4]);
            Ok(())
        })
        .unwrap();
}

/// Two nodes, and a record whose row was too large once. What superseded that is what it says now.
fn grown_and_small_again() -> Cluster {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    cluster.nodes[0].sql("INSERT INTO t VALUES ('grows', 'small')");
    cluster.settle();
    let bytes = limits::ROW_BYTES_MAX;
    cluster.nodes[0].sql(&format!("UPDATE t SET a = printf('%.*c', {bytes}, 'x')"));
    cluster.settle();
    cluster.nodes[0].sql("UPDATE t SET a = 'again'");
    cluster.settle();
    cluster
}

/// A migration reads what the record's events said of a column before.
#[test]
fn a_row_that_was_too_large_once_stands_in_the_way_of_no_migration() {
    let mut cluster = grown_and_small_again();
    for node in [0, 1] {
        cluster.nodes[node].sql("ALTER TABLE t RENAME COLUMN a TO b");
        cluster.settle();
    }
    cluster.all_say("SELECT id || b AS v FROM t", "growsagain");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}

/// New rules of one node forbid the newest word of the record, and the one before it is none that a row could be made of.
#[test]
fn a_row_that_was_too_large_once_is_parked_again_where_what_superseded_it_is_forbidden() {
    let mut cluster = grown_and_small_again();
    cluster.nodes[1].sql(
        "BEGIN; CREATE TABLE new_t(id TEXT PRIMARY KEY NOT NULL, a TEXT CHECK (a <> 'again'));
        INSERT INTO new_t SELECT * FROM t WHERE a <> 'again'; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT",
    );
    cluster.settle();
    assert_eq!(cluster.nodes[1].text("SELECT id || a AS v FROM t").as_deref(), Some("growssmall"));
    let parked = "SELECT reason AS v FROM _rowcast_parked ORDER BY reason";
    assert_eq!(cluster.nodes[1].text(parked).as_deref(), Some("constraint,size"));
    cluster.nodes[0].sql("UPDATE t SET a = 'allowed'");
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t", "growsallowed");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}
