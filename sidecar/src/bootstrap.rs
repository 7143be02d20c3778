//! How a node gets from nothing to READY.
//!
//! - [`gate`]: the phases of that way, and why the node is not READY yet;
//! - [`joiner`]: loads everything from another node;
//! - [`donor`]: answers a joiner, and everybody who misses something;
//! - [`whole`]: a node without a database takes another node's whole, before all that.

pub mod donor;
pub mod gate;
pub mod joiner;
pub mod whole;
