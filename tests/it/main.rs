//! Rowcast's promises, each told as a story and checked on real parts.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a story that cannot go on panics, and measures time")]

mod harness;
