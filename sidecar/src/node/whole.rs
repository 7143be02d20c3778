//! A node that has no database file takes another node's whole, before it opens anything.
//!
//! It speaks and listens as the node will, asks for the copy, writes it beside the place of the database, checks it and
//! puts it there. When a file comes there meanwhile, or no copy can be had, the node goes on as every other: with an empty
//! database, event by event, under the id that it has spoken under.

mod taking;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rowcast_schema::declaration::Declaration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use self::taking::Taking;
use super::{Error, Options};
use crate::bootstrap::whole::{Heard, Seeking};
use crate::config::{Bootstrap, Config};
use crate::edge::bus::subject::Subjects;
use crate::edge::bus::{Bus, Link, Subscription};
use crate::edge::clock;
use crate::edge::store::Claim;
use crate::observe::status::{self, Code, Progress, Reason, Status};
use crate::position::NodeId;
use crate::replica::{Input, Moment};

/// How often the time is looked at.
const TURN: Duration = Duration::from_millis(20);

/// How often it is looked whether a file has come, and the status is renewed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long donors may put it off before it goes on event by event.
const PUT_OFF_MAX: Duration = Duration::from_secs(15);

/// The pause after a donor put it off, or a chunk did not come.
const PAUSE: Duration = Duration::from_millis(200);

/// Tries to take a database whole.
const TRIES: u32 = 3;

/// What it takes to look for a database.
pub(super) struct Seeker<'a> {
    pub(super) config: &'a Config,
    pub(super) declaration: &'a Declaration,
    pub(super) options: &'a Options,
    pub(super) bus: &'a Bus,
}

/// What the node begins with: its right to the database, and what it has heard.
type Begun = (Claim, Vec<Input>);

/// How a try ended.
enum Ended {
    /// The database is in its place.
    Done,
    /// Something else is.
    Occupied,
    /// Not this time.
    Failed(String),
    /// Not now.
    PutOff(String),
    /// This donor does not hand it over whole.
    Refused(String),
}

/// How far a try has come, for the status page.
#[derive(Clone, Debug, Default)]
struct Shown {
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
    checking: Arc<AtomicBool>,
}

impl Seeker<'_> {
    /// Comes back when there is something to open, or nothing and it shall be made; with nothing when the node shall stop.
    pub(super) async fn run(
        &self,
        claim: Claim,
        subjects: &Subjects,
        links: &mut mpsc::Receiver<Link>,
    ) -> Result<Option<Begun>, Error> {
        // The first node makes its database itself, and who shall be it is told what it is told today.
        if self.config.bootstrap == Bootstrap::Events || self.options.first || !claim.is_vacant() {
            return Ok(Some((claim, Vec::new())));
        }
        let presences = self.bus.subscribe(subjects.presence()).await?;
        let mut search = Search::begin(self, subjects, claim, presences)?;
        let ended = search.run(links).await?;
        let at = search.at();
        let Search { claim, seeking, .. } = search;
        Ok(ended.map(|taken| (claim.expect("bug: given back"), seeking.into_inputs(taken, at))))
    }
}

/// A search under way.
struct Search<'a> {
    seeker: &'a Seeker<'a>,
    subjects: &'a Subjects,
    claim: Option<Claim>,
    seeking: Seeking,
    presences: Subscription,
    start: Instant,
    looked_at: Option<Instant>,
    connected: bool,
    trouble: Option<String>,
    tries: u32,
    /// Which of the donors is asked next.
    turns: usize,
    put_off_since: Option<Instant>,
    not_before: Instant,
    /// Donors that do not hand over their database whole.
    refused: Vec<NodeId>,
    why: String,
}

impl<'a> Search<'a> {
    fn begin(
        seeker: &'a Seeker<'a>,
        subjects: &'a Subjects,
        mut claim: Claim,
        presences: Subscription,
    ) -> Result<Self, Error> {
        let start = Instant::now();
        let node = claim.node()?;
        tracing::info!(node_id = %node, "there is no database file: it is taken from another node");
        let seeking = seeking(seeker, node, start);
        Ok(Self {
            seeker,
            subjects,
            claim: Some(claim),
            seeking,
            presences,
            start,
            looked_at: None,
            connected: false,
            trouble: None,
            tries: 0,
            turns: 0,
            put_off_since: None,
            not_before: start,
            refused: Vec::new(),
            why: String::new(),
        })
    }

    fn at(&self) -> Moment {
        Moment { wall: clock::now(), uptime: self.start.elapsed() }
    }

    /// True when the database was taken, false when the node shall begin as ever, nothing when it shall stop.
    async fn run(&mut self, links: &mut mpsc::Receiver<Link>) -> Result<Option<bool>, Error> {
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.turn(links, &mut turn).await? {
                return Ok(None);
            }
            self.show(None);
            if !self.claim.as_ref().is_some_and(Claim::is_vacant) {
                tracing::info!("a database file has come meanwhile: everything is loaded event by event");
                return Ok(Some(false));
            }
            let donors = self.seeking.donors(self.at());
            if donors.is_empty() || Instant::now() < self.not_before {
                continue;
            }
            let Some(donor) = self.choose(&donors) else {
                tracing::warn!(why = self.why, "no database is taken whole: everything is loaded event by event");
                return Ok(Some(false));
            };
            match self.attempt(donor, links, &mut turn).await? {
                None => return Ok(None),
                Some(Ended::Done) => return Ok(Some(true)),
                Some(Ended::Occupied) => {
                    tracing::info!("a database file has come meanwhile: the copy is thrown away");
                    return Ok(Some(false));
                }
                Some(Ended::PutOff(why)) => {
                    tracing::debug!(why, "the donor puts it off");
                    let since = *self.put_off_since.get_or_insert_with(Instant::now);
                    if PUT_OFF_MAX <= since.elapsed() {
                        self.tries = TRIES;
                    }
                    self.turns += 1;
                    self.why = why;
                    // What it takes to find out is not nothing.
                    self.not_before = Instant::now() + PAUSE.max(since.elapsed() / 4);
                }
                Some(Ended::Refused(why)) => {
                    tracing::info!(donor = self.seeking.name_of(donor), why, "a donor refused");
                    self.refused.push(donor);
                    self.why = why;
                }
                Some(Ended::Failed(why)) => {
                    tracing::warn!(donor = self.seeking.name_of(donor), why, "the database did not come whole");
                    self.tries += 1;
                    self.turns += 1;
                    self.put_off_since = None;
                    self.why = why;
                    self.not_before = Instant::now() + PAUSE;
                }
            }
        }
    }

    /// Whom to ask now; none when there is nobody to ask any more.
    fn choose(&mut self, donors: &[NodeId]) -> Option<NodeId> {
        if TRIES <= self.tries {
            return None;
        }
        let willing: Vec<NodeId> = donors.iter().copied().filter(|donor| !self.refused.contains(donor)).collect();
        // Another one after a failure.
        willing.get(self.turns % willing.len().max(1)).copied()
    }

    /// One turn: what comes is taken in, what is to be said is said. Answers false when the node shall stop.
    async fn turn(
        &mut self,
        links: &mut mpsc::Receiver<Link>,
        turn: &mut tokio::time::Interval,
    ) -> Result<bool, Error> {
        tokio::select! {
            biased;
            () = self.seeker.options.stop.cancelled() => return Ok(false),
            link = links.recv() => match link {
                // From an attempt that was made before there was a connection.
                Some(Link::Trouble(_)) if self.connected => {}
                Some(Link::Trouble(text) | Link::Refused(text)) => self.trouble = Some(text),
                Some(Link::Up) => self.trouble = None,
                _ => {}
            },
            delivery = self.presences.next() => if let Some(delivery) = delivery {
                self.take(&delivery.payload)?;
            },
            _ = turn.tick() => {}
        }
        self.seeker.options.heartbeat.beat();
        let connected = self.seeker.bus.is_connected();
        if connected && !self.connected {
            self.seeking.connected();
        }
        self.connected = connected;
        let at = self.at();
        if connected && let Some(frame) = self.seeking.presence(at) {
            let sent = self.seeker.bus.publish(self.subjects.presence(), Bytes::from(frame)).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "a presence was not sent");
            }
        }
        Ok(true)
    }

    fn take(&mut self, frame: &Bytes) -> Result<(), Error> {
        let at = self.at();
        let twin = self.seeking.heard(frame, at) == Heard::Twin;
        // While a copy is being taken the id stands in it; whoever is the other one will be told apart later.
        if let Some(claim) = self.claim.as_mut().filter(|_| twin) {
            let node = claim.renew()?;
            tracing::warn!(node_id = %node, "another sidecar speaks under this node's id: it takes another one");
            self.seeking = seeking(self.seeker, node, self.start);
        }
        Ok(())
    }

    fn show(&mut self, taking: Option<(NodeId, &Shown)>) {
        if self.looked_at.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let Seeker { config, declaration, options, .. } = self.seeker;
        let mut status = Status::starting(&config.node, &declaration.service);
        status.members = self.seeking.shown(self.at());
        status.bus = status::Bus {
            connected: self.connected,
            server: Some(config.nats.servers.join(", ")),
            ..status::Bus::default()
        };
        status.database.path.clone_from(&config.database);
        let mut reasons = Vec::new();
        let none = (!self.connected).then_some("there is no connection to NATS");
        if let Some(text) = self.trouble.as_deref().or(none) {
            reasons.push(Reason::new(Code::Bus, format!("{text}; this node needs the others")));
        }
        match taking {
            None => reasons.push(self.seeking.reason(self.at())),
            Some((donor, shown)) => {
                let donor = self.seeking.name_of(donor);
                let (done, total) = (shown.done.load(Ordering::Relaxed), shown.total.load(Ordering::Relaxed));
                let text = match (shown.checking.load(Ordering::Relaxed), total) {
                    (true, _) => format!("the database of node {donor} is here, and is being checked"),
                    (false, 0) => format!("node {donor} makes a copy of its database"),
                    (false, _) => format!("taking the database of node {donor}"),
                };
                reasons.push(Reason::new(Code::Joining, text));
                let what = format!("bytes of the database of node {donor}");
                let total = (total > 0).then_some(total);
                status.progress = Some(Progress { what, done, total, eta_seconds: None });
            }
        }
        status.set_reasons(reasons);
        options.status.send_replace(Arc::new(status));
    }

    /// Tries to take the database of `donor`, and goes on speaking and listening meanwhile. Nothing when the node shall stop.
    async fn attempt(
        &mut self,
        donor: NodeId,
        links: &mut mpsc::Receiver<Link>,
        turn: &mut tokio::time::Interval,
    ) -> Result<Option<Ended>, Error> {
        let mut claim = self.claim.take().expect("bug: taken once at a time");
        let joiner = claim.node()?;
        let shown = Shown::default();
        let taking = Taking {
            bus: self.seeker.bus.clone(),
            subjects: self.subjects.clone(),
            declaration: self.seeker.declaration.clone(),
            donor,
            joiner,
            shown: shown.clone(),
            stopped: Arc::default(),
        };
        let stopped = taking.stopped.clone();
        let offered = {
            let mut offering = pin!(taking.offer());
            loop {
                tokio::select! {
                    biased;
                    offered = &mut offering => break offered,
                    going = self.turn(links, turn) => if !going? { return Ok(None) },
                }
                self.show(Some((donor, &shown)));
            }
        };
        let offer = match offered {
            Ok(offer) => offer,
            Err(ended) => {
                self.claim = Some(claim);
                return Ok(Some(ended));
            }
        };
        let members = self.seeking.members();
        let mut fetching = pin!(taking.take(claim, offer, members));
        loop {
            tokio::select! {
                biased;
                (claim, ended) = &mut fetching => {
                    self.claim = Some(claim?);
                    return Ok(Some(ended));
                }
                going = self.turn(links, turn) => if !going? {
                    // What is being done with the file ends by itself; the file goes with it.
                    stopped.store(true, Ordering::Relaxed);
                    return Ok(None);
                },
            }
            self.show(Some((donor, &shown)));
        }
    }
}

fn seeking(seeker: &Seeker<'_>, node: NodeId, start: Instant) -> Seeking {
    let at = Moment { wall: clock::now(), uptime: start.elapsed() };
    let schema = format!("{:016x}", seeker.declaration.hash());
    Seeking::new(node, Uuid::now_v7(), &seeker.config.node, schema, seeker.config.presence_interval, at)
}
