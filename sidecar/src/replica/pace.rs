//! How fast the service commits, and for how long the write lock is left to it.
//!
//! A lone commit becomes an event at once. Where one follows the other, each transaction of the sidecar in between costs the
//! service its page cache, and now and then a wait for the lock: so a few of them are taken together.
//! A service that is too fast for the sidecar is held to its pace: what others wrote waits for the journal.

use std::time::Duration;

use super::{Moment, Replica};
use crate::flow::ingest::Page;
use crate::limits;

/// How long after a write the service counts as active.
const ACTIVE: Duration = Duration::from_millis(100);

/// The longest that the write lock is left alone for having been held, but for jitter.
const REST_MAX: Duration = Duration::from_millis(50);

/// The longest that SQLite's own busy handler sleeps, which most services wait with.
const SERVICE_SLEEP: Duration = Duration::from_millis(100);

/// How long after a write the service is spared: long transactions, and the work on the write-ahead log.
const SERVED: Duration = Duration::from_secs(10);

/// Up to so many commits a second each is taken at once.
const ALONE_MAX: f64 = 250.0;

/// With each so many more a second one more is taken together with the others.
const ONE_MORE: f64 = 60.0;

/// Commits that are waited for, with the one that is there: the cost is shared by them, and the wait grows with them.
const TOGETHER_MAX: f64 = 5.0;

/// What is further back than about so long counts no more, in seconds.
const REMEMBERED: f64 = 0.1;

/// How fast the service commits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Commits a second: an average in which what is older weighs less.
    a_second: f64,
    /// Up to when they are counted.
    until: Duration,
    /// The journal holds more than was taken: there is nothing to be gathered.
    behind: bool,
}

impl Pace {
    /// Takes in that the service committed about so often since the last time, and whether there is more.
    pub(super) fn note(&mut self, commits: u32, more: bool, uptime: Duration) {
        self.behind = more;
        let passed = uptime.saturating_sub(self.until).as_secs_f64();
        self.until = self.until.max(uptime);
        let kept = (-passed / REMEMBERED).exp();
        // What came in a shorter time than is remembered counts as if it had come in all of it.
        self.a_second = self.a_second * kept + f64::from(commits) / REMEMBERED.max(passed);
    }

    /// How long the next commits are gathered before they are taken.
    pub(super) fn gathering(self) -> Duration {
        if self.behind {
            return Duration::ZERO;
        }
        self.time_of(((self.a_second - ALONE_MAX) / ONE_MORE).clamp(0.0, TOGETHER_MAX - 1.0))
    }

    /// The time that so many commits take.
    pub(super) fn time_of(self, commits: f64) -> Duration {
        if commits > 0.0 { Duration::from_secs_f64(commits / self.a_second) } else { Duration::ZERO }
    }
}

/// How long the journal has to be too long, or not to be any more.
const LASTING: Duration = Duration::from_secs(2);

/// Whether the journal has been too long to be drained on the way of something else for so long that what others wrote, which
/// waits for that, must not wait any longer: the service writes faster than this node makes events of it, or there is a backlog.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overrun {
    lasts: bool,
    /// Since when it looks otherwise.
    otherwise_since: Option<Duration>,
}

impl Overrun {
    /// Takes in whether it is too long.
    pub(super) fn note(&mut self, long: bool, uptime: Duration) {
        if long == self.lasts {
            self.otherwise_since = None;
        } else if *self.otherwise_since.get_or_insert(uptime) + LASTING <= uptime {
            *self = Self { lasts: long, otherwise_since: None };
            match long {
                true => {
                    tracing::info!("the journal has been long for a while: the service is held to this node's pace")
                }
                false => tracing::info!("the journal is short again: the service is no longer held back"),
            }
        }
    }

    pub(super) fn lasts(self) -> bool {
        self.lasts
    }

    /// The most that one transaction ingests.
    pub(super) fn page(self) -> Page {
        match self.lasts {
            false => Page { rows: limits::INGEST_ROWS_MAX, bytes: limits::INGEST_BYTES_MAX },
            true => Page { rows: limits::INGEST_ROWS_OVERRUN, bytes: limits::INGEST_BYTES_OVERRUN },
        }
    }
}

/// How long the write lock is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// For having been held: at least so long, or fixed pauses fall into step with the service.
    pub least: Duration,
    /// Until so many commits may have come as are taken together.
    pub gathering: Duration,
    /// Then until the next commit, right behind which the service needs the lock least; so long at most.
    pub next_commit: Duration,
}

impl Replica {
    /// Whether the service has written lately: then the write lock is left alone between two transactions.
    fn service_is_active(&self, at: Moment) -> bool {
        self.written_at.is_some_and(|written| at.uptime < written + ACTIVE)
    }

    /// For how long the write lock is left alone after a transaction that took so long, and held it for a part of that: while
    /// the service writes for at least as long, and where one commit follows the other until there are some to be taken
    /// together. Where the journal has been too long for a while, the service is held to the pace of this node: it gets the lock
    /// for one commit.
    pub fn rest(&self, took: Duration, held: Duration, at: Moment) -> Rest {
        if held.is_zero() || !self.service_is_active(at) {
            return Rest::default();
        }
        if self.overrun.lasts() && self.flows() {
            return Rest { next_commit: (held * 4).min(SERVICE_SLEEP), ..Rest::default() };
        }
        let gathering = if self.only_journal { self.pace.gathering() } else { Duration::ZERO };
        let next_commit = if gathering.is_zero() { Duration::ZERO } else { self.pace.time_of(2.0) };
        // With the wait for the lock: where that is long the service writes a lot.
        Rest { least: took.min(REST_MAX), gathering, next_commit }
    }

    /// Whether the service has written in the last while, and may do so at any moment: then it comes first.
    pub(super) fn spares_service(&self, at: Moment) -> bool {
        self.written_at.is_some_and(|written| at.uptime < written + SERVED)
    }

    /// Whether the service has committed since somebody looked last: the watch tells of this node's own commits, too. The net
    /// under that watch.
    pub fn look_for_commits(&mut self, at: Moment) -> bool {
        let committed = self.store.changed_by_others().unwrap_or_else(|error| {
            tracing::debug!(error = error.chain(), "looking for commits failed");
            false
        });
        if committed {
            self.dirty = true;
            self.written_at = Some(at.uptime);
        }
        committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_when_it_lasts_and_over_when_that_lasts() {
        let mut overrun = Overrun::default();
        let mut lasts = |long, millis| {
            overrun.note(long, Duration::from_millis(millis));
            overrun.lasts()
        };
        assert_eq!([(true, 0), (true, 1_900), (false, 1_950)].map(|(long, at)| lasts(long, at)), [false; 3]);
        assert_eq!([(true, 2_100), (true, 4_050)].map(|(long, at)| lasts(long, at)), [false; 2], "not all the while");
        assert_eq!([(true, 4_100), (false, 5_000), (true, 6_900)].map(|(long, at)| lasts(long, at)), [true; 3]);
        assert_eq!(
            [(false, 7_000), (false, 8_900), (false, 9_000)].map(|(long, at)| lasts(long, at)),
            [true, true, false]
        );
    }

    /// The wait after two seconds of a commit each so many milliseconds.
    fn waits(millis: u64) -> Duration {
        let mut pace = Pace::default();
        (0..2_000 / millis).for_each(|at| pace.note(1, false, Duration::from_millis(at * millis)));
        pace.gathering()
    }

    #[test]
    fn lone_commits_are_taken_at_once_and_a_flood_together() {
        for slow in [5, 6, 10, 100, 1_000] {
            assert_eq!(waits(slow), Duration::ZERO, "a commit each {slow} ms");
        }
        let (fast, faster) = (waits(2).as_millis(), waits(1).as_millis());
        assert!((6..=8).contains(&fast), "four times 2 ms: {fast}");
        assert!((3..=4).contains(&faster), "four times 1 ms: {faster}");
    }

    #[test]
    fn nothing_is_gathered_where_enough_waits() {
        let mut pace = Pace::default();
        (0..1_000).for_each(|at| pace.note(1, false, Duration::from_millis(at)));
        assert_ne!(pace.gathering(), Duration::ZERO);
        pace.note(1, true, Duration::from_secs(1));
        assert_eq!(pace.gathering(), Duration::ZERO);
    }

    #[test]
    fn a_flood_is_forgotten() {
        let mut pace = Pace::default();
        (0..1_000).for_each(|at| pace.note(1, false, Duration::from_millis(at)));
        pace.note(1, false, Duration::from_millis(1_500));
        assert_eq!(pace.gathering(), Duration::ZERO);
    }

    #[test]
    fn what_is_taken_together_counts_as_what_it_is() {
        let (mut single, mut together) = (Pace::default(), Pace::default());
        (1..=500).for_each(|at| single.note(1, false, Duration::from_millis(at * 2)));
        (1..=100).for_each(|at| together.note(5, false, Duration::from_millis(at * 10)));
        let difference = single.gathering().abs_diff(together.gathering());
        assert!(difference <= Duration::from_millis(1), "{difference:?}");
    }
}
