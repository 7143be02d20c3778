//! What other nodes hand over: a joiner gets what the donor has, and a peer can do no more than that.

use rowcast::edge::clock;
use rowcast::edge::store::Reader;
use rowcast::event::EventId;
use rowcast::flow::apply::Applier;
use std::time::Duration;

use super::cluster::Cluster;
use super::{Node, event, layout, layouts, node_id, piece, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, c TEXT);";

/// I4: a joiner does not bring back a column from before a delete.
#[test]
fn a_snapshot_ends_at_a_delete_of_a_layout_that_it_has_seen() {
    let mut donor = Node::new(&toml(&["t"]), TABLE);
    let mut store = donor.store();
    let (wide, narrow, now) = (layout("t", &["id", "a", "c"]), layout("t", &["id", "a"]), clock::now());
    let at = |seconds| now.plus(Duration::from_secs(seconds));
    let events = vec![
        event(&wide, "x", Some(r#"{"id":"x","a":"1","c":"old"}"#), now),
        event(&narrow, "x", None, at(1)),
        event(&narrow, "x", Some(r#"{"id":"x","a":"2"}"#), at(2)),
    ];
    let known = layouts(&[&wide, &narrow]);
    for (sequence, event) in (1..).zip(events) {
        store
            .write(|tx| Applier::new(tx, at(3)).group(node_id(9), &piece(sequence, sequence, vec![event]), &known))
            .unwrap();
    }
    assert_eq!(donor.text("SELECT a || ifnull(c, '-') AS v FROM t").as_deref(), Some("2-"));
    let page = Reader::open(&donor.path(), store.declaration()).unwrap().snapshot("t", None, usize::MAX).unwrap();

    let mut joiner = Node::new(&toml(&["t"]), TABLE);
    let mut store = joiner.store();
    store
        .write(|tx| {
            page.layouts.iter().try_for_each(|layout| tx.save_layout(layout))?;
            let mut applier = Applier::new(tx, at(3));
            page.rows.iter().try_for_each(|row| {
                applier.snapshot_event(
                    EventId { origin: row.origin, sequence: row.sequence },
                    row.group_last,
                    &row.event,
                )
            })
        })
        .unwrap();
    assert_eq!(joiner.text("SELECT a || ifnull(c, '-') AS v FROM t").as_deref(), Some("2-"));
}

/// No SQL from a peer but the making of the declared table and its indexes.
#[test]
fn an_index_from_a_peer_carries_no_second_statement() {
    let mut node = Node::new(&toml(&["t"]), "CREATE TABLE other(a); INSERT INTO other VALUES (1);");
    let mut store = node.store();
    for index in ["CREATE INDEX i ON t(a); DELETE FROM other", "CREATE UNIQUE INDEX i ON other(a)"] {
        let statements = [TABLE.to_owned(), index.to_owned()];
        let made = store.write(|tx| tx.create_table("t", &statements));
        assert!(made.is_err(), "{index}");
        assert_eq!(node.text("SELECT count(*) AS v FROM other").as_deref(), Some("1"));
    }
}

/// I5, I10: an update reached one node before its author died, and that node wrote on top of it. Who hears of both gets them in
/// order, and the author, whose disk is gone, gets them back.
#[test]
fn what_was_written_on_top_of_what_only_one_node_got_of_a_dead_author_arrives_with_it() {
    let table = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";
    let mut cluster = Cluster::ready(3, &toml(&["t"]), table);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('x', 'first')");
    cluster.settle();
    let away = cluster.nodes[2].replica.take();
    cluster.nodes[0].sql("UPDATE t SET a = 'last words'");
    cluster.turn(0, || true);
    cluster.turn(1, || true);
    assert_eq!(cluster.nodes[1].text("SELECT a AS v FROM t").as_deref(), Some("last words"));
    cluster.nodes.remove(0);
    cluster.nodes[0].sql("UPDATE t SET a = a || ', and more'; INSERT INTO t SELECT 'y', a FROM t");
    cluster.turn(0, || true);
    assert_eq!(cluster.nodes[1].text("SELECT a AS v FROM t").as_deref(), Some("first"));
    cluster.nodes[1].replica = away;
    cluster.settle();
    let rows = "SELECT id || ': ' || a AS v FROM t ORDER BY id";
    cluster.all_say(rows, "x: last words, and more,y: last words, and more");
    cluster.all_say("SELECT count(*) AS v FROM t_Events WHERE data LIKE '%\"last words\"%'", "1");
    let mut back = Node::new(&toml(&["t"]), table);
    back.start(false);
    cluster.nodes.push(back);
    cluster.until("the author is READY again", |cluster| cluster.nodes[2].replica().is_ready());
    cluster.settle();
    cluster.all_say(rows, "x: last words, and more,y: last words, and more");
}
