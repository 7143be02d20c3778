//! Whether all members have the same events under an id of which numbers may have been given out twice: one that this
//! database had before, and one of which such a number was heard.
//!
//! Where its owner's word ended before others had heard all of it, or where events of both came to a member by turns, equal
//! events can stand above different ones: the newest ones, which presence compares, do not show it. So everything that is
//! stored under such an id is compared with each member, and what comes to it later as well. What differs is settled like any
//! number that was given out twice (`forks`), and the others hear of it: they compare, too, as this node may not have what
//! differs between those.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Identity;
use super::search::{Audit, Search};
use crate::limits;
use crate::position::{NodeId, Sequence};
use crate::replica::{Moment, Replica};

/// After a difference, or where a member does not answer, the same is compared again after so long: what differs is settled
/// by then, and others had their turn.
const AGAIN: Duration = Duration::from_secs(5);

/// An origin and a member.
type Pair = (NodeId, NodeId);

/// Which members have the same events of which ids.
#[derive(Debug, Default)]
pub(super) struct Audited {
    /// Ids of which a number was heard to be given out twice.
    suspects: BTreeSet<NodeId>,
    /// Up to which number all that is stored at both is the same.
    same: BTreeMap<Pair, Sequence>,
    /// When a pair is compared again of which something differed, or did not answer.
    not_before: BTreeMap<Pair, Duration>,
}

impl Audited {
    /// A number of an origin was given out twice.
    pub(super) fn suspect(&mut self, origin: NodeId) {
        if self.suspects.len() < limits::MEMBERS_MAX {
            self.suspects.insert(origin);
        }
    }

    /// What is stored of an origin at a member has changed in the middle, or here: at all members, then.
    pub(super) fn forget(&mut self, origin: NodeId, member: Option<NodeId>) {
        self.same.retain(|(of, with), _| *of != origin || member.is_some_and(|member| *with != member));
    }

    /// A comparison has ended.
    pub(super) fn ended(&mut self, search: &Search, at: Moment) {
        let Some(audit) = search.audits else { return };
        let pair = (search.origin, audit.member);
        if search.fork.is_none() && !search.unanswered {
            self.same.insert(pair, audit.top);
        }
        self.not_before.retain(|_, until| at.uptime < *until);
        self.not_before.insert(pair, at.uptime + AGAIN);
    }

    /// What of a pair that both have up to `top` is to be compared now.
    fn due(&self, (origin, member): Pair, top: Sequence, at: Moment) -> Option<Audit> {
        let floor = self.same.get(&(origin, member)).copied().unwrap_or(0);
        let waits = self.not_before.get(&(origin, member)).is_some_and(|until| at.uptime < *until);
        (floor < top && !waits).then_some(Audit { member, floor, top })
    }
}

impl Identity {
    /// Everything is compared again: what is stored here changes as a whole.
    pub(in crate::replica) fn forget_audits(&mut self) {
        self.dispute.take_if(|search| search.audits.is_some());
        self.audited.same.clear();
        self.remembered.clear();
    }
}

impl Replica {
    /// Begins to compare the events of such an id with a member's, where that is to be done.
    pub(super) fn plan_audit(&mut self, at: Moment) {
        if self.is_disputing() || !self.connected || !self.flows() {
            return;
        }
        let (durable, audited) = (self.store.durable(), &self.identity.audited);
        let doubtful = durable.former.iter().chain(&audited.suspects).filter(|origin| **origin != durable.node);
        let next = doubtful.copied().find_map(|origin| {
            let due = |member: &crate::members::Member| {
                let top = durable.vector.of(origin).min(member.presence.vector.of(origin));
                audited.due((origin, member.presence.node), top, at)
            };
            self.members.live(at.uptime).find_map(due).map(|audit| (origin, audit))
        });
        let Some((origin, audit)) = next else { return };
        let mut search = Search::of(origin, "", at.uptime);
        search.members = Some(VecDeque::from([(audit.member, audit.top)]));
        search.audits = Some(audit);
        self.identity.dispute = Some(search);
    }
}
