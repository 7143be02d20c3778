//! Reads what tells events from others of the same number: of one event, and of those of an origin that are stored in a range of
//! numbers. What nodes make of it is not decided here.

use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rusqlite::{Connection, Params};

use super::error::{Doing as _, Error};
use super::reader::Reader;
use super::{Store, serve};
use crate::event::{EventId, Fingerprint};
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
}

impl Reader {
    /// Those of the events of an origin that are stored here, from one number to another, in their order.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn fingerprints(
        &self,
        origin: NodeId,
        range: (Sequence, Sequence),
    ) -> Result<Vec<(Sequence, Fingerprint)>, Error> {
        let found = self.in_one_moment(|| {
            let tables = self.event_tables.of(&self.connection)?;
            fingerprints(&self.connection, &tables, origin, range)
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
    let text = id.to_string();
    let stored = tables.map(|table| quoted(&event_table::name(table))).chain([serve::STRAYS.to_owned()]);
    for events in stored {
        let mut found = None;
        each(connection, &serve::event_by_id(&events), [&text], |_, fingerprint| found = Some(fingerprint))?;
        if found.is_some() {
            return Ok(found);
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
    let stored = tables.iter().map(|table| quoted(&event_table::name(table))).chain([serve::STRAYS.to_owned()]);
    for events in stored {
        let keep = |sequence, fingerprint| found.push((sequence, fingerprint));
        each(connection, &serve::events_by_ids(&events), [&range[0], &range[1]], keep)?;
    }
    found.sort_unstable_by_key(|(sequence, _)| *sequence);
    Ok(found)
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
