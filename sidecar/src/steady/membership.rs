//! Who belongs to the cluster, as this node knows it: what keeps an event from being compacted, and who is expelled.
//!
//! Every node that was ever heard, by itself or from another one, is a member until it is expelled. What a member said
//! counts once this node has caught up with it: its vector, its clock, and whom it holds for lost, all of one moment.
//!
//! **Expulsion.** A node that has heard nothing of a member for the member timeout, while it hears a majority, holds it
//! for lost. That is for good: from that moment on, and before it says so, it takes nothing any more that comes from the
//! lost one; only what others that are not expelled have of it. Only a READY node does that, and only one that has heard
//! a majority for an eighth of the time-out without a break: when a whole cluster slept, those who wake up first give
//! nobody up. A member that a majority of the members (the lost one counts among them) holds for lost is expelled; so is
//! one that an operator expels. So a majority of two cannot be reached by one, and of two parts of a split cluster only
//! the greater one expels.
//!
//! **Starting over.** An expelled node that is told so by a READY one takes a new node id, and loads everything again. Of
//! two that hear each other, where one holds the other for lost and nobody is expelled, the one with the greater id does
//! that: else two that could not hear each other for the time-out would shut each other out for ever. Only a READY node
//! is heeded, and only somebody READY is loaded from, so of all that accuse each other the least stays READY.
//!
//! Pure: time and what was heard come in; what has to be stored goes out, and takes effect when it is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits;
use crate::members::Presence;
use crate::position::{NodeId, Vector};

/// What a member is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It belongs to the cluster.
    Member,
    /// This node holds it for lost, and takes nothing from it any more.
    Lost,
    /// It is expelled: it comes back as another node only.
    Expelled,
}

impl Standing {
    /// As it stands in the table and on the page.
    pub fn word(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Lost => "lost",
            Self::Expelled => "expelled",
        }
    }

    /// The standing of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Member, Self::Lost, Self::Expelled].into_iter().find(|standing| standing.word() == word)
    }
}

/// What a member said, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// How far it had everything.
    pub vector: Vector,
    /// What it numbers after that vector is later than this.
    pub stamp: Timestamp,
    /// Whom it took nothing from any more.
    pub lost: BTreeSet<NodeId>,
}

/// A member as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The node.
    pub node: NodeId,
    /// Its human name; empty when only others spoke of it.
    pub name: String,
    /// The wall clock when it was heard last, or heard of first.
    pub heard_at: Timestamp,
    /// What it said, as far as this node had caught up with it.
    pub said: Said,
    /// What it is to this node.
    pub standing: Standing,
}

/// Why nothing is compacted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Less than a majority of the members is heard.
    Minority {
        /// How many are heard, this node included.
        heard: usize,
        /// How many members there are, this node included.
        of: usize,
    },
    /// A member has not said yet that it takes nothing from the expelled ones any more.
    Expelling(NodeId),
}

/// What every member has, and is past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Every member has everything up to here, and so has this node.
    pub covered: Vector,
    /// What any member makes that this node does not have is later than this.
    pub stamp: Timestamp,
}

/// What a node said last of itself and of this node.
#[derive(Clone, Copy, Debug)]
struct Word {
    at: Duration,
    ready: bool,
    /// Whether it holds this node for lost or expelled.
    accused: Option<Standing>,
}

#[derive(Clone, Debug)]
struct Row {
    enrolled: Enrolled,
    /// What it said last, while this node has not caught up with it.
    ahead: Option<Said>,
    /// Whether it was heard in this process.
    heard: bool,
    /// Last heard in this process; before that, since when it is known.
    since: Duration,
    /// For how long it had been silent before that.
    before: Duration,
    /// What it said last, listened to or not.
    word: Option<Word>,
    /// Whether the row is on the disk as it stands here.
    stored: bool,
}

/// All members but this node.
#[derive(Debug, Default)]
pub struct Membership {
    rows: BTreeMap<NodeId, Row>,
    /// Expelled by the word of others; takes effect when it is stored.
    told: BTreeSet<NodeId>,
    refreshed: Duration,
    looked_at: Duration,
    /// Since when a majority is heard without a break.
    majority_since: Option<Duration>,
}

/// How often what members said is stored, when nothing else has to be.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

impl Membership {
    /// As it was stored.
    pub fn new(enrolled: Vec<Enrolled>, wall: Timestamp, uptime: Duration) -> Self {
        let row = |enrolled: Enrolled| {
            let millis = wall.millis().saturating_sub(enrolled.heard_at.millis());
            let before = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            (enrolled.node, Row { before, stored: true, ..Row::new(enrolled, uptime) })
        };
        Self { rows: enrolled.into_iter().map(row).collect(), refreshed: uptime, looked_at: uptime, ..Self::default() }
    }

    /// Takes in what a node says of itself and of others. Answers whether it is listened to: not when it is lost or
    /// expelled.
    pub fn heard(&mut self, own: NodeId, presence: &Presence, wall: Timestamp, uptime: Duration) -> bool {
        let accused = presence.lost.iter().find(|(node, _)| *node == own);
        let accused = accused.map(|&(_, expelled)| if expelled { Standing::Expelled } else { Standing::Lost });
        let word = Some(Word { at: uptime, ready: presence.ready, accused });
        if self.is_frozen(presence.node) {
            self.rows.entry(presence.node).and_modify(|row| row.word = word);
            return false;
        }
        if !self.enrol(presence.node, wall, uptime) {
            return true; // The list is full: it is heard, and does not count.
        }
        let mut said = Said { vector: presence.vector.clone(), stamp: presence.stamp, lost: BTreeSet::new() };
        for &(node, expelled) in presence.lost.iter().take(limits::EXPELLED_MAX) {
            said.lost.insert(node);
            if expelled && node != own && self.enrol(node, wall, uptime) {
                self.told.insert(node);
            }
        }
        for &node in presence.members.iter().take(limits::MEMBERS_MAX).filter(|node| **node != own) {
            self.enrol(node, wall, uptime);
        }
        let row = self.rows.get_mut(&presence.node).expect("bug: enrolled above");
        if row.enrolled.name != presence.name {
            row.enrolled.name.clone_from(&presence.name);
            row.stored = false;
        }
        (row.since, row.before, row.enrolled.heard_at) = (uptime, Duration::ZERO, wall);
        (row.ahead, row.heard, row.word) = (Some(said), true, word);
        true
    }

    /// Has a node among the members. Answers whether it is, or there is no room.
    fn enrol(&mut self, node: NodeId, wall: Timestamp, uptime: Duration) -> bool {
        if self.rows.contains_key(&node) {
            return true;
        }
        // The expelled ones are remembered beside the members, for good: under that id nobody may come back.
        let members = self.unexpelled().count();
        if limits::MEMBERS_MAX <= members || limits::MEMBERS_MAX + limits::EXPELLED_MAX <= self.rows.len() {
            return false;
        }
        let enrolled =
            Enrolled { node, name: String::new(), heard_at: wall, said: Said::default(), standing: Standing::Member };
        self.rows.insert(node, Row::new(enrolled, uptime));
        true
    }

    /// What was said counts now, as far as `own` has caught up with it.
    pub fn caught_up(&mut self, own: &Vector) {
        for row in self.rows.values_mut() {
            if let Some(said) = row.ahead.take_if(|said| own.covers(&said.vector)) {
                row.enrolled.said = said;
            }
        }
    }

    /// Whether nothing is taken from that node any more.
    pub fn is_frozen(&self, node: NodeId) -> bool {
        self.standing(node).is_some_and(|standing| standing != Standing::Member)
    }

    /// What a node is to this one; none when it was never heard of.
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        self.rows.get(&node).map(|row| row.enrolled.standing)
    }

    /// Its name, or its id where nobody told a name.
    pub fn name(&self, node: NodeId) -> String {
        let name = self.rows.get(&node).map(|row| row.enrolled.name.as_str()).filter(|name| !name.is_empty());
        name.map_or_else(|| node.to_string(), str::to_owned)
    }

    /// All that were ever heard of, as they stand.
    pub fn iter(&self) -> impl Iterator<Item = &Enrolled> {
        self.rows.values().map(|row| &row.enrolled)
    }

    /// What presence says of the others: the members that are on the disk here; and the lost ones, with whether they
    /// are expelled.
    pub fn told(&self) -> (Vec<NodeId>, Vec<(NodeId, bool)>) {
        let stored = || self.rows.values().filter(|row| row.stored || row.enrolled.standing != Standing::Member);
        let members = stored().filter(|row| row.enrolled.standing != Standing::Expelled);
        let lost = stored().filter(|row| row.enrolled.standing != Standing::Member);
        (
            members.map(|row| row.enrolled.node).collect(),
            lost.map(|row| (row.enrolled.node, row.enrolled.standing == Standing::Expelled)).collect(),
        )
    }

    fn unexpelled(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().filter(|row| row.enrolled.standing != Standing::Expelled)
    }

    /// The number of members, this node included.
    pub fn count(&self) -> usize {
        self.unexpelled().count() + 1
    }

    /// The number of members that are heard, this node included.
    pub fn heard_count(&self, uptime: Duration) -> usize {
        let live = |row: &&Row| row.enrolled.standing == Standing::Member && row.is_live(uptime);
        self.unexpelled().filter(live).count() + 1
    }

    fn is_majority(&self, count: usize) -> bool {
        self.count() < 2 * count
    }

    /// How many members hold `node` for lost, this node included.
    fn votes(&self, node: NodeId) -> usize {
        let says = |row: &&Row| row.enrolled.said.lost.contains(&node) || row.says_ahead(node);
        self.unexpelled().filter(|row| row.enrolled.node != node).filter(says).count()
            + usize::from(self.is_frozen(node))
    }

    /// Whether this node has to start over under a new node id: it is expelled, or gives way to another one.
    pub fn must_start_over(&self, own: NodeId, uptime: Duration) -> bool {
        self.heeded(own, uptime).next().is_some()
    }

    /// Whether one of those on whose word this node starts over is one that it does not listen to now: afterwards it does, and can
    /// load from it.
    pub fn gives_way_to_lost(&self, own: NodeId, uptime: Duration) -> bool {
        self.heeded(own, uptime).any(|row| row.enrolled.standing == Standing::Lost)
    }

    /// The nodes on whose word this one has to start over. They are READY.
    fn heeded(&self, own: NodeId, uptime: Duration) -> impl Iterator<Item = &Row> {
        self.rows.values().filter(move |row| {
            let Some(word) = row.word.filter(|word| word.ready && uptime < word.at + limits::MEMBER_TIMEOUT) else {
                return false;
            };
            match (row.enrolled.standing, word.accused) {
                (Standing::Expelled, _) | (Standing::Member, None) => false,
                (_, Some(Standing::Expelled)) => true,
                (Standing::Lost, _) | (Standing::Member, Some(_)) => row.enrolled.node < own,
            }
        })
    }

    /// This node starts over, and has left the id `old` behind: nobody is to wait for it. It gives up nobody by its own
    /// word alone any more. Answers the rows that have to be stored; they take effect with [`Membership::stored`].
    pub fn start_over(&mut self, old: NodeId, wall: Timestamp, uptime: Duration) -> Vec<Enrolled> {
        let lost = |row: &&mut Row| row.enrolled.standing == Standing::Lost;
        let mut due = Vec::new();
        for row in self.rows.values_mut().filter(lost) {
            row.enrolled.standing = Standing::Member;
            (row.since, row.before) = (uptime, Duration::ZERO);
            due.push(row.enrolled.clone());
        }
        if self.enrol(old, wall, uptime) {
            let row = &self.rows[&old];
            due.push(Enrolled { standing: Standing::Expelled, ..row.enrolled.clone() });
        }
        due
    }

    /// The rows that have to be stored, with what changes in them. They take effect with [`Membership::stored`]. Without a
    /// timeout this node holds nobody for lost by itself. To be called every second or so: who stood still has not listened.
    pub fn due(&mut self, timeout: Option<Duration>, uptime: Duration) -> Vec<Enrolled> {
        let stood_still = self.looked_at + limits::MEMBER_TIMEOUT < uptime;
        self.looked_at = uptime;
        if stood_still || !self.is_majority(self.heard_count(uptime)) {
            self.majority_since = None;
        } else {
            self.majority_since.get_or_insert(uptime);
        }
        let listened = self.majority_since.map_or(Duration::ZERO, |since| uptime.saturating_sub(since));
        let timeout = timeout.filter(|timeout| *timeout / 8 <= listened && self.majority_since.is_some());
        let refresh = self.refreshed + REFRESH_INTERVAL <= uptime;
        let mut due = Vec::new();
        for row in self.rows.values() {
            let node = row.enrolled.node;
            let expelled = self.told.contains(&node) || self.is_majority(self.votes(node));
            let standing = match row.enrolled.standing {
                Standing::Member | Standing::Lost if expelled => Standing::Expelled,
                Standing::Member if timeout.is_some_and(|timeout| row.is_lost(timeout, uptime)) => Standing::Lost,
                standing => standing,
            };
            let live = standing == Standing::Member && row.is_live(uptime);
            if !row.stored || standing != row.enrolled.standing || (refresh && live) {
                due.push(Enrolled { standing, ..row.enrolled.clone() });
            }
        }
        due
    }

    /// What is on the disk now. Answers the nodes that nothing is taken from any more since.
    pub fn stored(&mut self, enrolled: Vec<Enrolled>, uptime: Duration) -> Vec<NodeId> {
        self.refreshed = uptime;
        let mut frozen = Vec::new();
        for enrolled in enrolled {
            let node = enrolled.node;
            let was_frozen = self.is_frozen(node);
            let standing = enrolled.standing;
            let row = self.rows.entry(node).or_insert_with(|| Row::new(enrolled, uptime));
            (row.enrolled.standing, row.stored) = (standing, true);
            if standing != Standing::Member && !was_frozen {
                frozen.push(node);
            }
            if standing == Standing::Expelled {
                self.told.remove(&node);
            }
        }
        frozen
    }

    /// What every member has and is past; or why nothing may go now.
    ///
    /// # Errors
    /// The reason.
    pub fn bound(&self, own: &Vector, stamp: Timestamp, uptime: Duration) -> Result<Bound, Hold> {
        let heard = self.heard_count(uptime);
        if !self.is_majority(heard) {
            return Err(Hold::Minority { heard, of: self.count() });
        }
        let expelled = || self.rows.values().filter(|row| row.enrolled.standing == Standing::Expelled);
        let mut bound = Bound { covered: own.clone(), stamp };
        for row in self.unexpelled() {
            let said = &row.enrolled.said;
            if !expelled().all(|expelled| said.lost.contains(&expelled.enrolled.node)) {
                return Err(Hold::Expelling(row.enrolled.node));
            }
            bound.covered.meet(&said.vector);
            bound.stamp = bound.stamp.min(said.stamp);
        }
        Ok(bound)
    }
}

impl Row {
    fn new(enrolled: Enrolled, since: Duration) -> Self {
        Self { enrolled, ahead: None, heard: false, since, before: Duration::ZERO, word: None, stored: false }
    }

    fn is_live(&self, uptime: Duration) -> bool {
        self.heard && uptime < self.since + limits::MEMBER_TIMEOUT
    }

    /// Silent for the time-out. This process has listened for a good part of it: see [`Membership::due`].
    fn is_lost(&self, timeout: Duration, uptime: Duration) -> bool {
        let here = uptime.saturating_sub(self.since);
        timeout / 8 <= here && timeout <= here.saturating_add(self.before)
    }

    fn says_ahead(&self, node: NodeId) -> bool {
        self.ahead.as_ref().is_some_and(|said| said.lost.contains(&node))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(800);
    const NOW: Timestamp = Timestamp(1 << 60);

    fn node(id: u128) -> NodeId {
        NodeId(Uuid::from_u128(id))
    }

    fn presence(id: u128, position: u64, lost: &[(u128, bool)]) -> Presence {
        Presence {
            ready: true,
            complete: true,
            vector: [(node(id), position)].into_iter().collect(),
            clock: NOW,
            stamp: Timestamp(100 + i64::try_from(position).unwrap()),
            lost: lost.iter().map(|&(id, expelled)| (node(id), expelled)).collect(),
            ..Presence::of(node(id), &format!("n{id}"), Uuid::from_u128(id))
        }
    }

    /// Node 1, with these members heard at the time.
    fn membership(ids: &[u128], uptime: Duration) -> Membership {
        let mut membership = Membership::default();
        for &id in ids {
            assert!(membership.heard(node(1), &presence(id, 5, &[]), NOW, uptime));
        }
        store(&mut membership, uptime);
        membership
    }

    fn store(membership: &mut Membership, uptime: Duration) -> Vec<NodeId> {
        let due = membership.due(Some(TIMEOUT), uptime);
        membership.stored(due, uptime)
    }

    /// Some go on to be heard, for an eighth of the time-out. Answers when that is over, and who was given up.
    fn listen(membership: &mut Membership, ids: &[u128], from: Duration) -> (Duration, Vec<NodeId>) {
        let mut given_up = Vec::new();
        for second in 0..TIMEOUT.as_secs() / 8 + 2 {
            let uptime = from + Duration::from_secs(second);
            for &id in ids {
                membership.heard(node(1), &presence(id, 5, &[]), NOW, uptime);
            }
            given_up.extend(store(membership, uptime));
        }
        (from + TIMEOUT / 8 + Duration::from_secs(1), given_up)
    }

    fn everything(positions: &[(u128, u64)]) -> Vector {
        positions.iter().map(|&(id, position)| (node(id), position)).collect()
    }

    #[test]
    fn what_all_have_and_are_past_is_the_least_of_what_they_said() {
        let mut membership = membership(&[2, 3], Duration::ZERO);
        let own = everything(&[(1, 9), (2, 5), (3, 5)]);
        let bound = |membership: &Membership| membership.bound(&own, Timestamp(500), Duration::ZERO);
        assert_eq!(bound(&membership).unwrap().covered, Vector::default(), "what they said is not caught up with");
        membership.caught_up(&own);
        let mut said = presence(2, 6, &[]);
        said.vector = everything(&[(1, 4), (2, 6)]);
        membership.heard(node(1), &said, NOW, Duration::ZERO);
        membership.caught_up(&own);
        assert_eq!(bound(&membership).unwrap().stamp, Timestamp(105), "node 2 is ahead: what it said before counts");
        assert_eq!(bound(&membership).unwrap().covered, Vector::default());
        let mut said = presence(3, 5, &[]);
        said.vector = own.clone();
        membership.heard(node(1), &said, NOW, Duration::ZERO);
        membership.caught_up(&everything(&[(1, 9), (2, 6), (3, 5)]));
        assert_eq!(bound(&membership).unwrap().covered, everything(&[(1, 4), (2, 5)]));
    }

    #[test]
    fn a_majority_expels_a_silent_member_and_waits_until_all_have_said_so() {
        let mut membership = membership(&[2, 3], Duration::ZERO);
        let own = everything(&[(2, 5), (3, 5)]);
        let (now, given_up) = listen(&mut membership, &[2], TIMEOUT);
        assert_eq!(given_up, [node(3)]);
        assert_eq!(membership.standing(node(3)), Some(Standing::Lost));
        assert!(!membership.heard(node(1), &presence(3, 6, &[]), NOW, now), "it is not listened to any more");
        assert_eq!(store(&mut membership, now), []);
        membership.heard(node(1), &presence(2, 5, &[(3, false)]), NOW, now);
        store(&mut membership, now);
        assert_eq!(membership.standing(node(3)), Some(Standing::Expelled), "two of three say so");
        assert_eq!(membership.count(), 2);
        assert_eq!(membership.bound(&own, NOW, now), Err(Hold::Expelling(node(2))), "not caught up with its word");
        membership.caught_up(&own);
        assert!(membership.bound(&own, NOW, now).is_ok());
    }

    #[test]
    fn of_two_none_expels_the_other_and_a_minority_neither_votes_nor_compacts() {
        for (ids, heard) in [(&[2][..], &[][..]), (&[2, 3], &[]), (&[2, 3, 4], &[2])] {
            let mut membership = membership(ids, Duration::ZERO);
            let (now, given_up) = listen(&mut membership, heard, 2 * TIMEOUT);
            assert_eq!(given_up, [], "{ids:?}");
            let own = everything(&[(2, 5), (3, 5), (4, 5)]);
            assert!(matches!(membership.bound(&own, NOW, now), Err(Hold::Minority { .. })));
        }
    }

    #[test]
    fn who_slept_or_has_a_wrong_clock_gives_nobody_up_at_once() {
        let enrolled = membership(&[2, 3], Duration::ZERO).iter().cloned().collect();
        let mut later = Membership::new(enrolled, NOW.plus(100 * TIMEOUT), Duration::ZERO);
        let (now, given_up) = listen(&mut later, &[2], Duration::ZERO);
        assert_eq!(given_up, [node(3)], "it was silent for long before, and while this one listened");
        let mut slept = membership(&[2, 3], Duration::ZERO);
        for at in [now + 9 * TIMEOUT, now + 18 * TIMEOUT] {
            slept.heard(node(1), &presence(2, 5, &[]), NOW, at);
            assert_eq!(store(&mut slept, at), []);
        }
    }

    #[test]
    fn of_two_that_hear_each_other_again_the_greater_one_starts_over() {
        let (now, lost) = (Duration::from_secs(1), Some((2, false)));
        for (own, accused_here, accuses, expected) in
            [(1, None, lost, false), (3, None, Some((3, false)), true), (1, lost, None, false), (3, lost, None, true)]
        {
            let mut membership = Membership::default();
            let accuses: Vec<(u128, bool)> = accuses.map(|(_, expelled)| (own, expelled)).into_iter().collect();
            membership.heard(node(own), &presence(2, 5, &[]), NOW, now);
            store(&mut membership, now);
            if accused_here.is_some() {
                let row = Enrolled { standing: Standing::Lost, ..membership.iter().next().unwrap().clone() };
                membership.stored(vec![row], now);
            }
            membership.heard(node(own), &presence(2, 5, &accuses), NOW, now);
            assert_eq!(membership.must_start_over(node(own), now), expected, "{own} {accused_here:?} {accuses:?}");
            let from_lost = expected && accused_here.is_some();
            assert_eq!(membership.gives_way_to_lost(node(own), now), from_lost, "{own} {accused_here:?} {accuses:?}");
            let mut unready = presence(2, 5, &accuses);
            unready.ready = false;
            membership.heard(node(own), &unready, NOW, now);
            assert!(!membership.must_start_over(node(own), now), "who is not READY is not heeded");
        }
    }

    #[test]
    fn who_is_expelled_starts_over_and_leaves_its_own_verdicts_behind() {
        let mut membership = membership(&[2, 3], Duration::ZERO);
        let (now, _) = listen(&mut membership, &[2], TIMEOUT);
        membership.heard(node(1), &presence(2, 5, &[(1, true)]), NOW, now);
        assert!(membership.must_start_over(node(1), now));
        let due = membership.start_over(node(1), NOW, now);
        assert_eq!(membership.stored(due, now), [node(1)]);
        assert_eq!(membership.standing(node(3)), Some(Standing::Member));
        assert_eq!(membership.standing(node(1)), Some(Standing::Expelled));
    }

    #[test]
    fn what_is_told_is_on_the_disk_and_who_is_told_to_be_expelled_is() {
        let mut membership = Membership::default();
        membership.heard(node(1), &presence(2, 5, &[(3, true), (4, false)]), NOW, Duration::ZERO);
        let mut of_others = presence(5, 1, &[]);
        of_others.members = vec![node(1), node(3), node(6)];
        membership.heard(node(1), &of_others, NOW, Duration::ZERO);
        assert_eq!(membership.told(), (vec![], vec![]));
        store(&mut membership, Duration::ZERO);
        assert_eq!(membership.told(), (vec![node(2), node(5), node(6)], vec![(node(3), true)]));
    }

    #[test]
    fn the_list_is_bounded() {
        let mut membership = Membership::default();
        for id in 2..2 + limits::MEMBERS_MAX as u128 * 2 {
            membership.heard(node(1), &presence(id, 1, &[]), NOW, Duration::ZERO);
        }
        assert_eq!(membership.iter().count(), limits::MEMBERS_MAX);
    }
}
