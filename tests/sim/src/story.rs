//! What happened, one line an event: for who has to understand a failure, and as a number, to compare two runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Story {
    lines: Option<Vec<String>>,
    hash: u64,
    folder: String,
    /// How often each kind of fault, and each thing worth counting, happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Story {
    /// Keeps the lines, not only their number, when asked to. The folder has another name in each run, and is left out.
    pub fn new(keep: bool, folder: &Path) -> Self {
        let folder = folder.display().to_string();
        Self { lines: keep.then(Vec::new), hash: 0xcbf2_9ce4_8422_2325, folder, counts: BTreeMap::new() }
    }

    /// One event, at a time in microseconds.
    pub fn tell(&mut self, now: u64, text: fmt::Arguments<'_>) {
        let line = format!("{:>10}.{:06} {text}", now / 1_000_000, now % 1_000_000);
        let line = if line.contains(&self.folder) { line.replace(&self.folder, "") } else { line };
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
