//! A connection that only reads: it serves other nodes and the status page, each in short read transactions, so that
//! the WAL can always be checkpointed.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};

use rowcast_schema::declaration::Declaration;
use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rowcast_schema::layout::LayoutId;
use rusqlite::Connection;

use super::error::{Doing as _, DoingFile as _, Error};
use super::layouts::KnownLayout;
use super::serve::{self, Answer, Definitions, SnapshotPage};
use super::{catalogue, fingerprints, identity, open, strays};
use crate::event::EventId;
use crate::position::{NodeId, Sequence};

/// Reads the database for others.
#[derive(Debug)]
pub struct Reader {
    pub(super) connection: Connection,
    pub(super) tables: Vec<String>,
    pub(super) declaration: Declaration,
    pub(super) known: RefCell<super::digest::Known>,
    pub(super) event_tables: serve::EventTables,
    wal: File,
    wal_path: PathBuf,
}

/// Parked events that are counted by table and reason for the status page, every second.
const PARKED_COUNTED_MAX: u64 = 10_000;

/// Facts for the status page.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Rows that wait in the journal.
    pub journal_rows: u64,
    /// Per table, in the order of the declaration: name, newest event's rowid (close to the number of events).
    pub events: Vec<(String, u64)>,
    /// Per table, in the same order: who made the newest events, and in which layouts.
    pub newest: Vec<Vec<(NodeId, LayoutId)>>,
    /// The layouts that are known.
    pub layouts: Vec<KnownLayout>,
    /// Parked events, at most twenty: event, table, record, reason, detail.
    pub parked: Vec<[String; 5]>,
    /// Per table and reason, how many events are parked; of very many, the first [`PARKED_COUNTED_MAX`] are counted.
    pub parked_counts: Vec<(String, String, u64)>,
}

impl Reader {
    /// Opens the database that a [`super::Store`] has made ready.
    ///
    /// # Errors
    /// When the file is missing or cannot be read.
    pub fn open(path: &Path, declaration: &Declaration) -> Result<Self, Error> {
        let tables = declaration.enabled().map(|table| table.name.clone()).collect();
        let connection = open::for_reading(path)?;
        let wal_path = identity::beside(path, "-wal");
        let wal = File::open(&wal_path).doing_file("open", &wal_path)?;
        let (declaration, known) = (declaration.clone(), RefCell::default());
        Ok(Self { connection, tables, declaration, known, event_tables: Default::default(), wal, wal_path })
    }

    /// Events of one origin from the first to at most the last, about so many bytes, and no more than fit a page.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn fetch(&self, origin: NodeId, (first, last): (Sequence, Sequence), bytes: usize) -> Result<Answer, Error> {
        let answer = self.in_one_moment(|| {
            let position = serve::vector(&self.connection)?.of(origin);
            if first <= serve::horizon(&self.connection, origin)? || position < first {
                return Ok(Answer::NotHere);
            }
            let tables = self.event_tables.of(&self.connection)?;
            let mut page = serve::events(&self.connection, &tables, origin, (first, last.min(position)), bytes)?;
            let before = EventId { origin, sequence: first - 1 };
            page.before = fingerprints::fingerprint(&self.connection, self.tables.iter().map(String::as_str), before)?;
            Ok(if page.pieces.is_empty() { Answer::NotHere } else { Answer::Events(page) })
        })?;
        self.harden()?;
        Ok(answer)
    }

    /// Some records of one table, about so many bytes. Of one that is not declared here, what came of it: the position of
    /// whoever loads covers that, too.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn snapshot(&self, table: &str, after: Option<&str>, bytes: usize) -> Result<SnapshotPage, Error> {
        let declared = self.tables.iter().find(|name| name.eq_ignore_ascii_case(table));
        let asked = (declared.map_or(table, String::as_str), declared.is_some());
        let page = self.in_one_moment(|| serve::snapshot(&self.connection, asked, after, bytes))?;
        self.harden()?;
        Ok(page)
    }

    /// The position vector, and per declared table the statements that make it; and what else there are events of.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn definitions(&self) -> Result<Definitions, Error> {
        self.in_one_moment(|| {
            let found = catalogue::tables(&self.connection)?;
            let declared = |name: &str| self.tables.iter().any(|table| table.eq_ignore_ascii_case(name));
            let tables = found
                .iter()
                .filter(|table| declared(&table.name))
                .map(|table| (table.name.clone(), serve::definition(table)));
            let others = strays::tables(&self.connection, &self.tables)?.into_iter().map(|table| (table, Vec::new()));
            Ok(Definitions { vector: serve::vector(&self.connection)?, tables: tables.chain(others).collect() })
        })
    }

    /// What the status page shows beside what the node knows by itself.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn facts(&self) -> Result<Facts, Error> {
        self.in_one_moment(|| {
            let count = |sql: &str, doing| -> Result<u64, Error> {
                let mut statement = self.connection.prepare_cached(sql).doing(doing)?;
                statement.query_row([], |row| row.get(0)).doing(doing)
            };
            let journal_rows = count("SELECT count(*) FROM _rowcast_journal", "count the journal")?;
            let (mut events, mut newest) = (Vec::with_capacity(self.tables.len()), Vec::new());
            for table in &self.tables {
                let sql = format!("SELECT coalesce(max(rowid), 0) FROM {}", quoted(&event_table::name(table)));
                events.push((table.clone(), count(&sql, "count the events")?));
                newest.push(self.newest_layouts(table)?);
            }
            let parked = self
                .connection
                .prepare_cached(
                    "SELECT event, table_name, record_id, reason, detail FROM _rowcast_parked ORDER BY parked_at LIMIT 20",
                )
                .and_then(|mut statement| {
                    let rows = statement
                        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))?;
                    rows.collect()
                })
                .doing("list the parked events")?;
            let parked_counts = self
                .connection
                .prepare_cached(
                    "SELECT table_name, reason, count(*) FROM (SELECT table_name, reason FROM _rowcast_parked LIMIT ?1)
                     GROUP BY table_name, reason",
                )
                .and_then(|mut statement| {
                    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                    statement.query_map([PARKED_COUNTED_MAX], read)?.collect()
                })
                .doing("count the parked events")?;
            let layouts = self.layouts()?;
            Ok(Facts { journal_rows, events, newest, layouts, parked, parked_counts })
        })
    }

    /// Gives back the memory that holds pages of the database: they are read again when they are needed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn release_memory(&self) -> Result<(), Error> {
        self.connection.release_memory().doing("give back memory")
    }

    /// Puts what was read onto the disk before another node sees it: it may have been committed a moment ago.
    pub(super) fn harden(&self) -> Result<(), Error> {
        self.wal.sync_data().doing_file("sync", &self.wal_path)
    }

    /// One read transaction: everything in it is of one moment.
    pub(super) fn in_one_moment<R>(&self, read: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let run = |sql: &str| self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        run("BEGIN").doing("begin to read")?;
        let result = read();
        run("COMMIT").doing("end reading")?;
        result
    }
}
