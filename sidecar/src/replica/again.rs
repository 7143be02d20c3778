//! Loading everything once more: a node that fell behind what anybody can hand over one by one, one that was expelled and
//! goes on under a new node id, and one whose donor died with what nobody else has.
//!
//! It is NOT READY meanwhile. What its service writes still becomes events, but nobody hears of them before everything
//! is loaded: where a record was deleted in between and its tombstone is compacted, only the load shows it, and then the
//! node's own delete goes on top of what it wrote.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Failure, Moment, Replica};
use crate::bootstrap::gate::Phase;
use crate::clock::Timestamp;
use crate::limits;
use crate::observe::status::{Code, Reason};
use crate::position::{NodeId, Sequence, Vector};

/// How long a node that hears that it was given up listens to what the others have of it.
const LISTEN_TIME: Duration = Duration::from_secs(2);

impl Replica {
    /// Whether everything is being loaded again.
    pub(super) fn is_loading_again(&self) -> bool {
        let durable = self.store.durable();
        self.retention.load_again && durable.loaded && durable.renewal.is_none() && self.identity.may_ingest()
    }

    /// What is to be reached before READY: what the others have, also where they are not sure of it again yet, and what a load
    /// brought parts of.
    pub(super) fn goal(&self, at: Moment) -> Vector {
        let mut goal = self.store.durable().load_target.clone();
        self.members.live(at.uptime).for_each(|member| goal.join(&member.told));
        goal
    }

    /// Whether what is missing can come no more. What is below the horizons of all who are there, or was only on a donor
    /// that is gone and has left parts of it here: after a while everything is loaded from somebody who is READY.
    pub(super) fn watch_horizons(&mut self, at: Moment) {
        let flowing = matches!(self.phase, Phase::CatchingUp { .. } | Phase::Ready) && self.flows() && self.connected;
        if !flowing || !(self.is_below_horizons(at) || self.has_outlived_its_donor(at)) {
            self.retention.stuck_since = None;
            return;
        }
        let since = *self.retention.stuck_since.get_or_insert(at.uptime);
        let waited = since + self.options.context_timeout <= at.uptime;
        self.retention.must_load_again |= waited && !self.donors(at).is_empty();
    }

    /// Events that all who are heard have, and none can hand over.
    fn is_below_horizons(&self, at: Moment) -> bool {
        let below = |origin, first: Sequence| {
            let had = |member: &crate::members::Member| first <= member.presence.vector.of(origin);
            self.members.live(at.uptime).any(had) && self.members.holders(origin, first, at.uptime).is_empty()
        };
        self.gaps().iter().any(|gap| below(gap.origin, gap.first))
    }

    /// A load brought parts of what nobody who is heard has.
    fn has_outlived_its_donor(&self, at: Moment) -> bool {
        let durable = self.store.durable();
        let heads = self.members.heads(at.uptime);
        let gone = |(origin, _): (NodeId, Sequence)| heads.of(origin) <= durable.vector.of(origin);
        let lacks = durable.vector.lacks(&self.store.durable().load_target);
        lacks.filter(|(origin, _)| *origin != durable.node).any(gone)
    }

    /// An operator says that nobody has more: what a load brought in part is not waited for.
    pub(super) fn take_as_first(&mut self, at: Moment) -> Result<bool, Failure> {
        let is_asked = self.options.first && matches!(self.phase, Phase::CatchingUp { .. });
        // Heard once is enough: its donor may be silent for a moment, and must not be replaced by a part of itself.
        let complete = self.store.durable().complete || self.members.iter().any(|member| member.presence.complete);
        if !is_asked || complete {
            return Ok(false);
        }
        tracing::warn!(
            "nobody who is there has everything, and this node may be the first: it goes on with what it has"
        );
        let note = at.wall.to_string();
        self.store.write(|tx| {
            tx.note("first", &note)?;
            tx.set_load_target(None)?;
            tx.set_complete()
        })?;
        self.phase = Phase::CatchingUp { target: self.goal(at) };
        Ok(true)
    }

    /// Takes up what the others decided of this node. Answers whether anything changed.
    pub(super) fn heed(&mut self, at: Moment) -> Result<bool, Failure> {
        if self.retention.must_load_again && !self.retention.load_again {
            tracing::warn!("what this node lacks, the others have only in part any more: everything is loaded again");
            self.begin_loading_again(None, at)?;
            return Ok(true);
        }
        let own = self.node();
        if self.speaks_as().is_none() || !self.retention.membership.must_start_over(own, at.uptime) {
            self.retention.given_up_since = None;
            return Ok(false);
        }
        let since = *self.retention.given_up_since.get_or_insert(at.uptime);
        // It needs somebody to load from, or nobody would be left who is READY. Where the only one is who this node has given up, and
        // gives way to, it is that one: several that wait for each other would wait for good.
        let has_donor = !self.members.donors(self.schema(), at.uptime).is_empty()
            || self.retention.membership.gives_way_to_lost(own, at.uptime);
        if at.uptime < since + LISTEN_TIME || !has_donor {
            return Ok(false);
        }
        self.start_over(at)?;
        Ok(true)
    }

    /// Goes on under a new node id. What the others do not have of the old one's events goes along.
    fn start_over(&mut self, at: Moment) -> Result<(), Failure> {
        let own = self.node();
        let durable = self.store.durable();
        let (head, loaded) = (durable.vector.of(own), durable.loaded);
        let known = self.members.heads(at.uptime).of(own).min(head);
        tracing::error!(
            old_node_id = %own,
            unshared = head - known,
            "the others have given this node up: it goes on under a new node id, and loads everything again; \
             what it had not shared goes along"
        );
        let left = self.retention.membership.start_over(own, at.wall, at.uptime);
        // Who never had everything has nothing to keep: it loads for the first time, as it would have. Else the load brings
        // along what is stored under the id that is left behind: that it is comes first.
        self.store.write(|tx| tx.save_members(&left))?;
        self.members_stored(left, at);
        if loaded {
            self.begin_loading_again(Some(own), at)?;
        }
        self.renew(head + 1, at)?;
        self.store.write(|tx| tx.set_position(own, known, Timestamp::default()))?;
        self.retention.given_up_since = None;
        self.phase = Phase::Asking { since: at.uptime };
        Ok(())
    }

    /// Why a node that was given up is NOT READY.
    pub(super) fn given_up_reason(&self) -> Option<Reason> {
        self.retention.given_up_since?;
        Some(
            Reason::new(
                Code::Identity,
                "the others have given this node up: it goes on under a new node id as soon as it hears somebody READY",
            )
            .with_hint("wait for a node that is READY, or start one: it was away for too long, and nothing was copied"),
        )
    }

    /// Deletes the beginnings of groups: a load that met one would take it for what it brings. A little at a time.
    fn discard_staged(&mut self) -> Result<(), Failure> {
        let own = self.node();
        let vector = self.store.durable().vector.clone();
        let origins: BTreeSet<NodeId> = vector.iter().map(|(origin, _)| origin).chain(self.order.origins()).collect();
        for origin in origins.into_iter().filter(|origin| *origin != own) {
            while self.store.write(|tx| tx.discard_staged(origin, limits::APPLY_ROWS_MAX))? == limits::APPLY_ROWS_MAX {}
        }
        Ok(())
    }

    fn begin_loading_again(&mut self, leaves: Option<NodeId>, at: Moment) -> Result<(), Failure> {
        self.identity.forget_audits();
        self.discard_staged()?;
        let heads = self.members.heads(at.uptime);
        let left: BTreeSet<NodeId> = self.retention.left.iter().copied().chain(leaves).collect();
        self.store.write(|tx| {
            // What is written meanwhile does not build on what nobody else has: nobody could wait for that.
            let own = tx.durable.node;
            for (origin, position) in tx.durable.vector.clone().iter().filter(|(origin, _)| *origin != own) {
                tx.set_position(origin, position.min(heads.of(origin)), Timestamp::default())?;
            }
            tx.set_load_again(Some(&left))
        })?;
        self.retention.left = left;
        self.retention.load_again = true;
        self.retention.must_load_again = false;
        self.retention.stuck_since = None;
        self.backlog.clear();
        // What rows hold is compared with what the load brings.
        self.sweeps.clear();
        self.fetching.forget();
        self.order.clear();
        self.confirming = None;
        self.confirmed = false;
        self.phase = Phase::Asking { since: at.uptime };
        self.present_at = None;
        Ok(())
    }
}
