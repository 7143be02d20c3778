//! The harness of Rowcast's stories: real nats-server, real sidecar processes, real SQLite files.
//!
//! ```ignore
//! let nats = NatsServer::start();
//! let cluster = Cluster::start(&nats, "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER)", ["a", "b"]);
//! let [a, b] = cluster.nodes();
//! a.sql("INSERT INTO items VALUES('x', 1)");
//! eventually_eq!(b.rows("SELECT * FROM items"), ["'x' | 1"]);
//! ```
//!
//! Nothing here is a stand-in: what a story sees is what a person would see. Every server, sidecar and service is a
//! process that is ended, by its id, when the value that stands for it is dropped, also when a story panics; then the
//! sidecars' logs are printed. Everything runs on free ports and in temporary folders, so stories run side by side.
//!
//! When the test process itself is killed, a small process beside it ends the others.
//!
//! The harness never opens a database file outside SQLite: closing such a file would drop the locks that SQLite
//! holds on it for this process.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a story that cannot go on panics, and measures time"
)]

pub mod binary;
pub mod bus;
pub mod chinook;
pub mod cluster;
pub mod eventually;
pub mod http;
pub mod meanwhile;
pub mod nats;
pub mod node;
pub mod port;
pub mod process;
pub mod proxy;
pub mod random;
mod reaper;
pub mod rows;
pub mod traps;
pub mod workload;

pub use bus::Bus;
pub use cluster::Cluster;
pub use meanwhile::{Story, meanwhile};
pub use nats::NatsServer;
pub use node::Node;
pub use proxy::{Proxy, Way};
