//! The clock of the machine: the only place that reads it.

use std::time::SystemTime;

use crate::clock::Timestamp;

/// The wall time now. Before 1970 it is 1970.
#[expect(clippy::disallowed_methods, reason = "this is the one door through which time comes in")]
pub fn now() -> Timestamp {
    Timestamp::from_since_1970(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
