//! Definitions that came from another node: what is looked at before a statement of somebody else is run here.

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::error::Error;

/// Whether the statements make `table` and indexes of it, and nothing else. They are run in an empty database in memory,
/// where nothing can be read; then it is looked at what is there.
///
/// # Errors
/// When they do not: with what is wrong.
pub(super) fn check(table: &str, statements: &[String]) -> Result<(), Error> {
    refusal(table, statements).map_err(|reason| Error::Table {
        table: table.to_owned(),
        reason: format!("another node's definition of it was refused: {reason}"),
        fix: "let the service's own migration make the table (`--before`)".into(),
    })
}

fn refusal(table: &str, statements: &[String]) -> Result<(), String> {
    let failed = |error: rusqlite::Error| error.to_string();
    let mut scratch = Connection::open_in_memory().map_err(failed)?;
    // `CREATE TABLE … AS SELECT` would run a query of somebody else's.
    let no_queries = |context: AuthContext<'_>| match context.action {
        AuthAction::Select => Authorization::Deny,
        _ => Authorization::Allow,
    };
    scratch.authorizer(Some(no_queries)).map_err(failed)?;
    for sql in statements {
        let upper = sql.trim_start().to_ascii_uppercase();
        let allowed = ["CREATE TABLE", "CREATE INDEX", "CREATE UNIQUE INDEX"];
        if !allowed.iter().any(|start| upper.starts_with(start)) {
            return Err("it does not begin with CREATE TABLE or CREATE INDEX".to_owned());
        }
        // Refuses a second statement behind the first, too.
        scratch.execute(sql, []).map_err(failed)?;
    }
    scratch.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(failed)?;
    let mut statement = scratch
        .prepare("SELECT type, name, tbl_name FROM main.sqlite_schema WHERE name <> 'sqlite_sequence'")
        .map_err(failed)?;
    let mut made = statement.query([]).map_err(failed)?;
    let mut tables = 0;
    while let Some(row) = made.next().map_err(failed)? {
        let [kind, name, of] = [0, 1, 2].map(|at| row.get::<_, String>(at).unwrap_or_default());
        if !of.eq_ignore_ascii_case(table) || (kind != "table" && kind != "index") {
            return Err(format!("it makes `{name}`"));
        }
        tables += usize::from(kind == "table");
    }
    if tables == 1 { Ok(()) } else { Err("it does not make the table".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::check;

    fn checked(statements: &[&str]) -> Result<(), String> {
        let statements: Vec<String> = statements.iter().map(|&sql| sql.to_owned()).collect();
        check("t", &statements).map_err(|error| error.to_string())
    }

    #[test]
    fn a_definition_makes_its_table_and_the_tables_indexes() {
        let table =
            "CREATE TABLE T(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE CHECK(length(b) < 9) DEFAULT (1 + 1))";
        checked(&[table]).unwrap();
        checked(&[table, "CREATE UNIQUE INDEX i ON t(lower(b)) WHERE b IS NOT NULL", "create index j on t(b desc)"])
            .unwrap();
    }

    #[test]
    fn and_nothing_else() {
        const TABLE: &str = "CREATE TABLE t(a)";
        for statements in [
            &["DROP TABLE t"][..],
            &["CREATE TABLE u(a)"],
            &["CREATE TABLE t"],
            &["CREATE TABLE temp.t(a)", "CREATE INDEX i ON t(a)"],
            &["CREATE TABLE t(a); DROP TABLE u"],
            &["CREATE TABLE t(a); DROP TABLE IF EXISTS u"],
            &["CREATE TABLE t AS\nSELECT 1"],
            &["CREATE TABLE t AS WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a FROM n) SELECT a FROM n"],
            &["CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END"],
            &["CREATE INDEX i ON t(a)"],
            &[TABLE, "CREATE TABLE u(a)"],
            &[TABLE, "CREATE INDEX i ON t(a); DROP TABLE u"],
            &[TABLE, "CREATE INDEX i ON t(a); DROP TABLE IF EXISTS u"],
            &[TABLE, "CREATE INDEX i ON t(a); DELETE FROM t"],
            &[TABLE, "CREATE INDEX i ON u(a)"],
            &[TABLE, "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END"],
        ] {
            assert!(checked(statements).is_err(), "{statements:?}");
        }
    }
}
