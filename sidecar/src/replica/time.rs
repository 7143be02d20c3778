//! Which wall time this node believes in: its own, unless most others say that it is far ahead.
//!
//! What is stamped cannot be taken back: the clock of a node never goes back, and what it wrote from the future waits at
//! all others until its time has come. So a node that hears two others or more stamps no later than they would let it. A clock that is
//! behind is left alone: stamps are never lower than what was applied, and two nodes that believe each other would swap
//! their mistakes.

use std::time::Duration;

use super::{Moment, Replica};
use crate::clock::Timestamp;
use crate::limits;
use crate::observe::status::{Code, Reason};

/// How far clocks may differ, in milliseconds.
const DRIFT_MILLIS: i64 = limits::DRIFT_MAX.as_millis() as i64;

/// What helps where nobody knows whose clock is wrong.
pub(super) const COMPARE_CLOCKS: &str = "compare the clocks of all nodes (NTP), set the one that is wrong, then wait";

impl Replica {
    /// The moment with the wall time that stamps and doubts go by.
    pub(super) fn judged(&self, at: Moment) -> Moment {
        match self.members.median_skew(at.uptime) {
            // Of two, nobody knows which one is wrong.
            Some(skew) if skew < -DRIFT_MILLIS && self.members.live(at.uptime).nth(1).is_some() => {
                Moment { wall: Timestamp::from_millis(at.wall.millis().saturating_add(skew)), ..at }
            }
            _ => at,
        }
    }

    /// This machine's clock is far from those of most others.
    pub(super) fn own_clock_off(&self, uptime: Duration) -> Option<Reason> {
        let skew = self.members.median_skew(uptime).filter(|skew| DRIFT_MILLIS < skew.saturating_abs())?;
        let (seconds, side) = (skew.saturating_abs() / 1000, if skew < 0 { "ahead of" } else { "behind" });
        let of_two = self.members.live(uptime).nth(1).is_none();
        let others = if of_two { "that of the only other node that is heard" } else { "those of most other nodes" };
        let text = format!("the clock of this machine is {seconds} s {side} {others}");
        let hint = if of_two {
            COMPARE_CLOCKS
        } else if skew < 0 {
            "set this machine's clock (NTP), then wait; until then changes get the time of the others"
        } else {
            "set this machine's clock (NTP), then wait; until then what the others write is kept, and applied later"
        };
        Some(Reason::new(Code::Clock, text).with_hint(hint))
    }
}
