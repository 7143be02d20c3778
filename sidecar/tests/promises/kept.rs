//! Promises that were broken once: clocks, tables declared late, rebuilt tables, announced records that are evicted.

use rowcast::edge::clock;
use rowcast::edge::store::{SnapshotPage, SnapshotRow, Store};
use rowcast::flow::apply::Applier;
use rowcast::limits;
use rowcast::replica::{Input, Output};
use std::time::Duration;

use super::cluster::Cluster;
use super::{Node, declaration, event, layout, layouts, node_id, piece, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

const REBUILD: &str = "CREATE TABLE fresh(id TEXT PRIMARY KEY NOT NULL, a TEXT); INSERT INTO fresh SELECT * FROM t;
     DROP TABLE t; ALTER TABLE fresh RENAME TO t;";

/// I7: a doubt is NOT READY.
#[test]
fn a_node_whose_clock_is_behind_and_applies_nothing_is_not_ready() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let shape = layout("t", &["id", "a"]);
    let remote = event(&shape, "x", Some(r#"{"id":"x","a":"1"}"#), clock::now().plus(Duration::from_secs(300)));
    node.feed(node_id(9), vec![piece(1, 1, vec![remote])], vec![shape]);
    node.run();
    assert_eq!(node.text("SELECT count(*) AS v FROM t").as_deref(), Some("0"));
    assert!(!node.replica().is_ready(), "the position says that it has everything, and the table is empty");
}

/// I10: a table that is declared here later than elsewhere gets what came before.
#[test]
fn events_of_a_table_that_was_not_declared_are_applied_when_it_is() {
    let mut node =
        Node::ready(&toml(&["t"]), &format!("{TABLE} CREATE TABLE late(id TEXT PRIMARY KEY NOT NULL, a TEXT);"));
    let now = clock::now();
    let mut store = node.store();
    let shape = layout("late", &["id", "a"]);
    let remote = event(&shape, "x", Some(r#"{"id":"x","a":"1"}"#), now);
    store.write(|tx| Applier::new(tx, now).group(node_id(9), &piece(1, 1, vec![remote]), &layouts(&[&shape]))).unwrap();
    drop(store);
    let _store = Store::open(&node.path(), declaration(&toml(&["t", "late"]))).unwrap();
    let rows: i64 = node.service.query_row("SELECT count(*) FROM late_Events", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1, "it is stored under its table now, and can be applied");
}

/// Nothing gets stuck: the events of a table that is no longer declared stay, and nobody is kept from applying what others
/// write, nor from going on under another id.
#[test]
fn a_node_goes_on_when_a_table_is_no_longer_declared() {
    let mut node = Node::ready(
        &toml(&["old", "t"]),
        &format!("{TABLE} CREATE TABLE old(id TEXT PRIMARY KEY NOT NULL); INSERT INTO old VALUES ('o');"),
    );
    let again = node.redeclared(&toml(&["t"]));
    again.start(false);
    again.run();
    let shape = layout("t", &["id", "a"]);
    let remote = event(&shape, "x", Some(r#"{"id":"x","a":"1"}"#), clock::now());
    again.feed(node_id(9), vec![piece(1, 1, vec![remote])], vec![shape]);
    again.run();
    assert_eq!(again.text("SELECT count(*) AS v FROM t").as_deref(), Some("1"));
    assert_eq!(again.text("SELECT count(*) AS v FROM old_Events").as_deref(), Some("1"));
    again.replica = None;
    std::fs::remove_file(again.path().with_file_name("app.db-rowcast")).unwrap();
    again.start(false);
    again.run();
    assert_eq!(again.text("SELECT count(*) AS v FROM old_Events").as_deref(), Some("1"));
}

/// No committed change is lost: what was written while a table was declared becomes events, whenever the sidecar comes to it, and
/// others apply them.
#[test]
fn what_was_written_while_a_table_was_declared_becomes_events_when_it_is_not_any_more() {
    let old = "CREATE TABLE old(id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, a TEXT UNIQUE);";
    let mut cluster = Cluster::ready(2, &toml(&["t", "old"]), &format!("{TABLE} {old}"));
    cluster.nodes[0].sql("INSERT INTO old VALUES ('a', '1'), ('b', '2')");
    cluster.settle();
    // The sidecar is away, and starts without the table.
    cluster.nodes[0].replica = None;
    cluster.nodes[0].sql("INSERT INTO old VALUES ('C', '3'); UPDATE old SET a = '4' WHERE id = 'a'");
    cluster.nodes[0].sql("DELETE FROM old WHERE id = 'C'; REPLACE INTO old VALUES ('D', '2')");
    cluster.nodes[0].redeclared(&toml(&["t"])).start(false);
    let again = |cluster: &Cluster| {
        cluster.nodes[0]
            .text("SELECT json_extract(value, '$.again') AS v FROM _rowcast_state WHERE key = 'reconcile:old'")
    };
    assert_eq!(again(&cluster).as_deref(), Some("1"), "what has no event when it is declared again was written since");
    cluster.nodes[0].sql("INSERT INTO old VALUES ('nobody', 'is told')");
    cluster.settle();
    let rows = |cluster: &Cluster, node: usize| cluster.nodes[node].text("SELECT id || a AS v FROM old ORDER BY id");
    assert_eq!(rows(&cluster, 1).as_deref(), Some("a4,D2"));
    // What was written since is compared when it is declared again.
    cluster.nodes[0].redeclared(&toml(&["t", "old"])).start(false);
    cluster.settle();
    assert_eq!([0, 1].map(|node| rows(&cluster, node).unwrap()), ["a4,D2,nobodyis told"; 2]);
    let told = cluster.nodes[1].text("SELECT record_id AS v FROM old_Events ORDER BY id");
    assert_eq!(told.as_deref(), Some("a,b,c,a,c,b,d,nobody"), "each change is an event");
}

/// What the service wrote to a table while that was not declared is later than what others wrote before it, whoever comes to it first.
#[test]
fn a_row_written_while_its_table_was_not_declared_is_an_event_beside_those_that_waited() {
    let mut cluster = Cluster::ready(
        2,
        &toml(&["t", "old"]),
        &format!("{TABLE} CREATE TABLE old(id TEXT PRIMARY KEY NOT NULL, a TEXT);"),
    );
    cluster.nodes[0].redeclared(&toml(&["t"])).start(false);
    cluster.nodes[1].sql("INSERT INTO old VALUES ('x', 'theirs'), ('y', 'theirs')");
    cluster.settle();
    cluster.nodes[0].sql("INSERT INTO old VALUES ('x', 'ours')");
    cluster.nodes[0].redeclared(&toml(&["t", "old"])).start(false);
    cluster.settle();
    for node in &cluster.nodes {
        assert_eq!(node.text("SELECT id || a AS v FROM old ORDER BY id").as_deref(), Some("xours,ytheirs"));
    }
}

/// What was only suspected to be gone is not deleted, and what is parked of a record gives way: as they are when the table leaves.
#[test]
fn what_leaves_with_its_table_is_settled_as_it_is_then() {
    let old = "CREATE TABLE old(id TEXT PRIMARY KEY NOT NULL, a TEXT UNIQUE);";
    let mut cluster = Cluster::ready(2, &toml(&["t", "old"]), &format!("{TABLE} {old}"));
    cluster.nodes[0].sql("INSERT INTO old VALUES ('a', '1'), ('b', '2'), ('c', '3')");
    cluster.settle();
    cluster.nodes[0].replica = None;
    cluster.nodes[0].sql("INSERT OR IGNORE INTO old VALUES ('d', '1'); REPLACE INTO old VALUES ('e', '2')");
    cluster.nodes[0].redeclared(&toml(&["t"])).start(false);
    // It is the service's own now.
    cluster.nodes[0].sql("DELETE FROM old WHERE id = 'a'; INSERT INTO old VALUES ('b', '4')");
    cluster.settle();
    let rows = cluster.nodes[1].text("SELECT id || a AS v FROM old ORDER BY id");
    assert_eq!(rows.as_deref(), Some("a1,c3,e2"));
    // Somebody has thrown away its events, too: what was written is nobody's any more, and stands in nobody's way.
    cluster.nodes[1].replica = None;
    cluster.nodes[1]
        .sql("INSERT INTO old VALUES ('f', '6'); INSERT INTO t VALUES ('t', 'here'); DROP TABLE old_Events");
    cluster.nodes[1].redeclared(&toml(&["t"])).start(false);
    cluster.settle();
    assert_eq!(cluster.nodes[0].text("SELECT a AS v FROM t").as_deref(), Some("here"));
}

/// I10: what a load covers it brings, also of a table that is declared on some nodes only so far, or on none any more.
#[test]
fn a_load_brings_the_events_of_tables_that_are_not_declared_yet() {
    let late = "CREATE TABLE late(id TEXT PRIMARY KEY NOT NULL, a TEXT);";
    let gone = "CREATE TABLE gone(id TEXT PRIMARY KEY NOT NULL);";
    let sql = format!("{TABLE} {late} {gone}");
    let mut cluster = Cluster::ready(2, &toml(&["t", "gone"]), &sql);
    cluster.nodes[0].sql("INSERT INTO late VALUES ('x', 'theirs'), ('y', 'theirs'); INSERT INTO t VALUES ('t', '1')");
    cluster.nodes[0].sql("INSERT INTO gone VALUES ('g'), ('h')");
    cluster.settle();
    cluster.nodes[0].redeclared(&toml(&["t", "late"])).start(false);
    cluster.nodes[1].redeclared(&toml(&["t"])).start(false);
    cluster.settle();
    cluster.nodes[0].sql("DELETE FROM late WHERE id = 'y'");
    cluster.settle();
    assert_eq!(cluster.nodes[1].text("SELECT count(*) AS v FROM _rowcast_strays").as_deref(), Some("3"));
    drop(cluster.nodes.remove(0));
    // It has a row of its own, too, from before anybody spoke of that table.
    let mut joiner = Node::new(&toml(&["t"]), &format!("{sql} INSERT INTO late VALUES ('x', 'ours')"));
    joiner.start(false);
    cluster.nodes.push(joiner);
    cluster.until("the joiner is READY", |cluster| cluster.nodes[1].replica().is_ready());
    assert_eq!(cluster.nodes[1].text("SELECT a AS v FROM t").as_deref(), Some("1"));
    let whole = toml(&["t", "late", "gone"]);
    cluster.nodes.iter_mut().for_each(|node| node.redeclared(&whole).start(false));
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM late", "xtheirs");
    cluster.all_say("SELECT id AS v FROM gone ORDER BY id", "g,h");
}

/// Neither what a node kept of such a table as its own, nor what it had in the table's events, outlives a load: who was away comes
/// back with what the others have, a page at a time.
#[test]
fn a_load_forgets_of_tables_that_are_not_declared_what_the_donor_has_no_more() {
    let mut node =
        Node::ready(&toml(&["t", "gone"]), &format!("{TABLE} CREATE TABLE gone(id TEXT PRIMARY KEY NOT NULL);"));
    let (shape, now) = (layout("gone", &["id"]), clock::now());
    let made = |id: &str| event(&shape, id, Some(&format!(r#"{{"id":"{id}"}}"#)), now);
    let piece_of = |sequence, id: &str| piece(sequence, sequence, vec![made(id)]);
    node.feed(node_id(9), vec![piece_of(1, "a"), piece_of(2, "b")], vec![shape.clone()]);
    node.run();
    assert_eq!(node.events("gone"), 2);
    node.redeclared(&toml(&["t"]));
    let mut store = node.store();
    let strays: Vec<_> = (3..2_503).map(|sequence| piece_of(sequence, &format!("s{sequence}"))).collect();
    store
        .write(|tx| {
            let mut applier = Applier::new(tx, now);
            strays.iter().try_for_each(|piece| applier.group(node_id(9), piece, &layouts(&[&shape])))
        })
        .unwrap();
    assert_eq!(store.loaded_tables(), ["t", "gone"], "also where the donor does not speak of it");
    // The donor has `a`, one of the others, and what came since.
    let row = |sequence, id: &str| SnapshotRow {
        origin: node_id(9),
        sequence,
        group_last: sequence,
        processed: true,
        event: made(id),
    };
    let page = SnapshotPage {
        vector: [(node_id(9), 2_600)].into_iter().collect(),
        rows: vec![row(1, "a"), row(2_550, "new"), row(2_400, "s2400")],
        layouts: vec![shape.clone()],
        ..SnapshotPage::default()
    };
    let (mut after, mut rounds) = (None, 0);
    loop {
        let next = store.write(|tx| {
            let mut applier = Applier::new(tx, now);
            assert!(applier.has_events("gone", None, &page)?);
            if after.is_none() {
                applier.snapshot_page(&page, &[])?;
            }
            applier.forget("gone", after.as_deref(), &page, &Default::default())
        });
        rounds += 1;
        match next.unwrap() {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    drop(store);
    assert!(rounds > 2, "a thousand at a time");
    assert_eq!(node.text("SELECT record_id AS v FROM gone_Events").as_deref(), Some("a"));
    assert_eq!(node.text("SELECT record_id AS v FROM _rowcast_strays ORDER BY 1").as_deref(), Some("new,s2400"));
}

/// SQLite does not look at the case of a name; what waits for a value waits on.
#[test]
fn a_table_that_the_declaration_spells_otherwise_is_the_same_table() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u UNIQUE);");
    let shape = layout("t", &["id", "u"]);
    let remote = |id: &str, at| event(&shape, id, Some(&format!(r#"{{"id":"{id}","u":1}}"#)), at);
    let now = clock::now();
    let events = vec![remote("a", now), remote("b", now.plus(Duration::from_millis(1)))];
    node.feed(node_id(9), vec![piece(1, 2, events)], vec![shape]);
    node.run();
    assert_eq!(node.text("SELECT record_id || table_name AS v FROM _rowcast_parked").as_deref(), Some("at"));
    let again = node.redeclared(&toml(&["T"]));
    again.start(false);
    again.run();
    assert_eq!(again.text("SELECT operation_type AS v FROM t_Events WHERE operation_type = 'DELETE'"), None);
    again.sql("DELETE FROM t WHERE id = 'b'");
    again.run();
    assert_eq!(again.text("SELECT id AS v FROM t").as_deref(), Some("a"));
}

#[test]
fn a_table_rebuilt_while_it_is_compared_is_compared_again() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) INSERT INTO t SELECT printf('%05d', i), 'a' FROM n");
    node.run();
    node.sql(&format!("BEGIN; {REBUILD} COMMIT;"));
    node.wake();
    for _ in 0..3 {
        node.work(); // The journal; the first rows; some more.
    }
    assert!(!node.replica().store().pending().is_empty(), "the comparison is under way");
    node.sql(&format!("BEGIN; {REBUILD} UPDATE t SET a = 'local' WHERE id = '00001'; COMMIT;"));
    node.run();
    assert!(node.replica().store().pending().is_empty());
    let local = node.text("SELECT count(*) AS v FROM t_Events WHERE data LIKE '%local%'");
    assert_eq!(local.as_deref(), Some("1"));
}

const ANNOUNCED: &str = "service = \"s\"\n[tables.u]\ncapture = \"events\"\n";
const USERS: &str =
    "CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, email TEXT UNIQUE, n); INSERT INTO u VALUES ('a', 'x', 1);";

fn claim_of_another(node: &mut Node) {
    let shape = layout("u", &["id", "email", "n"]);
    let remote = event(&shape, "b", Some(r#"{"id":"b","email":"x","n":9}"#), clock::now());
    node.feed(node_id(9), vec![piece(1, 1, vec![remote])], vec![shape]);
    node.run();
}

/// I3: of a record that has to leave the table, too.
#[test]
fn what_was_not_announced_of_a_record_that_is_evicted_is_an_event_first() {
    let mut node = Node::ready(ANNOUNCED, USERS);
    node.sql("UPDATE u SET n = 2 WHERE id = 'a'");
    claim_of_another(&mut node);
    let kept = node.text("SELECT count(*) AS v FROM u_Events WHERE record_id = 'a' AND data LIKE '%2}'");
    assert_eq!(kept.as_deref(), Some("1"));
}

/// A record that waits for its UNIQUE value is not deleted because somebody speaks of it.
#[test]
fn a_late_announcement_of_a_parked_record_deletes_nothing() {
    let mut node = Node::ready(ANNOUNCED, USERS);
    claim_of_another(&mut node);
    let payload = br#"{"table":"u","operation":"update","data":{"id":"a","email":"x","n":2}}"#;
    let at = node.at();
    node.replica().handle(Input::Announced { payload: payload.to_vec().into(), reply: None }, at);
    node.run();
    let deletes = node.text("SELECT count(*) AS v FROM u_Events WHERE operation_type = 'DELETE'");
    assert_eq!(deletes.as_deref(), Some("0"));
}

/// I9: while the node cannot work, as long as the disk refuses, change events wait in bounded memory.
#[test]
fn change_events_that_wait_are_bounded_in_bytes() {
    let mut node = Node::ready(ANNOUNCED, USERS);
    let bytes = limits::CHANGE_BYTES_MAX - 1024;
    let announce = |node: &mut Node, id: &str| {
        let data = format!(r#"{{"id":"{id}","email":"{}","n":2}}"#, id.repeat(bytes));
        let payload = format!(r#"{{"table":"u","operation":"create","data":{data}}}"#).into_bytes();
        let at = node.at();
        node.replica().handle(Input::Announced { payload: payload.into(), reply: Some(id.to_owned()) }, at);
        let outputs = node.replica().take_outputs();
        outputs.into_iter().find_map(|output| match output {
            Output::Reply { body, .. } => Some(body),
            _ => None,
        })
    };
    assert_eq!([announce(&mut node, "a"), announce(&mut node, "b")], [None, None]);
    let refused = announce(&mut node, "c").expect("there is no room for a third one");
    assert!(refused.contains("too many change events wait"), "{refused}");
    node.run();
    node.replica().take_outputs();
    assert_eq!(announce(&mut node, "c"), None);
    node.run();
}
