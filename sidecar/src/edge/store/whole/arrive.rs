//! The joiner's side: what arrives is written beside the place of the database, checked, made this node's own, and put in
//! place where nothing is.
//!
//! Until the last step there is no database, and after it there is a right one: a process that is killed on the way leaves
//! a file that the next start removes.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rowcast_schema::bookkeeping;
use rowcast_schema::declaration::Declaration;
use rowcast_schema::event_table;
use rowcast_schema::identifier::quoted;
use rowcast_schema::table::Kind;
use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use uuid::Uuid;

use super::super::claim::{self, Claim};
use super::super::error::{Doing as _, DoingFile as _, Error, damaged};
use super::super::{Store, catalogue, identity, install, open, serve, state, strays};
use super::{MARK, Mark, Refusal, arriving_path, clean, free_bytes, newest_of_each_origin};
use crate::clock::{self, Timestamp};
use crate::limits;
use crate::position::NodeId;

/// What the file must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The copy that was asked for.
    pub copy: Uuid,
    /// This node.
    pub joiner: NodeId,
    /// Its declaration.
    pub declaration: &'a Declaration,
}

/// A database on its way. Dropped before it is in place, it is gone from the disk.
#[derive(Debug)]
pub struct Arriving {
    file: File,
    path: PathBuf,
}

/// What became of a file that was to be put in place.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is the database now.
    Done,
    /// Another file has come there meanwhile, and stays.
    Taken,
}

impl Arriving {
    /// Makes room for a database of so many bytes, beside the place where it belongs.
    ///
    /// # Errors
    /// When the disk has not that much room, or refuses.
    pub fn begin(database: &Path, bytes: u64) -> Result<Self, Refusal> {
        // Once more for what the node does with it first.
        let needed = bytes.saturating_add(bytes / 8);
        let free = free_bytes(database)?;
        if free < needed {
            return Err(Refusal::Never(format!(
                "a database of {bytes} bytes was offered, and the disk has room for {free}"
            )));
        }
        let path = arriving_path(database);
        claim::clear(&path);
        // As SQLite makes a database.
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&path);
        let file = file.doing_file("create", &path)?;
        let arriving = Self { file, path };
        arriving.file.set_len(bytes).doing_file("make room for", &arriving.path)?;
        Ok(arriving)
    }

    /// Writes a part at its place. May be called from several threads.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, from: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, from).doing_file("write", &self.path)
    }

    /// Puts what was written so far onto the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().doing_file("sync", &self.path)
    }

    /// Checks the file, and makes it this node's own: its id, its members, its clock.
    ///
    /// # Errors
    /// When it is damaged, has what it must not have, or is not what was asked for.
    pub fn admit(&self, expected: &Expected<'_>, members: &[(NodeId, String)], now: Timestamp) -> Result<(), Refusal> {
        let connection = open::for_admitting(&self.path)?;
        inspect(&connection, expected, now)?;
        install::begin(&connection)?;
        adopt(&connection, expected.joiner, members, now)?;
        install::commit(&connection)?;
        connection.close().map_err(|(_, error)| error).doing("close the copy")?;
        Ok(())
    }

    /// Opens the file as the node's database, where it lies.
    ///
    /// # Errors
    /// When a table of it cannot be replicated, or SQLite refuses.
    pub fn open(&self, claim: Claim, declaration: Declaration) -> Result<Store, Error> {
        Store::open_at(&self.path, claim, declaration, false)
    }

    /// Puts the file in the place of the database, if nothing is there. It is on the disk when this returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_in_place(self, claim: &Claim) -> Result<Placed, Error> {
        let database = claim.database();
        self.file.sync_all().doing_file("sync", &self.path)?;
        if !claim.is_vacant() || !rename(&self.path, database)? {
            return Ok(Placed::Taken);
        }
        let folder = identity::folder_of(database);
        File::open(folder).and_then(|folder| folder.sync_all()).doing_file("sync", folder)?;
        Ok(Placed::Done)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        claim::clear(&self.path);
    }
}

/// Renames, and never over anything. Answers whether it did.
pub(super) fn rename(from: &Path, to: &Path) -> Result<bool, Error> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        // A file system that does not know how: a second name for the file, and then the first one goes.
        Err(_) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from).map(|()| true).doing_file("remove", from),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(source).doing_file("put in place", from),
        },
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Never(reason.into()))
}

/// Whether the file is a copy as a donor makes it, of a database of this service.
fn inspect(connection: &Connection, expected: &Expected<'_>, now: Timestamp) -> Result<(), Refusal> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .doing("check the database that another node handed over")?;
    if found != "ok" {
        return refuse(format!("the database that was handed over is damaged: {found}"));
    }
    let tables = catalogue::tables(connection)?;
    if !tables.iter().any(|table| table.name == bookkeeping::STATE) {
        return refuse("the database that was handed over is not one of Rowcast");
    }
    inspect_state(connection, expected)?;
    for table in tables.iter().filter(|table| clean::is_own(&table.name)) {
        if table.kind != Kind::Table || !clean::is_known(&table.name) {
            return refuse(format!("it has the table {}, which this version of Rowcast does not know", table.name));
        }
    }
    for declared in expected.declaration.enabled() {
        if !tables.iter().any(|table| table.name.eq_ignore_ascii_case(&declared.name)) {
            return refuse(format!("the declared table {} is not in it", declared.name));
        }
    }
    let events: Vec<String> = serve::event_tables(connection)?.iter().map(|name| event_table::name(name)).collect();
    for table in tables.iter().filter(|table| clean::is_private(table, expected.declaration, &events)) {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", quoted(&table.name));
        let filled: bool = connection.query_row(&sql, [], |row| row.get(0)).doing("look into the copy")?;
        if filled {
            return refuse(format!("it has rows of the table {}, which is not declared", table.name));
        }
    }
    inspect_positions(connection, expected, &events, now)
}

fn inspect_state(connection: &Connection, expected: &Expected<'_>) -> Result<(), Refusal> {
    let Some(text) = state::state(connection, MARK)? else { return refuse("it is no copy made for another node") };
    let mark: Mark = serde_json::from_str(&text).map_err(|error| damaged(bookkeeping::STATE, error))?;
    let schema = format!("{:016x}", expected.declaration.hash());
    if mark.schema != schema {
        return refuse("it was made under another schema TOML");
    }
    if mark.copy != expected.copy || mark.joiner != expected.joiner {
        return refuse("it is another copy than the one that was asked for");
    }
    if state::state(connection, "service")?.as_ref() != Some(&expected.declaration.service) {
        return refuse("it belongs to another service");
    }
    let foreign: Option<String> = connection
        .query_row(
            "SELECT min(key) FROM _rowcast_state WHERE key NOT IN ('format', 'service', ?1) AND key NOT LIKE 'layout:%'
             AND key NOT LIKE 'reconcile:%' AND key NOT LIKE 'proved:%'",
            [MARK],
            |row| row.get(0),
        )
        .doing("look into the copy")?;
    match foreign {
        Some(key) => refuse(format!("it holds what is its donor's own: {key}")),
        None => Ok(()),
    }
}

fn inspect_positions(
    connection: &Connection,
    expected: &Expected<'_>,
    events: &[String],
    now: Timestamp,
) -> Result<(), Refusal> {
    const DOING: &str = "look into the copy";
    let vector = serve::vector(connection)?;
    let joiner = expected.joiner.to_string();
    let known: bool = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM _rowcast_positions WHERE origin = ?1)
                 OR EXISTS (SELECT 1 FROM _rowcast_members WHERE node = ?1)",
            [&joiner],
            |row| row.get(0),
        )
        .doing(DOING)?;
    if known {
        return refuse("it knows this node already");
    }
    for events in events.iter().map(|name| quoted(name)).chain([strays::STRAYS.to_owned()]) {
        let beyond = |(origin, newest): &(NodeId, u64)| vector.of(*origin) < *newest;
        if newest_of_each_origin(connection, &events)?.iter().any(beyond) {
            return refuse("it has events beyond its own positions");
        }
    }
    let latest: Option<i64> =
        connection.query_row("SELECT max(timestamp) FROM _rowcast_positions", [], |row| row.get(0)).doing(DOING)?;
    if latest.is_some_and(|latest| clock::is_doubtful(Timestamp(latest), now, limits::DRIFT_MAX)) {
        return refuse("its clock lies too far ahead of the clock here");
    }
    let waiting: i64 =
        connection.query_row("SELECT count(*) FROM _rowcast_journal", [], |row| row.get(0)).doing(DOING)?;
    if limits::WHOLE_JOURNAL_ROWS_MAX < waiting {
        return refuse("too many changes wait in its journal");
    }
    Ok(())
}

/// Makes it this node's: a new node that has everything up to the positions, and nothing of its own.
fn adopt(connection: &Connection, joiner: NodeId, members: &[(NodeId, String)], now: Timestamp) -> Result<(), Error> {
    const DOING: &str = "make the copy this node's own";
    state::set_state(connection, "node_id", &joiner.to_string())?;
    connection.execute("DELETE FROM _rowcast_state WHERE key = ?1", [MARK]).doing(DOING)?;
    // Its clock goes on where the donor's was: later than everything that is here.
    connection
        .execute(
            "INSERT INTO _rowcast_positions (origin, position, horizon, timestamp)
             SELECT ?1, 0, 0, coalesce(max(timestamp), 0) FROM _rowcast_positions",
            [joiner.to_string()],
        )
        .doing(DOING)?;
    let mut seen = BTreeSet::from([joiner]);
    for (node, name) in members {
        if !seen.insert(*node) {
            continue;
        }
        // Whom it has heard it keeps for, as it has said.
        connection
            .execute(
                "INSERT INTO _rowcast_members (node, name, heard_at, vector, stamp, lost, standing)
                 VALUES (?1, ?2, ?3, '{}', 0, '[]', 'member') ON CONFLICT (node) DO NOTHING",
                (node.to_string(), name, now.millis()),
            )
            .doing(DOING)?;
    }
    Ok(())
}

impl Store {
    /// Ends the work on a database that is not in its place yet: from here on it counts as loaded, and nobody has it open.
    ///
    /// # Errors
    /// When SQLite or the disk refuses.
    pub fn finish(mut self) -> Result<Claim, Error> {
        self.write(|tx| tx.set_loaded())?;
        let Self { connection, claim, path, wal, .. } = self;
        drop(wal);
        connection.close().map_err(|(_, error)| error).doing("close the copy")?;
        let wal = identity::beside(&path, "-wal");
        match fs::metadata(&wal) {
            Ok(left) if left.len() > 0 => Err(damaged(wal.display().to_string(), "its pages are not in the database")),
            _ => {
                claim::clear_companions(&path);
                Ok(claim)
            }
        }
    }
}
