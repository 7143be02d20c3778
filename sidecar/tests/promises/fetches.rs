//! A node that is far behind asks for several ranges of events at a time.

use std::time::Duration;

use rowcast::edge::clock;
use rowcast::edge::store::{Answer, Page};
use rowcast::event::Piece;
use rowcast::flow::fetch::Request;
use rowcast::limits;
use rowcast::position::Sequence;
use rowcast::replica::{Input, Output, Worked};
use rowcast::wire::{self, Message};

use super::order::presence;
use super::{Node, layout, node_id, piece, toml};

/// Four requests that fail together are one failure: the next holder is asked, after a short pause. One at a time, until it brings
/// something.
#[test]
fn where_one_holder_fails_the_next_one_is_asked_for_all_of_it() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    node.start(false);
    let (origin, shape, now) = (node_id(8), layout("t", &["id", "a"]), clock::now());
    let mut asked = Vec::new();
    for round in 0..60 {
        for id in [8, 9] {
            let said = presence(&node, id, &[(8, 1_000_000)]);
            node.hear(said);
        }
        node.tick(Duration::from_millis(100));
        for output in node.replica().take_outputs() {
            let Output::Ask { ask, to, request: Request::Fetch { first, .. } } = output else { continue };
            asked.push((round, to));
            // The origin brings something once.
            let frame = (to == origin && first == 1).then(|| {
                let piece = |at: u64| {
                    let data = format!(r#"{{"id":"k{at}","a":"x"}}"#);
                    piece(at, at, vec![super::event(&shape, &format!("k{at}"), Some(&data), now)])
                };
                let page = Page { pieces: (1..=100).map(piece).collect(), layouts: vec![shape.clone()], before: None };
                wire::encode(&Message::Fetched(Answer::Events(page))).into()
            });
            let at = node.at();
            node.replica().handle(Input::Answer { ask, frame }, at);
        }
        while node.work() != Worked::Idle {}
    }
    let failed: Vec<_> = asked[1..].chunk_by(|one, next| one.0 == next.0).map(|asks| (asks[0].1, asks.len())).collect();
    assert_eq!(failed[0], (origin, limits::FETCHES_AT_ONCE), "{asked:?}");
    for (at, &(to, count)) in failed.iter().enumerate().skip(1) {
        assert_eq!((to == origin, count), (at % 2 == 0, 1), "{asked:?}");
    }
    assert!(failed.len() > 4, "the pause does not grow fourfold: {asked:?}");
}

/// A few large events fill the memory and the link: one among many small ones is enough.
#[test]
fn where_a_large_event_came_one_range_is_asked_for_at_a_time() {
    let asked_after = |large: bool| {
        let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
        node.start(false);
        let (origin, shape, now) = (node_id(8), layout("t", &["id", "a"]), clock::now());
        // What it asks for at once, as soon as it does.
        let asks = |node: &mut Node| {
            let mut asked = (0..60).map(|_| {
                node.hear(presence(node, 8, &[(8, 1_000_000)]));
                node.tick(Duration::from_millis(100));
                while node.work() != Worked::Idle {}
                let asked = node.replica().take_outputs().into_iter().filter_map(|output| match output {
                    Output::Ask { ask, to, request: Request::Fetch { first, .. } } => Some((ask, to, first)),
                    _ => None,
                });
                asked.collect::<Vec<_>>()
            });
            asked.find(|asked| !asked.is_empty()).unwrap()
        };
        let first = asks(&mut node);
        assert!(matches!(first[..], [(_, to, 1)] if to == origin), "nothing is known of their size: {first:?}");
        let piece = |at: u64| {
            let padding = if large && at == 500 { 200_000 } else { 1 };
            let data = format!(r#"{{"id":"k{at}","a":"{}"}}"#, "-".repeat(padding));
            piece(at, at, vec![super::event(&shape, &format!("k{at}"), Some(&data), now)])
        };
        let page = Page { pieces: (1..=1_000).map(piece).collect(), layouts: vec![shape.clone()], before: None };
        let (at, frame) = (node.at(), wire::encode(&Message::Fetched(Answer::Events(page))).into());
        node.replica().handle(Input::Answer { ask: first[0].0, frame: Some(frame) }, at);
        asks(&mut node).len()
    };
    assert_eq!([false, true].map(asked_after), [limits::FETCHES_AT_ONCE, 1]);
}

/// The answers are short in turn, come in another order, and one does not come: it has all in the end, without asking for
/// anything twice while it is on its way.
#[test]
fn a_node_that_is_far_behind_asks_for_several_ranges_at_once() {
    const LAST: Sequence = 30_000;
    let sql = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";
    let mut node = Node::ready(&toml(&["t"]), sql);
    node.start(false);
    let (origin, shape, now) = (node_id(8), layout("t", &["id", "a"]), clock::now());
    // Groups of three: where an answer ends, one is mostly cut.
    let events = |first: Sequence, last: Sequence| {
        let mut pieces: Vec<Piece> = Vec::new();
        for sequence in first..=last {
            let (group_last, id) = (sequence.div_ceil(3) * 3, format!("k{}", sequence * 7919 % LAST));
            let data = format!(r#"{{"id":"{id}","a":"{sequence}{}"}}"#, "-".repeat(1_000));
            let event = super::event(&shape, &id, Some(&data), now);
            match pieces.last_mut().filter(|piece| piece.group_last == group_last) {
                Some(piece) => piece.events.push(event),
                None => pieces.push(piece(sequence, group_last, vec![event])),
            }
        }
        pieces
    };
    node.hear(presence(&node, 8, &[(8, LAST)]));
    let (mut most, mut answered) = (0, 0);
    let mut under_way: Vec<(u64, Sequence, Sequence)> = Vec::new();
    for _ in 0..400 {
        node.tick(Duration::from_millis(100));
        for output in node.replica().take_outputs() {
            if let Output::Ask { ask, request: Request::Fetch { first, last, .. }, .. } = output {
                let apart = |(_, other, end): &(u64, Sequence, Sequence)| last < *other || *end < first;
                assert!(first <= last && under_way.iter().all(apart), "{first} to {last}: {under_way:?}");
                under_way.push((ask, first, last));
            }
        }
        most = most.max(under_way.len());
        if let Some((ask, first, last)) = under_way.pop() {
            answered += 1;
            let last = if answered % 5 == 0 { first + (last - first) / 2 } else { last.min(first + 2_000) };
            let page = Page { pieces: events(first, last), layouts: vec![shape.clone()], before: None };
            let frame = (answered != 7).then(|| wire::encode(&Message::Fetched(Answer::Events(page))).into());
            let at = node.at();
            node.replica().handle(Input::Answer { ask, frame }, at);
            while node.work() != Worked::Idle {}
        }
        if node.replica().store().durable().vector.of(origin) == LAST {
            break;
        }
        node.hear(presence(&node, 8, &[(8, LAST)]));
    }
    assert_eq!(node.replica().store().durable().vector.of(origin), LAST);
    assert_eq!(node.text("SELECT count(*) AS v FROM t").as_deref(), Some("30000"));
    assert_eq!(node.text("SELECT count(*) AS v FROM t_Events WHERE NOT processed").as_deref(), Some("0"));
    assert_eq!(most, limits::FETCHES_AT_ONCE);
}
