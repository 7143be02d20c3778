//! The outside: SQLite, NATS, HTTP, the clock of the machine. `flow` decides, `edge` does.

pub mod bus;
pub mod clock;
pub mod http;
pub mod store;
