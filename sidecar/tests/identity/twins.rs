//! Two sidecars under one id.

use std::time::Duration;

use rowcast::position::NodeId;

use super::cluster::Cluster;

/// `cp -r` of everything while it runs, the file beside the database, too. Gives the twin.
fn twin(cluster: &mut Cluster, of: usize) -> usize {
    let twin = cluster.add("twin");
    cluster.copy(&cluster.folder(of), &cluster.folder(twin), true);
    twin
}

/// Node 0 of three and its twin, and node 2 hears the twin alone. Gives the twin and the id that both have.
fn apart() -> (Cluster, usize, NodeId) {
    let mut cluster = Cluster::start(3);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    cluster.run(2);
    let old_id = cluster.id(0);
    let twin = twin(&mut cluster, 0);
    cluster.cut(twin, 9);
    cluster.cut(2, 9);
    cluster.boot(twin, false);
    cluster.run(4);
    (cluster, twin, old_id)
}

#[test]
fn a_live_twin_that_copied_everything_takes_a_new_id_within_five_seconds() {
    let mut cluster = Cluster::start(3);
    cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
    cluster.run(2);
    let twin = twin(&mut cluster, 0);
    let old_id = cluster.id(0);
    cluster.boot(twin, false);
    assert_eq!(cluster.id(twin), old_id);
    cluster.sql(twin, "INSERT INTO t VALUES ('twin', 1)");
    cluster.sql(0, "INSERT INTO t VALUES ('original', 1)");
    let began = cluster.now;
    while cluster.replica(twin).speaks_as() == Some(old_id) {
        cluster.turn();
        assert!(cluster.now < began + Duration::from_secs(5), "both speak under one id");
    }
    assert_eq!(cluster.id(0), old_id, "the one that was there keeps its id");
    cluster.run(10);
    cluster.sql(twin, "UPDATE t SET a = 2 WHERE id = 'original'");
    cluster.run(3);
    assert_eq!(cluster.assert_equal(), "original=2 twin=1 x=1");
    assert_eq!(cluster.id(0), old_id);
    assert_ne!(cluster.id(twin), old_id);
}

/// Neither hears the other, both believe in their id, and each has written when they meet.
#[test]
fn twins_that_wrote_apart_from_each_other_lose_nothing_when_they_meet() {
    for side_of_the_twin in [0, 9] {
        let mut cluster = Cluster::start(3);
        cluster.sql(0, "INSERT INTO t VALUES ('x', 1)");
        cluster.run(2);
        let twin = twin(&mut cluster, 0);
        // One of the two is alone, the other is where the others are.
        cluster.cut(twin, side_of_the_twin);
        cluster.cut(0, 9 - side_of_the_twin);
        cluster.boot(twin, false);
        cluster.run(4);
        for n in 0..3 {
            cluster.sql(twin, &format!("INSERT INTO t VALUES ('twin{n}', 1); UPDATE t SET a = 'twin' WHERE id = 'x'"));
            cluster.run(1);
            cluster.sql(
                0,
                &format!("INSERT INTO t VALUES ('original{n}', 1); UPDATE t SET a = 'original' WHERE id = 'x'"),
            );
            cluster.run(1);
        }
        cluster.cut(twin, 0);
        cluster.cut(0, 0);
        cluster.run(20);
        cluster.sql(twin, "INSERT INTO u VALUES ('twin', 1)");
        cluster.sql(0, "INSERT INTO u VALUES ('original', 1)");
        cluster.run(5);
        assert_eq!(
            cluster.assert_equal(),
            "original0=1 original1=1 original2=1 twin0=1 twin1=1 twin2=1 x=original",
            "{side_of_the_twin}"
        );
        assert_ne!(cluster.id(0), cluster.id(twin));
    }
}

/// Each of the two has written where others heard it: no node is right for all. Everything that was written is in the rows.
#[test]
fn twins_that_were_both_heard_leave_the_id_to_nobody_and_lose_nothing() {
    let (mut cluster, twin, old_id) = apart();
    for n in 0..3 {
        cluster.sql(twin, &format!("INSERT INTO t VALUES ('twin{n}', 1); UPDATE t SET a = 'twin' WHERE id = 'x'"));
        cluster.run(1);
        cluster.sql(0, &format!("INSERT INTO t VALUES ('original{n}', 1); UPDATE t SET a = 'original' WHERE id = 'x'"));
        cluster.run(1);
    }
    cluster.cut(twin, 0);
    cluster.cut(2, 0);
    cluster.run(20);
    let rows = "SELECT id || '=' || a AS v FROM (SELECT id, a FROM t ORDER BY id)";
    for node in 0..4 {
        assert_eq!(
            cluster.text(node, rows),
            "original0=1 original1=1 original2=1 twin0=1 twin1=1 twin2=1 x=original",
            "n{node}"
        );
        assert_ne!(cluster.id(node), old_id, "n{node}");
    }
    cluster.assert_equal();
}

/// The network parts and meets again, and no connection notices: what both say arrives by turns for a while.
#[test]
fn twins_whose_events_arrive_by_turns_both_leave_the_id_and_lose_nothing() {
    let (mut cluster, twin, old_id) = apart();
    for n in 0..3 {
        cluster.sql(twin, &format!("INSERT INTO t VALUES ('twin{n}', 1)"));
        cluster.sql(0, &format!("INSERT INTO t VALUES ('original{n}', 1)"));
        cluster.run(1);
    }
    cluster.meet();
    for n in 0..20 {
        cluster.sql(twin, &format!("INSERT INTO u VALUES ('twin{n}', 1)"));
        cluster.turn();
        cluster.sql(0, &format!("INSERT INTO u VALUES ('original{n}', 1)"));
        cluster.turn();
    }
    cluster.run(20);
    cluster.assert_equal();
    for node in 0..4 {
        assert_ne!(cluster.id(node), old_id, "n{node}");
        let rows =
            (cluster.text(node, "SELECT count(*) AS v FROM t"), cluster.text(node, "SELECT count(*) AS v FROM u"));
        assert_eq!(rows, ("7".to_owned(), "40".to_owned()), "n{node}");
    }
}

/// A restart is no twin, however fast.
#[test]
fn a_node_that_hears_its_own_last_words_keeps_its_id() {
    let mut cluster = Cluster::start(2);
    let id = cluster.id(0);
    cluster.run(1);
    for _ in 0..3 {
        cluster.sql(0, "INSERT INTO t VALUES (hex(randomblob(8)), 1)");
        cluster.kill(0);
        cluster.boot(0, false);
        cluster.run(5);
        assert_eq!(cluster.id(0), id);
    }
    cluster.assert_equal();
}
