//! Waiting for what must become true, without a guess about when.
//!
//! The bound is generous: it only decides how long a broken build takes to say so.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long a story waits for what must happen. `ROWCAST_TEST_BOUND` (seconds) replaces it.
pub fn bound() -> Duration {
    let seconds = std::env::var("ROWCAST_TEST_BOUND").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Asks `probe` until it answers `Ok`.
///
/// # Panics
/// When it has not by the bound: with the last answer.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Result<T, String>) -> T {
    within(bound(), what, probe)
}

/// As [`eventually`], with a bound of its own.
///
/// # Panics
/// When the bound is over: with the last answer.
pub fn within<T>(bound: Duration, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > bound => panic!("not within {bound:?}: {what}\nlast seen: {last}"),
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}

/// Waits until `actual` gives `expected`; use [`crate::eventually_eq!`].
pub fn equal<A: PartialEq<E> + Debug, E: Debug>(what: &str, mut actual: impl FnMut() -> A, expected: &E) {
    eventually(what, || {
        let actual = actual();
        if actual == *expected { Ok(()) } else { Err(format!("{actual:?}\nexpected: {expected:?}")) }
    });
}

/// Waits until a condition holds: `eventually!(b.number("…") > 3)`.
#[macro_export]
macro_rules! eventually {
    ($condition:expr) => {
        $crate::eventually::eventually(stringify!($condition), || {
            if $condition { Ok(()) } else { Err("false".to_owned()) }
        })
    };
}

/// Waits until the left side equals the right one: `eventually_eq!(b.rows("…"), ["1 | 'x'"])`.
#[macro_export]
macro_rules! eventually_eq {
    ($actual:expr, $expected:expr) => {
        $crate::eventually::equal(stringify!($actual), || $actual, &$expected)
    };
}
