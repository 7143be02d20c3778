//! What Rowcast shows of itself: its state, whether it is alive and ready, its metrics, its log.
//!
//! All of it is made of values that the node hands over; nothing here asks the database or the bus.

pub mod health;
pub mod logging;
pub mod metrics;
pub mod status;
