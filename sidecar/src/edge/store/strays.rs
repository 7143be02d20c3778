//! Events of tables that are not declared here: they keep their place in the sequence, and wait for the day when they are.

use rowcast_schema::{event_table, identifier};
use rusqlite::Connection;

use super::error::{Doing as _, Error, damaged};
use super::replicated::EVENT;
use super::serve;
use super::tx::{event_id, signed};
use crate::event::{Event, EventId};
use crate::position::Sequence;

/// Events of tables that are not declared here.
pub(super) const STRAYS: &str = "_rowcast_strays";

/// Events of tables that are not declared here keep their place in the sequence, whatever their table's name is.
pub(super) fn create() -> [String; 2] {
    [
        format!(
            "CREATE TABLE IF NOT EXISTS {STRAYS} (
  id TEXT PRIMARY KEY NOT NULL, operation_type TEXT NOT NULL, record_id TEXT NOT NULL, data TEXT,
  timestamp INTEGER NOT NULL, source_node_id TEXT NOT NULL, sequence_number INTEGER NOT NULL,
  layout INTEGER NOT NULL, changed INTEGER NOT NULL, group_last INTEGER NOT NULL, table_name TEXT NOT NULL
) WITHOUT ROWID"
        ),
        // In the order in which a snapshot gives them.
        format!(
            "CREATE INDEX IF NOT EXISTS {STRAYS}_record ON {STRAYS}
  (table_name COLLATE NOCASE, record_id, timestamp DESC, source_node_id DESC)"
        ),
    ]
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

/// Where events of such a table are: what came of it, and its event table, where it was declared once.
fn places(connection: &Connection, table: &str) -> Result<Vec<String>, Error> {
    let mut places = vec![STRAYS.to_owned()];
    let events = serve::event_tables(connection)?;
    let events = events.iter().filter(|name| name.eq_ignore_ascii_case(table));
    places.extend(events.map(|name| identifier::quoted(&event_table::name(name))));
    Ok(places)
}

/// The records of such a table after `?1`, whose name is `?2`: `columns` of what came of it, and of its event table.
fn source(connection: &Connection, table: &str, columns: [&str; 2], more: &str) -> Result<String, Error> {
    let of_place = |place: &String| {
        if place == STRAYS {
            format!("SELECT {} FROM {STRAYS} WHERE table_name = ?2 COLLATE NOCASE AND ?1 < record_id{more}", columns[0])
        } else {
            format!("SELECT {} FROM {place} WHERE ?1 < record_id{more}", columns[1])
        }
    };
    Ok(places(connection, table)?.iter().map(of_place).collect::<Vec<_>>().join(" UNION ALL "))
}

/// The statement that reads the records of such a table, whose name is `?2`, after `?1` in the order of a snapshot.
pub(super) fn snapshot(connection: &Connection, table: &str) -> Result<String, Error> {
    let columns = [format!("{EVENT}, 0 AS processed"), format!("{EVENT}, processed")];
    let source = source(connection, table, columns.each_ref().map(String::as_str), "")?;
    Ok(format!("{source} ORDER BY record_id, timestamp DESC, source_node_id DESC"))
}

/// An event of such a table and its record.
type Kept = (EventId, String);

/// Some of them, and the record to go on after; none at the end.
pub(super) type StrayPage = (Vec<Kept>, Option<String>);

/// The events of records after one and up to another, about `limit` of them, whole records only; and the record to go on after.
pub(super) fn between(
    connection: &Connection,
    table: &str,
    (after, until): (&str, Option<&str>),
    limit: usize,
) -> Result<StrayPage, Error> {
    // Each of them by its index, and no further than it has to.
    let statement = |until: Option<&str>| -> Result<String, Error> {
        let more = if until.is_some() { " AND record_id <= ?3" } else { " AND ?3 IS NULL" };
        let source = source(connection, table, ["id, record_id"; 2], more)?;
        Ok(format!("{source} ORDER BY record_id LIMIT ?4"))
    };
    let read = |until: Option<&str>, limit: i64| -> Result<Vec<Kept>, Error> {
        connection
            .prepare_cached(&statement(until)?)
            .and_then(|mut statement| {
                statement.query_map((after, table, until, limit), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .doing("read the events of a table that is not declared here")
            .and_then(|kept: Vec<(String, String)>| {
                let parsed = |(id, record): (String, String)| {
                    event_id(&id)
                        .map(|id| (id, record))
                        .ok_or_else(|| damaged(STRAYS, format!("`{id}` is no event's id")))
                };
                kept.into_iter().map(parsed).collect()
            })
    };
    let mut kept = read(until, i64::try_from(limit).unwrap_or(i64::MAX))?;
    if kept.len() < limit {
        return Ok((kept, None));
    }
    let last = kept.pop().map(|(_, record)| record).unwrap_or_default();
    kept.retain(|(_, record)| *record != last);
    match kept.last() {
        Some((_, record)) => {
            let next = record.clone();
            Ok((kept, Some(next)))
        }
        None => Ok((read(Some(&last), -1)?, Some(last))),
    }
}

/// Takes out events of such a table.
pub(super) fn drop_events(connection: &Connection, table: &str, ids: &[EventId]) -> Result<(), Error> {
    const DOING: &str = "take out events of a table that is not declared here";
    let places = places(connection, table)?.into_iter().map(|place| format!("{place} WHERE id"));
    for place in places.chain(["_rowcast_parked WHERE event".to_owned()]) {
        let mut statement = connection.prepare_cached(&format!("DELETE FROM {place} = ?1")).doing(DOING)?;
        ids.iter().try_for_each(|id| statement.execute([id.to_string()]).map(drop)).doing(DOING)?;
    }
    Ok(())
}
