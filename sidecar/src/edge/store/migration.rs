//! Rowcast out of the way while a migration runs: no trigger that names a column, and no sidecar that makes one.
//!
//! What is taken off is noted in the database, in the same transaction: that the rows must be compared, and that a
//! migration is under way. The file `<database>-rowcast-migrate` is locked for as long as the command runs, and the system
//! lets go of it when the process ends, however it ends. A sidecar that finds the note asks for the lock: while it is held
//! the sidecar leaves the database alone; when it is free the migration has ended or was killed, and the triggers are made
//! again. So nobody has to clean up after a crash.
//!
//! The trigger for deletes stays: it names the key alone, which no migration can drop from a table.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rowcast_schema::declaration::Declaration;
use rowcast_schema::{bookkeeping, journal};
use rusqlite::Connection;

use super::drift::{self, Want};
use super::error::{Doing as _, Error};
use super::replicated::Tables;
use super::{catalogue, identity, install, open, state};

/// Where it is noted that a migration is under way.
const NOTE: &str = "migrating";

/// A sidecar that looks whether the lock is free holds it for a moment.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A migration under way. Dropped without [`Migration::end`], the next sidecar puts back what is missing.
#[derive(Debug)]
pub struct Migration {
    _lock: File,
    database: PathBuf,
}

impl Migration {
    /// Takes Rowcast out of the way. Answers how many triggers were taken off.
    ///
    /// # Errors
    /// When another migration runs, or the database fails.
    pub fn begin(database: &Path) -> Result<(Self, usize), Error> {
        let migration = Self { _lock: take_lock(database)?, database: database.to_owned() };
        if !database.exists() {
            return Ok((migration, 0));
        }
        let connection = open::for_writing(database)?;
        let off = in_transaction(&connection, take_off)?;
        Ok((migration, off))
    }

    /// Puts the triggers back, as they must be now. The rows are compared by the sidecar.
    ///
    /// # Errors
    /// When the database fails. Then the next sidecar does it.
    pub fn end(self, declaration: &Declaration) -> Result<(), Error> {
        if !self.database.exists() {
            return Ok(());
        }
        let connection = open::for_writing(&self.database)?;
        in_transaction(&connection, |connection| {
            if !is_installed(connection)? {
                return Ok(());
            }
            forget(connection)?;
            let tables = Tables::of(connection, declaration, catalogue::tables(connection)?, false)?;
            install::follow(connection, &tables).map(drop)
        })
    }
}

fn lock_file(database: &Path) -> Result<(File, PathBuf), Error> {
    let path = identity::beside(database, "-rowcast-migrate");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    match opened {
        Ok(file) => Ok((file, path)),
        Err(source) => Err(Error::File { doing: "open", path, source }),
    }
}

fn take_lock(database: &Path) -> Result<File, Error> {
    let (file, path) = lock_file(database)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(Error::File { doing: "lock", path, source }),
        }
    }
    Err(Error::Migrating { path })
}

fn in_transaction<R>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<R, Error>) -> Result<R, Error> {
    install::begin(connection)?;
    let done = work(connection).and_then(|done| install::commit(connection).map(|()| done));
    if done.is_err() {
        install::rollback(connection);
    }
    done
}

fn is_installed(connection: &Connection) -> Result<bool, Error> {
    connection.table_exists(None, bookkeeping::STATE).doing("look for Rowcast's tables")
}

fn take_off(connection: &Connection) -> Result<usize, Error> {
    if !is_installed(connection)? {
        return Ok(0);
    }
    let installed: Vec<String> = connection
        .prepare("SELECT substr(key, 8) FROM _rowcast_state WHERE key LIKE 'layout:%'")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .doing("list the replicated tables")?;
    let round = install::schema_version(connection)?;
    for table in &installed {
        drift::note(connection, table, Want { round, calm: true, ..Want::default() })?;
    }
    state::set_state(connection, NOTE, "1")?;
    let mut off = 0;
    for name in install::own_triggers(connection)?.into_keys() {
        if !name.ends_with(journal::DELETE_SUFFIX) {
            connection.execute_batch(&journal::drop_trigger(&name)).doing(format!("drop trigger {name}"))?;
            off += 1;
        }
    }
    Ok(off)
}

fn forget(connection: &Connection) -> Result<(), Error> {
    connection
        .execute("DELETE FROM _rowcast_state WHERE key = ?1", [NOTE])
        .doing("note that the migration has ended")
        .map(drop)
}

/// Whether a migration is under way. One that was killed is over, and its note is forgotten.
pub(super) fn is_running(connection: &Connection, database: &Path) -> Result<bool, Error> {
    if state::state(connection, NOTE)?.is_none() {
        return Ok(false);
    }
    let (file, path) = lock_file(database)?;
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(true),
        Err(TryLockError::Error(source)) => return Err(Error::File { doing: "lock", path, source }),
    }
    Ok(false)
}

/// Whether a migration is under way on a database that nobody has opened yet.
///
/// # Errors
/// When SQLite cannot read it.
pub fn is_under_way(database: &Path) -> Result<bool, Error> {
    if !database.exists() {
        return Ok(false);
    }
    let connection = open::for_reading(database)?;
    Ok(is_installed(&connection)? && is_running(&connection, database)?)
}

/// Refuses to go on while a migration is under way; forgets one that was killed.
pub(super) fn keep_away(connection: &Connection, database: &Path) -> Result<(), Error> {
    if is_running(connection, database)? {
        return Err(Error::Migrating { path: identity::beside(database, "-rowcast-migrate") });
    }
    if state::state(connection, NOTE)?.is_some() {
        tracing::warn!(
            "a migration under `rowcast migrate` did not end in the ordinary way; the triggers are made again"
        );
        forget(connection)?;
    }
    Ok(())
}
