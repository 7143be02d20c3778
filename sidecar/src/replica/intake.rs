//! What comes in: feeds, presence, answers, announcements; and applying the groups whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Moment, Output, Replica, Worked, left_by};
use crate::bootstrap::gate::Phase;
use crate::clock::Timestamp;
use crate::edge::store::{Answer, Store};
use crate::event::{Event, EventId, Piece};
use crate::flow::apply::Applier;
use crate::flow::capture::announced::{self, Announcement, Heard, Read, Refusal};
use crate::flow::fetch::{AskId, Sizes};
use crate::flow::ingest::{self, Ingested};
use crate::flow::order::{self, Gap, Order, Step};
use crate::flow::receive;
use crate::limits;
use crate::members::Presence;
use crate::observe::metrics;
use crate::observe::status::{Code, Reason};
use crate::position::{NodeId, Sequence, Vector};
use crate::wire::{self, Message};

/// What is waited for, and since when.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Groups whose context is not covered.
    contexts: BTreeMap<(NodeId, Sequence), Duration>,
    /// Silent origins of which nobody has what was waited for, and how far somebody had them then. One wait is enough: what
    /// else a group lacks of them is not waited for again.
    gone: BTreeMap<NodeId, Sequence>,
    /// The beginnings of groups of which nobody says to have the rest, up to where each is stored, and since when.
    unfinished: BTreeMap<NodeId, (Sequence, Duration)>,
    /// What was known to exist, and is not all here.
    mark: Option<(Vector, Duration)>,
    /// The gap has stayed open for too long.
    pub(super) behind: bool,
    /// Why it stays NOT READY: what it has to reach was told of by a node that is silent now, and no other one has it.
    pub(super) unheard: Option<Reason>,
}

impl Waiting {
    /// The connection is new: who is silent is seen from here on.
    pub(super) fn connected(&mut self) {
        self.contexts.clear();
        self.gone.clear();
    }

    /// What was known to exist is looked at anew.
    pub(super) fn forget_mark(&mut self) {
        self.mark = None;
    }
}

/// How long a node that was READY may lag behind what is known to exist before it is in doubt.
const LAG_MAX: Duration = Duration::from_secs(15);

/// How long it is waited for somebody to say that he has the group whose beginning is stored here. Presence comes every second.
const STAGED_WAIT: Duration = Duration::from_secs(5);

/// How long an alarm counts that is not seen again. Presence comes every second.
const ALARM_TIME: Duration = Duration::from_secs(15);

/// Announcements that wait to be ingested, in as many bytes as may be on their way; the next one is refused, and the service
/// tries again.
const ANNOUNCED_MAX: usize = 1024;

/// Announcements ingested in one transaction.
const ANNOUNCED_AT_ONCE: usize = 50;

impl Replica {
    pub(super) fn take_feed(&mut self, subject: NodeId, frame: &[u8], at: Moment) {
        match receive::feed(frame, subject) {
            Ok(feed) if feed.origin == self.node() => {
                self.raise_alarm("events arrive on the bus under this node's own id", at);
            }
            // A straggler of one that is held for lost: what counts of it comes from the others.
            Ok(feed) if self.retention.membership.is_frozen(feed.origin) => {}
            Ok(feed) => {
                let layouts = Arc::from(feed.layouts);
                if !self.check_link(feed.origin, &feed.pieces, feed.before, at) {
                    return; // What it should have brought is fetched once that is settled.
                }
                for (piece, link) in order::linked(feed.pieces, feed.before) {
                    if piece.first <= self.store.durable().vector.of(feed.origin) {
                        self.check_repeated(feed.origin, &piece, at);
                    }
                    if !self.order.offer(feed.origin, (piece, link), &layouts, &self.store.durable().vector) {
                        self.counters.duplicates += 1;
                    }
                }
            }
            Err(error) => self.note_refused("feed", &error),
        }
    }

    /// A flood of garbage must not become a flood of log lines.
    fn note_refused(&mut self, what: &str, error: &dyn std::fmt::Display) {
        self.refused += 1;
        if self.refused.is_power_of_two() {
            tracing::warn!(what, %error, refused = self.refused, "refused a message; what it should have brought is fetched");
        }
    }

    pub(super) fn take_presence(&mut self, payload: &[u8], at: Moment) {
        let mut presence = match wire::decode(payload) {
            Ok(Message::Presence(presence)) => presence,
            Ok(_) => return self.note_refused("presence", &"it is another kind of message"),
            Err(error) => return self.note_refused("presence", &error),
        };
        if presence.node == self.node() {
            return self.heard_twin(&presence, at);
        }
        // Also of one that nothing is taken from: so it hears that it was given up, and what it lacks.
        self.answer_wanted |= presence.ask;
        if !self.retention.membership.heard(self.node(), &presence, at.wall, at.uptime) {
            return;
        }
        self.judge(&presence, at);
        self.leave_parts(&mut presence);
        let own = self.node();
        for (origin, head) in presence.vector.iter().filter(|(origin, _)| *origin != own) {
            self.order.heard(origin, head);
        }
        self.answered_at.get_or_insert(at.uptime);
        let (name, node, schema) = (presence.name.clone(), presence.node, presence.schema.clone());
        let before = self.members.get(node).map(|before| (before.presence.session, before.sure_at));
        if before.map(|(session, _)| session) != Some(presence.session) {
            self.order.started_again(node);
        }
        let lowered = self.lowered_by(&presence);
        if self.members.heard(presence, at.wall, at.uptime) {
            tracing::info!(member = name, member_id = %node, "heard another node");
            if schema != self.schema() {
                tracing::warn!(member = name, "it declares another schema: ship the same schema TOML to all nodes");
            }
        }
        self.reach_answer(node, before.and_then(|(_, sure_at)| sure_at));
        self.follow_lowered(node, &lowered, at);
        self.wait_for_what_is_told(at);
    }

    /// What a node holds in part, that never had everything, and cannot hand over from where this one is, is not waited for: it loaded it
    /// from somebody who had it all, and who says so itself; or who has lost it, and whom nobody could load from, if all waited for what
    /// nobody can bring.
    fn leave_parts(&self, presence: &mut Presence) {
        if presence.complete {
            return;
        }
        let (own, position) = (self.node(), &self.store.durable().vector);
        let reachable = |origin| origin == own || presence.horizon.of(origin) <= position.of(origin);
        presence.vector = presence.vector.iter().filter(|(origin, _)| reachable(*origin)).collect();
    }

    pub(super) fn raise_alarm(&mut self, text: &str, at: Moment) {
        if self.alarm.as_ref().is_none_or(|(alarm, _)| alarm.text != text) {
            tracing::error!(hint = Code::Identity.hint(), "{text}");
        }
        self.alarm = Some((Reason::new(Code::Identity, text), at.uptime + ALARM_TIME));
    }

    /// An alarm that is not seen again ends: the other one is gone.
    pub(super) fn watch_alarm(&mut self, at: Moment) {
        if self.alarm.as_ref().is_some_and(|(_, until)| *until <= at.uptime) {
            tracing::info!("what put this node's identity in doubt is gone");
            self.alarm = None;
        }
    }

    pub(super) fn take_announced(&mut self, payload: &[u8], reply: Option<String>) {
        let tables: Vec<String> = self.store.tables().iter().map(|table| table.name.clone()).collect();
        let refusal = match announced::read(payload, &tables) {
            Ok(Read::Own(table)) => {
                // An echo of our own writes by a service that tells everything: no news for the log.
                let refusal =
                    Refusal(format!("`{table}` is one of Rowcast's own tables: its change events are ignored"));
                return self.answer_refused(&refusal, reply);
            }
            Ok(Read::Change(_)) if !self.flows() && !self.waits_for_identity() => {
                Refusal("this node is not READY: its data is still being loaded; try again".into())
            }
            Ok(Read::Change(announcement)) if self.has_no_room_for(&announcement) => {
                Refusal("too many change events wait; try again".into())
            }
            Ok(Read::Change(announcement)) => {
                self.announced.push_back((announcement, reply));
                return;
            }
            Err(refusal) => refusal,
        };
        self.refuse(&refusal, reply);
    }

    fn refuse(&mut self, refusal: &Refusal, reply: Option<String>) {
        tracing::warn!(reason = refusal.0, "refused a change event of the service");
        self.answer_refused(refusal, reply);
    }

    fn answer_refused(&mut self, refusal: &Refusal, reply: Option<String>) {
        if let Some(to) = reply {
            let body = serde_json::json!({ "ok": false, "error": refusal.0 }).to_string();
            self.outputs.push_back(Output::Reply { to, body });
        }
    }

    fn has_no_room_for(&self, announcement: &Announcement) -> bool {
        let bytes: usize = self.announced.iter().map(|(waiting, _)| waiting.bytes).sum();
        ANNOUNCED_MAX <= self.announced.len() || limits::INBOX_BYTES_MAX < bytes + announcement.bytes
    }

    pub(super) fn ingest_announced(&mut self, at: Moment) -> Result<(), Failure> {
        let count = self.announced.len().min(ANNOUNCED_AT_ONCE);
        let mut batch: Vec<_> = self.announced.drain(..count).collect();
        let replies: Vec<Option<String>> = batch.iter_mut().map(|(_, reply)| reply.take()).collect();
        let written = self.store.write(|tx| {
            if ingest::is_long(tx)? {
                return Ok(None);
            }
            let mut ingested = ingest::drain(tx, at.wall)?;
            let mut outcomes = Vec::with_capacity(batch.len());
            for (announcement, _) in std::mem::take(&mut batch) {
                outcomes.push(match announced::ingest(tx, announcement, at.wall)? {
                    Ok(Heard { ingested: more, sequence }) => {
                        ingested.push(more);
                        Ok(sequence)
                    }
                    Err(refusal) => Err(refusal),
                });
            }
            Ok(Some((ingested, outcomes)))
        });
        let (ingested, outcomes) = match written {
            Ok(Some(written)) => written,
            Ok(None) => {
                let waiting = batch.into_iter().zip(replies).map(|((announcement, _), reply)| (announcement, reply));
                waiting.rev().for_each(|announced| self.announced.push_front(announced));
                return self.ingest_journal(at).map(drop);
            }
            Err(error) => {
                // Fire and forget is caught by the reconciliation; who asked is told to try again.
                let refusal = Refusal(format!("{}; try again", error.chain()));
                replies.into_iter().for_each(|reply| self.refuse(&refusal, reply));
                self.sweep_announced();
                return Err(error.into());
            }
        };
        self.publish(ingested)?;
        for (outcome, reply) in outcomes.into_iter().zip(replies) {
            match (outcome, reply) {
                (Ok(sequence), Some(to)) => {
                    let body = serde_json::json!({ "ok": true, "sequence_number": sequence }).to_string();
                    self.outputs.push_back(Output::Reply { to, body });
                }
                (Ok(_), None) => {}
                (Err(refusal), reply) => self.refuse(&refusal, reply),
            }
        }
        Ok(())
    }

    pub(super) fn take_answer(&mut self, ask: AskId, frame: Option<&[u8]>, at: Moment) {
        if self.take_load_answer(ask, frame, at)
            || self.take_search_answer(ask, frame, at)
            || self.take_verify_answer(ask, frame)
        {
            return;
        }
        let Some(origin) = self.fetching.origin_of(ask) else { return };
        let useful = frame.and_then(|frame| self.take_fetched(origin, frame, at));
        self.fetching.ended((origin, ask), useful, at.uptime);
        if useful.is_some() {
            self.counters.gaps_fetched += 1;
        }
    }

    /// Takes an answer. Answers how large its events were; nothing when it brought nothing.
    fn take_fetched(&mut self, origin: NodeId, frame: &[u8], at: Moment) -> Option<Sizes> {
        let page = match wire::decode(frame) {
            Ok(Message::Fetched(Answer::Events(page))) => page,
            Ok(Message::Refused(reason)) => {
                tracing::warn!(%origin, reason, "another node refused to hand over events");
                return None;
            }
            Ok(_) => return None,
            Err(error) => {
                tracing::warn!(%origin, %error, "refused an answer");
                return None;
            }
        };
        if let Err(error) = receive::check(&page.pieces, &page.layouts) {
            tracing::warn!(%origin, %error, "refused an answer");
            return None;
        }
        if !self.check_link(origin, &page.pieces, page.before, at) {
            return None;
        }
        if page.pieces.iter().any(|piece| self.is_given_up(origin, piece)) {
            return None; // The next member may have what this node gave way to.
        }
        let layouts = Arc::from(page.layouts);
        let events = || page.pieces.iter().flat_map(|piece| &piece.events);
        let bytes: usize = page.pieces.iter().map(Piece::size).sum();
        let largest = events().map(Event::size).max().unwrap_or(0);
        let sizes = Sizes { mean: bytes / events().count().max(1), largest };
        let mut useful = false;
        for (piece, link) in order::linked(page.pieces, page.before) {
            useful |= self.order.offer(origin, (piece, link), &layouts, &self.store.durable().vector);
        }
        useful.then_some(sizes)
    }

    /// Applies groups whose turn it is, as many as fit one short transaction. Answers what it did: where the journal is too long,
    /// a page of that becomes events instead.
    pub(super) fn apply_due(&mut self, at: Moment) -> Result<Worked, Failure> {
        let (most, page) = ((self.apply_rows_max(at), self.portion(at).lot_bytes()), self.overrun.page());
        let Self { store, order, .. } = self;
        let Some(first) = order.next(&store.durable().vector) else { return Ok(Worked::Idle) };
        let applied = match apply(store, order, (first, most), page, at)? {
            Turn::Applied(applied) => applied,
            Turn::Ingested(page) => return self.ingested(page, at),
        };
        for (id, fingerprint) in self.order.tips() {
            if id.sequence == self.store.durable().vector.of(id.origin) {
                self.identity.remember(id, fingerprint);
            }
        }
        self.drained = true;
        self.overrun.note(false, at.uptime);
        if applied.newest != Timestamp::default() {
            let took = at.wall.millis().saturating_sub(applied.newest.millis());
            metrics::REPLICATION_SECONDS.record(Duration::from_millis(u64::try_from(took).unwrap_or(0)));
        }
        let (rows, own) = (
            applied.events + applied.duplicates + applied.staged + applied.discarded,
            applied.ingested.iter().map(|done| done.events).sum(),
        );
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        self.fitting.applied(rows, own);
        self.fitting_behind.applied(rows, own);
        self.counters.applied += applied.events;
        self.counters.duplicates += applied.duplicates;
        self.counters.conflicts += applied.conflicts;
        self.counters.parked += applied.parked;
        self.pace.note(applied.ingested.iter().map(|done| done.commits).sum(), false, at.uptime);
        self.publish(applied.ingested)?;
        Ok(Worked::Applied)
    }

    /// A context that no live member can satisfy is waived in the end: its author may be gone for good.
    pub(super) fn watch_contexts(&mut self, at: Moment) {
        let applied = &self.store.durable().vector;
        let blocked = self.order.blocked(applied);
        let heads = self.members.heads(at.uptime);
        // A group that was dropped, and is fetched again, has waited all the same.
        self.waiting.contexts.retain(|(origin, first), _| *first == applied.of(*origin) + 1);
        let is_live = |origin: NodeId| self.members.live(at.uptime).any(|member| member.presence.node == origin);
        self.waiting.gone.retain(|origin, had| heads.of(*origin) <= *had && !is_live(*origin));
        for group in blocked {
            let unreachable = group.lacks.iter().filter(|&&(origin, to)| heads.of(origin) < to);
            let unreachable: Vec<NodeId> = unreachable.map(|&(origin, _)| origin).collect();
            let key = (group.origin, group.first);
            if unreachable.is_empty() {
                self.waiting.contexts.insert(key, at.uptime);
                continue;
            }
            let since = *self.waiting.contexts.entry(key).or_insert(at.uptime);
            let gone = |origin: &NodeId| self.waiting.gone.contains_key(origin);
            let known = unreachable.len() == group.lacks.len() && unreachable.iter().all(gone);
            if known || since + self.options.context_timeout <= at.uptime {
                let room = limits::ORIGINS_MAX.saturating_sub(self.waiting.gone.len());
                let silent = unreachable.into_iter().filter(|origin| !is_live(*origin)).take(room);
                for origin in silent.filter(|_| self.connected) {
                    self.waiting.gone.entry(origin).or_insert(heads.of(origin));
                }
                let lacks: Vec<String> = group.lacks.iter().map(|(origin, to)| format!("{origin} to {to}")).collect();
                let (origin, first, lacks) = (group.origin, group.first, lacks.join(", "));
                if known {
                    tracing::debug!(%origin, first, lacks, "a group is applied without what is known to be gone");
                } else {
                    tracing::warn!(%origin, first, lacks, "nobody has what the author of a group had seen; it is applied without");
                }
                self.order.waive(group.origin, group.first);
            }
        }
    }

    /// The beginning of a group that nobody has whole is from before its author was restored: what has its numbers now is fetched.
    /// Only whole groups are sent, so that its author's next word tells of it. While the author is silent, and nobody has anything
    /// that the beginning is in the way of, it stays.
    pub(super) fn watch_staged(&mut self, at: Moment) {
        let heads = self.members.heads(at.uptime);
        let applied = &self.store.durable().vector;
        let in_the_way = |origin: NodeId| {
            // While it is not sure of its own events it tells nothing of them.
            let tells = |presence: &Presence| presence.node == origin && 0 < presence.vector.of(origin);
            let speaks = self.members.live(at.uptime).any(|member| tells(&member.presence));
            self.connected && (speaks || applied.of(origin) < heads.of(origin))
        };
        let unfinished = self.order.unfinished(&heads).filter(|(origin, _)| in_the_way(*origin));
        let unfinished: Vec<(NodeId, Sequence)> = unfinished.collect();
        self.waiting.unfinished.retain(|origin, (staged, _)| unfinished.contains(&(*origin, *staged)));
        for (origin, staged) in unfinished {
            let (_, since) = *self.waiting.unfinished.entry(origin).or_insert((staged, at.uptime));
            if since + STAGED_WAIT <= at.uptime {
                self.waiting.unfinished.remove(&origin);
                self.order.give_up(origin, heads.of(origin).max(self.store.durable().vector.of(origin)));
            }
        }
    }

    /// A node that lags for long is in doubt, even if it was READY.
    pub(super) fn watch_lag(&mut self, at: Moment) {
        let applied = &self.store.durable().vector;
        // What only the dead have is no reason to doubt the living.
        let heads = self.members.heads(at.uptime);
        let reached = self.waiting.mark.as_ref().is_none_or(|(mark, _)| applied.covers(&mark.within(&heads)));
        if reached {
            self.waiting.behind = false;
            self.waiting.mark = (!applied.covers(&heads)).then_some((heads, at.uptime));
        } else if let Some((_, since)) = &self.waiting.mark {
            self.waiting.behind = *since + LAG_MAX <= at.uptime;
        }
        self.waiting.unheard = self.unheard(at);
    }

    /// On the way to READY what a silent node told of is waited for. The operator is told whom to start.
    fn unheard(&self, at: Moment) -> Option<Reason> {
        let Phase::CatchingUp { target } = &self.phase else { return None };
        let heads = self.members.heads(at.uptime);
        let applied = &self.store.durable().vector;
        let (origin, last) = applied.lacks(target).find(|(origin, last)| heads.of(*origin) < *last)?;
        let teller = self.members.iter().find(|member| last <= member.presence.vector.of(origin));
        let first = heads.of(origin).max(applied.of(origin)) + 1;
        let text = format!(
            "events {first} to {last} of node {} are known to exist, and nobody who is heard has them",
            self.name_of(origin)
        );
        let Some(teller) = teller.map(|member| member.presence.node) else {
            return Some(Reason::new(Code::Gap, text).with_hint(
                "start the node again that this one was loading from; if it is gone for good, and no other node has everything, \
                 start this one once with --first",
            ));
        };
        let name = self.name_of(teller);
        let text = format!("{text}: node {name} ({teller}) told of them, and is silent");
        Some(Reason::new(Code::Gap, text).with_hint(format!(
            "start node {name} again; if it is gone for good, and what only it had with it: `rowcast members expel {teller}`"
        )))
    }

    pub(super) fn plan_requests(&mut self, at: Moment) {
        if !self.connected {
            return;
        }
        if self.plan_load(at) || !self.flows() {
            return;
        }
        let portion = self.portion(at);
        let gaps = self.gaps_within(portion.ahead_bytes());
        let next_ask = &mut self.next_ask;
        let requests = self.fetching.plan((&gaps, portion.fetch()), &self.members, at.uptime, || {
            *next_ask += 1;
            *next_ask
        });
        for (ask, to, request) in requests {
            self.ask(to, ask, request);
        }
    }

    pub(super) fn gaps(&self) -> Vec<Gap> {
        self.gaps_within(limits::AHEAD_BYTES)
    }

    fn gaps_within(&self, ahead_bytes: usize) -> Vec<Gap> {
        let gaps = self.order.gaps(&self.store.durable().vector, ahead_bytes);
        let own = self.node();
        // However much is held: what fills the memory may wait for just this.
        gaps.into_iter().filter(|gap| gap.origin != own).collect()
    }
}

/// What a transaction that was to apply did.
enum Turn {
    Applied(crate::flow::apply::Applied),
    /// Nothing is applied: there is more in the journal than was ingested.
    Ingested(Vec<Ingested>),
}

/// Carries out the steps of the order in one transaction, after everything local.
fn apply(
    store: &mut Store,
    order: &mut Order,
    (first, (rows_max, bytes_max)): (Step, (usize, usize)),
    page: ingest::Page,
    at: Moment,
) -> Result<Turn, Failure> {
    let mut first = Some(first);
    let done = store.write(|tx| {
        let mut drained = Vec::new();
        if ingest::is_long(tx)? {
            drained = ingest::page(tx, at.wall, page)?;
            if left_by(&drained) > 0 {
                return Ok(Turn::Ingested(drained));
            }
        }
        drained.extend(ingest::drain(tx, at.wall)?);
        let (mut rows, mut bytes) = (0, 0);
        // Whose beginning of a group was staged in this transaction.
        let mut begun = BTreeSet::new();
        let mut applier = Applier::new(tx, at.wall);
        applier.done.ingested = drained;
        while rows < rows_max && bytes < bytes_max {
            let Some(step) = first.take().or_else(|| order.next(applier.position())) else { break };
            let (known, ends) = (applier.done.duplicates, step.ends());
            match step {
                Step::Discard(origin) => {
                    let room = rows_max - rows;
                    let gone = applier.discard_staged(origin, room)?;
                    rows += gone;
                    if gone < room {
                        let sequence = applier.position().of(origin);
                        order.discarded(origin, applier.stored(EventId { origin, sequence })?);
                    }
                }
                Step::Apply(origin, group, layouts) => {
                    rows += group.events.len();
                    bytes += group.size();
                    applier.defer(origin, group, &layouts)?;
                }
                Step::Stage(origin, piece, layouts) => {
                    rows += piece.events.len();
                    bytes += piece.size();
                    applier.stage(origin, &piece, &layouts)?;
                    if piece.first == applier.position().of(origin) + 1 {
                        begun.insert(origin);
                    }
                    let staged = piece.last() - applier.position().of(origin);
                    let whole = piece.ends_group() || limits::GROUP_ROWS_MAX <= staged;
                    order.staged(origin, piece.last(), &piece.context, whole);
                }
                Step::ApplyStaged(origin, last) => {
                    // What was staged before is not counted yet, and may be much.
                    if !begun.contains(&origin) {
                        applier.done.staged += last - applier.position().of(origin);
                        rows = rows_max;
                    }
                    applier.staged_group(origin, last)?;
                    order.unstage(origin);
                }
            }
            // What was stored already may be another one than what came.
            if let Some(end) = ends.filter(|_| known < applier.done.duplicates) {
                order.stands(end.origin, applier.stored(end)?);
            }
        }
        applier.finish().map(Turn::Applied)
    })?;
    if let Some(step) = first {
        order.give_back(step, &store.durable().vector);
    }
    Ok(done)
}
