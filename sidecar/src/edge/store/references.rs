//! Rows that refer to nothing: what a foreign key of the table would forbid, if it were looked at. It is not, while events
//! are applied: one node can delete a parent while another inserts its child.
//!
//! Only references that are found by an index are looked at, so that a page of rows takes a bounded time: SQLite wants the
//! columns that are referred to UNIQUE anyhow.

use rowcast_schema::identifier::quoted;
use rowcast_schema::value::Value;
use rusqlite::{Connection, params_from_iter};

use super::cell::Bound;
use super::error::{Doing as _, Error};
use super::replicated::Shape;

/// A foreign key of a table.
pub(super) struct Reference {
    /// The places of its columns in the layout.
    places: Vec<usize>,
    /// Finds the row that is referred to.
    sql: String,
}

/// One column of a foreign key, as SQLite tells of it.
struct Part {
    id: i64,
    parent: String,
    from: String,
    /// None stands for the parent's primary key.
    to: Option<String>,
}

/// The foreign keys of a table whose columns are all replicated.
pub(super) fn of(connection: &Connection, shape: &Shape) -> Result<Vec<Reference>, Error> {
    let table = &shape.table.name;
    let doing = || format!("read the foreign keys of `{table}`");
    let parts: Vec<Part> = connection
        .prepare_cached("SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq")
        .and_then(|mut statement| {
            let part = |row: &rusqlite::Row<'_>| {
                Ok(Part { id: row.get(0)?, parent: row.get(1)?, from: row.get(2)?, to: row.get(3)? })
            };
            statement.query_map([table], part)?.collect()
        })
        .doing(doing())?;
    let mut references = Vec::new();
    for parts in parts.chunk_by(|one, other| one.id == other.id) {
        let places: Option<Vec<usize>> = parts.iter().map(|part| shape.layout.place(&part.from)).collect();
        let Some(places) = places else { continue };
        let Some(columns) = referred(connection, parts)? else { continue };
        let terms: Vec<String> =
            columns.iter().zip(1..).map(|(column, at)| format!("{} = ?{at}", quoted(column))).collect();
        let sql = format!("SELECT 1 FROM {} WHERE {}", quoted(&parts[0].parent), terms.join(" AND "));
        if is_searched(connection, &sql) {
            references.push(Reference { places, sql });
        }
    }
    Ok(references)
}

/// The columns that a foreign key refers to. None when their number does not fit.
fn referred(connection: &Connection, parts: &[Part]) -> Result<Option<Vec<String>>, Error> {
    let named: Option<Vec<String>> = parts.iter().map(|part| part.to.clone()).collect();
    let columns = match named {
        Some(columns) => columns,
        None => connection
            .prepare_cached("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")
            .and_then(|mut statement| statement.query_map([&parts[0].parent], |row| row.get(0))?.collect())
            .doing(format!("read the key of `{}`", parts[0].parent))?,
    };
    Ok(Some(columns).filter(|columns| columns.len() == parts.len()))
}

/// Whether SQLite finds the row by an index. A parent that is not in this database has none.
fn is_searched(connection: &Connection, sql: &str) -> bool {
    connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .and_then(|mut statement| {
            let nothing = std::iter::repeat_n(rusqlite::types::Null, statement.parameter_count());
            statement.query_row(params_from_iter(nothing), |row| row.get::<_, String>(3))
        })
        .is_ok_and(|plan| plan.starts_with("SEARCH"))
}

impl Reference {
    /// Whether a row refers to nothing. One with a NULL in its foreign key refers to nobody.
    pub(super) fn dangles(&self, connection: &Connection, row: &[Value]) -> Result<bool, Error> {
        if self.places.iter().any(|&at| row[at] == Value::Null) {
            return Ok(false);
        }
        let cells = self.places.iter().map(|&at| Bound(&row[at]));
        connection
            .prepare_cached(&self.sql)
            .and_then(|mut statement| statement.exists(params_from_iter(cells)))
            .map(|exists| !exists)
            .doing("look for what a row refers to")
    }
}
