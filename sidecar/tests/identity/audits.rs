//! What members have under an id that was left: different events below equal ones, and events that some have not one by one.

use super::cluster::Cluster;

/// A node is set back to a copy of four events and takes a new id. Under the old one a member has another event, below what
/// presence compares, in the copy's part or above it; and whichever of the two has to give way: in the end there is one event
/// under that number.
#[test]
fn different_events_below_equal_ones_are_found_once_an_id_was_left() {
    for (number, variant) in [(3, 0), (3, 1), (3, 2), (5, 0), (5, 1), (5, 2)] {
        let mut cluster = Cluster::start(3);
        let (old_id, place) = (cluster.id(0), cluster.place("copy"));
        for n in 0..7 {
            if n == 4 {
                cluster.kill(0);
                cluster.copy(&cluster.folder(0), &place, false);
                cluster.boot(0, false);
                cluster.run(4);
            }
            cluster.sql(0, &format!("INSERT INTO t VALUES ('x', {n}) ON CONFLICT (id) DO UPDATE SET a = excluded.a"));
            cluster.run(1);
        }
        let other = format!(r#"{{"id":"x","a":"other{variant}"}}"#);
        cluster.sql(2, &format!("UPDATE t_Events SET data = '{other}' WHERE id = '{old_id}:{number:016x}'"));
        cluster.kill(2); // It remembers what it received.
        cluster.boot(2, false);
        cluster.restore(0, &place, false);
        cluster.boot(0, false);
        cluster.run(60);
        assert_ne!(cluster.id(0), old_id);
        assert_eq!(cluster.assert_equal(), "x=6", "number {number}, variant {variant}");
    }
}

/// The only member took over what a node had written in a snapshot: what is below its newest event it has not one by one. Set
/// back to a copy, that node writes, starts again, and hears the member only then.
#[test]
fn what_was_written_past_a_copy_is_told_also_where_nobody_can_say_from_where_on() {
    let mut cluster = Cluster::start(1);
    let (old_id, place) = (cluster.id(0), cluster.place("copy"));
    let write = |cluster: &mut Cluster, value: &str| {
        let sql = format!("INSERT INTO t VALUES ('x', '{value}') ON CONFLICT (id) DO UPDATE SET a = excluded.a");
        cluster.sql(0, &sql);
        cluster.run(1);
    };
    (0..4).for_each(|n| write(&mut cluster, &format!("before{n}")));
    cluster.kill(0);
    cluster.copy(&cluster.folder(0), &place, true);
    cluster.boot(0, false);
    cluster.run(4);
    (0..6).for_each(|n| write(&mut cluster, &format!("lost{n}")));
    let member = cluster.join("n1", false);
    cluster.assert_equal();

    cluster.restore(0, &place, true);
    cluster.cut(0, 9);
    cluster.boot(0, false);
    cluster.run(4);
    (0..4).for_each(|n| write(&mut cluster, &format!("alone{n}")));
    cluster.kill(0);
    cluster.boot(0, false);
    cluster.run(1);
    cluster.cut(0, 0);
    cluster.run(60);
    assert_ne!(cluster.id(0), old_id);
    assert_eq!(cluster.assert_equal(), "x=alone3");
    assert_eq!(cluster.text(member, "SELECT a AS v FROM t"), "alone3");
}
