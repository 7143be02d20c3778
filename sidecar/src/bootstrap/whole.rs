//! A node that has no database file takes another node's whole: everything that it needs is in there, at one position
//! vector.
//!
//! [`Seeking`] is the node before it has a database: it says that it is there, listens, and knows whom to ask. Its donor
//! has it among its members, on the disk, before it makes the copy; so it keeps from the copy's vector on what this node
//! lacks. [`settle`] is what becomes of the copy, in which [`level`] puts right what was ahead of its events.
//!
//! [`Seeking`] is pure: time and messages come in, what is to be sent goes out. [`settle`] and [`level`] work on a file that
//! nobody else has open. `node` moves the bytes, the files are `edge/store/whole`.

pub mod level;
pub mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::limits;
use crate::members::{Members, Presence};
use crate::observe::status::{Code, Member, Reason, State};
use crate::position::{NodeId, Vector};
use crate::replica::{Input, Moment};
use crate::wire::{self, Message};

/// What a donor answers about a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whole {
    /// A copy is ready.
    Offer(Offer),
    /// One is being made for the node that asks, which asks again.
    Making,
    /// Not now: why.
    Later(String),
    /// A part of it.
    Chunk(Chunk),
    /// The hash over all of it.
    Hash([u8; 32]),
}

/// A copy that is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub copy: Uuid,
    /// Its size.
    pub bytes: u64,
    /// Up to where it has everything.
    pub vector: Vector,
}

/// A part of a copy.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Of which one.
    pub copy: Uuid,
    /// Its place.
    pub at: u64,
    /// The bytes, compressed with zstd.
    #[serde(serialize_with = "as_bytes", deserialize_with = "from_bytes")]
    pub packed: Vec<u8>,
}

/// The quickest that still makes a quarter of it: who waits is a node that is not READY.
const LEVEL: i32 = -1;

/// The most that a chunk can become by being compressed.
const PACKED_MAX: usize = limits::WHOLE_CHUNK_BYTES + limits::WHOLE_CHUNK_BYTES / 128;

impl Chunk {
    /// A part of a copy, ready to be sent.
    ///
    /// # Errors
    /// When zstd refuses.
    pub fn pack(copy: Uuid, at: u64, bytes: &[u8]) -> std::io::Result<Self> {
        Ok(Self { copy, at, packed: zstd::bulk::compress(bytes, LEVEL)? })
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk {{ copy: {}, at: {}, packed: {} bytes }}", self.copy, self.at, self.packed.len())
    }
}

/// As one piece: byte by byte would take longer than everything else.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn from_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Read;
    impl Visitor<'_> for Read {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the bytes of a chunk")
        }
        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            if PACKED_MAX < bytes.len() {
                return Err(E::custom("a chunk that is too long"));
            }
            Ok(bytes.to_vec())
        }
    }
    deserializer.deserialize_bytes(Read).map_err(D::Error::custom)
}

const CHUNK: u64 = limits::WHOLE_CHUNK_BYTES as u64;

/// The smallest page of SQLite: no database is smaller, and every one is a multiple of it.
const PAGE_MIN: u64 = 512;

/// More than SQLite can have in one database: 2^32 pages of 64 KiB.
const BYTES_MAX: u64 = 1 << 48;

impl Offer {
    /// Whether a database can have that size.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), String> {
        if self.bytes < PAGE_MIN || BYTES_MAX < self.bytes || !self.bytes.is_multiple_of(PAGE_MIN) {
            return Err(format!("no database has {} bytes", self.bytes));
        }
        Ok(())
    }

    /// The number of its chunks.
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(CHUNK)
    }

    /// Where a chunk begins, and how long it is; none beyond the end.
    pub fn place(&self, at: u64) -> Option<(u64, usize)> {
        let from = at.checked_mul(CHUNK).filter(|from| *from < self.bytes)?;
        Some((from, usize::try_from(CHUNK.min(self.bytes - from)).unwrap_or(0)))
    }

    /// The bytes of a chunk, and where they belong, if it is the one that was asked for and as long as it must be.
    ///
    /// # Errors
    /// Why not.
    pub fn unpack(&self, chunk: &Chunk, at: u64) -> Result<(u64, Vec<u8>), String> {
        let place = self.place(at).filter(|_| chunk.copy == self.copy && chunk.at == at);
        let Some((from, length)) = place else { return Err(format!("chunk {at} was asked for, and {chunk:?} came")) };
        // Memory is taken for what it must be, whatever the bytes promise.
        let bytes = zstd::bulk::decompress(&chunk.packed, length)
            .map_err(|error| format!("chunk {at} does not unpack to {length} bytes: {error}"))?;
        if bytes.len() == length { Ok((from, bytes)) } else { Err(format!("chunk {at} has {} bytes", bytes.len())) }
    }
}

/// The hash of one chunk.
pub fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The hash over a whole copy: over the hashes of its chunks, in their order.
pub fn hash_over(chunks: &[[u8; 32]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    chunks.iter().for_each(|chunk| hash.update(chunk));
    hash.finalize().into()
}

/// After the first answer, how long a better donor may take with its own, where it is not known that all have answered. Short:
/// every donor is right, the best one only saves fetching.
const BETTER_WAIT: Duration = Duration::from_millis(50);

/// How long it waits until everybody keeps what it lacks. Its donor does in any case.
const ADMISSION_WAIT: Duration = Duration::from_secs(10);

/// A node that has no database yet.
#[derive(Debug)]
pub struct Seeking {
    own: NodeId,
    session: Uuid,
    name: String,
    schema: String,
    interval: Duration,
    members: Members,
    /// What each of them said last, as it came.
    frames: BTreeMap<NodeId, Bytes>,
    since: Duration,
    answered_at: Option<Duration>,
    present_at: Option<Duration>,
    said_at: Option<Duration>,
    answer_wanted: bool,
}

/// What a presence was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Another node's.
    Other,
    /// Somebody else speaks under this node's id.
    Twin,
    /// Nothing that can be read.
    Nothing,
}

impl Seeking {
    /// Begins. `schema` is the hash of the declaration, `interval` how often it says that it is there.
    pub fn new(own: NodeId, session: Uuid, name: &str, schema: String, interval: Duration, at: Moment) -> Self {
        Self {
            own,
            session,
            name: name.to_owned(),
            schema,
            interval,
            members: Members::default(),
            frames: BTreeMap::new(),
            since: at.uptime,
            answered_at: None,
            present_at: None,
            said_at: None,
            answer_wanted: false,
        }
    }

    /// Takes in what a node says of itself.
    pub fn heard(&mut self, frame: &Bytes, at: Moment) -> Heard {
        let Ok(Message::Presence(presence)) = wire::decode(frame) else { return Heard::Nothing };
        if presence.node == self.own {
            return if presence.session == self.session { Heard::Nothing } else { Heard::Twin };
        }
        self.answered_at.get_or_insert(at.uptime);
        self.answer_wanted |= presence.ask;
        let node = presence.node;
        if self.members.heard(presence, at.wall, at.uptime) {
            self.present_at = None; // Who waits to be kept for should hear it at once.
        }
        self.frames.insert(node, frame.clone());
        let members = &self.members;
        self.frames.retain(|node, _| members.presence(*node).is_some());
        Heard::Other
    }

    /// What this node says of itself, when it is time or somebody wants to hear it.
    pub fn presence(&mut self, at: Moment) -> Option<Vec<u8>> {
        let due = self.present_at.is_none_or(|last| last + self.interval <= at.uptime);
        let gap = Members::answer_gap(self.members.live(at.uptime).count(), self.interval);
        let may_answer = self.said_at.is_none_or(|last| last + gap <= at.uptime);
        if !(due || (self.answer_wanted && may_answer)) {
            return None;
        }
        if due {
            self.present_at = Some(at.uptime);
        }
        self.said_at = Some(at.uptime);
        self.answer_wanted = false;
        let presence = Presence {
            schema: self.schema.clone(),
            clock: at.wall,
            ask: due,
            // It has nothing that it could throw away, and they will be in its database from its first moment on.
            members: self.members.iter().map(|member| member.presence.node).collect(),
            ..Presence::of(self.own, &self.name, self.session)
        };
        Some(wire::encode(&Message::Presence(presence)))
    }

    /// The connection is new: nobody has heard this node on it.
    pub fn connected(&mut self) {
        self.present_at = None;
    }

    /// Whom to ask for everything, the best first; none while it is not known who is there, or not all that are heard
    /// keep what this node lacks.
    pub fn donors(&self, at: Moment) -> Vec<NodeId> {
        let Some(first) = self.answered_at else { return Vec::new() };
        let settled = self.all_have_answered(at) || first + BETTER_WAIT <= at.uptime;
        let mut live = self.members.live(at.uptime);
        let kept = live.all(|member| member.presence.members.contains(&self.own));
        if !settled || !(kept || self.since + ADMISSION_WAIT <= at.uptime) {
            return Vec::new();
        }
        let keeps = |donor: &NodeId| {
            let mut live = self.members.live(at.uptime);
            live.any(|member| member.presence.node == *donor && member.presence.members.contains(&self.own))
        };
        self.members.donors(&self.schema, at.uptime).into_iter().filter(keeps).collect()
    }

    /// Whether everybody of whom anybody speaks was heard.
    fn all_have_answered(&self, at: Moment) -> bool {
        let live = self.live(at);
        !live.is_empty() && self.named(at).is_subset(&live)
    }

    fn live(&self, at: Moment) -> BTreeSet<NodeId> {
        self.members.live(at.uptime).map(|member| member.presence.node).collect()
    }

    /// All who were heard lately, and of whom these speak.
    fn named(&self, at: Moment) -> BTreeSet<NodeId> {
        let live = self.members.live(at.uptime);
        let named = live.flat_map(|member| member.presence.members.iter().chain([&member.presence.node]));
        named.copied().filter(|node| *node != self.own).collect()
    }

    /// Who was heard: id and name.
    pub fn members(&self) -> Vec<(NodeId, String)> {
        self.members.iter().map(|member| (member.presence.node, member.presence.name.clone())).collect()
    }

    /// What the node begins with that goes on with a database: what those said last that were heard lately. One whose database
    /// was `taken` need not ask who is there once more, if all have answered, or had the time for it.
    pub fn into_inputs(self, taken: bool, at: Moment) -> Vec<Input> {
        let wait = Members::answers_wait(self.named(at).len(), self.interval);
        let had_time = self.answered_at.is_some_and(|first| first + wait <= at.uptime);
        let live = self.live(at);
        let settled = self.all_have_answered(at) || (had_time && !live.is_empty());
        let frames = self.frames.into_iter().filter(|(node, _)| live.contains(node)).map(|(_, frame)| frame);
        if taken && settled { vec![Input::Taken(frames.collect())] } else { frames.map(Input::Presence).collect() }
    }

    /// The name of a node.
    pub fn name_of(&self, node: NodeId) -> String {
        self.members.name(node).map_or_else(|| node.to_string(), str::to_owned)
    }

    /// Why the node is not READY while nothing is being taken.
    pub fn reason(&self, at: Moment) -> Reason {
        if self.answered_at.is_none() {
            return Reason::new(
                Code::NoPeerAnswered,
                "no other node has answered, so it is not known whether there is data elsewhere",
            );
        }
        if !self.members.donors(&self.schema, at.uptime).is_empty() {
            let text =
                "other nodes have answered, and this node begins in a moment to take the database of one of them";
            return Reason::new(Code::Starting, text);
        }
        Reason::new(Code::NoPeerAnswered, "other nodes answered, but none of them is READY and can be loaded from")
            .with_hint("wait for one of them, or read why they are not READY")
    }

    /// The others, for the status page.
    pub fn shown(&self, at: Moment) -> Vec<Member> {
        let shown = |member: &crate::members::Member| Member {
            name: member.presence.name.clone(),
            id: member.presence.node.0,
            state: if member.presence.ready { State::Ready } else { State::NotReady },
            seen_seconds_ago: at.uptime.saturating_sub(member.seen).as_secs_f64(),
            position: member.presence.vector.iter().map(|(origin, position)| (origin.0, position)).collect(),
            schema_matches: member.presence.schema == self.schema,
        };
        self.members.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests;
