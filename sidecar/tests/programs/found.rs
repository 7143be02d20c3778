//! Programs that were found by chance once, made small, and are to stay right whatever the seeds are.

use super::schema::Schema;
use super::statements::Step;
use super::{Kinds, Program, UNLIKE, play};

fn program(tables: &[&str], schema: &[&str], steps: &[&str]) -> Program {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let schema = Schema { sql: owned(schema), names: owned(tables), ..Schema::default() };
    let step = |text: String| if text == "work" { Step::Ingest(None) } else { Step::Sql(text) };
    let steps = owned(steps).into_iter().map(step).collect();
    Program { schema, before: Vec::new(), steps, fed: true, kinds: Kinds::default() }
}

fn plays(tables: &[&str], schema: &[&str], steps: &[&str]) {
    let played = play(&program(tables, schema, steps), &mut Kinds::default());
    assert_eq!(played, Ok(()));
}

/// I8: what a partial index leaves out is not computed by our triggers either.
#[test]
fn an_index_over_json_lets_rows_without_json_in() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, body TEXT)",
            "CREATE UNIQUE INDEX u ON t(json_extract(body, '$.k')) WHERE json_valid(body)",
        ],
        &[
            "INSERT INTO t VALUES ('a', 'no json'), ('b', '{\"k\":1}')",
            "work",
            "REPLACE INTO t VALUES ('c', '{\"k\": 1}'), ('d', 'none either')",
            "REPLACE INTO t VALUES ('a', '{\"k\": 2}'), ('c', 'no json any more'), ('d', '{\"k\": 2}'), ('a', 'a')",
        ],
    );
}

/// REPLACE puts the default where NOT NULL forbids a NULL, and the default evicts.
#[test]
fn a_default_that_stands_in_for_null_evicts_like_any_other_value() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u REAL NOT NULL DEFAULT 2 UNIQUE, e TEXT NOT NULL DEFAULT word)",
            "CREATE UNIQUE INDEX e ON t(lower(e))",
        ],
        &[
            "INSERT INTO t VALUES (3, 2.0, 'a'), (4, 3.0, 'word')",
            "work",
            "REPLACE INTO t VALUES (5, NULL, 'b')",
            "REPLACE INTO t VALUES (6, 6, NULL)",
        ],
    );
}

/// Before the write SQLite computes a generated column from the NULL, and a default that is no constant is not ours to compute.
#[test]
fn a_default_that_only_sqlite_can_follow_evicts_like_any_other_value() {
    plays(
        &["g", "f"],
        &[
            "CREATE TABLE g(id TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL DEFAULT 2, c INTEGER AS (n IS NULL) STORED UNIQUE)",
            "CREATE TABLE f(id TEXT NOT NULL PRIMARY KEY, u TEXT NOT NULL DEFAULT (lower('A')), v TEXT)",
            "CREATE UNIQUE INDEX fu ON f(u)",
        ],
        &[
            "INSERT INTO g(id, n) VALUES ('before', 3)",
            "INSERT INTO f VALUES ('before', 'a', 'x'), ('other', 'b', 'x')",
            "work",
            "REPLACE INTO g(id, n) VALUES ('now', NULL)",
            "REPLACE INTO f VALUES ('now', NULL, 'y')",
            "work",
            "INSERT INTO g(id, n) VALUES ('never', NULL)",
            "INSERT OR IGNORE INTO f VALUES ('ignored', NULL, 'z')",
            "UPDATE OR REPLACE f SET u = NULL WHERE id = 'other'",
        ],
    );
}

/// Not ours either: SQLite calls a database malformed that is not, where a table has any trigger.
#[test]
fn what_sqlite_takes_for_damage_it_does_with_any_trigger() {
    let table = "CREATE TABLE t(k0 REAL NOT NULL, k1 BLOB NOT NULL, c1 BLOB, c2 TEXT AS (typeof(k0)) UNIQUE ON CONFLICT REPLACE, c3 BLOB,
        c4 NOT NULL ON CONFLICT REPLACE DEFAULT (1 + 1), PRIMARY KEY (k1, k0), UNIQUE (c4, c3),
        FOREIGN KEY (c1, c3) REFERENCES t(k0, k1) ON DELETE SET NULL ON UPDATE SET NULL)";
    let index = "CREATE UNIQUE INDEX u ON t(c3 DESC, lower(c4))";
    let insert = "INSERT INTO t(k0, k1, c1, c3, c4) VALUES (1.0, char(128512), CAST(x'c3' AS TEXT), x'41', 'a')
        ON CONFLICT (c2) DO UPDATE SET k0 = excluded.c2, k1 = excluded.c4 WHERE excluded.c1 IS NOT NULL";
    let update = "UPDATE OR REPLACE t SET k1 = c3 WHERE c3 IS NOT NULL";
    let outcome = |triggers: &str| {
        let alone = rusqlite::Connection::open_in_memory().unwrap();
        alone.execute_batch(&format!("PRAGMA foreign_keys = on; {table}; {index}; {triggers}; {insert}")).unwrap();
        let updated = alone.execute_batch(update).map_err(|error| error.to_string());
        let sound: String = alone.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        updated
    };
    assert_eq!(outcome(""), Ok(()));
    let inert = "CREATE TRIGGER inert AFTER UPDATE ON t BEGIN SELECT 1; END";
    assert_eq!(outcome(inert), Err("database disk image is malformed".to_owned()));
    plays(&["t"], &[table, index, inert], &["PRAGMA foreign_keys = on", insert, "BEGIN", update, "work"]);
}

/// The limit of docs/guarantees.md: our triggers compute what an upsert, or OR IGNORE, would not have come to.
#[test]
fn an_expression_that_raises_does_so_before_a_statement_turns_elsewhere() {
    let schema = ["CREATE TABLE t(id INTEGER PRIMARY KEY, a, b UNIQUE)", "CREATE UNIQUE INDEX u ON t(abs(a))"];
    for clause in [
        "INSERT OR IGNORE INTO t VALUES (2, 2, 'c'), (1, -9223372036854775808, 'd')",
        "INSERT INTO t VALUES (1, -9223372036854775808, 'c') ON CONFLICT (id) DO UPDATE SET b = 'd'",
    ] {
        let steps = ["INSERT INTO t VALUES (1, 1, 'b')", clause];
        let played = play(&program(&["t"], &schema, &steps), &mut Kinds::default());
        assert_eq!(played, Err(UNLIKE.to_owned()), "{clause}");
    }
}

/// The word in a comment makes no table of numbers, and one behind an index is none of its condition.
#[test]
fn comments_of_a_schema_mean_nothing() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, -- no AUTOINCREMENT\n body TEXT)",
            "CREATE UNIQUE INDEX u ON t(id % 7)",
            "CREATE UNIQUE INDEX w ON t(body) -- where\nWHERE id > 0 -- living\n",
        ],
        &["REPLACE INTO t(body) VALUES ('a'), ('b')", "work", "REPLACE INTO t VALUES (8, 'c')"],
    );
}

/// The number that SQLite gives a row is not known before, and what is unique may be computed from it.
#[test]
fn a_number_that_sqlite_gives_evicts_like_any_other_value() {
    plays(
        &["t", "a"],
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)",
            "CREATE UNIQUE INDEX tu ON t(id % 3)",
            "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, x TEXT)",
            "CREATE UNIQUE INDEX au ON a(id % 3) WHERE id > 0",
        ],
        &[
            "INSERT INTO a VALUES (5, 'gone'), (1, 'one')",
            "DELETE FROM a WHERE id = 5",
            "INSERT INTO t VALUES (-4, 'a key of -1 evicts it')",
            "work",
            "REPLACE INTO t VALUES (-1, 'minus')",
            "work",
            "REPLACE INTO t(x) VALUES ('1'), ('2'), ('3'), ('4'), ('5')",
            "work",
            "REPLACE INTO a(x) VALUES ('6'), ('7')",
            "REPLACE INTO a VALUES (10, 'ten'), (-1, 'minus')",
            "REPLACE INTO t VALUES (7, 'seven')",
        ],
    );
}

/// Not ours: in a transaction SQLite leaves half of a statement behind whose triggers go on and on, unless another one keeps a
/// statement's journal.
#[test]
fn a_statement_that_sqlite_breaks_off_is_the_same_with_and_without() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT)",
            "CREATE TRIGGER own AFTER UPDATE ON t WHEN NEW.a IS NOT -9e999 BEGIN UPDATE t SET a = -9e999 WHERE id IS NEW.id; END",
        ],
        &[
            "PRAGMA recursive_triggers = on",
            "INSERT INTO t VALUES ('x', '1')",
            "BEGIN IMMEDIATE",
            "INSERT INTO t VALUES ('y', '1')",
            "UPDATE t SET a = a + 1",
            "INSERT INTO t VALUES ('z', '1')",
            "work",
        ],
    );
}

/// A unique index that has the whole key in it cannot be violated, and SQLite takes none with the rowid as a target.
#[test]
fn an_index_with_the_rowid_in_it_stops_nothing() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, g TEXT AS (a || 'g'))",
            "CREATE UNIQUE INDEX u ON t(id DESC, lower(a))",
            "CREATE UNIQUE INDEX v ON t(g, id)",
        ],
        &[
            "INSERT INTO t(id, a) VALUES (1, 'a'), (2, 'a')",
            "work",
            "UPDATE t SET a = 'b'",
            "REPLACE INTO t(id, a) VALUES (2, 'c')",
        ],
    );
}

/// SQLite computes a generated column of NEW in a BEFORE UPDATE trigger from what the trigger names alone.
#[test]
fn an_update_evicts_by_a_generated_column_of_what_it_does_not_change() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a, b, g TEXT AS (b || 'g'), h AS (lower(g)) STORED, UNIQUE (g, a) ON CONFLICT REPLACE)",
            "CREATE UNIQUE INDEX u ON t(h || a)",
        ],
        &[
            "INSERT INTO t(id, a, b) VALUES ('a', 1, 1), ('b', 2, 1)",
            "work",
            "UPDATE t SET a = 2 WHERE id = 'a'",
            "UPDATE OR REPLACE t SET a = 3",
        ],
    );
}

/// A CASCADE that comes back to the row that it began with is done before our trigger runs.
#[test]
fn a_row_that_refers_to_itself_follows_its_own_key() {
    let on = "ON UPDATE CASCADE ON DELETE CASCADE";
    plays(
        &["node", "left", "right"],
        &[
            &format!("CREATE TABLE node(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES node {on}) "),
            &format!("CREATE TABLE left(id INTEGER PRIMARY KEY, r INTEGER REFERENCES right {on})"),
            &format!("CREATE TABLE right(id INTEGER PRIMARY KEY REFERENCES Left(id) {on})"),
        ],
        &[
            "PRAGMA foreign_keys = off",
            "INSERT INTO node VALUES (4, 4), (5, 4)",
            "INSERT INTO left VALUES (1, 1)",
            "INSERT INTO right VALUES (1)",
            "PRAGMA foreign_keys = on",
            "work",
            "UPDATE node SET id = 9 WHERE id = 4",
            "UPDATE left SET id = 2",
        ],
    );
}

/// A CASCADE sets off a trigger of another table, which writes the row that it began with.
#[test]
fn a_row_that_a_trigger_of_a_table_that_refers_to_it_writes_is_told_as_it_ends() {
    plays(
        &["bill", "line"],
        &[
            "CREATE TABLE bill(id TEXT PRIMARY KEY NOT NULL, total INTEGER)",
            "CREATE TABLE line(id INTEGER PRIMARY KEY, bill TEXT REFERENCES Bill(id) ON UPDATE CASCADE, price INTEGER)",
            "CREATE TRIGGER sums AFTER UPDATE ON line BEGIN
               UPDATE bill SET total = (SELECT sum(price) FROM line WHERE line.bill = bill.id) WHERE id = NEW.bill; END",
        ],
        &[
            "INSERT INTO bill VALUES ('a', 7)",
            "INSERT INTO line VALUES (1, 'a', 2), (2, 'a', 3)",
            "work",
            "PRAGMA foreign_keys = on",
            "UPDATE bill SET id = 'b' WHERE id = 'a'",
        ],
    );
}

/// The key that SQLite is to find reads -1 in a BEFORE trigger, and a row may have just that key.
#[test]
fn the_row_with_the_key_minus_one_is_evicted_like_any_other() {
    plays(
        &["t"],
        &["CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)"],
        &["INSERT INTO t VALUES (-1, 'a')", "work", "REPLACE INTO t(u) VALUES ('a')"],
    );
}

/// A trigger of the service that fails in an OR FAIL statement leaves the row, and ours must have run by then.
#[test]
fn a_row_that_stays_when_a_later_trigger_fails_is_captured() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT)",
            "CREATE UNIQUE INDEX u ON t(a + 0)",
            "CREATE TRIGGER first AFTER DELETE ON t BEGIN SELECT 1; END",
        ],
        &[
            "INSERT INTO t VALUES ('a', 'none')",
            "work",
            "CREATE TRIGGER second AFTER INSERT ON t BEGIN UPDATE t SET a = 'A' WHERE id = NEW.id; END",
            "INSERT OR FAIL INTO t VALUES ('b', '1')",
            "work",
            "INSERT OR FAIL INTO t VALUES ('c', '2')",
        ],
    );
}

/// An expression sees a column's affinity in the rows that are there, so it has to in what is written, too; and what a column
/// does not make into its kind, as it is.
#[test]
fn expressions_compare_what_is_written_as_the_columns_do() {
    plays(
        &["t", "j", "g", "k"],
        &[
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, flag INTEGER, name TEXT, email TEXT COLLATE NOCASE)",
            "CREATE UNIQUE INDEX u ON t(CASE WHEN flag = '1' THEN email END)",
            "CREATE UNIQUE INDEX w ON t(iif(name = 7, email, NULL))",
            "CREATE UNIQUE INDEX x ON t(flag || ':' || email) WHERE flag > 'a'",
            "CREATE TABLE j(id TEXT PRIMARY KEY NOT NULL, active INTEGER, body JSON)",
            "CREATE TABLE g(id TEXT PRIMARY KEY NOT NULL, body TEXT)",
            "CREATE UNIQUE INDEX z ON g(CASE WHEN typeof(body) = 'text' THEN json_extract(body, '$.email') END)",
            "CREATE TABLE k(id TEXT PRIMARY KEY NOT NULL, a INTEGER, b INTEGER, c REAL, d NUMERIC)",
            "CREATE UNIQUE INDEX v ON k(CASE WHEN a = '1' THEN a || b || c || d END)",
            "CREATE UNIQUE INDEX y ON j(CASE WHEN active = '1' THEN json_extract(body, '$.email') END)",
        ],
        &[
            "INSERT INTO t VALUES ('a', 1, NULL, 'x'), ('b', NULL, '7', 'y'), ('c', 'odd', NULL, 'z')",
            "work",
            "REPLACE INTO t VALUES ('d', 1, NULL, 'X')",
            "REPLACE INTO t VALUES ('e', NULL, '7', 'Y')",
            "REPLACE INTO t VALUES ('f', 'odd', NULL, 'z')",
            "UPDATE OR REPLACE t SET flag = 1, email = 'x' WHERE id = 'e'",
            "INSERT INTO k VALUES ('a', 1, 2, 3, 4), ('b', 'x', 'y', 'z', 'z')",
            "REPLACE INTO k VALUES ('c', 1, 2, 3, 4), ('d', 1, 'y', 3, 4)",
            "INSERT INTO g VALUES ('a', '{\"email\":\"e\"}'), ('b', x'0102')",
            "REPLACE INTO g VALUES ('c', '{\"email\":\"e\"}'), ('d', x'0102')",
            "INSERT INTO j VALUES ('a', 1, '{\"email\":\"e\"}')",
            "REPLACE INTO j VALUES ('b', 1, '{\"email\":\"e\"}')",
        ],
    );
}

/// Record ids go by the key's collation; a column's own may be coarser.
#[test]
fn a_key_whose_collation_is_finer_than_its_columns_has_its_deletes() {
    plays(
        &["t"],
        &[
            "CREATE TABLE t(a TEXT NOT NULL COLLATE NOCASE, b TEXT NOT NULL, u UNIQUE, PRIMARY KEY (a COLLATE BINARY, b))",
        ],
        &[
            "INSERT INTO t VALUES ('a', '1', 1)",
            "work",
            "UPDATE t SET a = 'A' WHERE a = 'a'",
            "work",
            "REPLACE INTO t VALUES ('a', '1', 1)",
        ],
    );
}
