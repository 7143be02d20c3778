//! The groups of figures, one module each. A group starts what it needs, measures in rounds that alternate with those
//! of its floor, and leaves nothing behind.

pub mod bootstrap;
pub mod catchup;
pub mod chinook;
pub mod cost;
pub mod events;
pub mod fanout;
pub mod growth;
pub mod idle;
pub mod latency;
pub mod load;
pub mod million;
pub mod throughput;

use crate::bench::Bench;
use crate::figures::Measured;

/// Figures that are measured together.
pub struct Group {
    /// What `just bench` calls it.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// Whether a short run takes it, when no group is named.
    pub in_short: bool,
    /// Measures.
    pub run: fn(&Bench) -> Vec<Measured>,
}

const fn group(name: &'static str, about: &'static str, run: fn(&Bench) -> Vec<Measured>) -> Group {
    Group { name, about, in_short: true, run }
}

const fn long(name: &'static str, about: &'static str, run: fn(&Bench) -> Vec<Measured>) -> Group {
    Group { in_short: false, ..group(name, about, run) }
}

/// Every group, in the order in which a whole run takes them.
pub const GROUPS: &[Group] = &[
    group("cost", "what a write costs the service, one after the other without a pause", cost::run),
    group("load", "what a write costs the service at 500 writes a second", load::run),
    group("latency", "how long a write takes to be visible on the other node", latency::run),
    group("throughput", "how many rows a second reach the other node", throughput::two_nodes),
    long("throughput3", "how many rows a second reach two other nodes", throughput::three_nodes),
    group("catchup", "a node that was away", catchup::run),
    group("bootstrap231k", "a node that has no database file", bootstrap::without_a_file),
    long("events", "how long it takes when the service announces its changes", events::run),
    long("fanout", "ten other nodes on this machine", fanout::run),
    long("million", "a million rows: as a backlog, in the table, and into an empty node", million::run),
    long("growth", "10,000 rows in the table, beside the million", growth::few_rows),
    long("tables", "1, 10 and 100 tables", growth::tables),
    long("chinook", "orders in Chinook", chinook::run),
    group("idle", "a sidecar that has nothing to do, and the size of the file", idle::run),
];
