//! Puts received pieces back in order: per origin by sequence number, and over origins by cause.
//!
//! Events of one origin are numbered without gaps. The bus may delay, repeat or lose them. [`Order`] releases a piece
//! once every earlier event of its origin is stored here, and a group once everything that its author had seen is
//! applied here, or in the same transaction. It names the gaps it waits for.
//!
//! Reads no clock, touches no disk, speaks to no bus: the caller hands it pieces and positions, and carries out the
//! [`Step`]s.
//!
//! Invariants:
//! - events of one origin are released in sequence, without gaps, each at most once, and only on top of the event that
//!   their author had put them on, as far as that is known;
//! - a group is applied only when its context is covered, unless it was waived;
//! - at most [`limits::HELD_BYTES_MAX`] wait in memory: what is furthest ahead is dropped and fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rowcast_schema::layout::Layout;

use crate::event::{Event, EventId, Fingerprint, Piece};
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
    /// Nothing is stored beyond the position but what is staged. Until that is seen to, beginnings of groups may be that nobody will
    /// complete: from before this process, or from before the origin's last start, when it was perhaps restored from an older
    /// copy and gave the numbers away again.
    swept: bool,
    /// The last event that was released, while it is known.
    tip: Option<(Sequence, Fingerprint)>,
}

impl Lane {
    /// A short group is cut where an answer was full: what is here of the one that begins at `first` becomes one piece again.
    fn join(&mut self, first: Sequence) {
        while let Some(held) = self.held.get(&first)
            && !held.piece.ends_group()
            && held.piece.group_last - first < limits::PIECE_EVENTS_MAX as u64
            && held.bytes < limits::PIECE_BYTES_MAX
            && let Some(rest) = self.held.get(&(held.piece.last() + 1))
            && rest.continues(held)
        {
            let rest = held.piece.last() + 1;
            let Some(rest) = self.held.remove(&rest) else { return };
            let Some(held) = self.held.get_mut(&first) else { return };
            held.append(rest);
        }
    }

    /// Forgets what is stored and not applied: it goes before anything else of the origin is stored.
    fn drop_staged(&mut self) {
        self.staged = 0;
        self.staged_whole = false;
        self.swept = false;
        self.tip = None;
    }
}

#[derive(Debug)]
struct Held {
    piece: Piece,
    layouts: Arc<[Layout]>,
    bytes: usize,
    link: Link,
}

impl Held {
    /// Whether it is of the same group as the piece before it, and put on that.
    fn continues(&self, before: &Self) -> bool {
        let fits = self.link.before.zip(before.link.end).is_none_or(|(before, end)| before == end);
        fits && (self.piece.group_last, &self.piece.context) == (before.piece.group_last, &before.piece.context)
    }

    fn append(&mut self, rest: Self) {
        let known = |layout: &Layout| self.layouts.iter().any(|known| known.id == layout.id);
        if !rest.layouts.iter().all(known) {
            self.layouts = self.layouts.iter().chain(rest.layouts.iter()).cloned().collect();
        }
        self.piece.events.extend(rest.piece.events);
        self.bytes += rest.bytes;
        self.link.end = rest.link.end;
    }
}

/// What a piece is put on, and what the next one is put on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// The event before its first, as whoever sent it has that; none: not known.
    pub before: Option<Fingerprint>,
    /// Its last event.
    pub end: Option<Fingerprint>,
}

/// Pieces of one message, each with what it is put on: the first one on `before`.
pub fn linked(pieces: Vec<Piece>, before: Option<Fingerprint>) -> impl Iterator<Item = (Piece, Link)> {
    let mut at: Option<(Sequence, Option<Fingerprint>)> = None;
    pieces.into_iter().map(move |piece| {
        let before = at.map_or(before, |(last, end)| end.filter(|_| last + 1 == piece.first));
        let end = piece.events.last().map(Event::fingerprint);
        at = Some((piece.last(), end));
        (piece, Link { before, end })
    })
}

/// What the caller does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Beginnings of groups of this origin may be stored that hold no more: delete them.
    Discard(NodeId),
    /// A whole group whose turn it is: apply it.
    Apply(NodeId, Piece, Arc<[Layout]>),
    /// A piece of a long group: store it.
    Stage(NodeId, Piece, Arc<[Layout]>),
    /// All of a long group is stored up to this sequence number: apply it.
    ApplyStaged(NodeId, Sequence),
}

impl Step {
    /// The last event that it stores.
    pub fn ends(&self) -> Option<EventId> {
        match self {
            Self::Apply(origin, piece, _) | Self::Stage(origin, piece, _) => {
                Some(EventId { origin: *origin, sequence: piece.last() })
            }
            Self::Discard(_) | Self::ApplyStaged(..) => None,
        }
    }
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
    pub fn offer(
        &mut self,
        origin: NodeId,
        (mut piece, mut link): (Piece, Link),
        layouts: &Arc<[Layout]>,
        applied: &Vector,
    ) -> bool {
        let Some(lane) = self.lane(origin) else { return false };
        lane.head = lane.head.max(piece.group_last);
        let stored = lane.staged.max(applied.of(origin));
        if piece.last() <= stored {
            return false;
        }
        link.before = before_rest(&piece, stored + 1).or(link.before);
        piece.trim(stored);
        if lane.held.get(&piece.first).is_some_and(|held| piece.last() <= held.piece.last()) {
            return false;
        }
        let bytes = piece.size();
        let held = Held { piece, layouts: layouts.clone(), bytes, link };
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

    /// The same, and what is stored and held of them goes.
    pub fn give_up(&mut self, origin: NodeId, head: Sequence) {
        self.lowered(origin, head);
        if let Some(lane) = self.lanes.get_mut(&origin) {
            if head < lane.staged {
                lane.drop_staged();
            }
            let dropped = lane.held.extract_if(.., |_, held| head < held.piece.last());
            self.bytes -= dropped.map(|(_, held)| held.bytes).sum::<usize>();
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
                held.link.before = before_rest(&held.piece, next).or(held.link.before);
                held.piece.trim(next - 1);
                if let Some(replaced) = lane.held.insert(next, held) {
                    self.bytes -= replaced.bytes;
                }
            }
        }
        let begins = lane.staged == 0;
        if begins {
            lane.join(next);
        }
        let held = lane.held.get(&next)?;
        let whole = begins && held.piece.ends_group();
        let waived = next <= lane.waived;
        if whole && !waived && !covered(&held.piece.context, applied, origin) {
            return None;
        }
        if !lane.swept {
            return Some(Step::Discard(origin));
        }
        let Held { piece, layouts, bytes, link } = lane.held.remove(&next).expect("bug: just seen");
        self.bytes -= bytes;
        let fits =
            lane.tip.is_none_or(|(last, tip)| last + 1 != next || link.before.is_none_or(|before| before == tip));
        if !fits {
            // One of the two is from another life of its author. It is fetched again, and a beginning with all of its group. What
            // stands here, or does not any more, decides then.
            if begins {
                lane.tip = None;
            } else {
                lane.drop_staged();
            }
            return None;
        }
        lane.tip = link.end.map(|end| (piece.last(), end));
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

    /// The last events that were released, as far as they are known.
    pub fn tips(&self) -> impl Iterator<Item = (EventId, Fingerprint)> {
        let tip = |(&origin, lane): (&NodeId, &Lane)| {
            let (sequence, fingerprint) = lane.tip?;
            Some((EventId { origin, sequence }, fingerprint))
        };
        self.lanes.iter().filter_map(tip)
    }

    /// Takes in that all that was stored of `origin` and not applied is gone, and what stands at its position.
    pub fn discarded(&mut self, origin: NodeId, tip: Option<(Sequence, Fingerprint)>) {
        if let Some(lane) = self.lanes.get_mut(&origin) {
            lane.swept = true;
            lane.tip = tip;
        }
    }

    /// The beginnings of groups that end beyond what anybody has said to have: up to where each is stored.
    pub fn unfinished(&self, heads: &Vector) -> impl Iterator<Item = (NodeId, Sequence)> {
        let unfinished = |(&origin, lane): (&NodeId, &Lane)| {
            (lane.staged != 0 && !lane.staged_whole && heads.of(origin) < lane.staged).then_some((origin, lane.staged))
        };
        self.lanes.iter().filter_map(unfinished)
    }

    /// Takes in which event is stored last of `origin`, where it may be another one than what was released.
    pub fn stands(&mut self, origin: NodeId, tip: Option<(Sequence, Fingerprint)>) {
        if let Some(lane) = self.lanes.get_mut(&origin) {
            lane.tip = tip;
        }
    }

    /// Lets events of `origin` follow on others than those that their author had before them. What is staged was looked at.
    pub fn unlink(&mut self, origin: NodeId) {
        if let Some(lane) = self.lanes.get_mut(&origin).filter(|lane| lane.staged == 0) {
            lane.tip = None;
        }
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
            if head < lane.staged {
                lane.drop_staged();
            }
        }
    }

    /// An origin has started again. Restored meanwhile, it may give the numbers of what it sent last to other events: what is not
    /// applied of it is dropped, and fetched as it is now. Nor does a group of it go on without its context any more.
    pub fn started_again(&mut self, origin: NodeId) {
        self.drop_held(origin);
        if let Some(lane) = self.lanes.get_mut(&origin) {
            lane.drop_staged();
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
                // It was put on what is here: that has been looked at.
                let link = Link { before: None, end: piece.events.last().map(Event::fingerprint) };
                self.offer(origin, (piece, link), &layouts, applied);
            }
            Step::ApplyStaged(..) | Step::Discard(_) => {} // Nothing was taken out for it.
        }
    }

    /// Drops every piece held: after a failure, what is needed is fetched again.
    pub fn clear(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.held.clear();
            lane.drop_staged();
        }
        self.bytes = 0;
    }

    /// The origins that anything is known of.
    pub fn origins(&self) -> BTreeSet<NodeId> {
        self.lanes.keys().copied().collect()
    }
}

/// What comes in a piece before the number that it is cut at.
fn before_rest(piece: &Piece, first: Sequence) -> Option<Fingerprint> {
    let at = usize::try_from(first.checked_sub(piece.first + 1)?).ok()?;
    piece.events.get(at).map(Event::fingerprint)
}

/// Whether everything that the author had seen is applied here. Its own earlier events come first in any case.
fn covered(context: &Vector, applied: &Vector, author: NodeId) -> bool {
    applied.lacks(context).all(|(origin, _)| origin == author)
}

#[cfg(test)]
mod tests;
