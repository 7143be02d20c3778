//! Staying right: what runs beside the way of a row.

pub mod compaction;
pub mod digest;
pub mod membership;
pub mod reconcile;
pub mod repair;
