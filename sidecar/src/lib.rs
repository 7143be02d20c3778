//! Replicates a service's SQLite database among nodes, over NATS.

pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod event;
pub mod flow;
pub mod limits;
pub mod observe;
pub mod position;
pub mod supervise;
pub mod wire;
