//! How much room there is on the disk of a database.

use std::path::Path;

use rustix::fs::statvfs;

use super::error::Error;

/// The bytes that can be written beside the database.
///
/// # Errors
/// When the system does not tell.
pub fn room(database: &Path) -> Result<u64, Error> {
    let folder = database.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let told = statvfs(folder).map_err(|error| Error::File {
        doing: "look at the disk of",
        path: folder.to_owned(),
        source: error.into(),
    })?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}
