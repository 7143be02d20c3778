//! What `/livez` and `/readyz` answer, and how the node shows that it is alive.
//!
//! Alive is not ready: a node that waits for others is alive, and starting it again would not help. A node whose loop
//! has stopped turning is not alive, whatever it last said of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::status::{Code, Progress, Reason, State, Status};

/// A node that has not beaten for so long is not alive. Longer than the longest thing its loop waits for.
pub const BEAT_AGE_MAX: Duration = Duration::from_secs(30);

/// The node loop's sign of life: it beats at each turn, `/livez` looks how long ago that was.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    start: Instant,
    /// Milliseconds from `start` to the last beat.
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// One that beats now.
    #[expect(clippy::new_without_default, reason = "it takes the time, which a default should not")]
    pub fn new() -> Self {
        Self { start: Instant::now(), last: Arc::new(AtomicU64::new(0)) }
    }

    /// One that beat last so long ago.
    #[cfg(test)]
    pub(crate) fn that_stopped(ago: Duration) -> Self {
        Self { start: Instant::now().checked_sub(ago).expect("the machine runs for longer"), ..Self::new() }
    }

    /// Says that the loop has come round.
    pub fn beat(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// How long ago the last beat was.
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The answer of `/livez`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Liveness {
    /// The loop turns.
    pub alive: bool,
    /// Milliseconds since it last did.
    pub last_beat_ms: u64,
    /// What to do when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

impl Liveness {
    /// The verdict for a last beat so long ago.
    pub fn of(age: Duration) -> Self {
        let alive = age <= BEAT_AGE_MAX;
        let hint = "the sidecar is stuck: restart it; nothing is lost by that";
        Self { alive, last_beat_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX), hint: (!alive).then_some(hint) }
    }
}

impl Status {
    /// The same, seen from outside of the node's loop: one that stands still cannot vouch for what it last said.
    #[must_use]
    pub fn doubted(mut self, beat_age: Duration) -> Self {
        if !Liveness::of(beat_age).alive {
            let text = format!("the node's loop has not turned for {} s", beat_age.as_secs());
            let stuck = Reason::new(Code::Stuck, text);
            let others = std::mem::take(&mut self.reasons);
            self.set_reasons(std::iter::once(stuck).chain(others).collect());
        }
        self
    }
}

/// The answer of `/readyz`, and what the node says of itself on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// READY or not.
    pub state: State,
    /// Why not.
    pub reasons: Vec<Reason>,
    /// How far it is.
    pub progress: Option<Progress>,
}

impl Readiness {
    /// That of a node in this state.
    pub fn of(status: &Status) -> Self {
        Self { state: status.state, reasons: status.reasons.clone(), progress: status.progress.clone() }
    }

    /// Whether reads may be served.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready && self.reasons.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::troubled;
    use super::*;

    #[test]
    fn readiness_of_a_node_that_joins() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&Readiness::of(&troubled())).unwrap());
    }

    #[test]
    fn readiness_of_a_node_that_is_ready() {
        let mut status = troubled();
        status.set_reasons(Vec::new());
        status.progress = None;
        insta::assert_snapshot!(serde_json::to_string(&Readiness::of(&status)).unwrap(),
            @r#"{"state":"READY","reasons":[],"progress":null}"#);
    }

    #[test]
    fn readiness_of_a_node_that_is_stuck_is_doubted() {
        let mut status = troubled();
        status.set_reasons(Vec::new());
        assert!(status.clone().doubted(BEAT_AGE_MAX).is_ready());
        let stuck = status.doubted(Duration::from_secs(31));
        assert!(!stuck.is_ready() && !Readiness::of(&stuck).is_ready());
        assert_eq!(stuck.reasons[0].text, "the node's loop has not turned for 31 s");
    }

    #[test]
    fn a_loop_that_stands_still_is_not_alive_until_it_beats_again() {
        let heart = Heartbeat::that_stopped(BEAT_AGE_MAX + Duration::from_secs(1));
        let stuck = Liveness::of(heart.age());
        assert!(!stuck.alive);
        assert!(stuck.hint.is_some());
        heart.clone().beat();
        assert!(heart.age() < BEAT_AGE_MAX);
        assert!(Liveness::of(heart.age()).alive);
    }

    #[test]
    fn alive_ends_after_thirty_seconds() {
        assert!(Liveness::of(BEAT_AGE_MAX).alive);
        assert!(!Liveness::of(BEAT_AGE_MAX + Duration::from_millis(1)).alive);
    }
}
