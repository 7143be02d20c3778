//! The way to READY: founding, joining, settling, catching up.

use std::time::Duration;

use rowcast_schema::layout::LayoutId;
use uuid::Uuid;

use super::{Failure, Fatal, Moment, Replica, Worked};
use crate::bootstrap::gate::Phase;
use crate::bootstrap::joiner::{Arrived, Joiner};
use crate::clock::Timestamp;
use crate::edge::store::{Definitions, Error, SnapshotPage, Store};
use crate::flow::apply::Applier;
use crate::flow::fetch::AskId;
use crate::flow::ingest;
use crate::flow::receive;
use crate::limits;
use crate::members::{Members, Presence};
use crate::position::{NodeId, Vector};
use crate::steady::reconcile::{Cursor, Truth};
use crate::wire::{self, Message};

/// How long a member may take to say where it is before it is not waited for.
const CONFIRM_WAIT: Duration = Duration::from_secs(1);

/// How long a node that has to load waits until everybody keeps what it lacks. Its donor does in any case.
const ADMISSION_WAIT: Duration = Duration::from_secs(10);

/// The pause after a request of a joiner that brought nothing.
const LOAD_PAUSE: Duration = Duration::from_millis(500);

/// Begins to load everything from a node, in that run of its sidecar.
fn joiner_of(store: &Store, whence: (NodeId, Uuid)) -> Box<Joiner> {
    let tables = store.loaded_tables();
    let held = store.tables_of_others().unwrap_or_else(|error| {
        tracing::warn!(%error, "all tables are taken for ones with events of others: the load takes longer");
        tables.clone()
    });
    Box::new(Joiner::new(whence, tables, held))
}

impl Replica {
    /// After the first answer, how long the others may take with theirs.
    pub(super) fn answers_wait(&self) -> Duration {
        Members::answers_wait(self.retention.membership.count(), self.options.presence_interval)
    }

    /// Goes to the next phase when the time has come.
    pub(super) fn advance(&mut self, at: Moment) {
        if let Phase::Asking { since } = self.phase {
            self.leave_asking(since, at);
        }
        let finished = if let Phase::Joining(joiner) = &self.phase { joiner.finished() } else { None };
        if let Some((start, target)) = finished {
            tracing::info!("everything is loaded");
            self.phase = Phase::Settling { start, target };
            // What was written to a node that has had everything is in its events.
            if !self.retention.load_again {
                self.begin_sweep_of_all(&Truth::Events);
            }
        }
    }

    fn leave_asking(&mut self, since: Duration, at: Moment) {
        let waited = since + self.options.presence_wait <= at.uptime;
        let settled = self.answered_at.is_some_and(|first| waited || first + self.answers_wait() <= at.uptime);
        let durable = self.store.durable();
        if durable.loaded && !self.retention.load_again {
            if settled || (waited && (durable.complete || self.options.first)) {
                self.phase = Phase::CatchingUp { target: self.goal(at) };
            }
            return;
        }
        let donors = self.donors(at);
        let kept_for = || self.is_kept_for(at) || since + ADMISSION_WAIT <= at.uptime;
        if let Some(&donor) = donors.first().filter(|_| settled && kept_for()) {
            if self.options.first {
                tracing::warn!("--first is ignored: other nodes have data, and it is loaded from them");
            }
            tracing::info!(donor = self.members.name(donor), "everything is loaded from another node");
            self.retention.clock_floor = self.clock_floor(at);
            let session = self.members.presence(donor).map(|presence| presence.session).unwrap_or_default();
            self.phase = Phase::Joining(joiner_of(&self.store, (donor, session)));
        } else if self.options.first
            && !durable.loaded
            && waited
            && !self.members.iter().any(|member| member.presence.complete)
        {
            tracing::info!("nobody with data has answered, and this node may be the first: it begins with what it has");
            self.phase = Phase::Founding;
            self.begin_sweep_of_all(&Truth::RowFromBefore);
        }
    }

    /// Later than every delete that anybody has compacted: such a one is not later than what each member is past. What a
    /// load makes events of must be later, or it would come back to life where the delete is gone, and not elsewhere.
    /// A clock that was wrong elsewhere does not drag this one along: of deletes that it stamped far ahead of now that is
    /// not sure, and the comparison of digests finds what comes of it.
    fn clock_floor(&self, at: Moment) -> Timestamp {
        let whole = self.members.live(at.uptime).filter(|member| member.presence.complete);
        let stamps = whole.map(|member| member.presence.stamp).filter(|stamp| *stamp != Timestamp::default());
        stamps.min().unwrap_or_default().min(at.wall.plus(limits::DRIFT_MAX))
    }

    /// What was written so far is in the rows, and they are gone through from here on.
    fn begin_sweep_of_all(&mut self, truth: &Truth) {
        self.journal_forgotten = false;
        let tables = self.store.tables().iter().map(|table| table.name.clone());
        let round = |table: &str| {
            let pending = self.store.pending().iter().find(|pending| pending.table == table);
            pending.map_or(0, |pending| pending.want.round)
        };
        self.sweeps = tables
            .map(|table| {
                let round = round(&table);
                Cursor::start(table, truth.clone(), round)
            })
            .collect();
    }

    /// Asks for the next part of the load. Answers whether a load is on its way.
    pub(super) fn plan_load(&mut self, at: Moment) -> bool {
        if !matches!(self.phase, Phase::Joining(_)) {
            return false;
        }
        let (donors, bytes) = (self.donors(at), self.portion(at).bytes());
        let Phase::Joining(joiner) = &mut self.phase else { return false };
        if at.uptime < self.load_not_before {
            return true;
        }
        // One that only fell behind for a moment has all the same what it had.
        let serves = |said: &Presence| joiner.whence() == (said.node, said.session) && said.complete && said.sure;
        if !self.members.live(at.uptime).any(|member| serves(&member.presence)) {
            let Some(donor) = donors.first().and_then(|donor| self.members.presence(*donor)) else { return true };
            tracing::warn!(
                donor = donor.name,
                "the donor is gone, or was started again: everything is loaded from the beginning"
            );
            *joiner = joiner_of(&self.store, (donor.node, donor.session));
        }
        let next_ask = &mut self.next_ask;
        let request = joiner.next_request(bytes, || {
            *next_ask += 1;
            *next_ask
        });
        if let Some((ask, to, request)) = request {
            self.ask(to, ask, request);
        }
        true
    }

    /// Takes the answer to a joiner's request. Answers whether it was one.
    pub(super) fn take_load_answer(&mut self, ask: AskId, frame: Option<&[u8]>, at: Moment) -> bool {
        let Phase::Joining(joiner) = &mut self.phase else { return false };
        if !joiner.is_waiting_for(ask) {
            return false;
        }
        let message = match frame.map(wire::decode) {
            Some(Ok(message)) => message,
            Some(Err(error)) => Message::Refused(error.to_string()),
            None => Message::Refused("no answer in time".into()),
        };
        let taken = match message {
            Message::Definitions(definitions) => self.take_definitions(&definitions),
            Message::Snapshot(page) => Ok(self.take_page(page)),
            Message::Refused(reason) => Ok(Some(reason)),
            _ => Ok(Some("it is not what was asked for".into())),
        };
        let failed = match taken {
            Ok(None) => return true,
            Ok(Some(reason)) => {
                tracing::warn!(reason, "the donor's answer brought nothing; asking again");
                true
            }
            Err(error) => {
                self.take_trouble(&error, at);
                true
            }
        };
        if let (true, Phase::Joining(joiner)) = (failed, &mut self.phase) {
            joiner.failed();
            self.load_not_before = at.uptime + LOAD_PAUSE;
        }
        true
    }

    /// Makes the declared tables that are missing here.
    fn take_definitions(&mut self, given: &Definitions) -> Result<Option<String>, Error> {
        if limits::TABLES_MAX < given.tables.len() {
            return Ok(Some(format!(
                "it names {} tables, and more than {} are none of a service",
                given.tables.len(),
                limits::TABLES_MAX
            )));
        }
        let missing: Vec<String> =
            self.store.tables().iter().filter(|table| table.shape.is_none()).map(|table| table.name.clone()).collect();
        let wanted = |name: &str| missing.iter().any(|table| table.eq_ignore_ascii_case(name));
        let made = given.tables.iter().filter(|(name, sql)| wanted(name) && !sql.is_empty());
        let made: Vec<&(String, Vec<String>)> = made.collect();
        if !made.is_empty() {
            self.store.write(|tx| made.iter().try_for_each(|(name, sql)| tx.create_table(name, sql)))?;
            let names: Vec<&str> = made.iter().map(|(name, _)| name.as_str()).collect();
            tracing::info!(tables = names.join(", "), "made the tables as the donor has them");
        }
        if let Phase::Joining(joiner) = &mut self.phase {
            joiner.took_definitions(&given.vector, given.tables.iter().map(|(name, _)| name.as_str()));
        }
        Ok(None)
    }

    /// Keeps a page of records until it is its turn. Answers why it is of no use, if it is of none.
    fn take_page(&mut self, page: SnapshotPage) -> Option<String> {
        let known = match receive::sound(&page.layouts) {
            Ok(known) => known,
            Err(error) => return Some(error.to_string()),
        };
        if let Some(error) = page.rows.iter().find_map(|row| receive::check_event(&row.event, &known).err()) {
            return Some(error.to_string());
        }
        let Phase::Joining(joiner) = &mut self.phase else { return None };
        if !joiner.took_page(page) {
            *joiner = joiner_of(&self.store, joiner.whence());
            return Some("the donor has less than it had: everything is loaded from the beginning".into());
        }
        None
    }

    /// Stores a page of records and makes the rows of it, then takes out, a little at a time, what the donor has no more.
    /// Answers whether it did anything.
    pub(super) fn load_once(&mut self, at: Moment) -> Result<bool, Failure> {
        let Self { store, phase: Phase::Joining(joiner), retention, .. } = self else { return Ok(false) };
        let Some((arrived, held)) = joiner.arrived() else { return Ok(false) };
        let done = store.write(|tx| {
            // I3: what was written here comes before what others wrote.
            if tx.durable.loaded && ingest::is_long(tx)? {
                return Ok(None);
            }
            tx.durable.clock.merge(retention.clock_floor);
            let drained = if tx.durable.loaded { ingest::drain(tx, at.wall)? } else { Vec::new() };
            let Arrived { table, after, page, forgotten } = &*arrived;
            let mut applier = Applier::new(tx, at.wall);
            applier.done.ingested = drained;
            let next = match forgotten {
                // On most nodes that load there is nothing but what the load brings.
                None if !applier.has_events(table, after.as_deref(), page)? => {
                    applier.snapshot_page(page, held)?;
                    None
                }
                None => {
                    applier.snapshot_page(page, held)?;
                    applier.forget(table, after.as_deref(), page, &retention.left)?
                }
                Some(after) => applier.forget(table, after.as_deref(), page, &retention.left)?,
            };
            Ok(Some((applier.finish()?, next)))
        })?;
        let Some((applied, next)) = done else {
            self.dirty = true;
            return Ok(false);
        };
        match next {
            Some(next) => arrived.forgotten = Some(Some(next)),
            None => joiner.stored(),
        }
        // Nobody hears of them before everything is loaded.
        self.counters.captured += applied.ingested.iter().map(|ingested| ingested.events as u64).sum::<u64>();
        self.counters.applied += applied.events;
        self.counters.duplicates += applied.duplicates;
        self.counters.parked += applied.parked;
        Ok(true)
    }

    /// Ends a phase whose work is done, in a transaction.
    pub(super) fn settle(&mut self, at: Moment) -> Result<Worked, Failure> {
        match &self.phase {
            Phase::Founding if self.sweeps.is_empty() => {
                self.set_loaded(None)?;
                let note = at.wall.to_string();
                self.store.write(|tx| tx.note("first", &note))?;
                self.phase = Phase::CatchingUp { target: self.goal(at) };
            }
            Phase::Settling { start, target } if self.sweeps.is_empty() => {
                let (start, target) = (start.clone(), target.clone());
                self.set_loaded(Some((&start, &target)))?;
                self.retention.load_again = false;
                self.retention.left.clear();
                self.present_at = None;
                self.phase = Phase::CatchingUp { target: self.goal(at) };
            }
            Phase::CatchingUp { target } if self.has_reached(target, at) && self.drained => {
                if !self.confirm(at) {
                    return Ok(Worked::Idle);
                }
                if !self.store.durable().complete || !self.store.durable().load_target.is_empty() {
                    self.store.write(|tx| {
                        tx.set_load_target(None)?;
                        tx.set_complete()
                    })?;
                }
                // READY is not taken back by a power cut.
                self.store.harden().map_err(|error| Failure::Fatal(Fatal(error)))?;
                tracing::info!("READY");
                self.phase = Phase::Ready;
                self.present_at = None;
            }
            _ => return Ok(Worked::Idle),
        }
        self.dirty = true;
        Ok(Worked::Other)
    }

    /// Whether everything is here that was to be reached. A node that never had everything does not take itself for
    /// complete because nobody is left to ask who had.
    fn has_reached(&self, target: &Vector, at: Moment) -> bool {
        let durable = self.store.durable();
        let alone = !self.members.live(at.uptime).any(|member| member.presence.complete);
        durable.vector.covers(target) && (durable.complete || !alone)
    }

    /// What the members said when this node began to catch up is old by now: they are asked once more, and what they say
    /// then is reached, too. Answers whether that is done, or nobody is there.
    fn confirm(&mut self, at: Moment) -> bool {
        if self.confirmed {
            return true;
        }
        // What was heard before the connection went is no answer.
        let had_all = self.store.durable().complete && self.store.durable().load_target.is_empty();
        if !self.connected && !had_all {
            self.confirming = None;
            return false;
        }
        if self.members.live(at.uptime).next().is_none() {
            return true;
        }
        let Some(asked) = self.confirming else {
            self.confirming = Some(at.uptime);
            self.present_at = None;
            return false;
        };
        let mut wait = Duration::ZERO;
        for member in self.members.live(at.uptime) {
            let presence = &member.presence;
            let (answered, sure) = (asked < member.seen, presence.sure || !presence.complete);
            wait = wait.max(match (answered, sure) {
                (true, true) => Duration::ZERO,
                (false, _) => CONFIRM_WAIT,
                (true, false) => limits::MEMBER_TIMEOUT,
            });
        }
        if asked + wait <= at.uptime {
            self.confirmed = true;
            self.phase = Phase::CatchingUp { target: self.goal(at) };
        }
        false
    }

    /// The first word of a member since this node asked for the second time is the answer, and if it is not sure of itself the first
    /// one of which it is. Where it comes late, and the node is not READY yet, what it has is reached, too. `before`: when it was
    /// heard last before that, and was sure.
    pub(super) fn reach_answer(&mut self, member: NodeId, before: Option<Duration>) {
        let Some(asked) = self.confirming.filter(|asked| before.is_none_or(|seen| seen <= *asked)) else { return };
        if let (Phase::CatchingUp { target }, Some(presence)) = (&mut self.phase, self.members.presence(member)) {
            tracing::debug!(member = presence.name, ?asked, "its answer is reached, too");
            target.join(&presence.vector);
        }
    }

    /// Everything is loaded: from here on the position counts, what is written is a change, and the others may hear of it.
    /// Of other origins nothing is here but what the load brought: its `start` is the position, also where it had been
    /// greater. The parts that it brought of what lies between that and its target are not all.
    fn set_loaded(&mut self, load: Option<(&Vector, &Vector)>) -> Result<(), Failure> {
        self.store.write(|tx| {
            let own = tx.durable.node;
            if let Some((start, target)) = load {
                let mut origins = tx.durable.vector.clone();
                origins.join(start);
                for (origin, _) in origins.iter().filter(|(origin, _)| *origin != own) {
                    tx.set_position(origin, start.of(origin), Timestamp::default())?;
                    tx.set_horizon(origin, start.of(origin))?;
                }
                tx.set_load_target(Some(target))?;
                tx.set_load_again(None)?;
            } else {
                // A first node has nobody to catch up with; and a crash between the two would leave it waiting for somebody.
                tx.set_complete()?;
            }
            // The clock took in what the snapshot brought, and must not forget it.
            let head = tx.durable.vector.of(own);
            tx.set_position(own, head, tx.durable.clock.last())?;
            tx.set_loaded()
        })?;
        // What is loaded is said to others from here on, and counts as theirs.
        self.store.harden().map_err(|error| Failure::Fatal(Fatal(error)))
    }

    /// A layout that the node knows without asking the database again.
    pub(super) fn layout(&self, id: LayoutId) -> Option<rowcast_schema::layout::Layout> {
        self.store.known_layout(id)
    }
}
