//! Events of tables that are not declared here: they keep their place in the sequence, and wait for the day when they are.

use rowcast_schema::{event_table, identifier};
use rusqlite::Connection;

use super::error::{Doing as _, Error};
use super::replicated::EVENT;
use super::serve;
use super::tx::signed;
use crate::event::{Event, EventId};
use crate::position::{Sequence, Vector};

/// Events of tables that are not declared here.
pub(super) const STRAYS: &str = "_rowcast_strays";

/// Events of tables that are not declared here keep their place in the sequence, whatever their table's name is.
pub(super) fn create() -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {STRAYS} (
  id TEXT PRIMARY KEY NOT NULL, operation_type TEXT NOT NULL, record_id TEXT NOT NULL, data TEXT,
  timestamp INTEGER NOT NULL, source_node_id TEXT NOT NULL, sequence_number INTEGER NOT NULL,
  layout INTEGER NOT NULL, changed INTEGER NOT NULL, group_last INTEGER NOT NULL, table_name TEXT NOT NULL
) WITHOUT ROWID"
    )
}

/// Stores an event of a table that is not declared here. One that came before under its number, and was not applied, gives way.
pub(super) fn insert(connection: &Connection, id: EventId, group_last: Sequence, event: &Event) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO _rowcast_strays (id, operation_type, record_id, data, timestamp, source_node_id, sequence_number, layout, changed, group_last, table_name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (id) DO UPDATE SET operation_type = excluded.operation_type, record_id = excluded.record_id, data = excluded.data,
               timestamp = excluded.timestamp, layout = excluded.layout, changed = excluded.changed, group_last = excluded.group_last,
               table_name = excluded.table_name",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                id.to_string(),
                event.operation.as_str(),
                event.record_id,
                event.data,
                event.timestamp.0,
                id.origin.to_string(),
                signed(id.sequence),
                event.layout.0,
                event.changed,
                signed(group_last),
                event.table,
            ])
        })
        .doing(format!("store event {id} of a table that is not declared here"))
        .map(drop)
}

/// Events that came before their table was declared here become its events now. They are parked, and tried like any
/// other that waits for its table.
pub(super) fn adopt(connection: &Connection, table: &str) -> Result<(), Error> {
    let waits: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM _rowcast_strays WHERE table_name = ?1 COLLATE NOCASE)")
        .and_then(|mut statement| statement.query_row([table], |row| row.get(0)))
        .doing("look for events of a table that is declared now")?;
    if !waits {
        return Ok(());
    }
    let events = identifier::quoted(&event_table::name(table));
    let move_events = format!(
        "INSERT INTO {events} (id, operation_type, record_id, data, timestamp, source_node_id, processed, sequence_number, layout, changed, group_last)
         SELECT id, operation_type, record_id, data, timestamp, source_node_id, 0, sequence_number, layout, changed, group_last
         FROM _rowcast_strays WHERE table_name = ?1 COLLATE NOCASE ON CONFLICT (id) DO NOTHING"
    );
    let park = "INSERT INTO _rowcast_parked (event, table_name, record_id, reason, detail, parked_at, timestamp)
         SELECT id, ?1, record_id, 'schema', 'it came before the table was declared here', (timestamp >> 31) * 1000, timestamp
         FROM _rowcast_strays WHERE table_name = ?1 COLLATE NOCASE ON CONFLICT (event) DO NOTHING";
    for sql in [move_events.as_str(), park, "DELETE FROM _rowcast_strays WHERE table_name = ?1 COLLATE NOCASE"] {
        connection.execute(sql, [table]).doing(format!("take up the events of `{table}` that came before"))?;
    }
    tracing::info!(table, "took up events that came before the table was declared here");
    Ok(())
}

/// The tables that have events here and are not among the `declared`.
pub(super) fn tables(connection: &Connection, declared: &[String]) -> Result<Vec<String>, Error> {
    let mut tables = serve::event_tables(connection)?;
    let strays: Vec<String> = connection
        .prepare_cached("SELECT DISTINCT table_name FROM _rowcast_strays")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .doing("list the tables that are not declared here")?;
    let has = |tables: &[String], name: &str| tables.iter().any(|table| table.eq_ignore_ascii_case(name));
    for stray in strays {
        if !has(&tables, &stray) {
            tables.push(stray);
        }
    }
    tables.retain(|table| !has(declared, table));
    Ok(tables)
}

/// Where to read all events of such a table, whose name is bound to `place`: in the columns of `EVENT`, and whether they are applied.
pub(super) fn source(connection: &Connection, table: &str, place: &str) -> Result<String, Error> {
    let mut source = format!("SELECT {EVENT}, 0 AS processed FROM {STRAYS} WHERE table_name = {place} COLLATE NOCASE");
    // One that was declared once has its event table still.
    for name in serve::event_tables(connection)?.iter().filter(|name| name.eq_ignore_ascii_case(table)) {
        let events = identifier::quoted(&event_table::name(name));
        source.push_str(&format!(" UNION ALL SELECT {EVENT}, processed FROM {events}"));
    }
    Ok(source)
}

/// Takes out the events of such a table that `covered` counts: who has that brings them again, or needs them no more.
pub(super) fn drop_covered(connection: &Connection, table: &str, covered: &Vector) -> Result<(), Error> {
    let sql = "DELETE FROM _rowcast_strays WHERE ?2 <= id AND id <= ?3 AND table_name = ?1 COLLATE NOCASE";
    for (origin, last) in covered.iter() {
        let [first, last] = [0, last].map(|sequence| EventId { origin, sequence }.to_string());
        connection
            .execute(sql, [table, &first, &last])
            .doing("take out events of a table that is not declared here")?;
    }
    Ok(())
}
