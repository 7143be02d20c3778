//! Events of others: applied once, all of them, and in the end.

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::edge::store::{Answer, Page, ParkReason, SnapshotPage, SnapshotRow};
use rowcast::event::{Event, Piece};
use rowcast::flow::apply::Applier;
use rowcast::flow::fetch::Request;
use rowcast::flow::ingest;
use rowcast::members::Presence;
use rowcast::replica::{Input, Output, Worked};
use rowcast::wire::{self, Message};
use rowcast_schema::layout::Layout;
use std::time::Duration;
use uuid::Uuid;

use super::{Node, declaration, event, layout, layouts, node_id, piece, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

/// I10: cut in pieces when it was live, whole when it was fetched.
#[test]
fn a_group_that_was_staged_in_part_and_then_comes_whole_is_applied() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let mut store = node.store();
    let (origin, now) = (node_id(9), clock::now());
    let shape = layout("t", &["id", "a"]);
    let events: Vec<_> =
        ["x", "y"].iter().map(|id| event(&shape, id, Some(&format!(r#"{{"id":"{id}","a":"1"}}"#)), now)).collect();
    let known = layouts(&[&shape]);
    store.write(|tx| Applier::new(tx, now).stage(origin, &piece(1, 2, events[..1].to_vec()), &known)).unwrap();
    store.write(|tx| Applier::new(tx, now).group(origin, &piece(1, 2, events.clone()), &known)).unwrap();
    assert_eq!(store.durable().vector.of(origin), 2);
    let rows: i64 = node.service.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2, "the position says that both are applied");
}

/// I5, and with it I4: a row that the service wrote later must not lose to an event that was applied before.
#[test]
fn a_local_write_is_later_than_an_event_that_waited_for_the_clock() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let mut store = node.store();
    let (origin, now) = (node_id(9), clock::now());
    let shape = layout("t", &["id", "a"]);
    let ahead = now.plus(Duration::from_secs(90));
    let remote = event(&shape, "x", Some(r#"{"id":"x","a":"remote"}"#), ahead);
    store.write(|tx| Applier::new(tx, now).group(origin, &piece(1, 1, vec![remote]), &layouts(&[&shape]))).unwrap();
    assert_eq!(store.durable().parked, 1);
    let later = now.plus(Duration::from_secs(40));
    store.write(|tx| Applier::new(tx, later).retry(&[ParkReason::Clock])).unwrap();
    assert_eq!(store.durable().parked, 0, "it is applied now");
    drop(store);
    let mut store = node.store();
    node.service.execute("UPDATE t SET a = 'local'", []).unwrap();
    store.write(|tx| ingest::drain(tx, later.plus(Duration::from_secs(1)))).unwrap();
    let newest: String = node
        .service
        .query_row("SELECT data FROM t_Events WHERE record_id = 'x' ORDER BY timestamp DESC LIMIT 1", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(newest, r#"{"id":"x","a":"local"}"#, "every other node keeps the newest; here the row says `local`");
}

/// Liveness: a service that never stops writing does not keep the events of others out.
#[test]
fn a_busy_service_does_not_starve_what_others_wrote() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let shape = layout("t", &["id", "a"]);
    let remote = event(&shape, "x", Some(r#"{"id":"x","a":"remote"}"#), clock::now());
    node.feed(node_id(9), vec![piece(1, 1, vec![remote])], vec![shape]);
    for at in 0..100 {
        node.sql(&format!("INSERT INTO t VALUES ('k{at}', 'local')"));
        node.wake();
        node.tick(Duration::from_millis(5));
        node.work();
    }
    assert_eq!(node.text("SELECT a AS v FROM t WHERE id = 'x'").as_deref(), Some("remote"));
}

pub(super) fn presence(node: &Node, id: u128, vector: &[(u128, u64)]) -> Presence {
    Presence {
        ready: true,
        complete: true,
        vector: vector.iter().map(|&(origin, at)| (node_id(origin), at)).collect(),
        sure: true,
        schema: format!("{:016x}", declaration(&toml(&["t"])).hash()),
        clock: node.at().wall,
        stamp: node.at().wall,
        ..Presence::of(node_id(id), &format!("m{id}"), Uuid::from_u128(id))
    }
}

/// Liveness: what a held group waits for is asked for, however large the group is.
#[test]
fn a_large_group_that_waits_for_its_cause_does_not_keep_the_cause_away() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.hear(presence(&node, 7, &[(7, 1), (8, 1)]));
    let shape = layout("t", &["id", "a"]);
    let data = format!(r#"{{"id":"x","a":"{}"}}"#, "y".repeat(17 << 20));
    let mut large = piece(1, 1, vec![event(&shape, "x", Some(&data), clock::now())]);
    large.context = [(node_id(7), 1)].into_iter().collect();
    node.feed(node_id(8), vec![large], vec![shape]);
    node.tick(Duration::from_millis(100));
    let asked = node.replica().take_outputs().into_iter().any(|output| matches!(output, Output::Ask { .. }));
    assert!(asked, "event 1 of node 7 is missing, a member has it, and it is not asked for");
}

/// A node and what another one, 8, tells it: groups, each made on top of what a third one, 7, wrote.
struct OnTop {
    node: Node,
    session: u128,
}

impl OnTop {
    fn new() -> Self {
        let mut told = Self { node: Node::ready(&toml(&["t"]), TABLE), session: 1 };
        told.presence();
        told.feed();
        told
    }

    fn presence(&mut self) {
        let said = Presence { session: Uuid::from_u128(self.session), ..presence(&self.node, 8, &[(8, 20)]) };
        self.node.hear(said);
    }

    fn feed(&mut self) {
        let shape = layout("t", &["id", "a"]);
        let group = |number: u64| {
            let events = vec![numbered(&shape, number, "1")];
            Piece { context: [(node_id(7), number)].into_iter().collect(), ..piece(number, number, events) }
        };
        self.node.feed(node_id(8), (1..=20).map(group).collect(), vec![shape.clone()]);
    }

    /// Lets so many seconds pass. Answers how many of the groups are applied then.
    fn seconds(&mut self, seconds: u32, speaks: bool) -> u64 {
        for _ in 0..seconds {
            if speaks {
                self.presence();
            }
            for _ in 0..10 {
                self.node.tick(Duration::from_millis(100));
                while self.node.work() != Worked::Idle {}
            }
        }
        self.node.replica().store().durable().vector.of(node_id(8))
    }
}

/// Liveness: an author that is gone for good is waited for once, and not again by each group that was made on top of what it
/// wrote.
#[test]
fn who_is_gone_for_good_is_waited_for_once_and_not_by_each_group() {
    let mut told = OnTop::new();
    assert_eq!(told.seconds(29, true), 0, "what node 7 wrote may still come");
    assert_eq!(told.seconds(6, true), 20, "once is enough");
}

/// I4: without a connection everybody is silent, and nobody gone.
#[test]
fn nobody_is_taken_for_gone_without_a_connection() {
    let mut told = OnTop::new();
    let at = told.node.at();
    told.node.replica().handle(Input::Connected(false), at);
    assert_eq!(told.seconds(40, false), 1, "each group waits");
}

/// Liveness: what is dropped because its author starts again, and comes again, has waited all the same.
#[test]
fn a_group_whose_author_starts_again_and_again_does_not_wait_for_ever() {
    let mut told = OnTop::new();
    for _ in 0..4 {
        told.session += 1;
        told.presence();
        told.seconds(1, true);
        told.feed();
        told.seconds(9, true);
    }
    assert_eq!(told.seconds(1, true), 20);
}

/// An event that writes `value` to the record of a number.
fn numbered(shape: &Layout, number: u64, value: &str) -> Event {
    let data = format!(r#"{{"id":"k{number}","a":"{value}"}}"#);
    event(shape, &format!("k{number}"), Some(&data), clock::now())
}

/// Two seconds in which it gets these pieces whenever it asks for events. Answers what it said of itself last.
fn fetches(node: &mut Node, pieces: &[Piece], shape: &Layout) -> Option<Vec<u8>> {
    let mut said = None;
    for _ in 0..20 {
        node.tick(Duration::from_millis(100));
        while node.work() != Worked::Idle {}
        for output in node.replica().take_outputs() {
            match output {
                Output::Ask { ask, request: Request::Fetch { .. }, .. } => {
                    let page = Page { pieces: pieces.to_vec(), layouts: vec![shape.clone()], before: None };
                    let frame = wire::encode(&Message::Fetched(Answer::Events(page)));
                    let at = node.at();
                    node.replica().handle(Input::Answer { ask, frame: Some(frame.into()) }, at);
                }
                Output::Presence(frame) => said = Some(frame),
                _ => {}
            }
        }
    }
    said
}

/// R19: what a node sent before it was restored from an older copy holds nowhere. Its numbers may mean something else now.
#[test]
fn what_is_held_of_a_node_goes_when_that_starts_again() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let shape = layout("t", &["id", "a"]);
    let one = |number: u64, value: &str| piece(number, number, vec![numbered(&shape, number, value)]);
    let hear = |node: &mut Node, session: u128, head: u64| {
        let said = Presence { session: Uuid::from_u128(session), ..presence(node, 8, &[(8, head)]) };
        node.hear(said);
    };
    hear(&mut node, 1, 2);
    node.feed(node_id(8), vec![one(2, "before")], vec![shape.clone()]);
    node.run();
    assert_eq!(node.text("SELECT a AS v FROM t"), None, "1 is missing, and 2 waits for it");
    hear(&mut node, 2, 2);
    let after = vec![one(1, "after"), one(2, "after")];
    let newest = after[1].events[0].fingerprint();
    let said = fetches(&mut node, &after, &shape);
    assert_eq!(node.text("SELECT a AS v FROM t ORDER BY id").as_deref(), Some("after,after"));
    let Ok(Message::Presence(said)) = wire::decode(&said.unwrap()) else { panic!("it says that it is there") };
    let told = said.fingerprints.iter().find(|(origin, _)| *origin == node_id(8));
    assert_eq!(told, Some(&(node_id(8), newest)), "what it says is its newest is what it has");
}

/// R19: nor does the beginning of a long group that is stored, whether or not this node started again meanwhile.
#[test]
fn the_beginning_of_a_group_goes_when_its_author_starts_again() {
    for restarts in [false, true] {
        let two = format!("{TABLE} {}", TABLE.replace("t(", "u("));
        let mut node = Node::ready(&toml(&["t", "u"]), &two);
        let shapes = ["t", "u"].map(|table| layout(table, &["id", "a"]));
        let written = |at: usize, id: &str, value: &str| {
            let data = format!(r#"{{"id":"{id}","a":"{value}"}}"#);
            event(&shapes[at], id, Some(&data), clock::now())
        };
        let said = |session: u128, node: &Node| Presence {
            session: Uuid::from_u128(session),
            schema: format!("{:016x}", declaration(&toml(&["t", "u"])).hash()),
            ..presence(node, 8, &[])
        };
        node.hear(said(1, &node));
        let before = piece(1, 3, vec![written(0, "x", "before"), written(0, "y", "before")]);
        node.feed(node_id(8), vec![before], shapes.to_vec());
        node.run();
        assert_eq!(node.text("SELECT count(*) AS v FROM t_Events").as_deref(), Some("2"), "stored, but for the third");
        if restarts {
            node.start(false);
        }
        node.hear(said(2, &node));
        let after = [written(1, "x", "after"), written(0, "y", "after"), written(1, "z", "after")];
        let pieces = after.into_iter().zip(1..).map(|(event, number)| piece(number, number, vec![event])).collect();
        node.feed(node_id(8), pieces, shapes.to_vec());
        node.run();
        let rows = |table: &str| node.text(&format!("SELECT id || a AS v FROM {table} ORDER BY id"));
        assert_eq!((rows("t").as_deref(), rows("u").as_deref()), (Some("yafter"), Some("xafter,zafter")), "{restarts}");
        assert_eq!(node.text("SELECT count(*) AS v FROM t_Events").as_deref(), Some("1"), "{restarts}");
    }
}

/// R19: what was on its way for longer than its author's restart is put on other events than those that came of it since.
#[test]
fn what_is_put_on_other_events_than_those_here_is_fetched_again() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let shape = layout("t", &["id", "a"]);
    let one = |number: u64, value: &str| piece(number, number, vec![numbered(&shape, number, value)]);
    node.hear(presence(&node, 8, &[(8, 2)]));
    let put_on = one(1, "before").events[0].fingerprint();
    node.feed_on(Some(put_on), node_id(8), vec![one(2, "before")], vec![shape.clone()]);
    node.run();
    let after = vec![one(1, "after"), one(2, "after")];
    node.feed(node_id(8), vec![after[0].clone()], vec![shape.clone()]);
    node.run();
    assert_eq!(node.text("SELECT a AS v FROM t").as_deref(), Some("after"), "the second one follows on another");
    fetches(&mut node, &after, &shape);
    assert_eq!(node.text("SELECT a AS v FROM t ORDER BY id").as_deref(), Some("after,after"));
}

/// R19: the beginning came after its author's restart, and nobody has the rest. What they have instead is asked for.
#[test]
fn the_beginning_of_a_group_that_nobody_has_does_not_keep_what_others_have_waiting() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let shape = layout("t", &["id", "a"]);
    let one = |number: u64, value: &str| numbered(&shape, number, value);
    node.hear(presence(&node, 8, &[(8, 2)]));
    let before = (1..=3).map(|number| one(number, "before")).collect();
    node.feed(node_id(8), vec![piece(1, 6, before)], vec![shape.clone()]);
    node.run();
    assert_eq!(node.text("SELECT count(*) AS v FROM t_Events").as_deref(), Some("3"));
    let after: Vec<Piece> = (1..=2).map(|number| piece(number, number, vec![one(number, "after")])).collect();
    for _ in 0..6 {
        node.hear(presence(&node, 8, &[(8, 2)]));
        fetches(&mut node, &after, &shape);
    }
    assert_eq!(node.text("SELECT a AS v FROM t ORDER BY id").as_deref(), Some("after,after"));
    assert_eq!(node.text("SELECT count(*) AS v FROM t_Events").as_deref(), Some("2"));
}

/// I7: what the others said before the connection went is no answer to a node that has loaded and asks who is there.
#[test]
fn a_node_that_has_taken_a_database_is_not_ready_without_a_connection() {
    let mut node = Node::new(&toml(&["t"]), TABLE);
    node.store().write(|tx| tx.set_loaded()).unwrap();
    node.start(false);
    let said = |node: &Node| wire::encode(&Message::Presence(presence(node, 8, &[])));
    let at = node.at();
    let frame = said(&node).into();
    node.replica().handle(Input::Connected(false), at);
    node.replica().handle(Input::Taken(vec![frame]), at);
    node.run();
    assert!(!node.replica().is_ready());
    let (at, frame) = (node.at(), said(&node).into());
    node.replica().handle(Input::Connected(true), at);
    node.replica().handle(Input::Presence(frame), at);
    node.run();
    assert!(node.replica().is_ready(), "{:?}", node.replica());
}

/// I7: what the others have confirmed is old by the time that there is a connection again.
#[test]
fn a_node_that_lost_its_connection_while_it_caught_up_asks_again_before_it_is_ready() {
    let mut node = Node::new(&toml(&["t"]), TABLE);
    node.store().write(|tx| tx.set_loaded()).unwrap();
    node.start(false);
    let turn = |node: &mut Node, times: u32| {
        for _ in 0..times {
            node.tick(Duration::from_millis(100));
            while node.work() != Worked::Idle {}
        }
    };
    let hear = |node: &mut Node, head: u64| {
        node.hear(presence(node, 8, &[(8, head)]));
    };
    let at = node.at();
    let said = wire::encode(&Message::Presence(presence(&node, 8, &[])));
    node.replica().handle(Input::Taken(vec![said.into()]), at);
    turn(&mut node, 2);
    hear(&mut node, 1);
    turn(&mut node, 12);
    assert!(!node.replica().is_ready(), "event 1 of node 8 is missing");
    for connected in [false, true] {
        let at = node.at();
        node.replica().handle(Input::Connected(connected), at);
    }
    hear(&mut node, 1);
    turn(&mut node, 12);
    let shape = layout("t", &["id", "a"]);
    node.feed(
        node_id(8),
        vec![piece(1, 1, vec![event(&shape, "k", Some(r#"{"id":"k","a":"1"}"#), clock::now())])],
        vec![shape],
    );
    turn(&mut node, 2);
    assert!(!node.replica().is_ready(), "there may be more by now");
    turn(&mut node, 1);
    hear(&mut node, 1);
    turn(&mut node, 3);
    assert!(node.replica().is_ready(), "{:?}", node.replica());
}

/// I7: a member may be heard for the first time when all others were asked twice, on a bus that loses messages, or again after a silence.
#[test]
fn what_a_member_has_that_answers_late_is_waited_for_too() {
    let shape = layout("t", &["id", "a"]);
    for known in [false, true] {
        let mut waited = 0;
        for before in 0..200 {
            let mut node = Node::new(&toml(&["t"]), TABLE);
            node.store().write(|tx| tx.set_loaded()).unwrap();
            node.start(false);
            let (at, said) = (node.at(), wire::encode(&Message::Presence(presence(&node, 8, &[(7, 1)]))));
            node.replica().handle(Input::Taken(vec![said.into()]), at);
            if known {
                node.hear(presence(&node, 9, &[]));
            }
            // Longer than a member may be silent. Then the last event comes that is waited for.
            for _ in 0..12 {
                node.hear(presence(&node, 8, &[(7, 1)]));
                node.tick(Duration::from_millis(500));
                while node.work() != Worked::Idle {}
            }
            node.feed(node_id(7), vec![piece(1, 1, vec![numbered(&shape, 7, "1")])], vec![shape.clone()]);
            for at in 0..before {
                if at % 4 == 0 {
                    node.hear(presence(&node, 8, &[(7, 1)]));
                    node.tick(Duration::from_millis(100));
                }
                node.work();
            }
            if node.replica().is_ready() {
                break;
            }
            node.hear(presence(&node, 9, &[(9, 1)]));
            for _ in 0..4 {
                node.tick(Duration::from_millis(100));
                node.hear(presence(&node, 8, &[(7, 1)]));
                while node.work() != Worked::Idle {}
            }
            assert!(!node.replica().is_ready(), "event 1 of node 9 is missing, which was heard after {before} turns");
            node.feed(node_id(9), vec![piece(1, 1, vec![numbered(&shape, 1, "1")])], vec![shape.clone()]);
            node.run();
            assert!(node.replica().is_ready(), "after {before} turns: {:?}", node.replica());
            waited += 1;
        }
        assert!((2..200).contains(&waited), "it was READY after {waited} turns");
    }
}

/// I10: one row that SQLite refuses is parked; nothing else waits for it.
#[test]
fn a_row_that_sqlite_cannot_compute_does_not_stop_the_others() {
    let mut node = Node::ready(
        &toml(&["t"]),
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, g AS (json_extract(a, '$.k')) STORED);",
    );
    let shape = layout("t", &["id", "a"]);
    let remote = |id: &str, a: &str| {
        event(&shape, id, Some(&format!(r#"{{"id":"{id}","a":"{a}"}}"#)), Timestamp(clock::now().0))
    };
    let (bad, good) = (remote("x", "no json"), remote("y", "1"));
    node.feed(node_id(9), vec![piece(1, 1, vec![bad])], vec![shape.clone()]);
    node.feed(node_id(8), vec![piece(1, 1, vec![good])], vec![shape.clone()]);
    node.run();
    assert_eq!(node.text("SELECT id AS v FROM t").as_deref(), Some("y"));
}

/// I5: the sidecar dies in the middle of a load, with rows in the table by then, and the machine's clock is set back.
#[test]
fn what_a_load_has_brought_is_older_than_what_is_written_next_also_after_a_crash_in_it() {
    let mut node = Node::new(&toml(&["t"]), TABLE);
    let shape = layout("t", &["id", "a"]);
    let now = clock::now();
    let brought = event(&shape, "x", Some(r#"{"id":"x","a":"1"}"#), now);
    let row = SnapshotRow { origin: node_id(9), sequence: 1, group_last: 1, processed: true, event: brought };
    let page = SnapshotPage {
        vector: [(node_id(9), 1)].into_iter().collect(),
        rows: vec![row],
        layouts: layouts(&[&shape]).to_vec(),
        contexts: vec![],
        next: Some("x".into()),
        total: 2,
    };
    let mut store = node.store();
    let done = store.write(|tx| {
        let mut applier = Applier::new(tx, now);
        applier.snapshot_page(&page, &[])?;
        applier.finish()
    });
    done.unwrap();
    drop(store);
    assert_eq!(node.text("SELECT a AS v FROM t").as_deref(), Some("1"));
    let mut store = node.store();
    let long_ago = Timestamp::from_millis(now.millis() - 1_000_000);
    let stamped = store.write(|tx| Ok(tx.durable.clock.stamp(long_ago, long_ago))).unwrap();
    assert!(now < stamped, "{now} was seen, and {stamped} is written");
    assert_eq!(store.durable().vector.of(node_id(9)), 0, "the position does not move");
}
