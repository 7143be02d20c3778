//! What is looked at while the world goes on: what a node makes, what is on its disk, and whether it may say READY.

use rowcast::position::Vector;

use crate::disk;
use crate::node::{Node, Sidecar};
use crate::world::World;

/// Within this time everybody has heard of a node that starts, unless messages are lost.
const HEARD_SURELY: u64 = 5_000_000;

/// On a bus whose messages take no longer, and where none is lost, all are heard before a node says READY.
const QUICK: u64 = 50_000;

impl World {
    /// A node that starts now is not READY before it has what those have who are READY now.
    pub fn note_what_others_have(&mut self, node: usize) {
        let ready = |other: &&Node| other.sidecar.as_ref().is_some_and(|sidecar| sidecar.ready);
        let vector = |other: &Node| (other.number, self.vector_of(other.number).into_iter().collect());
        self.nodes[node].ready_others_had = self.nodes.iter().filter(ready).map(vector).collect();
        self.nodes[node].heard_first.clear();
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
        let Node { sidecar: Some(sidecar), service: Some(service), seen, .. } = &mut self.nodes[node] else { return };
        let durable = sidecar.replica.store().durable();
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
        let ready = sidecar.replica.is_ready();
        if std::mem::replace(&mut sidecar.ready, ready) != ready {
            if ready && !std::mem::replace(&mut self.nodes[node].was_ready, true) {
                self.judge_first_ready(node);
            }
            let moment = self.nodes[node].moment(self.now);
            let reasons = self.nodes[node].sidecar.as_mut().map(|sidecar| sidecar.replica.status(moment).reasons);
            match reasons.unwrap_or_default().first() {
                None => self.story.tell(self.now, format_args!("n{node} READY")),
                Some(reason) => self.story.tell(self.now, format_args!("n{node} NOT READY: {}", reason.text)),
            }
            self.story.count(if ready { "became READY" } else { "became NOT READY" });
        }
    }

    /// What a node loaded before it said READY is still here, whatever power it lost since.
    pub fn judge_still_complete(&mut self, node: usize) {
        let complete = |node: &Node| node.sidecar.as_ref().is_some_and(|it| it.replica.store().durable().complete);
        if self.nodes[node].was_ready && !self.judge.copies && !complete(&self.nodes[node]) {
            self.judge.wrong.push(format!("n{node} was READY, and what it had loaded is gone"));
        }
    }

    /// A node that says READY for the first time has all that everybody had who was READY when it started, as far as
    /// they are still there.
    fn judge_first_ready(&mut self, node: usize) {
        let Some(sidecar) = &self.nodes[node].sidecar else { return };
        let has = &sidecar.replica.store().durable().vector;
        let (mut there, mut had) = (Vector::default(), Vector::default());
        let mended = |link: (usize, usize)| self.net.mended.get(&link).is_some_and(|at| self.now < at + HEARD_SURELY);
        // On a bus that loses messages, or takes its time, one that takes a whole database may not have heard all yet; and
        // nobody has heard anybody for as long as nothing happened.
        let slow = QUICK < self.net.delay_max || self.net.loss > 0;
        let skipped = self.skipped_at.is_some_and(|at| self.now < at + HEARD_SURELY);
        let may_not_have_heard = skipped || (slow && self.nodes[node].disk_lost);
        let heard_first = &self.nodes[node].heard_first;
        let spoke = |other: usize| !may_not_have_heard || heard_first.get(&other).is_some_and(|at| *at <= self.now);
        let reaches = |from: usize, to: usize| !self.net.cut.contains(&(from, to)) && !mended((from, to));
        let others = self.nodes.iter().filter(|other| other.hears() && spoke(other.number));
        for other in others.filter(|other| reaches(other.number, node)) {
            // Who came back a moment ago may not have been heard yet, nor what was said while this node was away.
            let since = |sidecar: &Sidecar| sidecar.started.max(sidecar.connected_at) + HEARD_SURELY;
            let heard = other.sidecar.as_ref().filter(|other| since(other) < self.now);
            let heard = heard.filter(|_| sidecar.connected_at == sidecar.started || since(sidecar) < self.now);
            if let (Some(sidecar), true) = (heard, other.number != node && reaches(node, other.number)) {
                there.join(&sidecar.replica.store().durable().vector);
                self.nodes[node].ready_others_had.get(&other.number).iter().for_each(|vector| had.join(vector));
            }
        }
        let wanted = had.within(&there);
        if !has.covers(&wanted) {
            self.judge.wrong.push(format!("n{node} says READY with {has:?}, and the others had {wanted:?}"));
        }
    }
}
