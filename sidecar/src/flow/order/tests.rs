//! The order that pieces are released in, whatever the bus does.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::clock::Timestamp;
use crate::event::{Event, Operation};

fn node(id: u128) -> NodeId {
    NodeId(Uuid::from_u128(id))
}

fn piece(first: Sequence, last: Sequence, group_last: Sequence, context: &[(u128, Sequence)]) -> Piece {
    let event = Event {
        table: "t".into(),
        operation: Operation::Delete,
        record_id: "1".into(),
        data: None,
        timestamp: Timestamp(1),
        layout: rowcast_schema::layout::LayoutId(1),
        changed: 0,
    };
    let context = context.iter().map(|&(id, at)| (node(id), at)).collect();
    Piece { first, group_last, context, events: vec![event; usize::try_from(last + 1 - first).unwrap()] }
}

/// Carries out every step, as the node does. Answers the groups in the order in which they were applied.
fn carry_out(order: &mut Order, applied: &mut Vector) -> Vec<(NodeId, Sequence)> {
    let mut done = Vec::new();
    while let Some(step) = order.next(applied) {
        match step {
            Step::Discard(origin) => order.discarded(origin, None),
            Step::Apply(origin, piece, _) => {
                assert_eq!(piece.first, applied.of(origin) + 1, "in sequence, without a gap");
                applied.set(origin, piece.last());
                done.push((origin, piece.last()));
            }
            Step::Stage(origin, piece, _) => order.staged(origin, piece.last(), &piece.context, piece.ends_group()),
            Step::ApplyStaged(origin, last) => {
                applied.set(origin, last);
                order.unstage(origin);
                done.push((origin, last));
            }
        }
    }
    done
}

#[test]
fn a_gap_is_named_and_closed() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    assert!(order.offer(node(1), (piece(4, 5, 5, &[]), Link::default()), &none, &applied));
    assert_eq!(order.next(&applied), None);
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 1, last: 3 }]);
    assert!(order.offer(node(1), (piece(1, 3, 3, &[]), Link::default()), &none, &applied));
    assert_eq!(carry_out(&mut order, &mut applied), [(node(1), 3), (node(1), 5)]);
    assert!(!order.offer(node(1), (piece(2, 5, 5, &[]), Link::default()), &none, &applied), "all of it is known");
    order.heard(node(1), 9);
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 6, last: 9 }]);
}

/// Two members may cut the same events in different places.
#[test]
fn of_what_overlaps_only_what_is_known_is_dropped() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    order.offer(node(1), (piece(1, 2, 2, &[]), Link::default()), &none, &applied);
    order.offer(node(1), (piece(2, 4, 4, &[]), Link::default()), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), [(node(1), 2), (node(1), 4)]);
}

#[test]
fn what_comes_behind_something_held_is_named_while_little_is_held() {
    let (mut order, applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    order.heard(node(1), 100_000);
    order.offer(node(1), (piece(1, 3, 3, &[]), Link::default()), &none, &applied);
    order.offer(node(1), (piece(4, 9, 9, &[(2, 1)]), Link::default()), &none, &applied);
    order.offer(node(1), (piece(20, 20, 20, &[]), Link::default()), &none, &applied);
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 10, last: 19 }]);
    order.offer(node(1), (piece(10, 60_000, 60_000, &[]), Link::default()), &none, &applied);
    assert!(limits::AHEAD_BYTES < order.held_bytes());
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [], "what is held comes first");
    let applied = [(node(1), 70_000)].into_iter().collect();
    assert_eq!(
        order.gaps(&applied, limits::AHEAD_BYTES),
        [Gap { origin: node(1), first: 70_001, last: 100_000 }],
        "but what is due"
    );
}

#[test]
fn a_group_waits_for_what_its_author_had_seen() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    order.offer(node(1), (piece(1, 1, 1, &[(2, 2)]), Link::default()), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), []);
    assert_eq!(order.blocked(&applied)[0].lacks, [(node(2), 2)]);
    order.offer(node(2), (piece(1, 2, 2, &[]), Link::default()), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), [(node(2), 2), (node(1), 1)]);
}

#[test]
fn a_waived_group_goes_on_and_the_next_one_waits_again() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    order.offer(node(1), (piece(1, 1, 1, &[(2, 2)]), Link::default()), &none, &applied);
    order.offer(node(1), (piece(2, 2, 2, &[(2, 2)]), Link::default()), &none, &applied);
    order.waive(node(1), 1);
    assert_eq!(carry_out(&mut order, &mut applied), [(node(1), 1)]);
}

#[test]
fn a_long_group_is_staged_and_applied_when_it_is_whole() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    order.offer(node(1), (piece(1, 2, 5, &[(2, 1)]), Link::default()), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), []);
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 3, last: 5 }]);
    order.offer(node(1), (piece(3, 5, 5, &[(2, 1)]), Link::default()), &none, &applied);
    order.offer(node(1), (piece(6, 6, 6, &[]), Link::default()), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), []);
    assert_eq!(order.blocked(&applied)[0].first, 1);
    order.offer(node(2), (piece(1, 1, 1, &[]), Link::default()), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), [(node(2), 1), (node(1), 5), (node(1), 6)]);
}

/// The rest of it comes from somebody who has another history of its author.
#[test]
fn the_beginning_of_a_group_goes_where_its_rest_is_put_on_something_else() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    let [begin, rest] = [piece(1, 2, 3, &[]), piece(3, 3, 3, &[])];
    let end = begin.events[1].fingerprint();
    order.offer(node(1), (begin.clone(), Link { before: None, end: Some(end) }), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), []);
    let other = Link { before: Some(Fingerprint(1)), end: None };
    order.offer(node(1), (rest.clone(), other), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), []);
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 1, last: 3 }]);
    for (piece, link) in linked(vec![begin, rest], None) {
        order.offer(node(1), (piece, link), &none, &applied);
    }
    assert_eq!(order.next(&applied), Some(Step::Discard(node(1))), "what is stored goes before anything else comes");
    assert_eq!(carry_out(&mut order, &mut applied), [(node(1), 3)]);
}

/// What overlaps with the beginning says itself what its rest is put on.
#[test]
fn nor_does_the_rest_of_another_life_pass_where_it_overlaps() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    let other = |first: Sequence, last: Sequence| {
        let mut other = piece(first, last, 4, &[]);
        other.events.iter_mut().for_each(|event| event.record_id = "2".into());
        other
    };
    for (piece, link) in linked(vec![piece(1, 2, 6, &[])], None) {
        order.offer(node(1), (piece, link), &none, &applied);
    }
    assert_eq!(carry_out(&mut order, &mut applied), []);
    for (piece, link) in linked(vec![other(1, 1), other(2, 4)], None) {
        order.offer(node(1), (piece, link), &none, &applied);
    }
    assert_eq!(carry_out(&mut order, &mut applied), [], "3 is put on another 2");
    order.give_up(node(1), 4);
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 1, last: 4 }]);
    for (piece, link) in linked(vec![other(1, 1), other(2, 4)], None) {
        order.offer(node(1), (piece, link), &none, &applied);
    }
    assert_eq!(carry_out(&mut order, &mut applied), [(node(1), 4)]);
}

/// A member that says for a moment that it has less takes nothing away that is here.
#[test]
fn what_is_here_stays_when_its_head_is_lowered() {
    let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    for (piece, link) in linked(vec![piece(1, 2, 3, &[]), piece(3, 3, 3, &[(2, 1)]), piece(4, 4, 4, &[])], None) {
        order.offer(node(1), (piece, link), &none, &applied);
    }
    assert_eq!(carry_out(&mut order, &mut applied), []);
    order.lowered(node(1), 0);
    order.offer(node(2), (piece(1, 1, 1, &[]), Link::default()), &none, &applied);
    assert_eq!(carry_out(&mut order, &mut applied), [(node(2), 1), (node(1), 3), (node(1), 4)]);
}

/// Where an answer was full; unless the rest is of another life of its author, or the group is long.
#[test]
fn a_group_that_was_cut_is_one_piece_again() {
    let pieces = |last: Sequence| [piece(1, 2, last, &[]), piece(3, last - 1, last, &[]), piece(last, last, last, &[])];
    let steps = |pieces: Vec<(Piece, Link)>| {
        let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
        order.discarded(node(1), None);
        for (piece, link) in pieces {
            order.offer(node(1), (piece, link), &none, &applied);
        }
        order.discarded(node(1), None);
        let mut steps = Vec::new();
        while let Some(step) = order.next(&applied) {
            steps.push(match step {
                Step::Apply(origin, piece, _) => {
                    applied.set(origin, piece.last());
                    (piece.first, piece.last(), true)
                }
                Step::Stage(origin, piece, _) => {
                    order.staged(origin, piece.last(), &piece.context, false);
                    (piece.first, piece.last(), false)
                }
                step => panic!("{step:?}"),
            });
        }
        (steps, order.held_bytes())
    };
    let whole = |last| linked(pieces(last).to_vec(), None).collect::<Vec<_>>();
    assert_eq!(steps(whole(9)), (vec![(1, 9, true)], 0));
    let long = limits::PIECE_EVENTS_MAX as Sequence + 1;
    assert_eq!(steps(whole(long)).0, [(1, 2, false), (3, long - 1, false), (long, long, false)]);
    let mut other = whole(9);
    other[1].1.before = Some(Fingerprint(1));
    assert_eq!(steps(other).0, [(1, 2, false)], "what does not fit is not put on it");
}

#[test]
fn what_is_one_piece_again_has_the_layouts_of_all_its_pieces() {
    let (mut order, applied) = (Order::default(), Vector::default());
    let layout = |table: &str| Layout::new(table.into(), vec!["id".into()], vec![0]);
    for (first, table) in [(1, "t"), (2, "t"), (3, "u")] {
        let layouts = Arc::from([layout(table)]);
        order.offer(node(1), (piece(first, first, 3, &[]), Link::default()), &layouts, &applied);
    }
    order.discarded(node(1), None);
    let Some(Step::Apply(_, _, layouts)) = order.next(&applied) else { panic!("it is whole") };
    assert_eq!(*layouts, [layout("t"), layout("u")]);
}

#[test]
fn what_is_held_is_bounded() {
    let (mut order, applied, none) = (Order::default(), Vector::default(), Arc::from([]));
    let mut first = 2;
    for _ in 0..400 {
        order.offer(node(1), (piece(first, first + 999, first + 999, &[]), Link::default()), &none, &applied);
        first += 1000;
    }
    assert!(order.held_bytes() <= limits::HELD_BYTES_MAX);
    assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES)[0], Gap { origin: node(1), first: 1, last: 1 });
}

proptest! {
    /// Whatever the bus does, what is named as missing and fetched again brings everything, in order.
    #[test]
    fn everything_arrives_once_and_in_order(
        groups in prop::collection::vec((1..5_u64, any::<bool>()), 1..20),
        schedule in prop::collection::vec((any::<prop::sample::Index>(), 1..4_u64), 0..60),
    ) {
        let none: Arc<[Layout]> = Arc::from([]);
        let mut pieces = Vec::new();
        let mut first = 1;
        for (length, cut) in groups {
            let last = first + length - 1;
            if cut && length > 1 {
                pieces.push(piece(first, first, last, &[]));
                pieces.push(piece(first + 1, last, last, &[]));
            } else {
                pieces.push(piece(first, last, last, &[]));
            }
            first = last + 1;
        }
        let (mut order, mut applied) = (Order::default(), Vector::default());
        for (at, times) in schedule {
            for _ in 0..times {
                order.offer(node(1), (at.get(&pieces).clone(), Link::default()), &none, &applied);
            }
            carry_out(&mut order, &mut applied);
        }
        order.heard(node(1), first - 1);
        while let Some(gap) = order.gaps(&applied, limits::AHEAD_BYTES).first().copied() {
            let next = pieces.iter().find(|piece| gap.first <= piece.last()).expect("the gap is real");
            order.offer(node(1), (next.clone(), Link::default()), &none, &applied);
            carry_out(&mut order, &mut applied);
        }
        prop_assert_eq!(applied.of(node(1)), first - 1);
        prop_assert_eq!(order.held_bytes(), 0);
    }
}
