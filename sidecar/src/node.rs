//! Joins the parts of a running sidecar; the only file that knows them all.
//!
//! ```text
//!  file watch ─┐
//!  bus ────────┼─► inbox ─► the node's own thread: Replica (database, decisions) ─► outbox ─► bus
//!  answers ────┘                     │
//!                                    └─► status ─► HTTP, state on the bus
//!  bus (requests of others) ─► a reader of the database ─► bus
//! ```
//!
//! SQLite blocks, so the replica has a thread of its own; everything around it is asynchronous. Both queues are bounded
//! by count, the inbox by bytes, too. What does not fit is dropped: it is fetched again.

mod copies;
mod inbox;
mod resting;
mod serving;
mod thread;
mod tidying;
mod traffic;
mod whole;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rowcast_schema::declaration::Declaration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::edge::bus::subject::Subjects;
use crate::edge::bus::{self, Link};
use crate::edge::store::{self, Claim, Store};
use crate::limits;
use crate::observe::health::Heartbeat;
use crate::observe::status::Status;
use crate::replica;
use crate::supervise::{self, OnError, Tasks};
use inbox::Inbox;

/// What `rowcast run` hands over beside the config.
#[derive(Debug)]
pub struct Options {
    /// The node may be the first.
    pub first: bool,
    /// Where the status goes.
    pub status: watch::Sender<Arc<Status>>,
    /// The loop's sign of life.
    pub heartbeat: Heartbeat,
    /// Comparisons that an operator asks for.
    pub asked: mpsc::Receiver<replica::Asked>,
    /// Cancelled when the node shall stop.
    pub stop: CancellationToken,
}

/// Why a node ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// A part of it.
    #[error(transparent)]
    Task(#[from] supervise::Error),
}

/// How long the parts may take to finish when the node stops.
const GRACE: Duration = Duration::from_secs(5);

/// Between two looks at a migration that has to end before the node starts.
const MIGRATION_LOOK: Duration = Duration::from_millis(100);

/// How long the last messages may take to reach the server.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop.
///
/// # Errors
/// When the database cannot be opened, the login makes no sense, or the disk no longer keeps what is written.
pub async fn run(config: Config, declaration: Declaration, options: Options) -> Result<(), Error> {
    let subjects = Subjects::of(&declaration.service);
    let database = config.database.clone();
    let claim = blocking(move || Claim::take(&database)).await?;
    let (link, mut links) = mpsc::channel::<Link>(limits::OUTBOX_LEN);
    let bus = bus::connect(&config, link).await?;
    let seeker = whole::Seeker { config: &config, declaration: &declaration, options: &options, bus: &bus };
    let Some((claim, before)) = seeker.run(claim, &subjects, &mut links).await? else { return Ok(()) };
    if !migration_ends(&config.database, &options).await? {
        return Ok(());
    }
    let store = blocking(move || Store::open_claimed(claim, declaration)).await?;
    let node = store.durable().node;
    tracing::info!(node_id = %node, database = %config.database.display(), "the database is open");

    let (inbox, received) = Inbox::new();
    for input in before {
        inbox.put(input).await;
    }
    let (outbox, outputs) = mpsc::channel(limits::OUTBOX_LEN);
    let serving = serving::Desk::open(&store)?;
    let copies = serving.copies();
    let watcher = thread::watch(store.path(), inbox.clone());

    let mut tasks = Tasks::new(options.stop.clone());
    let replica_options = replica_options(&config, options.first);
    let (speaks_as, identity) = watch::channel(Some(node));
    let (status, heartbeat, watched) = (options.status.clone(), options.heartbeat, watcher.is_some());
    let beat = heartbeat.clone();
    let turning = thread::Turning { status, heartbeat, outbox, speaks_as, watched };
    let ended = thread::start(store, replica_options, received, turning, options.stop.clone());
    spawn_once(&mut tasks, "the node's own thread", ended);
    spawn_once(&mut tasks, "links", traffic::links(links, bus.clone(), inbox.clone(), options.stop.clone()));
    let sender =
        traffic::Sender { bus: bus.clone(), subjects: subjects.clone(), node: identity.clone(), inbox: inbox.clone() };
    spawn_once(&mut tasks, "the outbox", sender.run(outputs, options.stop.clone()));
    spawn(&mut tasks, "feeds", {
        let (bus, subjects, inbox) = (bus.clone(), subjects.clone(), inbox.clone());
        move |stop| traffic::feeds(bus.clone(), subjects.all_events(), inbox.clone(), stop)
    });
    spawn(&mut tasks, "presence", {
        let (bus, subjects, inbox) = (bus.clone(), subjects.clone(), inbox.clone());
        move |stop| traffic::presence(bus.clone(), subjects.presence(), inbox.clone(), stop)
    });
    spawn(&mut tasks, "change events", {
        let (bus, inbox, subject) = (bus.clone(), inbox.clone(), subjects.changes(&config.node));
        move |stop| traffic::changes(bus.clone(), subject.clone(), inbox.clone(), stop)
    });
    spawn(&mut tasks, "requests", {
        let (bus, subjects) = (bus.clone(), subjects.clone());
        move |stop| serving.clone().run(bus.clone(), subjects.clone(), identity.clone(), stop)
    });
    spawn(&mut tasks, "copies", move |stop| copies.clone().watch(stop));
    spawn(&mut tasks, "state", {
        let (bus, subject) = (bus.clone(), subjects.state(&config.node));
        let (status, interval) = ((options.status.subscribe(), beat), config.presence_interval);
        move |stop| traffic::state(bus.clone(), subject.clone(), status.clone(), interval, stop)
    });
    spawn_once(&mut tasks, "what an operator asks for", traffic::asked(options.asked, inbox, options.stop.clone()));
    let ended = tasks.run(GRACE).await;
    drop(watcher);
    bus.flush(FLUSH).await;
    Ok(ended?)
}

/// Waits for the end of a migration that is under way. Answers false when the node is to stop before.
async fn migration_ends(database: &Path, options: &Options) -> Result<bool, store::Error> {
    let mut told = false;
    loop {
        let database = database.to_owned();
        if !blocking(move || store::is_migrating(&database)).await? {
            return Ok(true);
        }
        if !told {
            tracing::info!("a migration is under way; the node starts when it has ended");
            told = true;
        }
        options.heartbeat.beat();
        tokio::select! {
            () = options.stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(MIGRATION_LOOK) => {}
        }
    }
}

/// SQLite and the disk block.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, store::Error> + Send + 'static,
) -> Result<R, store::Error> {
    tokio::task::spawn_blocking(work).await.expect("bug: opening the database panicked")
}

fn replica_options(config: &Config, first: bool) -> replica::Options {
    replica::Options {
        name: config.node.clone(),
        servers: config.nats.servers.join(", "),
        first,
        presence_interval: config.presence_interval,
        presence_wait: config.presence_wait,
        context_timeout: config.context_timeout,
        reconcile_interval: config.reconcile_interval,
        member_timeout: config.member_timeout,
        // Ordered by time: of two sidecars under one id, the one that began later leaves it.
        session: Uuid::now_v7(),
        verify_interval: config.verify_interval,
    }
}

/// A task that only reads from the bus: it mends itself.
fn spawn<Make, Run>(tasks: &mut Tasks, name: &'static str, make: Make)
where
    Make: Fn(CancellationToken) -> Run + Send + 'static,
    Run: Future<Output = Result<(), supervise::BoxError>> + Send + 'static,
{
    tasks.spawn(name, OnError::Restart(limits::RETRY_DELAY_MIN, limits::RETRY_DELAY_MAX), make);
}

/// A task that owns something and cannot be started a second time: its failure stops the node.
fn spawn_once(
    tasks: &mut Tasks,
    name: &'static str,
    run: impl Future<Output = Result<(), supervise::BoxError>> + Send + 'static,
) {
    let run = std::sync::Mutex::new(Some(run));
    tasks.spawn(name, OnError::Stop, move |_| {
        let run = run.lock().ok().and_then(|mut run| run.take());
        async move {
            match run {
                Some(run) => run.await,
                None => Ok(()),
            }
        }
    });
}
