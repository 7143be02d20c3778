//! Migrations: what they do to the services' tables, and what a table looks like on a node that has some of them.
//!
//! Every node gets all of them, in an order of its own, by ALTER TABLE or by rebuilding the table, as tools do. No table
//! notes which ones it has: the columns say it.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _};

use crate::chance::Chance;

/// A migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its table.
    pub table: &'static str,
    /// The column that it makes.
    pub makes: &'static str,
    /// The column that it renames.
    pub renames: Option<&'static str>,
    /// How the faults are counted.
    pub counted: &'static str,
}

/// All of them.
pub const STEPS: [Step; 6] = [
    Step { table: "items", makes: "extra", renames: None, counted: "schema, column added" },
    Step { table: "items", makes: "grade", renames: None, counted: "schema, column with default added" },
    Step { table: "items", makes: "remark", renames: Some("note"), counted: "schema, column renamed" },
    Step { table: "users", makes: "city", renames: None, counted: "schema, column with default added" },
    Step { table: "pairs", makes: "w", renames: Some("v"), counted: "schema, column renamed" },
    Step { table: "posts", makes: "tag", renames: None, counted: "schema, column with default added" },
];

/// Every column with its definition.
const COLUMNS: [(&str, &str, &str); 24] = [
    ("items", "id", "TEXT NOT NULL PRIMARY KEY"),
    ("items", "name", "TEXT COLLATE NOCASE"),
    ("items", "qty", ""),
    ("items", "price", "REAL"),
    ("items", "note", "BLOB"),
    ("items", "remark", "BLOB"),
    ("items", "extra", "TEXT"),
    ("items", "grade", "TEXT NOT NULL DEFAULT 'g'"),
    ("users", "id", "TEXT NOT NULL PRIMARY KEY"),
    ("users", "email", "TEXT UNIQUE"),
    ("users", "name", "TEXT"),
    ("users", "city", "TEXT DEFAULT 'nowhere'"),
    ("pairs", "a", "INTEGER NOT NULL"),
    ("pairs", "b", "TEXT NOT NULL"),
    ("pairs", "v", "TEXT"),
    ("pairs", "w", "TEXT"),
    ("parents", "id", "TEXT NOT NULL PRIMARY KEY"),
    ("parents", "v", "TEXT"),
    ("children", "id", "TEXT NOT NULL PRIMARY KEY"),
    ("children", "parent", "TEXT"),
    ("children", "v", "TEXT"),
    ("posts", "id", "TEXT NOT NULL PRIMARY KEY"),
    ("posts", "v", "TEXT"),
    ("posts", "tag", "TEXT DEFAULT 'untagged'"),
];

fn definition(table: &str, column: &str) -> &'static str {
    let found = COLUMNS.iter().find(|known| known.0 == table && known.1 == column);
    found.unwrap_or_else(|| panic!("{table}.{column} is one of the columns")).2
}

/// What stands in a column of which no event says anything, as JSON.
pub fn default(table: &str, column: &str) -> serde_json::Value {
    let text = definition(table, column).split_once("DEFAULT '").map(|(_, text)| text.trim_end_matches('\''));
    text.map_or(serde_json::Value::Null, |text| text.into())
}

/// The name that the column has, or had, on nodes that are not as far.
pub fn other_name(table: &str, column: &str) -> Option<&'static str> {
    let renaming = STEPS.iter().filter(|step| step.table == table).filter_map(|step| Some((step.renames?, step.makes)));
    renaming.into_iter().find_map(|(old, new)| match column {
        column if column == old => Some(new),
        column if column == new => Some(old),
        _ => None,
    })
}

/// Whether a migration makes the column.
pub fn is_made(table: &str, column: &str) -> bool {
    STEPS.iter().any(|step| step.table == table && step.makes == column)
}

/// The columns of a table, none when it is not there.
pub fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// Whether Rowcast's triggers see everything that is written to the table: there are some, for the columns that it has.
pub fn is_seen(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = '_rowcast_' || ?1 || '_insert'";
    let Some(trigger) = connection.query_row(sql, [table], |row| row.get::<_, String>(0)).optional()? else {
        return Ok(false);
    };
    let layout = trigger.split_once("SELECT ").and_then(|(_, rest)| rest.split(',').next()?.parse::<i64>().ok());
    let sql = "SELECT columns FROM _rowcast_layouts WHERE layout = ?1";
    let captured: Option<String> = connection.query_row(sql, [layout], |row| row.get(0)).optional()?;
    let captured: Vec<String> = captured.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    Ok(captured == columns(connection, table)?)
}

impl Step {
    /// Whether the table is there and lacks what the migration makes.
    pub fn is_due(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let columns = columns(connection, self.table)?;
        Ok(!columns.is_empty() && !columns.iter().any(|column| column == self.makes))
    }

    /// The statements, by ALTER TABLE or by rebuilding.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn sql(&self, connection: &Connection, chance: &mut Chance) -> rusqlite::Result<(String, bool)> {
        let Self { table, makes, renames, .. } = self;
        if chance.one_in(2) {
            return Ok((self.rebuild(connection)?, true));
        }
        let sql = match renames {
            Some(old) => format!("ALTER TABLE {table} RENAME COLUMN {old} TO {makes};"),
            None => format!("ALTER TABLE {table} ADD COLUMN {makes} {};", definition(table, makes)),
        };
        Ok((sql, false))
    }

    /// Create, copy, drop, rename.
    fn rebuild(&self, connection: &Connection) -> rusqlite::Result<String> {
        let Self { table, makes, renames, .. } = *self;
        let copied = columns(connection, table)?;
        let mut made: Vec<String> = copied
            .iter()
            .map(|column| if Some(column.as_str()) == renames { makes.to_owned() } else { column.clone() })
            .collect();
        let into = made.join(", ");
        if renames.is_none() {
            made.push(makes.to_owned());
        }
        let definitions: Vec<String> =
            made.iter().map(|column| format!("{column} {}", definition(table, column))).collect();
        let (key, rest) = if table == "pairs" { (", PRIMARY KEY (a, b)", " WITHOUT ROWID") } else { ("", "") };
        Ok(format!(
            "CREATE TABLE new_{table} ({}{key}){rest};
             INSERT INTO new_{table} ({into}) SELECT {} FROM {table};
             DROP TABLE {table};
             ALTER TABLE new_{table} RENAME TO {table};",
            definitions.join(", "),
            copied.join(", ")
        ))
    }
}

/// Which of the columns that migrations make a service finds.
#[derive(Clone, Debug, Default)]
pub struct Made(BTreeSet<(&'static str, &'static str)>);

impl Made {
    /// Looks at the tables as they are.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut made = BTreeSet::new();
        for step in STEPS {
            if columns(connection, step.table)?.iter().any(|column| column == step.makes) {
                made.insert((step.table, step.makes));
            }
        }
        Ok(Self(made))
    }

    /// Whether the column is there.
    pub fn has(&self, table: &'static str, column: &'static str) -> bool {
        self.0.contains(&(table, column))
    }

    /// The columns of a table.
    pub fn columns(&self, table: &str) -> Vec<String> {
        let of = COLUMNS.iter().filter(|known| known.0 == table).map(|known| known.1);
        let is_there = |column: &&str| {
            let made = STEPS.iter().find(|step| step.table == table && step.makes == *column);
            let gone = STEPS.iter().find(|step| step.table == table && step.renames == Some(*column));
            made.is_none_or(|step| self.has(step.table, step.makes))
                && gone.is_none_or(|step| !self.has(step.table, step.makes))
        };
        of.filter(is_there).map(str::to_owned).collect()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// One of them, by a number below twice their count.
    pub fn pick(&self, number: u64) -> (&'static str, &'static str) {
        *self.0.iter().nth((number / 2) as usize).expect("the number is below twice the count")
    }

    /// The name of a column that is renamed to `new`.
    pub fn name(&self, table: &'static str, old: &'static str, new: &'static str) -> &'static str {
        if self.has(table, new) { new } else { old }
    }
}
