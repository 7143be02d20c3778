//! What is stored of long groups before they are whole: staged, that is neither applied nor parked.

use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;

use super::error::{Doing as _, Error};
use super::replicated::Replicated;
use super::serve;
use super::tx::{Tx, signed};
use crate::event::{Event, EventId, Fingerprint};
use crate::limits;
use crate::position::{NodeId, Sequence};

/// An event of a long group.
#[derive(Clone, Debug)]
pub struct Staged {
    /// Its identity.
    pub id: EventId,
    /// The event.
    pub event: Event,
    /// Whether its record may have events of other authors, or newer ones.
    pub contested: bool,
}

impl Tx<'_> {
    /// Whether an event is stored and waits for the rest of its group: neither applied nor parked.
    pub fn is_staged(&self, table: &Replicated, id: EventId) -> Result<bool, Error> {
        self.connection
            .prepare_cached(&table.events.is_staged)
            .and_then(|mut statement| statement.exists([id.to_string()]))
            .doing_with(|| format!("look at event {id}"))
    }

    /// Marks the events of one origin in a range as applied, but those that are parked.
    pub fn set_range_processed(
        &self,
        table: &Replicated,
        origin: NodeId,
        range: (Sequence, Sequence),
    ) -> Result<(), Error> {
        let [first, last] = [range.0, range.1].map(|sequence| EventId { origin, sequence }.to_string());
        self.connection
            .prepare_cached(&table.events.set_range_processed)
            .and_then(|mut statement| statement.execute((first, last, self.durable.parked > 0)))
            .doing_with(|| format!("mark the staged events of `{}`", table.name))
            .map(drop)
    }

    /// The stored events of one origin in a range, the newest first: those of a long group. At most `limit`, and no more than fit
    /// into memory; none when there are none.
    pub fn staged(
        &self,
        table: &Replicated,
        origin: NodeId,
        range: (Sequence, Sequence),
        limit: usize,
    ) -> Result<Vec<Staged>, Error> {
        let doing = || format!("read the staged events of `{}`", table.name);
        let [first, last] = [range.0, range.1].map(|sequence| EventId { origin, sequence }.to_string());
        let mut statement = self.connection.prepare_cached(&table.events.staged).doing_with(doing)?;
        let mut rows = statement.query([first, last]).doing_with(doing)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < limit && bytes < limits::READ_BYTES_MAX {
            let Some(row) = rows.next().doing_with(doing)? else { break };
            let (id, event, _) = serve::event_of(row, &table.name)?;
            bytes += event.data.as_ref().map_or(0, |data| data.len());
            found.push(Staged { id, event, contested: row.get("contested").doing_with(doing)? });
        }
        Ok(found)
    }

    /// Deletes events of `origin` that are stored beyond its position, and neither applied nor parked: at most `limit`.
    /// Answers how many: fewer when none is left. What a load brought of it stays: that is applied. So does
    /// what its table is not declared for, of which nobody can tell.
    pub fn discard_staged(&self, origin: NodeId, limit: usize) -> Result<usize, Error> {
        const DOING: &str = "delete the beginning of a group";
        assert!(origin != self.durable.node, "bug: a node stages nothing of its own");
        let applied = self.durable.vector.of(origin);
        let [first, last] = self.beyond(origin);
        let mut gone = 0;
        for table in self.tables().with_events(self.connection)? {
            let table = quoted(&event_table::name(table));
            gone += self
                .connection
                .prepare_cached(&format!(
                    "DELETE FROM {table} WHERE id IN
                       (SELECT id FROM {table} WHERE ?1 <= id AND id <= ?2 AND NOT processed
                        AND id NOT IN (SELECT event FROM _rowcast_parked) ORDER BY id LIMIT ?3)"
                ))
                .and_then(|mut statement| statement.execute((&first, &last, limit - gone)))
                .doing(DOING)?;
        }
        if gone > 0 {
            self.discard_contexts(origin, applied)?;
        }
        Ok(gone)
    }

    /// Whether anything is stored of `origin` beyond its position in one table.
    pub fn has_beyond(&self, table: &Replicated, origin: NodeId) -> Result<bool, Error> {
        self.connection
            .prepare_cached(&table.events.any_between)
            .and_then(|mut statement| statement.exists(self.beyond(origin)))
            .doing_with(|| format!("look for events of {origin} beyond its position in `{}`", table.name))
    }

    /// The first and the last id that an event of `origin` beyond its position can have.
    fn beyond(&self, origin: NodeId) -> [String; 2] {
        let first = self.durable.vector.of(origin) + 1;
        [first, Sequence::MAX >> 1].map(|sequence| EventId { origin, sequence }.to_string())
    }

    /// Deletes what was noted of what the authors of events beyond `last` had seen: it comes again with them.
    pub(super) fn discard_contexts(&self, origin: NodeId, last: Sequence) -> Result<(), Error> {
        self.connection
            .execute(
                "DELETE FROM _rowcast_contexts WHERE origin = ?1 AND ?2 < first",
                (origin.to_string(), signed(last)),
            )
            .doing("delete the contexts of events that are gone")
            .map(drop)
    }

    /// An event's number and fingerprint, where it is stored.
    pub fn stored(&self, id: EventId) -> Result<Option<(Sequence, Fingerprint)>, Error> {
        Ok(self.event_anywhere(id)?.map(|event| (id.sequence, event.fingerprint())))
    }
}
