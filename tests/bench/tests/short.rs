//! The bench in its short form, as a test: it fails on what cannot be noise.

use std::process::Command;
use std::time::Duration;

use rowcast_tests::eventually::within;
use rowcast_tests::process::{Process, tail};

#[test]
fn a_short_run_finds_no_ratio_far_off_and_no_memory_without_bound() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowcast-bench"));
    command.args(["--short", "--output"]).arg(folder.path());
    let mut bench = Process::spawn("rowcast-bench", command, &log);
    let ended = within(Duration::from_secs(600), "the bench ends", || bench.ended().ok_or_else(|| tail(&log, 4_000)));
    let said = tail(&log, 1 << 20);
    println!("{said}");
    assert!(ended.success(), "{ended}\n{said}");
}
