//! Checks what other nodes sent, before anything believes it: names, numbers, keys, sizes.

use std::collections::HashMap;

use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::record;

use crate::event::{Event, Piece};
use crate::position::NodeId;
use crate::wire::{self, Feed, Message};

/// Why a message was not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The frame itself.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// A message of another kind than belongs here.
    #[error("it is not what belongs on this subject")]
    Kind,
    /// It says it is from another node than the subject says.
    #[error("it says it is from {said}, on the subject of {subject}")]
    Origin {
        /// In the message.
        said: NodeId,
        /// On the subject.
        subject: NodeId,
    },
    /// Numbers that cannot be.
    #[error("its sequence numbers do not make sense")]
    Numbers,
    /// A layout whose number does not fit its names, or a missing one.
    #[error("layout {0:?} is missing or does not fit its names")]
    Layout(LayoutId),
    /// A row that does not fit its layout, or its record id.
    #[error("the event of `{table}` {record_id}: {reason}")]
    Row {
        /// The table.
        table: String,
        /// The record.
        record_id: String,
        /// What does not fit.
        reason: String,
    },
}

/// The feed in a message that came on the subject of `subject`.
///
/// # Errors
/// When anything in it cannot be true. Nothing of it is kept then; what is missing is fetched again.
pub fn feed(frame: &[u8], subject: NodeId) -> Result<Feed, Error> {
    let Message::Feed(feed) = wire::decode(frame)? else { return Err(Error::Kind) };
    if feed.origin != subject {
        return Err(Error::Origin { said: feed.origin, subject });
    }
    check(&feed.pieces, &feed.layouts)?;
    Ok(feed)
}

/// Checks pieces against the layouts that came with them.
///
/// # Errors
/// As [`feed`].
pub fn check(pieces: &[Piece], layouts: &[Layout]) -> Result<(), Error> {
    let known = sound(layouts)?;
    for piece in pieces {
        let long = piece.first.checked_add(piece.events.len() as u64);
        if piece.first == 0 || piece.events.is_empty() || long.is_none_or(|end| piece.group_last < end - 1) {
            return Err(Error::Numbers);
        }
        for event in &piece.events {
            check_event(event, &known)?;
        }
    }
    Ok(())
}

/// The layouts by number.
///
/// # Errors
/// When a number does not belong to its names.
pub fn sound(layouts: &[Layout]) -> Result<HashMap<LayoutId, &Layout>, Error> {
    match layouts.iter().find(|layout| !layout.is_sound()) {
        Some(layout) => Err(Error::Layout(layout.id)),
        None => Ok(layouts.iter().map(|layout| (layout.id, layout)).collect()),
    }
}

/// Checks one event: its layout is there, belongs to its table, and its row reads. Whether its record id is a key of the
/// table here is found when it is applied.
///
/// # Errors
/// As [`feed`].
pub fn check_event(event: &Event, layouts: &HashMap<LayoutId, &Layout>) -> Result<(), Error> {
    let layout = layouts.get(&event.layout).ok_or(Error::Layout(event.layout))?;
    let refuse =
        |reason: String| Err(Error::Row { table: event.table.clone(), record_id: event.record_id.clone(), reason });
    if !layout.table.eq_ignore_ascii_case(&event.table) {
        return refuse(format!("its layout belongs to `{}`", layout.table));
    }
    if event.timestamp.0 <= 0 {
        return refuse("its timestamp is not after 1970".into());
    }
    if event.data.is_none() != (event.operation == crate::event::Operation::Delete) {
        return refuse("a delete has no row, and everything else has one".into());
    }
    if let Some(data) = &event.data
        && let Err(error) = record::row_from_json(&layout.columns, data)
    {
        return refuse(error.to_string());
    }
    Ok(())
}
