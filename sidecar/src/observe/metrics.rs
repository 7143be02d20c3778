//! Every metric, in one place: its name, its unit, what it says.
//!
//! Gauges and counters are set from a [`Status`] when somebody asks, so that `/metrics` and `/status` cannot differ.
//! Only the histograms are recorded where the thing happens: `metrics::INGEST_SECONDS.record(took)`.
//! `docs/operations.md` lists all of them; a test holds the two together. No metric has row data or a record's key.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::status::Status;

/// A number that only grows while the process lives.
#[derive(Debug)]
pub struct Counter {
    /// The name that Prometheus sees.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
}

/// A number that goes up and down.
#[derive(Debug)]
pub struct Gauge {
    /// The name that Prometheus sees.
    pub name: &'static str,
    /// What it measures.
    pub unit: Unit,
    /// What it says.
    pub help: &'static str,
}

/// Times, sorted into buckets.
#[derive(Debug)]
pub struct Histogram {
    /// The name that Prometheus sees.
    pub name: &'static str,
    /// What was timed.
    pub help: &'static str,
}

impl Histogram {
    /// Records one time.
    pub fn record(&self, took: Duration) {
        histogram!(self.name).record(took.as_secs_f64());
    }
}

macro_rules! metrics {
    ($list:ident: $kind:ident { $($name:ident = $text:literal $([$unit:expr])?, $help:literal;)* }) => {
        $(#[doc = $help] pub static $name: $kind = $kind { name: $text, $(unit: $unit,)? help: $help };)*
        /// All of this kind.
        pub static $list: &[&$kind] = &[$(&$name),*];
    };
}

metrics! { COUNTERS: Counter {
    CAPTURED = "rowcast_captured_total", "Changes of the service that became events.";
    PUBLISHED = "rowcast_published_total", "Events sent to the other nodes.";
    APPLIED = "rowcast_applied_total", "Events of other nodes that were applied.";
    DUPLICATES = "rowcast_duplicates_total", "Events that had come before and changed nothing.";
    CONFLICTS = "rowcast_conflicts_total", "Pairs of concurrent events on one record.";
    PARKED = "rowcast_parked_total", "Events that were stored and could not be applied with their transaction.";
    GAPS_FETCHED = "rowcast_gaps_fetched_total", "Gaps in the events of an origin that were fetched.";
    FORKED = "rowcast_forked_total", "Numbers that some node was found to have given out twice, for different events.";
    RENEWED = "rowcast_renewed_total", "Times that this node went on under a new node id without a restart.";
    VERIFIED = "rowcast_verified_records_total", "Records compared with their own events, and with another node's.";
    DIVERGED = "rowcast_diverged_total", "Records found to differ from their events, or from another node's.";
    REPAIRED = "rowcast_repaired_total", "Damaged records that were mended here.";
    COMPACTED = "rowcast_compacted_total", "Events that nobody needs any more and that were taken out.";
    RECONNECTS = "rowcast_bus_reconnects_total", "Times that the connection to NATS was lost.";
}}

metrics! { GAUGES: Gauge {
    READY = "rowcast_ready" [Unit::Count], "1 when the node is READY, else 0.";
    NOT_READY_REASON = "rowcast_not_ready_reason" [Unit::Count], "1 for each reason why the node is not READY; label code.";
    WARNINGS = "rowcast_warnings" [Unit::Count], "Warnings that the status shows.";
    BUS_CONNECTED = "rowcast_bus_connected" [Unit::Count], "1 when there is a connection to NATS, else 0.";
    DATABASE_BYTES = "rowcast_database_bytes" [Unit::Bytes], "Size of the database file.";
    WAL_BYTES = "rowcast_wal_bytes" [Unit::Bytes], "Size of the database's write-ahead log.";
    JOURNAL_ROWS = "rowcast_journal_rows" [Unit::Count], "Changes of the service that are not yet events.";
    HEAD = "rowcast_head" [Unit::Count], "The node's own highest sequence number.";
    POSITION = "rowcast_position" [Unit::Count], "Sequence number up to which an origin's events are here; label origin.";
    LAG_EVENTS = "rowcast_lag_events" [Unit::Count], "Events of an origin that exist and are not here; label origin.";
    MEMBERS = "rowcast_members" [Unit::Count], "Other nodes that are known.";
    MEMBERS_READY = "rowcast_members_ready" [Unit::Count], "Other nodes that say they are READY.";
    TABLE_EVENTS = "rowcast_table_events" [Unit::Count], "Events kept of a table; label table.";
    TABLE_PARKED = "rowcast_table_parked" [Unit::Count], "Events of a table that are stored but not applied; label table.";
    TABLE_DANGLING = "rowcast_table_dangling" [Unit::Count], "Rows of a table that refer by a foreign key to a row that is not here; label table.";
    UNREPAIRED = "rowcast_diverged_records" [Unit::Count], "Records that are known to be damaged here and are not mended.";
    PARKED_NOW = "rowcast_parked" [Unit::Count], "Events that are stored but not applied; label reason.";
    PROGRESS_DONE = "rowcast_progress_done" [Unit::Count], "How much of a longer work, such as joining, is done.";
    PROGRESS_ALL = "rowcast_progress_all" [Unit::Count], "How much of it there is, as far as is known.";
}}

metrics! { HISTOGRAMS: Histogram {
    INGEST_SECONDS = "rowcast_ingest_seconds", "One ingest: from the journal to hardened events.";
    APPLY_SECONDS = "rowcast_apply_seconds", "One applying transaction.";
    LOCK_SECONDS = "rowcast_lock_seconds", "How long the sidecar held the database's write lock at a time.";
    REPLICATION_SECONDS = "rowcast_replication_seconds", "From a write on another node to its application here, by both clocks.";
    FETCH_SECONDS = "rowcast_fetch_seconds", "One request for missing events, with its answer.";
}}

/// Upper ends of the histograms' buckets in seconds: from a fifth of a millisecond, what an ingest takes, to a minute.
const BUCKETS: [f64; 16] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

/// Hands out what was recorded, as Prometheus reads it.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Starts recording for this process. A process has one recorder; where there is one already, as in tests, what
    /// is recorded goes there and this one shows nothing.
    pub fn install() -> Self {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::debug!("metrics are recorded elsewhere in this process");
        }
        describe();
        Self { handle }
    }

    /// The page of `/metrics`, with the gauges and counters of `status`.
    pub fn render(&self, status: &Status) -> String {
        observe(status);
        // Without it the samples of the histograms would pile up.
        self.handle.run_upkeep();
        self.handle.render()
    }
}

fn builder() -> PrometheusBuilder {
    PrometheusBuilder::new().set_buckets(&BUCKETS).expect("bug: there are buckets")
}

fn describe() {
    for metric in COUNTERS {
        describe_counter!(metric.name, Unit::Count, metric.help);
    }
    for metric in GAUGES {
        describe_gauge!(metric.name, metric.unit, metric.help);
    }
    for metric in HISTOGRAMS {
        describe_histogram!(metric.name, Unit::Seconds, metric.help);
    }
}

/// Sets every gauge and counter from the status.
fn observe(status: &Status) {
    let counters = &status.counters;
    for (metric, value) in [
        (&CAPTURED, counters.captured),
        (&PUBLISHED, counters.published),
        (&APPLIED, counters.applied),
        (&DUPLICATES, counters.duplicates),
        (&CONFLICTS, counters.conflicts),
        (&PARKED, counters.parked),
        (&GAPS_FETCHED, counters.gaps_fetched),
        (&FORKED, counters.forked),
        (&RENEWED, counters.renewed),
        (&VERIFIED, counters.verified),
        (&DIVERGED, counters.diverged),
        (&REPAIRED, counters.repaired),
        (&COMPACTED, counters.compacted),
        (&RECONNECTS, status.bus.reconnects),
    ] {
        counter!(metric.name).absolute(value);
    }
    let ready_members = status.members.iter().filter(|member| member.state == super::status::State::Ready).count();
    let progress = status.progress.as_ref();
    for (metric, value) in [
        (&READY, u64::from(status.is_ready())),
        (&WARNINGS, status.warnings.len() as u64),
        (&BUS_CONNECTED, u64::from(status.bus.connected)),
        (&DATABASE_BYTES, status.database.bytes),
        (&WAL_BYTES, status.database.wal_bytes),
        (&JOURNAL_ROWS, status.database.journal_rows),
        (&HEAD, status.head),
        (&MEMBERS, status.members.len() as u64),
        (&MEMBERS_READY, ready_members as u64),
        (&UNREPAIRED, status.verification.open.len() as u64),
        (&PROGRESS_DONE, progress.map_or(0, |progress| progress.done)),
        (&PROGRESS_ALL, progress.and_then(|progress| progress.total).unwrap_or(0)),
    ] {
        // Prometheus has doubles; past 2^53 a figure is exact enough.
        gauge!(metric.name).set(value as f64);
    }
    for code in super::status::Code::ALL {
        let given = status.reasons.iter().any(|reason| reason.code == *code);
        gauge!(NOT_READY_REASON.name, "code" => code.name()).set(f64::from(u8::from(given)));
    }
    for position in &status.positions {
        let origin = position.origin.to_string();
        gauge!(POSITION.name, "origin" => origin.clone()).set(position.position as f64);
        gauge!(LAG_EVENTS.name, "origin" => origin).set(position.lag() as f64);
    }
    for reason in ["unique", "constraint", "clock", "schema", "size"] {
        let count = status.parked_by_reason.get(reason).copied().unwrap_or(0);
        gauge!(PARKED_NOW.name, "reason" => reason).set(count as f64);
    }
    for table in &status.tables {
        gauge!(TABLE_EVENTS.name, "table" => table.name.clone()).set(table.events as f64);
        gauge!(TABLE_PARKED.name, "table" => table.name.clone()).set(table.parked as f64);
        gauge!(TABLE_DANGLING.name, "table" => table.name.clone()).set(table.dangling as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::troubled;
    use super::*;

    fn names() -> Vec<&'static str> {
        let counters = COUNTERS.iter().map(|metric| metric.name);
        let gauges = GAUGES.iter().map(|metric| metric.name);
        let histograms = HISTOGRAMS.iter().map(|metric| metric.name);
        counters.chain(gauges).chain(histograms).collect()
    }

    #[test]
    fn the_operations_page_lists_every_metric() {
        let page = include_str!("../../../docs/operations.md");
        for name in names() {
            assert!(page.contains(&format!("| `{name}`")), "docs/operations.md does not list {name}");
        }
    }

    #[test]
    fn names_say_what_they_are() {
        assert!(COUNTERS.iter().all(|metric| metric.name.ends_with("_total")));
        assert!(HISTOGRAMS.iter().all(|metric| metric.name.ends_with("_seconds")));
        assert!(names().iter().all(|name| name.starts_with("rowcast_")));
        let mut unique = names();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names().len());
    }

    #[test]
    fn a_status_is_seen_as_prometheus_sees_it() {
        let recorder = builder().build_recorder();
        let metrics = Metrics { handle: recorder.handle() };
        let page = metrics::with_local_recorder(&recorder, || {
            describe();
            for histogram in HISTOGRAMS {
                histogram.record(Duration::from_millis(3));
            }
            metrics.render(&troubled())
        });
        for line in [
            "rowcast_ready 0",
            "rowcast_not_ready_reason{code=\"joining\"} 1",
            "rowcast_not_ready_reason{code=\"gap\"} 0",
            "rowcast_applied_total 4200",
            "rowcast_wal_bytes 4120032",
            "rowcast_lag_events{origin=\"01905f3c-7d2e-7000-8000-000000000001\"} 11407",
            "rowcast_table_parked{table=\"Track\"} 23",
            "rowcast_ingest_seconds_bucket{le=\"0.002\"} 0",
            "rowcast_ingest_seconds_bucket{le=\"0.005\"} 1",
            "# HELP rowcast_head The node's own highest sequence number.",
        ] {
            assert!(page.lines().any(|found| found == line), "no line {line:?} in:\n{page}");
        }
        for name in names() {
            assert!(page.contains(&format!("# TYPE {name} ")), "{name} is never set");
        }
    }
}
