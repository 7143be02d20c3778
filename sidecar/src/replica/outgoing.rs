//! What goes out of this node's own events: hardened first, then told to all.

use super::{Failure, Fatal, Output, Replica};
use crate::flow::ingest::Ingested;
use crate::flow::publish;
use crate::position::Sequence;
use crate::wire::{self, Message};

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
            self.backlog.extend(done.stored);
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

    /// Whether the others hear of new events at once: not before they hear of this node's position.
    fn is_told(&self) -> bool {
        self.connected && self.identity.may_publish() && self.store.durable().loaded && !self.retention.load_again
    }

    /// Publishes a page of a long group, or of several.
    pub(super) fn publish_stored(&mut self, next: Sequence, last: Sequence) -> Result<(), Failure> {
        if !self.is_told() {
            return Ok(());
        }
        let page = self.store.events(self.node(), next, last)?;
        let Some(until) = page.pieces.last().map(crate::event::Piece::last) else { return Ok(()) };
        self.counters.published += until + 1 - next;
        let layouts = |id| page.layouts.iter().find(|layout| layout.id == id).cloned();
        for mut feed in publish::pack(self.node(), page.pieces, layouts) {
            self.link(&mut feed);
            self.outputs.push_back(Output::Feed(wire::encode(&Message::Feed(feed))));
        }
        if until < last {
            self.backlog.push_front((until + 1, last));
        }
        Ok(())
    }
}
