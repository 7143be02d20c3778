//! Rowcast's promises, each told as a story and checked on real parts.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a story that cannot go on panics, and measures time"
)]

mod announced;
mod atomic;
mod bad_input;
mod bootstrap;
mod bus;
mod chaos;
mod declared;
mod faults;
mod garbage;
mod harness;
mod identity;
mod mistakes;
mod never_fails;
mod retention;
mod services;
mod sizes;
mod statements;
mod taken_whole;
mod tidy;
mod verify;
mod whole;
