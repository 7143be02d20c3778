//! Every page of a walk begins at its first row: SQLite's own plan says so.

use super::*;
use crate::edge::store::catalogue;

fn shape(connection: &Connection, name: &str) -> Shape {
    let text = format!("service = \"s\"\n[tables.{name}]\n");
    let declaration = Declaration::parse("schema.toml", &text).unwrap();
    let found = catalogue::tables(connection).unwrap();
    let table = found.into_iter().find(|table| table.name == name).unwrap();
    Shape::of(connection, table, declaration.enabled().next().unwrap()).unwrap()
}

#[test]
fn a_walk_in_pages_searches_and_sees_every_row_once_whatever_the_key() {
    let connection = Connection::open_in_memory().unwrap();
    let tables = [
        ("plain", "a TEXT NOT NULL, b TEXT NOT NULL, PRIMARY KEY (a, b)"),
        ("rowless", "a TEXT NOT NULL, b TEXT NOT NULL, PRIMARY KEY (a, b)"),
        ("nocase", "a TEXT NOT NULL, b TEXT NOT NULL COLLATE NOCASE, PRIMARY KEY (b, a)"),
        ("differs", "a TEXT NOT NULL, b TEXT NOT NULL, PRIMARY KEY (a COLLATE NOCASE, b)"),
        ("down", "a TEXT NOT NULL, b TEXT NOT NULL, PRIMARY KEY (a, b DESC)"),
        ("coarse", "a TEXT NOT NULL COLLATE NOCASE, b TEXT NOT NULL, PRIMARY KEY (a COLLATE BINARY, b)"),
        ("one", "a TEXT PRIMARY KEY NOT NULL, b TEXT"),
        ("number", "a INTEGER PRIMARY KEY, b TEXT"),
    ];
    for (name, columns) in tables {
        let kind = if name == "rowless" { "WITHOUT ROWID" } else { "" };
        connection.execute_batch(&format!("CREATE TABLE {name}({columns}) {kind}")).unwrap();
        connection.execute_batch(&format!("CREATE INDEX {name}_other ON {name} (a, b)")).unwrap();
        let value = if name == "number" { "i" } else { "char(97 + i / 10) || iif(i % 2, 'x', 'X')" };
        connection
            .execute_batch(&format!(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
                 INSERT OR IGNORE INTO {name} SELECT {value}, 'b' || (i * 7 % 10) FROM n"
            ))
            .unwrap();
        let shape = shape(&connection, name);
        let plan: String = connection
            .query_row(
                &format!("EXPLAIN QUERY PLAN {}", shape.scan_after),
                rusqlite::params_from_iter(vec![1; shape.key.len()]),
                |row| row.get(3),
            )
            .unwrap();
        assert!(plan.starts_with("SEARCH"), "{name}: {plan}: {}", shape.scan_after);
        let (mut seen, mut after): (Vec<Vec<Value>>, Option<Vec<Value>>) = (Vec::new(), None);
        loop {
            let sql = if after.is_some() { &shape.scan_after } else { &shape.scan };
            let mut statement = connection.prepare(&format!("{sql} LIMIT 3")).unwrap();
            let bound = after.iter().flatten().map(cell::Bound);
            let page: Vec<Vec<Value>> = statement
                .query_map(rusqlite::params_from_iter(bound), |row| {
                    (0..2).map(|at| row.get_ref(at).map(cell::read)).collect()
                })
                .unwrap()
                .collect::<rusqlite::Result<_>>()
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some(shape.key_of(last));
            seen.extend(page);
        }
        let count: usize = connection.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0)).unwrap();
        assert_eq!(seen.len(), count, "{name}");
    }
}

#[test]
fn only_a_literal_is_the_same_default_at_any_time() {
    let connection = Connection::open_in_memory().unwrap();
    let defaults = [
        ("'it''s'", true),
        ("\"word\"", true),
        ("-1", true),
        ("+ 1.5e-3", true),
        (".5", true),
        ("0x1F", true),
        ("x'00ff'", true),
        ("NULL", true),
        ("true", true),
        ("CURRENT_TIMESTAMP", false),
        ("(datetime('now'))", false),
        ("(random())", false),
        ("(lower(hex(randomblob(16))))", false),
        ("('a' || random() || 'b')", false),
        ("(1 + random())", false),
        ("(-random())", false),
    ];
    for (at, (default, is_literal)) in defaults.iter().enumerate() {
        let name = format!("t{at}");
        connection
            .execute_batch(&format!("CREATE TABLE {name}(id TEXT PRIMARY KEY NOT NULL, a DEFAULT {default})"))
            .unwrap();
        let shape = shape(&connection, &name);
        assert_eq!(shape.has_default_of_its_moment(1), !is_literal, "{default}: {:?}", shape.table.columns[1].default);
        connection.execute_batch(&format!("INSERT INTO {name} (id) VALUES ('x')")).unwrap();
        let held =
            connection.query_row(&format!("SELECT a FROM {name}"), [], |row| row.get_ref(0).map(cell::read)).unwrap();
        assert_eq!(shape.defaults[1] == held, *is_literal, "{default}");
    }
}

/// What an index says of a row is asked of SQLite by a statement that has to name that index, term for term.
#[test]
fn every_shape_of_a_unique_index_can_be_asked_for_its_holder() {
    let connection = Connection::open_in_memory().unwrap();
    let terms = [
        "lower(a)",
        "lower(a) COLLATE NOCASE",
        "lower(a)COLLATE NOCASE DESC",
        "(lower(a)) ASC",
        "trim(a) || ' ' || trim(b) COLLATE NOCASE",
        "b || '' COLLATE BINARY",
        "lower(a COLLATE NOCASE)",
        "(lower(a) COLLATE NOCASE)",
        "a -> 'x' COLLATE NOCASE",
        "CASE WHEN b = 'desc' THEN a END DESC",
        "a || 'x' COLLATE \"NOCASE\" desc",
        "a, lower(b)",
        "a COLLATE NOCASE, lower(b) COLLATE RTRIM DESC",
        "a || desc",
        "a || desc DESC",
        "a IS desc",
        "a || `b`DESC",
        "a || [b]ASC",
        "+b",
        "CAST(b AS TEXT)",
        "a) WHERE (b = 'x' COLLATE NOCASE",
        "lower(a)) WHERE (b IS NOT NULL",
    ];
    for (at, terms) in terms.iter().enumerate() {
        let name = format!("t{at}");
        connection
            .execute_batch(&format!(
                "CREATE TABLE {name}(id TEXT PRIMARY KEY NOT NULL, a TEXT, b TEXT COLLATE NOCASE, desc TEXT);
                 CREATE UNIQUE INDEX i{at} ON {name}({terms});"
            ))
            .unwrap();
        let shape = shape(&connection, &name);
        assert_eq!(shape.holders.len(), 1, "{terms}");
        connection.prepare(shape.holders[0].sql()).unwrap_or_else(|error| panic!("{terms}: {error}"));
        for trigger in rowcast_schema::journal::triggers(&shape.table, &shape.layout) {
            connection.execute_batch(&rowcast_schema::journal::create(4)).unwrap();
            connection.execute_batch(&trigger.sql).unwrap_or_else(|error| panic!("{terms}: {error}"));
        }
        connection
            .execute_batch(&format!("INSERT INTO {name} VALUES ('x', '{{}}', 'y', 'z')"))
            .unwrap_or_else(|error| panic!("{terms}: {error}"));
    }
}
