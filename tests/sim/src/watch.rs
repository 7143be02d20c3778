//! What is looked at while the world goes on: what a node makes, what is on its disk, and whether it may say READY.

use rowcast::edge::store::members_of;
use rowcast::position::{NodeId, Vector};
use rowcast::steady::membership::Standing;
use rowcast::wire::{self, Message};

use crate::disk;
use crate::node::{Node, Sidecar};
use crate::world::World;

/// Within this time everybody has heard of a node that starts, unless messages are lost. Who is silent for longer is not waited for.
const HEARD_SURELY: u64 = 5_000_000;

/// On a bus whose messages take no longer, and where none is lost, all are heard before a node says READY.
const QUICK: u64 = 50_000;

impl World {
    /// A node that starts now is not READY before it has what those have now who were READY once, also where they do not run.
    pub fn note_what_others_have(&mut self, node: usize) {
        let vector = |other: &Node| (other.number, other.had.clone());
        self.nodes[node].others_had = self.nodes.iter().filter(|other| other.was_ready).map(vector).collect();
        self.nodes[node].told.clear();
    }

    /// A node says whether it is sure of itself.
    pub fn note_said(&mut self, node: usize, frame: &[u8]) {
        let Some(sidecar) = &mut self.nodes[node].sidecar else { return };
        let Ok(Message::Presence(presence)) = wire::decode(frame) else { return };
        sidecar.sure_since = presence.sure.then(|| sidecar.sure_since.unwrap_or(self.now));
    }

    /// A node is told by another one what that has.
    pub fn note_told(&mut self, node: usize, frame: &[u8]) {
        let Ok(Message::Presence(presence)) = wire::decode(frame) else { return };
        let by = presence.name.strip_prefix('n').and_then(|number| number.parse().ok());
        if let (true, Some(by)) = (presence.sure, by) {
            self.nodes[node].told.insert(by, self.now);
        }
    }

    /// Promises that are on the disk now cannot be lost by a power cut any more.
    pub fn note_synced(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if node.unsynced_from.is_some() && disk::is_synced(&node.file("-wal")) {
            node.unsynced_from = None;
        }
    }

    /// What a node has made is shown to the judge before it may be superseded and compacted.
    pub fn note_made(&mut self, node: usize) {
        let wall = self.nodes[node].wall_millis(self.now);
        let clock = self.nodes[node].greatest_wall.max(wall);
        self.nodes[node].greatest_wall = clock;
        let (before, now) = (self.nodes[node].seen.0, self.nodes[node].id());
        if now.is_some_and(|now| now != before) {
            // Itself as well: those who had heard of them may have lost their disks.
            let all = (0..self.nodes.len()).flat_map(|any| self.vector_of(any));
            let known = all.filter(|(origin, _)| *origin == before);
            let known = known.map(|(_, known)| known).max().unwrap_or(0);
            self.judge.left(before, known);
            if self.nodes[node].was_ready {
                self.story.count("went on under another id");
            }
        }
        let Node { sidecar: Some(sidecar), service: Some(service), seen, had, .. } = &mut self.nodes[node] else {
            return;
        };
        let durable = sidecar.replica.store().durable();
        had.clone_from(&durable.vector);
        let (id, head) = (durable.node, durable.next);
        if *seen != (id, head) {
            let from = if seen.0 == id { seen.1.min(head) } else { 1 };
            *seen = (id, head);
            // A table that is not there yet has no events.
            self.judge.read_new(service, (id, from), clock).ok();
        }
    }

    /// A node became READY, or is not any more.
    pub fn note_ready(&mut self, node: usize) {
        let Some(sidecar) = &mut self.nodes[node].sidecar else { return };
        let caught_up = sidecar.replica.has_caught_up() && !std::mem::replace(&mut sidecar.caught_up, true);
        if caught_up {
            self.judge_caught_up(node);
        }
        let Some(sidecar) = &mut self.nodes[node].sidecar else { return };
        let ready = sidecar.replica.is_ready();
        if std::mem::replace(&mut sidecar.ready, ready) != ready {
            self.nodes[node].was_ready |= ready;
            let moment = self.nodes[node].moment(self.now);
            let reasons = self.nodes[node].sidecar.as_mut().map(|sidecar| sidecar.replica.status(moment).reasons);
            match reasons.unwrap_or_default().first() {
                None => self.story.tell(self.now, format_args!("n{node} READY")),
                Some(reason) => self.story.tell(self.now, format_args!("n{node} NOT READY: {}", reason.text)),
            }
            self.story.count(if ready { "became READY" } else { "became NOT READY" });
        }
        if caught_up {
            self.strike_at_the_worst_moment(node);
        }
    }

    /// What a node loaded before it said READY is still here, whatever power it lost since.
    pub fn judge_still_complete(&mut self, node: usize) {
        let complete = |node: &Node| node.sidecar.as_ref().is_some_and(|it| it.replica.store().durable().complete);
        if self.nodes[node].was_ready && !self.judge.copies && !complete(&self.nodes[node]) {
            self.judge.wrong.push(format!("n{node} was READY, and what it had loaded is gone"));
        }
    }

    /// A node that has caught up, and is READY unless there is another reason, has all that those had when it started who are
    /// still there.
    fn judge_caught_up(&mut self, node: usize) {
        let Node { sidecar: Some(sidecar), told, others_had, .. } = &self.nodes[node] else { return };
        // As it is stored: what it told of it last is older than what a load brought.
        let members = members_of(&self.nodes[node].file("")).expect("a node that runs has members");
        let given_up: Vec<NodeId> =
            members.iter().filter(|member| member.standing != Standing::Member).map(|member| member.node).collect();
        let (mut there, mut had) = (Vector::default(), Vector::default());
        let others = self.nodes.iter().filter(|other| other.number != node && other.sidecar.is_some() && other.hears());
        // Who is given up brings along what it has under another id.
        for other in others.filter(|other| other.id().is_none_or(|id| !given_up.contains(&id))) {
            let is_told = self.lately(told.get(&other.number).copied());
            if is_told || (self.reach_each_other(other.number, node) && self.has_surely_heard(node, other.number)) {
                there.join(&self.vector_of(other.number).into_iter().collect());
                others_had.get(&other.number).iter().for_each(|vector| had.join(vector));
            }
        }
        let has = &sidecar.replica.store().durable().vector;
        let wanted = had.within(&there);
        let wanted = given_up.iter().fold(wanted, |wanted, &id| wanted.without(id));
        if !has.covers(&wanted) {
            self.judge.wrong.push(format!("n{node} has caught up with {has:?}, and the others had {wanted:?}"));
        }
    }

    fn lately(&self, at: Option<u64>) -> bool {
        at.is_some_and(|at| self.now < at + HEARD_SURELY)
    }

    /// Whether nothing lies, or lay a moment ago, between two nodes.
    fn reach_each_other(&self, one: usize, other: usize) -> bool {
        let mended = |link: &(usize, usize)| self.lately(self.net.mended.get(link).copied());
        [(one, other), (other, one)].iter().all(|link| !self.net.cut.contains(link) && !mended(link))
    }

    /// Whether a node must have been told by another one, whatever was noted: that has been there, and sure of itself, for a while.
    /// Not on a bus that loses messages, or takes its time, where the node had no reason to wait longer, as it had not if that was so
    /// until now and it started with everything loaded; and nobody has heard anybody for as long as nothing happened.
    fn has_surely_heard(&self, node: usize, other: usize) -> bool {
        let slow = QUICK < self.net.delay_max || self.net.loss > 0;
        let was_slow = slow || self.lately(self.net.healed_at);
        let Node { sidecar: Some(sidecar), disk_lost, .. } = &self.nodes[node] else { return false };
        if self.lately(self.skipped_at) || (slow && *disk_lost) || (was_slow && sidecar.was_loaded) {
            return false;
        }
        let is_there = |sidecar: &Sidecar| !self.lately(Some(sidecar.connected_at));
        let is_sure = |sidecar: &Sidecar| sidecar.sure_since.is_some_and(|since| !self.lately(Some(since)));
        let tells = self.nodes[other].sidecar.as_ref().is_some_and(|other| is_there(other) && is_sure(other));
        tells && (sidecar.connected_at == sidecar.started || is_there(sidecar))
    }

    /// The files of a node are those of before, or others: what it had then is not to be had.
    pub fn forget_what_it_had(&mut self, node: usize) {
        self.nodes.iter_mut().for_each(|other| drop(other.others_had.remove(&node)));
        self.nodes[node].had = Vector::default();
    }
}
