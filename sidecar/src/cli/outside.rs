//! What the commands ask of the database, the bus and the node: the only file of the command line that names them.
//!
//! SQLite's calls block, so they run on a thread that may.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rowcast_schema::declaration::Declaration;
use rowcast_schema::table::Table;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::config::Config;
use crate::observe::health::Heartbeat;
use crate::observe::status::Status;
use crate::supervise::BoxError;

/// What `uninstall` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) triggers: Vec<String>,
    pub(super) tables: Vec<String>,
    pub(super) identity_file: bool,
}

/// What the node is handed beside its config and declaration.
#[derive(Debug)]
pub(super) struct Handles {
    /// It may be the first node of its service.
    pub(super) first: bool,
    /// Where it says how it is.
    pub(super) status: watch::Sender<Arc<Status>>,
    /// Where it shows that its loop turns.
    pub(super) heartbeat: Heartbeat,
    /// When it is to stop.
    pub(super) stop: CancellationToken,
}

fn not_wired() -> BoxError {
    "not wired".into()
}

/// All tables of the database.
pub(super) async fn tables(database: &Path) -> Result<Vec<Table>, Error> {
    blocking("read the database", database, |_| Err(not_wired())).await
}

/// Switches the database to WAL mode; whether it had to.
pub(super) async fn ensure_wal(database: &Path) -> Result<bool, Error> {
    blocking("switch the database to WAL mode", database, |_| Err(not_wired())).await
}

/// Takes Rowcast out of the database.
pub(super) async fn uninstall(database: &Path, _declaration: Declaration) -> Result<Removed, Error> {
    blocking("remove Rowcast from the database", database, |_| Err(not_wired())).await
}

/// Whether NATS can be reached and takes the login.
pub(super) async fn probe(_config: &Config) -> Result<(), BoxError> {
    Err(not_wired())
}

/// Runs the node until it is told to stop or fails.
pub(super) async fn node(_config: Config, _declaration: Declaration, _handles: Handles) -> Result<(), BoxError> {
    Err(not_wired())
}

async fn blocking<R: Send + 'static>(
    doing: &'static str,
    database: &Path,
    work: impl FnOnce(PathBuf) -> Result<R, BoxError> + Send + 'static,
) -> Result<R, Error> {
    let database = database.to_owned();
    let done = tokio::task::spawn_blocking(move || work(database)).await;
    done.map_err(Into::into).and_then(|done| done).map_err(|source| Error::Database { doing, source })
}
