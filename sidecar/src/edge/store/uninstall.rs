//! Takes Rowcast out of a database again; and checks a table's definition that another node sent.

use std::path::Path;

use rowcast_schema::identifier::quoted;
use rowcast_schema::{OWN_PREFIX, event_table, journal};
use rusqlite::Connection;

use super::error::{Doing as _, Error};
use super::{identity, install, open, serve};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Triggers, by name.
    pub triggers: Vec<String>,
    /// Tables, by name.
    pub tables: Vec<String>,
    /// Whether the file beside the database was there.
    pub identity_file: bool,
}

/// Removes triggers, event tables, bookkeeping and the identity file. The service's own rows stay as they are. What an event
/// table is, its columns tell: a name alone could be the service's.
///
/// # Errors
/// When the file is missing or unusable, or a sidecar runs on it.
pub fn uninstall(path: &Path) -> Result<Removed, Error> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    let identity_path = identity::beside(path, "-rowcast");
    let identity_file = identity_path.exists();
    let _lock = identity::Lock::take(path)?;
    let connection = open::for_writing(path)?;
    install::begin(&connection)?;
    let removed = remove(&connection).and_then(|removed| install::commit(&connection).map(|()| removed));
    if removed.is_err() {
        install::rollback(&connection);
    }
    let removed = removed?;
    std::fs::remove_file(&identity_path).map_err(|source| Error::File {
        doing: "remove",
        path: identity_path,
        source,
    })?;
    // There only if a migration ever ran.
    match std::fs::remove_file(identity::beside(path, "-rowcast-migrate")) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::File { doing: "remove", path: identity::beside(path, "-rowcast-migrate"), source });
        }
        _ => {}
    }
    Ok(Removed { identity_file, ..removed })
}

fn remove(connection: &Connection) -> Result<Removed, Error> {
    let names = |kind: &str| -> Result<Vec<String>, Error> {
        connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = ?1 ORDER BY name")
            .and_then(|mut statement| statement.query_map([kind], |row| row.get(0))?.collect())
            .doing("list what is in the database")
    };
    let own = |name: &str| name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX));
    let with_events = serve::event_tables(connection)?;
    let event_tables: Vec<String> = with_events.iter().map(|table| event_table::name(table)).collect();
    let mut removed = Removed::default();
    for name in names("trigger")?.into_iter().filter(|name| own(name)) {
        connection.execute_batch(&journal::drop_trigger(&name)).doing(format!("drop trigger {name}"))?;
        removed.triggers.push(name);
    }
    for name in names("table")? {
        if own(&name) || event_tables.contains(&name) {
            connection.execute_batch(&format!("DROP TABLE {}", quoted(&name))).doing(format!("drop table {name}"))?;
            removed.tables.push(name);
        }
    }
    Ok(removed)
}
