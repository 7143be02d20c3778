//! Puts received pieces back in order: per origin by sequence number, and over origins by cause.
//!
//! Events of one origin are numbered without gaps. The bus may delay, repeat or lose them. [`Order`] releases a piece
//! once every earlier event of its origin is stored here, and a group once everything that its author had seen is
//! applied here. It names the gaps it waits for.
//!
//! Reads no clock, touches no disk, speaks to no bus: the caller hands it pieces and positions, and carries out the
//! [`Step`]s.
//!
//! Invariants:
//! - events of one origin are released in sequence, without gaps, each at most once;
//! - a group is applied only when its context is covered, unless it was waived;
//! - at most [`limits::HELD_BYTES_MAX`] wait in memory: what is furthest ahead is dropped and fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rowcast_schema::layout::Layout;

use crate::event::Piece;
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};

/// Pieces that came too early, and those that are due.
#[derive(Debug, Default)]
pub struct Order {
    lanes: BTreeMap<NodeId, Lane>,
    bytes: usize,
}

/// One origin.
#[derive(Debug, Default)]
struct Lane {
    /// Pieces by their first sequence number.
    held: BTreeMap<Sequence, Held>,
    /// Stored, but not applied: the beginning of a long group, up to here. 0: nothing is.
    staged: Sequence,
    /// Whether the staged group is whole.
    staged_whole: bool,
    /// Its context.
    staged_context: Vector,
    /// The highest sequence number that is known to exist.
    head: Sequence,
    /// Groups before this may be applied though their context is not covered.
    waived: Sequence,
}

#[derive(Debug)]
struct Held {
    piece: Piece,
    layouts: Arc<[Layout]>,
    bytes: usize,
}

/// What the caller does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole group whose turn it is: apply it.
    Apply(NodeId, Piece, Arc<[Layout]>),
    /// A piece of a long group: store it.
    Stage(NodeId, Piece, Arc<[Layout]>),
    /// All of a long group is stored up to this sequence number: apply it.
    ApplyStaged(NodeId, Sequence),
}

/// Missing events: `first` up to and with `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose.
    pub origin: NodeId,
    /// From here.
    pub first: Sequence,
    /// To here.
    pub last: Sequence,
}

/// A group that waits for what its author had seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The author.
    pub origin: NodeId,
    /// Its first event.
    pub first: Sequence,
    /// What is missing of other origins.
    pub lacks: Vec<(NodeId, Sequence)>,
}

impl Order {
    /// Takes a piece, in whatever order the bus gave it. `applied` is how far everything is applied here. Answers false
    /// when nothing in it was new.
    pub fn offer(&mut self, origin: NodeId, mut piece: Piece, layouts: &Arc<[Layout]>, applied: &Vector) -> bool {
        let Some(lane) = self.lane(origin) else { return false };
        lane.head = lane.head.max(piece.group_last);
        let stored = lane.staged.max(applied.of(origin));
        if piece.last() <= stored {
            return false;
        }
        piece.trim(stored);
        if lane.held.get(&piece.first).is_some_and(|held| piece.last() <= held.piece.last()) {
            return false;
        }
        let bytes = piece.size();
        let held = Held { piece, layouts: layouts.clone(), bytes };
        let replaced = lane.held.insert(held.piece.first, held).map_or(0, |replaced| replaced.bytes);
        self.bytes = self.bytes + bytes - replaced;
        self.shed();
        true
    }

    /// Drops what is furthest ahead until the rest fits: it is the cheapest to fetch again. The next due piece of a lane
    /// stays, or nothing could ever move.
    fn shed(&mut self) {
        while limits::HELD_BYTES_MAX < self.bytes {
            let longest = self.lanes.values_mut().filter(|lane| lane.held.len() > 1).max_by_key(|lane| lane.held.len());
            let Some((_, dropped)) = longest.and_then(|lane| lane.held.pop_last()) else { return };
            self.bytes -= dropped.bytes;
        }
    }

    /// Takes in that `origin` has made events up to `head`.
    pub fn heard(&mut self, origin: NodeId, head: Sequence) {
        if let Some(lane) = self.lane(origin) {
            lane.head = lane.head.max(head);
        }
    }

    /// Takes in that nobody has events of `origin` beyond `head` any more: they have got other numbers.
    pub fn lowered(&mut self, origin: NodeId, head: Sequence) {
        if let Some(lane) = self.lanes.get_mut(&origin) {
            lane.head = lane.head.min(head);
        }
    }

    /// The lane of an origin; none when there are more than any cluster has: a hostile bus cannot grow them further.
    fn lane(&mut self, origin: NodeId) -> Option<&mut Lane> {
        if limits::ORIGINS_MAX <= self.lanes.len() && !self.lanes.contains_key(&origin) {
            return None;
        }
        Some(self.lanes.entry(origin).or_default())
    }

    /// The next thing to do, if its turn has come. It is done when the position, or [`Order::staged`], says so.
    pub fn next(&mut self, applied: &Vector) -> Option<Step> {
        let origins: Vec<NodeId> = self.lanes.keys().copied().collect();
        let piece = origins.into_iter().find_map(|origin| self.next_of(origin, applied));
        piece.or_else(|| self.staged_group(applied))
    }

    fn next_of(&mut self, origin: NodeId, applied: &Vector) -> Option<Step> {
        let lane = self.lanes.get_mut(&origin)?;
        let position = applied.of(origin);
        if lane.staged <= position {
            lane.staged = 0;
        }
        if lane.staged_whole && lane.staged != 0 {
            return None; // The next group waits until this one is applied.
        }
        let next = lane.staged.max(position) + 1;
        // What overlaps with the due number may begin before it.
        while let Some((&first, held)) = lane.held.first_key_value() {
            if next <= first {
                break;
            }
            let last = held.piece.last();
            let mut held = lane.held.remove(&first).expect("bug: just seen");
            if last < next {
                self.bytes -= held.bytes;
            } else {
                held.piece.trim(next - 1);
                if let Some(replaced) = lane.held.insert(next, held) {
                    self.bytes -= replaced.bytes;
                }
            }
        }
        let held = lane.held.get(&next)?;
        let begins = lane.staged == 0;
        let whole = begins && held.piece.ends_group();
        let waived = next <= lane.waived;
        if whole && !waived && !covered(&held.piece.context, applied, origin) {
            return None;
        }
        let Held { piece, layouts, bytes } = lane.held.remove(&next).expect("bug: just seen");
        self.bytes -= bytes;
        Some(if whole { Step::Apply(origin, piece, layouts) } else { Step::Stage(origin, piece, layouts) })
    }

    /// A group that is staged whole, and whose turn it is.
    fn staged_group(&self, applied: &Vector) -> Option<Step> {
        self.lanes.iter().find_map(|(&origin, lane)| {
            let whole = lane.staged != 0 && lane.staged_whole;
            let waived = lane.staged <= lane.waived;
            (whole && (waived || covered(&lane.staged_context, applied, origin)))
                .then_some(Step::ApplyStaged(origin, lane.staged))
        })
    }

    /// Takes in that a piece is staged: stored and not applied. `ends` says that the group is whole with it.
    pub fn staged(&mut self, origin: NodeId, last: Sequence, context: &Vector, ends: bool) {
        let lane = self.lanes.entry(origin).or_default();
        lane.staged = last;
        lane.staged_context = context.clone();
        lane.head = lane.head.max(last);
        lane.staged_whole = ends;
    }

    /// Forgets what was staged of `origin`: it is applied, or was rolled back.
    pub fn unstage(&mut self, origin: NodeId) {
        if let Some(lane) = self.lanes.get_mut(&origin) {
            lane.staged = 0;
            lane.staged_whole = false;
        }
    }

    /// The events that are known to exist and are neither stored nor held. What comes behind something that is held is
    /// named while less than `ahead_bytes` is held, so that it is on its way while the rest is applied.
    pub fn gaps(&self, applied: &Vector, ahead_bytes: usize) -> Vec<Gap> {
        let gap = |(&origin, lane): (&NodeId, &Lane)| {
            let due = lane.staged.max(applied.of(origin)) + 1;
            let mut next = due;
            for (&first, held) in &lane.held {
                if next < first {
                    break;
                }
                next = next.max(held.piece.last() + 1);
            }
            let first_held = lane.held.keys().find(|&&first| next <= first).copied();
            let last = first_held.map_or(lane.head, |first| first - 1);
            let wanted = next == due || self.bytes < ahead_bytes;
            (wanted && next <= last).then_some(Gap { origin, first: next, last })
        };
        self.lanes.iter().filter_map(gap).collect()
    }

    /// Whole groups that are due but for their context.
    pub fn blocked(&self, applied: &Vector) -> Vec<Blocked> {
        let blocked = |(&origin, lane): (&NodeId, &Lane)| {
            let staged_whole = lane.staged != 0 && lane.staged_whole;
            let next = applied.of(origin) + 1;
            let context = if staged_whole {
                &lane.staged_context
            } else {
                let held = lane.held.get(&next).filter(|held| lane.staged == 0 && held.piece.ends_group())?;
                &held.piece.context
            };
            let lacks: Vec<_> = applied.lacks(context).filter(|(cause, _)| *cause != origin).collect();
            (!lacks.is_empty()).then_some(Blocked { origin, first: next, lacks })
        };
        self.lanes.iter().filter_map(blocked).collect()
    }

    /// Lets the group of `origin` that begins at `first` go on although its context is not covered.
    pub fn waive(&mut self, origin: NodeId, first: Sequence) {
        let lane = self.lanes.entry(origin).or_default();
        lane.waived = lane.waived.max(first).max(lane.staged);
    }

    /// Forgets what an origin itself sent beyond `head`: it is not listened to any more.
    pub fn freeze(&mut self, origin: NodeId, head: Sequence) {
        self.drop_held(origin);
        if let Some(lane) = self.lanes.get_mut(&origin) {
            lane.head = head;
        }
    }

    /// Drops what an origin sent before it started again, and lets no group of it go on without its context any more.
    pub fn started_again(&mut self, origin: NodeId) {
        self.drop_held(origin);
        if let Some(lane) = self.lanes.get_mut(&origin) {
            lane.waived = 0;
        }
    }

    /// Drops the pieces of an origin that are held: what of them is needed is fetched again.
    fn drop_held(&mut self, origin: NodeId) {
        if let Some(lane) = self.lanes.get_mut(&origin) {
            self.bytes -= std::mem::take(&mut lane.held).values().map(|held| held.bytes).sum::<usize>();
        }
    }

    /// The heads that are known, per origin.
    pub fn heads(&self) -> Vector {
        self.lanes.iter().map(|(&origin, lane)| (origin, lane.head)).collect()
    }

    /// Bytes held in memory.
    pub fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Takes back a step that was not carried out.
    pub fn give_back(&mut self, step: Step, applied: &Vector) {
        match step {
            Step::Apply(origin, piece, layouts) | Step::Stage(origin, piece, layouts) => {
                self.offer(origin, piece, &layouts, applied);
            }
            Step::ApplyStaged(..) => {} // Nothing was taken out for it.
        }
    }

    /// Drops every piece held: after a failure, what is needed is fetched again.
    pub fn clear(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.held.clear();
            lane.staged = 0;
            lane.staged_whole = false;
        }
        self.bytes = 0;
    }

    /// The origins that anything is known of.
    pub fn origins(&self) -> BTreeSet<NodeId> {
        self.lanes.keys().copied().collect()
    }
}

/// Whether everything that the author had seen is applied here. Its own earlier events come first in any case.
fn covered(context: &Vector, applied: &Vector, author: NodeId) -> bool {
    applied.lacks(context).all(|(origin, _)| origin == author)
}

#[cfg(test)]
mod tests {
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
        assert!(order.offer(node(1), piece(4, 5, 5, &[]), &none, &applied));
        assert_eq!(order.next(&applied), None);
        assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 1, last: 3 }]);
        assert!(order.offer(node(1), piece(1, 3, 3, &[]), &none, &applied));
        assert_eq!(carry_out(&mut order, &mut applied), [(node(1), 3), (node(1), 5)]);
        assert!(!order.offer(node(1), piece(2, 5, 5, &[]), &none, &applied), "all of it is known");
        order.heard(node(1), 9);
        assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 6, last: 9 }]);
    }

    #[test]
    fn what_comes_behind_something_held_is_named_while_little_is_held() {
        let (mut order, applied, none) = (Order::default(), Vector::default(), Arc::from([]));
        order.heard(node(1), 100_000);
        order.offer(node(1), piece(1, 3, 3, &[]), &none, &applied);
        order.offer(node(1), piece(4, 9, 9, &[(2, 1)]), &none, &applied);
        order.offer(node(1), piece(20, 20, 20, &[]), &none, &applied);
        assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 10, last: 19 }]);
        order.offer(node(1), piece(10, 60_000, 60_000, &[]), &none, &applied);
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
        order.offer(node(1), piece(1, 1, 1, &[(2, 2)]), &none, &applied);
        assert_eq!(carry_out(&mut order, &mut applied), []);
        assert_eq!(order.blocked(&applied)[0].lacks, [(node(2), 2)]);
        order.offer(node(2), piece(1, 2, 2, &[]), &none, &applied);
        assert_eq!(carry_out(&mut order, &mut applied), [(node(2), 2), (node(1), 1)]);
    }

    #[test]
    fn a_waived_group_goes_on_and_the_next_one_waits_again() {
        let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
        order.offer(node(1), piece(1, 1, 1, &[(2, 2)]), &none, &applied);
        order.offer(node(1), piece(2, 2, 2, &[(2, 2)]), &none, &applied);
        order.waive(node(1), 1);
        assert_eq!(carry_out(&mut order, &mut applied), [(node(1), 1)]);
    }

    #[test]
    fn a_long_group_is_staged_and_applied_when_it_is_whole() {
        let (mut order, mut applied, none) = (Order::default(), Vector::default(), Arc::from([]));
        order.offer(node(1), piece(1, 2, 5, &[(2, 1)]), &none, &applied);
        assert_eq!(carry_out(&mut order, &mut applied), []);
        assert_eq!(order.gaps(&applied, limits::AHEAD_BYTES), [Gap { origin: node(1), first: 3, last: 5 }]);
        order.offer(node(1), piece(3, 5, 5, &[(2, 1)]), &none, &applied);
        order.offer(node(1), piece(6, 6, 6, &[]), &none, &applied);
        assert_eq!(carry_out(&mut order, &mut applied), []);
        assert_eq!(order.blocked(&applied)[0].first, 1);
        order.offer(node(2), piece(1, 1, 1, &[]), &none, &applied);
        assert_eq!(carry_out(&mut order, &mut applied), [(node(2), 1), (node(1), 5), (node(1), 6)]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let (mut order, applied, none) = (Order::default(), Vector::default(), Arc::from([]));
        let mut first = 2;
        for _ in 0..400 {
            order.offer(node(1), piece(first, first + 999, first + 999, &[]), &none, &applied);
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
                    order.offer(node(1), at.get(&pieces).clone(), &none, &applied);
                }
                carry_out(&mut order, &mut applied);
            }
            order.heard(node(1), first - 1);
            while let Some(gap) = order.gaps(&applied, limits::AHEAD_BYTES).first().copied() {
                let next = pieces.iter().find(|piece| gap.first <= piece.last()).expect("the gap is real");
                order.offer(node(1), next.clone(), &none, &applied);
                carry_out(&mut order, &mut applied);
            }
            prop_assert_eq!(applied.of(node(1)), first - 1);
            prop_assert_eq!(order.held_bytes(), 0);
        }
    }
}
