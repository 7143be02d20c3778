//! Whether this node may speak under its id, and the way to a new one when it may not.
//!
//! Sequence numbers are given out once. A database that was restored from an older copy, or copied with the file
//! beside it, would give them out a second time. So after a start nothing is ingested, and after each new connection
//! nothing is published, before the others have said what they have of this node's events. Where they have more of them than
//! this node, or others under the same numbers, or where another sidecar speaks under the id, it falls silent at
//! once, finds the number from which on its own events are not what the others have, and goes on under a new id from there
//! ([`Replica::renew`]). It needs no restart, and the service sees nothing of it.
//!
//! What a third node sees of that is noted here, too: it keeps the event that it had first, and says whose numbers are wrong.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::load::ANSWERS_WAIT;
use super::{Failure, Moment, Output, Replica, Worked};
use crate::bootstrap::gate::Phase;
use crate::edge::store::{Answer, Moved};
use crate::event::{EventId, Fingerprint, Piece};
use crate::flow::apply::Applier;
use crate::flow::fetch::{AskId, Request};
use crate::flow::receive;
use crate::limits;
use crate::members::Presence;
use crate::observe::status::{Code, Reason};
use crate::position::{NodeId, Sequence};
use crate::wire::{self, Feed, Message};

/// Events compared with those of a member at a time, from the newest down.
const WINDOW: Sequence = 256;

/// A sidecar that was heard once under this id may be this one's own last word before a restart. Heard again after
/// this long, it is another one.
const TWIN_AGAIN: Duration = Duration::from_millis(400);

/// Another sidecar that was not heard for this long under this id is gone.
const TWIN_GONE: Duration = Duration::from_secs(3);

/// The other sidecar should have taken a new id by now.
const TWIN_YIELDS: Duration = Duration::from_secs(10);

/// The pause after a question that brought nothing.
const ASK_PAUSE: Duration = Duration::from_millis(500);

/// Questions to one member that brought nothing before it is believed to have no answer.
const TRIES_MAX: u32 = 10;

/// Numbers given out twice that a presence tells.
const FORKS_TOLD_MAX: usize = 64;

/// Fingerprints that are remembered, so that a presence costs no look at the database.
const REMEMBERED_MAX: usize = 4096;

/// What is known of this node's right to its id.
#[derive(Debug)]
pub(super) struct Identity {
    standing: Standing,
    /// It was sure of its id once: since then changes are ingested.
    begun: bool,
    twin: Option<Twin>,
    /// Own events up to here were there when this process began.
    head_at_start: Sequence,
    remembered: BTreeMap<EventId, Option<Fingerprint>>,
    /// Origins with a number that was given out twice: that number, and the event that is kept here.
    forked: BTreeMap<NodeId, (Sequence, Fingerprint)>,
}

#[derive(Debug)]
enum Standing {
    /// The members have not said yet what they have of this node's events.
    Unsure { since: Duration, answered: Option<Duration> },
    /// The id is this node's.
    Sure,
    /// It is not: where its events part from the others' is being found.
    Searching(Search),
    /// It is not, and the events from here on go along.
    Found(Sequence),
}

/// Another sidecar under this id.
#[derive(Clone, Copy, Debug)]
struct Twin {
    session: Uuid,
    first: Duration,
    last: Duration,
    head: Sequence,
}

/// Compares this node's events with those of one member after the other, from the newest down.
#[derive(Debug)]
struct Search {
    why: String,
    /// Until then members are still heard.
    gather_until: Duration,
    /// Who is to be asked, and how many of this node's events it has; none before they are gathered.
    members: Option<VecDeque<(NodeId, Sequence)>>,
    probe: Option<Probe>,
    not_before: Duration,
    /// The lowest number that is known to be another event elsewhere, or will be.
    fork: Option<Sequence>,
    /// Some event was compared.
    compared: bool,
}

/// A window of events that a member is asked for.
#[derive(Debug)]
struct Probe {
    member: NodeId,
    low: Sequence,
    next: Sequence,
    high: Sequence,
    ask: Option<AskId>,
    tries: u32,
    differs: bool,
}

impl Probe {
    fn below(member: NodeId, high: Sequence) -> Option<Self> {
        let low = high.saturating_sub(WINDOW - 1).max(1);
        (high > 0).then_some(Self { member, low, next: low, high, ask: None, tries: 0, differs: false })
    }
}

impl Identity {
    /// At the start of a process. An id that was made a moment ago is nobody else's.
    pub(super) fn new(new_id: bool, head: Sequence, now: Duration) -> Self {
        let standing = if new_id { Standing::Sure } else { Standing::Unsure { since: now, answered: None } };
        Self {
            standing,
            begun: new_id,
            twin: None,
            head_at_start: head,
            remembered: BTreeMap::new(),
            forked: BTreeMap::new(),
        }
    }

    /// Whether changes may become events.
    pub(super) fn may_ingest(&self) -> bool {
        self.begun && matches!(self.standing, Standing::Sure | Standing::Unsure { .. })
    }

    /// Whether events may be published, and its own position told.
    pub(super) fn may_publish(&self) -> bool {
        matches!(self.standing, Standing::Sure)
    }

    /// Keeps in mind what was just received or made.
    pub(super) fn remember(&mut self, id: EventId, fingerprint: Fingerprint) {
        if REMEMBERED_MAX <= self.remembered.len() {
            self.remembered.clear();
        }
        self.remembered.insert(id, Some(fingerprint));
    }

    /// What presence says of numbers that were given out twice: their author should hear it.
    pub(super) fn told_forks(&self) -> Vec<(NodeId, Sequence, Fingerprint)> {
        let told = |(&origin, &(sequence, kept)): (&NodeId, &(Sequence, Fingerprint))| (origin, sequence, kept);
        self.forked.iter().take(FORKS_TOLD_MAX).map(told).collect()
    }

    /// Whether it says nothing at all: what it would say, it would say under an id that is not its own.
    fn is_silent(&self) -> bool {
        matches!(self.standing, Standing::Searching(_) | Standing::Found(_))
    }
}

impl Replica {
    /// Under which id this node may be asked and speaks; none while it is not to be known by any.
    pub fn speaks_as(&self) -> Option<NodeId> {
        (!self.identity.is_silent() && self.store.durable().renewal.is_none()).then(|| self.node())
    }

    /// Everything is right but that the id is not confirmed yet: what comes meanwhile can wait.
    pub(super) fn waits_for_identity(&self) -> bool {
        self.phase.flows(self.store.durable().loaded) && !self.flows()
    }

    /// A new connection: another sidecar may have spoken under this id on its other side.
    pub(super) fn doubt_identity(&mut self, at: Moment) {
        match &mut self.identity.standing {
            Standing::Sure | Standing::Unsure { .. } => {
                self.identity.standing = Standing::Unsure { since: at.uptime, answered: None };
            }
            Standing::Searching(search) => {
                search.gather_until = at.uptime + self.options.presence_interval + ANSWERS_WAIT;
                if let Some(probe) = &mut search.probe {
                    probe.ask = None;
                }
            }
            Standing::Found(_) => {}
        }
    }

    /// Somebody speaks under this node's id.
    pub(super) fn heard_twin(&mut self, presence: &Presence, at: Moment) {
        let own = self.node();
        let (session, head) = (presence.session, presence.vector.of(own));
        if session == self.options.session {
            return; // This node's own words, come back.
        }
        let first = self.identity.twin.filter(|twin| twin.session == session).map_or(at.uptime, |twin| twin.first);
        let known = self.identity.twin.is_some();
        self.identity.twin = Some(Twin { session, first, last: at.uptime, head });
        if !known {
            tracing::warn!(node_id = %own, "another sidecar speaks under this node's id: the database was copied while it ran");
        }
        // Of two, the one that began later leaves: sessions are ordered by their beginning. Where both have spoken under the
        // id, somebody may have the events of both by turns, and neither can know: both leave it.
        let spoken = head > 0 && self.identity.begun;
        let leaves = session < self.options.session || spoken;
        if leaves && first + TWIN_AGAIN <= at.uptime {
            self.leave_identity(
                "another sidecar speaks under this node's id: the database was copied, with the file beside it",
                at,
            );
        } else if session < self.options.session && matches!(self.identity.standing, Standing::Sure) {
            self.identity.standing = Standing::Unsure { since: at.uptime, answered: None };
        } else if first + TWIN_YIELDS <= at.uptime {
            self.raise_alarm("another sidecar speaks under this node's id, and does not take another", at);
        }
    }

    /// Compares what a member says of positions with what is stored here.
    pub(super) fn judge(&mut self, presence: &Presence, at: Moment) {
        if let Standing::Unsure { answered, .. } = &mut self.identity.standing {
            answered.get_or_insert(at.uptime);
        }
        let own = self.node();
        let head = self.store.durable().vector.of(own);
        let theirs = presence.vector.of(own);
        if head < theirs {
            let name = &presence.name;
            let text = format!(
                "node {name} has {theirs} events of this node, which itself knows of {head}: its database was restored from an older copy"
            );
            return self.leave_identity(&text, at);
        }
        for &(origin, told) in &presence.fingerprints {
            let sequence = presence.vector.of(origin);
            let id = EventId { origin, sequence };
            if sequence == 0 || self.store.durable().vector.of(origin) < sequence {
                continue; // Whoever has more can compare.
            }
            if self.fingerprint(id).is_none_or(|stored| stored == told) {
                continue;
            }
            if origin == own {
                let name = &presence.name;
                let text = format!(
                    "node {name} has another event of this node under the number {sequence}: its database was restored from an older copy, or copied"
                );
                return self.leave_identity(&text, at);
            }
            self.note_fork(id);
        }
        for &(origin, sequence, kept) in &presence.forked {
            let id = EventId { origin, sequence };
            if origin == own && self.fingerprint(id).is_some_and(|stored| stored != kept) {
                let name = &presence.name;
                let text = format!(
                    "node {name} has another event of this node under the number {sequence}: another sidecar spoke under its id"
                );
                return self.leave_identity(&text, at);
            }
        }
    }

    /// The fingerprint of an event, if it is stored here. Remembered: presence asks for the same ones again and again.
    pub(super) fn fingerprint(&mut self, id: EventId) -> Option<Fingerprint> {
        if let Some(known) = self.identity.remembered.get(&id) {
            return *known;
        }
        let found = self.store.fingerprint(id).unwrap_or_else(|error| {
            tracing::debug!(error = error.chain(), "an event could not be looked at");
            None
        });
        match found {
            Some(fingerprint) => self.identity.remember(id, fingerprint),
            None if self.identity.remembered.len() < REMEMBERED_MAX => drop(self.identity.remembered.insert(id, None)),
            None => {}
        }
        found
    }

    /// A piece brought nothing new. Where it says something else than what is stored, its number was given out twice.
    pub(super) fn check_repeated(&mut self, origin: NodeId, piece: &Piece) {
        let sequence = piece.last().min(self.store.durable().vector.of(origin));
        let Some(at) = sequence.checked_sub(piece.first).and_then(|at| usize::try_from(at).ok()) else { return };
        let Some(event) = piece.events.get(at) else { return };
        let id = EventId { origin, sequence };
        if self.fingerprint(id).is_some_and(|stored| stored != event.fingerprint()) {
            self.note_fork(id);
        }
    }

    /// Says in a message what comes before it.
    pub(super) fn link(&mut self, feed: &mut Feed) {
        let (Some(first), Some(last)) = (feed.pieces.first(), feed.pieces.last()) else { return };
        let (before, end) = (first.first - 1, last.last());
        let newest = last.events.last().map(crate::event::Event::fingerprint);
        feed.before = self.fingerprint(EventId { origin: feed.origin, sequence: before });
        if let Some(newest) = newest {
            self.identity.remember(EventId { origin: feed.origin, sequence: end }, newest);
        }
    }

    /// Pieces say what comes before them. Where another event stands here, they go on another history than the one
    /// that this node has. They are taken all the same: their author hears of it, and gives the rest out anew.
    pub(super) fn check_link(&mut self, origin: NodeId, pieces: &[Piece], before: Option<Fingerprint>) {
        let Some(sequence) = pieces.first().and_then(|piece| piece.first.checked_sub(1)) else { return };
        let known = 0 < sequence && sequence <= self.store.durable().vector.of(origin);
        let id = EventId { origin, sequence };
        if known && before.is_some_and(|before| self.fingerprint(id).is_some_and(|stored| stored != before)) {
            self.note_fork(id);
        }
    }

    /// The first event under a number is kept. Its author finds out by itself, and emits the other one anew.
    fn note_fork(&mut self, id: EventId) {
        let Some(kept) = self.fingerprint(id) else { return };
        let known = self.identity.forked.get(&id.origin).copied();
        if known.is_some_and(|(known, _)| known <= id.sequence) {
            return;
        }
        if known.is_none() && limits::MEMBERS_MAX <= self.identity.forked.len() {
            return;
        }
        self.counters.forked += 1;
        self.identity.forked.insert(id.origin, (id.sequence, kept));
        tracing::error!(
            origin = %id.origin,
            sequence = id.sequence,
            "a node gave out a number twice, for different events: the first one is kept here; its database was copied or restored"
        );
    }

    /// What the operator should know of ids.
    pub(super) fn identity_warnings(&self, warnings: &mut Vec<String>) {
        for (&origin, (sequence, _)) in &self.identity.forked {
            warnings.push(format!(
                "node {} gave out the number {sequence} twice, for different events: the first is kept here; its database was copied or restored",
                self.name_of(origin)
            ));
        }
        if self.identity.twin.is_some() {
            warnings.push("another sidecar speaks under this node's id: the database was copied while it ran".into());
        }
    }

    /// Why the node is NOT READY while it changes its id.
    pub(super) fn identity_reason(&self) -> Option<Reason> {
        let text = match &self.identity.standing {
            Standing::Searching(search) => search.why.clone(),
            _ if self.store.durable().renewal.is_some() => {
                "this node goes on under a new node id: its unshared events are being emitted anew".to_owned()
            }
            Standing::Found(_) => "this node goes on under a new node id".to_owned(),
            _ => return None,
        };
        Some(Reason::new(Code::Identity, text))
    }

    /// This node may not speak under its id any more: from this moment on it does not.
    fn leave_identity(&mut self, why: &str, at: Moment) {
        if self.identity.is_silent() || self.store.durable().renewal.is_some() {
            return;
        }
        tracing::error!(
            old_node_id = %self.node(),
            "{why}. It stops speaking under its id and takes a new one; nothing is lost by that"
        );
        self.silence();
        self.identity.standing = Standing::Searching(Search {
            why: why.to_owned(),
            gather_until: at.uptime + self.options.presence_interval + ANSWERS_WAIT,
            members: None,
            probe: None,
            not_before: Duration::ZERO,
            fork: None,
            compared: false,
        });
    }

    /// What was not sent yet is not sent any more.
    fn silence(&mut self) {
        self.outputs.retain(|output| !matches!(output, Output::Feed(_) | Output::Presence(_)));
        self.backlog.clear();
        self.fetching.forget();
    }

    /// Looks at the time: the id is confirmed when the others have answered, or nobody did for long enough.
    pub(super) fn watch_identity(&mut self, at: Moment) {
        if self.identity.twin.is_some_and(|twin| twin.last + TWIN_GONE <= at.uptime) {
            tracing::info!("the other sidecar under this node's id is gone");
            self.identity.twin = None;
        }
        match &self.identity.standing {
            Standing::Unsure { since, answered } => {
                let leaves = self.identity.twin.is_some_and(|twin| twin.session < self.options.session);
                let settled = answered.is_some_and(|first| first + ANSWERS_WAIT <= at.uptime);
                if !leaves && (settled || *since + self.options.presence_wait <= at.uptime) {
                    self.identity.standing = Standing::Sure;
                    self.identity.begun = true;
                    self.present_at = None;
                    self.dirty = true;
                }
            }
            Standing::Searching(_) => self.search(at),
            Standing::Sure | Standing::Found(_) => {}
        }
    }

    /// One step of the search: whom to ask next, or its end.
    fn search(&mut self, at: Moment) {
        let head = self.store.durable().vector.of(self.node());
        let Standing::Searching(search) = &mut self.identity.standing else { return };
        if at.uptime < search.gather_until.max(search.not_before) || !self.connected {
            return;
        }
        if search.members.is_none() {
            self.gather(head, at);
            return;
        }
        let live = |node: NodeId, members: &crate::members::Members| {
            members.live(at.uptime).any(|member| member.presence.node == node)
        };
        if let Some(probe) = &search.probe {
            let twin = self.identity.twin.is_some() && Some(probe.member) == Some(self.store.durable().node);
            if probe.ask.is_some() {
                return;
            }
            if TRIES_MAX <= probe.tries || !(twin || live(probe.member, &self.members)) {
                search.probe = None;
            }
        }
        while search.probe.is_none() {
            let Some((member, position)) = search.members.as_mut().and_then(VecDeque::pop_front) else { break };
            search.probe = Probe::below(member, position.min(head));
        }
        let Some(probe) = &mut search.probe else {
            // Nobody could tell: what was made since the start may be what nobody has.
            let unknown = (!search.compared).then_some(self.identity.head_at_start.min(head) + 1);
            let from = search.fork.or(unknown).unwrap_or(head + 1);
            self.identity.standing = Standing::Found(from);
            return;
        };
        self.next_ask += 1;
        probe.ask = Some(self.next_ask);
        let request = Request::Fetch { origin: self.store.durable().node, first: probe.next, last: probe.high };
        let (ask, to) = (self.next_ask, probe.member);
        self.ask(to, ask, request);
    }

    /// Who is to be asked: whoever has more of this node's events, or others, and the other sidecar under this id.
    fn gather(&mut self, head: Sequence, at: Moment) {
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
        let Standing::Searching(search) = &mut self.identity.standing else { return };
        search.compared |= agreed;
        if let Some(twin) = self.identity.twin {
            // Whatever it does not have it will give out itself.
            search.fork = (twin.head < head).then_some(twin.head + 1);
            members.push_back((own, twin.head));
        }
        members.extend(forks);
        search.members = Some(members);
    }

    /// Takes the answer to a question of the search. Answers whether it was one.
    pub(super) fn take_search_answer(&mut self, ask: AskId, frame: Option<&[u8]>, at: Moment) -> bool {
        let Standing::Searching(search) = &mut self.identity.standing else { return false };
        let Some(mut probe) = search.probe.take_if(|probe| probe.ask == Some(ask)) else { return false };
        probe.ask = None;
        let pieces = match frame.map(wire::decode) {
            Some(Ok(Message::Fetched(Answer::Events(page)))) if receive::check(&page.pieces, &page.layouts).is_ok() => {
                page.pieces
            }
            Some(Ok(Message::Fetched(Answer::NotHere))) => {
                // It took them over in a snapshot, and has nothing to compare.
                return true;
            }
            _ => {
                probe.tries += 1;
                search.not_before = at.uptime + ASK_PAUSE;
                search.probe = Some(probe);
                return true;
            }
        };
        let lowest = self.compare(&mut probe, &pieces);
        let Standing::Searching(search) = &mut self.identity.standing else { return true };
        search.compared |= lowest.is_some_and(|(compared, _)| compared);
        if let Some(fork) = lowest.and_then(|(_, fork)| fork) {
            probe.differs = true;
            search.fork = Some(search.fork.map_or(fork, |known| known.min(fork)));
        }
        if lowest.is_none() {
            probe.tries += 1;
            search.not_before = at.uptime + ASK_PAUSE;
            search.probe = Some(probe);
        } else if probe.next <= probe.high {
            search.probe = Some(probe);
        } else if probe.differs {
            search.probe = Probe::below(probe.member, probe.low - 1);
        }
        true
    }

    /// Compares events with those stored here. Answers whether any could be, and the first that differs; nothing when
    /// the answer was not to the question.
    fn compare(&mut self, probe: &mut Probe, pieces: &[Piece]) -> Option<(bool, Option<Sequence>)> {
        let own = self.node();
        let (mut compared, mut fork, began) = (false, None, probe.next);
        for piece in pieces {
            for (event, sequence) in piece.events.iter().zip(piece.first..) {
                if sequence != probe.next || probe.high < sequence {
                    continue;
                }
                probe.next = sequence + 1;
                let stored = self.store.fingerprint(EventId { origin: own, sequence }).ok().flatten();
                compared |= stored.is_some();
                if stored.is_some_and(|stored| stored != event.fingerprint()) && fork.is_none() {
                    fork = Some(sequence);
                }
            }
        }
        (began < probe.next).then_some((compared, fork))
    }

    /// Takes the new id once it is known from where on, and moves a page of events. Answers nothing when there is nothing
    /// of that to do.
    pub(super) fn work_on_identity(&mut self, at: Moment) -> Result<Option<Worked>, Failure> {
        if self.store.durable().renewal.is_some() {
            let moved = self.move_events(at)?;
            if moved.done {
                self.renewed(at)?;
            }
            return Ok(Some(Worked::Other));
        }
        match self.identity.standing {
            Standing::Found(from) => {
                self.renew(from, at)?;
                Ok(Some(Worked::Other))
            }
            Standing::Searching(_) => Ok(Some(Worked::Idle)),
            _ => Ok(None),
        }
    }

    /// Goes on under a new node id, now. The own events below `from` stay under the old one, as another node's; those
    /// from there on are emitted again under the new one, with their timestamps and data. `from` past the head takes
    /// nothing along.
    ///
    /// To be called when nobody may hear of the old id again: its database is a copy, or the others have expelled it. It returns
    /// after one short transaction; [`Replica::work`] does the rest, page by page, also after a crash, and until that
    /// is done the node neither ingests, applies, nor speaks. Then it catches up as after a start. Who calls it decides what
    /// `from` is: the first own event that no member has.
    ///
    /// # Errors
    /// When the database fails: then nothing has changed.
    pub(super) fn renew(&mut self, from: Sequence, at: Moment) -> Result<(), Failure> {
        let old = self.node();
        let new = self.store.write(|tx| tx.begin_renewal(from))?;
        self.silence();
        self.identity.standing = Standing::Sure;
        self.identity.begun = true;
        self.identity.twin = None;
        self.alarm = None; // What was heard under the old id is another node's affair.
        self.identity.remembered.clear();
        self.identity.head_at_start = 0;
        self.counters.renewed += 1;
        tracing::warn!(old_node_id = %old, node_id = %new, from, "this node has a new node id");
        if self.store.durable().renewal.is_none() {
            self.renewed(at)?;
        }
        Ok(())
    }

    fn move_events(&mut self, at: Moment) -> Result<Moved, Failure> {
        Ok(self.store.write(|tx| {
            let moved = tx.move_events(limits::APPLY_ROWS_MAX as u64)?;
            let mut applier = Applier::new(tx, at.wall);
            moved.tied.iter().try_for_each(|(table, record)| applier.refold(table, record))?;
            Ok(moved)
        })?)
    }

    /// The new id has all its events: from here on the node is one like any other, and catches up.
    fn renewed(&mut self, at: Moment) -> Result<(), Failure> {
        self.store.harden().map_err(|error| Failure::Fatal(super::Fatal(error)))?;
        let head = self.store.durable().vector.of(self.node());
        if self.connected && head > 0 {
            self.backlog.push_back((1, head));
        }
        // What the others have of the old id is a gap like any other.
        let old: Vec<(NodeId, Sequence)> = self.members.heads(at.uptime).iter().collect();
        let own = self.node();
        old.into_iter().filter(|(origin, _)| *origin != own).for_each(|(origin, head)| self.order.heard(origin, head));
        if matches!(self.phase, Phase::CatchingUp { .. } | Phase::Ready) {
            self.confirming = None;
            self.confirmed = false;
            self.phase = Phase::CatchingUp { target: self.members.heads(at.uptime) };
        }
        self.present_at = None;
        self.dirty = true;
        Ok(())
    }

    /// The fingerprint of the event at each position, as far as it is stored here: what presence tells.
    pub(super) fn fingerprints(&mut self) -> Vec<(NodeId, Fingerprint)> {
        let positions: Vec<(NodeId, Sequence)> = self.store.durable().vector.iter().collect();
        let told = |(origin, sequence)| Some((origin, self.fingerprint(EventId { origin, sequence })?));
        positions.into_iter().filter_map(told).collect()
    }
}
