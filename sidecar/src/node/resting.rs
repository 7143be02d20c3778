//! How long the write lock is left alone after a transaction.

use tokio::time::{Duration, Instant};

use crate::replica::Rest;

/// A rest, and whether the service has committed since its fixed part was over.
#[derive(Debug)]
pub(super) struct Resting {
    /// It lasts until here in any case,
    least_until: Instant,
    /// and until here where no commit comes before.
    until: Instant,
    /// When the service's last commit was heard of.
    woken_at: Instant,
}

impl Resting {
    pub(super) fn none(now: Instant) -> Self {
        Self { least_until: now, until: now, woken_at: now }
    }

    /// Begins to rest. Both parts get jitter, from 0 to 1: fixed ones would fall into step with the service.
    pub(super) fn begin(&mut self, rest: Rest, jitter: f64, now: Instant) {
        let Rest { least, gathering, next_commit } = rest;
        self.least_until = now + least.mul_f64(1.0 + jitter).max(gathering);
        self.until = self.least_until + next_commit.mul_f64(1.0 - jitter / 2.0);
    }

    /// Whether a commit would end it sooner, now or after its fixed part.
    pub(super) fn awaits_commit(&self, now: Instant) -> bool {
        self.least_until < self.until && now < self.until
    }

    /// The service committed.
    pub(super) fn woken(&mut self, now: Instant) {
        self.woken_at = now;
    }

    /// How long it still lasts.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let until = if self.least_until <= self.woken_at { self.least_until } else { self.until };
        until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Rest = Rest {
        least: Duration::from_millis(1),
        gathering: Duration::from_millis(8),
        next_commit: Duration::from_millis(4),
    };

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_rest_ends_with_the_first_commit_after_its_fixed_part() {
        let start = Instant::now();
        let mut resting = Resting::none(start);
        resting.begin(REST, 0.0, start);
        assert_eq!(resting.left(start), Duration::from_millis(12));
        assert!(resting.awaits_commit(at(start, 2)));
        resting.woken(at(start, 2));
        assert_eq!(resting.left(at(start, 9)), Duration::from_millis(3), "that was a commit to be gathered");
        resting.woken(at(start, 9));
        assert_eq!(resting.left(at(start, 9)), Duration::ZERO);
    }

    #[test]
    fn a_rest_ends_where_nobody_commits() {
        let start = Instant::now();
        let mut resting = Resting::none(start);
        assert_eq!(resting.left(start), Duration::ZERO);
        resting.begin(REST, 0.0, start);
        assert_eq!(resting.left(at(start, 12)), Duration::ZERO);
        assert!(!resting.awaits_commit(at(start, 12)));
        resting.begin(Rest { next_commit: Duration::ZERO, ..REST }, 0.0, start);
        assert!(!resting.awaits_commit(at(start, 7)));
        assert_eq!(resting.left(at(start, 7)), Duration::from_millis(1));
        assert_eq!(resting.left(at(start, 8)), Duration::ZERO);
    }

    #[test]
    fn two_rests_are_not_alike() {
        let start = Instant::now();
        let lasts = |rest: Rest, jitter| {
            let mut resting = Resting::none(start);
            resting.begin(rest, jitter, start);
            resting.left(start)
        };
        let alone = Rest { least: Duration::from_millis(10), ..Rest::default() };
        assert_eq!((lasts(alone, 0.0), lasts(alone, 1.0)), (Duration::from_millis(10), Duration::from_millis(20)));
        assert_eq!((lasts(REST, 0.0), lasts(REST, 1.0)), (Duration::from_millis(12), Duration::from_millis(10)));
    }
}
