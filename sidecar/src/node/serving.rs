//! Answers the requests of other nodes from connections of their own, a few at a time.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::copies::Copies;
use super::traffic::ended;
use crate::bootstrap::donor;
use crate::edge::bus::subject::Subjects;
use crate::edge::bus::{Bus, Delivery};
use crate::edge::store::{self, Reader, Store};
use crate::flow::fetch::Request;
use crate::limits;
use crate::position::NodeId;
use crate::supervise::BoxError;
use crate::wire::{self, Message};

/// Where requests are answered. Cloning it is cheap.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    readers: Arc<Mutex<Vec<Reader>>>,
    free: Arc<Semaphore>,
    copies: Copies,
}

impl Desk {
    pub(super) fn open(store: &Store) -> Result<Self, store::Error> {
        let readers = (0..limits::SERVING_MAX)
            .map(|_| Reader::open(store.path(), store.declaration()))
            .collect::<Result<Vec<Reader>, _>>()?;
        let copies = Copies::of(store.path(), store.declaration());
        let free = Arc::new(Semaphore::new(limits::SERVING_MAX));
        Ok(Self { readers: Arc::new(Mutex::new(readers)), free, copies })
    }

    /// The copies of the database that are handed over whole.
    pub(super) fn copies(&self) -> Copies {
        self.copies.clone()
    }

    /// Answers what is asked of the id under which the node speaks. While it speaks under none it answers nothing.
    pub(super) async fn run(
        self,
        bus: Bus,
        subjects: Subjects,
        mut speaks_as: watch::Receiver<Option<NodeId>>,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        // Outlives a change of the id: an answer that was cut off would take its reader along.
        let mut answering = JoinSet::new();
        loop {
            let node = *speaks_as.borrow_and_update();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = speaks_as.changed() => if changed.is_err() {
                    return ended(&stop);
                },
                asked = self.answer_as(&bus, &subjects, node, &mut answering) => return asked.and_then(|()| ended(&stop)),
            }
        }
    }

    async fn answer_as(
        &self,
        bus: &Bus,
        subjects: &Subjects,
        node: Option<NodeId>,
        answering: &mut JoinSet<()>,
    ) -> Result<(), BoxError> {
        let Some(node) = node else { return std::future::pending().await };
        let mut requests = bus.subscribe(subjects.all_rpc(node)).await?;
        while let Some(delivery) = requests.next().await {
            while answering.try_join_next().is_some() {}
            // Who waits here waits in the subscription's own bounded queue; who is dropped there asks again.
            let Ok(permit) = self.free.clone().acquire_owned().await else { break };
            let (desk, bus) = (self.clone(), bus.clone());
            answering.spawn(async move {
                desk.answer(&bus, delivery).await;
                drop(permit);
            });
        }
        Ok(())
    }

    async fn answer(&self, bus: &Bus, delivery: Delivery) {
        let Some(reply) = delivery.reply else { return };
        let frame = match read(&delivery.payload) {
            Ok(request) => match self.copies.answer(&request).await {
                Some(frame) => frame,
                None => wire::encode(&self.look_up(request).await),
            },
            Err(reason) => {
                tracing::warn!(subject = delivery.subject, reason, "refused a request");
                wire::encode(&Message::Refused(reason))
            }
        };
        if let Err(error) = bus.publish(reply, Bytes::from(frame)).await {
            tracing::debug!(%error, "an answer was not sent");
        }
    }

    async fn look_up(&self, request: Request) -> Message {
        let Some(reader) = self.readers.lock().await.pop() else {
            return Message::Refused("too many requests at once; try again".into());
        };
        let looked_up = tokio::task::spawn_blocking(move || {
            let answer = donor::answer(&reader, &request);
            // Up to 2 MiB of pages; the next request is rarely for the same ones. A failure is one of the connection.
            let answer = answer.and_then(|answer| reader.release_memory().map(|()| answer));
            (reader, answer)
        });
        match looked_up.await {
            Ok((reader, answer)) => {
                self.readers.lock().await.push(reader);
                answer.unwrap_or_else(|error| {
                    tracing::error!(error = error.chain(), "a request could not be answered");
                    Message::Refused("the database of the node that was asked refuses; ask another".into())
                })
            }
            Err(_) => Message::Refused("the node that was asked failed; ask another".into()),
        }
    }
}

fn read(payload: &[u8]) -> Result<Request, String> {
    if limits::CONTROL_BYTES_MAX < payload.len() {
        return Err(format!("a request of {} bytes", payload.len()));
    }
    serde_json::from_slice(payload).map_err(|error| format!("not a request: {error}"))
}
