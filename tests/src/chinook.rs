//! Where Chinook is, the database of a music shop that many people know. It does not come with the checkout.

use std::path::PathBuf;

use crate::binary;

/// The file, where it is there: `ROWCAST_CHINOOK` names it.
pub fn file() -> Option<PathBuf> {
    let named = std::env::var_os("ROWCAST_CHINOOK").map(PathBuf::from);
    let file = named.unwrap_or_else(|| binary::root().join("../shared/data/chinook.sqlite"));
    file.exists().then_some(file)
}
