//! One node, and everything that can happen to it.
//!
//! [`Replica::handle`] takes what came (a message, an answer, a wake-up) and remembers what is to be done;
//! [`Replica::tick`] looks at the time; [`Replica::work`] does one bounded piece of it, a few milliseconds of write
//! lock unless a long group of another node is applied whole. What is to be sent comes out of [`Replica::take_outputs`].
//!
//! It reads no clock, speaks to no bus and spawns nothing: time comes in with each call, so the same code runs under a
//! simulator. Only the database is its own.
//!
//! Order of work: the journal and everything else take turns, so that a busy service starves nobody; the rest goes by
//! what must come first: comparing what the triggers missed, announcements, groups whose turn it is, loading. Within an
//! applying transaction the journal always comes first (I3).

mod again;
mod identity;
mod intake;
mod layouts;
mod load;
mod outgoing;
mod pace;
mod pause;
mod portion;
mod presence;
mod retention;
mod shown;
mod sweep;
mod time;
mod verify;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::bootstrap::gate::Phase;
use crate::clock::Timestamp;
use crate::edge::store::{Error, Facts, Reader, Store};
use crate::flow::capture::announced::Announcement;
use crate::flow::fetch::{AskId, Fetching, Request};
use crate::flow::ingest::{self, Ingested};
use crate::flow::order::Order;
use crate::limits;
use crate::members::Members;
use crate::observe::status::{Counters, Reason};
use crate::position::{NodeId, Sequence};
use crate::steady::reconcile::Cursor;

use self::pace::{Overrun, Pace};
use self::portion::Fitting;

pub use pace::Rest;
pub use portion::{Copying, Earlier, Growth, Portion};
pub use verify::Asked;

/// The time of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: Timestamp,
    /// Since the process started; never goes back.
    pub uptime: Duration,
}

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's human name.
    pub name: String,
    /// Where NATS is, for the status page.
    pub servers: String,
    /// It may be the first node, if nobody answers.
    pub first: bool,
    /// How often it says that it is there.
    pub presence_interval: Duration,
    /// How long it waits for others before it believes that it is alone.
    pub presence_wait: Duration,
    /// How long a group waits for a context that no live member can satisfy.
    pub context_timeout: Duration,
    /// How often announced tables are compared with their events.
    pub reconcile_interval: Duration,
    /// How often all rows are compared with their events, and with those of another node; zero: never.
    pub verify_interval: Duration,
    /// How long a member may be silent before this node holds it for lost.
    pub member_timeout: Duration,
    /// This run of the sidecar.
    pub session: Uuid,
}

/// What came.
#[derive(Debug)]
pub enum Input {
    /// Something may have been written.
    Wake,
    /// A message on the feed of a node.
    Feed {
        /// Whose feed it is, by the subject.
        subject: NodeId,
        /// The bytes.
        frame: Bytes,
    },
    /// What a node says of itself: the bytes.
    Presence(Bytes),
    /// A change event of the service.
    Announced {
        /// The bytes.
        payload: Bytes,
        /// Where to answer, when an answer is wanted.
        reply: Option<String>,
    },
    /// The answer to a request; none when it did not come in time.
    Answer {
        /// Which request.
        ask: AskId,
        /// The bytes.
        frame: Option<Bytes>,
    },
    /// An operator wants everything compared.
    Verify(Asked),
    /// What the others had said before this node had a database, which it took from one of them: all have answered,
    /// or had the time for it.
    Taken(Vec<Bytes>),
    /// The connection to NATS came, or went.
    Connected(bool),
    /// The connection does not come: what the server or the system says.
    BusTrouble(String),
}

/// What is to be sent.
#[derive(Debug)]
pub enum Output {
    /// A frame for this node's feed.
    Feed(Vec<u8>),
    /// A frame with what this node says of itself.
    Presence(Vec<u8>),
    /// A request to another node.
    Ask {
        /// Its number.
        ask: AskId,
        /// To whom.
        to: NodeId,
        /// What.
        request: Request,
    },
    /// The answer to a change event.
    Reply {
        /// Where to.
        to: String,
        /// JSON.
        body: String,
    },
}

/// Times in a row that groups are applied before what comes behind that has a turn.
const APPLIED_IN_A_ROW_MAX: u32 = 8;

/// From the connection to NATS until the server has surely heard what this node subscribes to.
const SUBSCRIBED_SURELY: Duration = Duration::from_secs(1);

/// What keeps the node from working, and when to try again.
#[derive(Debug)]
struct Trouble {
    reason: Reason,
    again_at: Duration,
}

/// One node.
#[derive(Debug)]
pub struct Replica {
    options: Options,
    store: Store,
    /// The hash of the declaration.
    schema: String,
    reader: Reader,
    facts: Facts,
    facts_at: Duration,
    phase: Phase,
    order: Order,
    members: Members,
    retention: retention::Retention,
    fetching: Fetching,
    next_ask: AskId,
    connected: bool,
    bus_trouble: Option<String>,
    /// Messages refused: each power of two is worth a line in the log, a flood of them is not.
    refused: u64,
    /// The journal may hold something.
    dirty: bool,
    /// The journal was looked at last: now it is the turn of everything else.
    others_turn: bool,
    /// The journal was empty once since the start.
    drained: bool,
    polled_at: Duration,
    /// When the service was last seen to have written.
    written_at: Option<Duration>,
    /// How fast it writes,
    pace: Pace,
    fitting: Fitting,
    fitting_behind: Fitting,
    /// and whether its journal has been too long for a while.
    overrun: Overrun,
    /// Times that groups were applied since what comes behind that had a turn.
    applied_in_a_row: u32,
    /// There was nothing to do beside the journal: what there is would wait while commits are gathered.
    only_journal: bool,
    announced: VecDeque<(Announcement, Option<String>)>,
    /// Long groups to publish from our own tables: next and last sequence number.
    backlog: VecDeque<(Sequence, Sequence)>,
    sweeps: VecDeque<Cursor>,
    /// Rows were compared last: now it is the turn of everything else.
    swept: bool,
    /// When the announced tables are compared with their events next.
    sweep_at: Duration,
    present_at: Option<Duration>,
    /// When it last said so, asked or not.
    said_at: Option<Duration>,
    /// When the first other node answered.
    answered_at: Option<Duration>,
    answer_wanted: bool,
    /// Before READY the members are asked once more: since when, and whether they have answered.
    confirming: Option<Duration>,
    confirmed: bool,
    reconnects: u64,
    journal_forgotten: bool,
    load_not_before: Duration,
    parked_tried_at: Duration,
    parked_all_tried_at: Duration,
    waiting: intake::Waiting,
    verify: verify::Verify,
    trouble: Option<Trouble>,
    room: portion::Room,
    /// A migration is under way.
    pause: Option<pause::Pause>,
    identity: identity::Identity,
    /// This machine's clock is far from the others', as of the last look.
    clock_off: Option<Reason>,
    /// What puts this node's identity in doubt, and until when it counts without being seen again.
    alarm: Option<(Reason, Duration)>,
    counters: Counters,
    outputs: VecDeque<Output>,
}

/// The node cannot go on: what is on the disk is not known any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the disk refused to keep what was written; the sidecar stops, so that nothing is published that could be lost"
)]
pub struct Fatal(#[source] pub Error);

impl Replica {
    /// A node over an open database.
    ///
    /// # Errors
    /// When the database cannot be opened for reading.
    pub fn new(store: Store, options: Options, at: Moment) -> Result<Self, Error> {
        let reader = Reader::open(store.path(), store.declaration())?;
        let head = store.durable().vector.of(store.durable().node);
        let mut replica = Self {
            clock_off: None,
            identity: identity::Identity::new(store.has_new_identity(), head, at.uptime),
            sweep_at: at.uptime + options.reconcile_interval,
            fetching: Fetching::new(options.session.as_u64_pair().0),
            options,
            reader,
            facts: Facts::default(),
            facts_at: Duration::ZERO,
            phase: Phase::Asking { since: at.uptime },
            order: Order::default(),
            members: Members::default(),
            retention: retention::Retention::new(&store, at)?,
            schema: format!("{:016x}", store.declaration().hash()),
            next_ask: 1,
            connected: false,
            bus_trouble: None,
            refused: 0,
            dirty: true,
            others_turn: false,
            drained: false,
            polled_at: at.uptime,
            written_at: None,
            pace: Pace::default(),
            fitting: Fitting::beside_the_service(),
            fitting_behind: Fitting::behind(),
            overrun: Overrun::default(),
            applied_in_a_row: 0,
            only_journal: false,
            announced: VecDeque::new(),
            backlog: VecDeque::new(),
            sweeps: VecDeque::new(),
            swept: false,
            present_at: None,
            said_at: None,
            answered_at: None,
            answer_wanted: false,
            confirming: None,
            confirmed: false,
            reconnects: 0,
            journal_forgotten: true,
            load_not_before: Duration::ZERO,
            parked_tried_at: Duration::ZERO,
            parked_all_tried_at: Duration::ZERO,
            waiting: intake::Waiting::default(),
            verify: verify::Verify::default(),
            trouble: None,
            room: portion::Room::default(),
            pause: None,
            alarm: None,
            counters: Counters::default(),
            outputs: VecDeque::new(),
            store,
        };
        replica.sweep_announced();
        Ok(replica)
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.store.durable().node
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Gives back the memory that holds pages of the database: they are read again when they are needed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn release_memory(&self) -> Result<(), Error> {
        self.store.release_memory()?;
        self.reader.release_memory()
    }

    /// What is to be sent, in order.
    pub fn take_outputs(&mut self) -> VecDeque<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Takes what came. Cheap: the work is done in [`Replica::work`].
    pub fn handle(&mut self, input: Input, at: Moment) {
        match input {
            Input::Wake => {
                // It has not come to what the last commit wrote, and this one is another transaction.
                if std::mem::replace(&mut self.dirty, true) {
                    self.store.see_journal();
                }
            }
            Input::Feed { subject, frame } => self.take_feed(subject, &frame, at),
            Input::Presence(payload) => self.take_presence(&payload, at),
            Input::Announced { payload, reply } => self.take_announced(&payload, reply),
            Input::Answer { ask, frame } => self.take_answer(ask, frame.as_deref(), at),
            Input::Verify(asked) => self.take_verify(asked),
            Input::Taken(presences) => self.take_taken(&presences, at),
            Input::Connected(connected) => self.take_connected(connected, at),
            Input::BusTrouble(text) => self.bus_trouble = Some(text),
        }
    }

    /// A database that was taken whole has everything up to its positions; who is there is known already.
    fn take_taken(&mut self, presences: &[Bytes], at: Moment) {
        presences.iter().for_each(|presence| self.take_presence(presence, at));
        if matches!(self.phase, Phase::Asking { .. }) && self.store.durable().loaded && !self.retention.load_again {
            self.phase = Phase::CatchingUp { target: self.members.heads(at.uptime) };
        }
    }

    fn take_connected(&mut self, connected: bool, at: Moment) {
        self.reconnects += u64::from(self.connected && !connected);
        self.connected = connected;
        self.bus_trouble = None;
        self.fetching.forget();
        match &mut self.phase {
            Phase::Joining(joiner) => joiner.failed(),
            // What was answered before is old by the time that there is a connection again.
            Phase::CatchingUp { .. } => (self.confirming, self.confirmed) = (None, false),
            _ => {}
        }
        if connected {
            self.waiting.connected();
            self.doubt_identity(at);
            self.present_at = None; // Everybody should hear at once.
            // What the service announced before this node was subscribed again went to nobody. Now finds most of it,
            // the second look what was on its way meanwhile.
            self.sweep_announced();
            self.sweep_at = at.uptime + SUBSCRIBED_SURELY;
        } else {
            self.backlog.clear(); // Those who missed it fetch it.
        }
    }

    /// Looks at the time: presence, time-outs, the way to READY, requests for what is missing.
    pub fn tick(&mut self, at: Moment) {
        if at.uptime >= self.polled_at + limits::POLL_INTERVAL {
            self.polled_at = at.uptime;
            self.look_for_commits(at);
        }
        self.watch_identity(at);
        self.clock_off = self.own_clock_off(at.uptime);
        self.advance(at);
        self.watch_contexts(at);
        self.watch_staged(at);
        self.watch_lag(at);
        self.watch_alarm(at);
        self.watch_members();
        self.watch_horizons(at);
        self.plan_requests(at);
        self.say_presence(at);
        if at.uptime >= self.sweep_at {
            self.sweep_at = at.uptime + self.options.reconcile_interval;
            self.sweep_announced();
        }
    }

    /// Whether events are ingested and applied as usual.
    fn flows(&self) -> bool {
        self.phase.flows(self.store.durable().loaded)
            && self.identity.may_ingest()
            && self.store.durable().renewal.is_none()
            && !self.retention.load_again
    }

    /// Does one bounded piece of work, and says what it was.
    ///
    /// # Errors
    /// When the disk did not keep what was written: the process must end.
    pub fn work(&mut self, at: Moment) -> Result<Worked, Fatal> {
        if self.trouble.as_ref().is_some_and(|trouble| at.uptime < trouble.again_at) {
            return Ok(Worked::Idle);
        }
        if self.is_paused(at) {
            return Ok(Worked::Idle);
        }
        match self.work_once(self.judged(at)) {
            Ok(worked) => {
                self.trouble = None;
                Ok(worked)
            }
            Err(Failure::Fatal(fatal)) => Err(fatal),
            Err(Failure::Store(error)) => {
                self.take_trouble(&error, at);
                Ok(Worked::Idle)
            }
        }
    }

    fn work_once(&mut self, at: Moment) -> Result<Worked, Failure> {
        if let Some(worked) = self.work_on_identity(at)? {
            return Ok(worked);
        }
        if self.keep_members(at)? {
            return Ok(Worked::Other);
        }
        // In turn: a service that never stops writing must not keep out what others wrote. What is done in between drains
        // the journal in its own transaction.
        if self.heed(at)? {
            return Ok(Worked::Other);
        }
        // On the way: it needs no lock, and would have no end where the service floods.
        let published = self.publish_stored()?;
        let journal = (self.flows() || self.is_loading_again()) && self.dirty;
        if journal && !self.others_turn {
            self.others_turn = true;
            return self.ingest_journal(at);
        }
        self.others_turn = false;
        let worked = self.work_beside_the_journal(at)?;
        self.only_journal = worked == Worked::Idle;
        match worked {
            Worked::Idle if journal => self.ingest_journal(at),
            Worked::Idle if published => Ok(Worked::Other),
            worked => Ok(worked),
        }
    }

    fn work_beside_the_journal(&mut self, at: Moment) -> Result<Worked, Failure> {
        if self.flows() {
            self.want_pending_sweeps();
            // In turn, too: before anything is applied onto a row that waits to be compared, that row is compared.
            let swept = std::mem::replace(&mut self.swept, false);
            if !swept && !self.store.pending().is_empty() && self.sweep_once(at)? {
                self.swept = true;
                return Ok(Worked::Other);
            }
            if !self.announced.is_empty() {
                self.ingest_announced(at)?;
                return Ok(Worked::Ingested);
            }
            if self.verify_is_overdue(at) && self.verify_once(at)? {
                return Ok(Worked::Compared);
            }
            if self.applied_in_a_row < APPLIED_IN_A_ROW_MAX {
                let worked = self.apply_due(at)?;
                if worked != Worked::Idle {
                    self.applied_in_a_row += 1;
                    return Ok(worked);
                }
            }
        }
        // In turn, too: where there is always something to apply, what comes behind it must not wait for ever.
        let passed_over = APPLIED_IN_A_ROW_MAX <= std::mem::take(&mut self.applied_in_a_row);
        match self.work_behind_the_applying(at)? {
            Worked::Idle if passed_over && self.flows() => self.apply_due(at),
            worked => Ok(worked),
        }
    }

    fn work_behind_the_applying(&mut self, at: Moment) -> Result<Worked, Failure> {
        if self.flows() && self.store.durable().due && self.retry_parked(at)? {
            return Ok(Worked::Applied);
        }
        if self.load_once(at)? {
            return Ok(Worked::Applied);
        }
        // What rows hold that no event knows becomes events: under an id that is this node's, and not below what a load is to bring.
        let sweeps = self.flows() || !self.store.durable().loaded || matches!(self.phase, Phase::Settling { .. });
        if sweeps && self.sweep_once(at)? {
            return Ok(Worked::Other);
        }
        if self.flows() {
            self.retry_parked(at)?;
            if self.verify_once(at)? {
                return Ok(Worked::Compared);
            }
        }
        match self.settle(at)? {
            Worked::Idle if self.take_as_first(at)? || self.compact(at)? => Ok(Worked::Other),
            worked => Ok(worked),
        }
    }

    fn ingest_journal(&mut self, at: Moment) -> Result<Worked, Failure> {
        // Before the look: what is committed after it raises the version again.
        if self.store.changed_by_others()? {
            self.written_at = Some(at.uptime);
        }
        let most = self.overrun.page();
        let ingested = self.store.write(|tx| ingest::page(tx, at.wall, most))?;
        self.drained |= left_by(&ingested) == 0;
        self.ingested(ingested, at)
    }

    /// A page of the journal has become events.
    fn ingested(&mut self, page: Vec<Ingested>, at: Moment) -> Result<Worked, Failure> {
        let left = left_by(&page);
        self.dirty = 0 < left;
        self.overrun.note(limits::DRAIN_ROWS_MAX < left, at.uptime);
        self.pace.note(page.iter().map(|done| done.commits).sum(), 0 < left, at.uptime);
        let worked = if page.iter().any(|done| done.events > 0) { Worked::Ingested } else { Worked::Other };
        self.publish(page)?;
        Ok(worked)
    }

    fn schema(&self) -> &str {
        &self.schema
    }

    fn ask(&mut self, to: NodeId, ask: AskId, request: Request) {
        self.outputs.push_back(Output::Ask { ask, to, request });
    }
}

/// Rows that the journal still holds after a page of it.
fn left_by(page: &[Ingested]) -> usize {
    page.last().map_or(0, |last| last.left)
}

/// What one call of [`Replica::work`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worked {
    /// Nothing: there is nothing to do now.
    Idle,
    /// Made events of changes.
    Ingested,
    /// Applied events of others.
    Applied,
    /// Compared some records, mostly without the write lock.
    Compared,
    /// Something else.
    Other,
}

/// Why a piece of work was not done.
#[derive(Debug)]
enum Failure {
    Store(Error),
    Fatal(Fatal),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
