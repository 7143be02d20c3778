//! The trap database: every table is one way in which replication of SQLite can go wrong.
//!
//! The SQL is in `fixtures/traps.sql`; here is what is easier to make than to write.

use std::fmt::Write as _;

use rusqlite::Connection;

/// Columns of the table `wide`, its key included.
const WIDE_COLUMNS: usize = 70;

/// The trap database, tables and rows.
pub fn sql() -> String {
    format!("{}\n{}", include_str!("../fixtures/traps.sql"), wide())
}

/// More columns than a 64-bit mask has bits.
fn wide() -> String {
    let columns: Vec<String> = (1..WIDE_COLUMNS).map(|at| format!("c{at}")).collect();
    let mut sql = format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {});\n", columns.join(", "));
    for id in 1..=3 {
        let cells: Vec<String> = (1..WIDE_COLUMNS).map(|at| format!("'{id} {at}'")).collect();
        writeln!(sql, "INSERT INTO wide VALUES ({id}, {});", cells.join(", ")).unwrap();
    }
    sql
}

/// The trap database on its own, in memory, for comparison.
pub fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(&sql()).unwrap();
    connection
}
