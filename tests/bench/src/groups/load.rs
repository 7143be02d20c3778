//! What a write costs the service at 500 writes a second, over plain SQLite at the same pace, while somebody looks
//! how far the other node is behind: a sidecar that dozes does not win.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rowcast_tests::{Node, meanwhile};

use crate::bench::Bench;
use crate::beside::Beside;
use crate::figures::Measured;
use crate::replica::{self, Watch};
use crate::service::{Service, paced};
use crate::stats::{Samples, ms, whole};
use crate::w0;

const FILLED: u64 = 20_000;
const PER_SECOND: u32 = 500;
/// Two seconds.
const WRITES: usize = 1_000;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let beside = Beside::start(bench, FILLED);
    let Beside { plain, service, watch, a, b, .. } = &beside;
    let (mut own, mut floor, mut lag) = (Samples::default(), Samples::default(), Samples::default());
    let mut at = FILLED;
    for round in 0..=bench.rounds(5) {
        let rows = w0::rows(at..at + whole(WRITES));
        let of_plain = write(plain, &rows, |_| ());
        let (of_own, behind) = write_and_watch(service, &rows, b, at);
        at += whole(WRITES);
        watch.until(at);
        if round > 0 {
            floor.round(of_plain);
            own.round(of_own);
            lag.single(ms(behind));
        }
    }
    replica::same(a, b);
    bench.note(format!(
        "a write at 500 a second: mean {:.3} ms, plain {:.3} ms; 99th percentile {:.3} ms, plain {:.3} ms",
        own.mean().value,
        floor.mean().value,
        own.percentile(99.0).value,
        floor.percentile(99.0).value
    ));
    vec![
        Measured::new("write_mean_ratio", own.mean().over(&floor.mean())),
        Measured::new("write_p99_ratio", own.percentile(99.0).over(&floor.percentile(99.0))),
        Measured::new("write_lag_max_ms", lag.max()),
    ]
}

fn write(service: &Service, rows: &[w0::Row], mut written: impl FnMut(Instant)) -> Vec<f64> {
    let mut times = Vec::with_capacity(rows.len());
    let mut rows = rows.iter();
    paced(PER_SECOND, WRITES, |_| {
        times.extend(rows.next().map(|row| ms(service.single(row))));
        written(Instant::now());
    });
    times
}

/// Writes, and gives the longest time that a row was written and not yet on `b`.
fn write_and_watch(service: &Service, rows: &[w0::Row], b: &Node, before: u64) -> (Vec<f64>, Duration) {
    let written: Mutex<Vec<Instant>> = Mutex::default();
    let lock = || written.lock().unwrap_or_else(PoisonError::into_inner);
    let mut times = Vec::new();
    let behind = meanwhile(
        |story| {
            let watch = Watch::on(b);
            let mut behind = Duration::ZERO;
            while story.goes_on() {
                let seen = usize::try_from(watch.rows().saturating_sub(before)).expect("bug: a few rows");
                let oldest = lock().get(seen).copied();
                behind = behind.max(oldest.map_or(Duration::ZERO, |moment| moment.elapsed()));
                thread::sleep(Duration::from_millis(5));
            }
            behind
        },
        || times = write(service, rows, |moment| lock().push(moment)),
    );
    (times, behind)
}
