//! A secret that was read from a file, and never shows itself.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The most bytes of a secret file: a `.creds` file has two or three thousand.
const FILE_MAX: u64 = 64 * 1024;

/// The text of a secret file, without the line end that editors leave. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Reads the file, each time anew: a secret may be renewed while the sidecar runs.
    ///
    /// # Errors
    /// The file cannot be read, is empty, too long, or not text. The error names the file and never its content.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { file: file.to_owned(), source };
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
            return Err(Error::Unfit { file: file.to_owned(), why: "is too long for a secret" });
        }
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(Error::Unfit { file: file.to_owned(), why: "is not text" });
        };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err(Error::Unfit { file: file.to_owned(), why: "is empty" });
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read the secret file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is there, but cannot be a secret.
    #[error("the secret file {} {why}", file.display())]
    Unfit {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
}

/// Whether everybody on this machine may read the file. False where there are no such permissions.
pub(super) fn is_open_to_all(file: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_loses_its_line_end_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2 \r\n").unwrap();
        let secret = Secret::read(&file).unwrap();
        assert_eq!(secret.reveal(), "hunter2 ");
        assert_eq!(format!("{secret:?}"), "Secret(not shown)");
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let error_of = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            Secret::read(&file).unwrap_err().to_string()
        };
        assert!(error_of(b"\n").ends_with("is empty"));
        assert!(error_of(b"hunter2\xff").ends_with("is not text"));
        assert!(error_of(&[b'a'; 70_000]).ends_with("is too long for a secret"));
        assert!(Secret::read(&folder.path().join("none")).unwrap_err().to_string().starts_with("failed to read"));
    }
}
