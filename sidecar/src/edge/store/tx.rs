//! What the stages may do inside one writing transaction: small steps over rows, events, positions and parked events.
//!
//! Nothing here decides anything. Statements over declared tables come from [`Replicated`]; the others stand here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rowcast_schema::bookkeeping;
use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::record;
use rowcast_schema::value::Value;
use rusqlite::{Connection, Row};

use super::drift::Pending;
use super::error::{Doing as _, Error, damaged};
use super::replicated::{Replicated, Shape, Tables};
use super::shelf::{AtHand, Shelf};
use super::{Durable, serve, state, strays};
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Operation, Version};
use crate::position::{NodeId, Sequence};

/// A writing transaction. Holds the write lock.
pub struct Tx<'a> {
    pub(super) connection: &'a Connection,
    tables: &'a Tables,
    pub(super) pending: &'a [Pending],
    layouts: HashMap<LayoutId, Arc<Layout>>,
    at_hand: Shelf<'a>,
    /// Positions that are moved in memory, and written when the transaction ends.
    pub(super) moved: BTreeMap<NodeId, Timestamp>,
    /// Positions, clock and numbering as this transaction leaves them: kept if it commits.
    pub durable: Durable,
}

/// The newest event of a record, without its row: applied, or parked because another record holds its value.
#[derive(Clone, Copy, Debug)]
pub struct Newest {
    /// Which event it is.
    pub version: Version,
    /// What it did.
    pub operation: Operation,
    /// Which columns it had.
    pub layout: LayoutId,
    /// Whether it is parked: another record holds a UNIQUE value that it claims, and its own is not in the table.
    pub kept_out: bool,
}

impl Newest {
    /// The identity of the event.
    pub fn id(&self) -> EventId {
        EventId { origin: self.version.origin, sequence: self.version.sequence }
    }
}

/// A record's content, by its events.
#[derive(Clone, Debug)]
pub struct Content {
    /// The newest event.
    pub version: Version,
    /// The cells in the order of the table's layout, `None` where no event has the column; or no cells: it is deleted.
    pub cells: Option<Vec<Option<Value>>>,
}

/// Where an event is stored.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its identity.
    pub id: EventId,
    /// The last event of its group.
    pub group_last: Sequence,
    /// The table it belongs to.
    pub table: &'a Replicated,
    /// Whether it is applied at once.
    pub processed: bool,
}

impl<'a> Tx<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        tables: &'a Tables,
        pending: &'a [Pending],
        durable: Durable,
    ) -> Self {
        Self {
            connection,
            tables,
            pending,
            layouts: HashMap::new(),
            at_hand: Shelf::default(),
            moved: BTreeMap::new(),
            durable,
        }
    }

    pub(super) fn into_durable(self) -> Durable {
        self.durable
    }

    /// A statement that is needed for nearly every row.
    pub(super) fn statement(&self, sql: &str) -> rusqlite::Result<AtHand<'_, 'a>> {
        self.at_hand.take(self.connection, sql)
    }

    /// The replicated tables. They do not change within a transaction.
    pub fn tables(&self) -> &'a Tables {
        self.tables
    }
    /// Stores an event. Answers false when it is stored already.
    pub fn insert_event(&self, place: &Place<'_>, event: &Event) -> Result<bool, Error> {
        let id = place.id.to_string();
        let inserted = self
            .statement(&place.table.events.insert)
            .and_then(|mut statement| {
                statement.execute(rusqlite::params![
                    id,
                    event.operation.as_str(),
                    event.record_id,
                    event.data,
                    event.timestamp.0,
                    &id[..UUID_LEN],
                    place.processed,
                    signed(place.id.sequence),
                    event.layout.0,
                    event.changed,
                    signed(place.group_last),
                ])
            })
            .doing_with(|| format!("store event {id}"))?;
        Ok(inserted == 1)
    }

    /// The newest event of a record that is believed, understood and allowed: its content comes from it.
    pub fn newest(&self, table: &Replicated, record_id: &str) -> Result<Option<Newest>, Error> {
        self.newest_where(table, record_id, |_| true)
    }

    /// The newest event of a record beside `id`, and beside those of the same origin from `first` on that are older
    /// than it: they arrive together.
    pub fn newest_beside(
        &self,
        table: &Replicated,
        record_id: &str,
        id: EventId,
        first: Sequence,
    ) -> Result<Option<Newest>, Error> {
        self.newest_where(table, record_id, |found| {
            found.origin != id.origin || found.sequence < first || id.sequence < found.sequence
        })
    }

    fn newest_where(
        &self,
        table: &Replicated,
        record_id: &str,
        counts: impl Fn(EventId) -> bool,
    ) -> Result<Option<Newest>, Error> {
        let doing = || format!("find the newest event of `{}` {record_id}", table.name);
        let mut statement = self.statement(&table.events.newest).doing_with(doing)?;
        let mut rows = statement.query([record_id]).doing_with(doing)?;
        let mut newest: Option<Newest> = None;
        while let Some(row) = rows.next().doing_with(doing)? {
            let timestamp = Timestamp(row.get(0).doing_with(doing)?);
            if newest.is_some_and(|newest| timestamp < newest.version.timestamp) {
                break;
            }
            let processed: bool = row.get(5).doing_with(doing)?;
            if !processed && self.durable.parked == 0 {
                continue;
            }
            let mut found = newest_of(row, timestamp).map_err(|reason| damaged(doing(), reason))?;
            if !counts(found.id()) {
                continue;
            }
            found.kept_out = !processed;
            if found.kept_out && !self.waits_for_value(&found.id().to_string())? {
                continue;
            }
            if newest.is_none_or(|newest| newest.version < found.version) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// A record's content by its applied events, under the table's layout: each column from the newest event that has
    /// it, back to the last delete.
    pub fn content(&mut self, table: &Replicated, shape: &Shape, record_id: &str) -> Result<Option<Content>, Error> {
        self.fold(None, table, shape, record_id)
    }

    /// A record's content when its newest applied event is the one of that version: what is parked and older than it adds
    /// its columns like any other.
    pub fn content_as_of(
        &mut self,
        version: Version,
        table: &Replicated,
        shape: &Shape,
        record_id: &str,
    ) -> Result<Option<Content>, Error> {
        self.fold(Some(version).filter(|_| self.durable.parked > 0), table, shape, record_id)
    }

    fn fold(
        &mut self,
        newest: Option<Version>,
        table: &Replicated,
        shape: &Shape,
        record_id: &str,
    ) -> Result<Option<Content>, Error> {
        let doing = || format!("read the events of `{}` {record_id}", table.name);
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&table.events.history).doing_with(doing)?;
        let mut rows = statement.query((record_id, newest.is_some())).doing_with(doing)?;
        let mut content: Option<Content> = None;
        while let Some(row) = rows.next().doing_with(doing)? {
            let (id, event, _) = serve::event_of(row, &table.name)?;
            let version = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
            if newest.is_some_and(|newest| newest < version) {
                continue; // Parked for itself.
            }
            // Under another primary key the same words named another record; and of some the row did not travel.
            let adds = |layout: Arc<Layout>| shape.has_key_of(&layout) && event.left_out(&layout).is_none();
            if !self.layout(event.layout)?.is_none_or(adds) {
                continue;
            }
            let Some(data) = &event.data else {
                content.get_or_insert(Content { version, cells: None });
                break;
            };
            let (columns, values) = match self.decode(event.layout, data) {
                Ok(decoded) => decoded,
                // What was never understood, and is not the newest, adds nothing.
                Err(Error::Damaged { .. }) if content.is_some() => continue,
                Err(error) => return Err(error),
            };
            let key = || -> Vec<Value> { columns.key.iter().map(|&at| values[at].clone()).collect() };
            if content.is_some() && shape.record_id_of_key(&key()) != event.record_id {
                continue; // As above: it speaks of another row than its record.
            }
            let content =
                content.get_or_insert(Content { version, cells: Some(vec![None; shape.layout.columns.len()]) });
            let cells = content.cells.as_mut().expect("bug: a delete ends the walk");
            for (column, value) in columns.columns.iter().zip(values) {
                if let Some(at) = shape.layout.place(column) {
                    cells[at].get_or_insert(value);
                }
            }
            if cells.iter().all(Option::is_some) {
                break;
            }
        }
        Ok(content)
    }

    /// The cells of a stored row, with the layout they stand in.
    pub fn decode(&mut self, layout: LayoutId, data: &str) -> Result<(Arc<Layout>, Vec<Value>), Error> {
        let layout =
            self.layout(layout)?.ok_or_else(|| damaged(bookkeeping::LAYOUTS, "an event's layout is missing"))?;
        let cells = record::row_from_json(&layout.columns, data).map_err(|error| damaged(&layout.table, error))?;
        Ok((layout, cells))
    }

    /// The event with that identity.
    pub fn event(&self, table: &Replicated, id: EventId) -> Result<Option<(Event, Sequence)>, Error> {
        let doing = || format!("read event {id}");
        let mut statement = self.connection.prepare_cached(&table.events.by_id).doing_with(doing)?;
        let mut rows = statement.query([id.to_string()]).doing_with(doing)?;
        match rows.next().doing_with(doing)? {
            Some(row) => serve::event_of(row, &table.name).map(|(_, event, group_last)| Some((event, group_last))),
            None => Ok(None),
        }
    }

    /// Marks an event as applied, or not.
    pub fn set_processed(&self, table: &Replicated, id: EventId, processed: bool) -> Result<(), Error> {
        self.connection
            .prepare_cached(&table.events.set_processed)
            .and_then(|mut statement| statement.execute((id.to_string(), processed)))
            .doing_with(|| format!("mark event {id}"))
            .map(drop)
    }

    /// Record ids that events know, after one of them, in order.
    pub fn records_after(&self, table: &Replicated, after: Option<&str>, limit: usize) -> Result<Vec<String>, Error> {
        // No record id is empty: the empty text stands before the first.
        self.connection
            .prepare_cached(&table.events.records_after)
            .and_then(|mut statement| {
                statement.query_map((after.unwrap_or_default(), limit), |row| row.get(0))?.collect()
            })
            .doing_with(|| format!("list the records of `{}`", table.name))
    }

    /// The events that are kept of a table that is not declared here: ids and records, about `limit` of them, whole records only; and
    /// the record to go on after.
    pub fn strays_between(
        &self,
        table: &str,
        (after, until): (Option<&str>, Option<&str>),
        limit: usize,
    ) -> Result<strays::StrayPage, Error> {
        // No record id is empty: the empty text stands before the first.
        strays::between(self.connection, table, (after.unwrap_or_default(), until), limit)
    }

    /// Takes some of them out, also of those that are parked.
    pub fn drop_strays(&mut self, table: &str, ids: &[EventId]) -> Result<(), Error> {
        strays::drop_events(self.connection, table, ids)?;
        self.recount_parked()
    }

    /// Stores an event of a table that is not declared here, for the day when it is.
    pub fn insert_stray(&self, id: EventId, group_last: Sequence, event: &Event) -> Result<(), Error> {
        strays::insert(self.connection, id, group_last, event)
    }
    /// The layout of that number, if an event or a trigger here ever had it.
    pub fn layout(&mut self, id: LayoutId) -> Result<Option<Arc<Layout>>, Error> {
        if let Some(layout) = self.layouts.get(&id) {
            return Ok(Some(layout.clone()));
        }
        // The layouts of today first: they need no look at the database.
        let shapes = self.tables.iter().filter_map(|table| table.shape.as_ref());
        let known = shapes.map(|shape| &shape.layout).find(|layout| layout.id == id).cloned();
        let found = match known {
            Some(layout) => Some(layout),
            None => state::layout(self.connection, id)?.map(Arc::new),
        };
        if let Some(layout) = &found {
            self.layouts.insert(id, layout.clone());
        }
        Ok(found)
    }

    /// Keeps a layout that came with an event.
    pub fn save_layout(&mut self, layout: &Layout) -> Result<(), Error> {
        if self.layout(layout.id)?.is_none() {
            state::save_layout(self.connection, layout)?;
        }
        Ok(())
    }
}

/// Characters of a UUID as text.
const UUID_LEN: usize = 36;

pub(super) fn event_id(text: &str) -> Option<EventId> {
    let (origin, sequence) = text.split_once(':')?;
    Some(EventId { origin: origin.parse().ok()?, sequence: Sequence::from_str_radix(sequence, 16).ok()? })
}

/// SQLite's integers have a sign; a sequence number never reaches it.
pub(super) fn signed(sequence: Sequence) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> Sequence {
    Sequence::try_from(number).unwrap_or(0)
}
fn newest_of(row: &Row<'_>, timestamp: Timestamp) -> Result<Newest, String> {
    let text = |at: usize| row.get_ref(at).ok().and_then(|cell| cell.as_str().ok()).ok_or("no text");
    let origin = text(1)?.parse().map_err(|error| format!("source_node_id: {error}"))?;
    let operation = Operation::parse(text(3)?).ok_or("an unknown operation_type")?;
    let number = |at: usize| row.get::<_, i64>(at).map_err(|error| error.to_string());
    let version = Version { timestamp, origin, sequence: unsigned(number(2)?) };
    Ok(Newest { version, operation, layout: LayoutId(number(4)?), kept_out: false })
}
