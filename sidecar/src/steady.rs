//! Staying right: what runs beside the way of a row.

pub mod reconcile;
