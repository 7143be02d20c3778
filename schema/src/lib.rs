//! What Rowcast replicates, as plain data.
//!
//! ```text
//!  schema TOML ──► declaration ─┐
//!  SQLite's own description ──► table ──► layout ──► journal      (DDL and triggers, as text)
//!                                              └───► event_table  (DDL, as text)
//!                               value, record  ──► the cells and the rows that travel
//! ```
//!
//! This crate is pure: no clock, no disk, no network, no runtime, no SQLite. It takes text and values and
//! returns text and values, so that every rule in it can be tested without a database.
//!
//! Layout, in reading order:
//! - [`declaration`]: the schema TOML, read and checked;
//! - [`table`]: the shape of a table, as SQLite describes it, and why a table cannot be replicated;
//! - [`layout`]: which columns of a table are captured, under one number that is the same on every node;
//! - [`identifier`]: quoting of names; [`definition`]: what of a CREATE statement has to be read as text;
//! - [`value`], [`record`]: a typed cell, a record's key, a row as JSON;
//! - [`bookkeeping`], [`journal`], [`event_table`]: the tables and triggers that Rowcast makes.

pub mod bookkeeping;
pub mod declaration;
pub mod definition;
pub mod event_table;
pub mod identifier;
pub mod journal;
pub mod layout;
pub mod record;
pub mod table;
pub mod value;

/// The prefix of every table, trigger and index that Rowcast makes beside the event tables.
///
/// A service's own table under this prefix is refused, and change events about it are ignored.
pub const OWN_PREFIX: &str = "_rowcast_";

/// Whether `name` is one of Rowcast's own tables: bookkeeping, journal or an event table of `tables`.
pub fn is_own_table<'a>(name: &str, mut tables: impl Iterator<Item = &'a str>) -> bool {
    let own = name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX));
    own || tables.any(|table| event_table::name(table).eq_ignore_ascii_case(name))
}
