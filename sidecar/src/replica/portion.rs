//! How much the node takes at a time: rows of a transaction, bytes of a page, the length of the write-ahead log.
//!
//! A node that is far behind, whose service is quiet, takes much: each page of an index is written once in many rows. A node
//! whose disk is nearly full, or refused a moment ago, takes little: what is in a transaction must fit the log, and the log
//! the disk, or the node would never leave a full disk again.

use std::time::Duration;

use super::{Moment, Replica};
use crate::bootstrap::gate::Phase;
use crate::edge::store::Log;
use crate::flow::fetch::Amount;
use crate::limits;

/// For how long a node takes little after its disk refused something: it may refuse for reasons that its free space does not
/// tell, a quota for one.
const REFUSED: Duration = Duration::from_secs(60);

/// How much is taken at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// There is little room, or the disk refused.
    Small,
    /// As usual.
    Usual,
    /// The service has been quiet for a while, and may write again at any moment: transactions are longer, and pages of the
    /// database are kept in memory, as no other one changes them.
    Quiet,
    /// The node is on its way to READY, and nobody waits for its database.
    Large,
}

impl Portion {
    /// Bytes of events of one page of a load, which is one transaction; and mostly of one fetch, and of what one transaction applies.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Small => limits::PAGE_BYTES_SMALL,
            Self::Usual | Self::Quiet => limits::PAGE_BYTES,
            Self::Large => limits::PAGE_BYTES_MAX,
        }
    }

    /// How much is asked for at a time of what others wrote.
    pub(super) fn fetch(self) -> Amount {
        match self {
            Self::Large => Amount { bytes: limits::FETCH_BYTES_BEHIND, at_once: limits::FETCHES_AT_ONCE },
            other => Amount { bytes: other.bytes(), at_once: 1 },
        }
    }

    /// Bytes of events that one transaction applies.
    pub(super) fn lot_bytes(self) -> usize {
        match self {
            Self::Large => limits::LOT_BYTES_MAX,
            other => other.bytes(),
        }
    }

    /// While less is held, what comes behind it is asked for.
    pub(super) fn ahead_bytes(self) -> usize {
        match self {
            Self::Small => limits::PAGE_BYTES_SMALL,
            Self::Usual | Self::Quiet => limits::AHEAD_BYTES,
            Self::Large => limits::AHEAD_BYTES_MAX,
        }
    }

    /// Frames of the log at which the node's own thread stops and copies them into the database.
    pub fn log_frames_max(self) -> i64 {
        match self {
            Self::Small => limits::WAL_FRAMES_SMALL,
            Self::Usual | Self::Quiet => limits::WAL_FRAMES_USUAL,
            Self::Large => limits::WAL_FRAMES_MAX,
        }
    }
}

/// Who copies the write-ahead log into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// Nobody: it may grow.
    Not,
    /// The node's own thread, before anything else.
    Here,
    /// The same, soon after a copy that was written into and did not come to the end of the log.
    Again,
    /// A thread of its own, while the node goes on.
    Beside,
    /// The thread of its own, again and again, for as long as there is always something to copy.
    Along,
}

/// What is known of the log from before.
#[derive(Clone, Copy, Debug)]
pub struct Earlier {
    /// How often this node's own thread copied it since it had as many frames to copy as are worth that.
    pub tried: u32,
    /// Whether it grows so fast that there is no time for a copy between two writes.
    pub is_fast: bool,
}

/// For how long the growth of the log is watched at most.
const WATCHED: Duration = Duration::from_millis(100);

/// How fast the log grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growth {
    /// When the watch began, and the frames that were left then.
    began: Option<(Duration, i64)>,
    /// Of the last look.
    left: i64,
}

impl Growth {
    /// Takes in how many frames are left; tells whether they became more so fast that there is no time for a copy between
    /// two writes.
    pub fn note(&mut self, left: i64, uptime: Duration) -> bool {
        let before = std::mem::replace(&mut self.left, left);
        let watched = self.began.filter(|(since, _)| before <= left && uptime <= *since + WATCHED);
        let (since, from) = *self.began.insert(watched.unwrap_or((uptime, left)));
        let grown = left - from;
        let fast = uptime.saturating_sub(since).as_secs_f64() * limits::WAL_FRAMES_SECOND_FAST as f64;
        limits::WAL_FRAMES_LEFT / 2 <= grown && fast <= grown as f64
    }
}

/// Copies one after the other of a log that is written into meanwhile, until it has grown by as much again.
const COPIES_MAX: u32 = 4;

/// Rows that one transaction applies: as many as hold the lock for about so long. How many that are depends on the machine, on the
/// size of the rows, and on how many pages of indexes they meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fitting {
    rows: usize,
    /// Rows of the last transaction, if it did little else than applying them.
    last: Option<usize>,
    aim: Duration,
    least: usize,
    most: usize,
}

impl Fitting {
    /// While the service writes.
    pub(super) fn beside_the_service() -> Self {
        Self::new(limits::APPLY_TIME, limits::APPLY_ROWS_MIN, limits::APPLY_ROWS_MAX)
    }

    /// While the service is quiet, and the node is not READY.
    pub(super) fn behind() -> Self {
        // It begins with few, and goes down to fewer: how long they take is not known yet.
        let rows = 2 * limits::APPLY_ROWS_QUIET_MAX;
        Self { rows, ..Self::new(limits::APPLY_TIME_BEHIND, limits::APPLY_ROWS_MAX, limits::APPLY_ROWS_BEHIND_MAX) }
    }

    fn new(aim: Duration, least: usize, most: usize) -> Self {
        Self { rows: most, last: None, aim, least, most }
    }

    /// Takes in what the last transaction did: fewer rows of others do not make it shorter where it made many events of its own.
    pub(super) fn applied(&mut self, rows: usize, own: usize) {
        self.last = (own <= rows / 4).then_some(rows);
    }

    /// Takes in for how long it held the lock, and whether it took so many rows.
    fn note(&mut self, held: Duration, counts: bool) {
        let Some(last) = self.last.take().filter(|_| counts) else { return };
        if self.aim < held {
            let fit = (last as f64 * self.aim.as_secs_f64() / held.as_secs_f64()) as usize;
            // It may have been the disk, once: so by no more than a half.
            self.rows = self.rows.min(fit).max(self.rows / 2);
        } else if held < self.aim * 3 / 4 && self.rows <= last {
            self.rows += self.rows / 4;
        }
        self.rows = self.rows.clamp(self.least, self.most);
    }

    pub(super) fn rows(self) -> usize {
        self.rows
    }
}

/// What is known of the room for the database.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// Bytes that are free, as far as it was told.
    free: Option<u64>,
    /// When the disk refused something last.
    refused_at: Option<Duration>,
}

impl Room {
    /// The disk refused.
    pub(super) fn refused(&mut self, uptime: Duration) {
        self.refused_at = Some(uptime);
    }

    fn is_short_of(self, bytes: u64, uptime: Duration) -> bool {
        self.free.is_some_and(|free| free < bytes) || self.refused_at.is_some_and(|at| uptime < at + REFUSED)
    }
}

impl Replica {
    /// Tells how many bytes are free beside the database. Until it is told there is enough.
    pub fn set_room(&mut self, free: u64) {
        self.room.free = Some(free);
    }

    /// How much it takes at a time now.
    pub fn portion(&self, at: Moment) -> Portion {
        if self.room.is_short_of(limits::ROOM_SMALL, at.uptime) {
            Portion::Small
        } else if self.spares_service(at) {
            Portion::Usual
        } else if matches!(self.phase, Phase::Ready) || self.room.is_short_of(limits::ROOM_USUAL, at.uptime) {
            Portion::Quiet
        } else {
            Portion::Large
        }
    }

    /// Rows that one transaction applies now: as many as somebody has time for who waits for the write lock.
    pub(super) fn apply_rows_max(&self, at: Moment) -> usize {
        match self.portion(at) {
            Portion::Large => self.fitting_behind.rows(),
            Portion::Quiet => limits::APPLY_ROWS_QUIET_MAX,
            Portion::Usual | Portion::Small => self.fitting.rows(),
        }
    }

    /// Takes in for how long a transaction that applied held the write lock.
    pub fn note_applied(&mut self, held: Duration, at: Moment) {
        let portion = self.portion(at);
        self.fitting.note(held, matches!(portion, Portion::Usual | Portion::Small));
        self.fitting_behind.note(held, matches!(portion, Portion::Large));
    }

    /// Whether a log that grows fast may be copied all along: it gets long. One that only this node writes, on its way to READY, is
    /// copied now and then.
    pub fn copies_along(&self, at: Moment) -> bool {
        (matches!(self.phase, Phase::Ready) || self.spares_service(at))
            && !self.room.is_short_of(limits::ROOM_USUAL, at.uptime)
    }

    /// Whether a log of this length is to be copied into the database now, and by whom. `idle`: there is nothing else to do.
    ///
    /// A node that is READY copies between two writes of the service, whose next commit would have to do it else. One that
    /// is not has it done beside the work, later when nobody writes but itself. Where there is no time between two writes it is done
    /// all along: SQLite has one connection copy at a time, and a commit of the service, which has to copy else, goes on
    /// at once when it finds a copy under way.
    pub fn copying(&self, log: Log, earlier: Earlier, idle: bool, at: Moment) -> Copying {
        let portion = self.portion(at);
        let spares = idle || self.spares_service(at);
        let ready = matches!(self.phase, Phase::Ready);
        let enough = if spares { limits::WAL_FRAMES_LEFT } else { limits::WAL_FRAMES_USUAL / 2 };
        let short = log.frames < limits::WAL_FRAMES_ALONG_MAX;
        if earlier.is_fast && short && enough <= log.left && self.copies_along(at) {
            Copying::Along
        } else if portion.log_frames_max() <= log.frames && 0 < log.left {
            Copying::Here
        } else if spares && limits::WAL_FRAMES_LEFT <= log.left {
            if ready { Copying::Here } else { Copying::Beside }
        } else if ready && spares && limits::WAL_FRAMES_LEFT <= log.frames && 0 < log.left && earlier.tried < COPIES_MAX
        {
            // It was copied a moment ago, and the service wrote meanwhile: only a log that is copied to its end begins anew. From
            // 1,000 frames on SQLite has the service copy it, and wait for the disk, with each commit, until that is so. Where
            // readers or a slow disk are in the way it is of no use, and each try costs, too.
            Copying::Again
        } else if !ready && limits::WAL_FRAMES_LATE.min(portion.log_frames_max() / 2) <= log.left {
            Copying::Beside
        } else {
            Copying::Not
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_rows_take_long_fewer_are_applied_at_once() {
        let mut fitting = Fitting::beside_the_service();
        let mut after = |rows, own, millis, times| {
            for _ in 0..times {
                fitting.applied(rows, own);
                fitting.note(Duration::from_millis(millis), true);
            }
            fitting.rows()
        };
        let (least, most) = (limits::APPLY_ROWS_MIN, limits::APPLY_ROWS_MAX);
        assert_eq!(after(most, 0, 1, 1), most, "there is time for all that are ever taken");
        assert_eq!(after(most, 0, 5, 1), most * 4 / 5);
        assert_eq!(after(most, most, 900, 9), most * 4 / 5, "it was its own events that took long");
        assert_eq!(after(most * 100, 0, 400, 9), most * 4 / 5, "one long group, as fast as others");
        assert_eq!(after(most, 0, 3, 9), most * 4 / 5, "as it should be");
        assert_eq!(after(most, 0, 900, 9), least);
        assert_eq!(after(1, 0, 1, 20), least, "a lone row does not tell how long many take");
        assert_eq!(after(least, 0, 1, 1), least * 5 / 4);
        assert_eq!(after(most, 0, 1, 20), most);
        fitting.applied(most, 0);
        for counts in [false, true] {
            fitting.note(Duration::from_millis(900), counts);
            assert_eq!(fitting.rows(), most, "the service was quiet then, and what came next was no such transaction");
        }
    }

    #[test]
    fn a_node_that_is_behind_does_not_keep_the_lock_for_long_either() {
        let mut fitting = Fitting::behind();
        let mut after = |millis, times| {
            for _ in 0..times {
                fitting.applied(fitting.rows(), 0);
                fitting.note(Duration::from_millis(millis), true);
            }
            fitting.rows()
        };
        let begins = 2 * limits::APPLY_ROWS_QUIET_MAX;
        assert_eq!(
            [(300, 9), (100, 1), (600, 1)].map(|(millis, times)| after(millis, times)),
            [begins, begins * 5 / 4, begins * 5 / 8]
        );
        assert_eq!(after(20, 20), limits::APPLY_ROWS_BEHIND_MAX);
        assert_eq!(after(9_000, 9), limits::APPLY_ROWS_MAX);
    }

    #[test]
    fn a_log_grows_fast_where_it_does_so_in_the_last_tenth_of_a_second() {
        let mut growth = Growth::default();
        let mut note = |left, millis| growth.note(left, Duration::from_millis(millis));
        assert!(!note(5_000, 1_000), "nothing is known of before");
        assert_eq!([(5_290, 1_010), (5_310, 1_020)].map(|(left, at)| note(left, at)), [false, true]);
        assert!(!note(100, 1_030), "it was copied");
        assert_eq!(
            [(350, 1_070), (600, 1_120)].map(|(left, at)| note(left, at)),
            [false; 2],
            "less than 6 in a millisecond"
        );
        assert!(!note(90_000, 9_000), "it was not watched");
        assert!(note(90_600, 9_060));
    }

    #[test]
    fn a_disk_that_refused_is_short_of_room_for_a_while_whatever_it_says() {
        let at = Duration::from_secs;
        let mut room = Room::default();
        assert!(!room.is_short_of(u64::MAX, at(0)), "nothing is known");
        room.free = Some(10);
        assert!(room.is_short_of(11, at(0)) && !room.is_short_of(10, at(0)));
        room.refused(at(5));
        assert!(room.is_short_of(1, at(5)) && room.is_short_of(1, at(64)));
        assert!(!room.is_short_of(1, at(65)));
    }
}
