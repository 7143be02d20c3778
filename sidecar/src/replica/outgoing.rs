//! What goes out of this node's own events: hardened first, then told to all.

use super::{Failure, Fatal, Output, Replica};
use crate::flow::ingest::Ingested;
use crate::flow::publish;
use crate::position::Sequence;
use crate::wire::{self, Message};

/// Long groups that wait to be published, but for such as follow each other.
const BACKLOG_MAX: usize = 1_024;

impl Replica {
    /// Hardens and publishes what was ingested: nothing leaves before it is on the disk.
    pub(super) fn publish(&mut self, ingested: Vec<Ingested>) -> Result<(), Failure> {
        let events: usize = ingested.iter().map(|ingested| ingested.events).sum();
        if events == 0 {
            return Ok(());
        }
        self.counters.captured += events as u64;
        self.store.harden().map_err(|error| Failure::Fatal(Fatal(error)))?;
        if !self.is_told() {
            return Ok(()); // The others fetch it when they hear of it.
        }
        let mut groups = Vec::new();
        for done in ingested {
            groups.extend(done.groups);
            if let Some((first, last)) = done.stored {
                self.publish_later(first, last);
            }
        }
        let layouts = |id| self.layout(id);
        let feeds = publish::pack(self.node(), groups, layouts);
        for mut feed in feeds {
            self.link(&mut feed);
            self.counters.published += feed.pieces.iter().map(|piece| piece.events.len() as u64).sum::<u64>();
            self.outputs.push_back(Output::Feed(wire::encode(&Message::Feed(feed))));
        }
        Ok(())
    }

    fn publish_later(&mut self, first: Sequence, last: Sequence) {
        match self.backlog.back_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => self.backlog.push_back((first, last)),
        }
        if BACKLOG_MAX < self.backlog.len() {
            self.backlog.pop_front(); // Those who miss it fetch it.
        }
    }

    /// Whether the others hear of new events at once: not before they hear of this node's position.
    fn is_told(&self) -> bool {
        self.connected && self.identity.may_publish() && self.store.durable().loaded && !self.retention.load_again
    }

    /// Publishes a page of a long group, or of several. Answers whether there was one.
    pub(super) fn publish_stored(&mut self) -> Result<bool, Failure> {
        let Some((next, last)) = self.backlog.pop_front() else { return Ok(false) };
        if !self.is_told() {
            return Ok(true);
        }
        let page = self.store.events(self.node(), next, last)?;
        let Some(until) = page.pieces.last().map(crate::event::Piece::last) else { return Ok(true) };
        self.counters.published += until + 1 - next;
        let layouts = |id| page.layouts.iter().find(|layout| layout.id == id).cloned();
        for mut feed in publish::pack(self.node(), page.pieces, layouts) {
            self.link(&mut feed);
            self.outputs.push_back(Output::Feed(wire::encode(&Message::Feed(feed))));
        }
        if until < last {
            self.backlog.push_front((until + 1, last));
        }
        Ok(true)
    }
}
