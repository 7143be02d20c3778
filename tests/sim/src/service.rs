//! The service beside each node: its tables, and what it does to them.
//!
//! Every value that is written is a new one, so that each change can be found again among the events.

use std::collections::BTreeMap;

use rowcast_schema::record::{self, Collation, KeyColumn};
use rowcast_schema::value::Value;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::chance::Chance;
use crate::schema::{self, Made};

/// A replicated table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its key columns and whether they hold text.
    pub key: &'static [(&'static str, bool)],
    /// A column whose values no two rows share.
    pub unique: Option<&'static str>,
    /// Its changes are announced, not journaled.
    pub announced: bool,
}

/// All of them.
pub const TABLES: [Table; 6] = [
    Table { name: "items", key: &[("id", true)], unique: None, announced: false },
    Table { name: "users", key: &[("id", true)], unique: Some("email"), announced: false },
    Table { name: "pairs", key: &[("a", false), ("b", true)], unique: None, announced: false },
    Table { name: "parents", key: &[("id", true)], unique: None, announced: false },
    Table { name: "children", key: &[("id", true)], unique: None, announced: false },
    Table { name: "posts", key: &[("id", true)], unique: None, announced: true },
];

/// What makes them.
pub const SQL: &str = "
    CREATE TABLE items (id TEXT NOT NULL PRIMARY KEY, name TEXT COLLATE NOCASE, qty, price REAL, note BLOB);
    CREATE TABLE users (id TEXT NOT NULL PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    CREATE TABLE pairs (a INTEGER NOT NULL, b TEXT NOT NULL, v TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE parents (id TEXT NOT NULL PRIMARY KEY, v TEXT);
    CREATE TABLE children (id TEXT NOT NULL PRIMARY KEY, parent TEXT REFERENCES parents (id) ON DELETE CASCADE, v TEXT);
    CREATE TABLE posts (id TEXT NOT NULL PRIMARY KEY, v TEXT);
";

/// What makes one of them where it is missing.
pub fn sql_of(table: &str) -> String {
    let made = format!("CREATE TABLE {table} ");
    let line = SQL.lines().find(|line| line.trim_start().starts_with(&made)).expect("all tables are made");
    line.replace(&made, &format!("CREATE TABLE IF NOT EXISTS {table} "))
}

/// Whether the sidecar knows that rows of a table without an event were written while it was not declared.
pub fn is_known_to_be_left(service: &Connection, table: &str) -> bool {
    let noted = "SELECT coalesce(json_extract(value, '$.again'), 0) FROM _rowcast_state WHERE key = 'reconcile:' || ?1";
    service.query_row(noted, [table], |row| row.get(0)).unwrap_or(false)
}

/// The declaration, with the history that all tables keep, and without a table that is not declared.
pub fn declaration(history: &str, without: Option<&str>) -> String {
    let mut text = format!("service = \"sim\"\n[defaults]\nhistory = \"{history}\"\n");
    for table in TABLES.iter().filter(|table| Some(table.name) != without) {
        let capture = if table.announced { "capture = \"events\"\n" } else { "" };
        text += &format!("[tables.{}]\n{capture}", table.name);
    }
    text
}

/// The columns of one row, as JSON, by table and record id.
pub type Rows = BTreeMap<(&'static str, String), String>;

impl Table {
    /// The record id of a row.
    pub fn record_id(&self, columns: &[String], cells: &[Value]) -> String {
        let of =
            |name: &str| columns.iter().position(|column| column == name).map_or(Value::Null, |at| cells[at].clone());
        let key: Vec<Value> = self.key.iter().map(|(name, _)| of(name)).collect();
        let kinds: Vec<KeyColumn> =
            self.key.iter().map(|&(_, holds_text)| KeyColumn { collation: Collation::Binary, holds_text }).collect();
        record::record_id(&key, &kinds)
    }

    /// All rows, by record id.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn rows(&'static self, connection: &Connection, into: &mut Rows) -> rusqlite::Result<()> {
        // Not a cached one: it would name the columns from before a migration.
        let mut statement = connection.prepare(&format!("SELECT * FROM {}", self.name))?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let cells: Vec<Value> =
                (0..columns.len()).map(|at| row.get_ref(at).map(value)).collect::<rusqlite::Result<_>>()?;
            let json = record::row_to_json(&columns, &cells);
            into.insert((self.name, self.record_id(&columns, &cells)), json);
        }
        Ok(())
    }
}

fn value(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// All rows of all tables.
///
/// # Errors
/// When SQLite fails.
pub fn all_rows(connection: &Connection) -> rusqlite::Result<Rows> {
    let mut rows = Rows::new();
    TABLES.iter().try_for_each(|table| table.rows(connection, &mut rows))?;
    Ok(rows)
}

/// What a transaction did, row by row: what a row became, or that it went.
#[derive(Clone, Debug)]
pub struct Done {
    /// The statements.
    pub sql: Vec<String>,
    /// The rows that are different now.
    pub changed: Vec<Changed>,
}

/// What became of a row.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its table.
    pub table: &'static str,
    /// Its record id.
    pub record: String,
    /// What the service found, if it was there.
    pub before: Option<String>,
    /// What it is now, unless it went.
    pub after: Option<String>,
    /// Rowcast's triggers were there, for the columns that the table has.
    pub seen: bool,
}

/// Draws a transaction.
pub fn draw(chance: &mut Chance, mark: &mut u64, records: u64, made: &Made) -> Vec<String> {
    let statements = if chance.one_in(20) { chance.between(20, 60) } else { chance.between(1, 4) };
    (0..statements).flat_map(|_| statement(chance, mark, records, made)).collect()
}

fn statement(chance: &mut Chance, mark: &mut u64, records: u64, made: &Made) -> Vec<String> {
    *mark += 1;
    let (m, id, other) = (*mark, chance.below(records), chance.below(records));
    let verb = *chance.pick(&["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL"]);
    let (note, v) = (made.name("items", "note", "remark"), made.name("pairs", "v", "w"));
    match chance.below(24 + 2 * made.count()) {
        0..=3 => vec![format!(
            "INSERT INTO items (id, name, qty, price, {note}) VALUES ('i{id}', 'n{m}', {m}, {m}.5, x'{m:08x}')
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, qty = excluded.qty"
        )],
        4 => vec![format!("{verb} INTO items (id, name, qty) VALUES ('i{id}', 'n{m}', 'q{m}')")],
        5 | 6 => vec![format!("UPDATE items SET {note} = 'o{m}' WHERE id = 'i{id}'")],
        7 => vec![format!("DELETE FROM items WHERE id = 'i{id}'")],
        // The key moves: away, and sometimes onto another record.
        8 => vec![format!("UPDATE OR REPLACE items SET id = 'i{other}', name = 'k{m}' WHERE id = 'i{id}'")],
        9 | 10 => vec![format!("{verb} INTO users (id, email, name) VALUES ('u{id}', 'e{}', 'n{m}')", other % 4)],
        11 => vec![format!("UPDATE OR REPLACE users SET email = 'e{}', name = 'n{m}' WHERE id = 'u{id}'", other % 4)],
        12 => vec![format!("DELETE FROM users WHERE id = 'u{id}'")],
        // Two rows change places: legal within one transaction.
        13 => vec![
            format!("UPDATE OR IGNORE users SET email = 'x{m}', name = 'a{m}' WHERE id = 'u{id}' AND email = 'e1'"),
            format!("UPDATE OR IGNORE users SET email = 'e1', name = 'b{m}' WHERE id = 'u{other}'"),
            format!("UPDATE OR IGNORE users SET email = 'e2', name = 'c{m}' WHERE email = 'x{m}'"),
        ],
        14 | 15 => vec![format!(
            "INSERT INTO pairs VALUES ({}, 'b{id}', 'v{m}') ON CONFLICT (a, b) DO UPDATE SET {v} = excluded.{v}",
            other % 3
        )],
        16 => vec![format!("DELETE FROM pairs WHERE a = {} AND b < 'b{id}'", other % 3)],
        17 | 18 => vec![
            format!("INSERT INTO parents VALUES ('p{}', 'v{m}') ON CONFLICT DO UPDATE SET v = 'v{m}'", id % 4),
            format!("INSERT OR REPLACE INTO children VALUES ('c{other}', 'p{}', 'v{m}')", id % 4),
        ],
        19 => vec![format!("DELETE FROM parents WHERE id = 'p{}'", id % 4)],
        20 | 21 => {
            vec![format!(
                "INSERT INTO posts (id, v) VALUES ('t{id}', 'v{m}') ON CONFLICT (id) DO UPDATE SET v = excluded.v"
            )]
        }
        22 => vec![format!("DELETE FROM posts WHERE id = 't{id}'")],
        23 => vec![format!("UPDATE items SET qty = 'all{m}' WHERE qty > {}", m / 2)],
        at => {
            let (table, column) = made.pick(at - 24);
            match table {
                "items" => vec![format!("UPDATE items SET {column} = '{column}{m}' WHERE id = 'i{id}'")],
                "users" => vec![format!("UPDATE users SET {column} = '{column}{m}' WHERE id = 'u{id}'")],
                "posts" => vec![format!("UPDATE posts SET {column} = '{column}{m}' WHERE id = 't{id}'")],
                _ => vec![format!("UPDATE {table} SET {column} = '{column}{m}' WHERE b = 'b{id}'")],
            }
        }
    }
}

/// Runs a transaction. A statement that a constraint refuses is left out, as services do; another failure ends it.
///
/// # Errors
/// When SQLite fails otherwise: the service sees a failed transaction, and nothing of it is there.
pub fn run(connection: &Connection, sql: Vec<String>) -> rusqlite::Result<Done> {
    let before = all_rows(connection)?;
    let mut seen = BTreeMap::new();
    for table in &TABLES {
        seen.insert(table.name, schema::is_seen(connection, table.name)?);
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let result = sql.iter().try_for_each(|statement| match connection.execute_batch(statement) {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == rusqlite::ErrorCode::ConstraintViolation => {
            Ok(())
        }
        other => other,
    });
    let result = result.and_then(|()| connection.execute_batch("COMMIT"));
    if let Err(error) = result {
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        return Err(error);
    }
    let after = all_rows(connection)?;
    let mut changed = Vec::new();
    for (key, row) in &after {
        if before.get(key) != Some(row) {
            let (before, after) = (before.get(key).cloned(), Some(row.clone()));
            changed.push(Changed { table: key.0, record: key.1.clone(), before, after, seen: seen[key.0] });
        }
    }
    for (key, row) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
        let before = Some(row.clone());
        changed.push(Changed { table: key.0, record: key.1.clone(), before, after: None, seen: seen[key.0] });
    }
    Ok(Done { sql, changed })
}

/// The change events that a service publishes after a transaction that touched announced tables.
pub fn announcements(done: &Done) -> Vec<String> {
    let announced = |name: &str| TABLES.iter().any(|table| table.announced && table.name == name);
    done.changed
        .iter()
        .filter(|changed| announced(changed.table))
        .map(|Changed { table, record, after, .. }| match after {
            Some(row) => format!(r#"{{"table":"{table}","operation":"update","data":{row}}}"#),
            None => format!(r#"{{"table":"{table}","operation":"delete","key":{{"id":"{record}"}}}}"#),
        })
        .collect()
}
