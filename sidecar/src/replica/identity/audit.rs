//! Whether all members have the same events under an id of which numbers may have been given out twice: one that this
//! database had before, and one of which such a number was heard.
//!
//! Where its owner's word ended before others had heard all of it, or where events of both came to a member by turns, equal
//! events can stand above different ones: the newest ones, which presence compares, do not show it. So everything that is
//! stored under such an id is compared with each member, once. What differs is settled like any number that was given out
//! twice (`forks`), and the others hear of it: they compare, too, as this node may not have what differs between those.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Identity;
use super::search::Search;
use crate::limits;
use crate::position::NodeId;
use crate::replica::{Moment, Replica};

/// After a difference, or where a member does not answer, the next comparison waits for so long.
const AGAIN: Duration = Duration::from_secs(5);

/// Which members have the same events of which ids.
#[derive(Debug, Default)]
pub(super) struct Audited {
    /// Ids of which a number was heard to be given out twice.
    suspects: BTreeSet<NodeId>,
    same: BTreeSet<(NodeId, NodeId)>,
    not_before: Duration,
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
        self.same.retain(|(of, with)| *of != origin || member.is_some_and(|member| *with != member));
    }

    /// A comparison has ended.
    pub(super) fn ended(&mut self, search: &Search, at: Moment) {
        let Some(member) = search.audits else { return };
        if search.fork.is_none() && !search.unanswered {
            self.same.insert((search.origin, member));
        } else {
            self.not_before = at.uptime + AGAIN;
        }
    }
}

impl Identity {
    /// Everything is compared again: what is stored here changes as a whole.
    pub(in crate::replica) fn forget_audits(&mut self) {
        self.audited.same.clear();
    }
}

impl Replica {
    /// Begins to compare the events of such an id with a member's, where that was not done yet.
    pub(super) fn plan_audit(&mut self, at: Moment) {
        if self.is_disputing() || at.uptime < self.identity.audited.not_before || !self.connected || !self.flows() {
            return;
        }
        let durable = self.store.durable();
        let audited = &self.identity.audited;
        let doubtful = durable.former.iter().chain(&audited.suspects).filter(|origin| **origin != durable.node);
        let next = doubtful.copied().find_map(|origin| {
            let shared = |position| durable.vector.of(origin).min(position);
            self.members
                .live(at.uptime)
                .map(|member| (member.presence.node, shared(member.presence.vector.of(origin))))
                .find(|&(member, top)| 0 < top && !audited.same.contains(&(origin, member)))
                .map(|(member, top)| (origin, member, top))
        });
        let Some((origin, member, top)) = next else { return };
        let mut search = Search::of(origin, "", at.uptime);
        search.members = Some(VecDeque::from([(member, top)]));
        search.audits = Some(member);
        self.identity.dispute = Some(search);
    }
}
