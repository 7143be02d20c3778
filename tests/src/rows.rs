//! Rows as text that loses nothing: the type and every bit of each cell can be read from it.
//!
//! `NULL`, `42`, `1.5`, `-0.0`, `inf`, `'text'` with escapes, `text x'ff'` for text that is not UTF-8, `x'00'` for a
//! blob. A long cell is told by its start, its length and a hash.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// All rows of all replicated tables: table name to its rows, sorted.
pub type Dump = BTreeMap<String, Vec<String>>;

const LONG: usize = 200;

/// One cell as text.
pub fn cell(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(bytes) if bytes.len() > LONG => format!("text {}", long(bytes)),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("'{}'", text.escape_debug()),
            Err(_) => format!("text x'{}'", hex(bytes)),
        },
        ValueRef::Blob(bytes) if bytes.len() > LONG => format!("blob {}", long(bytes)),
        ValueRef::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn long(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("x'{}…' of {} bytes, hash {:016x}", hex(&bytes[..16]), bytes.len(), hasher.finish())
}

/// The rows of a query, each as `cell | cell | …`.
///
/// # Errors
/// When SQLite says no.
pub fn query(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let cells: rusqlite::Result<Vec<String>> = (0..columns).map(|at| Ok(cell(row.get_ref(at)?))).collect();
        lines.push(cells?.join(" | "));
    }
    Ok(lines)
}

/// The tables of a database that are replicated: those that have an event table.
///
/// # Errors
/// When SQLite says no.
pub fn replicated_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT t.name FROM sqlite_master t JOIN sqlite_master e ON lower(e.name) = lower(t.name || '_Events')
               WHERE t.type = 'table' AND e.type = 'table' ORDER BY 1";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Every row of every replicated table, generated columns too, without the columns `ignored` (`Table.column`).
///
/// # Errors
/// When SQLite says no.
pub fn dump(connection: &Connection, ignored: &[String]) -> rusqlite::Result<Dump> {
    // One read transaction: all tables at one moment.
    let moment = connection.unchecked_transaction()?;
    let tables = replicated_tables(&moment)?;
    dump_of(&moment, &tables, ignored)
}

/// As [`dump`], of the tables named.
///
/// # Errors
/// When SQLite says no.
pub fn dump_of(connection: &Connection, tables: &[String], ignored: &[String]) -> rusqlite::Result<Dump> {
    let mut dump = Dump::new();
    for table in tables {
        let columns = columns(connection, table)?;
        let kept = columns.iter().filter(|column| !ignored.contains(&format!("{table}.{column}")));
        let list: Vec<String> = kept.map(|column| quoted(column)).collect();
        let mut rows = query(connection, &format!("SELECT {} FROM {}", list.join(", "), quoted(table)))?;
        rows.sort_unstable();
        dump.insert(table.clone(), rows);
    }
    Ok(dump)
}

/// The columns of a table, generated ones too.
///
/// # Errors
/// When SQLite says no.
pub fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid";
    connection.prepare_cached(sql)?.query_map([table], |row| row.get(0))?.collect()
}

/// A name as SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The service's tables: what a person would see in the database without Rowcast.
///
/// # Errors
/// When SQLite says no.
pub fn service_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite#_%' ESCAPE '#'
               AND name NOT LIKE '#_rowcast%' ESCAPE '#' AND name NOT LIKE '%#_Events' ESCAPE '#' ORDER BY 1";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// What differs between two dumps, a few lines of it; `None` when they are equal.
pub fn difference(left: &Dump, right: &Dump) -> Option<String> {
    if left == right {
        return None;
    }
    let mut text = String::new();
    let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let none = Vec::new();
    for name in names {
        let (a, b) = (left.get(name).unwrap_or(&none), right.get(name).unwrap_or(&none));
        if a == b && left.contains_key(name) == right.contains_key(name) {
            continue;
        }
        let (only_a, only_b) = (missing_from(a, b), missing_from(b, a));
        writeln!(
            text,
            "table {name}: {} rows here, {} there; {} only here, {} only there",
            a.len(),
            b.len(),
            only_a.len(),
            only_b.len()
        )
        .unwrap();
        for (sign, rows) in [('-', only_a), ('+', only_b)] {
            for row in rows.iter().take(5) {
                writeln!(text, "  {sign} {row}").unwrap();
            }
        }
    }
    Some(text)
}

fn missing_from<'a>(rows: &'a [String], other: &[String]) -> Vec<&'a String> {
    // Both are sorted.
    rows.iter().filter(|row| other.binary_search(row).is_err()).collect()
}
