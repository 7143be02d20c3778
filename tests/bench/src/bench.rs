//! What a run has: its nats-server, how much is measured, and what is said on the way.

use std::cell::RefCell;

use rowcast_tests::NatsServer;
use tempfile::TempDir;

use crate::replica::memory_mb;

/// A run.
pub struct Bench {
    /// The nats-server of this run.
    pub nats: NatsServer,
    short: bool,
    notes: RefCell<Vec<String>>,
}

impl Bench {
    /// Starts the nats-server. A short run measures less: enough to see what is wrong by a factor.
    pub fn start(short: bool) -> Self {
        Self { nats: NatsServer::start(), short, notes: RefCell::default() }
    }

    /// Rounds, of so many in a whole run.
    pub fn rounds(&self, whole: usize) -> usize {
        if self.short { whole.min(2) } else { whole }
    }

    /// Rows (or samples), of so many in a whole run.
    pub fn rows(&self, whole: u64) -> u64 {
        if self.short { whole / 20 } else { whole }
    }

    /// Whether this is a short run.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// A place for the files of a floor: beside those of the nodes, on the same disk.
    pub fn folder(&self) -> TempDir {
        TempDir::with_prefix("rowcast-bench-").unwrap()
    }

    /// Says something that is no figure.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        eprintln!("    {text}");
        self.notes.borrow_mut().push(text);
    }

    /// Notes the most memory that sidecars and the nats-server took so far, and the sizes of their files.
    pub fn note_sizes(&self, nodes: &[&rowcast_tests::Node]) {
        let mut parts = vec![format!("nats-server {:.0} MB", memory_mb(self.nats.id(), "VmHWM"))];
        for node in nodes {
            #[expect(clippy::cast_precision_loss, reason = "a file's size")]
            let file = crate::replica::file_bytes(node.database()) as f64 / 1e6;
            parts.push(format!("{}: {:.0} MB, file {file:.0} MB", node.name(), memory_mb(node.id(), "VmHWM")));
        }
        self.note(format!("peak memory and files: {}", parts.join("; ")));
    }

    /// What was said.
    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }
}
