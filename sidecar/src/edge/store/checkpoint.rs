//! Copies the write-ahead log into the database, and says how long the log is.
//!
//! A copy waits for the disk, and keeps nobody from reading or writing meanwhile. So the node has it done by a connection of
//! its own, on a thread of its own: [`Checkpointer`]. It writes nothing else. SQLite syncs the log before each copy, and the
//! database after one that came to the end of the log. The log begins anew with the first write that finds all of it copied and
//! nobody reading from it.

use std::path::Path;

use rusqlite::Connection;

use super::error::{Doing as _, Error};
use super::{Store, open};

const LOOK: &str = "PRAGMA wal_checkpoint(NOOP)";

/// Waits for no reader and no writer.
const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// How long the write-ahead log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Frames in it.
    pub frames: i64,
    /// Those of them that are not in the database yet.
    pub left: i64,
}

/// How much memory and disk the connection that writes may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Pages in memory, in KiB.
    pub cache_kib: i64,
    /// Frames of the log from which on a commit copies it.
    pub log_frames: i64,
    /// Bytes of the log's file that stay when the log begins anew.
    pub log_bytes_kept: i64,
}

/// A connection that copies, and nothing else.
#[derive(Debug)]
pub struct Checkpointer {
    connection: Connection,
}

impl Checkpointer {
    /// Opens a database that is open already once more.
    ///
    /// # Errors
    /// When SQLite cannot open it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { connection: open::for_checkpoints(path)? })
    }

    /// How long the log is.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn log(&self) -> Result<Log, Error> {
        log(&self.connection, LOOK)
    }

    /// Copies what is there now. Waits for nobody, and answers what it could not copy; none where somebody else is copying.
    ///
    /// # Errors
    /// When SQLite or the disk fails.
    pub fn copy_once(&self) -> Result<Option<Log>, Error> {
        extent(&self.connection, COPY)
    }

    /// Copies what is there now. Waits for nobody, and answers what is left: what was written meanwhile, too.
    ///
    /// # Errors
    /// When SQLite or the disk fails.
    pub fn copy(&self) -> Result<Log, Error> {
        self.copy_once()?;
        self.log()
    }
}

impl Store {
    /// How long the write-ahead log is.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn log(&self) -> Result<Log, Error> {
        log(&self.connection, LOOK)
    }

    /// Copies it here and now: it has become too long.
    ///
    /// # Errors
    /// When SQLite or the disk fails.
    pub fn copy_log(&self) -> Result<Log, Error> {
        log(&self.connection, COPY)
    }

    /// Says how much of the database is kept in memory, after how many frames a commit copies the log, and how much of its
    /// file stays when it begins anew.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_bounds(&self, bounds: Bounds) -> Result<(), Error> {
        let set = |name, value: i64| self.connection.pragma_update(None, name, value).doing("set up the connection");
        set("cache_size", -bounds.cache_kib)?;
        set("wal_autocheckpoint", bounds.log_frames)?;
        set("journal_size_limit", bounds.log_bytes_kept)?;
        // What the cache had beyond its new size goes now, not with the next page.
        self.release_memory()
    }

    /// Gives back the memory that holds pages of the database: they are read again when they are needed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn release_memory(&self) -> Result<(), Error> {
        self.connection.release_memory().doing("give back memory")
    }
}

fn log(connection: &Connection, sql: &str) -> Result<Log, Error> {
    Ok(extent(connection, sql)?.unwrap_or(Log { frames: 0, left: 0 }))
}

/// Where somebody else is copying, SQLite answers -1 for both numbers.
fn extent(connection: &Connection, sql: &str) -> Result<Option<Log>, Error> {
    let (frames, copied): (i64, i64) = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?))))
        .doing("copy the write-ahead log into the database")?;
    Ok((0 <= frames).then(|| Log { frames, left: (frames - copied).max(0) }))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    fn path(folder: &TempDir) -> PathBuf {
        folder.path().join("app.db")
    }

    /// A database with a table, who writes it, and who copies its log.
    fn opened() -> (TempDir, Connection, Checkpointer) {
        let folder = tempfile::tempdir().unwrap();
        let writer = open::for_writing(&path(&folder)).unwrap();
        writer.execute_batch("CREATE TABLE t (a)").unwrap();
        let checkpointer = Checkpointer::open(&path(&folder)).unwrap();
        (folder, writer, checkpointer)
    }

    #[test]
    fn the_log_is_copied_beside_a_writer_and_begins_anew_with_the_next_write() {
        let (_folder, writer, checkpointer) = opened();
        writer.execute_batch("INSERT INTO t VALUES (zeroblob(100000))").unwrap();
        let long = log(&writer, LOOK).unwrap();
        assert!(long.left > 20, "{long:?}");
        writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(checkpointer.copy().unwrap(), Log { left: 0, ..long }, "what is committed, and no more");
        writer.execute_batch("COMMIT; INSERT INTO t VALUES (2)").unwrap();
        checkpointer.copy().unwrap();
        writer.execute_batch("INSERT INTO t VALUES (3)").unwrap();
        let anew = log(&writer, LOOK).unwrap();
        assert!(anew.frames < long.frames, "{anew:?}");
    }

    #[test]
    fn a_reader_keeps_what_it_reads_from_being_copied_over_and_nobody_waits_for_it() {
        let (folder, writer, checkpointer) = opened();
        let reader = open::for_reading(&path(&folder)).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let rows = || reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(rows(), 0);
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert!(checkpointer.copy().unwrap().left > 0);
        assert_eq!(rows(), 0);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(checkpointer.copy().unwrap().left, 0);
    }
}
