//! Opens the database: the pragmas are set here, and every way in which a file can be unusable gets its own words.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::{Doing as _, Error};
use super::identity::folder_of;
use crate::limits;

/// The writer: created if it does not exist, in WAL mode, with triggers off so that nothing we apply echoes.
pub(super) fn for_writing(path: &Path) -> Result<Connection, Error> {
    refuse_network_file_system(path)?;
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    look(&connection, path)?;
    refuse_read_only(&connection, path)?;
    switch_to_wal(&connection, path)?;
    let settings = || -> rusqlite::Result<()> {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        // The source held its foreign keys; here rows come in the order of causes, parked ones later.
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.pragma_update(None, "recursive_triggers", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "cache_size", -limits::CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", limits::WAL_FRAMES_USUAL)?;
        connection.pragma_update(None, "journal_size_limit", limits::WAL_BYTES_KEPT)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        Ok(())
    };
    settings().doing("set up the connection")?;
    connection.set_prepared_statement_cache_capacity(limits::STATEMENTS_MAX);
    Ok(connection)
}

/// A reader of an existing database. It can change nothing.
pub(super) fn for_reading(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    look(&connection, path)?;
    refuse_read_only(&connection, path)?;
    connection.pragma_update(None, "query_only", true).doing("set up the connection")?;
    // As for the one that writes: else a foreign key that leads to what is not UNIQUE keeps a statement from being prepared.
    connection.pragma_update(None, "foreign_keys", false).doing("set up the connection")?;
    connection.set_prepared_statement_cache_capacity(limits::STATEMENTS_MAX);
    Ok(connection)
}

/// A connection that copies the write-ahead log into the database, and nothing else.
pub(super) fn for_checkpoints(path: &Path) -> Result<Connection, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "synchronous", "NORMAL").doing("set up the connection")?;
    // The first read opens the log: without it there is nothing to copy.
    look(&connection, path)?;
    Ok(connection)
}

/// A reader of the database that may write another file: the copy that it makes of it.
pub(super) fn for_copying(path: &Path) -> Result<Connection, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    look(&connection, path)?;
    // The copy can be made again.
    connection.pragma_update(None, "synchronous", "OFF").doing("set up the connection")?;
    Ok(connection)
}

/// A copy that nobody else has open, and that is thrown away when anything goes wrong.
pub(super) fn for_cleaning(path: &Path) -> Result<Connection, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let settings = || -> rusqlite::Result<()> {
        connection.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        // What goes is overwritten.
        connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        Ok(())
    };
    settings().doing("set up the connection")?;
    Ok(connection)
}

/// The same, of a file that another node sent: SQLite's own advice for files that are not trusted.
pub(super) fn for_admitting(path: &Path) -> Result<Connection, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let settings = || -> rusqlite::Result<()> {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "foreign_keys", false)?;
        Ok(())
    };
    settings().doing("set up the connection")?;
    look(&connection, path)?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    #[expect(clippy::disallowed_methods, reason = "this is the one door through which the database is opened")]
    let mut connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| opening(path, error))?;
    connection.busy_handler(Some(wait_for_lock)).doing("set up the connection")?;
    // With it the plan does not depend on the bound values. Without it SQLite, which is built with STAT4 here, prepares a
    // cached statement again for each new value: a fifth of the time of a busy node.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).doing("set up the connection")?;
    // mmap would show pages that another process is changing; SQLite's own advice for files it shares.
    connection.pragma_update(None, "mmap_size", 0).map_err(|error| opening(path, error))?;
    Ok(connection)
}

/// SQLite's own handler sleeps up to 100 ms at a time: too long to win against a busy service.
pub(super) fn wait_for_lock(tries: i32) -> bool {
    let pause = Duration::from_micros(100 + 50 * u64::try_from(tries.min(18)).unwrap_or(0));
    std::thread::sleep(pause);
    // The pauses add up to about a millisecond each from the twentieth on.
    u128::try_from(tries).is_ok_and(|tries| tries < limits::BUSY_TIMEOUT.as_millis())
}

/// The first read: finds out whether the file is a database at all.
fn look(connection: &Connection, path: &Path) -> Result<(), Error> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(|error| opening(path, error))
}

/// Where a database cannot be written, a sidecar cannot work, and even a reader in WAL mode needs its `-shm`.
fn refuse_read_only(connection: &Connection, path: &Path) -> Result<(), Error> {
    if connection.is_readonly("main").doing("look at the database")? {
        return Err(unusable(
            path,
            "the database file is read-only",
            "give the sidecar's user write access to it and its folder",
        ));
    }
    Ok(())
}

fn switch_to_wal(connection: &Connection, path: &Path) -> Result<bool, Error> {
    let before: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(|error| opening(path, error))?;
    if before.eq_ignore_ascii_case("wal") {
        return Ok(false);
    }
    let after: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(|error| opening(path, error))?;
    if after.eq_ignore_ascii_case("wal") {
        return Ok(true);
    }
    Err(unusable(
        path,
        &format!("it is in journal mode {after} and could not be switched to WAL"),
        "stop the service for a moment, or let it run PRAGMA journal_mode = wal",
    ))
}

/// Switches an existing database to WAL mode, which Rowcast needs. Answers whether it had to.
///
/// # Errors
/// When the file is missing, is no database, or is in use in another mode.
pub fn ensure_wal(path: &Path) -> Result<bool, Error> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    refuse_network_file_system(path)?;
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    look(&connection, path)?;
    switch_to_wal(&connection, path)
}

fn opening(path: &Path, error: rusqlite::Error) -> Error {
    let code = error.sqlite_error_code();
    let parent_missing = path.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
    match code {
        _ if parent_missing => {
            unusable(path, "the folder of the database file does not exist", "create it, or check the path")
        }
        Some(ErrorCode::NotADatabase) => {
            unusable(path, "the file is not a SQLite database, or it is encrypted", "check the path")
        }
        Some(ErrorCode::DatabaseCorrupt) => unusable(
            path,
            "the database file is damaged",
            "run PRAGMA integrity_check, and restore it or let it start empty to fetch everything from the others",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => unusable(
            path,
            "the database is locked by another process",
            "a service that uses PRAGMA locking_mode = EXCLUSIVE, or holds a transaction open, cannot be replicated",
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => unusable(
            path,
            "the database file is read-only",
            "give the sidecar's user write access to it and its folder",
        ),
        Some(ErrorCode::CannotOpen) if path.is_dir() => unusable(path, "it is a folder", "name the database file"),
        Some(ErrorCode::CannotOpen) => {
            unusable(path, "the file cannot be opened", "give the sidecar's user access to it and its folder")
        }
        _ => Error::Sqlite { doing: format!("open {}", path.display()), source: error },
    }
}

fn unusable(path: &Path, reason: &str, fix: &str) -> Error {
    Error::Unusable { path: path.to_owned(), reason: reason.to_owned(), fix: fix.to_owned() }
}

/// File systems on which SQLite's locks, and with them WAL, do not work between machines.
const NETWORK_FILE_SYSTEMS: [&str; 10] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"];

fn refuse_network_file_system(path: &Path) -> Result<(), Error> {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    let folder = folder_of(path);
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    match file_system_of(&folder, &mounts) {
        Some(kind) if NETWORK_FILE_SYSTEMS.contains(&kind) => Err(unusable(
            path,
            &format!("it lies on a network file system ({kind}), where SQLite's locks do not hold"),
            "put the database on a local disk",
        )),
        _ => Ok(()),
    }
}

/// The type of the file system that holds `folder`, from the text of mountinfo (proc(5)).
fn file_system_of<'a>(folder: &Path, mountinfo: &'a str) -> Option<&'a str> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        Some((mount.split(' ').nth(4)?, rest.split(' ').next()?))
    });
    mounts.filter(|(at, _)| folder.starts_with(at)).max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /srv/data rw shared:1 - nfs4 host:/x rw\n";
        assert_eq!(file_system_of(Path::new("/srv/data/app"), mounts), Some("nfs4"));
        assert_eq!(file_system_of(Path::new("/srv/database"), mounts), Some("ext4"));
    }

    #[test]
    fn each_unusable_file_gets_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let text = |path: &Path| {
            let error = for_writing(path).err().unwrap().chain();
            error.replace(&folder.path().display().to_string(), "DIR")
        };
        insta::assert_snapshot!(
            [
                text(&file("text.db", &b"this is not a database, whatever its name says ".repeat(50))),
                text(&folder.path().join("none/app.db")),
                text(folder.path()),
            ]
            .join("\n")
        );
        let missing = for_reading(&folder.path().join("app.db")).err().unwrap();
        assert!(matches!(missing, Error::Missing { .. }));
    }
}
