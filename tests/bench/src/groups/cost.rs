//! What a write costs the service, one after the other: bursts on a plain file and on a replicated one by turns.
//! Both files have the same rows; both sidecars run.

use crate::bench::Bench;
use crate::beside::Beside;
use crate::figures::Measured;
use crate::replica;
use crate::stats::{Samples, ms};
use crate::w0;

const FILLED: u64 = 20_000;
const SINGLES: u64 = 10_000;
const BATCHES: u64 = 200;

/// Measures.
pub fn run(bench: &Bench) -> Vec<Measured> {
    let beside = Beside::start(bench, FILLED);
    let Beside { plain, service, watch, .. } = &beside;
    let mut samples: [Samples; 4] = Default::default();
    let mut at = FILLED;
    // The first round warms caches and statements, and does not count.
    for round in 0..=bench.rounds(8) {
        let singles = w0::rows(at..at + SINGLES);
        let many = w0::rows(at + SINGLES..at + SINGLES + BATCHES * 100);
        at += SINGLES + BATCHES * 100;
        let of_plain: Vec<f64> = singles.iter().map(|row| ms(plain.single(row))).collect();
        let of_own: Vec<f64> = singles.iter().map(|row| ms(service.single(row))).collect();
        watch.until(at - BATCHES * 100);
        let many_of_plain: Vec<f64> = many.chunks(100).map(|rows| ms(plain.batch(rows))).collect();
        let many_of_own: Vec<f64> = many.chunks(100).map(|rows| ms(service.batch(rows))).collect();
        watch.until(at);
        if round > 0 {
            for (samples, round) in samples.iter_mut().zip([of_plain, of_own, many_of_plain, many_of_own]) {
                samples.round(round);
            }
        }
    }
    replica::same(&beside.a, &beside.b);
    let [plain, own, many_plain, many_own] = samples.map(|samples| samples.median());
    bench.note(format!(
        "a single write {:.1} µs, plain {:.1} µs; 100 rows {:.0} µs, plain {:.0} µs",
        own.value * 1e3,
        plain.value * 1e3,
        many_own.value * 1e3,
        many_plain.value * 1e3
    ));
    vec![
        Measured::new("write_cost_single_ratio", own.over(&plain)),
        Measured::new("write_cost_batch100_ratio", many_own.over(&many_plain)),
    ]
}
