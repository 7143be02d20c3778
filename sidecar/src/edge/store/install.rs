//! Makes Rowcast's tables and triggers, and keeps them fitting when the service's schema changes.

use std::collections::HashMap;

use rowcast_schema::declaration::{Capture, Declaration};
use rowcast_schema::layout::LayoutId;
use rowcast_schema::{OWN_PREFIX, bookkeeping, event_table, journal};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::drift::Pending;
use super::error::{Doing as _, Error, damaged};
use super::replicated::{Replicated, Tables};
use super::{damage, drift, layouts, state, strays};

pub(super) fn begin(connection: &Connection) -> Result<(), Error> {
    run(connection, "BEGIN IMMEDIATE").doing("begin a transaction")
}

pub(super) fn commit(connection: &Connection) -> Result<(), Error> {
    run(connection, "COMMIT").doing("commit")
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map(drop)
}

pub(super) fn rollback(connection: &Connection) {
    // SQLite rolls back by itself after some errors (disk full, I/O); a second rollback is then an error of its own.
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "rollback failed");
    }
}

pub(super) fn schema_version(connection: &Connection) -> Result<i64, Error> {
    connection
        .prepare_cached("PRAGMA schema_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("read PRAGMA schema_version")
}

/// The format of our own tables. A newer sidecar may migrate an older one; an older one refuses a newer.
const FORMAT: &str = "1";

pub(super) fn bookkeeping(connection: &Connection, declaration: &Declaration) -> Result<(), Error> {
    for sql in bookkeeping::CREATE {
        execute_if_new(connection, sql)?;
    }
    for sql in strays::create() {
        execute_if_new(connection, &sql)?;
    }
    match state::state(connection, "format")?.as_deref() {
        None => {
            state::set_state(connection, "format", FORMAT)?;
            state::set_state(connection, "service", &declaration.service)?;
            state::begin_identity(connection).map(drop)
        }
        Some(FORMAT) => refuse_other_service(connection, declaration),
        Some(other) => Err(damaged(
            bookkeeping::STATE,
            format!("format {other}, and this version of Rowcast knows format {FORMAT}: run the newer version"),
        )),
    }
}

fn refuse_other_service(connection: &Connection, declaration: &Declaration) -> Result<(), Error> {
    let service = state::state(connection, "service")?.unwrap_or_default();
    if service == declaration.service {
        return Ok(());
    }
    Err(damaged(
        bookkeeping::STATE,
        format!(
            "this database was replicated as service `{service}`, the schema file says `{}`: \
             mend the schema file, or run `rowcast uninstall` first",
            declaration.service
        ),
    ))
}

/// `CREATE … IF NOT EXISTS` takes part in no schema change when the thing is there, but asking costs less.
fn execute_if_new(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.execute_batch(sql).doing(format!("run {}", sql.split('(').next().unwrap_or(sql)))
}

/// Makes what is missing and drops what no longer fits. Answers which tables must be reconciled.
pub(super) fn follow(connection: &Connection, tables: &Tables) -> Result<Vec<Pending>, Error> {
    for table in tables.iter() {
        refuse_taken_name(connection, &table.name)?;
        for sql in event_table::create(&table.name) {
            execute_if_new(connection, &sql)?;
        }
    }
    fit_journal(connection, tables.width())?;
    let mut present = own_triggers(connection)?;
    for table in tables.iter() {
        fit_table(connection, table, &mut present)?;
        strays::adopt(connection, &table.name)?;
    }
    for table in installed(connection)?.iter().filter(|table| tables.get(table).is_none()) {
        drift::note_left(connection, table, schema_version(connection)?)?;
    }
    for name in present.into_keys() {
        tracing::info!(trigger = name, "dropped a trigger whose table is no longer captured by triggers");
        connection.execute_batch(&journal::drop_trigger(&name)).doing(format!("drop trigger {name}"))?;
    }
    drift::pending(connection, tables)
}

/// The service may have a table of that name for itself.
fn refuse_taken_name(connection: &Connection, table: &str) -> Result<(), Error> {
    let name = event_table::name(table);
    let columns: Vec<String> = connection
        .prepare_cached("SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid")
        .and_then(|mut statement| statement.query_map([&name], |row| row.get(0))?.collect())
        .doing(format!("describe table `{name}`"))?;
    if columns.is_empty() || columns.iter().map(String::as_str).take(8).eq(event_table::REQUIRED_COLUMNS) {
        return Ok(());
    }
    Err(Error::Table {
        table: table.to_owned(),
        reason: format!("its event table would be called `{name}`, and the service has a table of that name"),
        fix: "rename the service's table".into(),
    })
}

fn fit_journal(connection: &Connection, width: usize) -> Result<(), Error> {
    let columns: usize = connection
        .query_row("SELECT count(*) FROM pragma_table_xinfo(?1)", [journal::JOURNAL], |row| row.get(0))
        .doing("describe the journal")?;
    let statements = match columns.checked_sub(5) {
        None => vec![journal::create(width)],
        Some(present) if present < width => journal::widen(present, width),
        Some(_) => Vec::new(),
    };
    for sql in statements {
        connection.execute_batch(&sql).doing("make the journal")?;
    }
    Ok(())
}

/// A trigger of ours.
#[derive(Debug)]
pub(super) struct Present {
    /// The table that it is on: a table that is renamed takes its triggers along.
    table: String,
    sql: String,
}

/// Our triggers as they are, by their names in lower case, since SQLite takes no notice of case. One that the service's own have
/// come after counts as no trigger, and is made again: SQLite runs the newest first, and after one of theirs that fails in an
/// `OR FAIL` statement ours would not run, though the row stays.
pub(super) fn own_triggers(connection: &Connection) -> Result<HashMap<String, Present>, Error> {
    connection
        .prepare(
            "SELECT lower(name), tbl_name, iif(EXISTS (SELECT 1 FROM sqlite_schema AS later
                 WHERE type = 'trigger' AND later.rowid > ours.rowid AND later.tbl_name = ours.tbl_name COLLATE NOCASE
                 AND substr(later.name, 1, ?1) <> ?2), '', sql)
             FROM sqlite_schema AS ours WHERE type = 'trigger' AND substr(name, 1, ?1) = ?2",
        )
        .and_then(|mut statement| {
            let present = |row: &Row<'_>| Ok((row.get(0)?, Present { table: row.get(1)?, sql: row.get(2)? }));
            statement.query_map((OWN_PREFIX.len(), OWN_PREFIX), present)?.collect()
        })
        .doing("list the triggers")
}

fn layout_key(table: &str) -> String {
    format!("layout:{table}")
}

/// Whether the table was replicated here before.
pub(super) fn is_installed(connection: &Connection, table: &str) -> Result<bool, Error> {
    Ok(state::state(connection, &layout_key(table))?.is_some() || spelled_otherwise(connection, table)?.is_some())
}

/// The tables that are replicated here, or were once.
pub(super) fn installed(connection: &Connection) -> Result<Vec<String>, Error> {
    let key = layout_key("");
    connection
        .prepare_cached("SELECT substr(key, 1 + length(?1)) FROM _rowcast_state WHERE substr(key, 1, length(?1)) = ?1")
        .and_then(|mut statement| statement.query_map([key], |row| row.get(0))?.collect())
        .doing("list the tables that were replicated")
}

/// The key under which the table's layout is kept where the declaration spelled its name otherwise before.
fn spelled_otherwise(connection: &Connection, table: &str) -> Result<Option<String>, Error> {
    connection
        .prepare_cached("SELECT key FROM _rowcast_state WHERE key = ?1 COLLATE NOCASE AND key <> ?1")
        .and_then(|mut statement| statement.query_row([layout_key(table)], |row| row.get(0)).optional())
        .doing("look for what is kept of a table")
}

/// What is kept by the table's name goes on under the name as the declaration spells it now.
fn respell(connection: &Connection, table: &str) -> Result<(), Error> {
    let Some(before) = spelled_otherwise(connection, table)? else { return Ok(()) };
    tracing::info!(table, before, "the schema file spells a table otherwise than before");
    let keys = [layout_key(table), drift::key(table), damage::key(table)];
    let respelled = || -> rusqlite::Result<()> {
        for key in keys {
            let sql = "UPDATE OR REPLACE _rowcast_state SET key = ?1 WHERE key = ?1 COLLATE NOCASE AND key <> ?1";
            connection.execute(sql, [key])?;
        }
        let sql = "UPDATE _rowcast_parked SET table_name = ?1 WHERE table_name = ?1 COLLATE NOCASE";
        connection.execute(sql, [table]).map(drop)
    };
    respelled().doing(format!("take over what is kept of `{table}`"))
}

/// Makes the triggers of one table what they should be. Where they were not, its rows must be reconciled.
fn fit_table(connection: &Connection, table: &Replicated, present: &mut HashMap<String, Present>) -> Result<(), Error> {
    let Some(shape) = &table.shape else { return Ok(()) };
    let layout = &shape.layout;
    let key = layout_key(&table.name);
    if state::state(connection, &key)?.is_none() {
        respell(connection, &table.name)?;
    }
    let before = match state::state(connection, &key)? {
        Some(id) => state::layout(connection, LayoutId(super::parse(bookkeeping::STATE, &id)?))?,
        None => None,
    };
    let mut fitted = before.as_ref().is_some_and(|before| before.id == layout.id);
    let mut rebuilt = before.is_some() && table.declared.capture == Capture::Triggers;
    if table.declared.capture == Capture::Triggers {
        for trigger in journal::triggers(&shape.table, layout) {
            // One that went with a table that was renamed is none of the table that has the name now.
            let found = present.remove(&trigger.name.to_ascii_lowercase());
            let found = found.filter(|found| found.table.eq_ignore_ascii_case(&table.name));
            rebuilt &= found.is_none();
            if found.is_some_and(|found| found.sql == trigger.sql) {
                continue;
            }
            fitted = false;
            connection
                .execute_batch(&format!("{};\n{}", journal::drop_trigger(&trigger.name), trigger.sql))
                .doing(format!("make trigger {}", trigger.name))?;
        }
    }
    if fitted {
        return Ok(());
    }
    state::save_layout(connection, layout)?;
    layouts::note_here(connection, layout.id)?;
    state::set_state(connection, &key, &layout.id.0.to_string())?;
    let want = drift::between(before.as_ref(), layout, schema_version(connection)?, rebuilt);
    drift::note(connection, &table.name, want)
}
