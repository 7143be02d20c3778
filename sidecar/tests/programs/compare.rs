//! What must be equal, and how it is told: rows by type and bits, outcomes of statements, and what the events add up to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rowcast_schema::value::Value;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::value::RawValue;

use super::kinds::Kinds;
use super::schema::quoted;

/// A cell, so that equal text means the same type and the same bits.
pub(crate) fn cell(value: ValueRef<'_>) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?} {:016x}", number.to_bits()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{text:?}"),
            Err(_) => format!("text x'{}'", hex(bytes)),
        },
        ValueRef::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

/// What a statement gave the service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    result: Result<Vec<String>, String>,
    changes: u64,
    last_insert_rowid: i64,
    autocommit: bool,
}

impl Outcome {
    /// Whether a constraint refused the statement.
    pub(crate) fn is_refusal(&self) -> bool {
        self.result.as_ref().is_err_and(|error| error.contains("constraint failed"))
    }

    /// Whether a STRICT table refused a value for its type.
    pub(crate) fn is_of_a_wrong_type(&self) -> bool {
        self.result.as_ref().is_err_and(|error| error.starts_with("3091 "))
    }

    /// Whether SQLite says what it says where a table's triggers go on and on, or of a row whose foreign key leads to itself. What
    /// the statement did until then may stay.
    pub(crate) fn is_broken_off(&self) -> bool {
        let known = ["1 triggers nested too deep", "11 database disk image is malformed"];
        self.result.as_ref().is_err_and(|error| known.contains(&error.as_str()))
    }

    /// Whether an expression could not be computed.
    pub(crate) fn is_of_an_expression(&self) -> bool {
        self.result.as_ref().is_err_and(|error| error == "1 integer overflow" || error == "1 malformed JSON")
    }

    /// Whether no transaction is open after it.
    pub(crate) fn is_autocommit(&self) -> bool {
        self.autocommit
    }

    /// Whether the statement ended with an error.
    pub(crate) fn failed(&self) -> bool {
        self.result.is_err()
    }

    /// Whether rows changed, as SQLite says.
    pub(crate) fn changed(&self) -> bool {
        self.result.is_ok() && self.changes > 0
    }
}

/// Runs a statement to its end.
pub(crate) fn run(connection: &Connection, sql: &str) -> Outcome {
    let rows = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(sql)?;
        let width = statement.column_count();
        let mut rows = statement.query([])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            let cells: rusqlite::Result<Vec<String>> = (0..width).map(|at| Ok(cell(row.get_ref(at)?))).collect();
            lines.push(cells?.join(" | "));
        }
        Ok(lines)
    };
    let result = rows().map_err(|error| match error {
        rusqlite::Error::SqliteFailure(code, text) => format!("{} {}", code.extended_code, text.unwrap_or_default()),
        // The place in the statement is not looked at.
        rusqlite::Error::SqlInputError { error, msg, .. } => format!("{} {msg}", error.extended_code),
        other => other.to_string(),
    });
    let failed = result.is_err();
    Outcome {
        result,
        changes: if failed { 0 } else { connection.changes() },
        // Of a statement that fails SQLite promises nothing here, and any trigger makes it another.
        last_insert_rowid: if failed { 0 } else { connection.last_insert_rowid() },
        autocommit: connection.is_autocommit(),
    }
}

/// Table to rows, in the order of their texts.
pub(crate) type Rows = BTreeMap<String, Vec<String>>;

/// Every row of the tables, with the columns that SQLite computes.
pub(crate) fn rows(connection: &Connection, tables: &[String]) -> Rows {
    let rows = |table: &String| {
        let outcome = run(connection, &format!("SELECT {} FROM {}", columns(connection, table, true), quoted(table)));
        let mut rows = outcome.result.unwrap_or_else(|error| panic!("{table}: {error}"));
        rows.sort_unstable();
        (table.clone(), rows)
    };
    tables.iter().map(rows).collect()
}

fn columns(connection: &Connection, table: &str, generated: bool) -> String {
    let sql = format!("SELECT name FROM pragma_table_xinfo(?1) WHERE {generated} OR hidden = 0 ORDER BY cid");
    let mut statement = connection.prepare_cached(&sql).unwrap();
    let names: Vec<String> = statement.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// The tables as their events tell: of each record the event with the greatest number, its data decoded. It shares no
/// code with the sidecar but the reading of one value.
pub(crate) fn folded(connection: &Connection, tables: &[String], kinds: &mut Kinds) -> Rows {
    let mut all = Rows::new();
    for table in tables {
        let events = quoted(&format!("{table}_Events"));
        let mut statement = connection
            .prepare(&format!("SELECT record_id, operation_type, data FROM {events} ORDER BY sequence_number"))
            .unwrap();
        let mut found = statement.query([]).unwrap();
        let mut records: BTreeMap<String, Option<String>> = BTreeMap::new();
        while let Some(row) = found.next().unwrap() {
            let (record, operation): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            let data: Option<String> = row.get(2).unwrap();
            assert_eq!(data.is_none(), operation == "DELETE", "{table} {record}: {operation} {data:?}");
            if records.insert(record, data.clone()).is_some_and(|before| before.is_none() && data.is_some()) {
                kinds.hit("outcome: a record came back after its delete");
            }
        }
        let mut rows: Vec<String> = records.into_values().flatten().map(|data| decoded(&data)).collect();
        rows.sort_unstable();
        all.insert(table.clone(), rows);
    }
    all
}

/// The cells of a row in its own order, which is that of the table.
fn decoded(data: &str) -> String {
    let cells: Vec<String> = Cells::read(data)
        .iter()
        .map(|json| match serde_json::from_str::<Value>(json).unwrap_or_else(|error| panic!("{json}: {error}")) {
            Value::Null => cell(ValueRef::Null),
            Value::Integer(number) => cell(ValueRef::Integer(number)),
            Value::Real(number) => cell(ValueRef::Real(number)),
            Value::Text(bytes) => cell(ValueRef::Text(&bytes)),
            Value::Blob(bytes) => cell(ValueRef::Blob(&bytes)),
        })
        .collect();
    cells.join(" | ")
}

/// Every row without what SQLite computes: what events tell of.
pub(crate) fn written_rows(connection: &Connection, tables: &[String]) -> Rows {
    let rows = |table: &String| {
        let outcome = run(connection, &format!("SELECT {} FROM {}", columns(connection, table, false), quoted(table)));
        let mut rows = outcome.result.unwrap_or_else(|error| panic!("{table}: {error}"));
        rows.sort_unstable();
        (table.clone(), rows)
    };
    tables.iter().map(rows).collect()
}

/// The values of a JSON object in the order of its text.
struct Cells(Vec<String>);

impl Cells {
    fn read(data: &str) -> Vec<String> {
        serde_json::from_str::<Self>(data).unwrap_or_else(|error| panic!("{data}: {error}")).0
    }
}

impl<'de> serde::Deserialize<'de> for Cells {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> serde::de::Visitor<'de> for Object {
            type Value = Cells;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Cells, A::Error> {
                let mut cells = Vec::new();
                while let Some((_, json)) = map.next_entry::<String, Box<RawValue>>()? {
                    cells.push(json.get().to_owned());
                }
                Ok(Cells(cells))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What one has and the other has not; none when they are equal.
pub(crate) fn difference(left: (&str, &Rows), right: (&str, &Rows)) -> Option<String> {
    let mut text = String::new();
    for (table, rows) in left.1 {
        let others = &right.1[table];
        if rows == others {
            continue;
        }
        writeln!(text, "`{table}`: {} has {} rows, {} has {}", left.0, rows.len(), right.0, others.len()).unwrap();
        for (name, rows, others) in [(left.0, rows, others), (right.0, others, rows)] {
            for row in rows.iter().filter(|row| !others.contains(row)) {
                writeln!(text, "  only {name}: {row}").unwrap();
            }
        }
    }
    (!text.is_empty()).then_some(text)
}
