//! Ends at any moment, and copies of files.

use rowcast::edge::store::Store;

use super::{Node, declaration, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT); INSERT INTO t VALUES ('x', '1');";

/// Two nodes must never give out numbers under one id.
#[test]
fn a_copy_of_a_database_that_never_wrote_gets_an_id_of_its_own() {
    let node = Node::new(&toml(&["t"]), TABLE);
    let open = |path: &std::path::Path| Store::open(path, declaration(&toml(&["t"]))).unwrap();
    let first = open(&node.path()).durable().node;
    node.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let copy = node.path().with_file_name("copy.db");
    std::fs::copy(node.path(), &copy).unwrap();
    assert_eq!(open(&node.path()).durable().node, first, "the original keeps its id");
    assert_ne!(open(&copy).durable().node, first, "and the copy gets another");
}

/// Liveness: `--first` works again after any crash.
#[test]
fn a_first_node_that_was_killed_before_it_was_complete_becomes_ready() {
    let mut node = Node::new(&toml(&["t"]), TABLE);
    node.start(true);
    for _ in 0..10_000 {
        node.tick(std::time::Duration::from_millis(10));
        node.work();
        if node.replica().store().durable().loaded {
            break;
        }
    }
    node.start(true);
    node.run();
    node.run();
    assert!(node.replica().is_ready());
}
