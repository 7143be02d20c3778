//! The groups of figures, one module each. A group starts what it needs, measures in rounds that alternate with those
//! of its floor, and leaves nothing behind.

pub mod bootstrap;
pub mod catchup;
pub mod chinook;
pub mod cost;
pub mod events;
pub mod fanout;
pub mod giant;
pub mod growth;
pub mod idle;
pub mod latency;
pub mod load;
pub mod million;
pub mod throughput;

use crate::bench::Bench;
use crate::figures::Measured;

/// Figures that are measured together.
#[derive(Clone, Copy)]
pub struct Group {
    /// What `just bench` calls it.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// Measures.
    pub run: fn(&Bench) -> Vec<Measured>,
    /// Whether a short run takes it, when no group is named.
    pub in_short: bool,
    /// Whether a whole run leaves it out when it has taken long already.
    pub may_wait: bool,
}

const fn group(name: &'static str, about: &'static str, run: fn(&Bench) -> Vec<Measured>) -> Group {
    Group { name, about, run, in_short: false, may_wait: false }
}

impl Group {
    const fn in_short(self) -> Self {
        Self { in_short: true, ..self }
    }

    const fn may_wait(self) -> Self {
        Self { may_wait: true, ..self }
    }
}

/// Every group, in the order in which a whole run takes them.
pub const GROUPS: &[Group] = &[
    group("cost", "what a write costs the service, one after the other without a pause", cost::run).in_short(),
    group("load", "what a write costs the service at 500 writes a second", load::run),
    group("latency", "how long a write takes to be visible on the other node", latency::run).in_short(),
    group("events", "how long it takes when the service announces its changes", events::run),
    group("throughput", "how many rows a second reach the other node", throughput::two_nodes).in_short(),
    group("throughput3", "how many rows a second reach two other nodes", throughput::three_nodes),
    group("catchup", "a node that was away", catchup::run).in_short(),
    group("bootstrap231k", "a node that has no database file", bootstrap::without_a_file),
    group("fanout", "ten other nodes on this machine", fanout::run),
    group("idle", "a sidecar that has nothing to do, and the size of the file", idle::run).in_short(),
    group("chinook", "orders in Chinook", chinook::run),
    group("tables", "1, 10 and 100 tables", growth::tables),
    group("growth", "10,000 rows in the table, beside the million", growth::few_rows),
    group("million", "a million rows: as a backlog, in the table, and into an empty node", million::run).in_short(),
    group("giant", "five million rows in the table", giant::run).may_wait(),
];
