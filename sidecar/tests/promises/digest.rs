//! What is damaged on one node is found, told from lag, located and mended; and what is not damaged is left alone.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use rowcast::edge::store::Reader;
use rowcast::flow::fetch::Request;
use rowcast::limits;
use rowcast::observe::status::{Code, Report, State, Status};
use rowcast::replica::{Asked, Input, Output, Worked};
use rusqlite::config::DbConfig;

use super::stage::answer;
use super::{Node, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, n INTEGER UNIQUE);";

const ROWS: u32 = 900;

fn rows(count: u32) -> String {
    format!(
        "WITH RECURSIVE i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < {count})
         INSERT INTO t SELECT printf('k%04d', x), 'a' || x, x FROM i"
    )
}

const INTERVAL: Duration = Duration::from_secs(5);

/// Nodes that hear one another at once.
struct Cluster {
    nodes: Vec<Node>,
    readers: Vec<Reader>,
    /// The places of those that were asked something.
    asked: BTreeSet<usize>,
    /// Who answers nothing, and not what is asked of records one by one.
    silent: Option<usize>,
    silent_of_records: bool,
}

impl Cluster {
    /// As [`Cluster::with`], with [`ROWS`].
    fn of(count: usize, interval: Duration) -> Self {
        Self::with(count, interval, ROWS)
    }

    /// The first has so many rows; the others load them.
    fn with(count: usize, interval: Duration, filled: u32) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            readers: Vec::new(),
            asked: BTreeSet::new(),
            silent: None,
            silent_of_records: false,
        };
        for at in 0..count {
            let mut node = Node::new(&toml(&["t"]), if at == 0 { TABLE } else { "" });
            if at == 0 {
                node.sql(&rows(filled));
            }
            node.verify_interval = interval;
            node.start(at == 0);
            let store = node.replica().store();
            cluster.readers.push(Reader::open(store.path(), store.declaration()).unwrap());
            cluster.nodes.push(node);
        }
        cluster.run_until("all are READY, and have said so to all", |cluster| {
            (0..count).all(|at| {
                let status = cluster.status(at);
                let ready = status.members.iter().filter(|member| member.state == State::Ready).count();
                status.is_ready() && ready + 1 == count
            })
        });
        cluster
    }

    /// A tenth of a second on every node, and everything that they say is heard.
    fn turn(&mut self) {
        for at in 0..self.nodes.len() {
            self.nodes[at].wake();
            self.nodes[at].tick(Duration::from_millis(25));
            for _ in 0..50 {
                let worked = self.nodes[at].work();
                self.deliver(at);
                if worked == Worked::Idle {
                    break;
                }
            }
        }
    }

    fn deliver(&mut self, from: usize) {
        let id = self.nodes[from].replica().node();
        for output in self.nodes[from].replica().take_outputs() {
            match output {
                Output::Feed(frame) => self.tell(from, |_| Input::Feed { subject: id, frame: frame.clone().into() }),
                Output::Presence(frame) => self.tell(from, |_| Input::Presence(frame.clone().into())),
                Output::Ask { ask, to, request } => {
                    let asked = self.nodes.iter_mut().position(|node| node.replica().node() == to).unwrap();
                    self.asked.insert(asked);
                    let of_records = matches!(request, Request::Entries { .. });
                    if self.silent == Some(asked) || (self.silent_of_records && of_records) {
                        continue;
                    }
                    let frame = answer(&self.readers[asked], &request);
                    let at = self.nodes[from].at();
                    self.nodes[from].replica().handle(Input::Answer { ask, frame: Some(frame.into()) }, at);
                }
                Output::Reply { .. } => {}
            }
        }
    }

    fn tell(&mut self, from: usize, input: impl Fn(usize) -> Input) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let at = self.nodes[to].at();
            self.nodes[to].replica().handle(input(to), at);
        }
    }

    fn run_until(&mut self, what: &str, mut reached: impl FnMut(&mut Self) -> bool) {
        for _ in 0..4_000 {
            if reached(self) {
                return;
            }
            self.turn();
        }
        let statuses: Vec<Status> = (0..self.nodes.len()).map(|at| self.status(at)).collect();
        panic!("not in time: {what}\n{statuses:#?}");
    }

    fn status(&mut self, node: usize) -> Status {
        let at = self.nodes[node].at();
        self.nodes[node].replica().status(at)
    }

    fn rows(&self, node: usize) -> Option<String> {
        self.nodes[node].text("SELECT quote(id) || quote(a) || quote(n) AS v FROM t ORDER BY id")
    }

    fn are_equal(&self) -> bool {
        let first = self.rows(0);
        (1..self.nodes.len()).all(|node| self.rows(node) == first)
    }

    /// Has a node compare everything now.
    fn verify(&mut self, node: usize, repair: bool) -> Report {
        let id = self.status(node).verification.asked.map_or(0, |last| last.id) + 1;
        let at = self.nodes[node].at();
        self.nodes[node].replica().handle(Input::Verify(Asked { id, repair, table: None }), at);
        let done = |cluster: &mut Self| cluster.status(node).verification.asked.filter(|last| last.id == id);
        self.run_until("it is compared", |cluster| done(cluster).is_some());
        done(self).unwrap()
    }

    /// Behind the triggers' back.
    fn damage(&self, node: usize, sql: &str) {
        let service = &self.nodes[node].service;
        service.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        service.execute_batch(sql).unwrap();
        service.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
    }

    fn kept(&self, node: usize) -> Option<String> {
        self.nodes[node].text("SELECT record_id || ':' || what || ':' || ifnull(found, '-') AS v FROM _rowcast_mended")
    }
}

fn found(report: &Report) -> Vec<(&str, &str, bool)> {
    report.found.iter().map(|found| (found.record.as_str(), found.what.as_str(), found.repaired)).collect()
}

#[test]
fn equal_nodes_are_equal_and_every_record_was_looked_at() {
    let mut cluster = Cluster::of(3, Duration::ZERO);
    let report = cluster.verify(1, true);
    assert!(report.is_equal(), "{report:#?}");
    assert_eq!((report.tables[0].records, report.tables[0].members, report.members.len()), (900, 2, 2));
    assert_eq!(report.notes, Vec::<String>::new());
}

/// Who does not answer was not compared, and the report says so.
#[test]
fn a_node_that_does_not_answer_is_not_equal() {
    let mut cluster = Cluster::of(3, Duration::ZERO);
    cluster.silent = Some(2);
    let report = cluster.verify(1, false);
    assert!(!report.is_equal(), "{report:#?}");
    assert_eq!((report.tables[0].records, report.tables[0].members), (900, 1), "the other one was compared");
    assert!(report.notes[0].contains("did not answer"), "{report:#?}");
    assert!(report.to_text().starts_with("NOT COMPARED"), "{}", report.to_text());
    cluster.silent = None;
    assert!(cluster.verify(1, false).is_equal());
    // What differs is told by the digests, and what it is by nobody.
    cluster.damage(0, "UPDATE t SET a = 'damaged' WHERE id = 'k0700'");
    cluster.silent_of_records = true;
    let report = cluster.verify(1, false);
    assert!(report.to_text().starts_with("NOT COMPARED"), "{report:#?}");
    assert!(report.notes[0].contains("nobody answered"), "{report:#?}");
}

#[test]
fn a_row_changed_behind_the_triggers_back_is_found_mended_and_kept() {
    let mut cluster = Cluster::of(3, Duration::ZERO);
    let whole = cluster.rows(0);
    cluster.damage(1, "UPDATE t SET a = 'damaged' WHERE id = 'k0700'");
    let report = cluster.verify(1, false);
    assert_eq!(found(&report), [("k0700", "the row is not what its events say", false)]);
    let status = cluster.status(1);
    assert_eq!(status.reasons.first().map(|reason| reason.code), Some(Code::Diverged), "a doubt is NOT READY");
    let report = cluster.verify(1, true);
    assert_eq!(found(&report), [("k0700", "the row is not what its events say", true)]);
    assert_eq!(cluster.rows(1), whole);
    let kept = r#"k0700:row:{"id":"k0700","a":"damaged","n":700}"#;
    assert_eq!(cluster.kept(1).as_deref(), Some(kept), "nothing is lost by mending");
    assert!(cluster.status(1).is_ready());
    assert!(cluster.verify(1, true).is_equal());
}

#[test]
fn another_node_sees_the_damage_and_leaves_it_to_the_damaged_one() {
    let mut cluster = Cluster::of(2, Duration::ZERO);
    cluster.damage(1, "UPDATE t SET a = 'damaged' WHERE id = 'k0001'");
    let report = cluster.verify(0, true);
    let what = "events are missing there, or the row there is not what they say";
    assert_eq!(found(&report), [("k0001", what, false)]);
    assert!(cluster.status(0).is_ready(), "nothing is wrong here");
    assert!(cluster.verify(1, true).tables[0].repaired == 1 && cluster.are_equal());
}

#[test]
fn a_missing_row_comes_back_and_one_that_no_event_knows_goes() {
    let mut cluster = Cluster::of(2, Duration::ZERO);
    let whole = cluster.rows(0);
    cluster.damage(1, "DELETE FROM t WHERE id IN ('k0001', 'k0900'); INSERT INTO t VALUES ('zzz', 'extra', 10000)");
    let report = cluster.verify(1, true);
    assert_eq!((report.tables[0].found, report.tables[0].repaired), (3, 3), "{report:#?}");
    assert_eq!(cluster.rows(1), whole);
    assert_eq!(cluster.rows(0), whole, "nothing of it has spread");
    assert!(cluster.kept(1).unwrap().contains(r#"zzz:row:{"id":"zzz","a":"extra","n":10000}"#));
}

#[test]
fn an_event_that_is_gone_is_taken_from_another_node_with_its_row() {
    let mut cluster = Cluster::of(3, Duration::ZERO);
    cluster.nodes[0].sql("UPDATE t SET a = 'newer' WHERE id = 'k0300'");
    cluster.run_until("it is everywhere", |cluster| cluster.are_equal());
    // The event and what it did: as a page that was lost, and an older one in its place.
    cluster.damage(
        1,
        "DELETE FROM t_Events WHERE record_id = 'k0300' AND data LIKE '%newer%';
         UPDATE t SET a = 'a300' WHERE id = 'k0300'; DELETE FROM t WHERE id = 'k0400';
         DELETE FROM t_Events WHERE record_id = 'k0400'",
    );
    let report = cluster.verify(1, true);
    let what = "an event that should be here is missing";
    assert_eq!(found(&report), [("k0300", what, true), ("k0400", what, true)]);
    assert!(cluster.are_equal());
    assert!(cluster.verify(1, true).is_equal());
}

#[test]
fn an_event_whose_data_was_changed_is_put_right_by_the_majority_or_by_its_origin() {
    for nodes in [2, 3] {
        let mut cluster = Cluster::of(nodes, Duration::ZERO);
        cluster.damage(1, "UPDATE t_Events SET data = replace(data, 'a500', 'wrong') WHERE record_id = 'k0500'");
        let report = cluster.verify(1, true);
        assert_eq!(found(&report), [("k0500", "the same event has other content there", true)], "{nodes} nodes");
        // With the row made to fit, so that the node does not contradict itself.
        cluster.damage(
            1,
            "UPDATE t_Events SET data = replace(data, 'a600', 'wrong') WHERE record_id = 'k0600';
             UPDATE t SET a = 'wrong' WHERE id = 'k0600'",
        );
        let report = cluster.verify(1, true);
        assert_eq!(found(&report), [("k0600", "the same event has other content there", true)], "{nodes} nodes");
        assert!(cluster.are_equal());
        assert!(cluster.verify(1, true).is_equal() && cluster.verify(0, true).is_equal());
    }
}

#[test]
fn an_event_that_no_longer_reads_is_put_right() {
    let mut cluster = Cluster::of(2, Duration::ZERO);
    cluster.damage(1, "UPDATE t_Events SET data = '{\"id' WHERE record_id = 'k0500'");
    let report = cluster.verify(1, true);
    assert_eq!((report.tables[0].found, report.tables[0].repaired), (1, 1), "{report:#?}");
    assert!(cluster.verify(1, true).is_equal());
}

#[test]
fn a_node_that_is_alone_mends_its_rows_by_its_own_events() {
    let mut cluster = Cluster::of(1, Duration::ZERO);
    cluster.damage(0, "UPDATE t SET a = 'damaged' WHERE id = 'k0001'");
    assert_eq!(cluster.verify(0, true).tables[0].repaired, 1);
    assert_eq!(cluster.nodes[0].text("SELECT a AS v FROM t WHERE id = 'k0001'").as_deref(), Some("a1"));
}

/// Where it is not proved that the triggers were there all the time, the row is the truth.
#[test]
fn what_was_written_while_the_triggers_were_away_becomes_events() {
    let mut cluster = Cluster::of(2, Duration::ZERO);
    let trigger = cluster.nodes[1].text("SELECT sql AS v FROM sqlite_schema WHERE name = '_rowcast_t_update'").unwrap();
    cluster.nodes[1].sql(&format!(
        "BEGIN; DROP TRIGGER _rowcast_t_update; UPDATE t SET a = 'unseen' WHERE id = 'k0001'; {trigger}; COMMIT"
    ));
    let report = cluster.verify(1, true);
    assert!(report.is_equal(), "it is no damage: {report:#?}");
    cluster.run_until("the change arrives", |cluster| {
        cluster.nodes[0].text("SELECT a AS v FROM t WHERE id = 'k0001'").as_deref() == Some("unseen")
    });
    assert!(cluster.are_equal());
    // From here on the proof holds again.
    cluster.damage(1, "UPDATE t SET a = 'damaged' WHERE id = 'k0001'");
    assert_eq!(cluster.verify(1, true).tables[0].repaired, 1);
    assert!(cluster.are_equal());
}

#[test]
fn a_trigger_changed_by_writable_schema_is_no_proof() {
    let mut cluster = Cluster::of(2, Duration::ZERO);
    cluster.verify(1, true);
    cluster.nodes[1].sql(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'AFTER UPDATE', 'AFTER  UPDATE') WHERE name = '_rowcast_t_update';
         PRAGMA writable_schema = OFF;",
    );
    cluster.damage(1, "UPDATE t SET a = 'unseen' WHERE id = 'k0001'");
    cluster.verify(1, true);
    assert_eq!(cluster.nodes[1].text("SELECT a AS v FROM t WHERE id = 'k0001'").as_deref(), Some("unseen"));
}

#[test]
fn the_proof_outlives_a_restart_and_damage_done_meanwhile_is_mended() {
    let mut cluster = Cluster::of(1, INTERVAL);
    cluster.verify(0, true);
    cluster.nodes[0].replica = None;
    cluster.damage(0, "UPDATE t SET a = 'damaged' WHERE id = 'k0001'");
    cluster.nodes[0].sql("UPDATE t SET a = 'written' WHERE id = 'k0002'");
    cluster.nodes[0].start(false);
    cluster.run_until("it is compared after the start", |cluster| cluster.status(0).counters.repaired == 1);
    let rows = cluster.nodes[0].text("SELECT a AS v FROM t WHERE id IN ('k0001', 'k0002') ORDER BY id");
    assert_eq!(rows.as_deref(), Some("a1,written"));
}

#[test]
fn more_than_chance_explains_is_mended_only_when_somebody_says_so() {
    let mut cluster = Cluster::of(1, INTERVAL);
    cluster.nodes[0].sql(
        &rows(ROWS).replace("'k%04d'", "'m%04d'").replace("x, x", "x, 5000 + x").replace(", x FROM", ", 5000 + x FROM"),
    );
    cluster.run_until("all is an event", |cluster| cluster.status(0).database.journal_rows == 0);
    cluster.verify(0, true);
    cluster.damage(0, "UPDATE t SET a = 'migrated'");
    cluster.run_until("it is compared by the interval", |cluster| !cluster.status(0).is_ready());
    let migrated = "SELECT count(*) AS v FROM t WHERE a = 'migrated'";
    assert_eq!(cluster.nodes[0].text(migrated).as_deref(), Some("1800"), "left for the operator");
    let report = cluster.verify(0, true);
    assert_eq!(report.tables[0].repaired, 1_800, "{report:#?}");
    assert_eq!(cluster.nodes[0].text(migrated).as_deref(), Some("0"));
    assert!(cluster.status(0).is_ready());
}

/// The pauses of the next comparison of a node that is alone, each as long as it said before.
fn pauses(cluster: &mut Cluster) -> Vec<Duration> {
    let node = &mut cluster.nodes[0];
    let mut pauses = Vec::new();
    loop {
        while node.work() != Worked::Idle {}
        let uptime = node.uptime;
        match node.replica().compares_in(uptime) {
            Some(left) => {
                pauses.push(left);
                node.tick(left);
            }
            None if !pauses.is_empty() => return pauses,
            None => node.tick(INTERVAL),
        }
    }
}

#[test]
fn between_two_pages_a_node_knows_when_it_goes_on_and_that_is_sooner_where_somebody_waits() {
    let mut cluster = Cluster::of(1, INTERVAL);
    // Over the rows, two pages at a time, and over the records.
    let pages = [2, 1].map(|pages| (ROWS as usize).div_ceil(pages * limits::DIGEST_PAGE)).iter().sum();
    assert_eq!(pauses(&mut cluster), vec![limits::DIGEST_PAUSE; pages]);
    let at = cluster.nodes[0].at();
    cluster.nodes[0].replica().handle(Input::Verify(Asked { id: 1, repair: false, table: None }), at);
    assert_eq!(pauses(&mut cluster), vec![limits::DIGEST_PAUSE_ASKED; pages]);
}

#[test]
fn damage_on_one_of_several_is_mended_within_one_interval_and_none_is_missed_in_turn() {
    let mut cluster = Cluster::of(4, INTERVAL);
    cluster.damage(2, "UPDATE t SET a = 'damaged' WHERE id = 'k0450'");
    let began = cluster.nodes[2].uptime;
    cluster.run_until("it is mended", |cluster| cluster.are_equal());
    let took = cluster.nodes[2].uptime - began;
    assert!(took <= INTERVAL + Duration::from_secs(2), "{took:?}");
    assert_eq!(cluster.status(2).counters.repaired, 1);
}

#[test]
fn where_there_are_more_members_than_are_asked_at_once_the_next_comparison_asks_the_others() {
    let others = limits::DIGEST_MEMBERS_MAX + 2;
    let mut cluster = Cluster::with(others + 1, Duration::ZERO, 3);
    cluster.asked.clear();
    for asked in [limits::DIGEST_MEMBERS_MAX, others] {
        let report = cluster.verify(1, false);
        assert!(report.is_equal(), "{report:#?}");
        assert_eq!(report.notes, ["16 of 18 members are asked at once; the next run asks others"]);
        assert_eq!(cluster.asked.len(), asked, "of {others}");
    }
}

/// Records that are written under load: few enough to be compared while that goes on.
const RECORDS: u32 = 120;

#[derive(Clone, Debug)]
enum Act {
    Write(usize, u32, u32),
    Delete(usize, u32),
    Turn(usize),
}

fn any_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..3_usize, 1..=RECORDS, any::<u32>()).prop_map(|(node, key, value)| Act::Write(node, key, value)),
        1 => (0..3_usize, 1..=RECORDS).prop_map(|(node, key)| Act::Delete(node, key)),
        3 => (0..3_usize).prop_map(Act::Turn),
    ];
    prop::collection::vec(act, 50..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Lag is no divergence: writes on all nodes, positions that differ, comparisons all the while.
    #[test]
    fn nothing_diverges_under_load(acts in any_acts()) {
        let mut cluster = Cluster::with(3, Duration::from_millis(200), RECORDS);
        let before: Vec<u64> = (0..3).map(|node| cluster.status(node).counters.verified).collect();
        let turns = acts.iter().filter(|act| matches!(act, Act::Turn(_))).count();
        for act in acts {
            match act {
                Act::Write(node, key, value) => cluster.nodes[node].sql(&format!(
                    "INSERT INTO t VALUES ('k{key:04}', 'v{value}', NULL) ON CONFLICT (id) DO UPDATE SET a = 'v{value}'"
                )),
                Act::Delete(node, key) => cluster.nodes[node].sql(&format!("DELETE FROM t WHERE id = 'k{key:04}'")),
                Act::Turn(node) => {
                    cluster.nodes[node].tick(Duration::from_millis(25));
                    for _ in 0..4 {
                        cluster.nodes[node].work();
                        cluster.deliver(node);
                    }
                }
            }
        }
        let compared: u64 = (0..3).map(|node| cluster.status(node).counters.verified - before[node]).sum();
        prop_assert!(turns < 10 || 4 * turns as u64 <= compared, "{compared} compared in {turns} turns under load");
        cluster.run_until("all is equal", |cluster| cluster.are_equal());
        for _ in 0..40 {
            cluster.turn();
        }
        for (node, before) in before.into_iter().enumerate() {
            let status = cluster.status(node);
            prop_assert_eq!(status.counters.diverged, 0, "{:#?}", status.verification);
            prop_assert!(status.counters.verified > before);
        }
    }
}
