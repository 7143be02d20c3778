//! What the commands ask of the database, the bus and the node: the only file of the command line that names them.
//!
//! SQLite's calls block, so they run on a thread that may.

use std::path::{Path, PathBuf};

use rowcast_schema::declaration::Declaration;
use rowcast_schema::table::Table;

use super::Error;
use crate::config::Config;
use crate::edge::store::Migration;
use crate::edge::{bus, store};
use crate::node;
use crate::position::NodeId;
use crate::steady::membership::Enrolled;
use crate::supervise::BoxError;

/// All tables of the database.
pub(super) async fn tables(database: &Path) -> Result<Vec<Table>, Error> {
    blocking("read the tables of the database", database, |path| Ok(store::catalogue::read(&path)?)).await
}

/// Switches the database to WAL mode; whether it had to.
pub(super) async fn ensure_wal(database: &Path) -> Result<bool, Error> {
    blocking("switch the database to WAL mode", database, |path| Ok(store::ensure_wal(&path)?)).await
}

/// Takes Rowcast out of the database.
pub(super) async fn uninstall(database: &Path) -> Result<store::Removed, Error> {
    blocking("remove Rowcast from the database", database, |path| Ok(store::uninstall(&path)?)).await
}

/// The parked events, at most `limit`, and how many there are.
pub(super) async fn parked(database: &Path, limit: usize) -> Result<(Vec<store::ParkedRow>, u64), Error> {
    blocking("list the parked events", database, move |path| Ok(store::operator::parked(&path, limit)?)).await
}

/// The conflicts that were met, at most `limit`.
pub(super) async fn conflicts(database: &Path, limit: usize) -> Result<Vec<store::ConflictRow>, Error> {
    blocking("list the conflicts", database, move |path| Ok(store::conflicts::conflicts(&path, limit)?)).await
}

/// Has parked events tried; how many.
pub(super) async fn retry_parked(database: &Path, event: Option<String>) -> Result<usize, Error> {
    let marked = move |path: PathBuf| Ok(store::operator::retry_parked(&path, event.as_deref())?);
    blocking("have parked events tried", database, marked).await
}

/// Has a parked event given up; whether it can be.
pub(super) async fn drop_parked(database: &Path, event: String) -> Result<bool, Error> {
    blocking("drop a parked event", database, move |path| Ok(store::operator::drop_parked(&path, &event)?)).await
}

/// The members that are known.
pub(super) async fn members(database: &Path) -> Result<Vec<Enrolled>, Error> {
    blocking("list the members", database, |path| Ok(store::members_of(&path)?)).await
}

/// Expels a member.
pub(super) async fn expel(database: &Path, node: NodeId) -> Result<bool, Error> {
    blocking("expel a member", database, move |path| Ok(store::expel(&path, node)?)).await
}

/// Takes Rowcast out of the way of a migration; and how many triggers that were.
pub(super) async fn begin_migration(database: PathBuf) -> Result<(Migration, usize), Error> {
    blocking("take Rowcast out of the way", &database, |path| Ok(Migration::begin(&path)?)).await
}

/// Puts Rowcast's triggers back.
pub(super) async fn end_migration(migration: Migration, declaration: Declaration) -> Result<(), Error> {
    let ended = move |_: PathBuf| Ok(migration.end(&declaration)?);
    blocking("put Rowcast's triggers back", Path::new(""), ended).await
}

/// Whether NATS can be reached and takes the login.
pub(super) async fn probe(config: &Config) -> Result<(), BoxError> {
    bus::probe(config).await?;
    Ok(())
}

/// Runs the node until it is told to stop or fails.
pub(super) async fn node(config: Config, declaration: Declaration, options: node::Options) -> Result<(), BoxError> {
    node::run(config, declaration, options).await?;
    Ok(())
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
