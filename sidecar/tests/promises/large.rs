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
