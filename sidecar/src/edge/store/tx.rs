//! What the stages may do inside one writing transaction: small steps over rows, events, positions and parked events.
//!
//! Nothing here decides anything. Statements over declared tables come from [`Replicated`]; the others stand here.

use std::collections::HashMap;
use std::sync::Arc;

use rowcast_schema::bookkeeping;
use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::record;
use rowcast_schema::value::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, ffi, params_from_iter};

use super::cell::{self, Bound};
use super::error::{Doing as _, Error, damaged};
use super::replicated::{Holders, Replicated, Shape, Tables};
use super::{Durable, OpenGroup, definition, parse, serve};
use crate::clock::{Clock, Timestamp};
use crate::event::{Event, EventId, Operation, Version};
use crate::position::{NodeId, Sequence, Vector};

/// A writing transaction. Holds the write lock.
pub struct Tx<'a> {
    pub(super) connection: &'a Connection,
    tables: &'a Tables,
    layouts: HashMap<LayoutId, Arc<Layout>>,
    /// Positions, clock and numbering as this transaction leaves them: kept if it commits.
    pub durable: Durable,
}

/// The newest applied event of a record, without its row.
#[derive(Clone, Copy, Debug)]
pub struct Newest {
    /// Which event it is.
    pub version: Version,
    /// What it did.
    pub operation: Operation,
    /// Which columns it had.
    pub layout: LayoutId,
}

/// A record's content, by its events.
#[derive(Clone, Debug)]
pub struct Content {
    /// The newest event.
    pub version: Version,
    /// The cells in the order of the table's layout, `None` where no event has the column; or no cells: it is deleted.
    pub cells: Option<Vec<Option<Value>>>,
}

/// What became of an upsert.
#[derive(Debug)]
pub enum Written {
    /// The row stands.
    Done,
    /// Other rows hold what it claims of a UNIQUE index: their keys.
    Claimed(Vec<Vec<Value>>),
    /// The table's own rules forbid it: SQLite's words.
    Refused(String),
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

/// Why an event is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// A record with a greater version holds a UNIQUE value that it claims.
    Unique,
    /// The table's rules forbid the row here.
    Constraint,
    /// Its timestamp lies too far ahead.
    Clock,
    /// The table is not in this database (yet), or has another key.
    Schema,
}

impl ParkReason {
    /// As the column `reason` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Constraint => "constraint",
            Self::Clock => "clock",
            Self::Schema => "schema",
        }
    }
}

/// A parked event.
#[derive(Clone, Debug)]
pub struct ParkedEvent {
    /// Which one.
    pub id: EventId,
    /// Its table, as declared.
    pub table: String,
    /// Why, as it was last found.
    pub reason: String,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection, tables: &'a Tables, durable: Durable) -> Self {
        Self { connection, tables, layouts: HashMap::new(), durable }
    }

    pub(super) fn into_durable(self) -> Durable {
        self.durable
    }

    /// The replicated tables. They do not change within a transaction.
    pub fn tables(&self) -> &'a Tables {
        self.tables
    }

    // --- rows of the service ---

    /// The row with that key, in the order of the layout.
    pub fn row(&self, shape: &Shape, key: &[Value]) -> Result<Option<Vec<Value>>, Error> {
        self.connection
            .prepare_cached(&shape.row)
            .and_then(|mut statement| {
                statement.query_row(params_from_iter(key.iter().map(Bound)), |row| cells(row, shape)).optional()
            })
            .doing(format!("read a row of `{}`", shape.table.name))
    }

    /// Rows after `key` in key order; `None` begins at the start.
    pub fn rows_after(&self, shape: &Shape, key: Option<&[Value]>, limit: usize) -> Result<Vec<Vec<Value>>, Error> {
        let doing = || format!("read the rows of `{}`", shape.table.name);
        let sql = if key.is_some() { &shape.scan_after } else { &shape.scan };
        let mut statement = self.connection.prepare_cached(sql).doing(doing())?;
        let mut rows = statement.query(params_from_iter(key.unwrap_or_default().iter().map(Bound))).doing(doing())?;
        let mut found = Vec::new();
        while found.len() < limit {
            match rows.next().doing(doing())? {
                Some(row) => found.push(cells(row, shape).doing(doing())?),
                None => break,
            }
        }
        Ok(found)
    }

    /// Makes the row what `cells` say, under the table's own layout.
    pub fn upsert(&self, shape: &Shape, cells: &[Value]) -> Result<Written, Error> {
        self.put(shape, &shape.upsert, cells.iter(), cells)
    }

    /// Makes the columns that are given what they say, and leaves the others. A row that is new gets their defaults.
    pub fn upsert_some(&self, shape: &Shape, cells: &[Option<Value>]) -> Result<Written, Error> {
        let given = || shape.layout.columns.iter().zip(cells).filter_map(|(name, cell)| Some((name, cell.as_ref()?)));
        let columns: Vec<String> = given().map(|(name, _)| name.clone()).collect();
        let whole: Vec<Value> =
            cells.iter().zip(&shape.defaults).map(|(cell, default)| cell.as_ref().unwrap_or(default).clone()).collect();
        self.put(shape, &shape.upsert_of(&columns), given().map(|(_, cell)| cell), &whole)
    }

    fn put<'v>(
        &self,
        shape: &Shape,
        sql: &str,
        bound: impl Iterator<Item = &'v Value>,
        whole: &[Value],
    ) -> Result<Written, Error> {
        let result = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params_from_iter(bound.map(Bound))));
        match result {
            Ok(_) => Ok(Written::Done),
            Err(rusqlite::Error::SqliteFailure(failure, message)) if failure.code == ErrorCode::ConstraintViolation => {
                let words = message.unwrap_or_else(|| failure.to_string());
                if failure.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE {
                    let holders = self.holders(shape, whole)?;
                    if !holders.is_empty() {
                        return Ok(Written::Claimed(holders));
                    }
                }
                Ok(Written::Refused(words))
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::TypeMismatch) => {
                Ok(Written::Refused(error.to_string()))
            }
            Err(source) => Err(Error::Sqlite { doing: format!("write a row of `{}`", shape.table.name), source }),
        }
    }

    /// The keys of other rows that hold what `cells` claim of any UNIQUE index.
    fn holders(&self, shape: &Shape, cells: &[Value]) -> Result<Vec<Vec<Value>>, Error> {
        let own = shape.record_id(cells);
        let mut holders: Vec<Vec<Value>> = Vec::new();
        for unique in &shape.holders {
            let found = match unique {
                Holders::Query(sql) => self.keys(shape, sql, cells),
                Holders::Probe(sql) => self.probe(shape, sql, cells),
            };
            for key in found.doing(format!("find who holds a UNIQUE value of `{}`", shape.table.name))? {
                if shape.record_id_of_key(&key) != own && !holders.contains(&key) {
                    holders.push(key);
                }
            }
        }
        Ok(holders)
    }

    fn keys(&self, shape: &Shape, sql: &str, cells: &[Value]) -> rusqlite::Result<Vec<Vec<Value>>> {
        let width = shape.layout.key.len();
        let mut statement = self.connection.prepare_cached(sql)?;
        let bound = cells.iter().take(statement.parameter_count()).map(Bound);
        let mut rows = statement.query(params_from_iter(bound))?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push((0..width).map(|at| row.get_ref(at).map(cell::read)).collect::<rusqlite::Result<_>>()?);
        }
        Ok(keys)
    }

    /// Runs a statement that writes, for what it answers alone. What another constraint is in the way of answers
    /// nothing: the one that holds that is found by its own statement, and then it is asked again.
    fn probe(&self, shape: &Shape, sql: &str, cells: &[Value]) -> rusqlite::Result<Vec<Vec<Value>>> {
        self.connection.execute_batch("SAVEPOINT _rowcast_probe")?;
        let own = shape.key_of(cells);
        let found = self
            .connection
            .prepare_cached(&shape.delete)
            .and_then(|mut statement| statement.execute(params_from_iter(own.iter().map(Bound))))
            .and_then(|_| self.keys(shape, sql, cells));
        self.connection.execute_batch("ROLLBACK TO _rowcast_probe; RELEASE _rowcast_probe")?;
        match found {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(Vec::new()),
            found => found,
        }
    }

    /// Deletes the row with that key, if there is one.
    pub fn delete(&self, shape: &Shape, key: &[Value]) -> Result<(), Error> {
        self.connection
            .prepare_cached(&shape.delete)
            .and_then(|mut statement| statement.execute(params_from_iter(key.iter().map(Bound))))
            .doing(format!("delete a row of `{}`", shape.table.name))
            .map(drop)
    }

    // --- events ---

    /// Stores an event. Answers false when it is stored already.
    pub fn insert_event(&self, place: &Place<'_>, event: &Event) -> Result<bool, Error> {
        let id = place.id.to_string();
        let inserted = self
            .connection
            .prepare_cached(&place.table.events.insert)
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
            .doing(format!("store event {id}"))?;
        Ok(inserted == 1)
    }

    /// The newest applied event of a record.
    pub fn newest(&self, table: &Replicated, record_id: &str) -> Result<Option<Newest>, Error> {
        let doing = || format!("find the newest event of `{}` {record_id}", table.name);
        let mut statement = self.connection.prepare_cached(&table.events.newest).doing(doing())?;
        let mut rows = statement.query([record_id]).doing(doing())?;
        let mut newest: Option<Newest> = None;
        while let Some(row) = rows.next().doing(doing())? {
            let timestamp = Timestamp(row.get(0).doing(doing())?);
            if newest.is_some_and(|newest| timestamp < newest.version.timestamp) {
                break;
            }
            if !row.get::<_, bool>(5).doing(doing())? {
                continue;
            }
            let found = newest_of(row, timestamp).map_err(|reason| damaged(doing(), reason))?;
            if newest.is_none_or(|newest| newest.version < found.version) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// A record's content by its applied events, under the table's layout: each column from the newest event that has
    /// it, back to the last delete.
    pub fn content(&mut self, table: &Replicated, shape: &Shape, record_id: &str) -> Result<Option<Content>, Error> {
        let doing = || format!("read the events of `{}` {record_id}", table.name);
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&table.events.history).doing(doing())?;
        let mut rows = statement.query([record_id]).doing(doing())?;
        let mut content: Option<Content> = None;
        while let Some(row) = rows.next().doing(doing())? {
            let (id, event, _) = serve::event_of(row, &table.name)?;
            let version = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
            let Some(data) = &event.data else {
                content.get_or_insert(Content { version, cells: None });
                break;
            };
            let (columns, values) = self.decode(event.layout, data)?;
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
        let mut statement = self.connection.prepare_cached(&table.events.by_id).doing(doing())?;
        let mut rows = statement.query([id.to_string()]).doing(doing())?;
        match rows.next().doing(doing())? {
            Some(row) => serve::event_of(row, &table.name).map(|(_, event, group_last)| Some((event, group_last))),
            None => Ok(None),
        }
    }

    /// Marks an event as applied, or not.
    pub fn set_processed(&self, table: &Replicated, id: EventId, processed: bool) -> Result<(), Error> {
        self.connection
            .prepare_cached(&table.events.set_processed)
            .and_then(|mut statement| statement.execute((id.to_string(), processed)))
            .doing(format!("mark event {id}"))
            .map(drop)
    }

    /// The stored events of one origin in a range, table by table, the newest first: those of a long group.
    pub fn staged(
        &self,
        table: &Replicated,
        origin: NodeId,
        range: (Sequence, Sequence),
        limit: usize,
    ) -> Result<Vec<(EventId, Event)>, Error> {
        let doing = || format!("read the staged events of `{}`", table.name);
        let [first, last] = [range.0, range.1].map(|sequence| EventId { origin, sequence }.to_string());
        let mut statement = self.connection.prepare_cached(&table.events.range_down).doing(doing())?;
        let mut rows = statement.query([first, last]).doing(doing())?;
        let mut found = Vec::new();
        while found.len() < limit {
            match rows.next().doing(doing())? {
                Some(row) => {
                    let (id, event, _) = serve::event_of(row, &table.name)?;
                    found.push((id, event));
                }
                None => break,
            }
        }
        Ok(found)
    }

    /// Record ids that events know, after one of them, in order.
    pub fn records_after(&self, table: &Replicated, after: Option<&str>, limit: usize) -> Result<Vec<String>, Error> {
        // No record id is empty: the empty text stands before the first.
        self.connection
            .prepare_cached(&table.events.records_after)
            .and_then(|mut statement| {
                statement.query_map((after.unwrap_or_default(), limit), |row| row.get(0))?.collect()
            })
            .doing(format!("list the records of `{}`", table.name))
    }

    /// Stores an event of a table that is not declared here, for the day when it is.
    pub fn insert_stray(&self, id: EventId, group_last: Sequence, event: &Event) -> Result<(), Error> {
        serve::insert_stray(self.connection, id, group_last, event)
    }

    // --- layouts ---

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
            None => layout(self.connection, id)?.map(Arc::new),
        };
        if let Some(layout) = &found {
            self.layouts.insert(id, layout.clone());
        }
        Ok(found)
    }

    /// Keeps a layout that came with an event.
    pub fn save_layout(&mut self, layout: &Layout) -> Result<(), Error> {
        if self.layout(layout.id)?.is_none() {
            save_layout(self.connection, layout)?;
        }
        Ok(())
    }

    // --- positions, contexts, state ---

    /// Moves the position of `origin`, with the greatest timestamp taken from it.
    pub fn set_position(&mut self, origin: NodeId, position: Sequence, timestamp: Timestamp) -> Result<(), Error> {
        self.durable.vector.set(origin, position);
        self.durable.clock.merge(timestamp);
        self.connection
            .prepare_cached(
                "INSERT INTO _rowcast_positions (origin, position, horizon, timestamp) VALUES (?1, ?2, 0, ?3)
                 ON CONFLICT (origin) DO UPDATE SET position = excluded.position, timestamp = max(timestamp, excluded.timestamp)",
            )
            .and_then(|mut statement| statement.execute((origin.to_string(), signed(position), timestamp.0)))
            .doing(format!("move the position of {origin}"))
            .map(drop)
    }

    /// Says that events of `origin` up to `horizon` cannot be served one by one.
    pub fn set_horizon(&mut self, origin: NodeId, horizon: Sequence) -> Result<(), Error> {
        self.connection
            .prepare_cached("UPDATE _rowcast_positions SET horizon = max(horizon, ?2) WHERE origin = ?1")
            .and_then(|mut statement| statement.execute((origin.to_string(), signed(horizon))))
            .doing(format!("move the horizon of {origin}"))?;
        self.durable.horizon.raise(origin, horizon);
        Ok(())
    }

    /// Keeps what the author of `first` and the events after it had seen.
    pub fn save_context(&self, origin: NodeId, first: Sequence, context: &Vector) -> Result<(), Error> {
        let text = serde_json::to_string(context).expect("bug: a vector has a JSON form");
        self.connection
            .prepare_cached(
                "INSERT INTO _rowcast_contexts (origin, first, vector) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )
            .and_then(|mut statement| statement.execute((origin.to_string(), signed(first), text)))
            .doing("store a context")
            .map(drop)
    }

    /// What the author of an event had seen.
    pub fn context(&self, id: EventId) -> Result<Vector, Error> {
        serve::context(self.connection, id).map(|found| found.map(|(_, vector)| vector).unwrap_or_default())
    }

    /// The group that is being ingested in several transactions.
    pub fn set_open_group(&mut self, group: Option<OpenGroup>) -> Result<(), Error> {
        if self.durable.open_group == group {
            return Ok(());
        }
        self.durable.open_group = group;
        match group {
            Some(group) => {
                let text = serde_json::to_string(&group).expect("bug: a group has a JSON form");
                set_state(self.connection, "open_group", &text)
            }
            None => self.forget_state("open_group"),
        }
    }

    /// Notes that everything was loaded once.
    pub fn set_loaded(&mut self) -> Result<(), Error> {
        self.durable.loaded = true;
        set_state(self.connection, "loaded", "1")
    }

    /// Notes that this node has everything, for the first time.
    pub fn set_complete(&mut self) -> Result<(), Error> {
        self.durable.complete = true;
        set_state(self.connection, "complete", "1")
    }

    /// Notes a fact for the operator, such as when `--first` was used.
    pub fn note(&mut self, key: &str, value: &str) -> Result<(), Error> {
        set_state(self.connection, key, value)
    }

    fn forget_state(&self, key: &str) -> Result<(), Error> {
        self.connection.execute("DELETE FROM _rowcast_state WHERE key = ?1", [key]).doing("forget a state").map(drop)
    }

    /// Notes that the rows of `table` agree with their events again.
    pub fn reconciled(&mut self, table: &str) -> Result<(), Error> {
        super::install::reconciled(self.connection, table)
    }

    /// Forgets what the journal holds: only on a node that is not complete yet, whose rows are compared afterwards.
    pub fn journal_forget(&mut self) -> Result<(), Error> {
        self.connection.execute_batch("DELETE FROM _rowcast_journal").doing("clear the journal")
    }

    /// Makes a declared table that this database lacks, from another node's statements.
    pub fn create_table(&mut self, name: &str, statements: &[String]) -> Result<(), Error> {
        definition::check(name, statements)?;
        for sql in statements {
            self.connection.execute(sql, []).doing(format!("make table `{name}`"))?;
        }
        Ok(())
    }

    // --- parked events ---

    /// Parks a stored event, with its reason.
    pub fn park(
        &mut self,
        place: &Place<'_>,
        event: &Event,
        why: (ParkReason, &str),
        now: Timestamp,
    ) -> Result<(), Error> {
        self.set_processed(place.table, place.id, false)?;
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO _rowcast_parked (event, table_name, record_id, reason, detail, parked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (event) DO UPDATE SET reason = excluded.reason, detail = excluded.detail",
            )
            .and_then(|mut statement| {
                statement.execute((
                    place.id.to_string(),
                    &place.table.name,
                    &event.record_id,
                    why.0.as_str(),
                    why.1,
                    now.millis(),
                ))
            })
            .doing("park an event")?;
        debug_assert_eq!(added, 1);
        self.count_parked()
    }

    /// Takes an event out of the parked ones: it is applied, or superseded.
    pub fn unpark(&mut self, table: &Replicated, id: EventId) -> Result<(), Error> {
        self.set_processed(table, id, true)?;
        self.connection
            .prepare_cached("DELETE FROM _rowcast_parked WHERE event = ?1")
            .and_then(|mut statement| statement.execute([id.to_string()]))
            .doing("unpark an event")?;
        self.count_parked()
    }

    /// The greatest parked event of a record.
    pub fn greatest_parked(&self, table: &Replicated, record_id: &str) -> Result<Option<Version>, Error> {
        if self.durable.parked == 0 {
            return Ok(None);
        }
        let ids = self
            .connection
            .prepare_cached("SELECT event FROM _rowcast_parked WHERE table_name = ?1 AND record_id = ?2")
            .and_then(|mut statement| {
                statement
                    .query_map((&table.name, record_id), |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<String>>>()
            })
            .doing("find the parked events of a record")?;
        let mut greatest = None;
        for id in ids {
            let id = event_id(&id).ok_or_else(|| damaged(bookkeeping::PARKED, id))?;
            let version = self.event(table, id)?.map(|(event, _)| Version {
                timestamp: event.timestamp,
                origin: id.origin,
                sequence: id.sequence,
            });
            greatest = greatest.max(version);
        }
        Ok(greatest)
    }

    /// Marks the events of one origin in a range as applied.
    pub fn set_range_processed(
        &self,
        table: &Replicated,
        origin: NodeId,
        range: (Sequence, Sequence),
    ) -> Result<(), Error> {
        let [first, last] = [range.0, range.1].map(|sequence| EventId { origin, sequence }.to_string());
        self.connection
            .prepare_cached(&table.events.set_range_processed)
            .and_then(|mut statement| statement.execute([first, last]))
            .doing(format!("mark the staged events of `{}`", table.name))
            .map(drop)
    }

    fn count_parked(&mut self) -> Result<(), Error> {
        self.durable.parked = parked_count(self.connection)?;
        Ok(())
    }

    /// Parked events, at most `limit`.
    pub fn parked(&self, limit: usize) -> Result<Vec<ParkedEvent>, Error> {
        let found = self
            .connection
            .prepare_cached("SELECT event, table_name, reason FROM _rowcast_parked ORDER BY event LIMIT ?1")
            .and_then(|mut statement| {
                statement
                    .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect::<rusqlite::Result<Vec<(String, String, String)>>>()
            })
            .doing("list the parked events")?;
        let event = |(id, table, reason): (String, String, String)| {
            event_id(&id).map(|id| ParkedEvent { id, table, reason }).ok_or_else(|| damaged(bookkeeping::PARKED, id))
        };
        found.into_iter().map(event).collect()
    }
}

/// Characters of a UUID as text.
const UUID_LEN: usize = 36;

fn event_id(text: &str) -> Option<EventId> {
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

fn cells(row: &Row<'_>, shape: &Shape) -> rusqlite::Result<Vec<Value>> {
    (0..shape.layout.columns.len()).map(|at| row.get_ref(at).map(cell::read)).collect()
}

fn newest_of(row: &Row<'_>, timestamp: Timestamp) -> Result<Newest, String> {
    let text = |at: usize| row.get_ref(at).ok().and_then(|cell| cell.as_str().ok()).ok_or("no text");
    let origin = text(1)?.parse().map_err(|error| format!("source_node_id: {error}"))?;
    let operation = Operation::parse(text(3)?).ok_or("an unknown operation_type")?;
    let number = |at: usize| row.get::<_, i64>(at).map_err(|error| error.to_string());
    let version = Version { timestamp, origin, sequence: unsigned(number(2)?) };
    Ok(Newest { version, operation, layout: LayoutId(number(4)?) })
}

// --- what is also needed outside a stage's transaction ---

pub(super) fn state(connection: &Connection, key: &str) -> Result<Option<String>, Error> {
    connection
        .prepare_cached("SELECT value FROM _rowcast_state WHERE key = ?1")
        .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
        .doing(format!("read the state `{key}`"))
}

pub(super) fn set_state(connection: &Connection, key: &str, value: &str) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT INTO _rowcast_state (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .and_then(|mut statement| statement.execute([key, value]))
        .doing(format!("write the state `{key}`"))
        .map(drop)
}

pub(super) fn layout(connection: &Connection, id: LayoutId) -> Result<Option<Layout>, Error> {
    let found: Option<(String, String, String)> = connection
        .prepare_cached("SELECT table_name, columns, key FROM _rowcast_layouts WHERE layout = ?1")
        .and_then(|mut statement| {
            statement.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .doing("read a layout")?;
    let Some((table, columns, key)) = found else { return Ok(None) };
    let broken = |error: serde_json::Error| damaged(bookkeeping::LAYOUTS, error);
    let columns = serde_json::from_str(&columns).map_err(broken)?;
    let layout = Layout::new(table, columns, serde_json::from_str(&key).map_err(broken)?);
    if layout.id == id {
        Ok(Some(layout))
    } else {
        Err(damaged(bookkeeping::LAYOUTS, format!("{}: other names", id.0)))
    }
}

pub(super) fn save_layout(connection: &Connection, layout: &Layout) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT INTO _rowcast_layouts (layout, table_name, columns, key) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")
        .and_then(|mut statement| {
            statement.execute((layout.id.0, &layout.table, json(&layout.columns), json(&layout.key)))
        })
        .doing("store a layout")
        .map(drop)
}

fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).expect("bug: a list of names or places has a JSON form")
}

fn parked_count(connection: &Connection) -> Result<u64, Error> {
    connection
        .prepare_cached("SELECT count(*) FROM _rowcast_parked")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("count the parked events")
}

/// Reads what this node knows, as it was committed last.
pub(super) fn load(connection: &Connection) -> Result<Durable, Error> {
    let node: NodeId = match state(connection, "node_id")? {
        Some(text) => parse("_rowcast_state, node_id", &text)?,
        None => return Err(damaged(bookkeeping::STATE, "no node_id")),
    };
    let positions: Vec<(String, i64, i64, i64)> = connection
        .prepare("SELECT origin, position, horizon, timestamp FROM _rowcast_positions")
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
        })
        .doing("read the positions")?;
    let (mut vector, mut horizons) = (Vector::default(), Vector::default());
    let mut last = Timestamp::default();
    for (origin, position, horizon, timestamp) in positions {
        let origin = parse("_rowcast_positions", &origin)?;
        vector.set(origin, unsigned(position));
        horizons.set(origin, unsigned(horizon));
        last = last.max(Timestamp(timestamp));
    }
    let open_group: Option<OpenGroup> = match state(connection, "open_group")? {
        Some(text) => Some(serde_json::from_str(&text).map_err(|error| damaged(bookkeeping::STATE, error))?),
        None => None,
    };
    let head = vector.of(node);
    let newest = EventId { origin: node, sequence: Sequence::MAX >> 1 };
    Ok(Durable {
        node,
        next: open_group.map_or(head, |group| group.next - 1) + 1,
        clock: Clock::starting_after(last),
        context: serve::context(connection, newest)?.map(|(_, context)| context).unwrap_or_default(),
        open_group,
        horizon: horizons,
        loaded: state(connection, "loaded")?.is_some(),
        complete: state(connection, "complete")?.is_some(),
        parked: parked_count(connection)?,
        vector,
    })
}

/// Goes on under a new node id. What was made under the old one stays, as another origin's.
pub(super) fn take_new_identity(connection: &Connection) -> Result<Durable, Error> {
    let old = load(connection)?;
    if let Some(group) = old.open_group {
        // Nobody else has seen any of it: what is stored of it ends the old id's events.
        connection
            .execute(
                "UPDATE _rowcast_positions SET position = ?2 WHERE origin = ?1",
                (old.node.to_string(), signed(group.next - 1)),
            )
            .and_then(|_| connection.execute("DELETE FROM _rowcast_state WHERE key = 'open_group'", []))
            .doing("close the open group of the old node id")?;
    }
    set_state(connection, "node_id", &NodeId::random().to_string())?;
    load(connection)
}
