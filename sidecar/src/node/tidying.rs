//! A thread that copies the write-ahead log into the database when it is told to, while the node's own thread goes on: a
//! copy waits for the disk, and a commit that waits behind it would be seen in every latency.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::edge::store::{Bounds, Checkpointer};
use crate::limits;
use crate::replica::Portion;
use crate::supervise::BoxError;

/// Copies one after the other: what is written during a long one is a short one, and only a log that is copied to its end
/// begins anew.
const COPIES_MAX: usize = 4;

/// Frames that are left for the next time.
const FEW_FRAMES: i64 = 16;

/// The pause after the copies: a reader that takes its time keeps the log from being copied to its end.
const PAUSE: Duration = Duration::from_millis(5);

/// What the database gets while the node takes so much at a time.
pub(super) fn bounds(portion: Portion) -> Bounds {
    let (cache_kib, log_bytes_kept) = match portion {
        Portion::Small => (limits::CACHE_KIB, 0),
        Portion::Usual => (limits::CACHE_KIB, limits::WAL_BYTES_KEPT),
        Portion::Quiet | Portion::Large => (limits::CACHE_QUIET_KIB, limits::WAL_BYTES_KEPT),
    };
    Bounds { cache_kib, log_frames: portion.log_frames_max(), log_bytes_kept }
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Tidier {
    wake: Option<SyncSender<()>>,
    copying: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tidier {
    /// Opens the database at `path` once more, and starts the thread.
    pub(super) fn start(path: &Path) -> Result<Self, BoxError> {
        let checkpointer = Checkpointer::open(path)?;
        let (wake, woken) = sync_channel(1);
        let copying = Arc::new(Mutex::new(()));
        let held = copying.clone();
        let run = move || run(&checkpointer, &woken, &held);
        let thread = std::thread::Builder::new().name("rowcast-log".into()).spawn(run)?;
        Ok(Self { wake: Some(wake), copying, thread: Some(thread) })
    }

    /// Has the log copied. While it is, nothing more is to be said.
    pub(super) fn wake(&self) {
        let Some(wake) = &self.wake else { return };
        // A full queue is as good: it will look once more.
        if let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
            tracing::debug!("nobody copies the write-ahead log beside the work any more");
        }
    }

    /// Waits until no copy is under way, and keeps the next one from beginning.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tidier {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that copies the write-ahead log panicked: please report this as a bug");
        }
    }
}

fn run(checkpointer: &Checkpointer, woken: &Receiver<()>, copying: &Mutex<()>) {
    while woken.recv().is_ok() {
        for _ in 0..COPIES_MAX {
            let alone = copying.lock().unwrap_or_else(PoisonError::into_inner);
            let copied = checkpointer.copy();
            drop(alone);
            match copied {
                Ok(log) if FEW_FRAMES < log.left => {}
                Ok(_) => break,
                // Whoever commits next tries it again.
                Err(error) => {
                    tracing::debug!(error = error.chain(), "the write-ahead log stays as it is");
                    break;
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rowcast_schema::declaration::Declaration;

    use super::*;
    use crate::edge::store::Store;

    #[test]
    fn what_is_written_is_copied_when_it_is_told_to_and_never_while_it_is_paused() {
        let folder = tempfile::tempdir().unwrap();
        let declaration = Declaration::parse("schema.toml", "service = \"s\"\n[tables.t]").unwrap();
        let store = Store::open(&folder.path().join("app.db"), declaration).unwrap();
        let tidier = Tidier::start(store.path()).unwrap();
        let alone = tidier.pause();
        tidier.wake();
        let written = store.log().unwrap();
        assert!(written.left > 0, "a new database has Rowcast's tables in its log: {written:?}");
        drop(alone);
        let start = Instant::now();
        while store.log().unwrap().left > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "the log is not copied");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(tidier);
    }
}
