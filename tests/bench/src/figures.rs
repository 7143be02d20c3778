//! The figures by name, each with its group, its unit and its goal. What is not named here cannot be reported.

use crate::stats::Value;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// It is only shown.
    None,
}

use Goal::{AtLeast, AtMost};

impl Goal {
    /// Whether `value` meets it; nothing to meet is met.
    pub fn met(self, value: f64) -> bool {
        self.missed_by(value) <= 1.0
    }

    /// How many times `value` is off: 1 and less when it is met.
    pub fn missed_by(self, value: f64) -> f64 {
        match self {
            AtMost(0.0) => {
                if value <= 0.0 {
                    1.0
                } else {
                    f64::INFINITY
                }
            }
            AtMost(goal) => value / goal,
            AtLeast(goal) => goal / value,
            Goal::None => 1.0,
        }
    }
}

/// A figure.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in `summary.json`.
    pub name: &'static str,
    /// The group that measures it: `just bench GROUP`.
    pub group: &'static str,
    /// What is to be reached.
    pub goal: Goal,
    /// What is measured, and in which unit.
    pub what: &'static str,
}

const fn figure(name: &'static str, group: &'static str, goal: Goal, what: &'static str) -> Figure {
    Figure { name, group, goal, what }
}

/// Every figure, in the order of the table.
pub const FIGURES: &[Figure] = &[
    figure(
        "write_cost_single_ratio",
        "cost",
        AtMost(1.7),
        "median time of the service's single-row transaction, over plain SQLite",
    ),
    figure("write_cost_batch100_ratio", "cost", AtMost(1.8), "the same in transactions of 100 rows"),
    figure("write_mean_ratio", "load", AtMost(1.7), "mean time of a write at 500 writes/s, over plain SQLite"),
    figure("write_p99_ratio", "load", AtMost(1.5), "99th percentile of the same, over plain SQLite"),
    figure("write_lag_max_ms", "load", AtMost(1_000.0), "the furthest that the other node was behind meanwhile, ms"),
    figure(
        "latency_p50_ms",
        "latency",
        AtMost(1.0),
        "from the start of a write on A to the row in B's file, 200 writes/s, median, ms",
    ),
    figure("latency_p99_ms", "latency", AtMost(4.0), "the same, 99th percentile, ms"),
    figure(
        "latency_over_hop_ratio",
        "latency",
        AtMost(2.5),
        "its median over: commit with fdatasync, one NATS hop, commit",
    ),
    figure("latency_slow_p50_ms", "latency", Goal::None, "the same as the first at 20 writes/s, median, ms"),
    figure("latency_slow_p99_ms", "latency", Goal::None, "the same, 99th percentile, ms"),
    figure(
        "throughput_batch100_rows_s",
        "throughput",
        AtLeast(25_000.0),
        "100,000 rows in 100s, from the first write until all are on B, rows/s",
    ),
    figure("throughput_over_service", "throughput", AtLeast(0.45), "the same over what the service commits alone"),
    figure(
        "throughput_single_rows_s",
        "throughput",
        AtLeast(10_000.0),
        "100,000 rows one by one, from the first write until all are on B, rows/s",
    ),
    figure("throughput_single_over_service", "throughput", Goal::None, "the same over what the service commits alone"),
    figure(
        "throughput_single8_rows_s",
        "throughput",
        Goal::None,
        "20,000 rows one by one on eight connections at once, from the first write until all are on B, rows/s",
    ),
    figure("throughput_single8_over_service", "throughput", Goal::None, "the same over what the service commits alone"),
    figure("throughput_batch100_3nodes_rows_s", "throughput3", Goal::None, "in 100s, until all are on B and C, rows/s"),
    figure("throughput_over_service_3nodes", "throughput3", Goal::None, "the same over what the service commits alone"),
    figure(
        "throughput_single_3nodes_rows_s",
        "throughput3",
        Goal::None,
        "one by one, until all are on B and C, rows/s",
    ),
    figure(
        "throughput_single_over_service_3nodes",
        "throughput3",
        Goal::None,
        "the same over what the service commits alone",
    ),
    figure(
        "catchup_rows_s",
        "catchup",
        AtLeast(40_000.0),
        "B was away for 200,000 rows: from its start until it has all, rows/s",
    ),
    figure(
        "catchup_over_floor",
        "catchup",
        AtLeast(0.6),
        "the same over one writer that applies the same rows and events from memory",
    ),
    figure(
        "write_p99_during_catchup_ms",
        "catchup",
        AtMost(10.0),
        "99th percentile of B's service's writes meanwhile, up to 200 writes/s, ms",
    ),
    figure(
        "bootstrap_231k_s",
        "bootstrap231k",
        AtMost(1.5),
        "231,200 rows into a node without a database file, from start to READY, s",
    ),
    figure(
        "bootstrap_231k_over_copy",
        "bootstrap231k",
        AtMost(3.0),
        "the same over a copy of the file with fsync plus VACUUM INTO",
    ),
    figure(
        "latency_events_p50_ms",
        "events",
        Goal::None,
        "latency with capture = \"events\": from the start of the write, median, ms",
    ),
    figure(
        "fanout10_converge_s",
        "fanout",
        AtMost(5.0),
        "10,000 rows in 100s, from the first write until all are on ten other nodes, s",
    ),
    figure(
        "rss_backlog_mb",
        "million",
        AtMost(64.0),
        "most memory of any sidecar with a backlog of a million rows, MB",
    ),
    figure(
        "bootstrap_rows_s",
        "million",
        AtLeast(80_000.0),
        "a million rows into a node with an empty table, from start to READY, rows/s",
    ),
    figure(
        "bootstrap_over_floor",
        "million",
        AtLeast(0.6),
        "the same over one writer's bulk insert of the same rows and events",
    ),
    figure("chinook_rows_s", "chinook", Goal::None, "orders of six rows in Chinook, until all are on B, rows/s"),
    figure("chinook_over_service", "chinook", Goal::None, "the same over what the service commits alone"),
    figure("chinook_write_cost_ratio", "chinook", Goal::None, "median time of such an order, over plain SQLite"),
    figure(
        "growth_10k_rows_throughput_rows_s",
        "growth",
        Goal::None,
        "20,000 rows in 100s, until all are on B, with 10,000 rows in the table, rows/s",
    ),
    figure(
        "growth_10k_rows_latency_p50_ms",
        "growth",
        Goal::None,
        "latency at 200 writes/s, median, with 10,000 rows in the table, ms",
    ),
    figure(
        "growth_1m_rows_throughput_rows_s",
        "million",
        Goal::None,
        "20,000 rows in 100s, until all are on B, with a million rows in the table, rows/s",
    ),
    figure(
        "growth_1m_rows_latency_p50_ms",
        "million",
        Goal::None,
        "latency at 200 writes/s, median, with a million rows in the table, ms",
    ),
    figure(
        "growth_5m_rows_throughput_rows_s",
        "giant",
        Goal::None,
        "20,000 rows in 100s, until all are on B, with five million rows in the table, rows/s",
    ),
    figure(
        "growth_5m_rows_latency_p50_ms",
        "giant",
        Goal::None,
        "latency at 200 writes/s, median, with five million rows in the table, ms",
    ),
    figure(
        "growth_1_table_throughput_rows_s",
        "tables",
        Goal::None,
        "20,000 rows in 100s, until all are on B, with one table, rows/s",
    ),
    figure(
        "growth_1_table_latency_p50_ms",
        "tables",
        Goal::None,
        "latency at 200 writes/s, median, with one table, ms",
    ),
    figure(
        "growth_10_tables_throughput_rows_s",
        "tables",
        Goal::None,
        "20,000 rows in 100s, until all are on B, with 10 tables, rows/s",
    ),
    figure(
        "growth_10_tables_latency_p50_ms",
        "tables",
        Goal::None,
        "latency at 200 writes/s, median, with 10 tables, ms",
    ),
    figure(
        "growth_100_tables_throughput_rows_s",
        "tables",
        Goal::None,
        "20,000 rows in 100s, until all are on B, with 100 tables, rows/s",
    ),
    figure(
        "growth_100_tables_latency_p50_ms",
        "tables",
        Goal::None,
        "latency at 200 writes/s, median, with 100 tables, ms",
    ),
    figure("rss_idle_mb", "idle", AtMost(20.0), "memory of an idle sidecar, two nodes with 10,000 rows, MB"),
    figure("cpu_idle_percent", "idle", AtMost(0.5), "processor time of an idle sidecar, percent of one core"),
    figure("disk_bytes_per_event", "idle", Goal::None, "what an event adds to B's file beside its row, bytes"),
    figure("service_busy_errors", "", AtMost(0.0), "writes of services that failed as busy, in the whole run"),
];

/// The figure of that name.
pub fn by_name(name: &str) -> &'static Figure {
    FIGURES.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("bug: {name} is no figure"))
}

/// A figure that was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which.
    pub figure: &'static Figure,
    /// What was found, with the rounds.
    pub value: Value,
    /// The floor beside it, where there is one, in the figure's own unit (of a ratio: what it is a ratio to).
    pub floor: Option<Value>,
}

impl Measured {
    /// A figure without a floor.
    pub fn new(name: &str, value: Value) -> Self {
        Self { figure: by_name(name), value, floor: None }
    }

    /// A figure beside its floor.
    pub fn beside(name: &str, value: Value, floor: &Value) -> Self {
        Self { floor: Some(floor.clone()), ..Self::new(name, value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_met_or_missed_by_a_factor() {
        assert!(AtMost(2.0).met(2.0) && !AtMost(2.0).met(2.1));
        assert!(AtLeast(0.6).met(0.6) && !AtLeast(0.6).met(0.5));
        assert!(AtMost(0.0).met(0.0) && !AtMost(0.0).met(1.0));
        assert_eq!(AtLeast(30.0).missed_by(10.0), 3.0);
        assert_eq!(Goal::None.missed_by(1e9), 1.0);
    }

    #[test]
    fn no_name_is_taken_twice() {
        let names: std::collections::BTreeSet<&str> = FIGURES.iter().map(|figure| figure.name).collect();
        assert_eq!(names.len(), FIGURES.len());
    }
}
