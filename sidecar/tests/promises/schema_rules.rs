//! A schema that changes while it is replicated: what a migration makes of rows and events, on one node first.

use std::time::Duration;

use super::cluster::Cluster;
use super::{Node, event, layout, node_id, piece, toml};
use rowcast::edge::clock;
use rowcast::flow::apply::Applier;
use rowcast::replica::Worked;

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, d TEXT);";
const TWO: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, d TEXT);
     CREATE TABLE other(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

fn many(rows: usize) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO t(id, a) SELECT printf('k%05d', i), 'a' || i FROM n"
    )
}

/// As Alembic's batch mode rebuilds a table, with the default in the new one.
const ALEMBIC_ADD: &str = "CREATE TABLE _alembic_tmp_t (
	id TEXT NOT NULL,
	a TEXT,
	d TEXT,
	e TEXT DEFAULT 'none' NOT NULL,
	PRIMARY KEY (id)
);
INSERT INTO _alembic_tmp_t (id, a, d) SELECT t.id, t.a, t.d FROM t;
DROP TABLE t;
ALTER TABLE _alembic_tmp_t RENAME TO t;";

#[test]
fn a_column_added_with_a_default_makes_no_events_on_ten_thousand_rows_on_either_node_altered_or_rebuilt() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
    cluster.nodes[0].sql(&many(10_000));
    cluster.settle();
    let before = cluster.nodes[0].events("t");
    assert_eq!(before, 10_000);
    cluster.nodes[0].sql("ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'none'");
    cluster.settle();
    cluster.nodes[1].sql("ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'none'");
    cluster.settle();
    for node in &cluster.nodes {
        assert_eq!(node.events("t"), before);
    }
    cluster.nodes[1].sql(&format!("BEGIN; {ALEMBIC_ADD} COMMIT;"));
    cluster.settle();
    cluster.nodes[0].sql(&format!("BEGIN; {ALEMBIC_ADD} COMMIT;"));
    cluster.settle();
    for node in &cluster.nodes {
        assert_eq!(node.events("t"), before);
    }
    cluster.all_say("SELECT count(*) AS v FROM t WHERE e = 'none'", "10000");
}

#[test]
fn a_column_that_only_one_node_has_waits_on_the_other_and_the_others_writes_do_not_touch_it() {
    let mut cluster = Cluster::ready(2, &toml(&["t", "other"]), TWO);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1', '1')");
    cluster.settle();
    cluster.nodes[0]
        .sql("ALTER TABLE t ADD COLUMN b TEXT; UPDATE t SET b = 'new', a = '2'; INSERT INTO other VALUES ('o', '1')");
    cluster.settle();
    assert_eq!(cluster.nodes[1].text("SELECT a AS v FROM t").as_deref(), Some("2"), "the known columns are here");
    assert_eq!(cluster.nodes[1].text("SELECT a AS v FROM other").as_deref(), Some("1"), "nothing waits for it");
    assert_eq!(cluster.nodes[1].replica().store().durable().parked, 0);
    assert!(cluster.nodes[1].page().contains("lacks columns that others have: b"), "{}", cluster.nodes[1].page());
    cluster.nodes[1].sql("UPDATE t SET d = '2'");
    cluster.settle();
    cluster.nodes[0].tick(Duration::from_secs(1));
    assert_eq!(cluster.nodes[0].text("SELECT a || d || b AS v FROM t").as_deref(), Some("22new"));
    cluster.nodes[1].sql("ALTER TABLE t ADD COLUMN b TEXT");
    cluster.settle();
    cluster.all_say("SELECT a || d || b AS v FROM t", "22new");
}

/// What lacks a column is told where it is lacking, and as long as it is: not where a migration took it away, and not for ever
/// because of old events.
#[test]
fn a_column_is_missing_only_where_a_migration_has_not_come_yet_and_not_where_it_went() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1', '1')");
    cluster.settle();
    let missing = |cluster: &mut Cluster| {
        let of = |node: &mut Node| {
            node.tick(Duration::from_secs(2));
            let at = node.at();
            node.replica().status(at).tables.remove(0)
        };
        [0, 1].map(|at| of(&mut cluster.nodes[at])).map(|table| table.missing_columns)
    };
    let none: [Vec<String>; 2] = [vec![], vec![]];
    cluster.nodes[0].sql("ALTER TABLE t RENAME COLUMN a TO c");
    cluster.settle();
    assert_eq!(missing(&mut cluster), [vec![], vec!["c".to_owned()]]);
    let at = cluster.nodes[1].at();
    let layouts = cluster.nodes[1].replica().status(at).tables.remove(0).layouts;
    let newer: Vec<_> = layouts.iter().filter(|layout| !layout.missing_columns.is_empty()).collect();
    assert_eq!((layouts.len(), newer.len()), (2, 1), "{layouts:?}");
    assert_eq!((newer[0].nodes.len(), &newer[0].missing_columns[..]), (1, &["c".to_owned()][..]));
    cluster.nodes[1].sql("ALTER TABLE t RENAME COLUMN a TO c");
    cluster.settle();
    assert_eq!(missing(&mut cluster), none);
    // One that comes later knows the old events, and that nobody has their columns any more.
    let mut joiner = Node::new(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, c TEXT, d TEXT)");
    joiner.start(false);
    cluster.nodes.push(joiner);
    cluster.until("all are READY", |cluster| cluster.nodes.iter_mut().all(|node| node.replica().is_ready()));
    cluster.settle();
    cluster.nodes.rotate_right(1);
    assert_eq!(missing(&mut cluster), none);
}

/// A column is renamed on node 0, both write, then on node 1. What node 1 wrote under the old name meanwhile is `late`.
fn renamed(first: &str, second: &str, new_name: Option<&str>, old_name: Option<&str>, old_is_later: bool) -> String {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', 'before', 'd')");
    cluster.settle();
    cluster.nodes[0].sql(&format!("BEGIN; {first} COMMIT;"));
    cluster.settle();
    let new_name = new_name.map(|value| (0, format!("UPDATE t SET c = '{value}'")));
    let old_name = old_name.map(|value| (1, format!("UPDATE t SET a = '{value}'")));
    let mut writes: Vec<(usize, String)> = new_name.into_iter().chain(old_name).collect();
    if !old_is_later {
        writes.reverse();
    }
    for (node, write) in writes {
        cluster.nodes[node].sql(&write);
        cluster.settle();
    }
    // A write that names neither must not carry the stale value along.
    cluster.nodes[1].sql("UPDATE t SET d = 'other'");
    cluster.settle();
    cluster.nodes[1].sql(&format!("BEGIN; {second} COMMIT;"));
    cluster.settle();
    let told = cluster.nodes[0].text("SELECT c || ' ' || d AS v FROM t").unwrap();
    cluster.all_say("SELECT c || ' ' || d AS v FROM t", &told);
    told
}

const RENAME: &str = "ALTER TABLE t RENAME COLUMN a TO c;";
/// As Django rebuilds a table (5.1, `_remake_table`).
const REMAKE: &str = r#"CREATE TABLE "new__t" ("id" text NOT NULL PRIMARY KEY, "c" text NULL, "d" text NULL);
     INSERT INTO "new__t" ("id", "d", "c") SELECT "id", "d", "a" FROM "t"; DROP TABLE "t"; ALTER TABLE "new__t" RENAME TO "t";"#;

#[test]
fn of_a_renamed_column_the_later_write_wins_under_whichever_name_and_a_stale_value_never() {
    for (first, second) in [(RENAME, RENAME), (REMAKE, RENAME), (RENAME, REMAKE), (REMAKE, REMAKE)] {
        assert_eq!(renamed(first, second, None, None, false), "before other");
        assert_eq!(renamed(first, second, Some("new"), None, false), "new other");
        assert_eq!(renamed(first, second, None, Some("old"), false), "old other");
        assert_eq!(renamed(first, second, Some("new"), Some("old"), false), "new other");
        assert_eq!(renamed(first, second, Some("new"), Some("old"), true), "old other");
    }
}

/// What the service wrote after the migration and before Rowcast looked is a write like any other.
#[test]
fn a_write_right_behind_a_migration_is_not_missed_and_wins_over_what_was_there() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', 'before', 'd'), ('y', 'before', 'd'), ('z', 'before', 'd')");
    cluster.settle();
    cluster.nodes[0].sql(&format!("BEGIN; {REMAKE} COMMIT; UPDATE t SET c = 'first' WHERE id = 'x'"));
    cluster.settle();
    cluster.nodes[1].sql(&format!(
        "BEGIN; {REMAKE} COMMIT; UPDATE t SET c = 'second' WHERE id = 'x'; DELETE FROM t WHERE id = 'y';
         INSERT INTO t VALUES ('new', 'c', 'd')"
    ));
    cluster.settle();
    cluster.all_say("SELECT id || c AS v FROM t ORDER BY id", "newc,xsecond,zbefore");
}

/// What waits to be compared keeps nothing else waiting, and of its own table a record is compared before it is written.
#[test]
fn events_are_applied_while_a_large_table_is_compared_and_nothing_unseen_is_overwritten() {
    let mut node = Node::ready(&toml(&["t", "other"]), TWO);
    node.sql(&many(5_000));
    node.run();
    node.sql(&format!("BEGIN; {ALEMBIC_ADD} COMMIT; UPDATE t SET a = 'unseen' WHERE id = 'k04999'"));
    let (mine, others) = (layout("t", &["id", "a", "d"]), layout("other", &["id", "a"]));
    let now = clock::now();
    let data = r#"{"id":"k04999","a":"remote","d":null}"#;
    let events = vec![event(&mine, "k04999", Some(data), now), event(&others, "o", Some(r#"{"id":"o","a":"1"}"#), now)];
    node.feed(node_id(9), vec![piece(1, 2, events)], vec![mine, others]);
    node.wake();
    let mut turns = 0;
    while node.text("SELECT a AS v FROM other").is_none() {
        turns += 1;
        assert!(turns < 10, "the other table waits for the comparison");
        assert_ne!(node.work(), Worked::Idle);
    }
    assert_eq!(node.replica().store().pending().len(), 1, "the comparison is on its way");
    assert!(node.page().contains("table t is being compared with its events"), "{}", node.page());
    assert!(node.replica().is_ready());
    let unseen = "SELECT count(*) AS v FROM t_Events WHERE data LIKE '%unseen%'";
    assert_eq!(node.text(unseen).as_deref(), Some("1"), "it is an event before it is overwritten");
    node.run();
    assert!(node.replica().store().pending().is_empty());
    assert!(!node.page().contains("is being compared"), "{}", node.page());
    assert_eq!(node.text(unseen).as_deref(), Some("1"));
}

#[test]
fn a_column_of_another_type_makes_no_events_and_both_keep_what_their_column_keeps() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1', 'd'), ('y', 'word', 'd')");
    cluster.settle();
    let before = cluster.nodes[0].events("t");
    const RETYPE: &str =
        "CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, a INTEGER, d TEXT); INSERT INTO n SELECT * FROM t;
         DROP TABLE t; ALTER TABLE n RENAME TO t;";
    cluster.nodes[0].sql(&format!("BEGIN; {RETYPE} COMMIT;"));
    cluster.settle();
    assert_eq!(cluster.nodes[0].text("SELECT typeof(a) AS v FROM t ORDER BY id").as_deref(), Some("integer,text"));
    cluster.nodes[1].sql("UPDATE t SET a = '7' WHERE id = 'x'");
    cluster.nodes[0].sql("UPDATE t SET a = 8 WHERE id = 'y'");
    cluster.settle();
    cluster.nodes[1].sql(&format!("BEGIN; {RETYPE} COMMIT;"));
    cluster.settle();
    cluster.all_say("SELECT a || typeof(a) AS v FROM t ORDER BY id", "7integer,8integer");
    assert_eq!(cluster.nodes[0].events("t"), before + 2);
}

/// Nor do numbers with a fraction that become text: an event of theirs would be stamped now, and win over what others wrote.
#[test]
fn a_column_of_numbers_that_becomes_text_makes_no_events() {
    let table = |kind: &str, name: &str| format!("CREATE TABLE {name}(id TEXT PRIMARY KEY NOT NULL, price {kind});");
    let mut cluster = Cluster::ready(2, &toml(&["t"]), &table("REAL", "t"));
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', 1.5), ('y', 2), ('z', 0.1)");
    cluster.settle();
    let before = cluster.nodes[0].events("t");
    cluster.nodes[1].sql("UPDATE t SET price = 2.5 WHERE id = 'x'");
    cluster.nodes[1].run();
    let retype =
        format!("{} INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t;", table("TEXT", "n"));
    cluster.nodes[0].sql(&format!("BEGIN; {retype} COMMIT;"));
    cluster.settle();
    assert_eq!(cluster.nodes[0].events("t"), before + 1);
    cluster.all_say("SELECT price AS v FROM t ORDER BY id", "2.5,2.0,0.1");
}

/// Its triggers go with the table that is renamed, and are none of the one that has the name then.
#[test]
fn a_table_that_is_renamed_and_made_again_gets_its_rows_back() {
    let mut cluster = Cluster::ready(2, &toml(&["t", "other"]), TWO);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1', 'd'), ('y', '1', 'd')");
    cluster.settle();
    cluster.nodes[0].sql(&format!("BEGIN; ALTER TABLE t RENAME TO t_2024; {TABLE} COMMIT"));
    cluster.settle();
    cluster.all_say("SELECT id AS v FROM t ORDER BY id", "x,y");
    cluster.nodes[0].sql("DELETE FROM t_2024; INSERT INTO t VALUES ('z', '1', 'd'); DELETE FROM t WHERE id = 'x'");
    cluster.settle();
    cluster.all_say("SELECT id AS v FROM t ORDER BY id", "y,z");
}

/// SQLite takes no notice of case in names, and neither do the triggers.
#[test]
fn a_table_whose_name_changes_in_case_alone_is_captured_on() {
    let mut cluster = Cluster::ready(2, &toml(&["t", "other"]), TWO);
    cluster.nodes[0].sql("BEGIN; ALTER TABLE other RENAME TO between_; ALTER TABLE between_ RENAME TO OTHER; COMMIT");
    cluster.settle();
    cluster.nodes[0].sql("INSERT INTO other VALUES ('o', '1')");
    cluster.settle();
    cluster.all_say("SELECT id AS v FROM other ORDER BY id", "o");
    let triggers =
        "SELECT count(*) AS v FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'other' COLLATE NOCASE";
    assert_ne!(cluster.nodes[0].text(triggers).as_deref(), Some("0"));
}

#[test]
fn a_table_that_is_dropped_and_made_again_gets_its_rows_back() {
    let mut cluster = Cluster::ready(2, &toml(&["t", "other"]), TWO);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1', 'd'), ('y', '1', 'd'); INSERT INTO other VALUES ('o', '1')");
    cluster.settle();
    cluster.nodes[0].sql(&format!("BEGIN; DROP TABLE t; {TABLE} COMMIT; INSERT INTO t VALUES ('z', '1', 'd')"));
    cluster.settle();
    cluster.all_say("SELECT id AS v FROM t ORDER BY id", "x,y,z");
    // The same when Rowcast looked in between, and events came meanwhile.
    cluster.nodes[0].sql("DROP TABLE t");
    cluster.turn(0, || true);
    assert!(!cluster.nodes[0].replica().is_ready());
    assert!(
        cluster.nodes[0].page().contains("declared tables are not in this database: t"),
        "{}",
        cluster.nodes[0].page()
    );
    cluster.nodes[1].sql("UPDATE t SET a = '2' WHERE id = 'x'; UPDATE other SET a = '2'");
    cluster.settle();
    assert_eq!(cluster.nodes[0].text("SELECT a AS v FROM other").as_deref(), Some("2"), "the others flow on");
    assert_eq!(cluster.nodes[0].replica().store().durable().parked, 1);
    cluster.nodes[0].sql(TABLE);
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", "x2,y1,z1");
    assert!(cluster.nodes[0].replica().is_ready());
    assert_eq!(cluster.nodes[0].replica().store().durable().parked, 0);
}

#[test]
fn a_table_that_is_renamed_away_waits_and_is_compared_when_it_is_back() {
    let mut cluster = Cluster::ready(2, &toml(&["t", "other"]), TWO);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1', 'd')");
    cluster.settle();
    cluster.nodes[0].sql("ALTER TABLE t RENAME TO u; UPDATE u SET d = 'away'");
    cluster.settle();
    cluster.nodes[1].sql("UPDATE t SET a = '2'; INSERT INTO t VALUES ('y', '2', 'd')");
    cluster.settle();
    cluster.nodes[0].sql("UPDATE u SET d = 'home'; ALTER TABLE u RENAME TO t");
    cluster.settle();
    let told = cluster.nodes[0].text("SELECT id || a || d AS v FROM t ORDER BY id").unwrap();
    cluster.all_say("SELECT id || a || d AS v FROM t ORDER BY id", &told);
    assert!(told.contains("home") && told.contains("y2d"), "{told}");
    assert_eq!(cluster.nodes[0].replica().store().durable().parked, 0);
}

#[test]
fn a_table_with_another_primary_key_waits_by_itself_until_all_nodes_have_it() {
    let mut cluster = Cluster::ready(2, &toml(&["t", "other"]), TWO);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', 'code1', 'd'), ('y', 'code2', 'd')");
    cluster.settle();
    const REKEY: &str = "CREATE TABLE n(id TEXT NOT NULL, a TEXT PRIMARY KEY NOT NULL, d TEXT);
         INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t;";
    cluster.nodes[0].sql(&format!(
        "BEGIN; {REKEY} COMMIT; UPDATE t SET d = 'first' WHERE a = 'code1'; INSERT INTO other VALUES ('o', '1')"
    ));
    cluster.settle();
    assert_eq!(cluster.nodes[1].text("SELECT a AS v FROM other").as_deref(), Some("1"), "the others flow on");
    assert_eq!(
        cluster.nodes[1].text("SELECT id AS v FROM t ORDER BY id").as_deref(),
        Some("x,y"),
        "nothing is deleted"
    );
    assert!(cluster.nodes[1].page().contains("another primary key"), "{}", cluster.nodes[1].page());
    cluster.nodes[1].sql(&format!("BEGIN; {REKEY} COMMIT; INSERT INTO t VALUES ('z', 'code3', 'second')"));
    cluster.settle();
    cluster.all_say("SELECT id || a || d AS v FROM t ORDER BY id", "xcode1first,ycode2d,zcode3second");
    assert_eq!(cluster.nodes[1].replica().store().durable().parked, 0);
}

/// Under another primary key the same words named another record: a node that puts together what a load brought finds no row to
/// delete there, and goes on.
#[test]
fn a_record_that_was_deleted_under_another_primary_key_deletes_nothing() {
    let mut node = Node::ready(&toml(&["t"]), TWO);
    node.sql("INSERT INTO t VALUES ('x', 'code1', 'd'), ('y', 'x', 'd')");
    node.run();
    node.sql("DELETE FROM t WHERE id = 'x'");
    node.run();
    for key in ["a, id", "a"] {
        node.sql(&format!(
            "BEGIN; CREATE TABLE n(id TEXT NOT NULL, a TEXT NOT NULL, d TEXT, PRIMARY KEY ({key}));
             INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT;"
        ));
        node.run();
        let mut store = node.store();
        store.write(|tx| Applier::new(tx, clock::now()).refold("t", "x")).unwrap();
        drop(store);
        node.start(false);
        assert_eq!(node.text("SELECT id || a AS v FROM t").as_deref(), Some("yx"), "{key}");
    }
}

#[test]
fn a_table_that_can_no_longer_be_replicated_says_why_and_stops_nothing_else() {
    let mut cluster = Cluster::ready(2, &toml(&["t", "other"]), TWO);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1', 'd')");
    cluster.settle();
    cluster.nodes[0].sql("BEGIN; CREATE TABLE n(id TEXT, a TEXT, d TEXT); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT");
    cluster.settle();
    assert!(!cluster.nodes[0].replica().is_ready());
    assert!(cluster.nodes[0].page().contains("primary key"), "{}", cluster.nodes[0].page());
    cluster.nodes[0].sql("INSERT INTO other VALUES ('here', '1'); UPDATE t SET d = 'unseen'");
    cluster.nodes[1].sql("INSERT INTO other VALUES ('there', '1'); INSERT INTO t VALUES ('y', '1', 'd')");
    cluster.settle();
    cluster.all_say("SELECT id AS v FROM other ORDER BY id", "here,there");
    cluster.nodes[0].start(false);
    cluster.settle();
    cluster.nodes[0].sql(&format!(
        "BEGIN; {}; INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT",
        TABLE.trim_end_matches(';').replace("TABLE t", "TABLE n")
    ));
    cluster.settle();
    cluster.all_say("SELECT id || d AS v FROM t ORDER BY id", "xunseen,yd");
    assert!(cluster.nodes[0].replica().is_ready());
}
