//! Which events may go for good.
//!
//! An event goes when no column of its record's content comes from it any more (or, a tombstone, when nothing is left
//! that it would have to hide), when it is older than the table's `history`, when every member that is not expelled has
//! it, and when this node has everything that those members had when they said so. Parked events, and the records that
//! they belong to, are left alone.
//!
//! # Why no deleted row comes back
//!
//! Let a tombstone T of a record be compacted here, and let E be any event of the same record, from any origin X, that
//! arrives here afterwards. E must not be older than T, or it would make the row again. [`super::membership`] gives a
//! bound: per member X the vector V and the stamp S that it said in one presence, both of one moment, and this node has
//! caught up with V. T goes only if its timestamp is not above the least S, and every V covers it.
//!
//! - **X is a member, and E's number is not above X's own position in V.** Then this node has E already: it has caught
//!   up with V. This covers what X wrote before it applied T and had not sent: X drains its journal, and looks at the
//!   rows of announced tables, in the transaction that applies T (I3), so such events are at or below its position when
//!   its vector covers T. It covers events that are made again under a new node id with their old timestamps, after a copy
//!   or a restore: they are all there before its first vector.
//! - **X is a member, and E's number is above it.** Then E was stamped after that presence, and X's clock gives out
//!   nothing at or below S (I5). So E is later than T. A timestamp from the future that X parked has not moved its clock;
//!   then S is below T, and T stays. While X ingests a long group in parts, some of it is stamped and none of it counts
//!   in V: then X says no stamp at all. What a comparison finds is stamped now, thus later than S. What a migration carried over
//!   stands right behind the event that its row comes from, and X has T: T is older than that event, or it would hide it, or it
//!   is parked at X, and then nothing is carried over (`flow::capture::compared`). A group that is staged
//!   moves neither position nor clock before it is applied.
//! - **X is expelled.** Every member has said, in the presence that counts, that it takes nothing from X any more; what
//!   any of them has of X is in its vector, and this node has it. Nobody hands over more.
//! - **X is unknown here.** A new node loads everything before it says a vector, from a donor that has it among its members
//!   on disk, and so keeps from then on what the new one lacks. So it is with one that takes the donor's file whole: it is
//!   among the donor's members before the copy is made, and the donor looks again. What it makes of its rows is stamped later than what a
//!   member is past when the load begins, thus later than T (`clock_floor` in `replica::load`). A node with a past (it was
//!   expelled, or fell behind all horizons) loads the same way, and brings along what it had not shared with new stamps,
//!   where that still holds: see `flow::apply::forget`.
//!
//! Content does not change by compaction either: what goes is older than something that stays and that all members have,
//! and a late event that falls between the two is older than what stays, too.
//!
//! Pure: it looks at a list and says what goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use rowcast_schema::declaration::{Conflict, History};
use rowcast_schema::layout::Layout;

use super::membership::Bound;
use crate::clock::Timestamp;
use crate::event::{EventId, Operation, Version};

/// An event of a record, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its place in the order.
    pub version: Version,
    /// What it did.
    pub operation: Operation,
    /// Which columns it has.
    pub layout: Arc<Layout>,
    /// Whether it is applied; else it is parked, or its group is not whole.
    pub processed: bool,
}

/// Up to when events of a table may go: what is later than the least stamp is not known to be settled, and what is younger
/// than the history is kept. None: nothing goes.
pub fn limit(history: History, bound: &Bound, now: Timestamp) -> Option<Timestamp> {
    match history {
        History::Latest => Some(bound.stamp),
        History::For(time) => {
            let age = Timestamp::from_since_1970(time);
            Some(bound.stamp.min(Timestamp(now.0.saturating_sub(age.0))))
        }
        History::Forever => None,
    }
}

/// The events of one record that go. `events` are its newest first; `whole` says that nothing older than the last one
/// is stored. What lies above `limit`, or beyond what `bound` covers, neither goes nor makes another one go.
pub fn superseded(policy: Conflict, events: &[Kept], whole: bool, limit: Timestamp, bound: &Bound) -> Vec<EventId> {
    // Another policy has another fold, and needs its own rule here.
    let Conflict::LastWriteWins = policy;
    if events.iter().any(|event| !event.processed) {
        return Vec::new();
    }
    let settled =
        |version: &Version| version.timestamp <= limit && version.sequence <= bound.covered.of(version.origin);
    // Per primary key that the table had: what stands under another one is no part of the content, and supersedes nothing of it.
    let mut of_keys: Vec<(&Layout, BTreeSet<&str>, bool)> = Vec::new();
    // Per event: whether it goes, and whether it is a tombstone that goes with the last of what it hides.
    let mut going: Vec<(bool, bool)> = Vec::with_capacity(events.len());
    for event in events {
        if !settled(&event.version) {
            going.push((false, false));
            continue;
        }
        let at = of_keys.iter().position(|(layout, ..)| layout.has_key_of(&event.layout)).unwrap_or_else(|| {
            of_keys.push((&event.layout, BTreeSet::new(), false));
            of_keys.len() - 1
        });
        let (_, seen, deleted) = &mut of_keys[at];
        let tombstone = event.operation == Operation::Delete && !*deleted;
        let adds = event.layout.columns.iter().any(|column| !seen.contains(column.as_str()));
        going.push((*deleted || !(tombstone || adds), tombstone));
        *deleted |= tombstone;
        seen.extend(event.layout.columns.iter().map(String::as_str));
    }
    let mut nothing_older = whole;
    for (goes, tombstone) in going.iter_mut().rev() {
        *goes |= *tombstone && nothing_older;
        nothing_older &= *goes;
    }
    let id = |event: &Kept| EventId { origin: event.version.origin, sequence: event.version.sequence };
    events.iter().zip(&going).filter(|(_, (goes, _))| *goes).map(|(event, _)| id(event)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::position::{NodeId, Vector};

    fn node(id: u128) -> NodeId {
        NodeId(Uuid::from_u128(id))
    }

    fn layout(columns: &str) -> Arc<Layout> {
        Arc::new(Layout::new("t".into(), columns.split(' ').map(str::to_owned).collect(), vec![0]))
    }

    /// Newest first: timestamp, origin, sequence number, columns; "" is a delete.
    fn kept(events: &[(i64, u128, u64, &str)]) -> Vec<Kept> {
        let event = |&(timestamp, origin, sequence, columns): &(i64, u128, u64, &str)| Kept {
            version: Version { timestamp: Timestamp(timestamp), origin: node(origin), sequence },
            operation: if columns.is_empty() { Operation::Delete } else { Operation::Update },
            layout: layout(if columns.is_empty() { "id a" } else { columns }),
            processed: true,
        };
        events.iter().map(event).collect()
    }

    fn bound(positions: &[(u128, u64)]) -> Bound {
        let covered: Vector = positions.iter().map(|&(id, position)| (node(id), position)).collect();
        Bound { covered, stamp: Timestamp(100) }
    }

    fn go(events: &[Kept], whole: bool, bound: &Bound) -> Vec<u64> {
        let ids = superseded(Conflict::LastWriteWins, events, whole, bound.stamp, bound);
        ids.into_iter().map(|id| id.sequence).collect()
    }

    #[test]
    fn only_what_gives_no_column_goes() {
        let bound = bound(&[(1, 9)]);
        assert_eq!(go(&kept(&[(3, 1, 3, "id a"), (2, 1, 2, "id a"), (1, 1, 1, "id a")]), true, &bound), [2, 1]);
        let columns = [(4, 1, 4, "id a"), (3, 1, 3, "id b"), (2, 1, 2, "id a b"), (1, 1, 1, "id a c")];
        assert_eq!(go(&kept(&columns), true, &bound), [2], "b comes from the third, c from the first");
    }

    #[test]
    fn what_stands_under_another_primary_key_supersedes_nothing() {
        let mut events = kept(&[(3, 1, 3, "id a"), (2, 1, 2, "id a"), (1, 1, 1, "id a")]);
        let other_key = Layout::new("t".into(), vec!["id".into(), "a".into()], vec![1]);
        events[0].layout = Arc::new(other_key);
        assert_eq!(go(&events, true, &bound(&[(1, 9)])), [1]);
        events[0].operation = Operation::Delete;
        assert_eq!(go(&events, true, &bound(&[(1, 9)])), [1], "nor does its delete");
    }

    #[test]
    fn a_tombstone_goes_last_and_only_when_nothing_is_left_below_it() {
        let all = bound(&[(1, 9), (2, 9)]);
        let events = kept(&[(3, 1, 3, ""), (2, 2, 2, "id a"), (1, 1, 1, "id a")]);
        assert_eq!(go(&events, true, &all), [3, 2, 1]);
        assert_eq!(go(&events, false, &all), [2, 1], "older ones are not in the list");
        assert_eq!(go(&events, true, &bound(&[(1, 9)])), [1], "not all members have what came from node 2");
        assert_eq!(
            go(&events, true, &bound(&[(1, 2), (2, 9)])),
            [1],
            "the tombstone is not everywhere, and hides nothing"
        );
    }

    #[test]
    fn a_record_made_again_keeps_its_tombstone_only_as_long_as_something_is_below() {
        let events = kept(&[(4, 1, 4, "id a"), (3, 1, 3, ""), (2, 2, 2, "id a c")]);
        assert_eq!(go(&events, true, &bound(&[(1, 9), (2, 9)])), [3, 2]);
        assert!(go(&events, true, &bound(&[(1, 9)])).is_empty(), "without it column c would come back");
    }

    #[test]
    fn what_is_parked_is_left_alone_with_its_record() {
        let mut events = kept(&[(3, 1, 3, "id a"), (2, 1, 2, "id a"), (1, 1, 1, "id a")]);
        events[1].processed = false;
        assert!(go(&events, true, &bound(&[(1, 9)])).is_empty());
    }

    #[test]
    fn what_is_younger_than_the_history_or_than_a_members_clock_stays() {
        let bound = bound(&[(1, 9)]);
        let now = Timestamp::from_since_1970(Duration::from_secs(1000));
        assert_eq!(limit(History::Forever, &bound, now), None);
        assert_eq!(limit(History::Latest, &bound, now), Some(Timestamp(100)));
        let later = Bound { stamp: now, ..bound.clone() };
        let hundred = History::For(Duration::from_secs(100));
        assert_eq!(limit(hundred, &later, now), Some(Timestamp::from_since_1970(Duration::from_secs(900))));
        assert_eq!(limit(hundred, &bound, now), Some(Timestamp(100)));
        let events = kept(&[(102, 1, 3, "id a"), (99, 1, 2, "id a"), (98, 1, 1, "id a")]);
        assert_eq!(go(&events, true, &bound), [1], "the newest counts for nothing yet");
    }
}
