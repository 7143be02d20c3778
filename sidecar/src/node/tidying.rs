//! A thread that copies the write-ahead log into the database when it is told to, while the node's own thread goes on: a
//! copy waits for the disk, and a commit that waits behind it would be seen in every latency.
//!
//! From 1,000 frames on SQLite has whoever commits copy the log, unless somebody else does so already: then the commit goes on at
//! once. So a service that writes without a pause, and spent half of its time in such copies, is followed by this thread.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::edge::store::{Bounds, Checkpointer, Error};
use crate::limits;
use crate::replica::Portion;
use crate::supervise::BoxError;

/// Copies for one wake-up: what is written during a long one is a short one, and only a log that is copied to its end begins
/// anew.
const COPIES: usize = 4;

/// Frames that are left for the next time.
const FEW_FRAMES: i64 = 16;

/// The pause after the copies: a reader that takes its time keeps the log from being copied to its end.
const PAUSE: Duration = Duration::from_millis(5);

/// Frames that are worth a copy of a log that is followed: each waits for the disk.
const SOME_FRAMES: i64 = 64;

/// How often it is looked for them.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// A log into which so little is written for so long is not followed any more.
const FOLLOWED: Duration = Duration::from_millis(20);

/// What the database gets while the node takes so much at a time.
pub(super) fn bounds(portion: Portion) -> Bounds {
    let (cache_kib, log_bytes_kept) = match portion {
        Portion::Small => (limits::CACHE_KIB, 0),
        Portion::Usual => (limits::CACHE_KIB, limits::WAL_BYTES_KEPT),
        Portion::Quiet => (limits::CACHE_QUIET_KIB, limits::WAL_BYTES_KEPT),
        Portion::Large => (limits::CACHE_QUIET_KIB, limits::WAL_BYTES_KEPT_BEHIND),
    };
    // A commit that copies waits for the disk: where there is room, only if nobody else did so in time.
    let log_frames = if portion == Portion::Small { portion.log_frames_max() } else { limits::WAL_FRAMES_MAX };
    Bounds { cache_kib, log_frames, log_bytes_kept }
}

/// What the thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Copy,
    Follow,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Tidier {
    wake: Option<SyncSender<Task>>,
    copying: Arc<Mutex<()>>,
    follows: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tidier {
    /// Opens the database at `path` once more, and starts the thread.
    pub(super) fn start(path: &Path) -> Result<Self, BoxError> {
        let checkpointer = Checkpointer::open(path)?;
        let (wake, woken) = sync_channel(1);
        let copying = Arc::new(Mutex::new(()));
        let follows = Arc::new(AtomicBool::new(false));
        let copies = Copies { checkpointer, copying: copying.clone(), follows: follows.clone() };
        let thread = std::thread::Builder::new().name("rowcast-log".into()).spawn(move || copies.run(&woken))?;
        Ok(Self { wake: Some(wake), copying, follows, thread: Some(thread) })
    }

    /// Has the log copied. While it is, nothing more is to be said.
    pub(super) fn wake(&self) {
        // What does not take it has something to copy already.
        self.tell(Task::Copy);
    }

    /// Has the log copied for as long as there is always something to copy, or until it is told to [`leave`](Self::leave) it.
    pub(super) fn follow(&self) {
        // Before it is told: it ends when it finds that it is not to.
        self.follows.store(true, Ordering::Relaxed);
        if !self.tell(Task::Follow) {
            self.follows.store(false, Ordering::Relaxed);
        }
    }

    /// Whether it does that now, or is about to.
    pub(super) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed) && self.is_there()
    }

    /// Whether there is somebody to be told: who panicked copies no more.
    pub(super) fn is_there(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Whether the thread takes it.
    fn tell(&self, task: Task) -> bool {
        let told = self.wake.as_ref().map(|wake| wake.try_send(task));
        if let Some(Err(TrySendError::Disconnected(_))) = told {
            tracing::debug!("nobody copies the write-ahead log beside the work any more");
        }
        matches!(told, Some(Ok(())))
    }

    /// The log is not followed any more, once the copy that is under way is made.
    pub(super) fn leave(&self) {
        self.follows.store(false, Ordering::Relaxed);
    }

    /// Waits until no copy is under way, and keeps the next one from beginning. The log is not followed any more.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.leave();
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tidier {
    fn drop(&mut self) {
        drop(self.wake.take());
        self.leave();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that copies the write-ahead log panicked: please report this as a bug");
        }
    }
}

/// The thread's own.
struct Copies {
    checkpointer: Checkpointer,
    copying: Arc<Mutex<()>>,
    follows: Arc<AtomicBool>,
}

impl Copies {
    fn run(&self, woken: &Receiver<Task>) {
        while let Ok(task) = woken.recv() {
            let done = match task {
                Task::Copy => self.copy(),
                Task::Follow => self.follow_until_little_is_written(),
            };
            self.follows.store(false, Ordering::Relaxed);
            // Whoever commits next tries it again.
            if let Err(error) = done {
                tracing::debug!(error = error.chain(), "the write-ahead log stays as it is");
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn copy(&self) -> Result<(), Error> {
        for _ in 0..COPIES {
            if self.alone(Checkpointer::copy)?.left <= FEW_FRAMES {
                break;
            }
        }
        Ok(())
    }

    fn follow_until_little_is_written(&self) -> Result<(), Error> {
        let mut found_at = Instant::now();
        let mut frames = 0;
        while self.follows.load(Ordering::Relaxed) && found_at.elapsed() < FOLLOWED {
            // A log that is always written into never begins anew. Left to itself, a commit of the service copies it to its end.
            if limits::WAL_FRAMES_ALONG_MAX <= self.alone(Checkpointer::log)?.frames {
                break;
            }
            let Some(copied) = self.alone(Checkpointer::copy_once)? else {
                found_at = Instant::now(); // Whoever copies has written.
                std::thread::sleep(LOOK_PAUSE);
                continue;
            };
            let found = grown(frames, copied.frames);
            frames = copied.frames;
            // Else the next one follows at once: the commit of a service that meets the gap copies itself.
            if found < SOME_FRAMES && !self.finds_some(frames, found_at)? {
                break;
            }
            found_at = Instant::now();
        }
        Ok(())
    }

    /// Waits until there is something worth a copy; tells whether there is.
    fn finds_some(&self, frames: i64, found_at: Instant) -> Result<bool, Error> {
        loop {
            if SOME_FRAMES <= grown(frames, self.alone(Checkpointer::log)?.frames) {
                return Ok(true);
            }
            if !self.follows.load(Ordering::Relaxed) || FOLLOWED <= found_at.elapsed() {
                return Ok(false);
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn alone<R>(&self, work: impl FnOnce(&Checkpointer) -> R) -> R {
        let _alone = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        work(&self.checkpointer)
    }
}

/// Frames by which a log became longer, which may have begun anew.
fn grown(before: i64, frames: i64) -> i64 {
    if before <= frames { frames - before } else { frames }
}

#[cfg(test)]
mod tests {
    use rowcast_schema::declaration::Declaration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::edge::store::Store;

    fn store(folder: &Path) -> Store {
        let declaration = Declaration::parse("schema.toml", "service = \"s\"\n[tables.t]").unwrap();
        Store::open(&folder.join("app.db"), declaration).unwrap()
    }

    #[test]
    fn what_is_written_is_copied_when_it_is_told_to_and_never_while_it_is_paused() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
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

    #[test]
    fn a_log_that_is_followed_is_copied_while_it_is_written_and_left_to_the_writer_once_it_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let copied_by_its_commits_from = |store: &Store, log_frames| {
            store.set_bounds(Bounds { cache_kib: limits::CACHE_KIB, log_frames, log_bytes_kept: 0 }).unwrap();
        };
        let mut sequences = 1..;
        let mut written = |store: &mut Store| {
            let (node, sequence) = (store.durable().node, sequences.next().unwrap());
            store.write(|tx| tx.set_position(node, sequence, Timestamp::from_millis(1))).unwrap();
            store.log().unwrap()
        };
        copied_by_its_commits_from(&store, i64::from(i32::MAX));
        let tidier = Tidier::start(store.path()).unwrap();
        let mut log = written(&mut store);
        while log.frames / 2 <= log.left || log.frames < limits::WAL_FRAMES_ALONG_MAX {
            assert!(log.frames < 20 * limits::WAL_FRAMES_ALONG_MAX, "it is not copied: {log:?}");
            if !tidier.follows() {
                tidier.follow();
            }
            // The disk may be slow: long, it is not copied any more.
            log = if limits::WAL_FRAMES_ALONG_MAX / 4 < log.left { store.log().unwrap() } else { written(&mut store) };
        }
        while tidier.follows() {
            log = written(&mut store);
            assert!(log.frames < 40 * limits::WAL_FRAMES_ALONG_MAX, "it is still followed: {log:?}");
        }
        copied_by_its_commits_from(&store, 1);
        written(&mut store);
        assert!(written(&mut store).frames < limits::WAL_FRAMES_ALONG_MAX, "it begins anew");
        while !tidier.follows() {
            tidier.follow();
        }
        drop(tidier.pause());
        assert!(!tidier.follows(), "a node that copies itself would wait for it");
        while !tidier.follows() {
            tidier.follow();
        }
        let start = Instant::now();
        while tidier.follows() {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing is written, and it is still followed");
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}
