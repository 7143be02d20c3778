//! The simulation as tests: the same seed tells the same story, and many seeds end well.
//!
//! `ROWCAST_SIM_SEEDS` sets how many, `ROWCAST_SIM_FROM` where they begin.

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
    let mut different: Vec<u64> = first.hashes.into_values().collect();
    different.dedup();
    assert_eq!(different.len() as u64, seeds, "other seeds tell other stories");
}

/// What a run has to have met, or it proves nothing.
const MET: [&str; 44] = [
    "announcements lost",
    "answers lost",
    "away for long",
    "backups",
    "became NOT READY",
    "checkpoints",
    "clock drifts",
    "clock far off",
    "clock stepped",
    "cloned",
    "connection lost",
    "databases not taken whole",
    "databases taken whole",
    "disk errors, lasting",
    "disk errors, one",
    "disk full",
    "disk lost",
    "ended by a failed sync",
    "events",
    "events compacted",
    "killed with a database that has come",
    "killed within its work",
    "messages cut off",
    "messages lost",
    "messages repeated",
    "node cut off",
    "node killed",
    "partition, both ways",
    "partition, one way",
    "power cut",
    "records compared between nodes",
    "requests lost",
    "restored",
    "schema, column added",
    "schema, column renamed",
    "schema, column with default added",
    "schema, table rebuilt",
    "sidecar stopped",
    "starts that failed",
    "transactions",
    "transactions that no trigger saw",
    "wake-ups missed",
    "went on under another id",
    "writes lost by power cuts",
];

#[test]
fn nothing_is_lost_nothing_diverges_nothing_gets_stuck() {
    let seeds = number("ROWCAST_SIM_SEEDS", 500);
    let summary = run(number("ROWCAST_SIM_FROM", 0), seeds);
    assert!(summary.is_right(), "{} of {seeds} seeds failed: {:?}", summary.wrong.len(), summary.wrong.keys());
    assert_eq!(summary.seeds, seeds);
    if seeds >= 100 {
        for fault in MET {
            assert!(summary.counts.get(fault).is_some_and(|times| *times > 0), "{fault}: never happened");
        }
    }
}
