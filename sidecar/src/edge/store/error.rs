//! Why the database refused, in words for an operator.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// What went wrong at the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("{path}: there is no such database file; create it, or check the path")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be opened, or is not what it should be.
    #[error("{path}: {reason}; {fix}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// Another sidecar holds the lock.
    #[error("{path}: another sidecar is running on this database; there can be one only: stop it first")]
    AlreadyRunning {
        /// The lock file.
        path: PathBuf,
    },
    /// A migration runs.
    #[error(
        "{path}: a migration is running under `rowcast migrate`, or before the start of a sidecar: wait for its end"
    )]
    Migrating {
        /// The lock file.
        path: PathBuf,
    },
    /// A table of the declaration cannot be replicated as it stands in the database.
    #[error("table `{table}`: {reason}; {fix}")]
    Table {
        /// The table.
        table: String,
        /// What is in the way.
        reason: String,
        /// What mends it.
        fix: String,
    },
    /// SQLite said no.
    #[error("cannot {doing}")]
    Sqlite {
        /// What was being done, to be read after "cannot".
        doing: String,
        /// SQLite's own words.
        #[source]
        source: rusqlite::Error,
    },
    /// A file beside the database.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's own words.
        #[source]
        source: std::io::Error,
    },
    /// What is stored does not read back: our own tables were changed by someone else, or damaged.
    #[error("{place} holds something that Rowcast did not write: {reason}")]
    Damaged {
        /// The table and row.
        place: String,
        /// What is wrong there.
        reason: String,
    },
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Somebody else holds the lock: the same again, later.
    TryAgain,
    /// The disk is full or fails: nothing more until it is mended; then the same again.
    MendStorage,
    /// Only the operator can help.
    AskOperator,
}

impl Error {
    /// What helps. Callers ask this; they do not look at texts or sources.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(failure, _), .. } => match failure.code {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Remedy::TryAgain,
                ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::OutOfMemory => {
                    Remedy::MendStorage
                }
                _ => Remedy::AskOperator,
            },
            Self::File { .. } => Remedy::MendStorage,
            _ => Remedy::AskOperator,
        }
    }

    /// The whole chain on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Says what was being done when SQLite said no.
pub(super) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, Error>;

    /// The same, where the words are made only if SQLite said no: on the way of every row they would cost more than it does.
    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error::Sqlite { doing: what.into(), source })
    }

    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Sqlite { doing: what(), source })
    }
}

/// Says what was being done with which file when the system said no.
pub(super) trait DoingFile<T> {
    fn doing_file(self, what: &'static str, path: &std::path::Path) -> Result<T, Error>;
}

impl<T> DoingFile<T> for std::io::Result<T> {
    fn doing_file(self, what: &'static str, path: &std::path::Path) -> Result<T, Error> {
        self.map_err(|source| Error::File { doing: what, path: path.to_owned(), source })
    }
}

pub(super) fn damaged(place: impl Into<String>, reason: impl ToString) -> Error {
    Error::Damaged { place: place.into(), reason: reason.to_string() }
}
