//! The donor's side: one consistent copy of the database, made by SQLite's VACUUM INTO, and cleaned of what is the donor's
//! own before anybody sees it.
//!
//! The copying is one read transaction, of about two seconds a GiB, and never longer than
//! [`limits::WHOLE_COPY_TIME_MAX`]: for so long the write-ahead log grows and cannot be reset. Writers are not held up.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rowcast_schema::declaration::{Declaration, Triggers};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _};
use uuid::Uuid;

use super::super::claim;
use super::super::error::{Doing as _, DoingFile as _, Error};
use super::super::{identity, open, serve, state};
use super::{Mark, Refusal, clean, copy_path, free_bytes};
use crate::limits;
use crate::position::{NodeId, Vector};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The database.
    pub database: PathBuf,
    /// Its declaration.
    pub declaration: Declaration,
    /// For whom.
    pub joiner: NodeId,
    /// The name of the copy.
    pub copy: Uuid,
}

/// A copy, ready to be shipped. Dropped, it is gone from the disk.
#[derive(Debug)]
pub struct Copied {
    file: File,
    path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Up to where it has everything.
    pub vector: Vector,
    /// How long the read transaction was.
    pub took: Duration,
}

impl Copied {
    /// Bytes from a place on; fewer at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, from: u64, length: usize) -> Result<Vec<u8>, Error> {
        let left = usize::try_from(self.bytes.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        self.file.read_exact_at(&mut bytes, from).doing_file("read", &self.path)?;
        Ok(bytes)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        claim::clear(&self.path);
    }
}

/// Makes a copy of the database that another node can begin with. `stopped` is asked now and then whether to give up.
///
/// # Errors
/// When it cannot be made now, cannot be made of this database, or the disk or SQLite refuses.
pub fn copy(wanted: &Wanted, stopped: impl Fn() -> bool + Clone + Send + 'static) -> Result<Copied, Refusal> {
    let path = copy_path(&wanted.database);
    claim::clear(&path);
    let made = make(wanted, &path, stopped);
    if made.is_err() {
        claim::clear(&path);
    }
    made
}

fn make(wanted: &Wanted, path: &Path, stopped: impl Fn() -> bool + Clone + Send + 'static) -> Result<Copied, Refusal> {
    if let Some(table) = wanted.declaration.enabled().find(|table| !table.exclude.is_empty()) {
        let text = format!("table {} has columns that stay on their node", table.name);
        return Err(Refusal::Never(text));
    }
    if let Some(table) = wanted.declaration.enabled().find(|table| table.triggers == Triggers::Run) {
        let text = format!("triggers on table {} fill what only they can fill, row by row", table.name);
        return Err(Refusal::Never(text));
    }
    let mut source = open::for_copying(&wanted.database)?;
    look(&source, wanted)?;
    let declared = |name: &String| wanted.declaration.enabled().any(|table| table.name.eq_ignore_ascii_case(name));
    if let Some(name) = serve::event_tables(&source)?.iter().find(|name| !declared(name)) {
        let text = format!("the events of table {name} are still here, which is not replicated any more");
        return Err(Refusal::Never(text));
    }
    let pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: u64 = source.query_row(pages, [], |row| row.get(0)).doing("look at the size of the database")?;
    if free_bytes(&wanted.database)? < bytes {
        return Err(Refusal::Never("there is no room for a copy on the disk of this node".into()));
    }
    // Nobody else may read what may be kept from others here.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).doing_file("create", path)?;
    let began = Instant::now();
    let told = stopped.clone();
    let over = move || limits::WHOLE_COPY_TIME_MAX < began.elapsed() || told();
    source.progress_handler(20_000, Some(over)).doing("watch over the copying")?;
    let name = path.to_str().ok_or_else(|| Refusal::Never("the path of the database is not UTF-8".into()))?;
    match source.execute("VACUUM INTO ?1", [name]) {
        Ok(_) => {}
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            return Err(Refusal::Never("copying this database takes too long".into()));
        }
        Err(error) => return Err(Error::Sqlite { doing: "copy the database".into(), source: error }.into()),
    }
    let took = began.elapsed();
    drop(source);
    if stopped() {
        return Err(Refusal::Never("this node stops, or nobody waits for the copy".into()));
    }
    // What is in the copy may have been committed a moment ago: it is on the disk here before another node sees it.
    let wal = identity::beside(&wanted.database, "-wal");
    File::open(&wal).and_then(|wal| wal.sync_data()).doing_file("sync", &wal)?;
    let schema = format!("{:016x}", wanted.declaration.hash());
    let mark = Mark { copy: wanted.copy, joiner: wanted.joiner, schema };
    let vector = clean::clean(path, &wanted.declaration, &mark)?;
    let file = File::open(path).doing_file("open", path)?;
    let bytes = file.metadata().doing_file("look at", path)?.len();
    Ok(Copied { file, path: path.to_owned(), bytes, vector, took })
}

/// Whether now is the time for it: what is looked at here is looked at again in the copy, where it matters there.
fn look(source: &Connection, wanted: &Wanted) -> Result<(), Refusal> {
    clean::look_at_journal(source)?;
    for (key, must) in
        [("loaded", true), ("complete", true), ("load_again", false), ("load_target", false), ("migrating", false)]
    {
        if state::state(source, key)?.is_some() != must {
            return Err(Refusal::Later("this node is not settled itself".into()));
        }
    }
    // From before the copy on it keeps what the joiner lacks.
    let member: Option<String> = source
        .query_row("SELECT standing FROM _rowcast_members WHERE node = ?1", [wanted.joiner.to_string()], |row| {
            row.get(0)
        })
        .optional()
        .doing("look for the joiner among the members")?;
    match member.as_deref() {
        Some("member") => Ok(()),
        Some(_) => Err(Refusal::Never("this node holds the one that asks for lost".into())),
        None => Err(Refusal::Later("the node that asks is not among the members here yet".into())),
    }
}
