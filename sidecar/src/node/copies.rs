//! The donor's side of a database that is handed over whole: one copy at a time, made when it is asked for, shipped in
//! chunks as they are asked for, and removed when it is taken or nobody asks any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rowcast_schema::declaration::Declaration;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bootstrap::whole::{self, Chunk, Offer, Whole};
use crate::edge::store::whole::{Copied, Refusal, Wanted, copy};
use crate::flow::fetch::Request;
use crate::limits;
use crate::position::NodeId;
use crate::supervise::BoxError;
use crate::wire::{self, Message};

/// How often it is looked whether a copy is still asked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The copies of one database. Cloning it is cheap.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    database: PathBuf,
    declaration: Arc<Declaration>,
    now: Arc<Mutex<Option<Current>>>,
    /// Whoever has it has the place of the copy beside the database: a copy that is thrown away may be read a moment longer.
    place: Arc<tokio::sync::Mutex<()>>,
    stop: CancellationToken,
}

/// The copy that is made or shipped now.
#[derive(Clone, Debug)]
struct Current {
    copy: Uuid,
    joiner: NodeId,
    made: watch::Receiver<Made>,
    asked_at: Instant,
    /// Ends the making.
    stop: CancellationToken,
}

/// What has become of it.
#[derive(Clone, Debug)]
enum Made {
    NotYet,
    Here(Arc<Shipped>),
    Not(No),
    Ended([u8; 32]),
}

/// Why there is none.
#[derive(Clone, Debug)]
enum No {
    Later(String),
    Never(String),
}

impl From<No> for Message {
    fn from(no: No) -> Self {
        match no {
            No::Later(why) => Self::Whole(Whole::Later(why)),
            No::Never(why) => Self::Refused(why),
        }
    }
}

/// A copy on its way, and the hashes of its chunks so far.
#[derive(Debug)]
struct Shipped {
    copied: Copied,
    offer: Offer,
    hashes: Mutex<Vec<Option<[u8; 32]>>>,
    /// Given back when the file is gone.
    _place: OwnedMutexGuard<()>,
}

impl Copies {
    pub(super) fn of(database: &Path, declaration: &Declaration) -> Self {
        Self {
            database: database.to_owned(),
            declaration: Arc::new(declaration.clone()),
            now: Arc::default(),
            place: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    /// The frame that answers a request about a whole database; none for any other request.
    pub(super) async fn answer(&self, request: &Request) -> Option<Vec<u8>> {
        let message = match request {
            Request::Whole { joiner, schema } => self.offer(*joiner, schema),
            Request::Chunk { copy, at } => return Some(self.chunk(*copy, *at).await),
            Request::Ended { copy } => self.end(*copy).await,
            _ => return None,
        };
        Some(wire::encode(&message))
    }

    /// Removes a copy that nobody asks for any more; at the end any copy.
    pub(super) async fn watch(self, stop: CancellationToken) -> Result<(), BoxError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let mut now = self.lock();
            if let Some(current) = now.take_if(|current| current.asked_at + limits::WHOLE_IDLE_MAX <= Instant::now()) {
                current.stop.cancel();
                drop(now);
                if !matches!(*current.made.borrow(), Made::Ended(_)) {
                    tracing::warn!(joiner = %current.joiner, "a copy of the database was not taken, and is removed");
                }
            }
        }
        self.stop.cancel();
        drop(self.lock().take());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        // What it holds is right at every moment.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, joiner: NodeId, schema: &str) -> Message {
        if schema != format!("{:016x}", self.declaration.hash()) {
            return Message::Refused("the node that asks has another schema TOML".into());
        }
        match self.current_for(joiner) {
            Ok(Made::Here(shipped)) => Message::Whole(Whole::Offer(shipped.offer.clone())),
            // Nobody waits here: who asks comes again, and others are answered meanwhile.
            Ok(Made::NotYet) => Message::Whole(Whole::Making),
            Ok(Made::Not(no)) | Err(no) => no.into(),
            Ok(Made::Ended(_)) => gone(),
        }
    }

    /// The copy for that node: the one that is under way, or a new one. Why there was none is said once.
    fn current_for(&self, joiner: NodeId) -> Result<Made, No> {
        let mut now = self.lock();
        if let Some(current) = now.as_mut() {
            let made = current.made.borrow().clone();
            let over = matches!(made, Made::Not(_) | Made::Ended(_));
            if current.joiner == joiner {
                current.asked_at = Instant::now();
                if over {
                    *now = None;
                }
                if !matches!(made, Made::Ended(_)) {
                    return Ok(made);
                }
            } else if !over {
                return Err(No::Later("another node is taking a copy of this one".into()));
            }
        }
        let (tell, made) = watch::channel(Made::NotYet);
        let (copy, stop) = (Uuid::new_v4(), self.stop.child_token());
        *now = Some(Current { copy, joiner, made, asked_at: Instant::now(), stop: stop.clone() });
        let wanted = Wanted { database: self.database.clone(), declaration: (*self.declaration).clone(), joiner, copy };
        let place = self.place.clone();
        // It ends by itself, at the latest when the time for it is over or the node stops.
        drop(tokio::task::spawn_blocking(move || tell.send_replace(make(&wanted, place.blocking_lock_owned(), stop))));
        Ok(Made::NotYet)
    }

    /// The copy of that name, if it is the one that is there.
    fn find(&self, copy: Uuid) -> Option<Made> {
        let mut now = self.lock();
        let current = now.as_mut().filter(|current| current.copy == copy)?;
        current.asked_at = Instant::now();
        let made = current.made.borrow().clone();
        Some(made)
    }

    async fn chunk(&self, copy: Uuid, at: u64) -> Vec<u8> {
        let Some(Made::Here(shipped)) = self.find(copy) else { return wire::encode(&gone()) };
        let read = tokio::task::spawn_blocking(move || wire::encode(&shipped.chunk(at)));
        read.await.unwrap_or_else(|_| wire::encode(&gone()))
    }

    async fn end(&self, copy: Uuid) -> Message {
        match self.find(copy) {
            Some(Made::Here(shipped)) => {
                let ended = tokio::task::spawn_blocking(move || shipped.hash()).await;
                let Ok(Some(hash)) = ended else {
                    drop(self.lock().take_if(|current| current.copy == copy));
                    return Message::Refused("not all of the copy was asked for; it is removed".into());
                };
                // It is asked again when the answer is lost.
                if let Some(current) = self.lock().as_mut().filter(|current| current.copy == copy) {
                    current.made = watch::channel(Made::Ended(hash)).1;
                    tracing::info!(joiner = %current.joiner, "a copy of the database was taken");
                }
                Message::Whole(Whole::Hash(hash))
            }
            Some(Made::Ended(hash)) => Message::Whole(Whole::Hash(hash)),
            _ => gone(),
        }
    }
}

impl Shipped {
    fn chunk(&self, at: u64) -> Message {
        let Some((from, length)) = self.offer.place(at) else {
            return Message::Refused(format!("the copy has {} chunks", self.offer.chunks()));
        };
        match self.copied.read(from, length) {
            Ok(bytes) => {
                let Ok(chunk) = Chunk::pack(self.offer.copy, at, &bytes) else { return gone() };
                let hash = whole::hash_of(&bytes);
                let place = usize::try_from(at).unwrap_or(usize::MAX);
                if let Some(known) = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
                    *known = Some(hash);
                }
                Message::Whole(Whole::Chunk(chunk))
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "the copy of the database cannot be read");
                gone()
            }
        }
    }

    /// The hash over all chunks, when all were handed over.
    fn hash(&self) -> Option<[u8; 32]> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let hashes: Option<Vec<[u8; 32]>> = hashes.iter().copied().collect();
        hashes.map(|hashes| whole::hash_over(&hashes))
    }
}

fn gone() -> Message {
    Message::Refused("this copy is not here any more".into())
}

fn make(wanted: &Wanted, place: OwnedMutexGuard<()>, stop: CancellationToken) -> Made {
    let asked = std::time::Instant::now();
    match copy(wanted, move || stop.is_cancelled()) {
        Ok(copied) => {
            tracing::info!(
                joiner = %wanted.joiner,
                bytes = copied.bytes,
                reading_ms = copied.took.as_millis(),
                took_ms = asked.elapsed().as_millis(),
                "made a copy of the database for a node that has none"
            );
            let offer = Offer { copy: wanted.copy, bytes: copied.bytes, vector: copied.vector.clone() };
            let count = usize::try_from(offer.chunks()).unwrap_or(usize::MAX);
            Made::Here(Arc::new(Shipped { copied, offer, hashes: Mutex::new(vec![None; count]), _place: place }))
        }
        Err(Refusal::Later(why)) => Made::Not(No::Later(why)),
        Err(Refusal::Never(why)) => {
            tracing::info!(joiner = %wanted.joiner, why, "the database is not handed over whole");
            Made::Not(No::Never(why))
        }
        Err(Refusal::Store(error)) => {
            tracing::warn!(error = error.chain(), "no copy of the database could be made");
            Made::Not(No::Never("the database of the node that was asked refuses; ask another".into()))
        }
    }
}
