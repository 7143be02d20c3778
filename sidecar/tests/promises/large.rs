//! A row that is too large to travel.

use std::time::Duration;

use rowcast::edge::store::operator;
use rowcast::limits;

use super::cluster::Cluster;
use super::toml;

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
