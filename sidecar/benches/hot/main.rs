//! Micro-benchmarks of the hot path: what one row costs on its way, stage by stage, beside what SQLite alone costs.
//!
//! `cargo bench -p rowcast` runs all, `cargo bench -p rowcast -- apply` some. Nodes are replicas in one process, over real
//! files, without a bus. Absolute figures hold for one machine; compare figures of one run.
#![expect(clippy::disallowed_methods, reason = "the benchmarks play the service, which opens its own database")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

mod apply;
mod encode;
mod floor;
mod ingest;
mod node;
mod rows;
#[path = "../../tests/stage/mod.rs"]
mod stage;
mod travel;

fn main() {
    divan::main();
}
