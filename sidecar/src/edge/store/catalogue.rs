//! Reads the shape of the service's tables from SQLite's own catalogue.

use std::path::Path;

use rowcast_schema::OWN_PREFIX;
use rowcast_schema::definition::split_list;
use rowcast_schema::identifier::quoted;
use rowcast_schema::table::{Column, Kind, Table, Term, Unique};
use rusqlite::{Connection, OptionalExtension as _};

use super::error::{Doing as _, Error};

/// All tables of the database at `path`, Rowcast's own and SQLite's included, in name order. Opens it for reading, and
/// for a short time only.
///
/// # Errors
/// When the file is missing, is no database, or cannot be read.
pub fn read(path: &Path) -> Result<Vec<Table>, Error> {
    tables(&super::open::for_reading(path)?)
}

/// All tables that `connection` sees in its main database, in name order.
pub(super) fn tables(connection: &Connection) -> Result<Vec<Table>, Error> {
    let mut statement = connection
        .prepare_cached(
            "SELECT name, type, wr, strict FROM pragma_table_list
             WHERE schema = 'main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
        )
        .doing("list the tables")?;
    let heads = statement
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?)))
        .doing("list the tables")?
        .collect::<rusqlite::Result<Vec<(String, String, bool, bool)>>>()
        .doing("list the tables")?;
    heads
        .into_iter()
        .map(|(name, kind, without_rowid, strict)| {
            table(connection, &name, kind_named(&kind), without_rowid, strict).doing(format!("describe table `{name}`"))
        })
        .collect()
}

fn kind_named(name: &str) -> Kind {
    match name {
        "view" => Kind::View,
        "virtual" => Kind::Virtual,
        "shadow" => Kind::Shadow,
        _ => Kind::Table,
    }
}

fn table(
    connection: &Connection,
    name: &str,
    kind: Kind,
    without_rowid: bool,
    strict: bool,
) -> rusqlite::Result<Table> {
    let sql: Option<String> = connection
        .prepare_cached("SELECT sql FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?
        .flatten();
    let sql = sql.unwrap_or_default();
    // A virtual table is described by its module, which may not be in this SQLite; we refuse it anyway.
    let (columns, key) = if kind == Kind::Virtual { (Vec::new(), Vec::new()) } else { columns(connection, name)? };
    let mut table = Table {
        name: name.to_owned(),
        kind,
        columns,
        key,
        without_rowid,
        strict,
        key_indexed: false, // As its indexes say.
        autoincrement: sql.to_ascii_uppercase().contains("AUTOINCREMENT") && numbers_are_kept(connection)?,
        uniques: Vec::new(),
        triggers: triggers(connection, name)?,
        comes_back: comes_back(connection, name)?,
        sql,
        index_sql: Vec::new(),
    };
    if kind == Kind::Table {
        read_indexes(connection, &mut table)?;
    }
    Ok(table)
}

/// Whether any table of the database is declared with AUTOINCREMENT. The word alone may stand in a comment.
fn numbers_are_kept(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// The columns, and the key as places among them.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<(Vec<Column>, Vec<usize>)> {
    let mut statement = connection.prepare_cached(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
    )?;
    let mut rows = statement.query([table])?;
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let place_in_key: usize = row.get(4)?;
        if place_in_key > 0 {
            key.push((place_in_key, columns.len()));
        }
        columns.push(Column {
            name: row.get(0)?,
            declared_type: row.get(1)?,
            not_null: row.get(2)?,
            default: row.get(3)?,
            generated: matches!(row.get(5)?, 2 | 3),
            collation: "BINARY".to_owned(),
        });
    }
    key.sort_unstable();
    Ok((columns, key.into_iter().map(|(_, at)| at).collect()))
}

/// The service's own triggers on the table.
fn triggers(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
         AND substr(name, 1, ?2) <> ?3 ORDER BY name",
    )?;
    statement.query_map((table, OWN_PREFIX.len(), OWN_PREFIX), |row| row.get(0))?.collect()
}

/// Whether a chain of foreign keys leads to the table, from itself, or from one with triggers of the service: an action of a
/// foreign key sets them off, and they may write to any row.
fn comes_back(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE first(name) AS (
           SELECT ?1 UNION SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, ?2) <> ?3
         ), reached(name) AS (
           SELECT lower(keys.\"table\") FROM first, pragma_foreign_key_list(first.name) AS keys
           UNION SELECT lower(keys.\"table\") FROM reached, pragma_foreign_key_list(reached.name) AS keys
         ) SELECT EXISTS (SELECT 1 FROM reached WHERE name = lower(?1))",
    )?;
    statement.query_row((table, OWN_PREFIX.len(), OWN_PREFIX), |row| row.get(0))
}

struct Index {
    name: String,
    unique: bool,
    is_key: bool,
}

fn read_indexes(connection: &Connection, table: &mut Table) -> rusqlite::Result<()> {
    let indexes: Vec<Index> = connection
        .prepare_cached("SELECT name, \"unique\", origin FROM pragma_index_list(?1) ORDER BY name")?
        .query_map([&table.name], |row| {
            Ok(Index { name: row.get(0)?, unique: row.get(1)?, is_key: row.get::<_, String>(2)? == "pk" })
        })?
        .collect::<rusqlite::Result<_>>()?;
    for index in indexes {
        let sql: Option<String> = connection
            .prepare_cached("SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1")?
            .query_row([&index.name], |row| row.get(0))
            .optional()?
            .flatten();
        let terms = terms(connection, (&table.name, &index.name), sql.as_deref())?;
        if index.is_key {
            table.key_indexed = true;
            for term in terms {
                if let Term::Column(at, collation) = term {
                    table.columns[at].collation = collation;
                }
            }
        } else if index.unique {
            let predicate = sql.as_deref().and_then(predicate);
            table.uniques.push(Unique { index: index.name, terms, predicate });
        }
        table.index_sql.extend(sql);
    }
    // The key's own collations are known only now.
    let uniques = std::mem::take(&mut table.uniques);
    table.uniques = uniques.into_iter().filter(|unique| !table.is_covered_by_key(unique)).collect();
    Ok(())
}

fn terms(connection: &Connection, (table, index): (&str, &str), sql: Option<&str>) -> rusqlite::Result<Vec<Term>> {
    let mut statement =
        connection.prepare_cached("SELECT cid, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
    let places: Vec<(i64, Option<String>)> =
        statement.query_map([index], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let texts = sql.map(|sql| indexed_terms(connection, table, sql)).unwrap_or_default();
    let term = |(at, (column, collation)): (usize, (i64, Option<String>))| {
        let collation = collation.unwrap_or_else(|| "BINARY".to_owned());
        match usize::try_from(column) {
            Ok(column) => Term::Column(column, collation),
            Err(_) => Term::Expression(texts.get(at).cloned().unwrap_or_else(|| "NULL".to_owned()), collation),
        }
    };
    Ok(places.into_iter().enumerate().map(term).collect())
}

/// The texts between the commas of a CREATE INDEX statement's list, without ASC and DESC at their ends.
fn indexed_terms(connection: &Connection, table: &str, sql: &str) -> Vec<String> {
    split_list(sql).0.iter().map(|term| bare(connection, table, term)).collect()
}

/// The text behind WHERE, if the index is a partial one.
fn predicate(sql: &str) -> Option<String> {
    let (_, rest) = split_list(sql);
    let (word, predicate) = rest.trim_start().split_at_checked(5)?;
    word.eq_ignore_ascii_case("WHERE").then(|| predicate.trim().to_owned())
}

/// The term without the word that orders it, unless it is the name of a column there: SQLite tells, which takes no order within an
/// expression. Its collation stays: that may belong to a part of it.
fn bare(connection: &Connection, table: &str, term: &str) -> String {
    let term = term.trim();
    if connection.prepare(&format!("SELECT ({term}) FROM {}", quoted(table))).is_ok() {
        return term.to_owned();
    }
    let ordered = ["ASC", "DESC"].iter().find_map(|word| {
        let (start, end) = term.split_at_checked(term.len().checked_sub(word.len())?)?;
        end.eq_ignore_ascii_case(word).then_some(start)
    });
    ordered.unwrap_or(term).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(sql: &str) -> Vec<Table> {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        tables(&connection).unwrap()
    }

    #[test]
    fn a_table_is_described_as_sqlite_sees_it() {
        let tables = describe(
            "CREATE TABLE plain(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT NOT NULL DEFAULT 'x', g AS (b || 1));
             CREATE TABLE keyed(b TEXT NOT NULL, a TEXT COLLATE NOCASE NOT NULL, u UNIQUE, PRIMARY KEY (a, b)) WITHOUT ROWID, STRICT;
             CREATE VIEW v AS SELECT 1 AS one;
             CREATE TRIGGER own AFTER INSERT ON plain BEGIN SELECT 1; END;
             CREATE TRIGGER _rowcast_plain_insert AFTER INSERT ON plain BEGIN SELECT 1; END;"
                .replace("u UNIQUE", "u TEXT UNIQUE")
                .as_str(),
        );
        let [keyed, plain, view] = &tables[..] else { panic!("{tables:?}") };
        assert_eq!((&keyed.key, keyed.without_rowid, keyed.strict), (&vec![1, 0], true, true));
        assert_eq!(keyed.columns[1].collation, "NOCASE");
        assert_eq!(keyed.uniques[0].terms, [Term::Column(2, "BINARY".into())]);
        assert!(plain.has_integer_key() && plain.autoincrement && plain.columns[2].generated);
        assert_eq!(plain.triggers, ["own"]);
        assert_eq!(plain.columns[1].default.as_deref(), Some("'x'"));
        assert_eq!(view.kind, Kind::View);
    }

    /// SQLite makes no rowid of it, and lets NULL in.
    #[test]
    fn an_integer_key_in_descending_order_is_not_the_rowid() {
        let tables = describe(
            "CREATE TABLE down(a INTEGER PRIMARY KEY DESC); CREATE TABLE up(a INTEGER, PRIMARY KEY (a DESC));",
        );
        let [down, up] = &tables[..] else { panic!("{tables:?}") };
        assert!(!down.has_integer_key() && up.has_integer_key());
        assert_eq!(down.refusals(&[]).len(), 1);
    }

    #[test]
    fn expressions_of_an_index_are_found_in_its_text() {
        let tables = describe(
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, \"a,b\" TEXT, c TEXT);
             CREATE UNIQUE INDEX \"i(x\" ON t (lower(\"a,b\" || ' ,'), c COLLATE NOCASE DESC, substr(c, 1, 2) COLLATE RTRIM) WHERE c > ')';",
        );
        assert_eq!(tables[0].uniques[0].predicate.as_deref(), Some("c > ')'"));
        assert_eq!(
            tables[0].uniques[0].terms,
            [
                Term::Expression("lower(\"a,b\" || ' ,')".into(), "BINARY".into()),
                Term::Column(2, "NOCASE".into()),
                Term::Expression("substr(c, 1, 2) COLLATE RTRIM".into(), "RTRIM".into()),
            ]
        );
    }
}
