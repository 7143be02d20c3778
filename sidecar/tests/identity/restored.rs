//! Databases that were restored from an older copy, or lost their last commits.

use super::cluster::Cluster;

/// Node 0 is copied, writes on, and is set back to the copy; what it writes then goes beside what it wrote before.
fn restored(with_the_file: bool, write_alone: u32) {
    let mut cluster = Cluster::start(3);
    cluster.sql(0, "INSERT INTO t VALUES ('old', 1), ('both', 1)");
    cluster.run(2);
    let (old_id, place) = (cluster.id(0), cluster.place("copy"));
    cluster.kill(0);
    cluster.copy(&cluster.folder(0), &place, true);
    cluster.boot(0, false);
    cluster.run(4);
    cluster.sql(0, "INSERT INTO t VALUES ('lost', 2); UPDATE t SET a = 2 WHERE id = 'both'");
    cluster.sql(1, "INSERT INTO t VALUES ('other', 3)");
    cluster.run(2);
    cluster.assert_equal();

    cluster.restore(0, &place, with_the_file);
    cluster.cut(0, 9);
    cluster.boot(0, false);
    for n in 0..write_alone {
        cluster.sql(0, &format!("INSERT INTO t VALUES ('alone{n}', {n}); UPDATE t SET a = 'alone' WHERE id = 'both'"));
        cluster.run(3);
    }
    cluster.sql(2, "UPDATE t SET a = 'meanwhile' WHERE id = 'other'");
    cluster.sql(0, "INSERT INTO u VALUES ('journal', 1)");
    cluster.cut(0, 0);
    cluster.run(10);
    cluster.sql(0, "INSERT INTO t VALUES ('after', 4)");
    cluster.run(5);
    let rows = cluster.assert_equal();
    let mut wanted = vec!["after=4".to_owned()];
    wanted.extend((0..write_alone).map(|n| format!("alone{n}={n}")));
    let both = if write_alone > 0 { "both=alone" } else { "both=2" };
    wanted.extend([both, "lost=2", "old=1", "other=meanwhile"].map(str::to_owned));
    assert_eq!(rows, wanted.join(" "));
    assert_eq!(cluster.text(1, "SELECT id AS v FROM u"), "journal");
    assert_ne!(cluster.id(0), old_id, "the numbers of the old id go on where the copy knows nothing of");
}

#[test]
fn a_backup_restored_with_the_file_gets_back_what_it_lost_under_a_new_id() {
    restored(true, 0);
}

#[test]
fn a_backup_restored_without_the_file_gets_back_what_it_lost_under_a_new_id() {
    restored(false, 0);
}

/// It is alone for long enough to believe in its id, and gives numbers out a second time; nobody takes them.
#[test]
fn a_restore_that_writes_past_the_old_head_before_anyone_answers_loses_nothing_of_either_side() {
    restored(true, 1);
    restored(true, 5);
}

#[test]
fn nor_without_the_file() {
    restored(false, 5);
}

/// The file beside the database is newer than the database: a snapshot of one volume of two.
#[test]
fn a_database_set_back_below_its_file_takes_a_new_id_at_once() {
    let mut cluster = Cluster::start(2);
    let place = cluster.place("copy");
    cluster.kill(0);
    cluster.copy(&cluster.folder(0), &place, false);
    cluster.boot(0, false);
    cluster.run(4);
    let old_id = cluster.id(0);
    cluster.sql(0, "INSERT INTO t VALUES ('lost', 1)");
    cluster.run(2);
    cluster.kill(0);
    let file = std::fs::read(cluster.folder(0).join("app.db-rowcast")).unwrap();
    cluster.restore(0, &place, false);
    std::fs::write(cluster.folder(0).join("app.db-rowcast"), file).unwrap();
    cluster.boot(0, false);
    assert_ne!(cluster.id(0), old_id);
    cluster.run(6);
    assert_eq!(cluster.assert_equal(), "lost=1");
}

/// A machine's snapshot, restored: everything is as it was, and the others know better.
#[test]
fn a_node_that_lost_its_last_commits_gets_them_back_from_the_others() {
    let mut cluster = Cluster::start(3);
    cluster.sql(1, "INSERT INTO t VALUES ('kept', 1)");
    cluster.run(2);
    let place = cluster.place("snapshot");
    cluster.copy(&cluster.folder(1), &place, true);
    cluster.sql(
        1,
        "INSERT INTO t VALUES ('tail', 1); UPDATE t SET a = 2 WHERE id = 'kept'; DELETE FROM t WHERE id = 'none'",
    );
    cluster.run(2);
    let old_id = cluster.id(1);
    cluster.restore(1, &place, true);
    cluster.boot(1, false);
    cluster.run(10);
    assert_eq!(cluster.assert_equal(), "kept=2 tail=1");
    assert_ne!(cluster.id(1), old_id);
}

/// The work is in pages; a crash between any two of them, and the node goes on where it was.
#[test]
fn a_crash_at_any_step_of_the_way_to_a_new_id_loses_nothing() {
    let mut cluster = Cluster::start(2);
    let place = cluster.place("copy");
    cluster.kill(0);
    cluster.copy(&cluster.folder(0), &place, true);
    cluster.boot(0, false);
    cluster.run(4);
    cluster.sql(0, "INSERT INTO t VALUES ('lost', 1)");
    cluster.run(2);
    cluster.restore(0, &place, true);
    cluster.cut(0, 9);
    cluster.boot(0, false);
    cluster.run(3);
    // More than two pages, in groups of several sizes.
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
         INSERT INTO t SELECT printf('alone%04d', i), i FROM n";
    for sql in [many, "INSERT INTO u VALUES ('x', 1)", "UPDATE t SET a = -a WHERE id > 'alone0500'"] {
        cluster.sql(0, sql);
        cluster.run(1);
    }
    cluster.cut(0, 0);
    let mut steps = 0;
    while cluster.replica(0).store().durable().renewal.is_none() {
        cluster.now += std::time::Duration::from_millis(20);
        cluster.work(1, usize::MAX);
        cluster.work(0, 1);
        steps += 1;
        assert!(steps < 2_000, "it never begins");
    }
    let new_id = cluster.id(0);
    for _ in 0..2 {
        cluster.kill(0);
        cluster.boot(0, false);
        assert!(cluster.replica(0).store().durable().renewal.is_some(), "it is under way");
        assert_eq!(cluster.id(0), new_id);
        cluster.work(0, 1);
    }
    cluster.run(12);
    let rows = cluster.assert_equal();
    assert!(rows.contains("alone0500=500 alone0501=-501") && rows.ends_with("lost=1"), "{rows}");
    assert_eq!(cluster.id(0), new_id);
}

/// A long transaction is in the middle of becoming events, in several transactions, when the id is left.
#[test]
fn a_long_group_that_is_not_whole_yet_goes_along() {
    let mut cluster = Cluster::start(2);
    let place = cluster.place("copy");
    cluster.sql(
        0,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1700)
         INSERT INTO t SELECT printf('k%04d', i), i FROM n",
    );
    cluster.work(0, 2);
    assert!(cluster.replica(0).store().durable().open_group.is_some(), "it is under way");
    cluster.kill(0);
    cluster.copy(&cluster.folder(0), &place, true);
    cluster.boot(0, false);
    cluster.run(4);
    cluster.sql(0, "INSERT INTO t VALUES ('lost', 1)");
    cluster.run(2);
    for with_the_file in [true, false] {
        cluster.restore(0, &place, with_the_file);
        cluster.sql(0, &format!("INSERT INTO t VALUES ('restored {with_the_file}', 1)"));
        cluster.boot(0, false);
        cluster.run(10);
        let rows = cluster.assert_equal();
        assert!(rows.contains("k1700=1700") && rows.contains("lost=1"), "{rows}");
    }
    let rows = cluster.assert_equal();
    assert!(rows.contains("restored true=1 restored false=1") || rows.contains("restored false=1 restored true=1"));
}
