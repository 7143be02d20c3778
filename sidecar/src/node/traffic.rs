//! Moves messages between the bus and the node's own thread. Nothing here decides or remembers anything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use crate::edge::bus::subject::{self, Subjects};
use crate::edge::bus::{Bus, Link};
use crate::limits;
use crate::observe::health::{Heartbeat, Readiness};
use crate::observe::metrics;
use crate::observe::status::Status;
use crate::position::NodeId;
use crate::replica::{Asked, Input, Output};
use crate::supervise::BoxError;

/// How often the connection is looked at, beside the events that it gives.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Tells the node when the connection comes and goes.
pub(super) async fn links(
    mut links: mpsc::Receiver<Link>,
    bus: Bus,
    inbox: Inbox,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let mut told = bus.is_connected();
    if told {
        inbox.put(Input::Connected(true)).await;
    }
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            link = links.recv() => match link {
                Some(Link::Up) => true,
                Some(Link::Down) => false,
                Some(Link::Lossy) => continue,
                // From an attempt that was made before there was a connection.
                Some(Link::Trouble(_)) if told => continue,
                Some(Link::Trouble(text) | Link::Refused(text)) => {
                    inbox.put(Input::BusTrouble(text)).await;
                    continue;
                }
                None => return Ok(()),
            },
            () = tokio::time::sleep(LOOK_INTERVAL) => bus.is_connected(),
        };
        if connected != told {
            told = connected;
            inbox.put(Input::Connected(connected)).await;
        }
    }
}

/// The feeds of all nodes.
pub(super) async fn feeds(bus: Bus, subject: String, inbox: Inbox, stop: CancellationToken) -> Result<(), BoxError> {
    let mut deliveries = bus.subscribe(subject).await?;
    let mut dropped = 0_u64;
    while let Some(delivery) = unless(&stop, deliveries.next()).await {
        let Ok(origin) = subject::last_token(&delivery.subject).parse::<NodeId>() else {
            tracing::warn!(subject = delivery.subject, "refused a message: the subject does not end with a node id");
            continue;
        };
        let bytes = delivery.payload.len();
        if !inbox.offer(Input::Feed { subject: origin, frame: delivery.payload }, bytes) {
            dropped += 1;
            if dropped.is_power_of_two() {
                tracing::info!(dropped, "messages came faster than they could be applied; they are fetched in time");
            }
        }
    }
    ended(&stop)
}

/// What all nodes say of themselves.
pub(super) async fn presence(bus: Bus, subject: String, inbox: Inbox, stop: CancellationToken) -> Result<(), BoxError> {
    let mut deliveries = bus.subscribe(subject).await?;
    while let Some(delivery) = unless(&stop, deliveries.next()).await {
        let bytes = delivery.payload.len();
        if !inbox.offer(Input::Presence(delivery.payload), bytes) {
            tracing::debug!("a presence did not fit; the next one comes soon");
        }
    }
    ended(&stop)
}

/// Change events of the service beside this node.
pub(super) async fn changes(bus: Bus, subject: String, inbox: Inbox, stop: CancellationToken) -> Result<(), BoxError> {
    let mut deliveries = bus.subscribe(subject.clone()).await?;
    while let Some(delivery) = unless(&stop, deliveries.next()).await {
        let (bytes, reply) = (delivery.payload.len(), delivery.reply.clone());
        if !inbox.offer(Input::Announced { payload: delivery.payload, reply: delivery.reply }, bytes) {
            tracing::warn!(subject, "a change event did not fit; the reconciliation finds what it said");
            if let Some(reply) = reply {
                let body = r#"{"ok":false,"error":"too many change events wait; try again"}"#;
                bus.publish(reply, Bytes::from_static(body.as_bytes())).await?;
            }
        }
    }
    ended(&stop)
}

/// Comparisons that an operator asks for.
pub(super) async fn asked(
    mut asked: mpsc::Receiver<Asked>,
    inbox: Inbox,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    while let Some(asked) = unless(&stop, asked.recv()).await {
        inbox.put(Input::Verify(asked)).await;
    }
    // Without a server nobody can ask; the node goes on.
    stop.cancelled().await;
    Ok(())
}

/// Shows the state on the bus: at each change, and as often as presence.
pub(super) async fn state(
    bus: Bus,
    subject: String,
    (mut status, heartbeat): (watch::Receiver<Arc<Status>>, Heartbeat),
    interval: Duration,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let mut shown = None;
    let mut tick = tokio::time::interval(interval);
    while !stop.is_cancelled() {
        let readiness = Readiness::of(&Status::clone(&status.borrow_and_update()).doubted(heartbeat.age()));
        let changed = shown.as_ref() != Some(&readiness.state);
        let due = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = tick.tick() => true,
            seen = status.changed() => match seen { Ok(()) => false, Err(_) => return Ok(()) },
        };
        if (due || changed) && bus.is_connected() {
            bus.publish(subject.clone(), serde_json::to_vec(&readiness)?.into()).await?;
            shown = Some(readiness.state);
        }
    }
    Ok(())
}

/// Sends what the node wants to be sent.
pub(super) struct Sender {
    pub(super) bus: Bus,
    pub(super) subjects: Subjects,
    /// Under which id the node speaks.
    pub(super) node: watch::Receiver<Option<NodeId>>,
    pub(super) inbox: Inbox,
}

impl Sender {
    pub(super) async fn run(
        self,
        mut outputs: mpsc::Receiver<Output>,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        // Requests are bounded by the node: one an origin or a few for all, and one for loading.
        let mut asking = JoinSet::new();
        loop {
            let output = tokio::select! {
                output = outputs.recv() => output,
                Some(_) = asking.join_next(), if !asking.is_empty() => continue,
                () = stop.cancelled(), if outputs.is_closed() => return Ok(()),
            };
            match output {
                Some(Output::Ask { ask, to, request }) => {
                    let subject = self.subjects.rpc(to, request.verb());
                    let payload = serde_json::to_vec(&request)?;
                    let (bus, inbox) = (self.bus.clone(), self.inbox.clone());
                    asking.spawn(async move {
                        let began = tokio::time::Instant::now();
                        let answer = bus.ask(subject, payload.into()).await;
                        let frame = answer.inspect_err(|error| tracing::debug!(%error, "a request failed")).ok();
                        metrics::FETCH_SECONDS.record(began.elapsed());
                        inbox.put(Input::Answer { ask, frame }).await;
                    });
                }
                Some(output) => self.publish(output).await?,
                None => return Ok(()),
            }
        }
    }

    async fn publish(&self, output: Output) -> Result<(), BoxError> {
        let (subject, payload) = match output {
            // Made under an id that was left meanwhile: whoever lacks it fetches it.
            Output::Feed(frame) => match *self.node.borrow() {
                Some(node) => (self.subjects.events(node), Bytes::from(frame)),
                None => return Ok(()),
            },
            Output::Presence(frame) => (self.subjects.presence(), Bytes::from(frame)),
            Output::Reply { to, body } => (to, Bytes::from(body)),
            Output::Ask { .. } => return Ok(()), // Sent above.
        };
        // While the connection is away nothing is queued: the others fetch what they miss.
        if self.bus.is_connected()
            && let Err(error) = self.bus.publish(subject, payload).await
        {
            tracing::debug!(%error, "a message was not sent");
        }
        Ok(())
    }
}

pub(super) async fn unless<T>(stop: &CancellationToken, wait: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        next = wait => next,
    }
}

/// A subscription that ended by itself is made anew.
pub(super) fn ended(stop: &CancellationToken) -> Result<(), BoxError> {
    if stop.is_cancelled() { Ok(()) } else { Err("the subscription ended".into()) }
}

/// Requests under way at the same time, at most: one an origin that is behind, or a few for all of them, and one for loading.
const _: () = assert!(limits::MEMBERS_MAX < limits::INBOX_LEN + 1 && limits::FETCHES_AT_ONCE < limits::MEMBERS_MAX);
