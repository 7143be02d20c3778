//! The other nodes, by what they say of themselves: presence, every second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rowcast_schema::layout::LayoutId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::Fingerprint;
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The node.
    pub node: NodeId,
    /// Its human name.
    pub name: String,
    /// The run of the sidecar: two runs under one node id are an alarm.
    pub session: Uuid,
    /// Whether the local service may be used.
    pub ready: bool,
    /// Whether it ever had everything.
    pub complete: bool,
    /// How far everything is applied there; of itself: its newest finished, hardened group.
    pub vector: Vector,
    /// Whether `vector` has all of that. While the others have not confirmed its id a node tells nothing of its own events,
    /// and before its database is open, or while it loads, nothing at all.
    pub sure: bool,
    /// The fingerprint of the event at each position, as far as that event is stored there.
    pub fingerprints: Vec<(NodeId, Fingerprint)>,
    /// Numbers that an origin was found to have given out twice, with the fingerprint of the event that is kept there.
    pub forked: Vec<(NodeId, Sequence, Fingerprint)>,
    /// Up to where it cannot serve events one by one.
    pub horizon: Vector,
    /// The declaration's hash.
    pub schema: String,
    /// Its wall clock.
    pub clock: Timestamp,
    /// It wants to hear from everybody now.
    pub ask: bool,
    /// What it numbers after `vector` is later than this.
    pub stamp: Timestamp,
    /// The members that it has on its disk, and does not hold for expelled: what they lack it keeps.
    pub members: Vec<NodeId>,
    /// Whom it takes nothing from any more, and whether they are expelled.
    pub lost: Vec<(NodeId, bool)>,
    /// The layouts of its replicated tables.
    pub layouts: Vec<LayoutId>,
}

impl Presence {
    /// What a node says that has nothing yet.
    pub fn of(node: NodeId, name: &str, session: Uuid) -> Self {
        Self {
            node,
            name: name.to_owned(),
            session,
            ready: false,
            complete: false,
            vector: Vector::default(),
            sure: false,
            fingerprints: Vec::new(),
            forked: Vec::new(),
            horizon: Vector::default(),
            schema: String::new(),
            clock: Timestamp::default(),
            ask: false,
            stamp: Timestamp::default(),
            members: Vec::new(),
            lost: Vec::new(),
            layouts: Vec::new(),
        }
    }
}

/// After the first answer, how long the others may take with theirs, beside the pause that they make between two.
const ANSWERS_WAIT: Duration = Duration::from_millis(300);

/// Another node.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it said last.
    pub presence: Presence,
    /// When it said so, since this process started.
    pub seen: Duration,
    /// When it was last sure of what it said; never, maybe.
    pub sure_at: Option<Duration>,
    /// What it said then and since: that it is not sure of it any more takes nothing back.
    pub told: Vector,
    /// Its clock less ours when it said so, in milliseconds; the way of the message included.
    pub skew_millis: i64,
}

impl Member {
    /// Whether it was heard lately.
    fn is_live(&self, uptime: Duration) -> bool {
        uptime < self.seen + limits::MEMBER_TIMEOUT
    }
}

/// Everybody who was heard.
#[derive(Debug, Default)]
pub struct Members {
    all: BTreeMap<NodeId, Member>,
}

impl Members {
    /// Takes in a presence that was checked. Answers whether the member is a new one.
    pub fn heard(&mut self, presence: Presence, wall: Timestamp, uptime: Duration) -> bool {
        let node = presence.node;
        let skew_millis = presence.clock.millis() - wall.millis();
        let new = !self.all.contains_key(&node);
        if new && limits::MEMBERS_MAX <= self.all.len() {
            let oldest = self.all.iter().min_by_key(|(_, member)| member.seen).map(|(&node, _)| node);
            oldest.map(|node| self.all.remove(&node));
        }
        let before = self.all.remove(&node).filter(|before| !presence.sure && before.sure_at.is_some());
        let sure_at = if presence.sure { Some(uptime) } else { before.as_ref().and_then(|before| before.sure_at) };
        let mut told = before.map(|before| before.told).unwrap_or_default();
        told.join(&presence.vector);
        self.all.insert(node, Member { presence, seen: uptime, sure_at, told, skew_millis });
        new
    }

    /// Forgets a node that is not listened to any more.
    pub fn forget(&mut self, node: NodeId) {
        self.all.remove(&node);
    }

    /// Everybody who was ever heard by this process.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.all.values()
    }

    /// Those who were heard lately.
    pub fn live(&self, uptime: Duration) -> impl Iterator<Item = &Member> {
        self.all.values().filter(move |member| member.is_live(uptime))
    }

    /// How long after it last said that it is there a node answers who wants to hear it, where so many others are. All of them
    /// together answer fifty times a second then, whether two ask or a hundred that return at once; or each twice an
    /// interval, where they are many.
    pub fn answer_gap(others: usize, interval: Duration) -> Duration {
        limits::ANSWER_GAP.saturating_mul(u32::try_from(others).unwrap_or(u32::MAX)).min(interval / 2)
    }

    /// After the first answer, how long the others may take with theirs, where so many others are: they answer at a pace.
    pub fn answers_wait(others: usize, interval: Duration) -> Duration {
        ANSWERS_WAIT + Self::answer_gap(others, interval)
    }

    /// The name of a node, if it was heard.
    pub fn name(&self, node: NodeId) -> Option<&str> {
        self.all.get(&node).map(|member| member.presence.name.as_str())
    }

    /// How far the clocks of those who were heard lately are ahead of the one here, in milliseconds: the median. Of two in the
    /// middle the one that says less.
    pub fn median_skew(&self, uptime: Duration) -> Option<i64> {
        let mut skews: Vec<i64> = self.live(uptime).map(|member| member.skew_millis).collect();
        skews.sort_by_key(|skew| (*skew, skew.saturating_abs()));
        let (low, high) = (*skews.get(skews.len().checked_sub(1)? / 2)?, *skews.get(skews.len() / 2)?);
        Some(if low.saturating_abs() < high.saturating_abs() { low } else { high })
    }

    /// What a node said last.
    pub fn presence(&self, node: NodeId) -> Option<&Presence> {
        self.get(node).map(|member| &member.presence)
    }

    /// A member, and when it was heard.
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.all.get(&node)
    }

    /// What all live members together have.
    pub fn heads(&self, uptime: Duration) -> Vector {
        let mut heads = Vector::default();
        self.live(uptime).for_each(|member| heads.join(&member.presence.vector));
        heads
    }

    /// The most that anybody said who was ever heard, and did not take it back. Who is silent, while its name is heard under another
    /// id, has left its own or lost its disk: what only it had does not come any more.
    pub fn told(&self, uptime: Duration) -> Vector {
        let sure = self.live(uptime).filter(|member| member.presence.sure);
        let names: BTreeSet<&str> = sure.map(|member| member.presence.name.as_str()).collect();
        let mut told = Vector::default();
        let known =
            self.iter().filter(|member| member.is_live(uptime) || !names.contains(member.presence.name.as_str()));
        known.for_each(|member| told.join(&member.told));
        told
    }

    /// Who can serve events of `origin` from `first` on: the origin itself before the others.
    pub fn holders(&self, origin: NodeId, first: Sequence, uptime: Duration) -> Vec<NodeId> {
        let holds =
            |member: &&Member| first <= member.presence.vector.of(origin) && member.presence.horizon.of(origin) < first;
        let mut holders: Vec<NodeId> = self.live(uptime).filter(holds).map(|member| member.presence.node).collect();
        holders.sort_by_key(|&node| node != origin);
        holders
    }

    /// Who to load everything from: a READY node with our schema, the one that has most.
    pub fn donors(&self, schema: &str, uptime: Duration) -> Vec<NodeId> {
        let fits = |member: &&Member| member.presence.ready && member.presence.schema == schema;
        let mut donors: Vec<&Member> = self.live(uptime).filter(fits).collect();
        donors.sort_by_key(|member| std::cmp::Reverse(member.presence.vector.total()));
        donors.into_iter().map(|member| member.presence.node).collect()
    }
}
