//! The state of a node as a value: what `/status` answers and what `rowcast status` shows.
//!
//! The node makes a new [`Status`] when something changed and sends it through a `watch` channel; readiness, metrics
//! and the page are functions of it. What it looks like for people is in [`page`]; it holds no row data.

mod page;
mod reason;
mod verification;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use reason::{Code, Reason};
pub use verification::{Divergence, FOUND_LISTED_MAX, Report, Verification, Verified};

/// The most parked records that a status lists; their count is in [`Counters`] and [`Table`].
pub const PARKED_LISTED_MAX: usize = 20;

/// Whether the service's reads may be served from this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Everything that is known to exist is here.
    Ready,
    /// Something is missing or in doubt; the reasons say what.
    #[default]
    NotReady,
}

/// Everything worth knowing about a node, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's human name.
    pub node: String,
    /// The node's id; not known before the database is open.
    pub node_id: Option<Uuid>,
    /// The service it belongs to.
    pub service: String,
    /// The version of Rowcast.
    pub version: String,
    /// READY or not.
    pub state: State,
    /// Why it is not READY, the most important first; empty when it is.
    pub reasons: Vec<Reason>,
    /// What somebody should look at, though the node is working. One sentence each.
    pub warnings: Vec<String>,
    /// How far a longer work, such as joining, has come.
    pub progress: Option<Progress>,
    /// The connection to NATS.
    pub bus: Bus,
    /// The database.
    pub database: Database,
    /// The node's own highest sequence number.
    pub head: u64,
    /// How far this node is with the events of each origin, itself included.
    pub positions: Vec<Position>,
    /// The other nodes.
    pub members: Vec<Member>,
    /// The replicated tables.
    pub tables: Vec<Table>,
    /// What happened since this process started.
    pub counters: Counters,
    /// How many events are stored but not applied, by reason: `unique`, `constraint`, `clock`, `schema`, `size`.
    pub parked_by_reason: BTreeMap<String, u64>,
    /// Events that are stored but not applied: the first [`PARKED_LISTED_MAX`].
    pub parked: Vec<Parked>,
    /// What comparing with the other nodes has found.
    pub verification: Verification,
}

impl Status {
    /// A node that has only begun to start.
    pub fn starting(node: &str, service: &str) -> Self {
        Self {
            node: node.to_owned(),
            service: service.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reasons: vec![Reason::new(Code::Starting, "the sidecar is starting")],
            ..Self::default()
        }
    }

    /// Whether it is READY.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Events that are known to exist and are not applied here, over all origins.
    pub fn lag_events(&self) -> u64 {
        self.positions.iter().map(Position::lag).sum()
    }

    /// Sets the reasons, and with them the state: READY is to have none.
    pub fn set_reasons(&mut self, reasons: Vec<Reason>) {
        self.state = if reasons.is_empty() { State::Ready } else { State::NotReady };
        self.reasons = reasons;
    }
}

/// How far a longer work has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, with its unit: `events from node a`.
    pub what: String,
    /// How much is done.
    pub done: u64,
    /// How much there is, when it is known.
    pub total: Option<u64>,
    /// How long it will still take, when that can be told.
    pub eta_seconds: Option<u64>,
}

/// The connection to NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bus {
    /// There is a connection now.
    pub connected: bool,
    /// The server's address, without secrets.
    pub server: Option<String>,
    /// How often the connection was lost since this process started.
    pub reconnects: u64,
}

/// The service's database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The file.
    pub path: PathBuf,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The size of its write-ahead log in bytes.
    pub wal_bytes: u64,
    /// Changes of the service that are not yet events.
    pub journal_rows: u64,
}

/// How far this node is with one origin's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The origin's name, when a member of that id has told it.
    pub node: Option<String>,
    /// The origin.
    pub origin: Uuid,
    /// The sequence number up to which everything is here.
    pub position: u64,
    /// The highest sequence number of that origin that anybody has told of.
    pub known: u64,
}

impl Position {
    /// Events of this origin that exist and are not here.
    pub fn lag(&self) -> u64 {
        self.known.saturating_sub(self.position)
    }
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its human name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// What it said of itself.
    pub state: State,
    /// How long ago it was last heard.
    pub seen_seconds_ago: f64,
    /// Its position vector.
    pub position: BTreeMap<Uuid, u64>,
    /// It declares the same schema.
    pub schema_matches: bool,
}

/// A replicated table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Where its changes come from: `triggers` or `events`.
    pub capture: String,
    /// Events that are kept.
    pub events: u64,
    /// Events that are stored but not applied.
    pub parked: u64,
    /// Rows that refer by a foreign key to a row that is not here, as the last comparison found them.
    pub dangling: u64,
    /// Columns that the table has on another node and here not yet: what events say of them waits.
    pub missing_columns: Vec<String>,
    /// The sets of columns that it has or had on any node, as far as they are known here; at most 50.
    pub layouts: Vec<Layout>,
}

/// The columns of a table on some node, at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Its number, as in the column `layout` of the event tables. It is the same on every node.
    pub layout: String,
    /// The nodes whose table has it now, as far as they were heard.
    pub nodes: Vec<String>,
    /// Its columns that the table here never had: a migration that has not reached this node.
    pub missing_columns: Vec<String>,
}

/// What happened since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Changes of the service that became events.
    pub captured: u64,
    /// Events sent to the others.
    pub published: u64,
    /// Events of other nodes that were applied.
    pub applied: u64,
    /// Events that had come before, and changed nothing.
    pub duplicates: u64,
    /// Pairs of concurrent events on one record.
    pub conflicts: u64,
    /// Events that were parked.
    pub parked: u64,
    /// Gaps that were fetched.
    pub gaps_fetched: u64,
    /// Numbers that some node was found to have given out twice.
    pub forked: u64,
    /// Times that this node went on under a new id.
    pub renewed: u64,
    /// Records that were compared with their own events, and with another node's.
    pub verified: u64,
    /// Records that were found to diverge.
    pub diverged: u64,
    /// Records that were mended here.
    pub repaired: u64,
    /// Events that were compacted.
    pub compacted: u64,
}

/// An event that is stored but not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The event's id.
    pub event: String,
    /// The table.
    pub table: String,
    /// The record's key, as canonical text.
    pub record: String,
    /// Why it cannot be applied.
    pub reason: String,
}

#[cfg(test)]
#[path = "status/tests.rs"]
pub(crate) mod tests;
