//! The statistics, in one place: percentiles of all samples, and the spread over rounds.

use std::time::Duration;

/// Samples of one thing, all rounds together, each round also on its own for the spread.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    rounds: Vec<Vec<f64>>,
}

impl Samples {
    /// Takes the samples of one more round.
    pub fn round(&mut self, samples: Vec<f64>) {
        assert!(!samples.is_empty(), "a round without a sample says nothing");
        self.rounds.push(samples);
    }

    /// Takes a round that gave one number.
    pub fn single(&mut self, sample: f64) {
        self.round(vec![sample]);
    }

    /// The percentile (0 to 100) of all samples, by nearest rank. The spread is that of each round's own.
    pub fn percentile(&self, percent: f64) -> Value {
        let of = |samples: &[f64]| {
            let mut sorted = samples.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[rank(sorted.len(), percent)]
        };
        self.value(of)
    }

    /// The median of all samples.
    pub fn median(&self) -> Value {
        self.percentile(50.0)
    }

    /// The mean of all samples.
    pub fn mean(&self) -> Value {
        self.value(|samples| samples.iter().sum::<f64>() / count(samples.len()))
    }

    /// The largest sample.
    pub fn max(&self) -> Value {
        self.percentile(100.0)
    }

    fn value(&self, of: impl Fn(&[f64]) -> f64) -> Value {
        let rounds: Vec<f64> = self.rounds.iter().map(|round| of(round)).collect();
        Value { value: of(&self.rounds.concat()), rounds }
    }
}

fn rank(len: usize, percent: f64) -> usize {
    assert!(len > 0, "no samples");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and len")]
    let rank = (count(len) * percent / 100.0).ceil() as usize;
    rank.clamp(1, len) - 1
}

/// A number of things as a float.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn count(number: impl TryInto<u64>) -> f64 {
    whole(number) as f64
}

/// A number of things, however it was counted.
pub fn whole(number: impl TryInto<u64>) -> u64 {
    number.try_into().ok().expect("bug: not a count")
}

/// A measured value and what each round alone gave.
#[derive(Clone, Debug)]
pub struct Value {
    /// Of all samples.
    pub value: f64,
    /// Of each round, in their order.
    pub rounds: Vec<f64>,
}

impl Value {
    /// This over a floor; the spread is that of the rounds, each over the floor beside it.
    pub fn over(&self, floor: &Self) -> Self {
        assert_eq!(self.rounds.len(), floor.rounds.len(), "rounds are interleaved");
        let rounds = self.rounds.iter().zip(&floor.rounds).map(|(own, floor)| own / floor).collect();
        Self { value: self.value / floor.value, rounds }
    }

    /// The same of figures that a round gives once, like rates: the median of the pairs; of an even number of them the mean of the two
    /// in the middle. The median of one over that of the other can come from two rounds.
    pub fn paired(&self, floor: &Self) -> Self {
        let Self { rounds, .. } = self.over(floor);
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { value: f64::midpoint(low, high), rounds }
    }

    /// The least of the rounds.
    pub fn low(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The greatest of the rounds.
    pub fn high(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// So many in that time, each second.
pub fn rate(number: impl TryInto<u64>, time: Duration) -> f64 {
    count(number) / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_samples_and_never_averaged() {
        let mut samples = Samples::default();
        samples.round((1..=99).map(f64::from).collect());
        samples.round(vec![1_000.0]);
        assert_eq!(samples.median().value, 50.0);
        assert_eq!(samples.percentile(99.0).value, 99.0);
        assert_eq!(samples.percentile(100.0).value, 1_000.0);
        assert_eq!(samples.median().rounds, [50.0, 1_000.0]);
        assert_eq!((samples.median().low(), samples.median().high()), (50.0, 1_000.0));
        assert_eq!(samples.mean().value, (4_950.0 + 1_000.0) / 100.0);
    }

    #[test]
    fn a_ratio_has_the_spread_of_its_pairs() {
        let mut own = Samples::default();
        let mut floor = Samples::default();
        for (a, b) in [(3.0, 1.0), (4.0, 4.0), (10.0, 5.0)] {
            own.single(a);
            floor.single(b);
        }
        let ratio = own.median().over(&floor.median());
        assert_eq!((ratio.value, ratio.low(), ratio.high()), (1.0, 1.0, 3.0));
        let paired = own.median().paired(&floor.median());
        assert_eq!((paired.value, paired.low(), paired.high()), (2.0, 1.0, 3.0));
        own.single(9.0);
        floor.single(3.6);
        assert_eq!(own.median().paired(&floor.median()).value, 2.25);
    }
}
