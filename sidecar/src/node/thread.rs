//! The node's own thread: takes what came, lets the replica work, and keeps out of the service's way.
//!
//! After a transaction the write lock is left alone while the service writes (`resting`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, Received};
use super::resting::Resting;
use super::tidying::{self, Tidier};
use crate::edge::clock;
use crate::edge::store::{Error as StoreError, Store, room};
use crate::limits;
use crate::observe::health::Heartbeat;
use crate::observe::metrics;
use crate::observe::status::{Code, Reason, Status};
use crate::position::NodeId;
use crate::replica::{Copying, Earlier, Growth, Input, Moment, Options, Output, Portion, Replica, Rest, Worked};
use crate::supervise::BoxError;

/// What the thread hands its results to.
#[derive(Debug)]
pub(super) struct Turning {
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) heartbeat: Heartbeat,
    pub(super) outbox: mpsc::Sender<Output>,
    /// Under which id the node speaks and is asked.
    pub(super) speaks_as: watch::Sender<Option<NodeId>>,
    /// Whether the write-ahead log is watched.
    pub(super) watched: bool,
}

/// The longest sleep: time-outs are looked at this often.
const TURN: Duration = limits::POLL_INTERVAL;

/// The same of a quiet node: the file watch and the bus wake it.
const QUIET_TURN: Duration = limits::QUIET_POLL_INTERVAL;

/// How long the watch does not look while a wake-up waits: a tenth of the time of a busy node was looking.
const WATCH_PAUSE: Duration = Duration::from_micros(300);

/// Inputs taken before work goes on, so that a flood of messages cannot starve the database.
const INPUTS_AT_ONCE: usize = 64;

/// How often the status is renewed when nothing important changed.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// The pause between two tries to empty the write-ahead log: a reader that takes its time keeps it from being emptied.
const TIDY_PAUSE: Duration = Duration::from_millis(20);

/// The same where the service wrote meanwhile: of a few tries in the gaps between its writes one will do.
const TIDY_AGAIN_PAUSE: Duration = Duration::from_millis(5);

/// A node that had nothing to do for so long gives back what it kept of the database in memory.
const QUIET: Duration = Duration::from_secs(2);

/// How often it is looked how much room there is on the disk.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last writes of the service may take to become events when the sidecar stops.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Watches the `-wal`: every commit writes to it. Without the watch the poll finds changes, a little later.
pub(super) fn watch(database: &Path, inbox: Inbox) -> Option<notify::RecommendedWatcher> {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    let woken = move |event: notify::Result<notify::Event>| {
        // Every page of a commit is an event, and the sidecar's own commits are seen, too. While a wake-up waits to be taken,
        // another one tells nothing; what comes during the pause becomes one event in the kernel.
        if event.is_ok_and(|event| !event.kind.is_access()) && !inbox.wake() {
            std::thread::sleep(WATCH_PAUSE);
        }
    };
    let watcher = notify::recommended_watcher(woken)
        .and_then(|mut watcher| watcher.watch(Path::new(&wal), RecursiveMode::NonRecursive).map(|()| watcher));
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the write-ahead log cannot be watched; it is polled instead");
            None
        }
    }
}

/// Starts the thread. The future ends when the thread does.
pub(super) fn start(
    store: Store,
    options: Options,
    received: Received,
    turning: Turning,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), BoxError>> {
    let (sender, ended) = oneshot::channel();
    let run = move || {
        let result = Turner::new(store, options, received, turning).and_then(|mut turner| turner.run(&stop));
        if sender.send(result).is_err() {
            tracing::debug!("nobody waits for the end of the node's thread any more");
        }
    };
    let thread = std::thread::Builder::new().name("rowcast-node".into()).spawn(run);
    async move {
        thread?;
        match ended.await {
            Ok(result) => result,
            Err(_) => Err("the node's thread panicked: please report this as a bug, with the log".into()),
        }
    }
}

struct Turner {
    replica: Replica,
    tidier: Tidier,
    /// What the database was told of how much is taken at a time.
    portion: Option<Portion>,
    /// When it is looked how much room there is.
    room_at: Instant,
    /// When this thread copied the write-ahead log last, or tried to.
    copied_at: Instant,
    /// How fast it grows.
    log_growth: Growth,
    /// When there was something to do last; none once its memory was given back.
    busy_at: Option<Instant>,
    /// How often, since there was much to copy.
    copies: u32,
    received: Received,
    turning: Turning,
    start: Instant,
    resting: Resting,
    shown_at: Instant,
    shown_ready: bool,
    outputs_dropped: u64,
}

impl Turner {
    fn new(store: Store, options: Options, received: Received, turning: Turning) -> Result<Self, BoxError> {
        let start = Instant::now();
        let at = Moment { wall: clock::now(), uptime: Duration::ZERO };
        let tidier = Tidier::start(store.path())?;
        let replica = Replica::new(store, options, at)?;
        Ok(Self {
            replica,
            tidier,
            portion: None,
            room_at: start,
            copied_at: start,
            log_growth: Growth::default(),
            busy_at: Some(start),
            copies: 0,
            received,
            turning,
            start,
            resting: Resting::none(start),
            shown_at: start,
            shown_ready: false,
            outputs_dropped: 0,
        })
    }

    fn at(&self) -> Moment {
        Moment { wall: clock::now(), uptime: self.start.elapsed() }
    }

    fn run(&mut self, stop: &CancellationToken) -> Result<(), BoxError> {
        let mut idle = false;
        self.show(true);
        while !stop.is_cancelled() {
            self.turning.heartbeat.beat();
            if self.take_inputs(idle).is_err() {
                break;
            }
            let at = self.at();
            self.replica.tick(at);
            self.send(); // What is asked for is on its way while this node works.
            let worked = self.resting.left(Instant::now()).is_zero();
            // Who rests has something to do: what it is was not looked at.
            idle = worked && self.work()? == Worked::Idle;
            self.send();
            if worked {
                self.tidy(idle);
            }
            self.show(false);
        }
        self.finish()
    }

    /// Waits for something to come, unless there is work; then takes what else is there.
    fn take_inputs(&mut self, idle: bool) -> Result<(), super::inbox::Closed> {
        let mut wait = match (idle, self.resting.left(Instant::now())) {
            (true, Duration::ZERO) if self.is_quiet() => QUIET_TURN,
            (true, Duration::ZERO) => {
                self.replica.compares_in(self.start.elapsed()).map_or(TURN, |left| left.min(TURN))
            }
            (_, rest) => rest.min(TURN),
        };
        for _ in 0..INPUTS_AT_ONCE {
            let Some(input) = self.received.next(wait)? else { break };
            wait = Duration::ZERO;
            let (at, now) = (self.at(), Instant::now());
            // The watch tells of this node's own commits, too.
            let heard = matches!(input, Input::Wake) && self.resting.awaits_commit(now);
            if heard && self.replica.look_for_commits(at) {
                self.resting.woken(now);
            }
            self.replica.handle(input, at);
        }
        Ok(())
    }

    /// Whether nothing is to be expected that nobody wakes this thread for.
    fn is_quiet(&self) -> bool {
        self.turning.watched && self.busy_at.is_none() && self.replica.is_ready()
    }

    fn work(&mut self) -> Result<Worked, BoxError> {
        let (began, held) = (Instant::now(), self.replica.store().held());
        let at = self.at();
        let worked = self.replica.work(at)?;
        let (took, held) = (began.elapsed(), self.replica.store().held() - held);
        if !held.is_zero() {
            metrics::LOCK_SECONDS.record(held);
        }
        match worked {
            Worked::Idle => return Ok(worked),
            Worked::Ingested => metrics::INGEST_SECONDS.record(took),
            Worked::Applied => {
                metrics::APPLY_SECONDS.record(took);
                self.replica.note_applied(held, at);
            }
            Worked::Compared | Worked::Other => {}
        }
        let rest = self.replica.rest(took, held, at);
        if rest != Rest::default() {
            if !rest.next_commit.is_zero() {
                self.replica.look_for_commits(at); // What came before does not end it.
            }
            let jitter = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
            self.resting.begin(rest, jitter, Instant::now());
        }
        Ok(worked)
    }

    /// Has the write-ahead log copied into the database, also while the database refuses; and says how much
    /// may be taken at a time. What fails here is tried again the next time.
    fn tidy(&mut self, idle: bool) {
        if let Err(error) = self.try_to_tidy(idle) {
            tracing::debug!(error = error.chain(), "the write-ahead log stays as it is");
        }
    }

    fn try_to_tidy(&mut self, idle: bool) -> Result<(), StoreError> {
        if !idle {
            self.busy_at = Some(Instant::now());
        } else if self.busy_at.take_if(|busy| QUIET <= busy.elapsed()).is_some() {
            self.replica.release_memory()?;
        }
        if self.room_at <= Instant::now() {
            self.room_at = Instant::now() + ROOM_INTERVAL;
            let free = room(self.replica.store().path())?;
            self.replica.set_room(free);
        }
        let at = self.at();
        let portion = self.replica.portion(at);
        if self.portion != Some(portion) {
            self.replica.store().set_bounds(tidying::bounds(portion))?;
            self.portion = Some(portion);
        }
        if self.tidier.follows() {
            self.log_growth = Growth::default();
            if self.replica.copies_along(at) {
                return Ok(());
            }
            self.tidier.leave();
        }
        let log = self.replica.store().log()?;
        let earlier = Earlier { tried: self.copies, is_fast: self.log_growth.note(log.left, at.uptime) };
        let mut copying = self.replica.copying(log, earlier, idle, at);
        if matches!(copying, Copying::Beside | Copying::Along) && !self.tidier.is_there() {
            copying = Copying::Here;
        }
        let pause = match copying {
            Copying::Not => return Ok(()),
            Copying::Beside => {
                self.tidier.wake();
                return Ok(());
            }
            Copying::Along => {
                self.tidier.follow();
                return Ok(());
            }
            Copying::Here => TIDY_PAUSE,
            Copying::Again => TIDY_AGAIN_PAUSE,
        };
        if pause <= self.copied_at.elapsed() {
            let _alone = self.tidier.pause();
            self.copies = if matches!(copying, Copying::Again) { self.copies + 1 } else { 1 };
            let copied = self.replica.store().copy_log();
            self.copied_at = Instant::now();
            copied?;
        }
        Ok(())
    }

    /// Hands over what is to be sent. What does not fit is dropped: the others fetch what they miss, and a request is made
    /// again.
    fn send(&mut self) {
        let speaks_as = self.replica.speaks_as();
        self.turning.speaks_as.send_if_modified(|known| std::mem::replace(known, speaks_as) != speaks_as);
        for output in self.replica.take_outputs() {
            if let Err(dropped) = self.turning.outbox.try_send(output) {
                if let Output::Ask { ask, .. } = dropped.into_inner() {
                    // Nobody will answer it: the replica asks again.
                    let at = self.at();
                    self.replica.handle(Input::Answer { ask, frame: None }, at);
                }
                self.outputs_dropped += 1;
                if self.outputs_dropped.is_power_of_two() {
                    tracing::warn!(
                        dropped = self.outputs_dropped,
                        "messages could not be sent fast enough and were dropped; the others fetch them"
                    );
                }
            }
        }
    }

    fn show(&mut self, now: bool) {
        let ready = self.replica.is_ready();
        let due = now || ready != self.shown_ready || self.shown_at + STATUS_INTERVAL <= Instant::now();
        if due {
            let at = self.at();
            self.shown_at = Instant::now();
            self.shown_ready = ready;
            self.turning.status.send_replace(Arc::new(self.replica.status(at)));
        }
    }

    /// The last writes of the service still become events, and are sent if that goes quickly.
    fn finish(&mut self) -> Result<(), BoxError> {
        let reason = Reason::new(Code::Stopping, "the sidecar was told to stop");
        self.turning.status.send_modify(|status| Arc::make_mut(status).set_reasons(vec![reason]));
        let until = Instant::now() + LAST_WORK;
        let at = self.at();
        self.replica.handle(Input::Wake, at);
        while Instant::now() < until {
            let at = self.at();
            let worked = self.replica.work(at)?;
            self.send();
            if matches!(worked, Worked::Idle | Worked::Applied) {
                break;
            }
        }
        Ok(())
    }
}
