//! Who is expelled, and how it comes back; and who fell behind what anybody can hand over.

use rowcast::edge::store::{expel, members_of};
use rowcast::steady::membership::Standing;

use super::{Cluster, MEMBER_TIMEOUT, TABLE, toml};

fn row(id: &str, a: &str) -> (String, String) {
    (id.to_owned(), a.to_owned())
}

/// Everybody is READY and has these rows; what goes on is replicated as before.
fn assert_all(cluster: &mut Cluster, nodes: &[usize], rows: &[(String, String)]) {
    for &at in nodes {
        assert!(cluster.replica(at).is_ready(), "n{at}: {:?}", cluster.why(at));
        assert_eq!(cluster.rows(at), rows, "n{at}");
    }
    for &at in nodes {
        cluster.sql(at, &format!("INSERT INTO t VALUES ('after{at}', 'x')"));
        cluster.run(6);
    }
    for &at in nodes {
        let after = cluster.one(at, "SELECT count(*) FROM t WHERE id LIKE 'after%'");
        assert_eq!(after, i64::try_from(nodes.len()).unwrap(), "n{at}: {:?}", cluster.why(at));
    }
}

/// A partition longer than the member time-out, with both sides writing.
#[test]
fn an_expelled_member_comes_back_as_another_and_no_deleted_row_comes_with_it() {
    let mut cluster = Cluster::with_timeout(&toml("latest"), 3, MEMBER_TIMEOUT);
    cluster
        .sql(0, "INSERT INTO t VALUES ('deleted', '1'), ('kept', '1'), ('both', '1'), ('gone', '1'), ('again', '1')");
    cluster.run(20);
    let old_id = cluster.id(2);
    cluster.split(&[2], &[0, 1]);
    cluster.sql(2, "UPDATE t SET a = 'late' WHERE id IN ('deleted', 'kept', 'both'); DELETE FROM t WHERE id = 'gone'");
    cluster.sql(2, "INSERT INTO t VALUES ('new', 'late'); DELETE FROM t WHERE id = 'again'");
    cluster.sql(2, "INSERT INTO t VALUES ('again', 'late')");
    cluster.run(4);
    cluster.sql(0, "DELETE FROM t WHERE id IN ('deleted', 'again'); UPDATE t SET a = 'later' WHERE id = 'both'");
    cluster.run(20);
    assert_eq!(cluster.one(0, "SELECT count(*) FROM t_Events WHERE operation_type = 'DELETE'"), 2, "they wait for it");
    cluster.outlast();
    assert_eq!(cluster.events(0), 3, "expelled, it holds nothing back: {:?}", cluster.why(0));
    cluster.sql(2, "UPDATE t SET a = 'latest' WHERE id = 'kept'");
    cluster.run(4);
    cluster.heal();
    cluster.run(60);
    assert_ne!(cluster.id(2), old_id);
    let rows = [row("again", "late"), row("both", "later"), row("kept", "latest"), row("new", "late")];
    assert_all(&mut cluster, &[0, 1, 2], &rows);
    let kept = "SELECT count(*) FROM _rowcast_mended WHERE what = 'unshared' AND found LIKE '%late%'";
    assert_eq!(cluster.one(2, kept), 2, "what did not hold of `deleted` and `both` can be looked at");
    // It is a member like the others now, and holds nothing back.
    cluster.run(60);
    for at in 0..3 {
        assert_eq!(cluster.events(at), 7, "n{at}: {:?}", cluster.why(at));
    }
}

/// A node that comes back hears first of all the one that the others have given up, and then the others.
#[test]
fn what_an_expelled_member_told_of_is_not_waited_for() {
    let mut cluster = Cluster::with_timeout(&toml("latest"), 5, MEMBER_TIMEOUT);
    cluster.split(&[0], &[1, 2, 3, 4]);
    cluster.sql(0, "INSERT INTO t VALUES ('alone', '1')");
    cluster.step(2 * MEMBER_TIMEOUT);
    cluster.stop(4);
    cluster.run(100);
    cluster.heal();
    cluster.split(&[0, 4], &[1, 2, 3]);
    cluster.answers = Some(0);
    cluster.start(4, false);
    cluster.run(10);
    assert!(cluster.why(4).iter().any(|why| why.contains("1 events")), "{:?}", cluster.why(4));
    cluster.answers = None;
    cluster.stop(0);
    cluster.run(60);
    assert!(cluster.why(4).iter().any(|why| why.contains("told of them, and is silent")), "{:?}", cluster.why(4));
    cluster.heal();
    cluster.run(40);
    assert_all(&mut cluster, &[1, 2, 3, 4], &[]);
    // It comes back with what it alone has.
    cluster.start(0, false);
    cluster.run(60);
    for at in 0..5 {
        assert!(cluster.replica(at).is_ready(), "n{at}: {:?}", cluster.why(at));
        assert!(cluster.rows(at).contains(&row("alone", "1")), "n{at}");
    }
}

/// Two of five are given up together; what one of them wrote and the other one replaced does not come back on top of it.
#[test]
fn expelled_members_that_return_together_bring_what_they_had_in_its_order() {
    let mut cluster = Cluster::with_timeout(&toml("latest"), 5, MEMBER_TIMEOUT);
    cluster.sql(1, "INSERT INTO t VALUES ('x', 'old'), ('y', 'old')");
    cluster.run(20);
    cluster.split(&[0, 4], &[1, 2, 3]);
    cluster.sql(0, "UPDATE t SET a = 'replaced' WHERE id = 'x'");
    cluster.sql(4, "UPDATE t SET a = 'replaced' WHERE id = 'y'");
    cluster.run(4);
    cluster.sql(4, "UPDATE t SET a = 'stands' WHERE id = 'x'");
    cluster.sql(0, "UPDATE t SET a = 'stands' WHERE id = 'y'");
    cluster.outlast();
    let ids = [cluster.id(0), cluster.id(4)];
    cluster.heal();
    cluster.run(60);
    assert!(ids[0] != cluster.id(0) && ids[1] != cluster.id(4), "both have started over");
    assert_all(&mut cluster, &[0, 1, 2, 3, 4], &[row("x", "stands"), row("y", "stands")]);
}

#[test]
fn of_two_members_only_the_operator_expels_one() {
    let mut cluster = Cluster::with_timeout(&toml("latest"), 2, MEMBER_TIMEOUT);
    cluster.sql(0, "INSERT INTO t VALUES ('deleted', '1'), ('kept', '1')");
    cluster.run(20);
    let id = cluster.id(1);
    cluster.split(&[0], &[1]);
    cluster.sql(1, "UPDATE t SET a = 'late'");
    cluster.run(4);
    cluster.sql(0, "DELETE FROM t WHERE id = 'deleted'");
    cluster.outlast();
    assert_eq!(cluster.events(0), 3, "nothing goes: {:?}", cluster.why(0));
    let path = cluster.path(0);
    assert!(members_of(&path).unwrap().iter().all(|member| member.standing == Standing::Member));
    assert!(expel(&path, id).unwrap());
    assert!(!expel(&path, id).unwrap(), "once");
    cluster.run(40);
    assert_eq!(cluster.events(0), 1, "{:?}", cluster.why(0));
    cluster.start(0, false);
    cluster.run(10);
    cluster.heal();
    cluster.run(60);
    assert_ne!(cluster.id(1), id);
    assert_all(&mut cluster, &[0, 1], &[row("kept", "late")]);
}

/// It has nothing of its own to bring along: what stood in its tables before it joined is not newer than what the others did.
#[test]
fn a_newcomer_that_is_expelled_before_it_has_loaded_is_a_newcomer_again() {
    let mut cluster = Cluster::with_timeout(&toml("latest"), 2, MEMBER_TIMEOUT);
    cluster.sql(0, "INSERT INTO t VALUES ('shared', '1'), ('deleted', '1')");
    cluster.run(10);
    let joiner = cluster.add(&format!("{TABLE} INSERT INTO t VALUES ('shared', 'old'), ('deleted', 'old');"));
    cluster.answers = Some(0);
    cluster.start(joiner, false);
    cluster.run(10);
    cluster.sql(joiner, "UPDATE t SET a = 'older'");
    cluster.run(4);
    let id = cluster.id(joiner);
    cluster.split(&[joiner], &[0, 1]);
    cluster.sql(1, "UPDATE t SET a = '2' WHERE id = 'shared'");
    cluster.outlast();
    cluster.answers = None;
    cluster.heal();
    cluster.run(60);
    assert_ne!(cluster.id(joiner), id);
    assert_all(&mut cluster, &[0, 1, joiner], &[row("deleted", "1"), row("shared", "2")]);
}

/// While it was away one of the others has forgotten a delete already, and the donor has not.
#[test]
fn what_is_brought_along_meets_a_delete_that_only_some_have_forgotten() {
    for donor in [0, 1] {
        let mut cluster = Cluster::with_timeout(&toml("latest"), 3, MEMBER_TIMEOUT);
        cluster.sql(0, "INSERT INTO t VALUES ('a', '1'), ('b', '1')");
        cluster.run(20);
        cluster.split(&[2], &[0, 1]);
        cluster.sql(2, "UPDATE t SET a = 'late'");
        cluster.run(4);
        cluster.sql(0, "DELETE FROM t WHERE id = 'a'");
        cluster.run(4);
        cluster.outlast();
        cluster.sql(0, "DELETE FROM t WHERE id = 'b'; INSERT INTO t VALUES ('b', 'later')");
        // The donor is the one that has most.
        cluster.sql(donor, "INSERT INTO t VALUES ('c', '1'); DELETE FROM t WHERE id = 'c'");
        cluster.heal();
        cluster.run(80);
        assert_all(&mut cluster, &[0, 1, 2], &[row("b", "later")]);
    }
}

/// A node that was given up dies on its way back, at any step.
#[test]
fn an_expelled_member_that_is_restarted_on_its_way_back_ends_alike() {
    for steps in 1..14 {
        let mut cluster = Cluster::with_timeout(&toml("latest"), 3, MEMBER_TIMEOUT);
        cluster.sql(0, "INSERT INTO t VALUES ('deleted', '1'), ('kept', '1')");
        cluster.run(20);
        cluster.split(&[2], &[0, 1]);
        cluster.sql(2, "UPDATE t SET a = 'late'");
        cluster.run(4);
        cluster.sql(0, "DELETE FROM t WHERE id = 'deleted'");
        cluster.outlast();
        cluster.heal();
        cluster.run(steps);
        cluster.start(2, false);
        cluster.run(60);
        for at in 0..3 {
            assert!(cluster.replica(at).is_ready(), "{steps}: n{at}: {:?}", cluster.why(at));
            assert_eq!(cluster.rows(at), [row("kept", "late")], "{steps}: n{at}");
        }
    }
}

/// Whoever has what a member lacks is gone; the one that is there has it only as records.
#[test]
fn a_member_below_every_horizon_loads_everything_again_and_keeps_its_id_and_its_writes() {
    let mut cluster = Cluster::new(&toml("forever"), 2);
    cluster.sql(0, "INSERT INTO t VALUES ('a', '1'), ('b', '1')");
    cluster.run(10);
    let id = cluster.id(1);
    cluster.split(&[1], &[0]);
    cluster.sql(1, "INSERT INTO t VALUES ('unshared', '1'); UPDATE t SET a = 'unshared' WHERE id = 'a'");
    cluster.run(2);
    cluster.sql(0, "UPDATE t SET a = '2' WHERE id = 'b'; INSERT INTO t VALUES ('c', '1')");
    cluster.run(4);
    let joiner = cluster.add(TABLE);
    cluster.split(&[1], &[joiner]);
    cluster.start(joiner, false);
    cluster.run(20);
    assert!(cluster.replica(joiner).is_ready(), "{:?}", cluster.why(joiner));
    cluster.stop(0);
    cluster.heal();
    cluster.run(120);
    assert_eq!(cluster.id(1), id);
    let rows = [row("a", "unshared"), row("b", "2"), row("c", "1"), row("unshared", "1")];
    assert_all(&mut cluster, &[1, joiner], &rows);
}

/// The only node that ever had everything is gone, and has left a part here: an operator says that this is all there is.
#[test]
fn a_node_whose_only_donor_is_gone_waits_for_it_or_for_an_operator() {
    let mut cluster = Cluster::new(&toml("forever"), 1);
    cluster.sql(0, "INSERT INTO t VALUES ('a', '1'), ('b', '1')");
    cluster.run(4);
    let joiner = cluster.add(TABLE);
    (cluster.held, cluster.answers) = (Some(Vec::new()), Some(1));
    cluster.start(joiner, false);
    cluster.run(8);
    cluster.sql(0, "UPDATE t SET a = '2'; UPDATE t SET a = '3' WHERE id = 'b'");
    cluster.run(1);
    cluster.answers = Some(1);
    cluster.run(4);
    assert_eq!(cluster.rows(joiner), [row("a", "2"), row("b", "3")], "loaded");
    cluster.start(joiner, true);
    cluster.run(2);
    cluster.stop(0);
    cluster.run(200);
    assert!(
        !cluster.replica(joiner).is_ready(),
        "it was told that it may be the first, and has heard somebody who has all"
    );
    cluster.start(joiner, false);
    cluster.run(200);
    assert!(!cluster.replica(joiner).is_ready(), "who never had everything does not know that this is all");
    cluster.start(joiner, true);
    cluster.run(20);
    assert!(cluster.replica(joiner).is_ready(), "{:?}", cluster.why(joiner));
    cluster.start(joiner, false);
    cluster.run(20);
    assert!(cluster.replica(joiner).is_ready(), "{:?}", cluster.why(joiner));
}

/// The donor dies in the middle, and what only it had is half here: it does not stay, and is not waited for.
#[test]
fn a_donor_dies_and_a_staler_one_goes_on() {
    let mut cluster = Cluster::new(&toml("forever"), 2);
    let large = "hex(zeroblob(2200000))";
    cluster.sql(0, &format!("INSERT INTO t VALUES ('a', {large}), ('b', {large}), ('c', 'x')"));
    cluster.run(10);
    cluster.split(&[0], &[1]);
    cluster.sql(
        0,
        &format!("UPDATE t SET a = {large} || 'only here' WHERE id = 'a'; UPDATE t SET a = 'y' WHERE id = 'c'"),
    );
    let joiner = cluster.add(TABLE);
    cluster.start(joiner, false);
    cluster.answers = Some(2);
    cluster.run(8);
    assert_eq!(cluster.one(joiner, "SELECT count(*) FROM t WHERE a LIKE '%only here'"), 1, "the first page came");
    assert_eq!(cluster.one(joiner, "SELECT count(*) FROM t"), 1);
    cluster.stop(0);
    cluster.answers = None;
    cluster.run(100);
    assert!(cluster.replica(joiner).is_ready(), "{:?}", cluster.why(joiner));
    assert_eq!(cluster.rows(joiner), cluster.rows(1), "nobody has what only the dead one had");
    cluster.start(0, false);
    cluster.heal();
    cluster.run(40);
    for at in 0..3 {
        assert!(cluster.replica(at).is_ready(), "n{at}: {:?}", cluster.why(at));
        assert_eq!(cluster.rows(at), cluster.rows(0), "n{at}");
        assert_eq!(cluster.one(at, "SELECT count(*) FROM t WHERE a LIKE '%only here' OR a = 'y'"), 2, "n{at}");
    }
}
