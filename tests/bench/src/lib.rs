//! Rowcast's figures beside their floors, in one run.
//!
//! Real sidecar processes work on real files with a real nats-server, all started here, all ended here. Each figure is
//! measured in rounds that alternate with those of its floor, so that both see the same machine. Percentiles are of all
//! samples; a first round that warms up does not count.
//!
//! - [`figures`] names every figure and its goal; [`groups`] has a module for each group of them
//! - [`w0`] is the workload, [`service`] writes it, [`replica`] looks at what arrives, [`floors`] is what it would cost
//!   without Rowcast
//! - [`stats`] is the only place that makes one number of many; [`report`] shows and writes them

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "as in the stories: a run that cannot go on panics, and measures time"
)]

pub mod bench;
pub mod beside;
pub mod figures;
pub mod floors;
pub mod groups;
pub mod machine;
pub mod replica;
pub mod report;
pub mod service;
pub mod stats;
pub mod w0;
