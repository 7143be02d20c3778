//! One database on its way from a donor: the offer, the chunks, and the hash over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rowcast_schema::declaration::Declaration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Ended, PAUSE, Shown};
use crate::bootstrap::whole::settle::Settling;
use crate::bootstrap::whole::{self, Offer, Whole};
use crate::edge::bus::Bus;
use crate::edge::bus::subject::Subjects;
use crate::edge::clock;
use crate::edge::store::whole::{Arriving, Placed, Refusal};
use crate::edge::store::{self, Claim};
use crate::flow::fetch::Request;
use crate::limits;
use crate::position::NodeId;
use crate::wire::{self, Message};

/// The pause between two questions whether the copy is there.
const MAKING_PAUSE: Duration = Duration::from_millis(25);

/// Tries to get one chunk.
const CHUNK_TRIES: u32 = 3;

/// After so many chunks what is written goes onto the disk: else all of it would have to at the end.
const SYNC_EVERY: usize = 32;

/// A database that is being taken from a donor.
pub(super) struct Taking {
    pub(super) bus: Bus,
    pub(super) subjects: Subjects,
    pub(super) declaration: Declaration,
    pub(super) donor: NodeId,
    pub(super) joiner: NodeId,
    pub(super) shown: Shown,
    pub(super) stopped: Arc<AtomicBool>,
}

impl Taking {
    async fn ask(&self, request: &Request) -> Result<Bytes, String> {
        let payload = serde_json::to_vec(request).expect("bug: a request has a JSON form");
        let subject = self.subjects.rpc(self.donor, request.verb());
        self.bus.ask(subject, payload.into()).await.map_err(|error| error.to_string())
    }

    /// Asks for a copy, and again while it is being made: whoever went to another donor would have two of them copy.
    pub(super) async fn offer(&self) -> Result<Offer, Ended> {
        let schema = format!("{:016x}", self.declaration.hash());
        let request = Request::Whole { joiner: self.joiner, schema };
        let began = Instant::now();
        loop {
            let frame = self.ask(&request).await.map_err(Ended::Failed)?;
            match wire::decode(&frame) {
                Ok(Message::Whole(Whole::Offer(offer))) => {
                    return offer.check().map(|()| offer).map_err(Ended::Refused);
                }
                Ok(Message::Whole(Whole::Making)) if began.elapsed() < limits::WHOLE_MAKING_MAX => {
                    sleep(MAKING_PAUSE).await
                }
                Ok(Message::Whole(Whole::Making)) => {
                    return Err(Ended::Refused(format!("no copy after {} s", limits::WHOLE_MAKING_MAX.as_secs())));
                }
                Ok(Message::Whole(Whole::Later(why))) => return Err(Ended::PutOff(why)),
                Ok(Message::Refused(why)) => return Err(Ended::Refused(why)),
                Ok(_) => return Err(Ended::Refused("it is not what was asked for".into())),
                Err(error) => return Err(Ended::Refused(error.to_string())),
            }
        }
    }

    /// Takes what was offered, and puts it in its place. The claim comes back in any case.
    pub(super) async fn take(
        &self,
        claim: Claim,
        offer: Offer,
        members: Vec<(NodeId, String)>,
    ) -> (Result<Claim, store::Error>, Ended) {
        let began = Instant::now();
        self.shown.total.store(offer.bytes, Ordering::Relaxed);
        let database = claim.database().to_owned();
        let bytes = offer.bytes;
        let arriving = match blocking(move || Arriving::begin(&database, bytes)).await {
            Ok(arriving) => Arc::new(arriving),
            Err(refusal) => {
                let ended = self.give_up(&offer, refusal.into()).await;
                return (Ok(claim), ended);
            }
        };
        if let Err(ended) = self.fetch(&offer, &arriving).await {
            // Whatever still writes does not touch the file of the next try.
            while Arc::strong_count(&arriving) > 1 {
                sleep(Duration::from_millis(5)).await;
            }
            let ended = self.give_up(&offer, ended).await;
            return (Ok(claim), ended);
        }
        let fetched = began.elapsed();
        self.shown.checking.store(true, Ordering::Relaxed);
        let arriving = Arc::into_inner(arriving).expect("bug: every chunk is written");
        let settling = Settling {
            arriving,
            claim,
            copy: offer.copy,
            joiner: self.joiner,
            declaration: self.declaration.clone(),
            members,
        };
        let stopped = self.stopped.clone();
        let settle = move || settling.settle(clock::now(), || stopped.load(Ordering::Relaxed));
        let (claim, placed) = blocking(settle).await;
        let ended = match placed {
            Ok(Placed::Done) => Ended::Done,
            Ok(Placed::Taken) => Ended::Occupied,
            Err(refusal) => refusal.into(),
        };
        if matches!(ended, Ended::Done) {
            tracing::info!(
                bytes = offer.bytes,
                fetched_ms = fetched.as_millis(),
                took_ms = began.elapsed().as_millis(),
                "took the database of another node whole"
            );
        }
        (claim, ended)
    }

    /// The donor need not keep the copy.
    async fn give_up(&self, offer: &Offer, ended: Ended) -> Ended {
        if let Err(error) = self.ask(&Request::Ended { copy: offer.copy }).await {
            tracing::debug!(error, "the donor was not told that its copy is not wanted");
        }
        ended
    }

    /// Fetches all chunks, some at a time, and compares the hash over them with the donor's.
    async fn fetch(&self, offer: &Offer, arriving: &Arc<Arriving>) -> Result<(), Ended> {
        let count = usize::try_from(offer.chunks()).map_err(|_| Ended::Refused("it is too large".into()))?;
        let mut hashes = vec![[0; 32]; count];
        let mut next = 0;
        let mut syncing = JoinSet::new();
        let mut under_way = JoinSet::new();
        let offer = Arc::new(offer.clone());
        loop {
            while next < count && under_way.len() < limits::WHOLE_CHUNKS_AT_ONCE {
                let one = self.one(next as u64, offer.clone(), arriving.clone());
                under_way.spawn(async move { one.await.map(|hash| (next, hash)) });
                next += 1;
                if next % SYNC_EVERY == 0 && syncing.len() < 2 {
                    let arriving = arriving.clone();
                    syncing.spawn_blocking(move || arriving.sync());
                }
            }
            let Some(done) = under_way.join_next().await else { break };
            let (at, hash) = done.map_err(|error| Ended::Failed(error.to_string()))??;
            hashes[at] = hash;
            let length = offer.place(at as u64).map_or(0, |(_, length)| length as u64);
            self.shown.done.fetch_add(length, Ordering::Relaxed);
        }
        let told = self.hash(&offer).await?;
        while let Some(synced) = syncing.join_next().await {
            let synced = synced.map_err(|error| Ended::Failed(error.to_string()))?;
            synced.map_err(|error| Ended::Failed(error.chain()))?;
        }
        if told == whole::hash_over(&hashes) {
            Ok(())
        } else {
            Err(Ended::Failed("the hash over what came is another one than the donor's".into()))
        }
    }

    async fn hash(&self, offer: &Offer) -> Result<[u8; 32], Ended> {
        let frame = self.ask(&Request::Ended { copy: offer.copy }).await.map_err(Ended::Failed)?;
        match wire::decode(&frame) {
            Ok(Message::Whole(Whole::Hash(hash))) => Ok(hash),
            Ok(Message::Refused(why)) => Err(Ended::Failed(why)),
            Ok(_) => Err(Ended::Failed("it is not what was asked for".into())),
            Err(error) => Err(Ended::Failed(error.to_string())),
        }
    }

    /// One chunk: asked for, checked, written. Answers its hash.
    fn one(
        &self,
        at: u64,
        offer: Arc<Offer>,
        arriving: Arc<Arriving>,
    ) -> impl Future<Output = Result<[u8; 32], Ended>> + Send + use<> {
        let request = Request::Chunk { copy: offer.copy, at };
        let payload = Bytes::from(serde_json::to_vec(&request).expect("bug: a request has a JSON form"));
        let (bus, subject) = (self.bus.clone(), self.subjects.rpc(self.donor, request.verb()));
        async move {
            let mut tries = 1;
            loop {
                let failed = match bus.ask(subject.clone(), payload.clone()).await {
                    Ok(frame) => {
                        let (offer, arriving) = (offer.clone(), arriving.clone());
                        match blocking(move || write(&frame, at, &offer, &arriving)).await {
                            Err(Ended::Failed(why)) => why,
                            written => return written,
                        }
                    }
                    Err(error) => error.to_string(),
                };
                if CHUNK_TRIES <= tries {
                    return Err(Ended::Failed(failed));
                }
                tries += 1;
                sleep(PAUSE).await;
            }
        }
    }
}

fn write(frame: &[u8], at: u64, offer: &Offer, arriving: &Arriving) -> Result<[u8; 32], Ended> {
    let chunk = match wire::decode(frame) {
        Ok(Message::Whole(Whole::Chunk(chunk))) => chunk,
        Ok(Message::Refused(why)) => return Err(Ended::Failed(why)),
        Ok(_) => return Err(Ended::Failed("it is not what was asked for".into())),
        Err(error) => return Err(Ended::Failed(error.to_string())),
    };
    let (from, bytes) = offer.unpack(&chunk, at).map_err(Ended::Failed)?;
    arriving.write(from, &bytes).map_err(|error| Ended::Refused(error.chain()))?;
    Ok(whole::hash_of(&bytes))
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Later(why) => Self::PutOff(why),
            Refusal::Never(why) => Self::Refused(why),
            Refusal::Store(error) => Self::Refused(error.chain()),
        }
    }
}

/// SQLite and the disk block.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(work).await.expect("bug: the work on a database panicked")
}
