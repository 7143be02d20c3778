//! Replicates a service's SQLite database among nodes, over NATS.

pub mod config;
pub mod edge;
pub mod observe;
pub mod supervise;
