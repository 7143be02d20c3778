//! How much a node takes at a time, by the room and the time that there are.

use std::time::Duration;

use rowcast::edge::clock;
use rowcast::edge::store::Log;
use rowcast::event::Event;
use rowcast::limits;
use rowcast::replica::{Copying, Earlier, Portion, Worked};

use super::cluster::Cluster;
use super::order::presence;
use super::{Node, event, layout, node_id, piece, toml};

/// SQLite's own size of a page.
const PAGE: i64 = 4096;
/// Bytes of one row.
const ROW: usize = 20_000;
const ROWS: usize = 250;
/// What a transaction writes is more than the events in it: each is there as event and as row, in pages that are not full.
const WRITTEN_FACTOR: i64 = 4;

/// Bytes that the log grew by in the longest transaction of a node that gets everything, one way or the other.
fn longest(loads: bool, room: u64) -> i64 {
    let sql = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";
    let mut cluster = Cluster::ready(if loads { 1 } else { 2 }, &toml(&["t"]), sql);
    if loads {
        cluster.nodes.push(Node::new(&toml(&["t"]), sql));
    }
    cluster.nodes[1].replica = None;
    for number in 0..ROWS {
        cluster.nodes[0].sql(&format!("INSERT INTO t VALUES ('{number}', printf('%.*c', {ROW}, 'x'))"));
        // Each is a group of its own: one is never applied in parts.
        cluster.turn(0, || false);
    }
    cluster.nodes[1].start(false);
    cluster.nodes[1].replica().set_room(room);
    cluster.nodes[1].longest = Some(0);
    cluster.until("the node has everything", |cluster| cluster.nodes[1].replica().is_ready());
    cluster.settle();
    cluster.all_say("SELECT count(*) AS v FROM t", &ROWS.to_string());
    cluster.nodes[1].longest.unwrap() * PAGE
}

/// On a full disk that gets some room again, one transaction that does not fit keeps the node from ever getting on.
#[test]
fn where_there_is_little_room_a_node_that_is_far_behind_takes_little_at_a_time() {
    for loads in [false, true] {
        let little = longest(loads, limits::ROOM_SMALL - 1);
        let bound = WRITTEN_FACTOR * i64::try_from(limits::PAGE_BYTES_SMALL + ROW).unwrap();
        assert!(little <= bound, "loads: {loads}: {little} bytes in one transaction, at most {bound} are right");
        let much = longest(loads, limits::ROOM_USUAL);
        assert!(bound < much, "loads: {loads}: {much} bytes in the longest transaction: the other figure says nothing");
    }
}

#[test]
fn a_node_that_is_ready_or_whose_service_writes_takes_no_more_than_usual() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL);");
    let portion = |node: &mut Node| {
        let at = node.at();
        node.replica().portion(at)
    };
    assert_eq!(portion(&mut node), Portion::Quiet);
    node.start(false);
    node.tick(Duration::from_millis(100));
    assert_eq!(portion(&mut node), Portion::Large, "it is on its way");
    node.sql("INSERT INTO t VALUES ('a')");
    node.tick(Duration::from_millis(100));
    assert_eq!(portion(&mut node), Portion::Usual, "its service writes");
}

/// From 1,000 frames on SQLite has the service copy the log in each of its own commits, and wait for the disk, until a copy comes to
/// its end: what the service wrote during the last one is copied before that.
#[test]
fn a_log_that_was_written_to_while_it_was_copied_is_copied_again_before_the_service_has_to() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL);");
    let at = node.at();
    let earlier = |tried| Earlier { tried, is_fast: false };
    let mut copying = |frames, left, tried| node.replica().copying(Log { frames, left }, earlier(tried), true, at);
    let enough = limits::WAL_FRAMES_LEFT;
    assert!(enough < 1_000);
    assert!(
        matches!(copying(enough - 1, enough - 1, 0), Copying::Not),
        "a short log is not worth the wait for the disk"
    );
    assert!(matches!(copying(enough, enough, 9), Copying::Here));
    assert!(matches!(copying(enough + 5, 5, 1), Copying::Again), "it does not begin anew, and grows");
    assert!(matches!(copying(enough + 5, 0, 1), Copying::Not), "it begins anew with the next write");
    assert!(
        (1..9).any(|tried| matches!(copying(enough + 5, 5, tried), Copying::Not)),
        "readers may be in the way for ever"
    );
}

#[test]
fn a_log_that_grows_faster_than_it_can_be_copied_in_between_is_copied_all_along_where_there_is_room() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL);");
    let at = node.at();
    let copying = |node: &mut Node, left, is_fast| {
        let earlier = Earlier { tried: 0, is_fast };
        node.replica().copying(Log { frames: left, left }, earlier, true, at)
    };
    let enough = limits::WAL_FRAMES_LEFT;
    assert_eq!(copying(&mut node, enough, false), Copying::Here, "there is time");
    assert_eq!(copying(&mut node, enough, true), Copying::Along);
    assert_eq!(copying(&mut node, enough - 1, true), Copying::Not, "whoever commits does not copy it yet");
    assert_eq!(copying(&mut node, limits::WAL_FRAMES_ALONG_MAX, true), Copying::Here, "it is to begin anew");
    node.replica().set_room(limits::ROOM_USUAL - 1);
    assert_eq!(copying(&mut node, enough, true), Copying::Here, "it gets long");
    node.replica().set_room(limits::ROOM_USUAL);
    node.start(false);
    assert_eq!(copying(&mut node, enough, true), Copying::Beside, "it is not READY, and writes alone");
    node.tick(Duration::from_millis(100));
    node.sql("INSERT INTO t VALUES ('a')");
    node.tick(Duration::from_millis(100));
    let at = node.at();
    let earlier = Earlier { tried: 0, is_fast: true };
    let copying = node.replica().copying(Log { frames: enough, left: enough }, earlier, false, at);
    assert_eq!(copying, Copying::Along, "its service writes, too");
}

/// Transactions in which a node applies a backlog, where each holds the write lock for so long.
fn transactions(held: Duration, service_writes: bool) -> u32 {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL);");
    cluster.nodes[1].replica = None;
    for number in 0..1_500 {
        cluster.nodes[0].sql(&format!("INSERT INTO t VALUES ('{number}')"));
        cluster.turn(0, || false);
    }
    let away = &mut cluster.nodes[1];
    away.held = held;
    away.start(false);
    away.tick(Duration::from_millis(100));
    if service_writes {
        away.sql("INSERT INTO t VALUES ('own')");
    }
    away.applied = 0;
    cluster.until("the node has everything", |cluster| cluster.nodes[1].replica().is_ready());
    cluster.settle();
    cluster.all_say("SELECT count(*) AS v FROM t", &(1_500 + u32::from(service_writes)).to_string());
    cluster.nodes[1].applied
}

#[test]
fn where_the_service_writes_and_rows_take_long_to_apply_fewer_are_applied_at_once() {
    let [slow, fast] = [900, 3].map(|millis| transactions(Duration::from_millis(millis), true));
    assert!(fast + 2 < slow, "{slow} transactions that take long, {fast} that do not");
    let [slow, fast] = [900, 3].map(|millis| transactions(Duration::from_millis(millis), false));
    assert_eq!(slow, fast, "nobody waits for them");
}

/// A long group whose beginning was stored before is as many rows for the transaction that applies it as there are in it.
#[test]
fn what_was_stored_before_counts_where_it_is_applied() {
    let mut node = Node::new(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    node.store().write(|tx| tx.set_loaded()).unwrap();
    node.start(false);
    let (shape, now) = (layout("t", &["id", "a"]), clock::now());
    let events = |first: u64, last: u64| -> Vec<Event> {
        let data = |at| format!(r#"{{"id":"k{at}","a":"x"}}"#);
        (first..=last).map(|at| event(&shape, &format!("k{at}"), Some(&data(at)), now)).collect()
    };
    let hear = |node: &mut Node| node.hear(presence(node, 8, &[(8, 9_001)]));
    let work = |node: &mut Node| {
        let before = node.applied;
        while node.work() != Worked::Idle {}
        node.applied - before
    };
    hear(&mut node);
    node.run();
    hear(&mut node);
    node.feed(node_id(8), vec![piece(1, 3_000, events(1, 2_000))], vec![shape.clone()]);
    assert_eq!(work(&mut node), 1, "it is stored");
    node.held = limits::APPLY_TIME_BEHIND * 4 / 3;
    node.feed(node_id(8), vec![piece(2_001, 3_000, events(2_001, 3_000))], vec![shape.clone()]);
    assert_eq!(work(&mut node), 1, "it is applied");
    node.held = Duration::ZERO;
    // 4,000 rows in four thirds of the time: 3,000 are taken next, and not the half, which is the least.
    node.feed(node_id(8), (3_001..=9_000).map(|at| piece(at, at, events(at, at))).collect(), vec![shape.clone()]);
    assert_eq!(work(&mut node), 2);
    assert_eq!(node.text("SELECT count(*) AS v FROM t").as_deref(), Some("9000"));
}
