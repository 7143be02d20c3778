//! What happened, one line an event: for who has to understand a failure, and as a number, to compare two runs.

use std::collections::BTreeMap;
use std::fmt;

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Story {
    lines: Option<Vec<String>>,
    hash: u64,
    /// How often each kind of fault, and each thing worth counting, happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Story {
    /// Keeps the lines, not only their number, when asked to.
    pub fn new(keep: bool) -> Self {
        Self { lines: keep.then(Vec::new), hash: 0xcbf2_9ce4_8422_2325, counts: BTreeMap::new() }
    }

    /// One event, at a time in microseconds.
    pub fn tell(&mut self, now: u64, text: fmt::Arguments<'_>) {
        let line = format!("{:>10}.{:06} {text}", now / 1_000_000, now % 1_000_000);
        for &byte in line.as_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts several.
    pub fn add(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// The number that two equal stories share (FNV-1a).
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, when they were kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
