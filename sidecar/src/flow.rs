//! The way of a row, one file a stage. Data walks one way; nothing here calls back upstream.
//!
//! ```text
//!  journal, announced ──► ingest ──► publish ──► (bus)
//!  (bus) ──► receive ──► order ──► conflict ──► apply
//! ```
//!
//! A stage takes values and returns values. What it cannot do without the database it asks of the
//! [`Tx`](crate::edge::store::Tx) that it is handed; it reads no clock and speaks to no bus.

pub mod apply;
pub mod capture;
pub mod conflict;
pub mod fetch;
pub mod ingest;
pub mod order;
pub mod publish;
pub mod receive;
