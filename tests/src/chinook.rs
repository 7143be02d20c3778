//! Where Chinook is, the database of a music shop that many people know. It does not come with the checkout.

use std::path::PathBuf;

use crate::binary;

/// The file, where it is there: `ROWCAST_CHINOOK` names it.
///
/// # Panics
/// When it names one that is not there.
pub fn file() -> Option<PathBuf> {
    let named = std::env::var_os("ROWCAST_CHINOOK").map(PathBuf::from);
    if let Some(file) = &named {
        assert!(file.exists(), "ROWCAST_CHINOOK names {}, which is not there", file.display());
    }
    let file = named.unwrap_or_else(|| binary::root().join("../shared/data/chinook.sqlite"));
    file.exists().then_some(file)
}
