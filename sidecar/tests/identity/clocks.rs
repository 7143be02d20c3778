//! Clocks that are far ahead, or step back.

use std::time::Duration;

use rowcast::clock::Timestamp;
use rowcast::event::{Event, Operation, Piece};
use rowcast::position::{NodeId, Vector};
use rowcast::replica::Input;
use rowcast::wire::{self, Feed, Message};
use rowcast_schema::layout::Layout;
use uuid::Uuid;

use super::cluster::Cluster;

const HOUR: i64 = 3_600_000;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

fn reasons(cluster: &mut Cluster, node: usize) -> Vec<String> {
    let at = cluster.moment(node);
    cluster.replica(node).status(at).reasons.iter().map(|reason| reason.code.to_string()).collect()
}

fn parked(cluster: &mut Cluster, node: usize) -> String {
    cluster.text(node, "SELECT count(*) AS v FROM _rowcast_parked WHERE reason = 'clock'")
}

/// The clock of a node is not behind its time by more than it may be.
fn assert_not_merged(cluster: &mut Cluster, node: usize) {
    let last = cluster.replica(node).store().last_timestamp();
    let now = cluster.moment(node).wall;
    assert!(last <= now.plus(Duration::from_secs(60)), "n{node}: {last} at {now}");
}

/// An event of a node that is not here, made in the future.
fn from_the_future(cluster: &mut Cluster, node: usize, timestamp: Timestamp) {
    let origin = NodeId(Uuid::from_u128(77));
    let layout = Layout::new("t".into(), vec!["id".into(), "a".into()], vec![0]);
    let event = Event {
        table: "t".into(),
        operation: Operation::Create,
        record_id: "future".into(),
        data: Some(r#"{"id":"future","a":1}"#.into()),
        timestamp,
        layout: layout.id,
        changed: -1,
    };
    let piece = Piece { first: 1, group_last: 1, context: Vector::default(), events: vec![event] };
    let frame = wire::encode(&Message::Feed(Feed { origin, pieces: vec![piece], layouts: vec![layout], before: None }));
    let at = cluster.moment(node);
    cluster.replica(node).handle(Input::Feed { subject: origin, frame: frame.into() }, at);
    cluster.work(node, 100);
}

/// What a node with a wrong clock wrote while nobody told it better waits at the others until its time has come.
#[test]
fn a_far_future_clock_is_quarantined_and_its_events_come_in_when_their_time_has_come() {
    let mut cluster = Cluster::start(3);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 'before')");
    cluster.run(2);
    cluster.cut(2, 9);
    cluster.nodes[2].skew = HOUR;
    cluster.run(6);
    cluster.sql(2, "INSERT INTO t VALUES ('future', 1); UPDATE t SET a = 'future' WHERE id = 'x'");
    cluster.run(2);
    cluster.cut(2, 0);
    cluster.run(5);
    for node in [0, 1] {
        assert_eq!(parked(&mut cluster, node), "2", "n{node}");
        assert_not_merged(&mut cluster, node);
        assert_eq!(cluster.text(node, "SELECT a AS v FROM t WHERE id = 'x'"), "before");
        assert_eq!(reasons(&mut cluster, node), [""; 0], "two of three clocks agree");
    }
    assert_eq!(reasons(&mut cluster, 2), ["clock"]);
    // Its clock is set. What it writes to the record since then is later than what it wrote before.
    cluster.nodes[2].skew = 0;
    cluster.sql(2, "UPDATE t SET a = 'later' WHERE id = 'x'");
    cluster.sql(0, "INSERT INTO t VALUES ('y', 1)");
    cluster.run(5);
    assert_eq!(reasons(&mut cluster, 2), [""; 0]);
    assert_eq!(cluster.text(2, "SELECT id AS v FROM t WHERE id = 'y'"), "y");
    cluster.now += Duration::from_secs(3600);
    cluster.run(10);
    assert_eq!(cluster.assert_equal(), "future=1 x=later y=1");
}

/// Whose clock is wrong is said only where most others say it.
#[test]
fn who_hears_nobody_or_one_other_is_told_to_compare_the_clocks_of_all_nodes() {
    let hint = |cluster: &mut Cluster, node: usize| {
        assert_eq!(reasons(cluster, node), ["clock"], "n{node}");
        let at = cluster.moment(node);
        cluster.replica(node).status(at).reasons[0].hint.clone()
    };
    let mut alone = Cluster::start(1);
    let future = alone.moment(0).wall.plus(Duration::from_secs(7200));
    from_the_future(&mut alone, 0, future);
    assert!(hint(&mut alone, 0).contains("compare the clocks"));
    for (count, said) in [(2, "compare the clocks"), (3, "set this machine's clock")] {
        let mut cluster = Cluster::start(count);
        cluster.nodes[count - 1].skew = HOUR;
        cluster.run(3);
        let hint = hint(&mut cluster, count - 1);
        assert!(hint.contains(said), "of {count}: {hint}");
    }
}

/// While it hears the others it stamps by their time, so nothing has to wait, and it says that its clock is wrong.
#[test]
fn a_node_whose_clock_is_ten_years_ahead_of_the_others_stamps_by_their_time_and_is_not_ready() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[2].skew = TEN_YEARS;
    cluster.run(3);
    cluster.sql(2, "INSERT INTO t VALUES ('x', 1)");
    cluster.run(2);
    assert_eq!(reasons(&mut cluster, 2), ["clock"]);
    for node in 0..3 {
        assert_eq!(cluster.text(node, "SELECT id AS v FROM t"), "x", "n{node}");
        assert_eq!(parked(&mut cluster, node), "0", "n{node}");
    }
    assert_not_merged(&mut cluster, 0);
    cluster.nodes[2].skew = 0;
    cluster.run(3);
    assert_not_merged(&mut cluster, 2);
    cluster.sql(0, "UPDATE t SET a = 2");
    cluster.run(2);
    cluster.sql(2, "UPDATE t SET a = a + 1");
    cluster.run(2);
    assert_eq!(cluster.assert_equal(), "x=3");
}

/// A restart beside a clock that was set back an hour, and the last thing was an event from the future.
#[test]
fn the_clock_does_not_go_back_over_a_restart_and_a_parked_event_does_not_move_it() {
    let mut cluster = Cluster::start(2);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    cluster.run(2);
    let future = cluster.moment(0).wall.plus(Duration::from_secs(7200));
    from_the_future(&mut cluster, 0, future);
    assert_eq!(parked(&mut cluster, 0), "1");
    let before = cluster.replica(0).store().last_timestamp();
    assert!(before < future);
    cluster.kill(0);
    cluster.nodes[0].skew = -HOUR;
    cluster.sql(0, "UPDATE t SET a = 2");
    cluster.boot(0, false);
    assert_eq!(cluster.replica(0).store().last_timestamp(), before);
    cluster.run(5);
    assert_eq!(reasons(&mut cluster, 0), ["clock"]);
    let stamps = cluster.text(0, "SELECT timestamp AS v FROM t_Events WHERE record_id = 'x' ORDER BY sequence_number");
    let stamps: Vec<i64> = stamps.split(' ').map(|stamp| stamp.parse().unwrap()).collect();
    assert!(stamps.is_sorted_by(|a, b| a < b) && stamps.len() == 2 && stamps[1] < future.0, "{stamps:?}");
    assert_eq!(cluster.text(1, "SELECT a AS v FROM t WHERE id = 'x'"), "2");
    cluster.nodes[0].skew = 0;
    cluster.run(5);
    cluster.now += Duration::from_secs(7200);
    cluster.run(10);
    assert_eq!(cluster.assert_equal(), "future=1 x=2");
}

#[test]
fn a_timestamp_at_the_end_of_time_is_parked_and_breaks_nothing() {
    let mut cluster = Cluster::start(2);
    from_the_future(&mut cluster, 0, Timestamp(i64::MAX));
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    cluster.run(3);
    assert_eq!(parked(&mut cluster, 0), "1");
    assert_eq!(parked(&mut cluster, 1), "1", "it is handed on");
    assert_not_merged(&mut cluster, 0);
    assert_eq!(cluster.text(1, "SELECT id AS v FROM t"), "x");
    let at = cluster.moment(0);
    assert!(cluster.replica(0).status(at).parked[0].reason.starts_with("clock"));
}
