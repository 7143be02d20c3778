//! Finds where the events of one origin here part from those of members: the first number that is another event there.
//!
//! What tells events from others is asked of one member after the other, a window of numbers at a time, from the newest
//! down: until a window has some that are stored at both and none that differs, or, in an audit, to the first number.

use std::collections::VecDeque;
use std::time::Duration;

use super::Standing;
use crate::clock::Timestamp;
use crate::edge::store::{Answer, Error, Fingerprints};
use crate::event::{EventId, Fingerprint};
use crate::flow::fetch::{AskId, Request};
use crate::limits;
use crate::position::{NodeId, Sequence};
use crate::replica::{Moment, Replica};
use crate::wire::{self, Message};

/// Questions to one member that brought nothing before it is believed to have no answer.
const TRIES_MAX: u32 = 10;

/// The pause after a question that brought nothing.
pub(super) const ASK_PAUSE: Duration = Duration::from_millis(500);

/// Compares events of one origin with those of one member after the other, from the newest down.
#[derive(Debug)]
pub(super) struct Search {
    /// Whose events.
    pub(super) origin: NodeId,
    pub(super) why: String,
    /// Until then members are still heard.
    pub(super) gather_until: Duration,
    /// Who is to be asked, and how many of this node's events it has; none before they are gathered.
    pub(super) members: Option<VecDeque<(NodeId, Sequence)>>,
    pub(super) probe: Option<Probe>,
    pub(super) not_before: Duration,
    /// What is compared in any case: equal events may stand above different ones.
    pub(super) audits: Option<Audit>,
    /// The lowest number that is known to be another event elsewhere, or will be.
    pub(super) fork: Option<Sequence>,
    /// That other event, if it was seen, and the one that is stored here.
    pub(super) theirs: Option<Fingerprint>,
    pub(super) ours: Option<Fingerprint>,
    /// The first number of an event that is later than all that some member had, which has more, but not one by one: it
    /// has another event under it.
    pub(super) later: Option<Sequence>,
    /// Some event was compared.
    pub(super) compared: bool,
    /// Some member did not answer.
    pub(super) unanswered: bool,
}

/// A comparison of everything above a number with one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audit {
    pub(super) member: NodeId,
    /// Up to here everything is the same.
    pub(super) floor: Sequence,
    /// The highest number that both have.
    pub(super) top: Sequence,
}

/// A member that is asked.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) member: NodeId,
    /// Nothing up to here is looked at.
    pub(super) floor: Sequence,
    /// The highest number that both have.
    pub(super) top: Sequence,
    /// The window.
    pub(super) low: Sequence,
    pub(super) high: Sequence,
    pub(super) ask: Option<AskId>,
    pub(super) tries: u32,
    /// The highest number that is the same event there, below all that are known to differ.
    pub(super) agreed: Sequence,
    /// The time of its newest event of the origin.
    pub(super) newest: Timestamp,
}

impl Search {
    pub(super) fn of(origin: NodeId, why: &str, gather_until: Duration) -> Self {
        Self {
            origin,
            why: why.to_owned(),
            gather_until,
            members: None,
            probe: None,
            not_before: Duration::ZERO,
            audits: None,
            fork: None,
            theirs: None,
            ours: None,
            later: None,
            compared: false,
            unanswered: false,
        }
    }

    /// Takes in what a window has here and there, both in the order of the numbers. Answers whether some number is another
    /// event there.
    fn compare(
        &mut self,
        probe: &mut Probe,
        ours: &[(Sequence, Fingerprint)],
        theirs: &[(Sequence, Fingerprint)],
    ) -> bool {
        let mut lowest = None;
        let mut agreed = 0;
        for (sequence, told) in theirs {
            let Ok(at) = ours.binary_search_by_key(sequence, |(sequence, _)| *sequence) else { continue };
            self.compared = true;
            if ours[at].1 != *told {
                lowest = lowest.or(Some((*sequence, *told, ours[at].1)));
            } else if lowest.is_none() {
                agreed = *sequence;
            }
        }
        if lowest.is_some() || probe.agreed == 0 {
            probe.agreed = agreed;
        }
        let Some((sequence, told, kept)) = lowest else { return false };
        if self.fork.is_none_or(|fork| sequence < fork) {
            (self.fork, self.theirs, self.ours) = (Some(sequence), Some(told), Some(kept));
        }
        true
    }
}

impl Probe {
    /// From `high` down to what lies above `floor`.
    pub(super) fn between(member: NodeId, floor: Sequence, high: Sequence) -> Option<Self> {
        let low = Self::low(floor, high);
        let newest = Timestamp::default();
        (high > floor).then_some(Self { member, floor, top: high, low, high, ask: None, tries: 0, agreed: 0, newest })
    }

    fn low(floor: Sequence, high: Sequence) -> Sequence {
        high.saturating_sub(limits::FINGERPRINTS_MAX - 1).max(floor + 1)
    }

    /// Goes on below its window, where there is something.
    fn descend(&mut self) {
        self.high = self.low - 1;
        self.low = Self::low(self.floor, self.high);
        self.tries = 0;
    }

    /// Whether a member can have told that: numbers of the window, in their order.
    fn believes(&self, told: &[(Sequence, Fingerprint)]) -> bool {
        told.iter().all(|(sequence, _)| (self.low..=self.high).contains(sequence))
            && told.is_sorted_by(|a, b| a.0 < b.0)
    }
}

impl Replica {
    /// Finds from where on this node's events go along to a new id.
    pub(super) fn search_own(&mut self, at: Moment) {
        let standing = std::mem::replace(&mut self.identity.standing, Standing::Found(0));
        let Standing::Searching(mut search) = standing else { return self.identity.standing = standing };
        let head = self.store.durable().vector.of(search.origin);
        if search.members.is_none() && search.gather_until <= at.uptime && self.connected {
            self.gather(&mut search, head, at);
        }
        self.identity.standing = if self.search(&mut search, at) {
            let parts = search.fork.into_iter().chain(search.later).min();
            // Nobody could tell: what was made since the start may be what nobody has.
            let unknown = || (!search.compared).then_some(self.identity.head_at_start.min(head) + 1);
            Standing::Found(parts.or_else(unknown).unwrap_or(head + 1))
        } else {
            Standing::Searching(search)
        };
    }

    /// One step of a search: whom to ask next. Answers whether it has ended.
    pub(super) fn search(&mut self, search: &mut Search, at: Moment) -> bool {
        if at.uptime < search.gather_until.max(search.not_before) || !self.connected {
            return false;
        }
        let head = self.store.durable().vector.of(search.origin);
        let Some(members) = &mut search.members else { return false };
        if let Some(probe) = &search.probe {
            if probe.ask.is_some() {
                return false;
            }
            let twin = self.identity.twin.is_some() && probe.member == self.store.durable().node;
            let live = self.members.live(at.uptime).any(|member| member.presence.node == probe.member);
            if TRIES_MAX <= probe.tries || !(twin || live) {
                search.probe = None;
                search.unanswered = true;
            }
        }
        while search.probe.is_none() {
            let Some((member, position)) = members.pop_front() else { return true };
            let floor = search.audits.map_or(0, |audit| audit.floor);
            search.probe = Probe::between(member, floor, position.min(head));
        }
        let Some(probe) = &mut search.probe else { return true };
        self.next_ask += 1;
        probe.ask = Some(self.next_ask);
        let request = Request::Fingerprints { origin: search.origin, first: probe.low, last: probe.high };
        let (ask, to) = (self.next_ask, probe.member);
        self.ask(to, ask, request);
        false
    }

    /// Who is to be asked: whoever has more of this node's events, or others, and the other sidecar under this id.
    fn gather(&mut self, search: &mut Search, head: Sequence, at: Moment) {
        let own = self.node();
        let mut members = VecDeque::new();
        let told: Vec<(NodeId, Sequence, Option<Fingerprint>)> = self
            .members
            .live(at.uptime)
            .map(|member| {
                let presence = &member.presence;
                // Where two spoke under the id, an equal event may stand above others.
                let mixed = presence.forked.iter().any(|(origin, ..)| *origin == own);
                let told = presence
                    .fingerprints
                    .iter()
                    .filter(|_| !mixed)
                    .find(|(origin, _)| *origin == own)
                    .map(|(_, told)| *told);
                (presence.node, presence.vector.of(own), told)
            })
            .collect();
        // What is told to be another event is one, whatever stands above it.
        let forks: Vec<(NodeId, Sequence)> = self
            .members
            .live(at.uptime)
            .flat_map(|member| member.presence.forked.iter().map(|told| (member.presence.node, told)))
            .filter(|(_, (origin, ..))| *origin == own)
            .map(|(member, &(_, sequence, _))| (member, sequence))
            .collect();
        let mut agreed = false;
        for (member, position, told) in told {
            let same = self.identity.twin.is_none()
                && position <= head
                && told.is_some()
                && self.fingerprint(EventId { origin: own, sequence: position }) == told;
            agreed |= same;
            if position > 0 && !same {
                members.push_back((member, position));
            }
        }
        search.compared |= agreed;
        if let Some(twin) = self.identity.twin {
            // Whatever it does not have it will give out itself.
            search.fork = (twin.head < head).then_some(twin.head + 1);
            members.push_back((own, twin.head));
        }
        members.extend(forks);
        search.members = Some(members);
    }

    /// Takes the answer to a question of a search. Answers whether it was one.
    pub(in crate::replica) fn take_search_answer(&mut self, ask: AskId, frame: Option<&[u8]>, at: Moment) -> bool {
        let asked = |search: &Search| search.probe.as_ref().is_some_and(|probe| probe.ask == Some(ask));
        if let Some(mut search) = self.identity.dispute.take_if(|search| asked(search)) {
            self.take_answer_of(&mut search, frame, at);
            self.identity.dispute = Some(search);
            return true;
        }
        if !matches!(&self.identity.standing, Standing::Searching(search) if asked(search)) {
            return false;
        }
        if let Standing::Searching(mut search) = std::mem::replace(&mut self.identity.standing, Standing::Found(0)) {
            self.take_answer_of(&mut search, frame, at);
            self.identity.standing = Standing::Searching(search);
        }
        true
    }

    fn take_answer_of(&mut self, search: &mut Search, frame: Option<&[u8]>, at: Moment) {
        let Some(mut probe) = search.probe.take() else { return };
        probe.ask = None;
        let told = match frame.map(wire::decode) {
            Some(Ok(Message::Fetched(Answer::Fingerprints(told)))) => probe.believes(&told.stored).then_some(told),
            _ => None,
        };
        match told.and_then(|told| self.take_window(search, &mut probe, &told).ok()) {
            Some(true) => {}
            Some(false) => search.probe = Some(probe),
            None => {
                probe.tries += 1;
                search.not_before = at.uptime + ASK_PAUSE;
                search.probe = Some(probe);
            }
        }
    }

    /// Compares a window. Answers whether the member has told everything that it can.
    fn take_window(&self, search: &mut Search, probe: &mut Probe, told: &Fingerprints) -> Result<bool, Error> {
        let ours = self.store.fingerprints(search.origin, (probe.low, probe.high))?;
        probe.newest = probe.newest.max(told.newest);
        let differs = search.compare(probe, &ours, &told.stored);
        if (search.audits.is_some() || differs || probe.agreed == 0) && probe.floor + 1 < probe.low {
            probe.descend();
            return Ok(false);
        }
        if probe.agreed < probe.top && search.origin == self.node() {
            let unknown = (probe.agreed + 1, probe.top);
            let later = self.store.first_later(search.origin, unknown, probe.newest)?;
            search.later = search.later.into_iter().chain(later).min();
        }
        Ok(true)
    }
}
