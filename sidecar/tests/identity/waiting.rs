//! Nothing becomes an event before the id is confirmed.

use rowcast::replica::Input;

use super::cluster::Cluster;

fn journal(cluster: &mut Cluster, node: usize) -> String {
    cluster.text(node, "SELECT count(*) AS v FROM _rowcast_journal")
}

#[test]
fn after_a_start_nothing_is_ingested_before_the_others_have_confirmed_the_head() {
    let mut cluster = Cluster::start(2);
    let id = cluster.id(0);
    cluster.kill(0);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    cluster.boot(0, false);
    cluster.work(0, 100);
    assert_eq!(journal(&mut cluster, 0), "1");
    cluster.run(1);
    assert_eq!(journal(&mut cluster, 0), "0", "the other one has answered");
    cluster.run(3);
    assert_eq!((cluster.assert_equal().as_str(), cluster.id(0)), ("x=1", id));
}

#[test]
fn alone_it_waits_for_presence_wait_and_goes_on() {
    let mut cluster = Cluster::start(1);
    cluster.kill(0);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    cluster.boot(0, false);
    cluster.run(1);
    assert_eq!(journal(&mut cluster, 0), "1");
    cluster.run(2);
    assert_eq!(journal(&mut cluster, 0), "0");
    cluster.assert_ready();
}

/// A new node has nothing to confirm.
#[test]
fn a_first_node_does_not_wait_for_its_id() {
    let mut cluster = Cluster::start(1);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    cluster.turn();
    assert_eq!(journal(&mut cluster, 0), "0");
}

/// After a new connection the others have to confirm it again before anything leaves; events are made meanwhile.
#[test]
fn after_a_new_connection_nothing_is_published_before_the_others_have_answered() {
    let mut cluster = Cluster::start(2);
    cluster.cut(0, 9);
    cluster.run(4);
    cluster.cut(0, 0);
    let at = cluster.moment(0);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    let replica = cluster.replica(0);
    replica.handle(Input::Wake, at);
    while replica.work(at).unwrap() != rowcast::replica::Worked::Idle {}
    let feeds = |replica: &mut rowcast::replica::Replica| {
        replica.take_outputs().iter().filter(|output| matches!(output, rowcast::replica::Output::Feed(_))).count()
    };
    assert_eq!(feeds(cluster.replica(0)), 0);
    assert_eq!(journal(&mut cluster, 0), "0");
    cluster.assert_ready();
    cluster.run(3);
    assert_eq!(cluster.assert_equal(), "x=1");
}
