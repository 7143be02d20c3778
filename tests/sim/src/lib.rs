//! A cluster of Rowcast nodes in one process.
//!
//! The production core (`rowcast::replica`, and everything below it down to SQLite) runs here under a simulated bus, a
//! simulated clock and a disk that fails. One seed decides everything: what the services write, what the bus does to
//! messages, who crashes at which operation, whose power fails. After the faults the world is healed, and a judge that
//! knows only the promises compares.

pub mod chance;
pub mod disk;
pub mod faults;
pub mod judge;
pub mod net;
pub mod node;
pub mod runner;
pub mod schema;
pub mod service;
pub mod story;
pub mod watch;
pub mod whole;
pub mod world;
