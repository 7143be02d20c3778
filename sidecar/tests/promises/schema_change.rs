//! I3: what the triggers missed is an event before anything of others is applied over it.

use rowcast::clock::Timestamp;
use rowcast::edge::clock;

use super::{Node, event, layout, node_id, piece, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

const REBUILD: &str = "CREATE TABLE fresh(id TEXT PRIMARY KEY NOT NULL, a TEXT); INSERT INTO fresh SELECT * FROM t;
     DROP TABLE t; ALTER TABLE fresh RENAME TO t;";

#[test]
fn a_rebuilt_table_is_compared_before_the_events_of_others_are_applied() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.sql("INSERT INTO t VALUES ('x', 'before')");
    node.run();
    let shape = layout("t", &["id", "a"]);
    let remote = event(&shape, "x", Some(r#"{"id":"x","a":"remote"}"#), Timestamp(clock::now().0));
    // The node has looked for local changes; then the service commits, then a message is applied.
    node.sql(&format!("BEGIN; {REBUILD} UPDATE t SET a = 'local'; COMMIT;"));
    node.feed(node_id(9), vec![piece(1, 1, vec![remote])], vec![shape]);
    node.work();
    node.run();
    let local = node.text("SELECT count(*) AS v FROM t_Events WHERE data LIKE '%local%'");
    assert_eq!(local.as_deref(), Some("1"), "the row says {:?}", node.text("SELECT a AS v FROM t"));
}
