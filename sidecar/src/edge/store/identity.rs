//! The file `<database>-rowcast`: one sidecar per database, and proof that the database is the one it was.
//!
//! The file is locked for as long as the sidecar runs. It holds a nonce that also stands in the database and is renewed
//! at each start. A database that was copied or restored does not match it, and must not speak under its old id: its
//! sequence numbers would be given out twice.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::Error;

/// Holding it means that this process alone replicates the database.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// The path of a file beside the database: where SQLite has its own, beside the file itself and not beside a link to it.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let is_link = database.symlink_metadata().is_ok_and(|found| found.is_symlink());
    // One that leads nowhere has nothing beside it.
    let file = is_link.then(|| database.canonicalize().ok()).flatten();
    let mut name = OsString::from(file.as_deref().unwrap_or(database));
    name.push(suffix);
    PathBuf::from(name)
}

/// The folder that a file is in.
pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Lock {
    pub(super) fn take(database: &Path) -> Result<Self, Error> {
        let path = beside(database, "-rowcast");
        let failed = |source: std::io::Error| match source.kind() {
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Error::Unusable {
                path: database.to_owned(),
                reason: format!("its folder is read-only: `{}` cannot be opened", path.display()),
                fix: "give the sidecar's user write access to the database and its folder".into(),
            },
            _ => Error::File { doing: "open", path: path.clone(), source },
        };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(Error::AlreadyRunning { path }),
            Err(TryLockError::Error(source)) => Err(Error::File { doing: "lock", path, source }),
        }
    }

    /// The nonce in the file, if there is one.
    pub(super) fn nonce(&mut self) -> Result<Option<Uuid>, Error> {
        let failed = |source| Error::File { doing: "read", path: self.path.clone(), source };
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        (&self.file).take(64).read_to_string(&mut text).map_err(failed)?;
        Ok(Uuid::try_parse(text.trim()).ok())
    }

    /// Puts a nonce into the file, and onto the disk.
    pub(super) fn set_nonce(&mut self, nonce: Uuid) -> Result<(), Error> {
        let failed = |source| Error::File { doing: "write", path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        // The same length each time: no moment at which the file is empty.
        self.file.write_all(format!("{}\n", nonce.hyphenated()).as_bytes()).map_err(failed)?;
        self.file.sync_data().map_err(failed)
    }
}
