//! Decides what it means when two nodes hold a record differently: lag, or divergence, and whose.
//!
//! A node digests its records by ranges of record ids: per record its id, the events that its content comes from, and
//! the row that is really in the table. Where the sums of a range differ, both sides' [`Entry`] of each record in it are
//! compared. Nodes at different positions differ legitimately, so versions alone prove nothing; only these do:
//! - the same events, with other content: an event was changed;
//! - a node lacks an event that lies below its own position, or shows an older version although its position covers the
//!   newer one;
//! - a row that is not what its own node's events say.
//!
//! Everything else is lag. This module takes values and returns values; reading them is for `edge/store/digest.rs`.

use std::collections::BTreeMap;

use rowcast_schema::layout::LayoutId;
use rowcast_schema::value::Value;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::event::{Event, EventId, Version};
use crate::position::{NodeId, Sequence, Vector};

/// Whether a row is what its own node's events say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It is.
    Agrees,
    /// It is not, and nothing that is still under way explains it.
    Differs,
    /// It is not, and a change that is not an event yet may explain it.
    Unsettled,
}

/// One record on one node, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The record id.
    pub record: String,
    /// The events that the content comes from, the newest first; none when no event knows the record.
    pub sources: Vec<(NodeId, Sequence)>,
    /// The timestamp of the newest of them.
    pub newest: Timestamp,
    /// The newest event is a delete.
    pub deleted: bool,
    /// The hash of the row in the table; 0 where there is none.
    pub row: u64,
    /// The hash of the events in `sources`, as they are stored.
    pub events: u64,
    /// Whether the row is what the events say.
    pub state: State,
    /// An event of the record is parked: what its row should be is not settled.
    pub parked: bool,
}

impl Entry {
    /// A record that is neither in the table nor known to any event.
    pub fn absent(record: &str) -> Self {
        Self {
            record: record.to_owned(),
            sources: Vec::new(),
            newest: Timestamp::default(),
            deleted: false,
            row: 0,
            events: 0,
            state: State::Agrees,
            parked: false,
        }
    }

    /// The version of the content.
    pub fn version(&self) -> Option<Version> {
        let &(origin, sequence) = self.sources.first()?;
        Some(Version { timestamp: self.newest, origin, sequence })
    }

    /// What the record adds to the sum of its range. Deleted records add nothing: one node may have forgotten them.
    pub fn part(&self) -> u64 {
        part(&self.record, &self.sources, self.row, self.deleted)
    }
}

/// What a record adds to the sum of its range.
pub fn part(record: &str, sources: &[(NodeId, Sequence)], row: u64, deleted: bool) -> u64 {
    if row == 0 && (deleted || sources.is_empty()) {
        return 0;
    }
    let mut hash = Hash::default();
    hash.bytes(record.as_bytes());
    for (origin, sequence) in sources {
        hash.bytes(origin.0.as_bytes());
        hash.number(*sequence);
    }
    hash.number(row);
    hash.value()
}

/// Records up to and with one of them, and the sum over them. The first range of a request begins where that says, each
/// other one after its neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The last record id in it; none: to the end of the table.
    pub until: Option<String>,
    /// The sum of the parts of its records, modulo 2^64.
    pub sum: u64,
}

/// What a node says of its records in the ranges that it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Its position vector at that moment.
    pub vector: Vector,
    /// The layout of its table; 0 where the database lacks it.
    pub layout: i64,
    /// The places of the ranges whose sums differ.
    pub differ: Vec<u32>,
    /// Its records in those ranges, or those that were asked for by name.
    pub entries: Vec<Entry>,
    /// It stopped at this record id, with the ranges after it unanswered; none: everything is answered.
    pub reached: Option<String>,
}

/// How a record stands between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same on both.
    Alike,
    /// One of them is behind, or something is under way. No divergence.
    Lag,
    /// Events below this node's own position are missing here.
    MineLacks,
    /// Events below the other node's position are missing there.
    TheirsLacks,
    /// The same events, with other content.
    EventsDiffer,
    /// The row here is not what the events here say.
    MineDamaged,
    /// The row there is not what the events there say.
    TheirsDamaged,
}

/// Compares one record on two nodes, each with its position vector at the moment it was looked at.
pub fn compare(mine: (&Entry, &Vector), theirs: (&Entry, &Vector)) -> Relation {
    let ((mine, my_vector), (theirs, their_vector)) = (mine, theirs);
    if mine.parked || theirs.parked {
        return Relation::Lag;
    }
    if mine.sources == theirs.sources {
        return match (mine.state, theirs.state) {
            _ if mine.events != theirs.events => Relation::EventsDiffer,
            (State::Differs, _) => Relation::MineDamaged,
            (_, State::Differs) => Relation::TheirsDamaged,
            (State::Agrees, State::Agrees) => Relation::Alike,
            _ => Relation::Lag,
        };
    }
    // A delete that all have is forgotten in time, and not everywhere at once.
    if (mine.sources.is_empty() && theirs.deleted) || (theirs.sources.is_empty() && mine.deleted) {
        return Relation::Alike;
    }
    let covers =
        |vector: &Vector, entry: &Entry| entry.sources.iter().all(|&(origin, sequence)| sequence <= vector.of(origin));
    let (mine_covers, theirs_covers) = (covers(my_vector, theirs), covers(their_vector, mine));
    if mine_covers && mine.version() < theirs.version() {
        return Relation::MineLacks;
    }
    if theirs_covers && theirs.version() < mine.version() {
        return Relation::TheirsLacks;
    }
    if mine_covers && theirs_covers {
        // The same newest event, and other ones that columns of it come from: both should have all of them.
        let lacking = theirs.sources.iter().any(|source| !mine.sources.contains(source));
        return if lacking { Relation::MineLacks } else { Relation::TheirsLacks };
    }
    Relation::Lag
}

/// Who is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong that a node could mend or report.
    Fine,
    /// The row here was damaged, and the events here tell what it should be.
    MendRow,
    /// The events here are missing or were changed: take this node's.
    TakeFrom(NodeId),
    /// This node is right; that one mends itself.
    TheirsAtFault(NodeId),
    /// The same event has other content on this node and on that one, and nobody can tell which is right.
    Undecided(NodeId),
}

/// What another node says of a record.
#[derive(Clone, Debug)]
pub struct Witness {
    /// The node.
    pub node: NodeId,
    /// The record there.
    pub entry: Entry,
    /// Its position vector at that moment.
    pub vector: Vector,
}

/// Decides what to do about one record, by what this node has and what the others say.
pub fn judge(me: NodeId, mine: (&Entry, &Vector), witnesses: &[Witness]) -> Verdict {
    let relations: Vec<(&Witness, Relation)> =
        witnesses.iter().map(|witness| (witness, compare(mine, (&witness.entry, &witness.vector)))).collect();
    let first =
        |wanted: Relation| relations.iter().find(|(_, relation)| *relation == wanted).map(|(witness, _)| witness.node);
    if let Some(holder) = first(Relation::MineLacks) {
        return Verdict::TakeFrom(holder);
    }
    if let Some(other) = first(Relation::EventsDiffer) {
        return vote(me, mine.0, &relations, other);
    }
    if mine.0.state == State::Differs && !mine.0.parked {
        return Verdict::MendRow;
    }
    match first(Relation::TheirsLacks).or(first(Relation::TheirsDamaged)) {
        Some(other) => Verdict::TheirsAtFault(other),
        None => Verdict::Fine,
    }
}

/// The same event with other content: a node whose row contradicts its own events has no vote; then the majority
/// counts, and where there is none, the event's origin.
fn vote(me: NodeId, mine: &Entry, relations: &[(&Witness, Relation)], other: NodeId) -> Verdict {
    let mut votes: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
    if mine.state == State::Agrees {
        votes.entry(mine.events).or_default().push(me);
    }
    for (witness, _) in relations {
        let entry = &witness.entry;
        if entry.sources == mine.sources && entry.state == State::Agrees && !entry.parked {
            votes.entry(entry.events).or_default().push(witness.node);
        }
    }
    let all: usize = votes.values().map(Vec::len).sum();
    let origin = mine.sources.first().map(|&(origin, _)| origin);
    let majority = votes.iter().find(|(_, nodes)| all < 2 * nodes.len());
    let by_origin = || votes.iter().find(|(_, nodes)| origin.is_some_and(|origin| nodes.contains(&origin)));
    match majority.or_else(by_origin) {
        Some((&events, _)) if events == mine.events => Verdict::TheirsAtFault(other),
        Some((_, nodes)) => Verdict::TakeFrom(nodes[0]),
        None => Verdict::Undecided(other),
    }
}

/// A hash that is the same on every node and every machine: FNV-1a over 64 bits, stirred at the end so that sums of it
/// keep its strength. It finds damage; it is no protection against somebody who makes collisions.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Takes bytes in, with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for byte in bytes {
            self.step(*byte);
        }
    }

    /// Takes a number in.
    pub fn number(&mut self, number: u64) {
        number.to_le_bytes().into_iter().for_each(|byte| self.step(byte));
    }

    fn step(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    /// Takes a cell in: its type and its bits.
    pub fn cell(&mut self, value: &Value) {
        match value {
            Value::Null => self.step(0),
            Value::Integer(number) => {
                self.step(1);
                self.number(number.cast_unsigned());
            }
            Value::Real(number) => {
                self.step(2);
                self.number(number.to_bits());
            }
            Value::Text(bytes) => {
                self.step(3);
                self.bytes(bytes);
            }
            Value::Blob(bytes) => {
                self.step(4);
                self.bytes(bytes);
            }
        }
    }

    /// Takes an event in, as it is stored.
    pub fn event(&mut self, id: EventId, event: &Event) {
        self.bytes(id.origin.0.as_bytes());
        self.number(id.sequence);
        self.bytes(event.operation.as_str().as_bytes());
        self.bytes(event.record_id.as_bytes());
        self.bytes(event.data.as_deref().unwrap_or_default().as_bytes());
        self.number(event.timestamp.0.cast_unsigned());
        let LayoutId(layout) = event.layout;
        self.number(layout.cast_unsigned());
    }

    /// The hash. Never 0, which stands for "nothing there".
    pub fn value(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (hash ^ (hash >> 33)).max(1)
    }
}

#[cfg(test)]
#[path = "digest/tests.rs"]
mod tests;
