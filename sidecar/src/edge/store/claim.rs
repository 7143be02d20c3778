//! The right of this process to a database, before there is one: the lock beside it, and the node id under which it speaks
//! while it has no file yet.
//!
//! That id stands in `<database>-rowcast-id` until a database has it: a node that is killed on its way to its first
//! database comes back under the same id, and leaves no member behind that nobody will ever be again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use uuid::Uuid;

use super::error::{Doing as _, DoingFile as _, Error};
use super::identity::{self, Lock};
use super::{state, whole};
use crate::position::NodeId;

/// Holding it means that this process alone replicates the database, or will.
#[derive(Debug)]
pub struct Claim {
    pub(super) lock: Lock,
    database: PathBuf,
    reserved: Option<NodeId>,
}

/// What SQLite keeps beside a database. A file of those without a database is somebody's, too.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

impl Claim {
    /// Takes the lock, and clears away what a process that was killed left beside the database.
    ///
    /// # Errors
    /// When another sidecar runs, or the folder cannot be written.
    pub fn take(database: &Path) -> Result<Self, Error> {
        if database.symlink_metadata().is_ok_and(|found| found.is_symlink()) && !database.exists() {
            let reason = "it is a link that leads nowhere, and what lies beside a database lies beside the file itself";
            let fix = "let the service make the file first, or name the file and not the link";
            return Err(Error::Unusable { path: database.to_owned(), reason: reason.into(), fix: fix.into() });
        }
        let lock = Lock::take(database)?;
        for left in [whole::copy_path(database), whole::arriving_path(database)] {
            clear(&left);
        }
        let reserved = match fs::read_to_string(reserved_path(database)) {
            Ok(text) => text.trim().parse().ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(source).doing_file("read", &reserved_path(database)),
        };
        Ok(Self { lock, database: database.to_owned(), reserved })
    }

    /// The database file.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Whether there is nothing at all where the database belongs.
    pub fn is_vacant(&self) -> bool {
        let names = COMPANIONS.iter().map(|suffix| identity::beside(&self.database, suffix));
        // A link that leads nowhere is something, too.
        std::iter::once(self.database.clone()).chain(names).all(|path| path.symlink_metadata().is_err())
    }

    /// The node id that the database will have: the one from before, or a new one. It is on the disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn node(&mut self) -> Result<NodeId, Error> {
        match self.reserved {
            Some(node) => Ok(node),
            None => self.renew(),
        }
    }

    /// Another one: somebody else speaks under the one from before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn renew(&mut self) -> Result<NodeId, Error> {
        let node = NodeId(Uuid::new_v4());
        let path = reserved_path(&self.database);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            writeln!(file, "{node}")?;
            file.sync_all()
        };
        write().doing_file("write", &path)?;
        self.reserved = Some(node);
        Ok(node)
    }

    /// Gives a database that Rowcast was just installed in the id under which this node has spoken already.
    pub(super) fn name(&self, connection: &Connection) -> Result<(), Error> {
        let Some(node) = self.reserved else { return Ok(()) };
        let used: bool = connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM _rowcast_state WHERE key = 'nonce')
                     OR EXISTS (SELECT 1 FROM _rowcast_positions)",
                [],
                |row| row.get(0),
            )
            .doing("look whether the database is new")?;
        if used { Ok(()) } else { state::set_state(connection, "node_id", &node.to_string()) }
    }

    /// A database has the id now: it is nobody's to take any more.
    pub(super) fn settled(&mut self) -> Result<(), Error> {
        if self.reserved.take().is_none() {
            return Ok(());
        }
        let path = reserved_path(&self.database);
        fs::remove_file(&path).doing_file("remove", &path)
    }
}

fn reserved_path(database: &Path) -> PathBuf {
    identity::beside(database, "-rowcast-id")
}

/// Removes a file of ours and what SQLite may have left beside it.
pub(super) fn clear(path: &Path) {
    remove(path);
    clear_companions(path);
}

/// Removes what SQLite may have left beside a file of ours that nobody has open.
pub(super) fn clear_companions(path: &Path) {
    COMPANIONS.iter().for_each(|suffix| remove(&identity::beside(path, suffix)));
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let name = path.file_name().unwrap_or(OsStr::new("?"));
            tracing::warn!(file = ?name, %error, "a temporary file beside the database cannot be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_database_keeps_its_id_until_a_database_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let node = Claim::take(&database).unwrap().node().unwrap();
        let mut claim = Claim::take(&database).unwrap();
        assert_eq!(claim.node().unwrap(), node);
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE _rowcast_state(key TEXT PRIMARY KEY, value); CREATE TABLE _rowcast_positions(origin)",
            )
            .unwrap();
        claim.name(&connection).unwrap();
        assert_eq!(state::state(&connection, "node_id").unwrap(), Some(node.to_string()));
        claim.settled().unwrap();
        drop(claim);
        assert_ne!(Claim::take(&database).unwrap().node().unwrap(), node, "it is not given out again");
    }

    #[test]
    fn a_database_that_was_started_before_keeps_its_own_id() {
        let folder = tempfile::tempdir().unwrap();
        let mut claim = Claim::take(&folder.path().join("app.db")).unwrap();
        claim.node().unwrap();
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE _rowcast_state(key TEXT PRIMARY KEY, value); CREATE TABLE _rowcast_positions(origin);
                 INSERT INTO _rowcast_state VALUES ('nonce', 'n'), ('node_id', 'own')",
            )
            .unwrap();
        claim.name(&connection).unwrap();
        assert_eq!(state::state(&connection, "node_id").unwrap().as_deref(), Some("own"));
    }

    #[test]
    fn where_anything_lies_is_not_vacant() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let claim = Claim::take(&database).unwrap();
        assert!(claim.is_vacant());
        for name in ["app.db", "app.db-wal", "app.db-shm", "app.db-journal"] {
            let path = folder.path().join(name);
            File::create(&path).unwrap();
            assert!(!claim.is_vacant(), "{name}");
            fs::remove_file(&path).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", &database).unwrap();
        assert!(!claim.is_vacant(), "a link that leads nowhere");
    }
}
