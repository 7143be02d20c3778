//! What a node waits to hear before it speaks, and which questions it does not answer.

use std::time::Duration;

use rowcast::edge::clock;
use rowcast::edge::store::Answer;
use rowcast::flow::fetch::Request;
use rowcast::limits;
use rowcast::members::Presence;
use rowcast::replica::Output;
use rowcast::wire::{self, Message};
use uuid::Uuid;

use super::order::presence;
use super::stage::{answer, declaration, reader};
use super::{Node, event, layout, node_id, piece, toml};

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

/// What a node says that has three events of its own, and started for the time `session`.
fn said(node: &Node, session: u128, sure: bool) -> Presence {
    let vector: &[(u128, u64)] = if sure { &[(7, 3)] } else { &[] };
    Presence { ready: sure, sure, session: Uuid::from_u128(session), ..presence(node, 7, vector) }
}

/// Some turns of a tenth of a second in which `said` is heard.
fn hear_for(node: &mut Node, turns: usize, said: &Presence) {
    for _ in 0..turns {
        node.hear(said.clone());
        node.tick(Duration::from_millis(100));
        while node.work() != rowcast::replica::Worked::Idle {}
    }
}

fn lacks_three_of_it(node: &mut Node, turns: usize, said: &Presence) {
    hear_for(node, turns, said);
    assert!(!node.replica().is_ready(), "three events of node 7 are missing");
}

fn is_ready_with_three_of_it(mut node: Node) {
    let shape = layout("t", &["id", "a"]);
    let row = |id: &str| event(&shape, id, Some(&format!(r#"{{"id":"{id}","a":"1"}}"#)), clock::now());
    let events = vec![row("x"), row("y"), row("z")];
    node.feed(node_id(7), vec![piece(1, 3, events)], vec![shape.clone()]);
    node.run();
    assert!(node.replica().is_ready(), "{:?}", node.replica());
}

/// I7: a member that starts again tells nothing of its own events until its id is confirmed: it has them all the same.
#[test]
fn what_a_member_told_is_waited_for_also_while_it_is_not_sure_of_itself_again() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.start(false);
    let [before, starting, after] = [(1, true), (2, false), (2, true)].map(|(run, sure)| said(&node, run, sure));
    hear_for(&mut node, 3, &before);
    lacks_three_of_it(&mut node, 100, &starting);
    lacks_three_of_it(&mut node, 100, &after);
    is_ready_with_three_of_it(node);
}

/// The same of one that was never heard before: all nodes of a cluster start at about the same time.
#[test]
fn a_member_that_is_not_sure_of_itself_has_not_answered() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.start(false);
    let [starting, sure] = [false, true].map(|sure| said(&node, 1, sure));
    lacks_three_of_it(&mut node, 40, &starting); // Some four seconds.
    lacks_three_of_it(&mut node, 100, &sure);
    is_ready_with_three_of_it(node);
}

/// It told nothing, and may never come to be sure: what it has, it brings along when it is.
#[test]
fn a_member_that_is_never_sure_of_itself_is_not_waited_for_without_end() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.start(false);
    let starting = said(&node, 1, false);
    lacks_three_of_it(&mut node, 40, &starting);
    hear_for(&mut node, 40, &starting);
    assert!(node.replica().is_ready(), "{:?}", node.replica());
}

/// Its database was restored from an older copy: it leaves its id, and what it has it brings along under the next one.
#[test]
fn what_a_member_told_under_an_id_that_it_left_is_not_waited_for() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.start(false);
    let [before, starting] = [(1, true), (2, false)].map(|(run, sure)| said(&node, run, sure));
    hear_for(&mut node, 3, &before);
    hear_for(&mut node, 3, &starting);
    let renewed = Presence { name: before.name.clone(), ..presence(&node, 8, &[]) };
    hear_for(&mut node, 3, &Presence { sure: false, ..renewed.clone() });
    assert!(!node.replica().is_ready());
    hear_for(&mut node, 70, &renewed);
    assert!(node.replica().is_ready(), "{:?}", node.replica());
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

/// A node that loaded half of it, and fell, cannot hand over what it has of an author beyond its horizon; nobody else has anything of it.
/// Who waited for that would never be READY, and the other could load from nobody.
#[test]
fn what_a_node_that_was_never_complete_holds_in_part_is_not_waited_for() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.start(false);
    for complete in [true, false] {
        for _ in 0..5 {
            let horizon = [(node_id(8), 5)].into_iter().collect();
            let said = Presence { ready: false, complete, horizon, ..presence(&node, 7, &[(8, 5)]) };
            node.hear(said);
            node.run();
        }
        assert_eq!(node.replica().is_ready(), !complete);
    }
}
