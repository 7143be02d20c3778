//! Every change of the service becomes an event, whatever it did in between.

use rowcast::edge::store::Store;
use rowcast::flow::ingest;
use rowcast::replica::Worked;
use rowcast_schema::identifier::quoted;

use super::{Node, declaration, toml};

const USERS: &str = "CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, email TEXT UNIQUE);";

#[test]
fn a_group_that_ends_with_a_suspect_that_is_alive_is_whole() {
    let mut node = Node::ready(&toml(&["u"]), USERS);
    node.sql("BEGIN; INSERT INTO u VALUES ('a', 'x'); INSERT OR IGNORE INTO u VALUES ('b', 'x'); COMMIT;");
    node.wake();
    node.work();
    node.sql("INSERT INTO u VALUES ('c', 'z')");
    node.run();
    let sequence = node.text("SELECT record_id || group_last AS v FROM u_Events ORDER BY sequence_number");
    assert_eq!(sequence.as_deref(), Some("a1,c2"));
    assert!(node.replica().store().durable().open_group.is_none());
}

#[test]
fn a_table_dropped_in_the_middle_of_a_long_group_does_not_stop_the_node() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a);");
    node.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) INSERT INTO t SELECT 'k' || i, i FROM n");
    node.wake();
    assert_eq!(node.work(), Worked::Ingested);
    node.sql("DROP TABLE t");
    node.run();
    node.sql("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a); INSERT INTO t VALUES ('new', 1)");
    node.run();
    assert_eq!(node.text("SELECT count(*) AS v FROM t_Events WHERE record_id = 'new'").as_deref(), Some("1"));
}

#[test]
fn a_row_that_was_only_suspected_is_not_deleted_however_long_its_key() {
    let mut node = Node::ready(&toml(&["u"]), USERS);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 450)";
    node.sql(&format!("{rows} INSERT INTO u SELECT printf('%03000d', i), 'e' || i FROM n"));
    node.run();
    node.sql(&format!("{rows} INSERT OR IGNORE INTO u SELECT 'other' || i, 'e' || i FROM n"));
    node.run();
    let deletes = node.text("SELECT count(*) AS v FROM u_Events WHERE operation_type = 'DELETE'");
    assert_eq!(deletes.as_deref(), Some("0"), "all rows are there: {:?}", node.text("SELECT count(*) AS v FROM u"));
}

/// I2: others can reach the position that a node states.
#[test]
fn a_group_that_was_not_whole_when_its_node_id_was_left_is_whole_under_the_new_one() {
    let mut node = Node::ready(&toml(&["u"]), USERS);
    node.sql("INSERT INTO u VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)");
    let mut store = node.store();
    let old = store.durable().node;
    store.write(|tx| ingest::journal(tx, rowcast::edge::clock::now(), 2)).unwrap();
    drop(store);
    std::fs::remove_file(node.path().with_file_name("app.db-rowcast")).unwrap();
    let mut store = node.store();
    let new = store.durable().node;
    assert_ne!(new, old);
    assert!(store.write(|tx| tx.move_events(500)).unwrap().done);
    while store.write(|tx| ingest::journal(tx, rowcast::edge::clock::now(), 2)).unwrap().more {}
    let page = store.events(new, 1, 4).unwrap();
    let groups: Vec<_> = page.pieces.iter().map(|piece| (piece.first, piece.group_last)).collect();
    assert_eq!((groups, store.durable().vector.of(new)), (vec![(1, 4)], 4), "it is one group under the new id");
    assert_eq!(store.events(old, 1, 4).unwrap().pieces, [], "nobody has heard any of it under the old one");
}

/// A service's insert must not read the whole table.
#[test]
fn a_partial_unique_index_is_used_to_look_for_suspects() {
    let node = Node::ready(
        &toml(&["s"]),
        "CREATE TABLE s(id TEXT PRIMARY KEY NOT NULL, u TEXT, active INT);
         CREATE UNIQUE INDEX one ON s(u) WHERE active = 1;
         INSERT INTO s VALUES ('a', 'x', 0), ('b', 'x', 0);",
    );
    node.sql("INSERT INTO s VALUES ('c', 'x', 0)");
    let suspects = node.text("SELECT count(*) AS v FROM _rowcast_journal WHERE op = 4");
    assert_eq!(suspects.as_deref(), Some("0"), "rows outside of {} are no victims", quoted("one"));
}

/// It took its own start for a write of the service, and kept its transactions short for ten seconds.
#[test]
fn only_a_write_of_the_service_counts_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let service = rusqlite::Connection::open(&path).unwrap();
    service.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)").unwrap();
    let mut store = Store::open(&path, declaration(&toml(&["t"]))).unwrap();
    assert!(!store.changed_by_others().unwrap(), "the first look");
    assert!(!store.changed_by_others().unwrap());
    service.execute_batch("INSERT INTO t VALUES (1, 1)").unwrap();
    assert!(store.changed_by_others().unwrap());
    assert!(!store.changed_by_others().unwrap());
}

/// A short journal, too, can hold rows of a table that is gone, or that has another key by now.
#[test]
fn a_few_changes_of_a_table_that_is_gone_keep_no_others_from_becoming_events() {
    let mut node = Node::ready(
        &toml(&["t", "u"]),
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a); CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, a);",
    );
    node.sql("INSERT INTO u VALUES ('x', 1); INSERT INTO t VALUES ('x', 1); DROP TABLE u");
    node.run();
    assert_eq!(node.events("t"), 1);
    assert_eq!(node.events("u"), 0, "no event can be made of it");
    assert_eq!(node.text("SELECT n AS v FROM _rowcast_journal"), None);
}
