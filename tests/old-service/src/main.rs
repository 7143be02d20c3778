//! A service on SQLite 3.24 that knows nothing of Rowcast.
//!
//! `old-service DATABASE NAME COUNT` writes COUNT rounds under NAME, then prints the version of its SQLite.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ToSql;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: old-service DATABASE NAME COUNT");
    let (path, name, count) = (next(), next(), next());
    let count: i64 = count.parse().expect("COUNT is a number");

    let db = Connection::open(path).expect("the database opens");
    db.busy_timeout(Duration::from_secs(5)).expect("a timeout can be set");
    db.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL").expect("pragmas work");
    let run = |sql: &str, cells: &[&dyn ToSql]| {
        db.execute(sql, cells).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    };
    for number in 0..count {
        let note = format!("{name}-{number}");
        run("BEGIN IMMEDIATE", &[]);
        run("INSERT INTO notes(id, author, text, made) VALUES (?1, ?2, ?3, 1.5)", &[&note, &name, &"old"]);
        run("INSERT INTO tags(note, tag) VALUES (?1, 'a'), (?1, 'b')", &[&note]);
        run("SAVEPOINT s", &[]);
        run("DELETE FROM tags WHERE note = ?1", &[&note]);
        run("ROLLBACK TO s", &[]);
        run("COMMIT", &[]);
        // Upserts came with 3.24: that is the floor.
        run(
            "INSERT INTO notes(id, author) VALUES (?1, ?2) ON CONFLICT(id) DO UPDATE SET text = 'upserted', seen = 1",
            &[&note, &name],
        );
        run("UPDATE notes SET id = id || '+' WHERE id = ?1 AND ?2 % 3 = 0", &[&note, &number]);
        if number % 4 == 0 {
            run("DELETE FROM notes WHERE id IN (?1, ?1 || '+')", &[&note]);
        }
        run("INSERT OR REPLACE INTO settings(name, value) VALUES (?1, ?2)", &[&name, &vec![0_u8, 255]]);
    }
    let version: String = db.query_row("SELECT sqlite_version()", &[], |row| row.get(0)).expect("a version");
    println!("{version}");
}
