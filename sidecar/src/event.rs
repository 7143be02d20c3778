//! Events, groups and their versions: what is stored, sent and applied.

use std::fmt;

use rowcast_schema::layout::{Fnv, Layout, LayoutId};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};

/// What an event did to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// The record came to be.
    Create,
    /// The record changed.
    Update,
    /// The record went.
    Delete,
}

impl Operation {
    /// As the column `operation_type` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }

    /// Of the column `operation_type`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete].into_iter().find(|operation| operation.as_str() == text)
    }
}

/// How the data of an event begins whose row is too large to travel.
const LEFT_OUT: &str = r#"{"$left_out":"#;

/// What stands in an event in the place of a row of so many bytes that is too large to travel: no node can read it, so all
/// of them park the event, and nothing behind it waits.
pub fn left_out(bytes: usize) -> String {
    format!("{LEFT_OUT}{bytes}}}")
}

/// A persistent event, without its origin and sequence number: those follow from its place in a [`Piece`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The table, named as at the origin.
    pub table: String,
    /// What was done.
    pub operation: Operation,
    /// The canonical text of the primary key.
    pub record_id: String,
    /// The full row after the change, as JSON; none for a delete.
    pub data: Option<String>,
    /// When it was written.
    pub timestamp: Timestamp,
    /// Which columns the row had.
    pub layout: LayoutId,
    /// Bit mask of the columns that an update changed; -1 stands for all.
    pub changed: i64,
}

impl Event {
    /// What tells it from another event that claims its number. The table's name is left out: its case may differ from
    /// node to node, and the layout stands for it.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Fnv::new();
        for number in [self.timestamp.0, self.layout.0, self.changed] {
            hash.write(&number.to_le_bytes());
        }
        hash.write(self.operation.as_str().as_bytes());
        for text in [Some(self.record_id.as_str()), self.data.as_deref()] {
            hash.write(&text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
            hash.write(text.unwrap_or_default().as_bytes());
        }
        Fingerprint(hash.finish())
    }

    /// What about it cannot be, beside its row: none for an event that a sidecar made.
    pub fn fault(&self, layout: &Layout) -> Option<String> {
        if !layout.table.eq_ignore_ascii_case(&self.table) {
            return Some(format!("its layout belongs to `{}`", layout.table));
        }
        if self.timestamp.0 <= 0 {
            return Some("its timestamp is not after 1970".to_owned());
        }
        let is_odd = self.data.is_none() != (self.operation == Operation::Delete);
        is_odd.then(|| "a delete has no row, and everything else has one".to_owned())
    }

    /// Why its row is not in it, if that is so: see [`left_out`].
    pub fn left_out(&self, layout: &Layout) -> Option<String> {
        let bytes = self.data.as_deref()?.strip_prefix(LEFT_OUT)?.strip_suffix('}')?.parse::<usize>().ok()?;
        let is_a_column = layout.columns.iter().any(|column| LEFT_OUT.contains(&format!("\"{column}\"")));
        (!is_a_column).then(|| {
            let most = limits::ROW_BYTES_MAX;
            format!("its row has {bytes} bytes as JSON, more than the {most} that travel: it is on the node that wrote it alone")
        })
    }

    /// Bytes that it takes in memory and on the wire, roughly.
    pub fn size(&self) -> usize {
        64 + self.table.len() + self.record_id.len() + self.data.as_ref().map_or(0, String::len)
    }
}

/// A hash over everything in an event but its identity. Two events of one origin under one number are the same event when
/// their fingerprints are equal; timestamps alone are not enough: two copies of a database can write in one millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

/// Consecutive events of one group: the whole group, unless it is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The sequence number of the first event here.
    pub first: Sequence,
    /// The sequence number of the last event of the whole group.
    pub group_last: Sequence,
    /// What the author had seen of the other origins when it made the group.
    pub context: Vector,
    /// The events, one sequence number after the other.
    pub events: Vec<Event>,
}

impl Piece {
    /// The sequence number of the last event here.
    pub fn last(&self) -> Sequence {
        self.first + self.events.len() as Sequence - 1
    }

    /// Whether the group ends here.
    pub fn ends_group(&self) -> bool {
        self.last() == self.group_last
    }

    /// Bytes that it takes in memory, roughly.
    pub fn size(&self) -> usize {
        64 + self.context.len() * 48 + self.events.iter().map(Event::size).sum::<usize>()
    }

    /// Drops the events up to and with `position`.
    pub fn trim(&mut self, position: Sequence) {
        if self.first <= position {
            let known = usize::try_from(position + 1 - self.first).unwrap_or(usize::MAX);
            self.events.drain(..known.min(self.events.len()));
            self.first = position + 1;
        }
    }
}

/// Where a record's present content comes from. The order is the total order that decides conflicts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// When it was written.
    pub timestamp: Timestamp,
    /// By whom.
    pub origin: NodeId,
    /// As which of its events.
    pub sequence: Sequence,
}

impl Version {
    /// The event that has it.
    pub fn id(&self) -> EventId {
        EventId { origin: self.origin, sequence: self.sequence }
    }
}

/// The identity of an event: the column `id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EventId {
    /// The node that made it.
    pub origin: NodeId,
    /// Its number there.
    pub sequence: Sequence,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.origin, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_sort_by_sequence_number_within_an_origin() {
        let origin = NodeId(uuid::Uuid::from_u128(7));
        let id = |sequence| EventId { origin, sequence }.to_string();
        assert_eq!(id(255), "00000000-0000-0000-0000-000000000007:00000000000000ff");
        assert!(id(9) < id(10) && id(0xffff) < id(0x1_0000));
    }

    #[test]
    fn a_piece_is_trimmed_to_what_is_new() {
        let event = Event {
            table: "t".into(),
            operation: Operation::Delete,
            record_id: "1".into(),
            data: None,
            timestamp: Timestamp(1),
            layout: LayoutId(1),
            changed: 0,
        };
        let mut piece = Piece { first: 5, group_last: 7, context: Vector::default(), events: vec![event; 3] };
        piece.trim(3);
        assert_eq!((piece.first, piece.last()), (5, 7));
        piece.trim(6);
        assert_eq!((piece.first, piece.last(), piece.ends_group()), (7, 7, true));
    }
}
