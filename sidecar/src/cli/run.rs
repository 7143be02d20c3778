//! `rowcast run`: the sidecar, with the service if it is asked to run it, until one of them ends or it is told to stop.
//!
//! The order: config, schema, log; the HTTP address, so that probes are answered from the start; the command before the
//! start; the node; once it is READY, the service. The way down is the other way round: the service first, then the
//! node, then HTTP.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rowcast_schema::declaration::Declaration;
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::arguments::NodeConfig;
use super::migrate::Calm;
use super::{Error, SERVICE, outside, schema};
use crate::config::{Config, Environment};
use crate::edge::http;
use crate::node;
use crate::observe::health::Heartbeat;
use crate::observe::logging;
use crate::observe::metrics::Metrics;
use crate::observe::status::{Code, Reason, Status};
use crate::supervise::{self, BoxError, Ended, Launch, Service};

/// How long the service may take to stop before it is killed.
const SERVICE_GRACE: Duration = Duration::from_secs(10);

/// How long the node may take to hand over what is left and stop.
const NODE_GRACE: Duration = Duration::from_secs(30);

/// How often the sidecar shows that it is alive while a command runs before the start.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Run the sidecar beside a service.
///
/// It needs no config file: the node's name, the database, the schema TOML and NATS can all be flags or variables. A
/// new node has no database file and gets everything from the others; only the very first node of a service is started
/// with --first, once.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// This is the first node of the service: be READY though no other node answers
    ///
    /// It is recorded in the database when used, and ignored when another node answers.
    #[arg(long)]
    first: bool,
    /// Run this with `sh -c` before anything else, such as a migration [env: ROWCAST_BEFORE]
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
    /// Start the service given after `--` once the node is READY, pass signals on, and end with its exit code
    #[arg(long, requires = "command")]
    exec: bool,
    /// The service's program and its arguments
    #[arg(last = true, value_name = "CMD", requires = "exec")]
    command: Vec<OsString>,
    #[command(flatten)]
    config: NodeConfig,
}

pub(super) async fn run(arguments: Arguments, environment: Environment) -> Result<u8, Error> {
    let no_color = environment.no_color();
    let mut sources = arguments.config.sources(environment);
    sources.flags.extend(arguments.before.map(|command| ("before", command)));
    let config = sources.load()?;
    let declaration = schema::load(&config.schema)?;
    logging::start(config.log, &config.log_level, no_color).expect("bug: the config has checked the level");
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut signals = Signals::listen().map_err(Error::Runtime)?;

    let server = http::Server::bind(config.http).await?;
    let address = server.address();
    tracing::info!(node = config.node, service = declaration.service, http = %address, "the sidecar is starting");
    let (status, seen) = watch::channel(Arc::new(Status::starting(&config.node, &declaration.service)));
    let heartbeat = Heartbeat::new();
    let (operator, asked) = http::Operator::new();
    let shown =
        http::Sources { status: seen.clone(), heartbeat: heartbeat.clone(), metrics: Metrics::install(), operator };
    let stop_http = CancellationToken::new();
    let mut http = JoinSet::new();
    http.spawn(server.serve(shown, stop_http.clone()));

    let ended = match before(&config, &declaration, &status, &heartbeat, &mut signals).await {
        Ok(true) => {
            let launch = (!arguments.command.is_empty()).then(|| launch(arguments.command, &config, address));
            let stop = CancellationToken::new();
            let options = node::Options { first: arguments.first, status, heartbeat, asked, stop: stop.clone() };
            let running = outside::node(config, declaration, options);
            Conductor { signals, seen, stop, launch, service: None, deadline: None, outcome: None }.run(running).await
        }
        Ok(false) => Ok(0),
        Err(error) => Err(error),
    };
    stop_http.cancel();
    while http.join_next().await.is_some() {}
    tracing::info!("the sidecar has ended");
    ended
}

/// Runs the command before the start, if there is one. False when a signal came meanwhile.
async fn before(
    config: &Config,
    declaration: &Declaration,
    status: &watch::Sender<Arc<Status>>,
    heartbeat: &Heartbeat,
    signals: &mut Signals,
) -> Result<bool, Error> {
    let Some(command) = &config.before else { return Ok(true) };
    let text = "the command before the start is running";
    let waits = Reason::new(Code::Starting, text).with_hint("wait for it; its output is in the log");
    status.send_modify(|status| Arc::make_mut(status).set_reasons(vec![waits]));
    let calm = Calm::begin(config.database.clone(), declaration.clone()).await?;
    let stop = CancellationToken::new();
    let ended = {
        let mut running = std::pin::pin!(supervise::before(command, &stop));
        let mut beat = tokio::time::interval(BEAT_INTERVAL);
        loop {
            tokio::select! {
                ended = &mut running => break ended,
                _ = signals.next() => stop.cancel(),
                _ = beat.tick() => heartbeat.beat(),
            }
        }
    };
    calm.end().await?;
    Ok(ended?)
}

/// How to start the service: through this program where that ties it to the sidecar's life.
fn launch(command: Vec<OsString>, config: &Config, address: std::net::SocketAddr) -> Launch {
    let variables = vec![
        ("ROWCAST_NODE", config.node.clone()),
        ("ROWCAST_DATABASE", config.database.display().to_string()),
        ("ROWCAST_HTTP", address.to_string()),
    ];
    Launch { command, variables, through: through(), in_terminal: false }
}

/// The program through which a command ends when this process does, where there is such a thing.
pub(super) fn through() -> Option<(PathBuf, Vec<OsString>)> {
    cfg!(target_os = "linux").then(|| {
        let parent = format!("--parent={}", std::process::id());
        // Not the path of the program, which an update may have replaced meanwhile.
        (PathBuf::from("/proc/self/exe"), [SERVICE, &parent, "--"].map(OsString::from).to_vec())
    })
}

/// Holds node and service together: when one ends, the other is stopped.
struct Conductor {
    signals: Signals,
    seen: watch::Receiver<Arc<Status>>,
    /// Stops the node.
    stop: CancellationToken,
    /// The service, until it is started.
    launch: Option<Launch>,
    /// The service, while it runs.
    service: Option<Service>,
    /// When what was asked to stop is no longer waited for.
    deadline: Option<Instant>,
    /// What the exit code will be, once something has ended.
    outcome: Option<Result<u8, Error>>,
}

/// Everything that can happen to a running sidecar.
enum Wake {
    Signal(Signal),
    NodeEnded(Result<(), BoxError>),
    ServiceEnded(Result<Ended, supervise::Error>),
    Ready,
    TooLate,
}

impl Conductor {
    async fn run(mut self, node: impl Future<Output = Result<(), BoxError>>) -> Result<u8, Error> {
        let mut node = std::pin::pin!(node);
        let mut node_runs = true;
        while node_runs || self.service.is_some() {
            match self.wait(node.as_mut(), node_runs).await {
                Wake::Signal(signal) => self.take_signal(signal),
                Wake::NodeEnded(ended) => {
                    node_runs = false;
                    self.take_node_end(ended);
                }
                Wake::ServiceEnded(ended) => self.take_service_end(ended),
                Wake::Ready => self.start_service(),
                Wake::TooLate if self.service.is_some() => self.kill_service(),
                Wake::TooLate => {
                    tracing::warn!("the node did not stop in time, and is cut off; the next start finishes its work");
                    break;
                }
            }
        }
        let stuck = Err(Error::Stuck { seconds: NODE_GRACE.as_secs() });
        self.outcome.unwrap_or(if node_runs { stuck } else { Ok(0) })
    }

    /// The one place that waits. Every branch is cancel safe; the node goes on from one call to the next.
    async fn wait(&mut self, node: impl Future<Output = Result<(), BoxError>>, node_runs: bool) -> Wake {
        let Self { signals, seen, launch, service, deadline, .. } = self;
        tokio::select! {
            biased;
            signal = signals.next() => Wake::Signal(signal),
            ended = async { service.as_mut().expect("bug: asked while it runs").ended().await }, if service.is_some() => {
                Wake::ServiceEnded(ended)
            }
            ended = node, if node_runs => Wake::NodeEnded(ended),
            () = until_ready(seen), if launch.is_some() && deadline.is_none() => Wake::Ready,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Wake::TooLate,
        }
    }

    fn take_signal(&mut self, signal: Signal) {
        tracing::info!("SIG{} came", name(signal));
        let again = self.deadline.is_some() && signal != Signal::HUP;
        match &self.service {
            Some(_) if again => self.kill_service(),
            Some(_) => {
                self.tell_service(signal);
                if signal != Signal::HUP {
                    self.deadline = Some(Instant::now() + SERVICE_GRACE);
                }
            }
            None if again => {
                // Asked twice: what was not finished is finished at the next start.
                self.outcome.get_or_insert(Ok(Ended::Signal(signal.as_raw()).exit_code()));
                self.deadline = Some(Instant::now());
            }
            None => self.stop_node(),
        }
    }

    fn take_node_end(&mut self, ended: Result<(), BoxError>) {
        self.launch = None;
        self.deadline = None;
        if let Err(source) = ended {
            // How the service then ends is no longer what matters.
            self.outcome = Some(Err(Error::Node { source }));
        }
        if self.service.is_some() {
            tracing::warn!("the node has ended, so the service is asked to stop");
            self.tell_service(Signal::TERM);
            self.deadline = Some(Instant::now() + SERVICE_GRACE);
        }
    }

    fn take_service_end(&mut self, ended: Result<Ended, supervise::Error>) {
        self.service = None;
        if self.outcome.is_none() {
            self.outcome = Some(match ended {
                Ok(ended) => {
                    tracing::info!("the service {ended}");
                    Ok(ended.exit_code())
                }
                Err(error) => Err(error.into()),
            });
        }
        self.stop_node();
    }

    fn start_service(&mut self) {
        let Some(launch) = self.launch.take() else { return };
        match Service::start(&launch) {
            Ok(service) => self.service = Some(service),
            Err(error) => {
                self.outcome = Some(Err(error.into()));
                self.stop_node();
            }
        }
    }

    fn stop_node(&mut self) {
        self.launch = None;
        self.stop.cancel();
        self.deadline = Some(Instant::now() + NODE_GRACE);
    }

    fn kill_service(&mut self) {
        tracing::warn!("the service did not stop in time, and is killed");
        self.tell_service(Signal::KILL);
        self.deadline = Some(Instant::now() + SERVICE_GRACE);
    }

    /// A service that changed its user may not be signalled by us; its end is awaited all the same.
    fn tell_service(&self, signal: Signal) {
        if let Some(Err(error)) = self.service.as_ref().map(|service| service.signal(signal)) {
            tracing::warn!(error = super::error::chain(&error), "the service could not be signalled");
        }
    }
}

/// What a signal is called; only those of [`Signals`] come here.
fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "TERM",
        Signal::INT => "INT",
        _ => "HUP",
    }
}

async fn until_ready(seen: &mut watch::Receiver<Arc<Status>>) {
    if seen.wait_for(|status| status.is_ready()).await.is_err() {
        // The node is gone, and its end is about to be noticed.
        std::future::pending().await
    }
}

/// The signals that are taken, from the first moment on.
pub(super) struct Signals {
    taken: mpsc::Receiver<Signal>,
    _listener: JoinSet<()>,
}

/// Signals that wait to be taken; one more says nothing new.
const SIGNALS_WAITING_MAX: usize = 8;

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        let mut term = unix::signal(SignalKind::terminate())?;
        let mut int = unix::signal(SignalKind::interrupt())?;
        let mut hup = unix::signal(SignalKind::hangup())?;
        let (sender, taken) = mpsc::channel(SIGNALS_WAITING_MAX);
        let mut listener = JoinSet::new();
        listener.spawn(async move {
            loop {
                let signal = tokio::select! {
                    _ = term.recv() => Signal::TERM,
                    _ = int.recv() => Signal::INT,
                    _ = hup.recv() => Signal::HUP,
                };
                if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(signal) {
                    return;
                }
            }
        });
        Ok(Self { taken, _listener: listener })
    }

    pub(super) async fn next(&mut self) -> Signal {
        match self.taken.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
#[path = "run/tests.rs"]
mod tests;
