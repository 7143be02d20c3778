//! Numbers that were given out twice, as the other nodes see them: noticed, told, and settled.
//!
//! A node that has an event of another origin knows by fingerprints whether the others have the same. Where they have not,
//! the author finds out by what presence tells, and emits its own anew. But the author of one of the two may be gone: a
//! database that was restored has forgotten what it said before. So the nodes settle it, too, each for itself and all
//! alike: at the first number that differs the event with the lesser fingerprint stays, and who has the other one gives way.
//! Its events from there on go on under its own id, with their timestamps, and the others' are fetched. Nothing is lost.

use std::time::Duration;

use super::Identity;
use super::search::{ASK_PAUSE, Search};
use crate::event::{EventId, Fingerprint, Piece};
use crate::limits;
use crate::members::Presence;
use crate::position::{NodeId, Sequence};
use crate::replica::{Failure, Moment, Replica};
use crate::wire::Feed;

/// How long events that go on another history are dropped: until then the nodes should have settled it.
const LINK_WAIT: Duration = Duration::from_secs(30);

/// A number given out twice is forgotten when nobody has said anything else of it for this long.
const FORK_GONE: Duration = Duration::from_secs(60);

/// Numbers given out twice that a presence tells.
const FORKS_TOLD_MAX: usize = 64;

/// Fingerprints that are remembered, so that a presence costs no look at the database.
const REMEMBERED_MAX: usize = 4096;

/// A number that was given out twice, the event that is kept here, since when that is known, and when it was last seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fork {
    pub(super) sequence: Sequence,
    pub(super) kept: Fingerprint,
    pub(super) since: Duration,
    pub(super) seen: Duration,
}

impl Identity {
    /// Keeps in mind what was just applied or made.
    pub(in crate::replica) fn remember(&mut self, id: EventId, fingerprint: Fingerprint) {
        if REMEMBERED_MAX <= self.remembered.len() {
            self.remembered.clear();
        }
        self.remembered.insert(id, Some(fingerprint));
    }

    /// What presence says of numbers that were given out twice: their author should hear it.
    pub(in crate::replica) fn told_forks(&self) -> Vec<(NodeId, Sequence, Fingerprint)> {
        let told = |(&origin, fork): (&NodeId, &Fork)| (origin, fork.sequence, fork.kept);
        self.forked.iter().take(FORKS_TOLD_MAX).map(told).collect()
    }
}

impl Replica {
    /// The fingerprint of an event, if it is stored here. Remembered: presence asks for the same ones again and again.
    pub(in crate::replica) fn fingerprint(&mut self, id: EventId) -> Option<Fingerprint> {
        if let Some(known) = self.identity.remembered.get(&id) {
            return *known;
        }
        let found = self.store.fingerprint(id).unwrap_or_else(|error| {
            tracing::debug!(error = error.chain(), "an event could not be looked at");
            None
        });
        // What is not applied may be another one soon.
        let applied = id.sequence <= self.store.durable().vector.of(id.origin);
        match found {
            Some(fingerprint) if applied => self.identity.remember(id, fingerprint),
            None if applied && self.identity.remembered.len() < REMEMBERED_MAX => {
                self.identity.remembered.insert(id, None);
            }
            _ => {}
        }
        found
    }

    /// The fingerprint of the event at each position, as far as it is stored here: what presence tells.
    pub(in crate::replica) fn fingerprints(&mut self) -> Vec<(NodeId, Fingerprint)> {
        let positions: Vec<(NodeId, Sequence)> = self.store.durable().vector.iter().collect();
        let told = |(origin, sequence)| Some((origin, self.fingerprint(EventId { origin, sequence })?));
        positions.into_iter().filter_map(told).collect()
    }

    /// A piece brought nothing new. Where it says something else than what is stored, its number was given out twice.
    pub(in crate::replica) fn check_repeated(&mut self, origin: NodeId, piece: &Piece, at_time: Moment) {
        let sequence = piece.last().min(self.store.durable().vector.of(origin));
        let Some(at) = sequence.checked_sub(piece.first).and_then(|at| usize::try_from(at).ok()) else { return };
        let Some(event) = piece.events.get(at) else { return };
        let id = EventId { origin, sequence };
        if self.fingerprint(id).is_some_and(|stored| stored != event.fingerprint()) {
            self.note_fork(id, at_time);
        }
    }

    /// Says in a message what comes before it.
    pub(in crate::replica) fn link(&mut self, feed: &mut Feed) {
        let (Some(first), Some(last)) = (feed.pieces.first(), feed.pieces.last()) else { return };
        let (before, end) = (first.first - 1, last.last());
        let newest = last.events.last().map(crate::event::Event::fingerprint);
        feed.before = self.fingerprint(EventId { origin: feed.origin, sequence: before });
        if let Some(newest) = newest {
            self.identity.remember(EventId { origin: feed.origin, sequence: end }, newest);
        }
    }

    /// Pieces say what comes before them. Where another event stands here, they go on another history than the one
    /// that this node has: answers false, and they are to be dropped, or equal events would stand above different ones
    /// and hide them. After a while they are taken all the same, so that nothing waits for ever.
    pub(in crate::replica) fn check_link(
        &mut self,
        origin: NodeId,
        pieces: &[Piece],
        before: Option<Fingerprint>,
        at: Moment,
    ) -> bool {
        let Some(sequence) = pieces.first().and_then(|piece| piece.first.checked_sub(1)) else { return true };
        let known = 0 < sequence && sequence <= self.store.durable().vector.of(origin);
        let id = EventId { origin, sequence };
        if !known || before.is_none_or(|before| self.fingerprint(id).is_none_or(|stored| stored == before)) {
            return true;
        }
        self.note_fork(id, at);
        let waited = self.identity.forked.get(&origin).is_none_or(|fork| fork.since + LINK_WAIT <= at.uptime);
        if waited {
            self.order.unlink(origin);
        }
        waited
    }

    /// The event that was first under a number is kept, for now. Its author finds out by itself, and emits the other one
    /// anew.
    pub(super) fn note_fork(&mut self, id: EventId, at: Moment) {
        let Some(kept) = self.fingerprint(id) else { return };
        self.identity.audited.suspect(id.origin);
        let fork = Fork { sequence: id.sequence, kept, since: at.uptime, seen: at.uptime };
        let full = limits::MEMBERS_MAX <= self.identity.forked.len();
        match self.identity.forked.get_mut(&id.origin) {
            Some(known) if known.sequence <= id.sequence => known.seen = at.uptime,
            Some(known) => *known = Fork { since: known.since, ..fork },
            None if full => {}
            None => {
                self.counters.forked += 1;
                self.identity.forked.insert(id.origin, fork);
                tracing::error!(
                    origin = %id.origin,
                    sequence = id.sequence,
                    "a node gave out a number twice, for different events: its database was copied or restored; both events are kept"
                );
            }
        }
    }

    /// Whether some number was given out twice, and it is not settled yet.
    pub(in crate::replica) fn has_forks(&self) -> bool {
        let disputed = self.identity.dispute.as_ref().is_some_and(|search| search.audits.is_none());
        !self.identity.forked.is_empty() || disputed || self.identity.yields.is_some()
    }

    /// Whether another dispute has to wait.
    pub(super) fn is_disputing(&self) -> bool {
        self.identity.dispute.is_some() || self.identity.yields.is_some() || self.identity.is_silent()
    }

    /// An audit gives way to what is known to differ, and to what has changed under it.
    fn drop_audit(&mut self, of: impl Fn(&Search) -> bool) {
        self.identity.dispute.take_if(|search| search.audits.is_some() && of(search));
    }

    /// A member has other events of an origin than this node. Whose give way is the same for all: at the first number that
    /// differs the lesser fingerprint stays. It is found first.
    pub(super) fn dispute(
        &mut self,
        origin: NodeId,
        positions: impl IntoIterator<Item = Sequence>,
        member: NodeId,
        at: Moment,
    ) {
        if member == origin {
            return; // It speaks for itself: it hears of the fork, and leaves its id. If both gave way, nobody would have the rest.
        }
        self.drop_audit(|_| true);
        if self.is_disputing() || at.uptime < self.identity.dispute_not_before || !self.flows() {
            return;
        }
        self.identity.dispute_not_before = at.uptime + ASK_PAUSE;
        let mut search = Search::of(origin, "", at.uptime);
        search.members = Some(positions.into_iter().map(|position| (member, position)).collect());
        self.identity.dispute = Some(search);
    }

    /// A dispute goes on, or ends.
    pub(super) fn watch_dispute(&mut self, at: Moment) {
        self.identity.forked.retain(|_, fork| at.uptime < fork.seen + FORK_GONE);
        if let Some(mut search) = self.identity.dispute.take() {
            if self.search(&mut search, at) {
                self.settle_dispute(&search, at);
                self.identity.audited.ended(&search, at);
            } else {
                self.identity.dispute = Some(search);
            }
        }
        self.plan_audit(at);
    }

    /// Where this node's events of an origin part from a member's is known: either it gives way, or the others hear of it.
    pub(super) fn settle_dispute(&mut self, search: &Search, at: Moment) {
        // What is stored, and not what is remembered of it.
        let (Some(sequence), Some(theirs), Some(kept)) = (search.fork, search.theirs, search.ours) else { return };
        self.identity.remember(EventId { origin: search.origin, sequence }, kept);
        let author = search.audits.is_some_and(|audit| audit.member == search.origin);
        if theirs < kept && !author {
            self.identity.yields = Some((search.origin, sequence, theirs));
        } else {
            let fork = Fork { sequence, kept, since: at.uptime, seen: at.uptime };
            self.identity.forked.insert(search.origin, fork);
        }
    }

    /// Whether a piece brings what this node has just given way with.
    pub(in crate::replica) fn is_given_up(&self, origin: NodeId, piece: &Piece) -> bool {
        let Some(&(sequence, settled)) = self.identity.settled.get(&origin) else { return false };
        let place = sequence.checked_sub(piece.first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| piece.events.get(place)).is_some_and(|event| settled < event.fingerprint())
    }

    /// The origins of which a member has less than it had: it gave events other numbers.
    pub(in crate::replica) fn lowered_by(&self, presence: &Presence) -> Vec<NodeId> {
        let Some(before) = self.members.presence(presence.node) else { return Vec::new() };
        presence.vector.lacks(&before.vector).map(|(origin, _)| origin).collect()
    }

    /// What nobody has under those numbers any more is not waited for.
    pub(in crate::replica) fn follow_lowered(&mut self, member: NodeId, origins: &[NodeId], at: Moment) {
        if origins.is_empty() {
            return;
        }
        for &origin in origins {
            self.drop_audit(|search| search.origin == origin);
            self.identity.audited.forget(origin, Some(member));
        }
        let heads = self.members.heads(at.uptime);
        for &origin in origins {
            self.order.lowered(origin, heads.of(origin).max(self.store.durable().vector.of(origin)));
        }
        self.waiting.forget_mark();
    }

    /// Emits what this node has of an origin from a number on under its own id, and makes room for what the others have there.
    pub(super) fn give_way(&mut self, at: Moment) -> Result<(), Failure> {
        let Some((origin, sequence, theirs)) = self.identity.yields.take() else { return Ok(()) };
        let base = self.store.durable().next;
        tracing::warn!(%origin, from = sequence, "emitting events anew under this node's id: their numbers were given out twice");
        self.store.write(|tx| tx.begin_adoption(origin, sequence))?;
        self.identity.settled.insert(origin, (sequence, theirs));
        // The others hear what stays, and compare what they have.
        let fork = Fork { sequence, kept: theirs, since: at.uptime, seen: at.uptime };
        self.identity.forked.insert(origin, fork);
        self.drop_audit(|_| true);
        self.identity.audited.suspect(origin);
        self.identity.audited.forget(origin, None);
        self.identity.remembered.clear();
        self.order.clear();
        if self.store.durable().renewal.is_none() {
            self.renewed(base, at)?;
        }
        Ok(())
    }
}
