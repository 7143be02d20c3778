//! The hybrid logical clock: the stamps of events, and their order.
//!
//! A timestamp is uhlc's NTP64 (32 bits of seconds since 1970, 32 bits of fraction), halved: the clock gives out even
//! values only, so nothing is lost, and the number stays positive past 2038 in SQLite's signed INTEGER. `timestamp >> 31`
//! is seconds.
//!
//! The rule is that of the hybrid logical clock (Kulkarni et al., 2014) with one addition: the physical part is the time
//! of the *write*, which the trigger noted, not the time at which the sidecar came to it. uhlc's own `HLC` can stamp
//! only "now", so its types are used and the rule is here.
//!
//! Reads no clock: the wall time comes in as a value.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uhlc::NTP64;

/// A moment of the hybrid logical clock, or of a wall clock in the same unit (2^-31 s since 1970).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment that many milliseconds after 1970. What lies outside of NTP64 becomes its nearest end.
    pub fn from_millis(millis: i64) -> Self {
        Self::from_since_1970(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    }

    /// The moment that long after 1970.
    pub fn from_since_1970(since: Duration) -> Self {
        let bounded = since.min(Duration::from_secs(u64::from(u32::MAX)));
        Self(i64::try_from(NTP64::from(bounded).as_u64() >> 1).expect("bug: 63 bits fit"))
    }

    /// As uhlc has it.
    pub fn ntp64(self) -> NTP64 {
        NTP64(u64::try_from(self.0).unwrap_or(0) << 1)
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        let since = self.ntp64().to_duration();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// The timestamp that much later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(Self::from_since_1970(by).0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ntp64().to_string_rfc3339_lossy())
    }
}

/// The clock of this node: the greatest timestamp that it has given out or taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    last: Timestamp,
}

impl Clock {
    /// A clock that never goes back behind `last`.
    pub fn starting_after(last: Timestamp) -> Self {
        Self { last }
    }

    /// The stamp of a change written at `at`, given out at the wall time `now`: later than everything before it here,
    /// and no later than it must be.
    pub fn stamp(&mut self, at: Timestamp, now: Timestamp) -> Timestamp {
        self.last = Timestamp(self.last.0.saturating_add(1)).max(at.min(now));
        self.last
    }

    /// Takes in the timestamp of an event that is being applied.
    pub fn merge(&mut self, timestamp: Timestamp) {
        self.last = self.last.max(timestamp);
    }

    /// The greatest timestamp so far.
    pub fn last(self) -> Timestamp {
        self.last
    }
}

/// Whether `timestamp` lies so far ahead of `now` that it is doubted: merged into the clock it could not be taken back.
pub fn is_doubtful(timestamp: Timestamp, now: Timestamp, drift_max: Duration) -> bool {
    now.plus(drift_max) < timestamp
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const Y2040: i64 = 2_208_988_800_000;

    #[test]
    fn timestamps_sort_as_sql_integers_past_2038() {
        let before = Timestamp::from_millis(1_700_000_000_000);
        let after = Timestamp::from_millis(Y2040);
        assert!(0 < before.0 && before.0 < after.0);
        assert_eq!(after.0 >> 31, Y2040 / 1000);
        assert_eq!(after.millis(), Y2040);
        assert_eq!(after.to_string(), "2040-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn a_late_ingest_keeps_the_time_of_the_write() {
        let at = Timestamp::from_millis(1_000);
        let now = Timestamp::from_millis(9_000_000);
        assert_eq!(Clock::default().stamp(at, now), at);
    }

    #[test]
    fn a_doubtful_timestamp_lies_beyond_the_drift() {
        let now = Timestamp::from_millis(Y2040);
        assert!(!is_doubtful(now.plus(Duration::from_secs(60)), now, Duration::from_secs(60)));
        assert!(is_doubtful(now.plus(Duration::from_secs(61)), now, Duration::from_secs(60)));
    }

    #[test]
    fn at_the_end_of_all_timestamps_nothing_overflows_and_nothing_goes_back() {
        let end = Timestamp(i64::MAX);
        let mut clock = Clock::starting_after(Timestamp(i64::MAX - 1));
        assert_eq!(clock.stamp(Timestamp::from_millis(1), Timestamp::from_millis(i64::MAX)), end);
        assert_eq!(clock.stamp(Timestamp::from_millis(i64::MAX), Timestamp::from_millis(i64::MAX)), end);
        assert!(is_doubtful(end, Timestamp::from_millis(Y2040), Duration::from_secs(60)));
        assert!(!is_doubtful(end, end, Duration::MAX));
        assert!(end.millis() > 0 && !end.to_string().is_empty() && Timestamp(i64::MIN).millis() == 0);
    }

    proptest! {
        #[test]
        fn a_stamp_is_greater_than_all_before_and_never_ahead_without_need(
            steps in prop::collection::vec((0..4_000_000_000_000_i64, 0..4_000_000_000_000_i64, any::<bool>()), 1..60)
        ) {
            let mut clock = Clock::default();
            for (at, now, remote) in steps {
                let (at, now) = (Timestamp::from_millis(at), Timestamp::from_millis(now));
                let before = clock.last();
                if remote {
                    clock.merge(at);
                    prop_assert!(before <= clock.last());
                } else {
                    let stamp = clock.stamp(at, now);
                    prop_assert!(before < stamp);
                    prop_assert!(stamp <= now || stamp.0 == before.0 + 1);
                }
            }
        }

        #[test]
        fn the_halved_form_loses_nothing(millis in 0..4_294_967_295_000_i64) {
            let timestamp = Timestamp::from_millis(millis);
            prop_assert_eq!(timestamp.ntp64().as_u64() >> 1, u64::try_from(timestamp.0).unwrap());
        }
    }
}
