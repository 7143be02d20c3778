//! From one node id to the next, in place: who goes on under a new id, and what it takes along.
//!
//! A node that may not speak under its id any more (its database was copied or restored, or it was expelled) goes on as a new
//! node over the same database. Its own events up to a fork point stay where they are: others have them, too, and from
//! now on they are another origin's. Those from the fork point on are known to nobody else under these numbers; they
//! become the new id's events 1, 2, 3, with their data and timestamps, so that they win and lose as they would have.
//! Then the events that the others hold under the old id are fetched like anybody's.
//!
//! Numbers that two sidecars gave out under one id can reach different nodes. Then the same is done there, with another
//! node's events: [`Tx::begin_adoption`].
//!
//! [`Tx::begin_renewal`] is the one transaction after which the old id is never spoken under again;
//! [`Tx::move_events`] then moves a bounded page at a time. What is left to do stands in the database: after a crash it
//! goes on where it was. Until it is done nothing may be ingested or applied.

use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::error::{Doing as _, Error};
use super::journal::OpenGroup;
use super::serve;
use super::state;
use super::strays;
use super::tx::{Tx, signed, unsigned};
use crate::clock::Timestamp;
use crate::event::EventId;
use crate::position::{NodeId, Sequence, Vector};

/// Events that go on under this node's id and are not all moved yet. Stored until they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The id that they had.
    pub old: NodeId,
    /// The first of its events that is moved.
    pub first: Sequence,
    /// The last one.
    pub last: Sequence,
    /// The next one to move.
    pub next: Sequence,
    /// The number that it gets under this node's id.
    pub to: Sequence,
    /// The number that the first one got.
    pub base: Sequence,
    /// No group ends after this one, by the old numbers.
    pub end: Sequence,
    /// No number is missing in between: the groups stay what they are.
    pub dense: bool,
}

/// What one page did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Everything is moved.
    pub done: bool,
    /// Records in which another event has the timestamp of a moved one: table and record id. Between the two the node
    /// ids decide, and one of those is another one now.
    pub tied: Vec<(String, String)>,
}

/// An event on its way: where it is stored, and what changes of it.
struct Moving {
    table: String,
    declared: Option<String>,
    sequence: Sequence,
    group_last: Sequence,
    record_id: String,
    timestamp: i64,
}

impl Tx<'_> {
    /// Goes on under a new node id. Own events from `from` on, if there are any, go along: call [`Tx::move_events`] in
    /// transactions of their own until it is done.
    ///
    /// # Errors
    /// When the database fails.
    pub fn begin_renewal(&mut self, from: Sequence) -> Result<NodeId, Error> {
        assert!(self.durable.renewal.is_none(), "bug: an id is left before the one before it was left for good");
        let old = self.durable.node;
        let last = self.durable.next - 1;
        let first = from.clamp(1, self.durable.vector.of(old) + 1);
        self.end_group_before(old, first)?;
        let open = self.durable.open_group;
        let kept = self.count_events(old, first, open.map_or(last, |open| open.first - 1))?;
        let stored = self.count_events(old, first, last)?;
        let mut context = serve::context(self.connection, EventId { origin: old, sequence: first })?
            .map(|(_, context)| context)
            .unwrap_or_default();
        context.raise(old, first - 1);
        let node = state::begin_identity(self.connection)?;
        self.durable.node = node;
        self.durable.former = state::former_ids(self.connection)?;
        self.durable.context = Vector::default();
        self.set_position(old, first - 1, Timestamp::default())?;
        self.set_position(node, 0, self.durable.clock.last())?;
        self.set_open_group(open.map(|open| OpenGroup {
            until: open.until,
            first: kept + 1,
            last: kept + 1 + open.last - open.first,
            next: kept + 1 + open.next - open.first,
        }))?;
        self.durable.next = self.durable.open_group.map_or(1, |open| open.next);
        if stored > 0 {
            self.save_context(node, 1, &context)?;
            let dense = stored == last + 1 - first;
            let end = open.map_or(last, |open| open.last);
            self.set_renewal(Some(Renewal { old, first, last, next: first, to: 1, base: 1, end, dense }))?;
        }
        Ok(node)
    }

    /// Takes over events of another origin, from `from` on: they go on as this node's own newest ones. Call
    /// [`Tx::move_events`] as above. For numbers that an origin gave out twice, where this node has the events that the
    /// others are to give up: they are not lost, and the others' can be fetched.
    ///
    /// # Errors
    /// When the database fails.
    pub fn begin_adoption(&mut self, origin: NodeId, from: Sequence) -> Result<(), Error> {
        let fits = self.durable.renewal.is_none() && self.durable.open_group.is_none() && origin != self.durable.node;
        assert!(fits, "bug: events are taken over in the middle of something else");
        let last = self.durable.vector.of(origin);
        let first = from.clamp(1, last + 1);
        // The beginning of a group that is not whole here: it is fetched again, from whoever is right.
        let [after, end] = range(origin, last + 1, Sequence::MAX >> 1);
        for (table, _) in self.stored_in()? {
            self.connection
                .execute(&format!("DELETE FROM {table} WHERE ?1 <= id AND id <= ?2"), [&after, &end])
                .doing("forget the beginning of a group")?;
        }
        self.discard_contexts(origin, last)?;
        self.end_group_before(origin, first)?;
        let stored = self.count_events(origin, first, last)?;
        let mut context = serve::context(self.connection, EventId { origin, sequence: first })?
            .map(|(_, context)| context)
            .unwrap_or_default();
        context.raise(origin, first - 1);
        self.set_position(origin, first - 1, Timestamp::default())?;
        if stored > 0 {
            let to = self.durable.next;
            self.save_context(self.durable.node, to, &context)?;
            let dense = stored == last + 1 - first;
            let renewal = Renewal { old: origin, first, last, next: first, to, base: to, end: last, dense };
            self.set_renewal(Some(renewal))?;
        }
        Ok(())
    }

    /// Moves the next events of a renewal, at most `limit` numbers.
    ///
    /// # Errors
    /// When the database fails.
    pub fn move_events(&mut self, limit: u64) -> Result<Moved, Error> {
        let Some(mut renewal) = self.durable.renewal else { return Ok(Moved { done: true, tied: Vec::new() }) };
        let until = renewal.last.min(renewal.next.saturating_add(limit.max(1) - 1));
        let mut page = self.page(renewal.old, renewal.next, until)?;
        page.sort_by_key(|moving| moving.sequence);
        self.move_contexts(&renewal, until, &page)?;
        let mut moved = Moved::default();
        for moving in &page {
            if let Some(declared) = self.move_event(&renewal, moving)? {
                moved.tied.push((declared, moving.record_id.clone()));
            }
            renewal.to += 1;
        }
        renewal.next = until + 1;
        moved.done = renewal.last < renewal.next;
        if moved.done {
            self.end_renewal(&renewal)?
        } else {
            self.set_renewal(Some(renewal))?
        }
        Ok(moved)
    }

    fn end_renewal(&mut self, renewal: &Renewal) -> Result<(), Error> {
        let node = self.durable.node;
        let head = self.durable.open_group.map_or(renewal.to, |open| open.first) - 1;
        self.set_position(node, head, self.durable.clock.last())?;
        self.durable.next = renewal.to;
        let newest = EventId { origin: node, sequence: Sequence::MAX >> 1 };
        self.durable.context = serve::context(self.connection, newest)?.map(|(_, context)| context).unwrap_or_default();
        self.set_renewal(None)
    }

    fn set_renewal(&mut self, renewal: Option<Renewal>) -> Result<(), Error> {
        self.durable.renewal = renewal;
        match renewal {
            Some(renewal) => {
                let text = serde_json::to_string(&renewal).expect("bug: a renewal has a JSON form");
                state::set_state(self.connection, RENEWAL, &text)
            }
            None => self
                .connection
                .execute("DELETE FROM _rowcast_state WHERE key = ?1", [RENEWAL])
                .doing("note that the new node id has all its events")
                .map(drop),
        }
    }

    /// The event tables with the name of the table that each belongs to; last the one of events without a table.
    fn stored_in(&self) -> Result<Vec<(String, Option<String>)>, Error> {
        let declared = self.tables().with_events(self.connection)?.iter();
        let tables = declared.map(|name| (quoted(&event_table::name(name)), Some(name.clone())));
        Ok(tables.chain([(quoted(strays::STRAYS), None)]).collect())
    }

    fn count_events(&self, origin: NodeId, first: Sequence, last: Sequence) -> Result<u64, Error> {
        let [from, to] = range(origin, first, last);
        let mut count = 0;
        for (table, _) in self.stored_in()? {
            let sql = format!("SELECT count(*) FROM {table} WHERE ?1 <= id AND id <= ?2");
            let found: u64 = self
                .connection
                .query_row(&sql, [&from, &to], |row| row.get(0))
                .doing("count the events of the old node id")?;
            count += found;
        }
        Ok(count)
    }

    fn page(&self, origin: NodeId, first: Sequence, last: Sequence) -> Result<Vec<Moving>, Error> {
        let [from, to] = range(origin, first, last);
        let mut page = Vec::new();
        for (table, declared) in self.stored_in()? {
            let sql = format!(
                "SELECT sequence_number, group_last, record_id, timestamp FROM {table} WHERE ?1 <= id AND id <= ?2"
            );
            let mut statement = self.connection.prepare_cached(&sql).doing(READING)?;
            let mut rows = statement.query([&from, &to]).doing(READING)?;
            while let Some(row) = rows.next().doing(READING)? {
                let read = || -> rusqlite::Result<Moving> {
                    Ok(Moving {
                        table: table.clone(),
                        declared: declared.clone(),
                        sequence: unsigned(row.get(0)?),
                        group_last: unsigned(row.get(1)?),
                        record_id: row.get(2)?,
                        timestamp: row.get(3)?,
                    })
                };
                page.push(read().doing(READING)?);
            }
        }
        Ok(page)
    }

    /// Gives an event its new identity. Answers its table when another event of the record has its timestamp.
    fn move_event(&mut self, renewal: &Renewal, moving: &Moving) -> Result<Option<String>, Error> {
        let table = &moving.table;
        let old = EventId { origin: renewal.old, sequence: moving.sequence }.to_string();
        let new = EventId { origin: self.durable.node, sequence: renewal.to };
        let ends = moving.group_last.min(renewal.end) + renewal.base - renewal.first;
        let group_last = if renewal.dense { ends } else { renewal.to };
        self.connection
            .prepare_cached(&format!(
                "UPDATE {table} SET id = ?2, source_node_id = ?3, sequence_number = ?4, group_last = ?5 WHERE id = ?1"
            ))
            .and_then(|mut statement| {
                statement.execute((
                    &old,
                    new.to_string(),
                    new.origin.to_string(),
                    signed(new.sequence),
                    signed(group_last),
                ))
            })
            .doing(format!("move event {old} to the new node id"))?;
        if self.durable.parked > 0 {
            self.connection
                .prepare_cached("UPDATE _rowcast_parked SET event = ?2 WHERE event = ?1")
                .and_then(|mut statement| statement.execute((&old, new.to_string())))
                .doing(format!("move the parked event {old} to the new node id"))?;
        }
        let Some(declared) = &moving.declared else { return Ok(None) };
        let tied: bool = self
            .connection
            .prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM {table} WHERE record_id = ?1 AND timestamp = ?2 AND id <> ?3)"
            ))
            .and_then(|mut statement| {
                statement.query_row((&moving.record_id, moving.timestamp, new.to_string()), |row| row.get(0))
            })
            .doing("look for an event of the same time")?;
        Ok(tied.then(|| declared.clone()))
    }

    /// What the author had seen goes along, and with it that its earlier events are the old id's.
    fn move_contexts(&mut self, renewal: &Renewal, until: Sequence, page: &[Moving]) -> Result<(), Error> {
        const DOING: &str = "move the contexts of the old node id";
        let old = renewal.old.to_string();
        let bounds = (&old, signed(renewal.next), signed(until));
        let found: Vec<(i64, String)> = self
            .connection
            .prepare_cached(
                "SELECT first, vector FROM _rowcast_contexts WHERE origin = ?1 AND ?2 <= first AND first <= ?3",
            )
            .and_then(|mut statement| statement.query_map(bounds, |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .doing(DOING)?;
        self.connection
            .prepare_cached("DELETE FROM _rowcast_contexts WHERE origin = ?1 AND ?2 <= first AND first <= ?3")
            .and_then(|mut statement| statement.execute(bounds))
            .doing(DOING)?;
        for (first, text) in found {
            let before = page.iter().filter(|moving| moving.sequence < unsigned(first)).count() as Sequence;
            let mut vector: Vector = serde_json::from_str(&text)
                .map_err(|error| super::error::damaged(rowcast_schema::bookkeeping::CONTEXTS, error))?;
            vector.raise(renewal.old, renewal.first - 1);
            self.save_context(self.durable.node, renewal.to + before, &vector)?;
        }
        Ok(())
    }

    /// A group that the others know only the beginning of ends for the old id where they part. Groups are mostly short, so
    /// it walks back a little at a time, and stops where an earlier group ends.
    fn end_group_before(&mut self, origin: NodeId, first: Sequence) -> Result<(), Error> {
        const STEP: Sequence = 500;
        let mut until = first - 1;
        while until > 0 {
            let [from, to] = range(origin, until.saturating_sub(STEP - 1).max(1), until);
            let mut changed = 0;
            for (table, _) in self.stored_in()? {
                changed += self
                    .connection
                    .prepare_cached(&format!(
                        "UPDATE {table} SET group_last = ?3 WHERE ?1 <= id AND id <= ?2 AND ?3 < group_last"
                    ))
                    .and_then(|mut statement| statement.execute((&from, &to, signed(first - 1))))
                    .doing("end a group of the old node id")?;
            }
            if changed == 0 {
                break;
            }
            until = until.saturating_sub(STEP);
        }
        Ok(())
    }
}

const READING: &str = "read the events of a node id";

/// The key of a renewal that is under way.
const RENEWAL: &str = "renewal";

/// The renewal that is under way, if there is one.
pub(super) fn load(connection: &Connection) -> Result<Option<Renewal>, Error> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM _rowcast_state WHERE key = ?1", [RENEWAL], |row| row.get(0))
        .optional()
        .doing("look for a change of the node id that is under way")?;
    let read = |text: String| serde_json::from_str(&text);
    text.map(read).transpose().map_err(|error| super::error::damaged(rowcast_schema::bookkeeping::STATE, error))
}

fn range(origin: NodeId, first: Sequence, last: Sequence) -> [String; 2] {
    [first, last].map(|sequence| EventId { origin, sequence }.to_string())
}
