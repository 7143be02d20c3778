//! The simulation as tests: the same seed tells the same story, and many seeds end well.
//!
//! `ROWCAST_SIM_SEEDS` sets how many, `ROWCAST_SIM_FROM` where they begin.

use std::collections::BTreeSet;
use std::path::Path;

use rowcast_sim::runner::{self, Summary};

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn run(from: u64, seeds: u64) -> Summary {
    runner::many_with(Path::new(env!("CARGO_BIN_EXE_rowcast-sim")), from, seeds, None, false)
}

/// First of all: what cannot be repeated cannot be understood. Each run is a process of its own.
#[test]
fn the_same_seed_tells_the_same_story() {
    let seeds = number("ROWCAST_SIM_SEEDS", 500).div_ceil(25);
    let (first, second) = (run(1_000_000, seeds), run(1_000_000, seeds));
    assert_eq!(first.hashes.len() as u64, seeds);
    assert_eq!(first.hashes, second.hashes);
    let different: BTreeSet<u64> = first.hashes.into_values().collect();
    assert_eq!(different.len() as u64, seeds, "other seeds tell other stories");
}

#[test]
fn nothing_is_lost_nothing_diverges_nothing_gets_stuck() {
    let seeds = number("ROWCAST_SIM_SEEDS", 500);
    let summary = run(number("ROWCAST_SIM_FROM", 0), seeds);
    let (wrong, not_met) = (summary.wrong.keys(), summary.not_met());
    assert!(summary.is_right(), "of {seeds} seeds failed: {wrong:?}; what never happened: {not_met:?}");
    assert_eq!(summary.seeds, seeds);
}
