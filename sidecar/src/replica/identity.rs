//! Whether this node may speak under its id, and the way to a new one when it may not.
//!
//! Sequence numbers are given out once. A database that was restored from an older copy, or copied with the file
//! beside it, would give them out a second time. So after a start nothing is ingested, and after each new connection
//! nothing is published, before the others have said what they have of this node's events. Where they have more of them than
//! this node, or others under the same numbers, or where another sidecar speaks under the id, it falls silent at
//! once, finds the number from which on its own events are not what the others have, and goes on under a new id from there
//! ([`Replica::renew`]). It needs no restart, and the service sees nothing of it.
//!
//! `search` finds that number. `forks` is what the other nodes do about numbers that were given out twice, and `audit` what
//! the node itself does afterwards.

mod audit;
mod forks;
mod search;

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use self::audit::Audited;
use self::forks::Fork;
use self::search::Search;
use super::{Failure, Moment, Output, Replica, Worked};
use crate::bootstrap::gate::Phase;
use crate::edge::store::Moved;
use crate::event::{EventId, Fingerprint};
use crate::flow::apply::Applier;
use crate::flow::ingest;
use crate::limits;
use crate::members::Presence;
use crate::observe::status::{Code, Reason};
use crate::position::{NodeId, Sequence};

/// A sidecar that was heard once under this id may be this one's own last word before a restart. Heard again after
/// this long, it is another one.
const TWIN_AGAIN: Duration = Duration::from_millis(400);

/// Another sidecar that was not heard for this long under this id is gone.
const TWIN_GONE: Duration = Duration::from_secs(3);

/// The other sidecar should have taken a new id by now.
const TWIN_YIELDS: Duration = Duration::from_secs(10);

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
    /// Records with moved events that have the time of another one.
    tied: Vec<(String, String)>,
    /// Origins with a number that was given out twice.
    forked: BTreeMap<NodeId, Fork>,
    /// Where this node's events of another origin part from a member's is being found.
    dispute: Option<Search>,
    dispute_not_before: Duration,
    /// What this node has of an origin from a number on has to give way: to which event there.
    yields: Option<(NodeId, Sequence, Fingerprint)>,
    /// What it gave way to: nothing else is taken under that number.
    settled: BTreeMap<NodeId, (Sequence, Fingerprint)>,
    /// With whom the events of ids that are in doubt were compared.
    audited: Audited,
}

#[derive(Debug)]
enum Standing {
    /// The members have not said yet what they have of this node's events.
    Unsure { since: Duration, answered: Option<Duration> },
    /// The id is this node's.
    Sure,
    /// It is not: where its events part from the others' is being found.
    Searching(Box<Search>),
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
            tied: Vec::new(),
            forked: BTreeMap::new(),
            dispute: None,
            dispute_not_before: Duration::ZERO,
            yields: None,
            settled: BTreeMap::new(),
            audited: Audited::default(),
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
        let answers_wait = self.answers_wait();
        match &mut self.identity.standing {
            Standing::Sure | Standing::Unsure { .. } => {
                self.identity.standing = Standing::Unsure { since: at.uptime, answered: None };
            }
            Standing::Searching(search) => {
                search.gather_until = at.uptime + self.options.presence_interval + answers_wait;
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
            self.note_fork(id, at);
            self.dispute(origin, [sequence], presence.node, at);
        }
        for &(origin, sequence, kept) in &presence.forked {
            let id = EventId { origin, sequence };
            let here = sequence <= self.store.durable().vector.of(origin);
            if here {
                self.identity.audited.suspect(origin);
            }
            let differs = here && self.fingerprint(id).is_some_and(|stored| stored != kept);
            if differs && origin != own {
                self.note_fork(id, at);
                self.dispute(origin, [sequence, presence.vector.of(origin)], presence.node, at);
            } else if differs {
                let name = &presence.name;
                let text = format!(
                    "node {name} has another event of this node under the number {sequence}: another sidecar spoke under its id"
                );
                return self.leave_identity(&text, at);
            }
        }
    }

    /// What the operator should know of ids.
    pub(super) fn identity_warnings(&self, warnings: &mut Vec<String>) {
        for (&origin, Fork { sequence, .. }) in &self.identity.forked {
            warnings.push(format!(
                "node {} gave out the number {sequence} twice, for different events: its database was copied or restored; both events are kept",
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
                "events whose numbers were given out twice are being emitted anew under this node's id".to_owned()
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
        let until = at.uptime + self.options.presence_interval + self.answers_wait();
        self.identity.standing = Standing::Searching(Box::new(Search::of(self.node(), why, until)));
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
                let settled = answered.is_some_and(|first| first + self.answers_wait() <= at.uptime);
                if !leaves && (settled || *since + self.options.presence_wait <= at.uptime) {
                    self.identity.standing = Standing::Sure;
                    self.identity.begun = true;
                    // How far it has numbered is said at the pace of an answer.
                    self.answer_wanted = true;
                    self.dirty = true;
                }
            }
            Standing::Searching(_) => self.search_own(at),
            Standing::Sure | Standing::Found(_) => {}
        }
        self.watch_dispute(at);
    }

    /// Takes the new id once it is known from where on, and moves a page of events. Answers nothing when there is nothing
    /// of that to do.
    pub(super) fn work_on_identity(&mut self, at: Moment) -> Result<Option<Worked>, Failure> {
        if self.store.durable().renewal.is_some() {
            let base = self.store.durable().renewal.map_or(1, |renewal| renewal.base);
            if self.move_events()?.done {
                self.renewed(base, at)?;
            }
            return Ok(Some(Worked::Other));
        }
        if !self.identity.tied.is_empty() && self.flows() && self.store.pending().is_empty() {
            self.refold_tied(at)?;
            return Ok(Some(Worked::Other));
        }
        if self.identity.yields.is_some() && self.flows() && self.store.durable().open_group.is_none() {
            self.give_way(at)?;
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
            self.renewed(1, at)?;
        }
        Ok(())
    }

    fn move_events(&mut self) -> Result<Moved, Failure> {
        let mut moved = self.store.write(|tx| tx.move_events(limits::APPLY_ROWS_MAX as u64))?;
        self.identity.tied.append(&mut moved.tied);
        Ok(moved)
    }

    /// Rows whose events changed places by their new ids. The journal comes first (I3), and it waits until all are moved.
    fn refold_tied(&mut self, at: Moment) -> Result<(), Failure> {
        let tied = self.identity.tied.clone();
        let done = self.store.write(|tx| {
            if ingest::is_long(tx)? {
                return Ok(None);
            }
            let drained = ingest::drain(tx, at.wall)?;
            let mut applier = Applier::new(tx, at.wall);
            applier.done.ingested = drained;
            tied.iter().try_for_each(|(table, record)| applier.refold(table, record))?;
            Ok(Some(applier.done))
        })?;
        let Some(done) = done else { return self.ingest_journal(at).map(drop) };
        self.identity.tied.clear();
        self.publish(done.ingested)
    }

    /// All events are moved, the first one to `base`: from here on the node is one like any other, and catches up.
    fn renewed(&mut self, base: Sequence, at: Moment) -> Result<(), Failure> {
        self.store.harden().map_err(|error| Failure::Fatal(super::Fatal(error)))?;
        let head = self.store.durable().vector.of(self.node());
        if self.connected && base <= head {
            self.backlog.push_back((base, head));
        }
        // What the others have of the old id is a gap like any other.
        let old: Vec<(NodeId, Sequence)> = self.members.heads(at.uptime).iter().collect();
        let own = self.node();
        old.into_iter().filter(|(origin, _)| *origin != own).for_each(|(origin, head)| self.order.heard(origin, head));
        if matches!(self.phase, Phase::CatchingUp { .. } | Phase::Ready) {
            self.confirming = None;
            self.confirmed = false;
            self.phase = Phase::CatchingUp { target: self.goal(at) };
        }
        self.present_at = None;
        self.dirty = true;
        Ok(())
    }
}
