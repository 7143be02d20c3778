//! Reads the schema TOML from its file.

use std::path::Path;

use rowcast_schema::declaration::Declaration;

use super::Error;

/// The declaration in `file`.
pub(super) fn load(file: &Path) -> Result<Declaration, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::SchemaFile { file: file.to_owned(), source })?;
    Declaration::parse(&file.display().to_string(), &text).map_err(|problems| Error::Schema { problems })
}
