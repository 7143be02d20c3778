//! Every change of the service becomes an event, whatever it did in between.

use std::time::Duration;

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::edge::store::Store;
use rowcast::flow::ingest;
use rowcast::replica::{Rest, Worked};
use rowcast_schema::identifier::quoted;

use super::stage::service;
use super::{Node, declaration, event, layout, node_id, piece, toml};

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

/// Of two writes on two nodes the one that is a millisecond later wins.
#[test]
fn a_write_is_noted_with_the_millisecond_it_was_made_in() {
    let node = Node::ready(&toml(&["u"]), USERS);
    for row in 0..100 {
        let before = clock::now().millis();
        node.sql(&format!("INSERT INTO u VALUES ({row}, {row})"));
        let noted = node.text("SELECT max(at) AS v FROM _rowcast_journal").unwrap().parse().unwrap();
        assert!((before..=clock::now().millis() + 1).contains(&noted), "{noted} is not after {before}");
    }
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
    while store.write(|tx| ingest::journal(tx, rowcast::edge::clock::now(), 2)).unwrap().left > 0 {}
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

/// With each transaction of the sidecar between two of its own the service reads its pages again. So what follows fast is
/// gathered; what comes alone is not.
#[test]
fn commits_are_gathered_where_one_follows_the_other() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id INTEGER PRIMARY KEY);");
    let held = Duration::from_micros(300);
    let mut rest_after = |millis| rests(&mut node, held, millis);
    let alone = Rest { least: held, ..Rest::default() };
    assert_eq!(rest_after(10), alone);
    let fast = rest_after(2);
    assert!(fast.gathering > Duration::from_millis(4), "{fast:?}");
    assert!(fast.gathering < Duration::from_millis(10), "a doze is no way to save: {fast:?}");
    assert!(Duration::ZERO < fast.next_commit && fast.next_commit < fast.gathering, "{fast:?}");
    assert_eq!(rest_after(10), alone);
    assert!(!rest_after(2).gathering.is_zero());
    let shape = layout("t", &["id"]);
    let other = event(&shape, "9000", Some(r#"{"id":9000}"#), Timestamp(1));
    node.feed(node_id(9), vec![piece(1, 1, vec![other])], vec![shape]);
    assert!((0..10).any(|_| node.work() == Worked::Applied));
    let at = node.at();
    assert!(node.replica().rest(held, held, at).gathering.is_zero(), "what comes last of all would never be done");
    let mut rest_after = |millis| rests(&mut node, held, millis);
    assert_eq!(rest_after(1_000), Rest::default(), "the service is quiet");
    let at = node.at();
    assert_eq!(node.replica().rest(held, Duration::ZERO, at), Rest::default(), "nothing was held");
}

/// A service that loads its database writes as fast as it can for minutes. What others wrote meanwhile waits for its journal,
/// which must not grow for as long as that.
#[test]
fn a_service_that_is_too_fast_is_held_to_the_pace_of_its_node() {
    let mut node = Node::ready(&toml(&["u"]), USERS);
    let held = Duration::from_millis(5);
    let rest = |node: &mut Node| {
        let at = node.at();
        node.replica().rest(held * 3, held, at)
    };
    let mut flood = (0..).map(|number| users(&format!("{number}-"), 3_000));
    let mut goes_on = |node: &mut Node| {
        node.sql(&flood.next().unwrap());
        node.tick(Duration::from_millis(100));
        node.wake();
        node.work();
    };
    (0..20).for_each(|_| goes_on(&mut node));
    assert_eq!(rest(&mut node), Rest { least: held * 3, ..Rest::default() }, "it may be a short one");
    goes_on(&mut node);
    let rests = rest(&mut node);
    assert!(rests.least < held && rests.next_commit > held, "until it commits: {rests:?}");
    let shape = layout("u", &["id", "email"]);
    let other = event(&shape, "x", Some(r#"{"id":"x","email":"x"}"#), Timestamp(1));
    node.feed(node_id(9), vec![piece(1, 1, vec![other])], vec![shape]);
    let arrived = |node: &Node| node.text("SELECT id AS v FROM u WHERE id = 'x'").is_some();
    for _ in 0..100 {
        goes_on(&mut node);
        node.work();
    }
    assert!(arrived(&node), "{:?} rows wait", node.text("SELECT count(*) AS v FROM _rowcast_journal"));
}

/// The journal and what others wrote take turns, and what comes behind both has one, too.
#[test]
fn a_node_becomes_ready_while_all_write_without_a_pause() {
    for rows in [1, 3_000] {
        let mut node = Node::ready(&toml(&["u"]), USERS);
        node.start(false);
        let shape = layout("u", &["id", "email"]);
        let became_ready = (1..200).any(|number: u64| {
            node.sql(&users(&format!("{number}-"), rows));
            let other = event(&shape, "x", Some(r#"{"id":"x","email":"x"}"#), Timestamp(1));
            node.feed(node_id(9), vec![piece(number, number, vec![other])], vec![shape.clone()]);
            node.tick(Duration::from_millis(50));
            node.wake();
            node.work();
            node.work();
            node.replica().is_ready()
        });
        assert!(became_ready, "{rows} rows each time");
    }
}

/// The rest after a hundred commits, so many milliseconds apart.
fn rests(node: &mut Node, held: Duration, millis: u64) -> Rest {
    for _ in 0..100 {
        node.sql("INSERT INTO t DEFAULT VALUES");
        ingest_once(node);
        node.tick(Duration::from_millis(millis));
    }
    let at = node.at();
    node.replica().rest(held, held, at)
}

/// Else each group is what was written while the one before it was ingested, each longer than the last, and the others apply
/// every one of them as a whole.
#[test]
fn groups_of_a_long_journal_end_where_transactions_were_seen_to_end() {
    let mut node = Node::ready(&toml(&["u"]), USERS);
    for (prefix, rows) in [("a", 1_200), ("b", 300), ("c", 400), ("d", 400)] {
        node.sql(&users(prefix, rows));
        ingest_once(&mut node);
    }
    node.run();
    assert_eq!(groups(&node).as_deref(), Some("1200:1,1500:1,1900:1,2300:1"));
}

/// A service that writes without a pause commits many times before the node has the write lock again.
#[test]
fn transactions_are_seen_to_end_also_between_two_pages() {
    let mut node = with_a_long_journal();
    for (prefix, rows) in [("b", 300), ("c", 400)] {
        node.sql(&users(prefix, rows));
        node.wake();
    }
    node.run();
    assert_eq!(groups(&node).as_deref(), Some("1200:1,1500:1,1900:1"));
}

/// A service elsewhere waits for the write lock while a group is applied.
#[test]
fn what_was_seen_to_end_is_taken_together_only_up_to_some_rows() {
    let mut node = with_a_long_journal();
    for (prefix, rows) in [("b", 100), ("c", 90), ("d", 100), ("e", 150)] {
        node.sql(&users(prefix, rows));
        node.wake();
    }
    node.run();
    assert_eq!(groups(&node).as_deref(), Some("1200:1,1390:2,1490:1,1640:1"));
}

/// However many groups that becomes: nothing of another node is applied onto a row that has changed since.
#[test]
fn before_an_apply_all_of_a_journal_becomes_events_where_ends_are_known_too() {
    let mut node = with_a_long_journal();
    let shape = layout("u", &["id", "email"]);
    let remote = event(&shape, "far", Some(r#"{"id":"far","email":"far"}"#), clock::now());
    node.feed(node_id(8), vec![piece(1, 1, vec![remote])], vec![shape]);
    let applied = (0..20).any(|round| {
        for part in ["b", "c", "d", "e", "f"] {
            node.sql(&users(&format!("{part}{round}-"), 100));
            node.wake();
        }
        node.work() == Worked::Applied
    });
    assert!(applied, "{:?}", node.replica());
    assert_eq!(node.text("SELECT count(*) AS v FROM _rowcast_journal").as_deref(), Some("0"));
    let rows = node.text("SELECT count(*) AS v FROM u");
    assert_eq!(node.text("SELECT count(*) AS v FROM u_Events"), rows);
    let groups = node.text("SELECT count(DISTINCT group_last) > 2 AS v FROM u_Events");
    assert_eq!(groups.as_deref(), Some("1"), "all of it became one group");
}

#[test]
fn transactions_are_seen_to_end_also_while_the_write_lock_is_waited_for() {
    // Between two of them the node may get the lock: then it sees only the first of them end.
    let all_seen = (0..100).any(|_| {
        let mut node = with_a_long_journal();
        let service = service(&node.path(), &format!("BEGIN IMMEDIATE; {}", users("b", 300)));
        let writes = std::thread::spawn(move || {
            for after in [users("c", 400), users("d", 500)] {
                std::thread::sleep(Duration::from_millis(10));
                service.execute_batch(&format!("COMMIT; BEGIN IMMEDIATE; {after}")).unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
            service.execute_batch("COMMIT").unwrap();
        });
        ingest_once(&mut node);
        writes.join().unwrap();
        node.run();
        groups(&node).as_deref() == Some("1200:1,1500:1,1900:1,2400:1")
    });
    assert!(all_seen, "the ends of transactions that nobody saw are in the middle of a group");
}

/// A suspect that is alive was the last row of the journal, and its number is given to the next one.
#[test]
fn a_transaction_that_begins_with_a_number_that_was_an_end_stays_whole() {
    let mut node = with_a_long_journal();
    node.sql(&format!("BEGIN; {}; INSERT OR IGNORE INTO u VALUES ('b', 'a1'); COMMIT", users("b", 600)));
    (0..3).for_each(|_| ingest_once(&mut node));
    assert_eq!(node.text("SELECT max(n) AS v FROM _rowcast_journal").as_deref(), Some("1800"), "it was 1801");
    node.sql(&users("c", 700));
    node.run();
    assert_eq!(groups(&node).as_deref(), Some("1200:1,1800:1,2500:1"));
}

/// A row was only suspected when its transaction ended, and the next one deleted it: that is not the first one's doing, however
/// many suspects there are to be looked at.
#[test]
fn what_the_next_transaction_deleted_is_not_in_the_group_of_the_one_that_only_suspected_it() {
    let mut node = with_a_long_journal();
    node.sql(&format!("BEGIN; INSERT OR IGNORE INTO u VALUES ('t', 'a1'); {}; COMMIT", users("b", 10)));
    ingest_once(&mut node);
    node.sql(
        "BEGIN; UPDATE u SET id = 'z' WHERE id = 'a1';
         REPLACE INTO u SELECT 'r' || id, email FROM u WHERE id BETWEEN 'a2' AND 'a9'; COMMIT",
    );
    let suspects = "SELECT count(*) > 600 AS v FROM _rowcast_journal WHERE op = 4";
    assert_eq!(node.text(suspects).as_deref(), Some("1"));
    node.run();
    let deletes = "SELECT DISTINCT group_last AS v FROM u_Events WHERE record_id = 'a1' AND data IS NULL";
    let of_next = "SELECT DISTINCT group_last AS v FROM u_Events WHERE record_id = 'z'";
    assert!(node.text(deletes).is_some());
    assert_eq!(node.text(deletes), node.text(of_next));
}

/// A node that is not complete yet forgets its journal, as it compares all rows; but a group that has begun to become events
/// has its last number already.
#[test]
fn a_group_that_a_restart_interrupts_while_the_rows_are_compared_goes_on_to_its_end() {
    let rows = users("a", 3_000);
    let mut node = Node::new(&toml(&["u"]), &format!("{USERS} {rows};"));
    node.start(true);
    let begun = |node: &mut Node| node.replica().store().durable().open_group.is_some();
    let mut written = false;
    let interrupted = (0..100).any(|_| {
        node.tick(Duration::from_millis(100));
        node.wake();
        node.work();
        // Once they are looked at.
        if !written && node.events("u") > 0 {
            node.sql(&users("b", 3_000));
            written = true;
        }
        begun(&mut node)
    });
    assert!(interrupted && !node.replica().is_ready());
    node.start(true);
    assert!(begun(&mut node));
    node.run();
    assert!(node.replica().is_ready(), "{:?}", node.replica());
    assert_eq!(node.events("u"), 6_000);
}

/// A node whose service wrote 1,200 rows in one transaction, of which a page is ingested.
fn with_a_long_journal() -> Node {
    let mut node = Node::ready(&toml(&["u"]), USERS);
    node.sql(&users("a", 1_200));
    ingest_once(&mut node);
    node
}

/// One statement that makes so many rows.
fn users(prefix: &str, rows: u32) -> String {
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})");
    format!("{numbers} INSERT INTO u SELECT '{prefix}' || i, '{prefix}' || i FROM n")
}

/// One page of a long journal, in turn with what else there is.
fn ingest_once(node: &mut Node) {
    node.wake();
    assert!((0..10).any(|_| node.work() == Worked::Ingested));
}

/// The last number of each group, and from how many transactions its events are.
fn groups(node: &Node) -> Option<String> {
    node.text(
        "SELECT group_last || ':' || count(DISTINCT substr(record_id, 1, 1)) AS v FROM u_Events GROUP BY group_last",
    )
}
