//! What is kept and for whom: the members on the disk, who is expelled, and what may be compacted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Moment, Replica};
use crate::bootstrap::gate::Phase;
use crate::clock::Timestamp;
use crate::edge::store::{Error, Replicated, Store, Tx, Visit};
use crate::limits;
use crate::position::{NodeId, Sequence};
use crate::steady::compaction;
use crate::steady::membership::{Bound, Enrolled, Hold, Membership, Standing};

/// What retention has to know between two pieces of work.
#[derive(Debug)]
pub(super) struct Retention {
    pub(super) membership: Membership,
    looked_at: Duration,
    /// Per table and origin, up to where events were looked at.
    looked: BTreeMap<(String, NodeId), Sequence>,
    begun_at: Duration,
    /// Not before this is looked again for events that can go.
    compact_at: Duration,
    /// Why nothing is compacted now.
    pub(super) hold: Option<Hold>,
    /// Everything is being loaded once more; stands on the disk, too.
    pub(super) load_again: bool,
    /// The ids that this node has left behind since it was whole last; stand on the disk, too.
    pub(super) left: BTreeSet<NodeId>,
    /// It has to be, from the next piece of work on.
    pub(super) must_load_again: bool,
    /// What a load makes is later than this.
    pub(super) clock_floor: Timestamp,
    /// Since when nobody can hand over what is missing.
    pub(super) stuck_since: Option<Duration>,
    /// Since when this node knows that it has to start over.
    pub(super) given_up_since: Option<Duration>,
}

/// How often it is looked whether members have to be stored, or were expelled by an operator.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How soon it is looked again whether what holds compaction back is gone.
const HOLD_INTERVAL: Duration = Duration::from_millis(500);

impl Retention {
    /// As it stands on the disk.
    pub(super) fn new(store: &Store, at: Moment) -> Result<Self, Error> {
        let load_again = store.must_load_again()?;
        Ok(Self {
            membership: Membership::new(store.members()?, at.wall, at.uptime),
            looked_at: at.uptime,
            looked: BTreeMap::new(),
            begun_at: at.uptime,
            compact_at: at.uptime,
            hold: None,
            load_again: load_again.is_some(),
            left: load_again.unwrap_or_default(),
            must_load_again: false,
            clock_floor: Timestamp::default(),
            stuck_since: None,
            given_up_since: None,
        })
    }
}

impl Replica {
    /// What the members said counts when this node has caught up with it.
    pub(super) fn watch_members(&mut self) {
        if self.flows() {
            self.retention.membership.caught_up(&self.store.durable().vector);
        }
    }

    /// Who this node can load from: those that keep for it, on their disks, what it lacks.
    pub(super) fn donors(&self, at: Moment) -> Vec<NodeId> {
        let own = self.node();
        let keeps = |donor: &NodeId| {
            self.members
                .live(at.uptime)
                .any(|member| member.presence.node == *donor && member.presence.members.contains(&own))
        };
        self.members.donors(self.schema(), at.uptime).into_iter().filter(keeps).collect()
    }

    /// Whether all that are heard keep what this node lacks.
    pub(super) fn is_kept_for(&self, at: Moment) -> bool {
        let own = self.node();
        self.members.live(at.uptime).all(|member| member.presence.members.contains(&own))
    }

    /// Why nothing is compacted, for the status.
    pub(super) fn compaction_held(&self) -> Option<String> {
        match self.retention.hold.as_ref()? {
            Hold::Minority { heard, of } => Some(format!(
                "only {heard} of {of} members are heard: nothing is compacted; bring the others back, or retire them with `rowcast members expel`"
            )),
            Hold::Expelling(node) => Some(format!(
                "nothing is compacted until node {} has heard who is expelled; if it is gone, retire it with `rowcast members expel`",
                self.retention.membership.name(*node)
            )),
        }
    }

    /// Stores what has to be known of the members after a restart. Answers whether anything had to be.
    pub(super) fn keep_members(&mut self, at: Moment) -> Result<bool, Failure> {
        // Who is not READY gives nobody up: it might be the only node with data.
        let timeout = matches!(self.phase, Phase::Ready).then_some(self.options.member_timeout);
        let mut due = self.retention.membership.due(timeout, at.uptime);
        let look = self.retention.looked_at + LOOK_INTERVAL <= at.uptime;
        if look {
            self.retention.looked_at = at.uptime;
            due.extend(self.expelled_by_operator()?);
        }
        if due.is_empty() {
            return Ok(false);
        }
        self.store.write(|tx| tx.save_members(&due))?;
        self.members_stored(due, at);
        Ok(true)
    }

    /// Members that the table has as expelled and this process does not.
    fn expelled_by_operator(&self) -> Result<Vec<Enrolled>, Failure> {
        let known = |member: &Enrolled| self.retention.membership.standing(member.node) == Some(Standing::Expelled);
        let stored = self.store.members()?;
        Ok(stored.into_iter().filter(|member| member.standing == Standing::Expelled && !known(member)).collect())
    }

    pub(super) fn members_stored(&mut self, stored: Vec<Enrolled>, at: Moment) {
        for member in &stored {
            let before = self.retention.membership.standing(member.node);
            if before != Some(member.standing) && member.standing != Standing::Member {
                tracing::warn!(
                    member = member.name,
                    member_id = %member.node,
                    standing = member.standing.word(),
                    "nothing is taken from this member any more; it comes back under a new node id only"
                );
            }
        }
        for node in self.retention.membership.stored(stored, at.uptime) {
            self.members.forget(node);
            // What it had said to the others goes on to count: they hand it over.
            let head = self.members.heads(at.uptime).of(node).max(self.store.durable().vector.of(node));
            self.order.freeze(node, head);
            self.fetching.freeze(node);
        }
        self.wait_for_what_is_told(at);
        self.present_at = None; // Who waits to be on the disk here should hear it at once.
    }

    /// What only a member told of that is given up since, or that took it back, is not to be reached any more: the one brings it
    /// along itself when it comes back, under a new node id; the other has it under other numbers. Parts of it that a load
    /// brought are still waited for, and so is what a member is not sure of: it may have started a moment ago.
    pub(super) fn wait_for_what_is_told(&mut self, at: Moment) {
        let Phase::CatchingUp { target } = &mut self.phase else { return };
        let mut told = self.members.told(at.uptime);
        told.join(&self.store.durable().load_target);
        target.meet(&told);
    }
}

/// Events to look at, of one table and one origin.
struct Page {
    table: Arc<Replicated>,
    origin: NodeId,
    visits: Vec<Visit>,
    limit: Timestamp,
}

impl Replica {
    /// Takes a page of events out that nobody needs any more. Answers whether it looked at any.
    pub(super) fn compact(&mut self, at: Moment) -> Result<bool, Failure> {
        if at.uptime < self.retention.compact_at || !self.flows() || !matches!(self.phase, Phase::Ready) {
            return Ok(false);
        }
        if self.has_forks() {
            return Ok(false); // What is emitted anew has old timestamps: its tombstones must still be here.
        }
        let durable = self.store.durable();
        // While a group is ingested in parts, its stamps are given out already.
        let stamp = if durable.open_group.is_none() { durable.clock.last() } else { Timestamp::default() };
        let bound = match self.retention.membership.bound(&durable.vector, stamp, at.uptime) {
            Ok(bound) => bound,
            Err(hold) => {
                self.retention.hold = Some(hold);
                self.retention.compact_at = at.uptime + HOLD_INTERVAL;
                return Ok(false);
            }
        };
        self.retention.hold = None;
        if self.retention.begun_at + limits::COMPACT_ANEW_INTERVAL <= at.uptime {
            self.retention.begun_at = at.uptime;
            self.retention.looked.clear();
        }
        let Some(page) = self.page_to_compact(&bound, at)? else {
            self.retention.compact_at = at.uptime + limits::COMPACT_INTERVAL;
            return Ok(false);
        };
        // Most records have one event. The write lock is not taken to look at them.
        if page.visits.iter().any(|visit| !visit.stays) {
            let gone = self.store.write(|tx| compact_page(tx, &page, &bound))?;
            self.counters.compacted += gone;
        }
        if let Some(last) = page.visits.last() {
            self.retention.looked.insert((page.table.name.clone(), page.origin), last.sequence);
        }
        Ok(true)
    }

    /// The next events whose turn it is: covered by all, and old enough.
    fn page_to_compact(&self, bound: &Bound, at: Moment) -> Result<Option<Page>, Error> {
        for table in self.store.tables().iter() {
            let Some(limit) = compaction::limit(table.declared.history, bound, at.wall) else { continue };
            for (origin, until) in bound.covered.iter() {
                let looked = self.retention.looked.get(&(table.name.clone(), origin)).copied().unwrap_or(0);
                if until <= looked {
                    continue;
                }
                let mut visits = self.store.visits(table, origin, (looked, until), limits::COMPACT_EVENTS_MAX)?;
                let due = visits.iter().take_while(|visit| visit.timestamp <= limit).count();
                visits.truncate(due);
                if !visits.is_empty() {
                    return Ok(Some(Page { table: table.clone(), origin, visits, limit }));
                }
            }
        }
        Ok(None)
    }
}

/// Takes out what can go of the records that the page speaks of.
fn compact_page(tx: &mut Tx<'_>, page: &Page, bound: &Bound) -> Result<u64, Error> {
    let mut records: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for visit in page.visits.iter().filter(|visit| !visit.stays) {
        let newest = records.entry(&visit.record_id).or_default();
        *newest = visit.timestamp.max(*newest);
    }
    let mut gone = 0;
    for (record_id, timestamp) in records {
        loop {
            let (kept, whole) = tx.around(&page.table, record_id, timestamp)?;
            let ids = compaction::superseded(page.table.declared.conflict, &kept, whole, page.limit, bound);
            gone += ids.len() as u64;
            tx.compact(&page.table, &ids)?;
            if whole || ids.is_empty() {
                break;
            }
        }
    }
    Ok(gone)
}
