//! How much room there is on the disk of a database.

use std::path::Path;

use rustix::fs::statvfs;

use super::error::{DoingFile as _, Error};
use super::identity::folder_of;

/// The bytes that can be written beside the database.
///
/// # Errors
/// When the system does not tell.
pub fn room(database: &Path) -> Result<u64, Error> {
    let folder = folder_of(database);
    let told = statvfs(folder).map_err(Into::into).doing_file("look at the disk of", folder)?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}
