//! How long a write takes to be visible on the other node, at 200 single writes a second, by turns with the hop that is
//! its floor at the same pace; and at 20, where each one finds everything asleep. B's file is read by key every 0.3 ms.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rowcast_tests::Node;
use rusqlite::{Connection, params};

use crate::bench::Bench;
use crate::figures::Measured;
use crate::floors::Hop;
use crate::replica::{self, BOUND};
use crate::service::{Service, paced};
use crate::stats::{Samples, ms};
use crate::w0::{self, Row};

/// Between two looks at B's file.
const POLL: Duration = Duration::from_micros(300);
/// Rows that may be on their way at once: at 200 a second half a minute of them.
const ON_THE_WAY: usize = 6_000;
const PER_SECOND: u32 = 200;
const WRITES: u64 = 500;
const PER_SECOND_SLOW: u32 = 20;
const WRITES_SLOW: u64 = 50;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let folder = bench.folder();
    let cluster = replica::cluster(&bench.nats, 10_000, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let mut hop = Hop::new(&bench.nats, folder.path());
    let (mut own, mut floor) = (Samples::default(), Samples::default());
    let mut at = 10_000;
    let writes = if bench.is_short() { WRITES / 4 } else { WRITES };
    for round in 0..=bench.rounds(5) {
        let rows = w0::rows(at..at + writes);
        at += writes;
        let mut of_floor = Vec::new();
        let mut unused = w0::rows(at * 1_000..at * 1_000 + writes / 2).into_iter();
        paced(PER_SECOND, unused.len(), |_| of_floor.extend(unused.next().map(|row| ms(hop.carry(&row)))));
        let of_own = carried(&a, &b, &rows, PER_SECOND);
        if round > 0 {
            floor.round(of_floor);
            own.round(of_own);
        }
    }
    let mut slow = Samples::default();
    for round in 0..=bench.rounds(3) {
        let rows = w0::rows(at..at + WRITES_SLOW);
        at += WRITES_SLOW;
        let times = carried(&a, &b, &rows, PER_SECOND_SLOW);
        if round > 0 {
            slow.round(times);
        }
    }
    replica::same(&a, &b);
    let (median, hop) = (own.median(), floor.median());
    bench.note(format!("the hop: median {:.3} ms, 99th percentile {:.3} ms", hop.value, floor.percentile(99.0).value));
    vec![
        Measured::beside("latency_p50_ms", median.clone(), &hop),
        Measured::beside("latency_p99_ms", own.percentile(99.0), &floor.percentile(99.0)),
        Measured::new("latency_over_hop_ratio", median.over(&hop)),
        Measured::new("latency_slow_p50_ms", slow.median()),
        Measured::new("latency_slow_p99_ms", slow.percentile(99.0)),
    ]
}

/// Writes rows on `a` at a pace; gives for each the time from the start of its write until it is in `b`'s file, in ms.
pub fn carried(a: &Node, b: &Node, rows: &[Row], per_second: u32) -> Vec<f64> {
    let service = Service::of(a);
    carried_by(b, &w0::items(), rows, per_second, |row, table| service.single_into(row, table))
}

/// As [`carried`], by what `write` does, to `tables` in turn.
pub fn carried_by(b: &Node, tables: &[String], rows: &[Row], per_second: u32, write: impl Fn(&Row, &str)) -> Vec<f64> {
    let (sender, receiver) = sync_channel(ON_THE_WAY);
    let mut sent = rows.iter().zip(tables.iter().cycle());
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(b, receiver));
        paced(per_second, rows.len(), |_| {
            let (row, table) = sent.next().expect("bug: one call a row");
            sender.send(Written { row, table, start: Instant::now() }).expect("the watch on the replica has ended");
            write(row, table);
        });
        drop(sender);
        watching.join().expect("the watch on the replica failed")
    })
}

/// A row that is on its way.
struct Written<'a> {
    row: &'a Row,
    table: &'a str,
    start: Instant,
}

/// The times until each row was seen, in ms. Rows of one writer arrive in their order.
fn watch(b: &Node, rows: Receiver<Written<'_>>) -> Vec<f64> {
    let connection = b.service();
    let mut times = Vec::new();
    let mut waiting: VecDeque<Written<'_>> = VecDeque::new();
    let mut next_look = Instant::now();
    loop {
        if waiting.is_empty() {
            match rows.recv_timeout(BOUND) {
                Ok(written) => waiting.push_back(written),
                Err(RecvTimeoutError::Disconnected) => return times,
                Err(RecvTimeoutError::Timeout) => panic!("nothing was written for {BOUND:?}"),
            }
        }
        waiting.extend(rows.try_iter());
        while waiting.front().is_some_and(|written| seen(&connection, written)) {
            times.extend(waiting.pop_front().map(|written| ms(written.start.elapsed())));
        }
        if let Some(Written { row, start, .. }) = waiting.front() {
            assert!(start.elapsed() < BOUND, "the row {} never arrived", row.id);
        }
        next_look = (next_look + POLL).max(Instant::now());
        thread::sleep(next_look.saturating_duration_since(Instant::now()));
    }
}

/// Whether the row is there, with the right values.
fn seen(connection: &Connection, Written { row, table, .. }: &Written<'_>) -> bool {
    let sql = format!(
        "SELECT 1 FROM {table} WHERE id = ?1 AND name = ?2 AND email = ?3 AND qty = ?4 AND price = ?5 AND note = ?6"
    );
    let cells = params![row.id, row.name, row.email, row.qty, row.price, row.note];
    connection.prepare_cached(&sql).unwrap().exists(cells).unwrap()
}
