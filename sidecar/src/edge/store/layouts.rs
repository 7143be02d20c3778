//! The layouts that this node knows: those that its tables have or had, and those that came with events of others.

use rowcast_schema::bookkeeping;
use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rowcast_schema::layout::{Layout, LayoutId};
use rusqlite::Connection;

use super::error::{Doing as _, Error, damaged};
use super::reader::Reader;
use crate::position::NodeId;

/// Layouts that are looked at for the status page: a schema that changed a thousand times.
const KNOWN_MAX: u64 = 1_000;

/// The newest events of a table whose layouts are looked at.
const NEWEST: u64 = 50;

/// A layout of a table.
#[derive(Clone, Debug)]
pub struct KnownLayout {
    /// Its names.
    pub layout: Layout,
    /// The table in this database has it, or had it once.
    pub here: bool,
}

/// Notes that a table of this database has a layout now.
pub(super) fn note_here(connection: &Connection, layout: LayoutId) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE _rowcast_layouts SET here = 1 WHERE layout = ?1")
        .and_then(|mut statement| statement.execute([layout.0]))
        .doing("note a table's layout")
        .map(drop)
}

impl Reader {
    /// All layouts that are known, in the order of their tables' names.
    pub(super) fn layouts(&self) -> Result<Vec<KnownLayout>, Error> {
        let rows: Vec<(i64, String, String, String, bool)> = self
            .connection
            .prepare_cached(
                "SELECT layout, table_name, columns, key, here FROM _rowcast_layouts ORDER BY table_name, layout LIMIT ?1",
            )
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                };
                statement.query_map([KNOWN_MAX], row)?.collect()
            })
            .doing("read the layouts")?;
        let broken = |error: serde_json::Error| damaged(bookkeeping::LAYOUTS, error);
        let known = |(id, table, columns, key, here): (i64, String, String, String, bool)| {
            let columns = serde_json::from_str(&columns).map_err(broken)?;
            let key = serde_json::from_str(&key).map_err(broken)?;
            Ok(KnownLayout { layout: Layout { id: LayoutId(id), table, columns, key }, here })
        };
        rows.into_iter().map(known).collect()
    }

    /// Who made the newest events of a table, and in which layouts.
    pub(super) fn newest_layouts(&self, table: &str) -> Result<Vec<(NodeId, LayoutId)>, Error> {
        let sql = format!(
            "SELECT DISTINCT source_node_id, layout FROM
             (SELECT source_node_id, layout FROM {} ORDER BY rowid DESC LIMIT {NEWEST})",
            quoted(&event_table::name(table))
        );
        let rows: Vec<(String, i64)> = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .doing("look at the newest events")?;
        // One that does not read is found where it is used.
        Ok(rows.into_iter().filter_map(|(origin, layout)| Some((origin.parse().ok()?, LayoutId(layout)))).collect())
    }
}
