//! What goes, when, and that nothing comes back.

use std::time::Duration;

use rowcast::edge::store::Answer;

use super::stage::{declaration, reader};
use super::{Cluster, DAY, TABLE, toml};

#[test]
fn with_the_latest_history_only_what_rows_come_from_is_kept_and_tombstones_go() {
    let mut cluster = Cluster::new(&toml("latest"), 3);
    for round in 0..20 {
        let (at, other) = (round % 3, (round + 1) % 3);
        cluster.sql(at, &format!("INSERT INTO t VALUES ('k{round}', 'x')"));
        cluster.sql(at, &format!("UPDATE t SET a = 'y{round}' WHERE id = 'k{round}'"));
        cluster.run(2);
        cluster.sql(other, &format!("UPDATE t SET a = 'z{round}' WHERE id = 'k{round}'"));
        cluster.run(2);
        if round % 2 == 0 {
            cluster.sql(at, &format!("DELETE FROM t WHERE id = 'k{round}'"));
        }
    }
    cluster.run(30);
    for at in 0..3 {
        assert_eq!(cluster.rows(at).len(), 10);
        assert_eq!(cluster.rows(at), cluster.rows(0));
        assert_eq!(cluster.events(at), 10, "node {at}: {:?}", cluster.why(at));
        let contexts = cluster.one(at, "SELECT count(*) FROM _rowcast_contexts");
        assert!(contexts <= 30, "contexts go with their events: {contexts}");
        assert!(cluster.replica(at).is_ready());
    }
}

/// Who asks knows up to where the other one has forgotten from what it said last, which may be a moment ago.
#[test]
fn a_history_of_which_a_part_went_is_not_served() {
    let mut cluster = Cluster::new(&toml("latest"), 2);
    cluster.sql(0, "INSERT INTO t VALUES ('k', '1'), ('l', '1')");
    for round in 0..5 {
        cluster.sql(0, &format!("UPDATE t SET a = '{round}' WHERE id = 'k'"));
        cluster.run(2);
    }
    cluster.run(30);
    assert_eq!(cluster.events(0), 2, "of seven, those that the rows come from: {:?}", cluster.why(0));
    let (origin, path) = (cluster.id(0), cluster.path(0));
    let reader = reader(&path, &declaration(&toml("latest")));
    for first in 1..=7 {
        let answer = reader.fetch(origin, (first, 7), 1_000_000).unwrap();
        let whole = first == 7;
        assert_eq!(matches!(answer, Answer::Events(_)), whole, "from {first} on: {answer:?}");
    }
}

#[test]
fn history_is_kept_for_ever_or_for_its_time_or_not_at_all() {
    for (history, early, late) in [("forever", 4, 4), ("30d", 4, 0), ("latest", 0, 0)] {
        let mut cluster = Cluster::new(&toml(history), 2);
        cluster.sql(0, "INSERT INTO t VALUES ('k', '1')");
        cluster.sql(0, "UPDATE t SET a = '2'");
        cluster.run(2);
        cluster.sql(1, "UPDATE t SET a = '3'");
        cluster.run(2);
        cluster.sql(0, "DELETE FROM t");
        cluster.run(30);
        assert_eq!((cluster.events(0), cluster.events(1)), (early, early), "{history}");
        cluster.step(29 * DAY);
        cluster.run(30);
        assert_eq!((cluster.events(0), cluster.events(1)), (early, early), "{history}");
        cluster.step(2 * DAY);
        cluster.run(30);
        assert_eq!((cluster.events(0), cluster.events(1)), (late, late), "{history}");
    }
}

/// A silent member holds everything back that it does not have, also over a restart of the others.
#[test]
fn a_member_that_is_away_gets_what_it_missed_and_a_tombstone_waits_for_it() {
    let mut cluster = Cluster::new(&toml("latest"), 3);
    cluster.sql(0, "INSERT INTO t VALUES ('k', '1')");
    cluster.run(30);
    cluster.split(&[2], &[0, 1]);
    cluster.sql(2, "UPDATE t SET a = 'late'");
    cluster.run(2);
    cluster.step(Duration::from_secs(3600));
    cluster.sql(0, "DELETE FROM t");
    cluster.run(30);
    cluster.start(0, false);
    cluster.start(1, false);
    cluster.run(60);
    assert_eq!(cluster.one(0, "SELECT count(*) FROM t_Events WHERE operation_type = 'DELETE'"), 1);
    cluster.heal();
    cluster.run(60);
    for at in 0..3 {
        assert_eq!(cluster.rows(at), [], "the late update is older than the delete");
        assert_eq!(cluster.events(at), 0, "node {at}: {:?}", cluster.why(at));
    }
}

/// The feed of an update is held back until the delete of another node is compacted by everybody who has it.
#[test]
fn a_delayed_update_against_a_compacted_tombstone_is_known_already() {
    let mut cluster = Cluster::new(&toml("latest"), 3);
    cluster.sql(0, "INSERT INTO t VALUES ('k', '1')");
    cluster.run(30);
    cluster.held = Some(Vec::new());
    cluster.sql(1, "UPDATE t SET a = 'late'");
    cluster.run(1);
    let held = cluster.held.take().unwrap();
    assert_eq!(held.len(), 1);
    cluster.sql(0, "DELETE FROM t");
    cluster.run(40);
    assert_eq!((cluster.events(0), cluster.events(1), cluster.events(2)), (0, 0, 0));
    let id = cluster.id(1);
    for (from, frame) in &held {
        cluster.hand_over(*from, id, frame);
    }
    cluster.run(10);
    assert!((0..3).all(|at| cluster.rows(at).is_empty()), "nothing comes back");
}

#[test]
fn a_minority_does_not_compact_and_says_so() {
    let mut cluster = Cluster::new(&toml("latest"), 3);
    cluster.sql(0, "INSERT INTO t VALUES ('k', '1')");
    cluster.run(4);
    cluster.split(&[0], &[1, 2]);
    cluster.run(20);
    let before = cluster.events(0);
    cluster.sql(0, "UPDATE t SET a = '2'");
    cluster.run(60);
    assert_eq!(cluster.events(0), before + 1);
    assert!(cluster.why(0).iter().any(|text| text.contains("compact")), "{:?}", cluster.why(0));
}

/// Whoever loads is a member from before its first page.
#[test]
fn a_joiner_on_its_way_holds_compaction_back() {
    let mut cluster = Cluster::new(&toml("latest"), 2);
    cluster.sql(0, "INSERT INTO t VALUES ('k', '1'), ('l', '1')");
    cluster.run(30);
    let joiner = cluster.add(TABLE);
    cluster.start(joiner, false);
    cluster.run(1);
    // It was heard; its own data is not there yet.
    cluster.split(&[joiner], &[0, 1]);
    cluster.sql(0, "UPDATE t SET a = '2' WHERE id = 'k'; DELETE FROM t WHERE id = 'l'");
    cluster.run(60);
    assert_eq!((cluster.events(0), cluster.events(1)), (4, 4), "{:?}", cluster.why(0));
    cluster.heal();
    cluster.run(60);
    assert!(cluster.replica(joiner).is_ready(), "{:?}", cluster.why(joiner));
    assert_eq!(cluster.rows(joiner), [("k".to_owned(), "2".to_owned())]);
    assert_eq!((cluster.events(0), cluster.events(1)), (1, 1));
}

/// Thousands of updates over a day: the file stays what it was after two hours.
#[test]
fn the_file_does_not_grow_with_the_updates_when_the_live_rows_are_constant() {
    let mut cluster = Cluster::new(&toml("latest"), 3);
    for at in 0..60 {
        cluster.sql(0, &format!("INSERT INTO t VALUES ('k{at}', hex(zeroblob(100)))"));
    }
    cluster.run(10);
    let bytes = |cluster: &Cluster, at| {
        cluster.one(at, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    };
    let mut at_hour_two = Vec::new();
    let minutes = 24 * 60;
    for minute in (0..minutes).step_by(2) {
        let at = minute / 2 % 3;
        let key = minute % 60;
        cluster.sql(
            at,
            &format!(
                "UPDATE t SET a = hex(randomblob(100)) WHERE id IN ('k{key}', 'k{}', 'k{}');
                 DELETE FROM t WHERE id = 'x{}'; INSERT INTO t VALUES ('x{minute}', hex(randomblob(100)))",
                (key + 7) % 60,
                (key + 31) % 60,
                minute.saturating_sub(6)
            ),
        );
        cluster.step(Duration::from_secs(119));
        cluster.run(2);
        if minute == 2 * 60 {
            at_hour_two = (0..3).map(|at| bytes(&cluster, at)).collect();
        }
    }
    for (at, early) in at_hour_two.into_iter().enumerate() {
        let late = bytes(&cluster, at);
        assert!(late * 100 <= early * 105, "node {at}: {early} bytes at hour 2, {late} at hour 24");
        assert!(cluster.one(at, "SELECT count(*) FROM _rowcast_contexts") < 500);
    }
}
