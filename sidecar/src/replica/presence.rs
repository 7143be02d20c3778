//! What this node says of itself, to all others, every second.

use super::{Moment, Output, Replica};
use crate::clock::Timestamp;
use crate::members::{Members, Presence};
use crate::position::Vector;
use crate::wire::{self, Message};

impl Replica {
    /// Says that it is there and what it has, when it is time or somebody wants to hear it.
    pub(super) fn say_presence(&mut self, at: Moment) {
        let interval = self.options.presence_interval;
        let due = self.present_at.is_none_or(|last| last + interval <= at.uptime);
        let gap = || Members::answer_gap(self.members.live(at.uptime).count(), interval);
        let may_answer = || self.said_at.is_none_or(|last| last + gap() <= at.uptime);
        let says = due || (self.answer_wanted && may_answer());
        if !self.connected || !says || self.speaks_as().is_none() {
            return;
        }
        if due {
            self.present_at = Some(at.uptime);
        }
        self.said_at = Some(at.uptime);
        self.answer_wanted = false;
        let fingerprints = if self.flows() { self.fingerprints() } else { Vec::new() };
        let sure = self.identity.may_publish();
        let (members, lost) = self.retention.membership.told();
        let durable = self.store.durable();
        let presence = Presence {
            node: durable.node,
            name: self.options.name.clone(),
            session: self.options.session,
            ready: self.is_ready(),
            complete: durable.complete,
            vector: match (self.flows(), sure) {
                (true, true) => durable.vector.clone(),
                (true, false) => durable.vector.without(durable.node),
                (false, _) => Vector::default(),
            },
            sure: self.flows() && sure,
            fingerprints,
            forked: self.identity.told_forks(),
            horizon: durable.horizon.clone(),
            schema: self.schema().to_owned(),
            clock: at.wall,
            // Only what is said by itself asks: an answer that asked would be answered, and so on without end.
            ask: due && !(sure && self.is_ready()),
            // Before its id is confirmed it says no position of its own, and no clock. Of a group that is being ingested in
            // parts some events have their stamps already, and no number counts yet.
            stamp: if sure && durable.open_group.is_none() { durable.clock.last() } else { Timestamp::default() },
            members,
            lost,
            layouts: self.layouts_here(),
        };
        self.outputs.push_back(Output::Presence(wire::encode(&Message::Presence(presence))));
    }
}
