//! Reads what tells events from others of the same number: of one event, and of those of an origin that are stored in a range of
//! numbers. What nodes make of it is not decided here.

use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rusqlite::{Connection, OptionalExtension as _, Params};

use super::error::{Doing as _, Error};
use super::reader::Reader;
use super::serve::Fingerprints;
use super::tx::{Tx, unsigned};
use super::{Store, serve, strays};
use crate::clock::Timestamp;
use crate::event::{Event, EventId, Fingerprint};
use crate::position::{NodeId, Sequence};

const READING: &str = "read what tells events from others";

impl Store {
    /// The fingerprint of an event that is stored here; none when it is not: superseded ones may be gone.
    ///
    /// # Errors
    /// When the database fails.
    pub fn fingerprint(&self, id: EventId) -> Result<Option<Fingerprint>, Error> {
        fingerprint(&self.connection, self.tables.iter().map(|table| table.name.as_str()), id)
    }

    /// Those of the events of an origin that are stored here, from one number to another, in their order.
    ///
    /// # Errors
    /// When the database fails.
    pub fn fingerprints(
        &self,
        origin: NodeId,
        range: (Sequence, Sequence),
    ) -> Result<Vec<(Sequence, Fingerprint)>, Error> {
        fingerprints(&self.connection, &serve::event_tables(&self.connection)?, origin, range)
    }

    /// The number of the first event of an origin in a range that is later than a time; none when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub fn first_later(
        &self,
        origin: NodeId,
        (first, last): (Sequence, Sequence),
        time: Timestamp,
    ) -> Result<Option<Sequence>, Error> {
        let range = [first, last].map(|sequence| EventId { origin, sequence }.to_string());
        let mut found: Option<Sequence> = None;
        for events in stored_in(&serve::event_tables(&self.connection)?) {
            let sql = format!(
                "SELECT sequence_number FROM {events} WHERE ?1 <= id AND id <= ?2 AND ?3 < timestamp ORDER BY id LIMIT 1"
            );
            let in_table = one(&self.connection, &sql, (&range[0], &range[1], time.0))?.map(unsigned);
            found = found.into_iter().chain(in_table).min();
        }
        Ok(found)
    }
}

impl Tx<'_> {
    /// The event that stands under that identity in the event table of one of the `tables`, declared or not, or beside them: that one
    /// has no table's name.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn event_among(&self, tables: &[String], id: EventId) -> Result<Option<Event>, Error> {
        find(self.connection, tables.iter().map(String::as_str), id)
    }

    /// The same among all event tables.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn event_anywhere(&self, id: EventId) -> Result<Option<Event>, Error> {
        self.event_among(self.tables().with_events(self.connection)?, id)
    }
}

impl Reader {
    /// The same, for another node.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn fingerprints(&self, origin: NodeId, range: (Sequence, Sequence)) -> Result<Fingerprints, Error> {
        let found = self.in_one_moment(|| {
            let tables = self.event_tables.of(&self.connection)?;
            Ok(Fingerprints {
                stored: fingerprints(&self.connection, &tables, origin, range)?,
                newest: newest(&self.connection, &tables, origin)?,
            })
        })?;
        self.harden()?;
        Ok(found)
    }
}

/// The fingerprint of an event of one of the `tables`, or of one that is not declared.
pub(super) fn fingerprint<'t>(
    connection: &Connection,
    tables: impl Iterator<Item = &'t str>,
    id: EventId,
) -> Result<Option<Fingerprint>, Error> {
    Ok(find(connection, tables, id)?.map(|event| event.fingerprint()))
}

/// The event of that identity in the event table of one of the `tables`, or among those of tables that are not declared: there its
/// table has no name.
fn find<'t>(
    connection: &Connection,
    tables: impl Iterator<Item = &'t str>,
    id: EventId,
) -> Result<Option<Event>, Error> {
    let text = id.to_string();
    let stored =
        tables.map(|table| (quoted(&event_table::name(table)), table)).chain([(strays::STRAYS.to_owned(), "")]);
    for (events, table) in stored {
        let mut statement = connection.prepare_cached(&serve::event_by_id(&events)).doing(READING)?;
        let mut rows = statement.query([&text]).doing(READING)?;
        if let Some(row) = rows.next().doing(READING)? {
            return serve::event_of(row, table).map(|(_, event, _)| Some(event));
        }
    }
    Ok(None)
}

fn fingerprints(
    connection: &Connection,
    tables: &[String],
    origin: NodeId,
    (first, last): (Sequence, Sequence),
) -> Result<Vec<(Sequence, Fingerprint)>, Error> {
    let range = [first, last].map(|sequence| EventId { origin, sequence }.to_string());
    let mut found = Vec::new();
    for events in stored_in(tables) {
        let keep = |sequence, fingerprint| found.push((sequence, fingerprint));
        each(connection, &serve::events_by_ids(&events), [&range[0], &range[1]], keep)?;
    }
    found.sort_unstable_by_key(|(sequence, _)| *sequence);
    Ok(found)
}

/// The timestamp of the newest event of an origin, the one at the position: as it was noted when it was applied, or as it is
/// stored. Neither is there where it came in a snapshot that did not have it: then nothing is later, as far as anybody knows.
fn newest(connection: &Connection, tables: &[String], origin: NodeId) -> Result<Timestamp, Error> {
    let sequence = serve::vector(connection)?.of(origin);
    let noted = "SELECT timestamp FROM _rowcast_positions WHERE origin = ?1 AND 0 < timestamp";
    let mut newest = one(connection, noted, [origin.to_string()])?;
    let id = EventId { origin, sequence }.to_string();
    for events in stored_in(tables) {
        newest = newest.max(one(connection, &format!("SELECT timestamp FROM {events} WHERE id = ?1"), [&id])?);
    }
    Ok(Timestamp(newest.unwrap_or(i64::MAX)))
}

/// The tables in which events are stored, quoted.
fn stored_in(tables: &[String]) -> impl Iterator<Item = String> {
    tables.iter().map(|table| quoted(&event_table::name(table))).chain([strays::STRAYS.to_owned()])
}

fn one(connection: &Connection, sql: &str, parameters: impl Params) -> Result<Option<i64>, Error> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row(parameters, |row| row.get(0)).optional())
        .doing(READING)
}

/// Hands over the fingerprint of each event that a statement finds.
fn each<P: Params>(
    connection: &Connection,
    sql: &str,
    parameters: P,
    mut take: impl FnMut(Sequence, Fingerprint),
) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(sql).doing(READING)?;
    let mut rows = statement.query(parameters).doing(READING)?;
    while let Some(row) = rows.next().doing(READING)? {
        // The table's name is not part of it.
        let (id, event, _) = serve::event_of(row, "")?;
        take(id.sequence, event.fingerprint());
    }
    Ok(())
}
