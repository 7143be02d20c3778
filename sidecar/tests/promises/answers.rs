//! What a node waits to hear before it speaks, and which questions it does not answer.

use std::time::Duration;

use rowcast::edge::store::Answer;
use rowcast::flow::fetch::Request;
use rowcast::limits;
use rowcast::members::Presence;
use rowcast::replica::Output;
use rowcast::wire::{self, Message};

use super::order::presence;
use super::stage::{answer, declaration, reader};
use super::{Node, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

/// Moves the time in steps, and works. Answers whether the node published an event meanwhile.
fn publishes(node: &mut Node, millis: u64) -> bool {
    let mut published = false;
    for _ in 0..millis / 50 {
        node.tick(Duration::from_millis(50));
        node.wake();
        while node.work() != rowcast::replica::Worked::Idle {}
        published |= node.replica().take_outputs().iter().any(|output| matches!(output, Output::Feed(_)));
    }
    published
}

/// Where many nodes are they answer at a pace: one of them can know of events under this node's id, from before its database
/// was restored, and says so half an interval after the first.
#[test]
fn an_id_is_confirmed_when_all_who_answer_at_a_pace_can_have_answered() {
    let others = 100..150_u128;
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    for other in others.clone() {
        let said = presence(&node, other, &[]);
        node.hear(said);
    }
    node.run();
    node.start(false);
    node.sql("INSERT INTO t VALUES ('x', '1')");
    let said = presence(&node, 100, &[]);
    node.hear(said);
    assert!(!publishes(&mut node, 600), "the others answer within half an interval, which is 500 ms");
    assert!(publishes(&mut node, 1_000), "nobody knows better");
}

/// I7: it was told that somebody has everything, who is silent now.
#[test]
fn an_empty_node_that_may_be_the_first_is_not_where_somebody_complete_was_heard() {
    let mut node = Node::new(&toml(&["t"]), TABLE);
    node.start(true);
    let said = Presence { ready: false, ..presence(&node, 7, &[(7, 3)]) };
    node.hear(said);
    for _ in 0..10 {
        node.run();
    }
    assert!(!node.replica().is_ready(), "node 7 has data");
}

/// I7: it loaded everything, and fell before it had made sure; whoever it hears then has no more than itself.
#[test]
fn a_node_that_was_never_complete_does_not_take_itself_for_that_by_the_word_of_one_that_is_not() {
    let mut node = Node::new(&toml(&["t"]), TABLE);
    let mut store = node.store();
    store.write(|tx| tx.set_loaded()).unwrap();
    drop(store);
    node.start(false);
    for complete in [false, true] {
        for _ in 0..5 {
            let said = Presence { ready: false, complete, ..presence(&node, 7, &[]) };
            node.hear(said);
            node.run();
        }
        assert_eq!(node.replica().is_ready(), complete);
    }
}

/// A request comes from the network: it may ask for anything.
#[test]
fn a_range_that_makes_no_sense_or_is_too_long_is_refused() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.sql("INSERT INTO t VALUES ('x', '1'), ('y', '1')");
    node.run();
    let (origin, reader) = (node.replica().node(), reader(&node.path(), &declaration(&toml(&["t"]))));
    let ask = |request| wire::decode(&answer(&reader, &request)).unwrap();
    let most = limits::FINGERPRINTS_MAX;
    for (first, last) in [(0, 5), (2, 1), (u64::MAX, 0), (1, u64::MAX), (1, most + 1), (9, most + 9)] {
        let said = ask(Request::Fingerprints { origin, first, last });
        assert!(matches!(said, Message::Refused(_)), "{first} to {last}: {said:?}");
    }
    for (first, last, stored) in [(1, most, 2), (2, most + 1, 1), (u64::MAX, u64::MAX, 0)] {
        let Message::Fetched(Answer::Fingerprints(said)) = ask(Request::Fingerprints { origin, first, last }) else {
            panic!("{first} to {last} is refused");
        };
        assert_eq!(said.stored.len(), stored, "{first} to {last}");
    }
    for (first, last) in [(0, 5), (2, 1)] {
        let said = ask(Request::Fetch { origin, first, last, bytes: 1_000 });
        assert!(matches!(said, Message::Refused(_)), "{first} to {last}: {said:?}");
    }
}
