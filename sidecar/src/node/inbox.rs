//! The way from the asynchronous parts to the node's own thread: bounded by count and by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use crate::limits;
use crate::replica::Input;

/// Puts things in. Cloning it is cheap.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    sender: SyncSender<(Input, usize)>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    woken: AtomicBool,
}

/// Takes things out.
#[derive(Debug)]
pub(super) struct Received {
    receiver: Receiver<(Input, usize)>,
    shared: Arc<Shared>,
}

impl Inbox {
    pub(super) fn new() -> (Self, Received) {
        let (sender, receiver) = mpsc::sync_channel(limits::INBOX_LEN);
        let shared = Arc::new(Shared::default());
        (Self { sender, shared: shared.clone() }, Received { receiver, shared })
    }

    /// Says that the database may have changed. Many in a row are one: answers false when one waits to be taken already.
    pub(super) fn wake(&self) -> bool {
        if self.shared.woken.swap(true, Ordering::AcqRel) {
            return false;
        }
        if self.sender.try_send((Input::Wake, 0)).is_err() {
            self.shared.woken.store(false, Ordering::Release); // It is full of other reasons to wake up.
        }
        true
    }

    /// Puts in what need not come, if there is room for it. Answers whether there was.
    pub(super) fn offer(&self, input: Input, bytes: usize) -> bool {
        let waiting = self.shared.bytes.load(Ordering::Acquire);
        // What a feed tells can be fetched; a change event is told once. A large row has the way for itself, or has to be fetched.
        let more_of_a_feed = 0 < waiting && matches!(input, Input::Feed { .. });
        let room = if more_of_a_feed { limits::INBOX_FEED_BYTES_MAX } else { limits::INBOX_BYTES_MAX };
        if room < waiting + bytes {
            return false;
        }
        self.shared.bytes.fetch_add(bytes, Ordering::AcqRel);
        let taken = self.sender.try_send((input, bytes)).is_ok();
        if !taken {
            self.shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
        taken
    }

    /// Puts in what somebody waits for: tries until there is room. Answers false when the node is gone.
    pub(super) async fn put(&self, input: Input) -> bool {
        let mut waiting = (input, 0);
        loop {
            match self.sender.try_send(waiting) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => waiting = back,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Received {
    /// The next thing, waiting for it at most `limit`; none when nothing came, `Err` when nothing can come any more.
    pub(super) fn next(&self, limit: Duration) -> Result<Option<Input>, Closed> {
        match self.receiver.recv_timeout(limit) {
            Ok((input, bytes)) => {
                self.shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
                if matches!(input, Input::Wake) {
                    self.shared.woken.store(false, Ordering::Release);
                }
                Ok(Some(input))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }
}

/// Nothing can come any more.
#[derive(Debug)]
pub(super) struct Closed;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::NodeId;

    #[test]
    fn many_messages_of_feeds_leave_bytes_for_change_events_and_a_large_one_comes_alone() {
        let (inbox, received) = Inbox::new();
        let payload = Bytes::from(vec![0; limits::INBOX_BYTES_MAX]);
        let feed = |bytes| inbox.offer(Input::Feed { subject: NodeId::random(), frame: payload.slice(..bytes) }, bytes);
        let change = || {
            let payload = payload.slice(..limits::CHANGE_BYTES_MAX);
            inbox.offer(Input::Announced { payload, reply: None }, limits::CHANGE_BYTES_MAX)
        };
        let taken = || std::iter::from_fn(|| received.next(Duration::ZERO).unwrap()).count();
        assert_eq!([limits::INBOX_FEED_BYTES_MAX - 1, 1, 1].map(feed), [true, true, false]);
        assert_eq!([change(), change()], [true, false]);
        assert_eq!(taken(), 3);
        assert_eq!([limits::INBOX_BYTES_MAX, 1].map(feed), [true, false], "a large row comes alone");
        assert_eq!((change(), taken(), change()), (false, 1, true));
    }
}
