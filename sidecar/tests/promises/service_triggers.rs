//! The service's own triggers on the applying side: `triggers = "run"` keeps what is derived from a table, such as a
//! full-text index, and echoes nothing.

use super::claims::{all_have, exchange};
use super::{Node, a_millisecond_passes};

const NOTES: &str = "
CREATE TABLE notes(id INTEGER PRIMARY KEY NOT NULL, title TEXT UNIQUE, body TEXT);
CREATE VIRTUAL TABLE found USING fts5(title, body, content='notes', content_rowid='id');
CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN
  INSERT INTO found(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER notes_ad AFTER DELETE ON notes BEGIN
  INSERT INTO found(found, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
END;
CREATE TRIGGER notes_au AFTER UPDATE ON notes BEGIN
  INSERT INTO found(found, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
  INSERT INTO found(rowid, title, body) VALUES (new.id, new.title, new.body);
END;";

const RUN: &str = "service = \"s\"\n[tables.notes]\ntriggers = \"run\"\n";

fn matches(word: &str) -> String {
    format!("SELECT rowid AS v FROM found WHERE found MATCH '{word}' ORDER BY rowid")
}

/// Nothing comes back as a change of this node, and the index is whole.
fn in_order(nodes: &[Node]) {
    all_have(nodes, "SELECT count(*) AS v FROM _rowcast_journal", "0");
    for node in nodes {
        node.sql("INSERT INTO found(found, rank) VALUES ('integrity-check', 1)");
    }
}

#[test]
fn a_full_text_index_kept_by_triggers_finds_on_every_node_what_it_finds_on_the_authors() {
    let mut nodes = [(); 2].map(|()| Node::ready(RUN, NOTES));
    exchange(&mut nodes);
    nodes[0].sql("INSERT INTO notes VALUES (1, 'one', 'red apple'), (2, 'two', 'green apple'), (3, 'three', 'pear')");
    exchange(&mut nodes);
    all_have(&nodes, &matches("apple"), "1,2");
    nodes[1].sql("UPDATE notes SET body = 'yellow pear' WHERE id = 1; DELETE FROM notes WHERE id = 2");
    exchange(&mut nodes);
    all_have(&nodes, &matches("apple"), "");
    all_have(&nodes, &matches("pear"), "1,3");
    in_order(&nodes);
    // One that another record keeps out of the table is not found either; it is again when it comes back.
    nodes[0].sql("INSERT INTO notes VALUES (7, 'same', 'left')");
    a_millisecond_passes();
    nodes[1].sql("INSERT INTO notes VALUES (8, 'same', 'right')");
    exchange(&mut nodes);
    all_have(&nodes, &matches("same"), "8");
    all_have(&nodes, &matches("left"), "");
    nodes[0].sql("UPDATE notes SET title = 'other' WHERE id = 8");
    exchange(&mut nodes);
    all_have(&nodes, &matches("left"), "7");
    let events = "SELECT count(*) AS v FROM notes_Events";
    all_have(&nodes, events, "8");
    in_order(&nodes);
}

#[test]
fn without_the_word_they_do_not_run() {
    let mut nodes = [(); 2].map(|()| Node::ready("service = \"s\"\n[tables.notes]\n", NOTES));
    exchange(&mut nodes);
    nodes[0].sql("INSERT INTO notes VALUES (1, 'one', 'red apple')");
    exchange(&mut nodes);
    assert_eq!(nodes[0].text(&matches("apple")).as_deref(), Some("1"));
    assert_eq!(nodes[1].text(&matches("apple")), None);
}

/// What a trigger writes to replicated tables arrives from the author once, and is not made here a second time; what it
/// writes elsewhere is made here. A table beside it, whose triggers are not to run, keeps them quiet.
#[test]
fn what_a_trigger_writes_to_replicated_tables_arrives_once_and_elsewhere_is_made_here() {
    let sql = "CREATE TABLE item(id TEXT PRIMARY KEY NOT NULL, n INTEGER, stamp TEXT);
        CREATE TABLE audit(id TEXT PRIMARY KEY NOT NULL, what TEXT);
        CREATE TABLE local(id TEXT PRIMARY KEY NOT NULL, n INTEGER);
        CREATE TABLE quiet(id TEXT PRIMARY KEY NOT NULL);
        CREATE TRIGGER item_audit AFTER INSERT ON item BEGIN
          INSERT INTO audit VALUES (hex(randomblob(8)), new.id);
          UPDATE item SET stamp = 'made by ' || new.id, n = n + 1 WHERE id = new.id;
          INSERT INTO local VALUES (new.id, new.n);
        END;
        CREATE TRIGGER quiet_local AFTER INSERT ON quiet BEGIN INSERT INTO local VALUES ('q' || new.id, 0); END;";
    let toml = "service = \"s\"\n[tables.item]\ntriggers = \"run\"\n[tables.audit]\n[tables.quiet]\n";
    let mut nodes = [(); 2].map(|()| Node::ready(toml, sql));
    exchange(&mut nodes);
    nodes[0].sql("BEGIN; INSERT INTO quiet VALUES ('1'); INSERT INTO item VALUES ('a', 1, NULL); INSERT INTO quiet VALUES ('2'); INSERT INTO item VALUES ('b', 5, NULL); COMMIT;");
    exchange(&mut nodes);
    all_have(&nodes, "SELECT id || n || stamp AS v FROM item ORDER BY id", "a2made by a,b6made by b");
    all_have(
        &nodes,
        "SELECT count(*) || group_concat(what, '') AS v FROM (SELECT what FROM audit ORDER BY what)",
        "2ab",
    );
    all_have(&nodes, "SELECT group_concat(id, '') AS v FROM (SELECT id FROM quiet ORDER BY id)", "12");
    assert_eq!(nodes[0].text("SELECT id AS v FROM local ORDER BY id").as_deref(), Some("a,b,q1,q2"));
    assert_eq!(nodes[1].text("SELECT id AS v FROM local ORDER BY id").as_deref(), Some("a,b"));
    let first = nodes[0].text("SELECT id AS v FROM audit ORDER BY id").unwrap();
    all_have(&nodes, "SELECT id AS v FROM audit ORDER BY id", &first);
    all_have(
        &nodes,
        "SELECT count(DISTINCT source_node_id) AS v FROM (SELECT source_node_id FROM item_Events UNION ALL SELECT source_node_id FROM audit_Events)",
        "1",
    );
}

/// SQLite cannot leave out a DELETE: such a trigger is refused, with what helps.
#[test]
fn a_trigger_that_deletes_from_a_replicated_table_is_refused_by_name() {
    let sql = "CREATE TABLE a(id TEXT PRIMARY KEY NOT NULL); CREATE TABLE b(id TEXT PRIMARY KEY NOT NULL);
        CREATE TRIGGER a_b AFTER DELETE ON a BEGIN DELETE FROM b WHERE id = old.id; END;";
    let node = Node::new("", sql);
    let toml = "service = \"s\"\n[tables.a]\ntriggers = \"run\"\n[tables.b]\n";
    let error = rowcast::edge::store::Store::open(&node.path(), super::declaration(toml)).err().unwrap().chain();
    assert!(error.contains("table `a`") && error.contains("triggers = \"skip\""), "{error}");
}
