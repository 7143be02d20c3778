//! Staying right: what runs beside the way of a row.

pub mod digest;
pub mod reconcile;
pub mod repair;
