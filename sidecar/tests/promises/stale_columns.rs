//! What stands in a column of which no event says anything: nothing of a deleted record, nor of a time before the load, is
//! carried into what others wrote.

use std::time::Duration;

use super::cluster::Cluster;
use super::{Node, event, layout, layouts, node_id, piece, toml};
use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::edge::store::{SnapshotPage, SnapshotRow};
use rowcast::flow::apply::Applier;
use rowcast::position::Vector;
use rowcast_schema::layout::Layout;

const NEW: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, w TEXT DEFAULT 'none');";
const OLD: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, v TEXT);";

/// Layouts of nodes that have the new column, and of those that do not yet.
fn both() -> (Layout, Layout) {
    (layout("t", &["id", "a", "w"]), layout("t", &["id", "a"]))
}

fn behind(now: Timestamp, millis: u64) -> Timestamp {
    Timestamp::from_millis(now.millis() - i64::try_from(millis).unwrap())
}

/// I4: the delete comes last, and is older than what a node without the column made of the record.
#[test]
fn what_a_deleted_record_held_in_a_new_column_does_not_come_back_with_a_record_made_again_without_it() {
    let (new, old) = both();
    let now = clock::now();
    let created = event(&new, "x", Some(r#"{"id":"x","a":"1","w":"stale"}"#), behind(now, 300));
    let deleted = event(&new, "x", None, behind(now, 200));
    let again = event(&old, "x", Some(r#"{"id":"x","a":"2"}"#), behind(now, 100));
    let (one, other) = (node_id(8), node_id(9));
    let orders: [&[usize]; 3] = [&[0, 1, 2], &[0, 2, 1], &[2, 0, 1]];
    for order in orders {
        let mut node = Node::ready(&toml(&["t"]), NEW);
        for step in order {
            match step {
                0 => node.feed(one, vec![piece(1, 1, vec![created.clone()])], vec![new.clone()]),
                1 => node.feed(one, vec![piece(2, 2, vec![deleted.clone()])], vec![new.clone()]),
                _ => node.feed(other, vec![piece(1, 1, vec![again.clone()])], vec![old.clone()]),
            }
            node.run();
        }
        assert_eq!(node.text("SELECT id || a || w AS v FROM t").as_deref(), Some("x2none"), "{order:?}");
        assert_eq!(node.events("t"), 3, "nothing is made of it: {}", node.story("t", "x"));
    }
}

/// Where the clock is right it is applied, and deletes before it may be forgotten: an event right behind the row's would bring the row
/// back, or a column of it.
#[test]
fn a_migration_carries_nothing_over_for_a_record_of_which_something_waits_for_the_clock() {
    let known = layout("t", &["id", "a", "v"]);
    for waiting in [None, Some(r#"{"id":"x","a":"2","v":"other"}"#)] {
        let mut node = Node::ready(&toml(&["t"]), OLD);
        let now = clock::now();
        let created = event(&known, "x", Some(r#"{"id":"x","a":"1","v":"kept"}"#), behind(now, 300));
        let waits = event(&known, "x", waiting, now.plus(Duration::from_secs(3_600)));
        node.feed(node_id(9), vec![piece(1, 1, vec![created]), piece(2, 2, vec![waits])], vec![known.clone()]);
        node.run();
        assert_eq!(node.replica().store().durable().parked, 1);
        node.sql("ALTER TABLE t RENAME COLUMN v TO w");
        node.run();
        assert!(node.replica().store().pending().is_empty());
        assert_eq!(node.text("SELECT w AS v FROM t").as_deref(), Some("kept"), "until its time has come");
        assert_eq!(node.events("t"), 2, "{}", node.story("t", "x"));
    }
}

/// A node that was away for long is migrated, and loads everything again: what its migration made of rows as they were then lies
/// before deletes that the others have forgotten. What they did not change is told.
#[test]
fn what_a_migration_made_of_rows_that_others_changed_meanwhile_is_not_told_by_a_load() {
    let mut node = Node::ready(&toml(&["t"]), OLD);
    let known = layout("t", &["id", "a", "v"]);
    let (now, author) = (clock::now(), node_id(9));
    let created = |record: &str| {
        event(&known, record, Some(&format!(r#"{{"id":"{record}","a":"1","v":"stale"}}"#)), behind(now, 300))
    };
    let records = ["changed", "deleted", "same"];
    node.feed(author, vec![piece(1, 3, records.map(created).to_vec())], vec![known.clone()]);
    node.run();
    node.replica = None;
    node.sql("ALTER TABLE t RENAME COLUMN v TO w");
    let changed = event(&known, "changed", Some(r#"{"id":"changed","a":"2","v":null}"#), behind(now, 100));
    let row = |sequence, event| SnapshotRow { origin: author, sequence, group_last: sequence, processed: true, event };
    let page = SnapshotPage {
        vector: [(author, 6)].into_iter().collect(),
        rows: vec![row(6, changed), SnapshotRow { group_last: 3, ..row(3, created("same")) }],
        layouts: layouts(&[&known]).to_vec(),
        ..SnapshotPage::default()
    };
    let mut store = node.store();
    let done = store.write(|tx| {
        let mut applier = Applier::new(tx, now);
        applier.snapshot_page(&page, &[])?;
        applier.forget("t", None, &page, &std::collections::BTreeSet::new())?;
        applier.finish()
    });
    assert_eq!(done.unwrap().ingested.len(), 0);
    drop(store);
    let rows = "SELECT group_concat(id || a || coalesce(w, '-')) AS v FROM t ORDER BY id";
    assert_eq!(node.text(rows).as_deref(), Some("changed2-,same1stale"));
    node.start(false);
    node.run();
    assert_eq!(node.text(rows).as_deref(), Some("changed2-,same1stale"));
    let told = node.text(
        "SELECT group_concat(told) AS v FROM (SELECT record_id || sequence_number AS told FROM t_Events ORDER BY timestamp)",
    );
    assert_eq!(told.as_deref(), Some("same3,same1,changed6"));
}

/// The next one comes when their time has come, and before they are tried again: what it supersedes counts in that very write.
#[test]
fn events_that_wait_for_the_clock_count_in_what_supersedes_them() {
    let (new, old) = both();
    let (now, author) = (clock::now(), node_id(9));
    let ahead = |millis| now.plus(Duration::from_secs(3_600)).plus(Duration::from_millis(millis));
    let waiting = [
        event(&new, "again", Some(r#"{"id":"again","a":"1","w":"stale"}"#), behind(now, 100)),
        event(&new, "again", None, ahead(0)),
        event(&new, "kept", Some(r#"{"id":"kept","a":"1","w":"told"}"#), ahead(0)),
    ];
    let next = [("again", r#"{"id":"again","a":"2"}"#), ("kept", r#"{"id":"kept","a":"2"}"#)];
    let mut node = Node::ready(&toml(&["t"]), NEW);
    for (event, number) in waiting.into_iter().zip(1..) {
        node.feed(author, vec![piece(number, number, vec![event])], vec![new.clone()]);
    }
    node.run();
    assert_eq!(node.replica().store().durable().parked, 2);
    assert_eq!(
        node.text("SELECT id || a || w AS v FROM t").as_deref(),
        Some("again1stale"),
        "until their time has come"
    );
    let mut store = node.store();
    let done = store.write(|tx| {
        let mut applier = Applier::new(tx, ahead(20));
        for ((record, data), number) in next.into_iter().zip(4..) {
            let event = event(&old, record, Some(data), ahead(10));
            applier.group(author, &piece(number, number, vec![event]), std::slice::from_ref(&old))?;
        }
        applier.finish()
    });
    done.unwrap();
    assert_eq!(store.durable().parked, 0);
    drop(store);
    assert_eq!(node.text("SELECT id || a || w AS v FROM t ORDER BY id").as_deref(), Some("again2none,kept2told"));
}

/// What the table's rules forbade of an older event is superseded by the newer one that is allowed.
#[test]
fn a_column_that_only_a_forbidden_event_knows_is_the_same_whatever_came_first() {
    let (new, old) = both();
    let now = clock::now();
    let checked = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT CHECK (a <> 'bad'), w TEXT DEFAULT 'none');";
    let forbidden = event(&new, "x", Some(r#"{"id":"x","a":"bad","w":"told"}"#), behind(now, 200));
    let allowed = event(&old, "x", Some(r#"{"id":"x","a":"2"}"#), behind(now, 100));
    for forbidden_first in [true, false] {
        let mut node = Node::ready(&toml(&["t"]), checked);
        for step in [forbidden_first, !forbidden_first] {
            if step {
                node.feed(node_id(8), vec![piece(1, 1, vec![forbidden.clone()])], vec![new.clone()]);
            } else {
                node.feed(node_id(9), vec![piece(1, 1, vec![allowed.clone()])], vec![old.clone()]);
            }
            node.run();
        }
        assert_eq!(node.text("SELECT id || a || w AS v FROM t").as_deref(), Some("x2told"), "{forbidden_first}");
        assert_eq!(node.replica().store().durable().parked, 0);
    }
}

/// Rows that a node had before it joined, in columns that no event speaks of.
#[test]
fn a_row_from_before_the_load_keeps_no_column_that_the_events_do_not_speak_of() {
    let mut cluster = Cluster::ready(1, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1')");
    let mut joiner = Node::new(&toml(&["t"]), NEW);
    joiner.sql("INSERT INTO t VALUES ('x', 'before', 'before')");
    joiner.start(false);
    cluster.nodes.push(joiner);
    cluster.until("all are READY", |cluster| cluster.nodes.iter_mut().all(|node| node.replica().is_ready()));
    cluster.nodes[0].sql("ALTER TABLE t ADD COLUMN w TEXT DEFAULT 'none'");
    cluster.settle();
    cluster.all_say("SELECT id || a || w AS v FROM t", "x1none");
}

/// A load finds that the others have deleted a record, and its own clock does not believe the delete yet.
#[test]
fn a_row_of_which_all_that_is_left_waits_for_the_clock_goes_and_never_passes_for_a_write() {
    let mut node = Node::ready(&toml(&["t"]), NEW);
    let (new, _) = both();
    let (now, author) = (clock::now(), node_id(9));
    let created = event(&new, "x", Some(r#"{"id":"x","a":"1","w":"w"}"#), behind(now, 300));
    node.feed(author, vec![piece(1, 1, vec![created])], vec![new.clone()]);
    node.run();
    let deleted = event(&new, "x", None, now.plus(Duration::from_secs(3_600)));
    let row = SnapshotRow { origin: author, sequence: 2, group_last: 2, processed: true, event: deleted };
    let vector: Vector = [(author, 2)].into_iter().collect();
    let page = SnapshotPage {
        vector,
        rows: vec![row],
        layouts: layouts(&[&new]).to_vec(),
        contexts: vec![],
        next: None,
        total: 1,
    };
    let mut store = node.store();
    let done = store.write(|tx| {
        let mut applier = Applier::new(tx, now);
        applier.snapshot_page(&page, &[])?;
        applier.forget("t", None, &page, &std::collections::BTreeSet::new())?;
        applier.finish()
    });
    done.unwrap();
    drop(store);
    assert_eq!(node.text("SELECT id AS v FROM t"), None);
    node.sql("ALTER TABLE t ADD COLUMN more TEXT");
    node.start(false);
    node.run();
    assert_eq!(node.text("SELECT id AS v FROM t"), None);
    assert_eq!(node.events("t"), 1, "{}", node.story("t", "x"));
}

/// Nodes with a column whose default is another one at each insert, and one without it that writes.
#[test]
fn a_column_with_a_default_of_its_moment_gets_a_value_of_its_own_in_each_row_and_the_same_on_all_nodes() {
    let mut cluster = Cluster::ready(3, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    let rebuild =
        "BEGIN; CREATE TABLE new_t(id TEXT PRIMARY KEY NOT NULL, a TEXT, token TEXT DEFAULT (hex(randomblob(8))));
        INSERT INTO new_t(id, a) SELECT id, a FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT";
    cluster.nodes[1].sql(rebuild);
    cluster.nodes[2].sql(rebuild);
    cluster.settle();
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', '1'), ('y', '1')");
    cluster.settle();
    let tokens = "SELECT group_concat(token, ' ') AS v FROM (SELECT token FROM t ORDER BY id)";
    let of_one = cluster.nodes[1].text(tokens).unwrap();
    let (x, y) = of_one.split_once(' ').unwrap();
    assert!(x.len() == 16 && y.len() == 16 && x != y, "{of_one}");
    assert_eq!(cluster.nodes[2].text(tokens).unwrap(), of_one);
    cluster.nodes[0].sql(rebuild);
    cluster.settle();
    // What its migration computed there, unguarded, is the last word; everywhere.
    let of_last = cluster.nodes[0].text(tokens).unwrap();
    cluster.all_say(tokens, &of_last);
}
