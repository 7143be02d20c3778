//! A database that was restored, copied or set back, and clocks that are wrong: no number is given out twice for two
//! events, nothing that anybody wrote is lost, and all nodes end equal.
//!
//! Nodes here are replicas in one process, on a bus and a clock that the test moves by hand. The real-process stories
//! of the same are in `tests/it/identity.rs`.
#![expect(clippy::disallowed_methods, reason = "the test plays the service, which opens its own database")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audits;
mod clocks;
mod cluster;
mod random;
mod restored;
#[path = "../stage/mod.rs"]
mod stage;
mod twins;
mod waiting;
