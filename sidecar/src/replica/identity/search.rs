//! Finds where the events of one origin here part from those of members: the first number that is another event there.
//!
//! Windows of events are fetched from one member after the other, from the newest down, until a whole window is the same.

use std::collections::VecDeque;
use std::time::Duration;

use super::Standing;
use crate::edge::store::Answer;
use crate::event::{EventId, Fingerprint, Piece};
use crate::flow::fetch::{AskId, Request};
use crate::flow::receive;
use crate::limits;
use crate::position::{NodeId, Sequence};
use crate::replica::{Moment, Replica};
use crate::wire::{self, Message};

/// Events compared with those of a member at a time, from the newest down.
const WINDOW: Sequence = 256;

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
    /// The lowest number that is known to be another event elsewhere, or will be.
    pub(super) fork: Option<Sequence>,
    /// That other event, if it was seen.
    pub(super) theirs: Option<Fingerprint>,
    /// Some event was compared.
    pub(super) compared: bool,
}

/// A window of events that a member is asked for.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) member: NodeId,
    pub(super) low: Sequence,
    pub(super) next: Sequence,
    pub(super) high: Sequence,
    pub(super) ask: Option<AskId>,
    pub(super) tries: u32,
    pub(super) differs: bool,
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
            fork: None,
            theirs: None,
            compared: false,
        }
    }
}

impl Probe {
    pub(super) fn below(member: NodeId, high: Sequence) -> Option<Self> {
        let low = high.saturating_sub(WINDOW - 1).max(1);
        (high > 0).then_some(Self { member, low, next: low, high, ask: None, tries: 0, differs: false })
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
            // Nobody could tell: what was made since the start may be what nobody has.
            let unknown = (!search.compared).then_some(self.identity.head_at_start.min(head) + 1);
            Standing::Found(search.fork.or(unknown).unwrap_or(head + 1))
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
            }
        }
        while search.probe.is_none() {
            let Some((member, position)) = members.pop_front() else { return true };
            search.probe = Probe::below(member, position.min(head));
        }
        let Some(probe) = &mut search.probe else { return true };
        self.next_ask += 1;
        probe.ask = Some(self.next_ask);
        let request =
            Request::Fetch { origin: search.origin, first: probe.next, last: probe.high, bytes: limits::PAGE_BYTES };
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
        let pieces = match frame.map(wire::decode) {
            Some(Ok(Message::Fetched(Answer::Events(page)))) if receive::check(&page.pieces, &page.layouts).is_ok() => {
                page.pieces
            }
            // It took them over in a snapshot, and has nothing to compare.
            Some(Ok(Message::Fetched(Answer::NotHere))) => return,
            _ => Vec::new(),
        };
        if !self.compare(search, &mut probe, &pieces) {
            probe.tries += 1;
            search.not_before = at.uptime + ASK_PAUSE;
            search.probe = Some(probe);
        } else if probe.next <= probe.high {
            search.probe = Some(probe);
        } else if probe.differs {
            search.probe = Probe::below(probe.member, probe.low - 1);
        }
    }

    /// Compares events with those stored here. Answers whether the pieces went on with what was asked for.
    fn compare(&self, search: &mut Search, probe: &mut Probe, pieces: &[Piece]) -> bool {
        let began = probe.next;
        for piece in pieces {
            for (event, sequence) in piece.events.iter().zip(piece.first..) {
                if sequence != probe.next || probe.high < sequence {
                    continue;
                }
                probe.next = sequence + 1;
                let id = EventId { origin: search.origin, sequence };
                let Some(stored) = self.store.fingerprint(id).ok().flatten() else { continue };
                search.compared = true;
                if stored != event.fingerprint() {
                    probe.differs = true;
                    if search.fork.is_none_or(|fork| sequence < fork) {
                        (search.fork, search.theirs) = (Some(sequence), Some(event.fingerprint()));
                    }
                }
            }
        }
        began < probe.next
    }
}
