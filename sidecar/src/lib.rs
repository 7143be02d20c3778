//! Replicates the tables of a SQLite service among nodes, over NATS.
//!
//! ```text
//!  service writes ──► trigger ──► journal ─┐                         (same transaction as the write)
//!  service says   ──► NATS change event ───┴► ingest ──► <Table>_Events ──► publish ──► NATS
//!                                             stamp, sequence            once hardened
//!  NATS ──► receive ──► put in order, fill gaps ──► resolve conflicts ──► apply: event + row, one transaction
//! ```
//!
//! Out along the top, in along the bottom; both ways an event is kept first. `flow` and `bootstrap` decide, `edge`
//! does, `replica` carries one node through everything that can happen to it, `node` joins the parts.

// The words.
pub mod clock;
pub mod event;
pub mod members;
pub mod position;
pub mod wire;

// What decides.
pub mod bootstrap;
pub mod flow;
pub mod replica;
pub mod steady;

// What does.
pub mod edge;

// What joins and shows.
pub mod cli;
pub mod config;
pub mod limits;
pub mod node;
pub mod observe;
pub mod supervise;
