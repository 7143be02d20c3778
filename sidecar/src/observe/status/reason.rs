//! Why a node is not READY: a closed set, so that a machine can tell them apart, each with what to do about it.
//!
//! `docs/operations.md` explains every one; a test holds the two together.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One reason, for people and machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Which of the known reasons it is.
    pub code: Code,
    /// What is the case here, with names and numbers.
    pub text: String,
    /// What to do about it.
    pub hint: String,
}

impl Reason {
    /// A reason with the usual hint of its code.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), hint: code.hint().to_owned() }
    }

    /// The same with a hint that fits better.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// The known reasons. They are part of the contract of `/readyz`: a name never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The process has begun and has not looked yet; others have answered, and it begins in a moment to load from them; or it is
    /// the first node, and makes events of its rows.
    Starting,
    /// The process was told to stop.
    Stopping,
    /// There is nobody to load from: nobody answered (perhaps nobody is there, perhaps they are not heard), or none of those
    /// that did is READY.
    NoPeerAnswered,
    /// The node's tables are being loaded from another node.
    Joining,
    /// Everything is loaded, and the newest events are still to come.
    Behind,
    /// Events are known to exist that no member has handed over yet.
    Gap,
    /// The database's tables do not fit the schema TOML.
    Schema,
    /// SQLite or the disk refuses.
    Storage,
    /// A migration has been running for long under `rowcast migrate`: meanwhile nothing is captured or applied.
    Capture,
    /// Somebody else speaks under this node's id, others know more events of it than it has itself or others under the same
    /// numbers, or the others have expelled it.
    Identity,
    /// There is no connection to NATS.
    Bus,
    /// This machine's clock and those of the others are too far apart.
    Clock,
    /// Rows or events here are known to be damaged, and could not be mended.
    Diverged,
    /// The node's loop has stopped turning, so nothing that it last said is certain.
    Stuck,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: &[Self] = &[
        Self::Starting,
        Self::Stopping,
        Self::NoPeerAnswered,
        Self::Joining,
        Self::Behind,
        Self::Gap,
        Self::Schema,
        Self::Storage,
        Self::Capture,
        Self::Identity,
        Self::Bus,
        Self::Clock,
        Self::Diverged,
        Self::Stuck,
    ];

    /// The code as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::NoPeerAnswered => "no_peer_answered",
            Self::Joining => "joining",
            Self::Behind => "behind",
            Self::Gap => "gap",
            Self::Schema => "schema",
            Self::Storage => "storage",
            Self::Capture => "capture",
            Self::Identity => "identity",
            Self::Bus => "bus",
            Self::Clock => "clock",
            Self::Diverged => "diverged",
            Self::Stuck => "stuck",
        }
    }

    /// What to do about it, where nothing more exact is known.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Starting => "wait; if it stays so for a minute, read the sidecar's log",
            Self::Stopping => "wait; the sidecar is on its way out",
            Self::NoPeerAnswered => {
                "start another node of this service, or check that both use the same NATS and service name; \
                 only if this is the very first node, start it once with --first"
            }
            Self::Joining => "wait; the progress says how far it is",
            Self::Behind => "wait; it is READY when the lag is gone",
            Self::Gap => "bring back the node that has the missing events; `rowcast status` names it",
            Self::Schema => "run the migration on this node or ship the same schema TOML to all; `rowcast check` tells",
            Self::Storage => "look at the disk: free space, permissions, health; Rowcast resumes by itself",
            Self::Capture => "wait for the migration, or end it; what is written meanwhile is found afterwards",
            Self::Identity => {
                "wait: it takes a new node id by itself and loses nothing; then find out who copied or restored the database, or \
                 started a second sidecar on a copy"
            }
            Self::Bus => "check that nats-server runs and that the address and login are right: `rowcast check`",
            Self::Clock => "set this machine's clock (NTP), then wait",
            Self::Diverged => {
                "look at what `rowcast status` lists; `rowcast verify --repair` mends more than is mended by itself"
            }
            Self::Stuck => "restart the sidecar; nothing is lost by that",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_json_under_its_name_and_is_in_the_list() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            assert!(!code.hint().is_empty());
        }
        // A code that was forgotten in ALL has no place between its neighbours.
        assert!(Code::ALL.windows(2).all(|pair| (pair[0] as usize) + 1 == pair[1] as usize));
        assert_eq!(Code::ALL.len(), Code::Stuck as usize + 1);
    }

    #[test]
    fn the_operations_page_explains_every_code() {
        let page = include_str!("../../../../docs/operations.md");
        for code in Code::ALL {
            assert!(page.contains(&format!("### `{code}`")), "docs/operations.md has no section for `{code}`");
        }
    }
}
