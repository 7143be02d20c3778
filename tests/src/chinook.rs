//! Where Chinook is, the database of a music shop that many people know. It does not come with the checkout.

use std::path::PathBuf;

/// The file, where it is there: `ROWCAST_CHINOOK` names it.
///
/// # Panics
/// When it names one that is not there.
pub fn file() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os("ROWCAST_CHINOOK")?);
    assert!(file.exists(), "ROWCAST_CHINOOK names {}, which is not there", file.display());
    Some(file)
}
