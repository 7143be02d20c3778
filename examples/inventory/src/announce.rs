//! Change events: after a commit, tell the sidecar which row changed.
//!
//! A change event is a hint that makes replication quick. One that is lost (no NATS, no sidecar, a crash between commit
//! and publish) delays its row until the sidecar compares the table with what it recorded; two that overtake
//! each other do no harm, since the sidecar looks at the row too. So nothing here may ever fail or hold up a write.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::store::{Item, now_ms};

/// Change events that wait for NATS. More than these are dropped.
const WAITING_MAX: usize = 1024;
const ACKNOWLEDGE_TRIES: u32 = 3;
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_millis(1500);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the sidecar is told.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeEvent {
    table: &'static str,
    operation: &'static str,
    /// When it was written, milliseconds since 1970.
    at: i64,
    /// The full row after the change; not for a delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Item>,
    /// The key of what was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<serde_json::Value>,
}

impl ChangeEvent {
    /// An item was added.
    pub fn created(item: &Item) -> Self {
        Self { table: "items", operation: "create", at: now_ms(), data: Some(item.clone()), key: None }
    }

    /// An item was changed.
    pub fn updated(item: &Item) -> Self {
        Self { table: "items", operation: "update", at: now_ms(), data: Some(item.clone()), key: None }
    }

    /// An item was deleted.
    pub fn deleted(id: &str) -> Self {
        Self { table: "items", operation: "delete", at: now_ms(), data: None, key: Some(json!({ "id": id })) }
    }

    fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a change event has a JSON form")
    }
}

/// The sidecar's answer to a change event that was sent as a request.
#[derive(Debug, Deserialize)]
struct Answer {
    ok: bool,
    sequence_number: Option<u64>,
    error: Option<String>,
}

/// Sends change events. Cheap to clone; never waits and never fails, but for [`Announcer::confirm`].
#[derive(Clone, Debug)]
pub struct Announcer {
    route: Option<Route>,
}

#[derive(Clone, Debug)]
struct Route {
    client: Client,
    subject: String,
    waiting: mpsc::Sender<ChangeEvent>,
}

/// The task that sends what waits, in the order of the writes.
#[derive(Debug)]
pub struct Announcing {
    task: Option<JoinHandle<()>>,
}

/// An announcer that says nothing: replication works without it when all tables are captured by triggers.
pub fn silent() -> (Announcer, Announcing) {
    (Announcer { route: None }, Announcing { task: None })
}

/// Connects in the background: a NATS server that is away now, or later, stops nothing.
pub async fn start(nats: &str, node: &str) -> anyhow::Result<(Announcer, Announcing)> {
    let client = async_nats::ConnectOptions::new()
        .name(format!("inventory {node}"))
        .retry_on_initial_connect()
        .reconnect_delay_callback(|_| Duration::from_millis(250))
        .connect(nats)
        .await
        .with_context(|| format!("failed to read the NATS address `{nats}`"))?;
    let subject = format!("rowcast.inventory.changes.{node}");
    let (waiting, due) = mpsc::channel(WAITING_MAX);
    let task = tokio::spawn(send_in_order(client.clone(), subject.clone(), due));
    Ok((Announcer { route: Some(Route { client, subject, waiting }) }, Announcing { task: Some(task) }))
}

async fn send_in_order(client: Client, subject: String, mut due: mpsc::Receiver<ChangeEvent>) {
    while let Some(event) = due.recv().await {
        if let Err(error) = client.publish(subject.clone(), event.payload().into()).await {
            eprintln!("inventory: a change was not announced: {error}");
        }
    }
    if let Err(error) = client.flush().await {
        eprintln!("inventory: the last changes may not have been announced: {error}");
    }
}

impl Announcer {
    /// Fire and forget.
    pub fn tell(&self, event: ChangeEvent) {
        let Some(route) = &self.route else { return };
        if route.waiting.try_send(event).is_err() {
            eprintln!("inventory: a change was not announced: {WAITING_MAX} are waiting for NATS");
        }
    }

    /// Sends `event` as a request, and again when no answer comes: sent twice, it is recorded once. Gives the sequence
    /// number under which it is recorded and on disk.
    pub async fn confirm(&self, event: ChangeEvent) -> anyhow::Result<u64> {
        let route = self.route.as_ref().context("this service was started without NATS")?;
        let mut problem = None;
        for _ in 0..ACKNOWLEDGE_TRIES {
            match timeout(ACKNOWLEDGE_TIMEOUT, route.ask(&event)).await {
                Ok(Ok(sequence_number)) => return Ok(sequence_number),
                Ok(Err(error)) => problem = Some(error),
                Err(_) => problem = Some(anyhow::anyhow!("no answer from NATS in time")),
            }
            sleep(RETRY_PAUSE).await;
        }
        Err(problem.unwrap_or_else(|| anyhow::anyhow!("not tried")))
    }
}

impl Route {
    async fn ask(&self, event: &ChangeEvent) -> anyhow::Result<u64> {
        let reply = self.client.request(self.subject.clone(), event.payload().into()).await?;
        let answer: Answer = serde_json::from_slice(&reply.payload).context("the sidecar's answer makes no sense")?;
        match (answer.ok, answer.sequence_number) {
            (true, Some(sequence_number)) => Ok(sequence_number),
            _ => anyhow::bail!("the sidecar refused: {}", answer.error.unwrap_or_else(|| "without a reason".into())),
        }
    }
}

impl Announcing {
    /// Waits, for a moment at most, until what was told before is sent.
    pub async fn finish(self) {
        if let Some(task) = self.task
            && timeout(FINISH_TIMEOUT, task).await.is_err()
        {
            eprintln!("inventory: stopped with changes that were not announced");
        }
    }
}
