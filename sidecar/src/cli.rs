//! The command line: what is asked for, who does it, and how it ends.
//!
//! One file a command. What a command was asked for goes to standard output; everything else goes to standard error.
//! A failure is printed once, here: `error: …` with its whole chain on one line, and `hint: …` when something is known
//! to help. Exit codes: 0 well, 1 a fault at run time, 2 the command line or the configuration is wrong.

mod arguments;
mod check;
mod conflicts;
mod error;
mod init;
mod listing;
mod members;
mod migrate;
mod outside;
mod parked;
mod run;
mod schema;
mod status;
mod uninstall;
mod verify;

use std::ffi::OsString;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Environment;
use crate::supervise;
pub use error::Error;

/// Exit code for a fault at run time.
pub const FAULT: u8 = 1;
/// Exit code for a wrong command line or configuration.
pub const WRONG: u8 = 2;

/// The hidden command that turns this program into the service, see [`supervise::become_service`].
const SERVICE: &str = "__service";

const AFTER_HELP: &str = "\
From an existing database to two nodes:
  rowcast init --database app.db --service music --output schema.toml
  rowcast run --node a --database app.db --schema schema.toml --nats nats://127.0.0.1:4222 --first
and on the other machine, with the same schema.toml and no database file:
  rowcast run --node b --database app.db --schema schema.toml --nats nats://n1:4222

Exit codes: 0 well; 1 a fault at run time; 2 the command line or the configuration is wrong.
Every setting can also stand in a config file (--config) or in a variable ROWCAST_<KEY>.";

/// A replication sidecar for SQLite services: every node holds the same rows.
///
/// Rowcast runs beside a service, on the service's own SQLite file, and sends every change to the other nodes of the
/// service over NATS. The service stays as it is, in any language.
#[derive(Debug, Parser)]
#[command(name = "rowcast", version, after_help = AFTER_HELP, max_term_width = 100, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Check(check::Arguments),
    Run(run::Arguments),
    Status(status::Arguments),
    Members(members::Arguments),
    Parked(parked::Arguments),
    Conflicts(conflicts::Arguments),
    Verify(verify::Arguments),
    Migrate(migrate::Arguments),
    Uninstall(uninstall::Arguments),
    #[command(name = SERVICE, hide = true)]
    Service {
        #[arg(long)]
        parent: u32,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

/// Does what the command line of this process says.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // A bug: one line that can be reported, and no backtrace that nobody asked for.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        print_error(&format!("error: a bug in Rowcast at {place}: {what}\nhint: please report it, with the log"));
    }));
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => {
            // Help and version are such "errors" too. A closed pipe is nobody to tell.
            error.print().unwrap_or(());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG));
        }
    };
    let ended = match command {
        Command::Service { parent, command } => {
            let (error, code) = supervise::become_service(parent, &command);
            print_error(&format!("error: {}", error::chain(&error)));
            return ExitCode::from(code);
        }
        command => std::panic::catch_unwind(AssertUnwindSafe(|| perform(command))),
    };
    // What a panic had to say, the hook has said.
    let Ok(ended) = ended else { return ExitCode::from(FAULT) };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_error(&error.report());
            ExitCode::from(error.exit_code())
        }
    }
}

fn perform(command: Command) -> Result<u8, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    let environment = Environment::of_process();
    // On this thread, which lives to the end: the service is its child.
    let ended = runtime.block_on(async {
        match command {
            Command::Init(arguments) => init::init(arguments).await.map(|()| 0),
            Command::Check(arguments) => check::check(arguments, environment).await,
            Command::Run(arguments) => run::run(arguments, environment).await,
            Command::Status(arguments) => status::status(arguments, environment).await.map(|()| 0),
            Command::Conflicts(arguments) => conflicts::conflicts(arguments).await.map(|()| 0),
            Command::Members(arguments) => members::members(arguments).await.map(|()| 0),
            Command::Parked(arguments) => parked::parked(arguments).await.map(|()| 0),
            Command::Verify(arguments) => verify::verify(arguments, environment).await,
            Command::Migrate(arguments) => migrate::migrate(arguments, environment).await,
            Command::Uninstall(arguments) => uninstall::uninstall(arguments).await.map(|()| 0),
            Command::Service { .. } => unreachable!("bug: it was dealt with before"),
        }
    });
    // A thread that hangs in a system call must not keep the process.
    runtime.shutdown_background();
    ended
}

/// Prints what was asked for. A reader that has gone away, as `head` does, is not a failure.
fn print(text: &str) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Prints beside what was asked for.
fn print_error(text: &str) {
    // Without standard error there is nobody to tell.
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or(());
}

#[cfg(test)]
#[path = "cli/tests.rs"]
mod tests;
