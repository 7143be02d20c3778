//! Checks what other nodes sent, before anything believes it: who says it, numbers, layouts, sizes.
//!
//! What is refused here holds up everything behind it, since no number is left out. So an event that only cannot be
//! understood is not refused: it is stored as it is, and parked when it is applied.

use std::collections::HashMap;

use rowcast_schema::layout::{Layout, LayoutId};

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

/// Checks one event: its layout is there, so that it can be handed on. Whether it can be understood is found when it is
/// applied.
///
/// # Errors
/// As [`feed`].
pub fn check_event(event: &Event, layouts: &HashMap<LayoutId, &Layout>) -> Result<(), Error> {
    layouts.get(&event.layout).map(drop).ok_or(Error::Layout(event.layout))
}
