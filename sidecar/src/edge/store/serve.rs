//! Reads events for others: ranges of one origin, and snapshots of one table. Also what both sides need to read one.

use std::cell::RefCell;

use rowcast_schema::bookkeeping;
use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::table::Table;
use rowcast_schema::{OWN_PREFIX, event_table, identifier};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, Rows};
use serde::{Deserialize, Serialize};

use super::contexts::Contexts;
use super::error::{Doing as _, Error, damaged};
use super::replicated::EVENT;
use super::tx::{signed, unsigned};
use super::{install, state, strays};
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Fingerprint, Operation, Piece};
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};

/// Consecutive events of one origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The events, in sequence order.
    pub pieces: Vec<Piece>,
    /// The layouts that they refer to.
    pub layouts: Vec<Layout>,
    /// The fingerprint of the event before the first one, if it is stored there.
    pub before: Option<Fingerprint>,
}

/// What a node answers to the request for a range of events, or for their fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The beginning of the range, as much as fits.
    Events(Page),
    /// This node does not have them one by one: they lie at or below its horizon, or above its position.
    NotHere,
    /// What tells events from others of their numbers.
    Fingerprints(Fingerprints),
}

/// What a node says of one origin's events in a range of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints {
    /// Those of the events that are stored there, in the order of their numbers.
    pub stored: Vec<(Sequence, Fingerprint)>,
    /// The timestamp of the newest of all, in the range or not: a later one it never had. The greatest there is where it does
    /// not know.
    pub newest: Timestamp,
}

/// One event of a snapshot: its table is that of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Who made it.
    pub origin: NodeId,
    /// As which of its events.
    pub sequence: Sequence,
    /// The last event of its group.
    pub group_last: Sequence,
    /// Whether it is applied there; a parked one is tried again here.
    pub processed: bool,
    /// The event.
    pub event: Event,
}

/// Some records of one table, by the events that are not superseded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPage {
    /// The donor's position vector before this page was read.
    pub vector: Vector,
    /// The events, by record id.
    pub rows: Vec<SnapshotRow>,
    /// The layouts that they refer to.
    pub layouts: Vec<Layout>,
    /// What the authors of these events had seen: origin, first sequence number, vector.
    pub contexts: Vec<(NodeId, Sequence, Vector)>,
    /// The record id to go on after; none when the table ends here.
    pub next: Option<String>,
    /// The number of events of the table, roughly: for the progress shown.
    pub total: u64,
}

/// The definitions of the declared tables; and the names of others of which there are events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definitions {
    /// The position vector before they were read.
    pub vector: Vector,
    /// Per table: its name, and the statements that make it and its indexes, in order. None for one that is not declared there.
    pub tables: Vec<(String, Vec<String>)>,
}

/// The event with one id in an event table, in the columns of `event_of`.
pub(super) fn event_by_id(events: &str) -> String {
    format!("SELECT {EVENT} FROM {events} WHERE id = ?1")
}

/// The same, from one id to another, in their order.
pub(super) fn events_by_ids(events: &str) -> String {
    format!("SELECT {EVENT} FROM {events} WHERE ?1 <= id AND id <= ?2 ORDER BY id")
}

/// An event from the columns of `EVENT` in `replicated`, with its identity and the end of its group.
pub(super) fn event_of(row: &Row<'_>, table: &str) -> Result<(EventId, Event, Sequence), Error> {
    let read = || -> Result<(EventId, Event, Sequence), String> {
        let failed = |error: rusqlite::Error| error.to_string();
        let text = |at: usize| row.get_ref(at).map_err(failed)?.as_str().map_err(|error| error.to_string());
        let number = |at: usize| row.get::<_, i64>(at).map_err(failed);
        let origin = text(0)?.parse().map_err(|error| format!("source_node_id: {error}"))?;
        let event = Event {
            table: table.to_owned(),
            operation: Operation::parse(text(2)?).ok_or("an unknown operation_type")?,
            record_id: text(3)?.to_owned(),
            data: row.get(4).map_err(failed)?,
            timestamp: Timestamp(number(5)?),
            layout: LayoutId(number(6)?),
            changed: number(7)?,
        };
        Ok((EventId { origin, sequence: unsigned(number(1)?) }, event, unsigned(number(8)?)))
    };
    read().map_err(|reason| damaged(event_table::name(table), reason))
}

/// Events of one origin from `first` to at most `last`, over all tables, merged in sequence order. Stops at so many bytes, at
/// the size of a page, at a hole, and takes at least one event when there is one.
pub(super) fn events(
    connection: &Connection,
    tables: &[String],
    origin: NodeId,
    (first, last): (Sequence, Sequence),
    bytes: usize,
) -> Result<Page, Error> {
    let range = [first, last].map(|sequence| EventId { origin, sequence }.to_string());
    let mut names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut statements: Vec<CachedStatement<'_>> = Vec::with_capacity(names.len() + 1);
    for name in &names {
        let events = identifier::quoted(&event_table::name(name));
        statements.push(connection.prepare_cached(&events_by_ids(&events)).doing("read events")?);
    }
    let sql = format!("SELECT {EVENT}, table_name FROM {} WHERE ?1 <= id AND id <= ?2 ORDER BY id", strays::STRAYS);
    statements.push(connection.prepare_cached(&sql).doing("read events")?);
    names.push("");
    let mut sources = Vec::with_capacity(statements.len());
    for (statement, table) in statements.iter_mut().zip(names) {
        sources.push(Source::begin(statement.query([&range[0], &range[1]]).doing("read events")?, table)?);
    }
    let mut collector = Collector::new(connection, origin, first, bytes);
    while let Some(source) = sources.iter_mut().find(|source| source.holds(collector.next)) {
        let (event, group_last) = source.advance()?;
        if !collector.take(event, group_last)? {
            break;
        }
    }
    collector.finish()
}

/// Takes a millisecond with a hundred tables.
pub(super) const EVENT_TABLES: &str =
    "SELECT substr(name, 1, length(name) - length(?1)) FROM sqlite_schema WHERE type = 'table'
     AND substr(name, -length(?1)) = ?1 AND (SELECT count(*) FROM pragma_table_info(sqlite_schema.name) AS column
         WHERE column.name IN ('id', 'record_id', 'source_node_id', 'sequence_number', 'group_last')) = 5
     ORDER BY name";

/// The tables that have an event table here, declared or not: an origin's numbers go over all of them, also over those
/// that are no longer declared.
pub(super) fn event_tables(connection: &Connection) -> Result<Vec<String>, Error> {
    let suffix = event_table::name("");
    connection
        .prepare_cached(EVENT_TABLES)
        .and_then(|mut statement| statement.query_map([suffix], |row| row.get(0))?.collect())
        .doing("list the event tables")
}

/// The same, looked for again only when the schema has changed.
#[derive(Debug, Default)]
pub(super) struct EventTables(RefCell<Option<(i64, Vec<String>)>>);

impl EventTables {
    /// As of the present transaction.
    pub(super) fn of(&self, connection: &Connection) -> Result<Vec<String>, Error> {
        let version = install::schema_version(connection)?;
        let mut known = self.0.borrow_mut();
        match &*known {
            Some((of, tables)) if *of == version => Ok(tables.clone()),
            _ => {
                let tables = event_tables(connection)?;
                *known = Some((version, tables.clone()));
                Ok(tables)
            }
        }
    }
}

/// The events of one table, the first of them read ahead.
struct Source<'s> {
    rows: Rows<'s>,
    table: &'s str,
    ahead: Option<(Sequence, Event, Sequence)>,
}

impl<'s> Source<'s> {
    fn begin(rows: Rows<'s>, table: &'s str) -> Result<Self, Error> {
        let mut source = Self { rows, table, ahead: None };
        source.read()?;
        Ok(source)
    }

    fn read(&mut self) -> Result<(), Error> {
        self.ahead = match self.rows.next().doing("read events")? {
            None => None,
            Some(row) => {
                let table: String =
                    if self.table.is_empty() { row.get(9).doing("read events")? } else { self.table.to_owned() };
                let (id, event, group_last) = event_of(row, &table)?;
                Some((id.sequence, event, group_last))
            }
        };
        Ok(())
    }

    fn holds(&self, sequence: Sequence) -> bool {
        self.ahead.as_ref().is_some_and(|(ahead, ..)| *ahead == sequence)
    }

    fn advance(&mut self) -> Result<(Event, Sequence), Error> {
        let (_, event, group_last) = self.ahead.take().expect("bug: asked only when it holds one");
        self.read()?;
        Ok((event, group_last))
    }
}

/// Puts events into pieces, with contexts and layouts.
struct Collector<'a> {
    connection: &'a Connection,
    origin: NodeId,
    next: Sequence,
    page: Page,
    page_bytes: usize,
    page_bytes_max: usize,
    piece_bytes: usize,
    contexts: Contexts,
}

impl<'a> Collector<'a> {
    fn new(connection: &'a Connection, origin: NodeId, first: Sequence, bytes: usize) -> Self {
        Self {
            connection,
            origin,
            next: first,
            page: Page::default(),
            page_bytes: 0,
            page_bytes_max: bytes.min(limits::PAGE_BYTES_MAX),
            piece_bytes: 0,
            contexts: Contexts::default(),
        }
    }

    /// Answers whether there is room for more.
    fn take(&mut self, event: Event, group_last: Sequence) -> Result<bool, Error> {
        let size = event.size();
        if !self.page.layouts.iter().any(|layout| layout.id == event.layout) {
            let layout = state::layout(self.connection, event.layout)?
                .ok_or_else(|| damaged(bookkeeping::LAYOUTS, "an event's layout is missing"))?;
            self.page.layouts.push(layout);
        }
        let goes_on = self.page.pieces.last().is_some_and(|piece| {
            piece.group_last == group_last
                && self.piece_bytes + size <= limits::PIECE_BYTES_MAX
                && piece.events.len() < limits::PIECE_EVENTS_MAX
        });
        if !goes_on {
            let id = EventId { origin: self.origin, sequence: self.next };
            let context = self.contexts.of(self.connection, id)?;
            self.page.pieces.push(Piece { first: self.next, group_last, context, events: Vec::new() });
            self.piece_bytes = 0;
        }
        self.page.pieces.last_mut().expect("bug: pushed above").events.push(event);
        self.piece_bytes += size;
        self.page_bytes += size;
        self.next += 1;
        Ok(self.page_bytes < self.page_bytes_max)
    }

    fn finish(self) -> Result<Page, Error> {
        Ok(self.page)
    }
}

/// The context that holds for an event, and the first sequence number that it holds for.
pub(super) fn context(connection: &Connection, id: EventId) -> Result<Option<(Sequence, Vector)>, Error> {
    let found: Option<(i64, String)> = connection
        .prepare_cached(
            "SELECT first, vector FROM _rowcast_contexts WHERE origin = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
        )
        .and_then(|mut statement| {
            statement
                .query_row((id.origin.to_string(), signed(id.sequence)), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .doing("read a context")?;
    let Some((first, text)) = found else { return Ok(None) };
    let vector = serde_json::from_str(&text).map_err(|error| damaged(bookkeeping::CONTEXTS, error))?;
    Ok(Some((unsigned(first), vector)))
}

/// Records of one table after a record id, each with the events that its content comes from: about so many bytes, and at
/// least one record. Of a table that is not declared here, what came of it.
pub(super) fn snapshot(
    connection: &Connection,
    (table, is_declared): (&str, bool),
    after: Option<&str>,
    bytes_max: usize,
) -> Result<SnapshotPage, Error> {
    let bytes_max = bytes_max.clamp(1, limits::PAGE_BYTES_MAX);
    let mut page = SnapshotPage { vector: vector(connection)?, ..Default::default() };
    // No record id is empty: the empty text stands before the first.
    let after = after.unwrap_or_default();
    let (sql, parameters) = if is_declared {
        page.total = newest_rowid(connection, table)?;
        let events = identifier::quoted(&event_table::name(table));
        // Parked events go along: they wait there as they do here.
        let sql = format!(
            "SELECT {EVENT}, processed FROM {events} WHERE ?1 < record_id ORDER BY record_id, timestamp DESC, source_node_id DESC"
        );
        (sql, vec![after])
    } else {
        (strays::snapshot(connection, table)?, vec![after, table])
    };
    let mut statement = connection.prepare_cached(&sql).doing("read a snapshot")?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameters)).doing("read a snapshot")?;
    let mut bytes = 0;
    let mut record: Option<Record> = None;
    let mut contexts = Contexts::default();
    while let Some(row) = rows.next().doing("read a snapshot")? {
        let (id, event, group_last) = event_of(row, table)?;
        let processed: bool = row.get(9).doing("read a snapshot")?;
        if page.vector.of(id.origin) < id.sequence {
            continue; // The beginning of a group that is not whole here yet: whoever tails gets all of it.
        }
        if record.as_ref().is_none_or(|record| record.id != event.record_id) {
            // A page ends between records only.
            if bytes_max <= bytes {
                page.next = record.map(|record| record.id);
                break;
            }
            record = Some(Record { id: event.record_id.clone(), ..Default::default() });
        }
        let record = record.as_mut().expect("bug: set above");
        if record.needs(&event, processed) {
            bytes += event.size();
            keep_layout(connection, &mut page.layouts, event.layout)?;
            contexts.of(connection, id)?;
            page.rows.push(SnapshotRow { origin: id.origin, sequence: id.sequence, group_last, processed, event });
        }
    }
    page.contexts = contexts.found();
    Ok(page)
}

/// What is known of one record while its events go by, newest first.
#[derive(Default)]
pub(super) struct Record {
    id: String,
    layouts: Vec<LayoutId>,
    ended: bool,
}

impl Record {
    /// Whether its content takes anything from the event: the newest one does, and older ones of other layouts may.
    pub(super) fn needs(&mut self, event: &Event, processed: bool) -> bool {
        if !processed {
            return true;
        }
        if self.ended {
            return false;
        }
        if event.operation == Operation::Delete {
            // It ends the walk, here and there: without it an older event that arrives later would fill columns.
            self.ended = true;
            return true;
        }
        let new = !self.layouts.contains(&event.layout);
        if new {
            self.layouts.push(event.layout);
        }
        new
    }
}

pub(super) fn keep_layout(connection: &Connection, layouts: &mut Vec<Layout>, id: LayoutId) -> Result<(), Error> {
    if layouts.iter().any(|layout| layout.id == id) {
        return Ok(());
    }
    layouts.extend(state::layout(connection, id)?);
    Ok(())
}

fn newest_rowid(connection: &Connection, table: &str) -> Result<u64, Error> {
    let events = identifier::quoted(&event_table::name(table));
    connection
        .query_row(&format!("SELECT coalesce(max(rowid), 0) FROM {events}"), [], |row| row.get(0))
        .doing("count the events")
}

pub(super) fn vector(connection: &Connection) -> Result<Vector, Error> {
    let mut statement =
        connection.prepare_cached("SELECT origin, position FROM _rowcast_positions").doing("read the positions")?;
    let mut rows = statement.query([]).doing("read the positions")?;
    let mut vector = Vector::default();
    while let Some(row) = rows.next().doing("read the positions")? {
        let origin: String = row.get(0).doing("read the positions")?;
        vector.set(super::parse("_rowcast_positions", &origin)?, unsigned(row.get(1).doing("read the positions")?));
    }
    Ok(vector)
}

pub(super) fn horizon(connection: &Connection, origin: NodeId) -> Result<Sequence, Error> {
    connection
        .prepare_cached("SELECT horizon FROM _rowcast_positions WHERE origin = ?1")
        .and_then(|mut statement| statement.query_row([origin.to_string()], |row| row.get(0)).optional())
        .doing("read a horizon")
        .map(|horizon| unsigned(horizon.unwrap_or(0)))
}

/// The statements that make a table and its indexes anew, in order.
pub(super) fn definition(table: &Table) -> Vec<String> {
    debug_assert!(!table.name.starts_with(OWN_PREFIX));
    std::iter::once(table.sql.clone()).chain(table.index_sql.iter().cloned()).collect()
}
