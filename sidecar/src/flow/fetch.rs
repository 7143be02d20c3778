//! Asks for what is missing: whom, when, and when again.
//!
//! One request an origin is under way at a time, or a few for ranges one behind the other. The origin is asked first, then any
//! other member that has the events. A request that brought nothing is followed by a growing, jittered pause and the next holder.

use std::collections::BTreeMap;
use std::time::Duration;

use rowcast_schema::layout::LayoutId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::order::Gap;
use crate::limits;
use crate::members::Members;
use crate::position::{NodeId, Sequence};
use crate::steady::digest::Range;
use crate::supervise::Retry;

/// A request under way.
pub type AskId = u64;

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Events of one origin.
    Fetch {
        /// Whose.
        origin: NodeId,
        /// From here.
        first: Sequence,
        /// To here, or less.
        last: Sequence,
        /// About so many bytes of events, and at least one event; the one that is asked has a bound of its own.
        bytes: usize,
    },
    /// Records of one table.
    Snapshot {
        /// Which.
        table: String,
        /// After this record id.
        after: Option<String>,
        /// About so many bytes of events, as of a fetch.
        bytes: usize,
    },
    /// The declared tables' definitions, and the position vector.
    Definitions,
    /// How records of one table differ from these sums.
    Digest {
        /// Which.
        table: String,
        /// Its layout at the node that asks.
        layout: LayoutId,
        /// The first range begins after this record id.
        after: Option<String>,
        /// The ranges, one after the other.
        ranges: Vec<Range>,
    },
    /// Records by name, as they are there.
    Entries {
        /// Of which table.
        table: String,
        /// Their record ids.
        records: Vec<String>,
    },
    /// The events that the content of some records comes from.
    Records {
        /// Of which table.
        table: String,
        /// Their record ids.
        records: Vec<String>,
    },
    /// A copy of the whole database, for a node that has none.
    Whole {
        /// Who asks: it must be among the members on the disk there.
        joiner: NodeId,
        /// The hash of its declaration.
        schema: String,
    },
    /// A part of such a copy.
    Chunk {
        /// Which copy.
        copy: Uuid,
        /// Its place: 0, 1, 2, each of [`limits::WHOLE_CHUNK_BYTES`].
        at: u64,
    },
    /// The copy was taken, or is not wanted any more; asks for the hash over all of it.
    Ended {
        /// Which copy.
        copy: Uuid,
    },
    /// What tells events of one origin from others of their numbers, as far as they are stored there.
    Fingerprints {
        /// Whose.
        origin: NodeId,
        /// From here.
        first: Sequence,
        /// To here: [`limits::FINGERPRINTS_MAX`] numbers at most.
        last: Sequence,
    },
}

impl Request {
    /// The last token of the subject.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Fetch { .. } => "fetch",
            Self::Snapshot { .. } => "snapshot",
            Self::Definitions => "definitions",
            Self::Digest { .. } => "digest",
            Self::Entries { .. } => "entries",
            Self::Records { .. } => "records",
            Self::Whole { .. } => "whole",
            Self::Chunk { .. } => "chunk",
            Self::Ended { .. } => "ended",
            Self::Fingerprints { .. } => "fingerprints",
        }
    }
}

/// All fetches.
#[derive(Debug)]
pub struct Fetching {
    lanes: BTreeMap<NodeId, Lane>,
    spread: Spread,
}

/// Numbers between 0 and 1 that differ from node to node and from time to time, and are the same in each repetition
/// from the same seed: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug)]
struct Spread(u64);

impl Spread {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("bug: 32 bits fit 32 bits");
        f64::from(high) / f64::from(u32::MAX)
    }
}

#[derive(Debug)]
struct Lane {
    /// What was asked for, in which turn, and is not answered.
    under_way: Vec<(AskId, Gap, usize)>,
    /// How large the events of its last answer were.
    sizes: Option<Sizes>,
    not_before: Duration,
    pauses: Retry,
    turn: usize,
}

impl Lane {
    fn new() -> Self {
        let pauses = Retry::doubling(limits::RETRY_DELAY_MIN, limits::RETRY_DELAY_MAX);
        Self { under_way: Vec::new(), sizes: None, not_before: Duration::ZERO, pauses, turn: 0 }
    }

    /// The first part of a gap that nobody was asked for.
    fn unasked(&self, gap: Gap) -> Option<Gap> {
        let mut asked: Vec<Gap> = self.under_way.iter().map(|(_, asked, _)| *asked).collect();
        asked.sort_by_key(|asked| asked.first);
        let (mut first, mut last) = (gap.first, gap.last);
        for asked in asked {
            if first < asked.first {
                last = last.min(asked.first - 1);
                break;
            }
            first = first.max(asked.last + 1);
        }
        (first <= last).then_some(Gap { first, last, ..gap })
    }
}

/// Events that one answer has room for, or one request at a time is made.
const MANY: usize = 16;

/// How large the events of an answer were, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// In the mean.
    pub mean: usize,
    /// The largest.
    pub largest: usize,
}

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of events in one answer, about.
    pub bytes: usize,
    /// Requests at the same time; each origin may have one in any case.
    pub at_once: usize,
}

impl Fetching {
    /// No fetch under way. The seed spreads the pauses: nodes that lost the same holder must not come back together.
    pub fn new(seed: u64) -> Self {
        Self { lanes: BTreeMap::new(), spread: Spread(seed) }
    }

    /// The requests to send now. `next_ask` gives their numbers.
    pub fn plan(
        &mut self,
        (gaps, amount): (&[Gap], Amount),
        members: &Members,
        uptime: Duration,
        mut next_ask: impl FnMut() -> AskId,
    ) -> Vec<(AskId, NodeId, Request)> {
        let Amount { bytes, at_once } = amount;
        let mut requests = Vec::new();
        let mut under_way: usize = self.lanes.values().map(|lane| lane.under_way.len()).sum();
        for &gap in gaps {
            let lane = self.lanes.entry(gap.origin).or_insert_with(Lane::new);
            if uptime < lane.not_before {
                continue;
            }
            // Large events come one at a time: a few fill the memory and the link.
            let at_once = if lane.sizes.is_some_and(|sizes| sizes.largest <= bytes / MANY) { at_once } else { 1 };
            while (lane.under_way.is_empty() || under_way < at_once)
                && let Some(mut part) = lane.unasked(gap)
            {
                let holders = members.holders(gap.origin, part.first, uptime);
                let Some(&holder) = holders.get(lane.turn % holders.len().max(1)) else { break };
                // Where one answer ends the next one begins only if all that is asked for fits: what does not is a gap again.
                if let Some(sizes) = lane.sizes.filter(|_| 1 < at_once) {
                    let count = (bytes - bytes / 8) / sizes.mean.max(1);
                    part.last = part.last.min(part.first.saturating_add(count as Sequence).max(part.first + 1) - 1);
                }
                let ask = next_ask();
                lane.under_way.push((ask, part, lane.turn));
                under_way += 1;
                let request = Request::Fetch { origin: gap.origin, first: part.first, last: part.last, bytes };
                requests.push((ask, holder, request));
            }
        }
        requests
    }

    /// Whose events were asked for, if the request is one of ours.
    pub fn origin_of(&self, ask: AskId) -> Option<NodeId> {
        let asked = |lane: &Lane| lane.under_way.iter().any(|(asked, ..)| *asked == ask);
        self.lanes.iter().find(|(_, lane)| asked(lane)).map(|(&origin, _)| origin)
    }

    /// A request for events of `origin` has ended. `useful`: how large its events were; none: it brought nothing.
    pub fn ended(&mut self, (origin, ask): (NodeId, AskId), useful: Option<Sizes>, uptime: Duration) {
        let Some(lane) = self.lanes.get_mut(&origin) else { return };
        let Some(at) = lane.under_way.iter().position(|(asked, ..)| *asked == ask) else { return };
        let (.., turn) = lane.under_way.swap_remove(at);
        lane.sizes = useful; // After a failure one request is enough, until it brings something.
        if useful.is_some() {
            lane.pauses.reset();
        } else if turn == lane.turn {
            // Of several that fail together only the first one counts: it is the next holder's turn, not that of the one after it.
            lane.turn = lane.turn.wrapping_add(1);
            lane.not_before = uptime + lane.pauses.pause().mul_f64(0.5 + self.spread.next());
        }
    }

    /// What was asked for of an origin is not taken any more.
    pub fn freeze(&mut self, origin: NodeId) {
        self.lanes.remove(&origin);
    }

    /// The connection was lost: what was under way will not be answered.
    pub fn forget(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.under_way.clear());
    }
}
