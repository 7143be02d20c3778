//! Puts finished, hardened groups into messages: small groups travel together, a long one in pieces.

use std::collections::BTreeSet;

use rowcast_schema::layout::{Layout, LayoutId};

use crate::event::Piece;
use crate::limits;
use crate::position::NodeId;
use crate::wire::Feed;

/// The messages for `groups` of `origin`, in sequence order. `layout` finds a layout by its number.
pub fn pack(origin: NodeId, groups: Vec<Piece>, layout: impl Fn(LayoutId) -> Option<Layout>) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = Vec::new();
    let mut bytes = usize::MAX;
    for piece in groups.into_iter().flat_map(split) {
        let size = piece.size();
        if limits::PIECE_BYTES_MAX < bytes.saturating_add(size) {
            feeds.push(Feed { origin, pieces: Vec::new(), layouts: Vec::new(), before: None });
            bytes = 0;
        }
        bytes += size;
        feeds.last_mut().expect("bug: pushed above").pieces.push(piece);
    }
    for feed in &mut feeds {
        let used: BTreeSet<LayoutId> =
            feed.pieces.iter().flat_map(|piece| &piece.events).map(|event| event.layout).collect();
        feed.layouts = used.into_iter().filter_map(&layout).collect();
    }
    feeds
}

/// Cuts a long group into pieces.
fn split(group: Piece) -> Vec<Piece> {
    if group.size() <= limits::PIECE_BYTES_MAX && group.events.len() <= limits::PIECE_EVENTS_MAX {
        return vec![group];
    }
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut bytes, mut next) = (0, group.first);
    for event in group.events {
        let full = |piece: &Piece| limits::PIECE_EVENTS_MAX <= piece.events.len();
        if pieces.last().is_none_or(full) || limits::PIECE_BYTES_MAX < bytes + event.size() {
            let context = group.context.clone();
            pieces.push(Piece { first: next, group_last: group.group_last, context, events: Vec::new() });
            bytes = 0;
        }
        bytes += event.size();
        next += 1;
        pieces.last_mut().expect("bug: pushed above").events.push(event);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::event::{Event, Operation};
    use crate::position::Vector;

    fn group(first: u64, sizes: &[usize]) -> Piece {
        let event = |&size: &usize| Event {
            table: "t".into(),
            operation: Operation::Create,
            record_id: "1".into(),
            data: Some("x".repeat(size)),
            timestamp: Timestamp(1),
            layout: LayoutId(1),
            changed: -1,
        };
        let events: Vec<Event> = sizes.iter().map(event).collect();
        Piece { first, group_last: first + sizes.len() as u64 - 1, context: Vector::default(), events }
    }

    #[test]
    fn small_groups_travel_together_and_a_long_one_in_pieces_without_a_hole() {
        let third = limits::PIECE_BYTES_MAX / 3;
        let groups = vec![group(1, &[10, 10]), group(3, &[10]), group(4, &[third; 8]), group(12, &[10 * third])];
        let feeds = pack(NodeId::random(), groups, |_| None);
        let mut next = 1;
        for piece in feeds.iter().flat_map(|feed| &feed.pieces) {
            assert_eq!(piece.first, next);
            next = piece.last() + 1;
        }
        assert_eq!(next, 13);
        assert_eq!(feeds[0].pieces.len(), 3, "two small groups and the beginning of the long one");
        assert!(feeds.iter().all(|feed| feed.pieces.len() == 1
            || feed.pieces.iter().map(Piece::size).sum::<usize>() <= limits::PIECE_BYTES_MAX));
    }
}
