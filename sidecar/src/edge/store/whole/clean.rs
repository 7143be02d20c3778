//! What is taken out of a copy before it leaves the donor, and what stays.
//!
//! Out goes what is the donor's own: its identity and nonce, its phase, what it met and mended, what its operator noted,
//! its judgement of the other members; events that are stored and not applied yet, as parts of a group are; and the rows
//! of tables that are not declared. Their definitions stay, with triggers, views, `user_version` and `application_id`: a
//! service that looks at those finds what its migration has made. The space of what goes is overwritten.
//!
//! A virtual table is emptied through its module. A full-text index over a declared table (`content = …`) stays as it is,
//! since it fits the rows.
//!
//! The journal stays: it names the rows that are ahead of their events. The joiner puts those back, and empties it.

use std::path::Path;

use rowcast_schema::declaration::Declaration;
use rowcast_schema::identifier::quoted;
use rowcast_schema::table::{Kind, Table};
use rowcast_schema::{OWN_PREFIX, event_table, journal};
use rusqlite::Connection;

use super::super::error::{Doing as _, Error};
use super::super::{catalogue, install, open, serve, state, strays};
use super::{MARK, Mark, Refusal, newest_of_each_origin};
use crate::event::EventId;
use crate::limits;
use crate::position::{Sequence, Vector};

/// Cleans the copy at `path`, and leaves the mark in it. Answers up to where it has everything.
pub(super) fn clean(path: &Path, declaration: &Declaration, mark: &Mark) -> Result<Vector, Refusal> {
    let connection = open::for_cleaning(path)?;
    install::begin(&connection)?;
    let vector = clean_all(&connection, declaration, mark)?;
    install::commit(&connection)?;
    let (free, pages): (u64, u64) = connection
        .query_row("SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .doing("look at the size of the copy")?;
    if pages < 2 * free {
        connection.execute_batch("VACUUM").doing("make the copy smaller")?;
    }
    connection.close().map_err(|(_, error)| error).doing("close the copy")?;
    Ok(vector)
}

fn clean_all(connection: &Connection, declaration: &Declaration, mark: &Mark) -> Result<Vector, Refusal> {
    look_at_journal(connection)?;
    for key in ["open_group", "renewal", "migrating"] {
        if state::state(connection, key)?.is_some() {
            return Err(Refusal::Later("this node is in the middle of something".into()));
        }
    }
    let vector = serve::vector(connection)?;
    let tables = catalogue::tables(connection)?;
    let events: Vec<String> = serve::event_tables(connection)?.iter().map(|name| event_table::name(name)).collect();
    for table in tables.iter().filter(|table| table.kind == Kind::Virtual) {
        empty_virtual(connection, table, declaration)?;
    }
    for table in tables.iter().filter(|table| is_private(table, declaration, &events)) {
        empty(connection, &table.name)?;
    }
    for events in events.iter().map(|name| quoted(name)).chain([strays::STRAYS.to_owned()]) {
        forget_beyond(connection, &events, &vector)?;
    }
    forget_own(connection, mark)?;
    Ok(vector)
}

/// Whether few enough changes of the service wait to become events.
pub(super) fn look_at_journal(connection: &Connection) -> Result<(), Refusal> {
    let waiting: i64 = connection
        .query_row("SELECT count(*) FROM _rowcast_journal", [], |row| row.get(0))
        .doing("count the journal")?;
    if limits::WHOLE_JOURNAL_ROWS_MAX < waiting {
        return Err(Refusal::Later("many changes of the service wait to become events".into()));
    }
    Ok(())
}

/// Whether the rows of a table are its node's own.
pub(super) fn is_private(table: &Table, declaration: &Declaration, events: &[String]) -> bool {
    let same = |name: &str| name.eq_ignore_ascii_case(&table.name);
    table.kind == Kind::Table
        && !is_own(&table.name)
        && !declaration.enabled().any(|declared| same(&declared.name))
        && !events.iter().any(|events| same(events))
}

pub(super) fn is_own(name: &str) -> bool {
    name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX))
}

fn empty(connection: &Connection, table: &str) -> Result<(), Error> {
    let doing = || format!("empty table `{table}` in the copy");
    connection.execute(&format!("DELETE FROM {}", quoted(table)), []).doing(doing())?;
    // What SQLite knows of its rows: how many there are, samples of them, the last number it gave out.
    for (kept, column) in [("sqlite_sequence", "name"), ("sqlite_stat1", "tbl"), ("sqlite_stat4", "tbl")] {
        if connection.table_exists(None, kept).doing(doing())? {
            let sql = format!("DELETE FROM {kept} WHERE {column} = ?1 COLLATE NOCASE");
            connection.execute(&sql, [table]).doing(doing())?;
        }
    }
    Ok(())
}

fn empty_virtual(connection: &Connection, table: &Table, declaration: &Declaration) -> Result<(), Refusal> {
    let name = quoted(&table.name);
    let full_text = table.sql.to_ascii_lowercase().contains("using fts");
    let sql = match content_of(&table.sql).filter(|_| full_text) {
        Some(content) if declaration.enabled().any(|table| table.name.eq_ignore_ascii_case(&content)) => return Ok(()),
        Some(_) => format!("INSERT INTO {name}({name}) VALUES ('delete-all')"),
        // What a deleted row said stays in the index until it is merged.
        None if full_text => format!("DELETE FROM {name}; INSERT INTO {name}({name}) VALUES ('rebuild')"),
        None => format!("DELETE FROM {name}"),
    };
    let failed = |error: rusqlite::Error| {
        Refusal::Never(format!("the virtual table {} cannot be emptied in a copy: {error}", table.name))
    };
    connection.execute_batch(&sql).map_err(failed)
}

/// What a full-text table says its content is; the empty text where it keeps none.
fn content_of(sql: &str) -> Option<String> {
    let lower = sql.to_ascii_lowercase();
    let mut from = 0;
    while let Some(at) = lower[from..].find("content").map(|at| from + at) {
        from = at + "content".len();
        let begins = lower[..at].ends_with(|before: char| before == ',' || before == '(' || before.is_whitespace());
        let Some(value) = sql[from..].trim_start().strip_prefix('=').filter(|_| begins) else { continue };
        let value = value.trim_start();
        return Some(match value.chars().next() {
            Some(quote @ ('\'' | '"' | '`')) => value[1..].split(quote).next().unwrap_or_default().to_owned(),
            Some('[') => value[1..].split(']').next().unwrap_or_default().to_owned(),
            _ => value.split([',', ')']).next().unwrap_or_default().trim().to_owned(),
        });
    }
    None
}

/// Events that are stored and not applied yet: whoever tails the feed gets all of their group.
fn forget_beyond(connection: &Connection, events: &str, vector: &Vector) -> Result<(), Refusal> {
    const DOING: &str = "take events out of the copy that are not applied yet";
    for (origin, newest) in newest_of_each_origin(connection, events)? {
        let position = vector.of(origin);
        if newest <= position {
            continue;
        }
        let from = EventId { origin, sequence: position }.to_string();
        let to = EventId { origin, sequence: Sequence::MAX >> 1 }.to_string();
        if events != strays::STRAYS {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {events} WHERE ?1 < id AND id <= ?2 AND processed)");
            if connection.query_row(&sql, [&from, &to], |row| row.get(0)).doing(DOING)? {
                return Err(Refusal::Later("this node is in the middle of something".into()));
            }
        }
        connection.execute(&format!("DELETE FROM {events} WHERE ?1 < id AND id <= ?2"), [&from, &to]).doing(DOING)?;
        connection
            .execute("DELETE FROM _rowcast_parked WHERE ?1 < event AND event <= ?2", [&from, &to])
            .doing(DOING)?;
    }
    Ok(())
}

/// What only this node may say or know.
fn forget_own(connection: &Connection, mark: &Mark) -> Result<(), Error> {
    const DOING: &str = "take out of the copy what is this node's own";
    connection
        .execute_batch(
            // What was proved before the copy is proved in it: copying raises the version of the schema by one.
            "DELETE FROM _rowcast_mended;
             DELETE FROM _rowcast_conflicts;
             UPDATE _rowcast_parked SET dropping = FALSE;
             UPDATE _rowcast_members SET vector = '{}', stamp = 0, lost = '[]',
                 standing = CASE standing WHEN 'expelled' THEN standing ELSE 'member' END;
             UPDATE _rowcast_state SET value = (SELECT CAST(schema_version AS TEXT) FROM pragma_schema_version)
                 WHERE key LIKE 'proved:%' AND value + 1 = (SELECT schema_version FROM pragma_schema_version);
             DELETE FROM _rowcast_state WHERE key LIKE 'proved:%'
                 AND value <> (SELECT CAST(schema_version AS TEXT) FROM pragma_schema_version);
             DELETE FROM _rowcast_state WHERE key NOT IN ('format', 'service') AND key NOT LIKE 'layout:%'
                 AND key NOT LIKE 'reconcile:%' AND key NOT LIKE 'proved:%';",
        )
        .doing(DOING)?;
    connection.execute("DELETE FROM _rowcast_members WHERE node = ?1", [mark.joiner.to_string()]).doing(DOING)?;
    let text = serde_json::to_string(mark).expect("bug: ids have a JSON form");
    state::set_state(connection, MARK, &text)
}

/// The tables of ours that a copy may have.
pub(super) fn is_known(name: &str) -> bool {
    let known = rowcast_schema::bookkeeping::TABLES.into_iter().chain([journal::JOURNAL, strays::STRAYS]);
    known.into_iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_text_table_is_over() {
        for (arguments, content) in [
            ("body", None),
            ("body, content='notes', content_rowid='n'", Some("notes")),
            ("body, content = \"my notes\"", Some("my notes")),
            ("body,content=notes,content_rowid=n", Some("notes")),
            ("body, content=''", Some("")),
            ("body, contentless_delete=1, content=''", Some("")),
            ("body, mycontent UNINDEXED", None),
        ] {
            let sql = format!("CREATE VIRTUAL TABLE found USING fts5({arguments})");
            assert_eq!(content_of(&sql).as_deref(), content, "{sql}");
        }
    }
}
