//! Growing, jittered pauses between attempts: the only place that names the crate `backoff`.
//!
//! The crate is no longer looked after (RUSTSEC-2025-0012); a successor needs only this file.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// The pauses of one thing that is tried again and again, for ever.
#[derive(Debug)]
pub struct Retry(ExponentialBackoff);

impl Retry {
    /// Pauses from about `min`, doubling up to about `max`, each up to a half longer or shorter.
    pub fn between(min: Duration, max: Duration) -> Self {
        let built = ExponentialBackoffBuilder::new()
            .with_initial_interval(min)
            .with_max_interval(max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(None)
            .build();
        Self(built)
    }

    /// The same without chance: who must be repeatable to the last step brings a spread of its own.
    pub fn doubling(min: Duration, max: Duration) -> Self {
        let mut retry = Self::between(min, max);
        retry.0.randomization_factor = 0.0;
        retry
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        self.0.next_backoff().expect("bug: without a longest time there is always a next pause")
    }

    /// It has worked: the next pause is short again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_start_anew() {
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(1));
        let mut retry = Retry::between(min, max);
        assert!(retry.pause() <= min * 3 / 2);
        let later: Vec<Duration> = (0..100).map(|_| retry.pause()).collect();
        assert!(later.iter().all(|pause| *pause <= max * 3 / 2));
        assert!(later[50..].iter().all(|pause| *pause >= max / 2));
        assert!(later[50..].iter().any(|pause| *pause != later[50]), "they are jittered");
        retry.reset();
        assert!(retry.pause() <= min * 3 / 2);
    }
}
