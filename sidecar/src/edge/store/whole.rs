//! The whole database as one file: how a donor copies it without what is its own ([`copy()`]), and how a node that has none
//! takes such a copy as its own ([`arrive`]).
//!
//! Both work on files beside the database, never on the database itself: a copy is put in its place in one step, and only
//! where nothing is.

mod arrive;
mod clean;
mod copy;

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::arrive::{Arriving, Expected, Placed};
pub use self::copy::{Copied, Wanted, copy};
use super::error::{Doing as _, Error};
use super::identity;
use crate::limits;
use crate::position::{NodeId, Sequence};

/// Why a database is not handed over whole, or a copy is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not now.
    #[error("{0}")]
    Later(String),
    /// Not this one.
    #[error("{0}")]
    Never(String),
    /// It could not be made or read.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What stands in a copy until a node takes it: under the key `whole`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    copy: Uuid,
    joiner: NodeId,
    schema: String,
}

const MARK: &str = "whole";

/// Where a donor makes the copy.
pub fn copy_path(database: &Path) -> PathBuf {
    identity::beside(database, "-rowcast-copy")
}

/// Where a joiner writes what arrives.
pub fn arriving_path(database: &Path) -> PathBuf {
    identity::beside(database, "-rowcast-whole")
}

/// The bytes that can be written beside the database, beyond those that are to stay free.
///
/// # Errors
/// When the system does not tell.
pub fn free_bytes(database: &Path) -> Result<u64, Error> {
    Ok(super::room(database)?.saturating_sub(limits::WHOLE_SPARE_BYTES))
}

/// A tables of events, and for each origin in it the greatest sequence number.
///
/// The ids of one origin lie together, so this hops from one origin to the next.
fn newest_of_each_origin(connection: &Connection, events: &str) -> Result<Vec<(NodeId, Sequence)>, Error> {
    const DOING: &str = "look at the events of each origin";
    let mut after = String::new();
    let mut found = Vec::new();
    loop {
        let next: Option<String> = connection
            .query_row(&format!("SELECT min(id) FROM {events} WHERE ?1 < id"), [&after], |row| row.get(0))
            .doing(DOING)?;
        let Some(next) = next else { return Ok(found) };
        let origin = id_of(&next)?.origin;
        // Behind all hexadecimal digits.
        after = format!("{origin}:g");
        let newest: String = connection
            .query_row(&format!("SELECT max(id) FROM {events} WHERE id < ?1"), [&after], |row| row.get(0))
            .doing(DOING)?;
        found.push((origin, id_of(&newest)?.sequence));
    }
}

fn id_of(text: &str) -> Result<crate::event::EventId, Error> {
    super::tx::event_id(text).ok_or_else(|| super::error::damaged("an event table", format!("the id {text}")))
}

#[cfg(test)]
mod tests;
