//! `rowcast migrate`: a migration with Rowcast out of its way; and the same for the command before the start.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use rowcast_schema::declaration::Declaration;
use rustix::process::Signal;

use super::run::{Signals, through};
use super::{Error, outside, schema};
use crate::config::{Environment, Sources};
use crate::edge::store::Migration;
use crate::observe::logging;
use crate::supervise::{Ended, Launch, Service};

/// Run a migration with Rowcast out of its way, and end with its exit code.
///
/// Takes Rowcast's triggers off, so that every ALTER TABLE works, also DROP COLUMN; runs the command; puts the triggers
/// back. A running sidecar pauses meanwhile; then the rows are compared with their events, so nothing is missed. Kill it
/// whenever you like: the sidecar puts back what is missing.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The service's SQLite file [env: ROWCAST_DATABASE]
    #[arg(long, value_name = "FILE")]
    database: Option<String>,
    /// The schema TOML, as it is after the migration [env: ROWCAST_SCHEMA]
    #[arg(long, value_name = "FILE")]
    schema: Option<String>,
    /// The node config to take both from [env: ROWCAST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The migration: a program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn migrate(arguments: Arguments, environment: Environment) -> Result<u8, Error> {
    let no_color = environment.no_color();
    let flags = [("database", arguments.database), ("schema", arguments.schema)];
    let flags = flags.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect();
    let file = arguments.config.or_else(|| environment.config_file());
    let (database, file) = Sources { file, flags, environment }.database()?;
    let declaration = schema::load(&file)?;
    logging::start(logging::Format::Auto, "info", no_color).expect("bug: `info` is a level");
    let mut signals = Signals::listen().map_err(Error::Runtime)?;
    let calm = Calm::begin(database, declaration).await?;
    let ended = command(arguments.command, &mut signals).await;
    calm.end().await?;
    Ok(ended?.exit_code())
}

/// Runs the command to its end. It may ask questions where there is a terminal. Signals are passed on; at a second one of a kind it
/// is killed.
async fn command(command: Vec<OsString>, signals: &mut Signals) -> Result<Ended, Error> {
    let in_terminal = is_in_front();
    let mut running = Service::start(&Launch { command, through: through(), in_terminal, ..Launch::default() })?;
    let mut last = None;
    loop {
        tokio::select! {
            ended = running.ended() => return Ok(ended?),
            signal = signals.next() => {
                // What was typed has reached it already. A terminal that goes away may say so twice.
                if last == Some(signal) && signal != Signal::HUP {
                    running.signal(Signal::KILL)?;
                } else if !(in_terminal && signal == Signal::INT) {
                    running.signal(signal)?;
                }
                last = Some(signal);
            }
        }
    }
}

/// Whether standard input is a terminal, and this process is the one that it talks to.
fn is_in_front() -> bool {
    let group = rustix::termios::tcgetpgrp(std::io::stdin());
    group.is_ok_and(|group| group == rustix::process::getpgrp())
}

/// A migration under way.
pub(super) struct Calm {
    migration: Migration,
    declaration: Declaration,
}

impl Calm {
    /// Takes Rowcast out of the way.
    pub(super) async fn begin(database: PathBuf, declaration: Declaration) -> Result<Self, Error> {
        let (migration, off) = outside::begin_migration(database).await?;
        tracing::info!(triggers = off, "Rowcast is out of the way of the migration");
        Ok(Self { migration, declaration })
    }

    /// Puts the triggers back.
    pub(super) async fn end(self) -> Result<(), Error> {
        outside::end_migration(self.migration, self.declaration).await?;
        tracing::info!("the triggers are back; the sidecar compares the rows with their events");
        Ok(())
    }
}
