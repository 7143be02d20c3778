//! Loading again takes out what the donor has no more, and nothing else.

use rowcast::edge::clock;
use rowcast::edge::store::{SnapshotPage, SnapshotRow};
use rowcast::flow::apply::Applier;
use std::time::Duration;

use super::{Node, event, layout, node_id, piece, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

fn forget(node: &mut Node, page: &SnapshotPage) {
    let mut store = node.store();
    let now = clock::now();
    let next = store.write(|tx| Applier::new(tx, now).forget("t", None, page, &Default::default()));
    assert_eq!(next.unwrap(), None);
}

/// An event that the donor does not have yet comes again from its author: it is no sign that the record was deleted.
#[test]
fn a_record_that_only_the_donor_does_not_know_yet_is_not_deleted() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let shape = layout("t", &["id", "a"]);
    let remote = event(&shape, "r", Some(r#"{"id":"r","a":"theirs"}"#), clock::now());
    node.feed(node_id(9), vec![piece(1, 1, vec![remote])], vec![shape]);
    node.run();
    node.sql("UPDATE t SET a = 'ours' WHERE id = 'r'");
    node.run();
    assert_eq!(node.events("t"), 2);
    node.replica = None;
    forget(&mut node, &SnapshotPage::default());
    let told = node.text("SELECT operation_type || ' ' || processed AS v FROM t_Events ORDER BY id");
    assert_eq!(told.as_deref(), Some("UPDATE 1"));
    assert_eq!(node.text("SELECT id || a AS v FROM t").as_deref(), Some("rours"));
}

/// I3: what the service did to a row, and has not announced, is an event before the row is made from what the donor has.
#[test]
fn what_was_not_announced_yet_is_an_event_before_older_ones_are_forgotten() {
    let announced = toml(&["t"]).replace("[tables.t]", "[tables.t]\ncapture = \"events\"");
    let mut node = Node::ready(&announced, TABLE);
    let (shape, now) = (layout("t", &["id", "a"]), clock::now());
    let made = |a: &str, after| {
        event(&shape, "r", Some(&format!(r#"{{"id":"r","a":"{a}"}}"#)), now.plus(Duration::from_millis(after)))
    };
    node.feed(
        node_id(9),
        vec![piece(1, 1, vec![made("old", 0)]), piece(2, 2, vec![made("new", 1)])],
        vec![shape.clone()],
    );
    node.run();
    assert_eq!(node.text("SELECT a AS v FROM t").as_deref(), Some("new"));
    node.sql("UPDATE t SET a = 'the service' WHERE id = 'r'");
    node.replica = None;
    let newest = SnapshotRow { origin: node_id(9), sequence: 2, group_last: 2, processed: true, event: made("new", 1) };
    let vector = [(node_id(9), 2)].into_iter().collect();
    forget(
        &mut node,
        &SnapshotPage { vector, rows: vec![newest], layouts: vec![shape.clone()], ..SnapshotPage::default() },
    );
    assert_eq!(node.text("SELECT a AS v FROM t").as_deref(), Some("the service"));
    let told = node.text("SELECT json_extract(data, '$.a') AS v FROM t_Events ORDER BY timestamp");
    assert_eq!(told.as_deref(), Some("new,the service"));
}

/// The donor was restored from a backup while a node loaded from it, and gives its numbers out again: what they stood for is
/// counted by nobody.
#[test]
fn what_an_earlier_load_brought_gives_way_to_the_event_that_has_its_number_now() {
    let both = format!("{TABLE} CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    let mut node = Node::ready(&toml(&["t", "u"]), &both);
    node.replica = None;
    let (now, donor) = (clock::now(), node_id(9));
    let page = |table: &str, sequence, record: &str| {
        let shape = layout(table, &["id", "a"]);
        let event = event(&shape, record, Some(&format!(r#"{{"id":"{record}","a":"x"}}"#)), now);
        let row = SnapshotRow { origin: donor, sequence, group_last: sequence, processed: true, event };
        let vector = [(donor, 5)].into_iter().collect();
        SnapshotPage { vector, rows: vec![row], layouts: vec![shape], ..SnapshotPage::default() }
    };
    let load = |node: &mut Node, page: &SnapshotPage| {
        let held = node.store().tables_of_others().unwrap();
        node.store().write(|tx| Applier::new(tx, now).snapshot_page(page, &held)).unwrap();
        held
    };
    assert!(load(&mut node, &page("t", 5, "before")).is_empty(), "nobody else's events are here yet");
    assert_eq!(node.text("SELECT id AS v FROM t").as_deref(), Some("before"));
    assert_eq!(load(&mut node, &page("u", 5, "after")), ["t"]);
    assert_eq!((node.text("SELECT id AS v FROM t"), node.events("t")), (None, 0));
    assert_eq!((node.text("SELECT id AS v FROM u").as_deref(), node.events("u")), (Some("after"), 1));
    let kept = node.text("SELECT what || ' ' || record_id AS v FROM _rowcast_mended");
    assert_eq!(kept.as_deref(), Some("renumbered before"));
    // The same event again is no other one.
    assert_eq!(load(&mut node, &page("u", 5, "after")), ["u"]);
    assert_eq!((node.text("SELECT id AS v FROM u").as_deref(), node.events("u")), (Some("after"), 1));
    // Where a table keeps its history it keeps what it counts, and this was never counted.
    load(&mut node, &page("u", 4, "after"));
    forget(&mut node, &page("t", 3, "nothing"));
    let mut store = node.store();
    store.write(|tx| Applier::new(tx, now).forget("u", None, &page("u", 5, "after"), &Default::default())).unwrap();
    assert_eq!(node.text("SELECT group_concat(sequence_number) AS v FROM u_Events").as_deref(), Some("5"));
}

/// What arrives by itself after such a load has the number of what that brought, too, while the position is below: applied at once,
/// or laid by because its author's transaction is a long one.
#[test]
fn what_arrives_after_a_load_has_its_number_for_itself() {
    let both = format!("{TABLE} CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    let mut node = Node::ready(&toml(&["t", "u"]), &both);
    node.replica = None;
    let (now, author) = (clock::now(), node_id(9));
    let (old, new) = (layout("t", &["id", "a"]), layout("u", &["id", "a"]));
    let made = |shape, record: &str| event(shape, record, Some(&format!(r#"{{"id":"{record}","a":"x"}}"#)), now);
    let row = |sequence, record: &str| SnapshotRow {
        origin: author,
        sequence,
        group_last: sequence,
        processed: true,
        event: made(&old, record),
    };
    let vector = [(author, 2)].into_iter().collect();
    let rows = vec![row(1, "first"), row(2, "second")];
    let page = SnapshotPage { vector, rows, layouts: vec![old.clone()], ..SnapshotPage::default() };
    let held = node.store().tables_of_others().unwrap();
    let loaded = node.store().write(|tx| {
        tx.set_load_target(Some(&page.vector))?;
        Applier::new(tx, now).snapshot_page(&page, &held)
    });
    loaded.unwrap();
    assert_eq!(node.text("SELECT group_concat(id) AS v FROM t").as_deref(), Some("first,second"));

    let mut store = node.store();
    let arrives = |sequence, last, record: &str| piece(sequence, last, vec![made(&new, record)]);
    let applied = store.write(|tx| {
        let mut applier = Applier::new(tx, now);
        applier.group(author, &arrives(1, 1, "after"), std::slice::from_ref(&new))?;
        applier.finish()
    });
    applied.unwrap();
    let staged = store.write(|tx| {
        let mut applier = Applier::new(tx, now);
        applier.stage(author, &arrives(2, 3, "staged"), std::slice::from_ref(&new))?;
        applier.finish()
    });
    staged.unwrap();
    assert_eq!((node.text("SELECT id AS v FROM t"), node.events("t")), (None, 0));
    assert_eq!((node.text("SELECT id AS v FROM u").as_deref(), node.events("u")), (Some("after"), 2));
    let kept = node.text("SELECT group_concat(what || ' ' || record_id, ', ') AS v FROM _rowcast_mended");
    assert_eq!(kept.as_deref(), Some("renumbered first, renumbered second"));
}
