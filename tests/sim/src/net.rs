//! The simulated bus: loses, repeats, delays and reorders messages, and cuts links in one direction or both.

use std::collections::{BTreeMap, BTreeSet};

use crate::chance::Chance;

/// What the bus does to messages.
#[derive(Debug)]
pub struct Net {
    /// Messages lost, of a thousand.
    pub loss: u64,
    /// Messages that come twice, of a thousand.
    pub repeats: u64,
    /// The longest way, in microseconds.
    pub delay_max: u64,
    /// Links on which nothing comes through, from one node to another.
    pub cut: BTreeSet<(usize, usize)>,
    /// Since when nothing is lost, and all comes quickly.
    pub healed_at: Option<u64>,
    /// When a link was mended last.
    pub mended: BTreeMap<(usize, usize), u64>,
    chance: Chance,
}

/// What became of a message.
#[derive(Debug)]
pub enum Fate {
    /// It does not come.
    Lost,
    /// The link is cut.
    Cut,
    /// It comes so many microseconds later, perhaps more than once.
    Comes(Vec<u64>),
}

impl Net {
    /// A bus with faults drawn from its seed.
    pub fn new(mut chance: Chance) -> Self {
        let loss = if chance.one_in(3) { 0 } else { chance.below(300) };
        let repeats = if chance.one_in(3) { 0 } else { chance.below(300) };
        let delay_max = *chance.pick(&[500, 5_000, 50_000, 500_000, 3_000_000]);
        Self { loss, repeats, delay_max, cut: BTreeSet::new(), healed_at: None, mended: BTreeMap::new(), chance }
    }

    /// From `now` on everything comes through, quickly.
    pub fn heal(&mut self, now: u64) {
        (self.loss, self.repeats, self.delay_max) = (0, 0, 2_000);
        self.healed_at = Some(now);
        self.mended.extend(std::mem::take(&mut self.cut).into_iter().map(|link| (link, now)));
    }

    /// What becomes of the next message from one node to another.
    pub fn fate(&mut self, from: usize, to: usize) -> Fate {
        if self.cut.contains(&(from, to)) {
            return Fate::Cut;
        }
        if self.chance.per_mille(self.loss) {
            return Fate::Lost;
        }
        let mut times = vec![self.delay()];
        while self.chance.per_mille(self.repeats) && times.len() < 4 {
            times.push(self.delay());
        }
        Fate::Comes(times)
    }

    fn delay(&mut self) -> u64 {
        // Most messages are quick, whatever the worst is.
        let max = if self.chance.one_in(4) { self.delay_max } else { 1_000.min(self.delay_max) };
        100 + self.chance.below(max)
    }
}
