//! Loading everything once more: a node that fell behind what anybody can hand over one by one, and one that was
//! expelled and goes on under a new node id.
//!
//! It is NOT READY meanwhile. What its service writes still becomes events, but nobody hears of them before everything
//! is loaded: where a record was deleted in between and its tombstone is compacted, only the load shows it, and then the
//! node's own delete goes on top of what it wrote.

use std::time::Duration;

use super::{Failure, Moment, Replica};
use crate::bootstrap::gate::Phase;
use crate::edge::store::Error;
use crate::flow::apply::Applier;
use crate::position::{NodeId, Sequence};

/// How long nobody may be able to hand over what is missing before everything is loaded again.
const BELOW_WAIT: Duration = Duration::from_secs(5);

/// How long a node that hears that it was given up listens to what the others have of it.
const LISTEN_TIME: Duration = Duration::from_secs(2);

impl Replica {
    /// Whether everything is to be loaded again, or is being loaded.
    pub(super) fn is_loading_again(&self) -> bool {
        let durable = self.store.durable();
        self.retention.load_again && durable.loaded && durable.renewal.is_none() && self.identity.may_ingest()
    }

    /// Events that all who are heard have, and none can hand over: they lie below the horizons.
    pub(super) fn watch_horizons(&mut self, at: Moment) {
        let flowing = matches!(self.phase, Phase::CatchingUp { .. } | Phase::Ready) && self.flows() && self.connected;
        let below = |origin, first: Sequence| {
            let had = |member: &crate::members::Member| first <= member.presence.vector.of(origin);
            self.members.live(at.uptime).any(had) && self.members.holders(origin, first, at.uptime).is_empty()
        };
        if !flowing || !self.gaps().iter().any(|gap| below(gap.origin, gap.first)) {
            self.retention.below_since = None;
            return;
        }
        let since = *self.retention.below_since.get_or_insert(at.uptime);
        self.retention.must_load_again |= since + BELOW_WAIT <= at.uptime && !self.donors(at).is_empty();
    }

    /// Takes up what the others decided of this node. Answers whether anything changed.
    pub(super) fn heed(&mut self, at: Moment) -> Result<bool, Failure> {
        if self.retention.must_load_again && !self.retention.load_again {
            tracing::warn!("what this node lacks, the others have only in part any more: everything is loaded again");
            self.store.write(|tx| tx.set_load_again(true))?;
            self.begin_loading_again(at);
            return Ok(true);
        }
        let own = self.node();
        if self.speaks_as().is_none() || !self.retention.membership.is_given_up(own, at.uptime) {
            self.retention.given_up_since = None;
            return Ok(false);
        }
        let since = *self.retention.given_up_since.get_or_insert(at.uptime);
        if at.uptime < since + LISTEN_TIME {
            return Ok(false);
        }
        let head = self.store.durable().vector.of(own);
        let known = self.members.heads(at.uptime).of(own).min(head);
        tracing::error!(
            old_node_id = %own,
            unshared = head - known,
            "the others have given this node up: it goes on under a new node id, and loads everything again; \
             what it had not shared goes along"
        );
        self.store.write(|tx| tx.set_load_again(true))?;
        self.begin_loading_again(at);
        self.renew(known + 1, at)?;
        self.phase = Phase::Asking { since: at.uptime };
        Ok(true)
    }

    fn begin_loading_again(&mut self, at: Moment) {
        self.retention.load_again = true;
        self.retention.must_load_again = false;
        self.retention.below_since = None;
        self.retention.given_up_since = None;
        self.backlog.clear();
        self.fetching.forget();
        self.confirming = None;
        self.confirmed = false;
        self.phase = Phase::Asking { since: at.uptime };
        self.present_at = None;
    }

    /// Everything is loaded: from here on the others may hear of everything.
    pub(super) fn end_loading_again(&mut self) -> Result<(), Failure> {
        if self.retention.load_again {
            self.store.write(|tx| tx.set_load_again(false))?;
            self.store.harden().map_err(|error| Failure::Fatal(super::Fatal(error)))?;
            self.retention.load_again = false;
            self.present_at = None;
        }
        Ok(())
    }
}

/// Events taken out in one go because nobody can hand over what comes before them.
const LOOSE_MAX: usize = 200;

impl Replica {
    /// What a donor had and took with it when it died: the node cannot wait for it, and must not keep a part of it.
    ///
    /// A load that went on from a staler donor brought records with events that lie beyond what anybody who is there
    /// has. They are taken out, and the records made of what is left; they come again when somebody brings them. Then
    /// the node waits for them no longer. Answers whether it did anything.
    pub(super) fn let_go(&mut self, at: Moment) -> Result<bool, Failure> {
        let Phase::CatchingUp { target } = &self.phase else { return Ok(false) };
        let heads = self.members.heads(at.uptime);
        let durable = self.store.durable();
        let own = durable.node;
        let waits = |&(origin, to): &(NodeId, Sequence)| {
            origin != own && durable.vector.of(origin) < to && heads.of(origin) <= durable.vector.of(origin)
        };
        let mut lost: Vec<(NodeId, Sequence)> = target.iter().filter(waits).collect();
        // What an earlier, unfinished load had brought from a donor that is gone is in no target any more.
        lost.extend(self.loose.iter().filter(|&&(origin, _)| heads.of(origin) <= durable.vector.of(origin)));
        if lost.is_empty() || self.members.live(at.uptime).next().is_none() {
            self.retention.lost_since = None;
            return Ok(false);
        }
        let since = *self.retention.lost_since.get_or_insert(at.uptime);
        if at.uptime < since + self.options.context_timeout {
            return Ok(false);
        }
        let loose = self.store.write(|tx| {
            let mut applier = Applier::new(tx, at.wall);
            lost.iter().try_fold(0, |loose, (origin, _)| Ok::<_, Error>(loose + applier.let_go(*origin, LOOSE_MAX)?))
        })?;
        // What was stored of a long group may be among them.
        lost.iter().for_each(|(origin, _)| self.order.unstage(*origin));
        if loose == 0 {
            for (origin, to) in &lost {
                let name = self.name_of(*origin);
                tracing::warn!(
                    node = name,
                    until = to,
                    "nobody who is there has these events; they are not waited for"
                );
            }
            self.loose.clear();
            let reached = self.store.durable().vector.clone();
            if let Phase::CatchingUp { target } = &mut self.phase {
                lost.iter().for_each(|(origin, _)| target.set(*origin, reached.of(*origin)));
            }
            self.retention.lost_since = None;
        }
        Ok(true)
    }

    /// Whether events are stored here that lie beyond the position: a load that did not finish brought them. A node that
    /// has just loaded is not READY before what comes in between is here, or they are let go.
    pub(super) fn has_loose_events(&mut self) -> Result<bool, Failure> {
        if self.store.durable().complete && !self.retention.load_again {
            return Ok(false);
        }
        // Nothing has come since it was looked last.
        let total = self.store.durable().vector.total();
        if !self.loose.is_empty() && self.loose_at == total {
            return Ok(true);
        }
        self.loose_at = total;
        self.loose = self.store.write(|tx| tx.loose())?;
        Ok(!self.loose.is_empty())
    }
}
