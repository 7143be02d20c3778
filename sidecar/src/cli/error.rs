//! Why a command failed: printed once, at the top.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rowcast_schema::declaration::Problems;

use super::{FAULT, WRONG};
use crate::config;
use crate::edge::http;
use crate::supervise::{self, BoxError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The name of the service cannot be one.
    #[error("--service: `{name}` {fault}")]
    ServiceName {
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The schema TOML cannot be read.
    #[error("failed to read the schema TOML {}", file.display())]
    SchemaFile {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The schema TOML was read, and something in it is wrong.
    #[error("the schema TOML has problems:\n  {}", problems.to_string().replace('\n', "\n  "))]
    Schema {
        /// All of them.
        problems: Problems,
    },
    /// The file that `init` should write is there already.
    #[error("{} is there already", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The file that `init` should write cannot be written.
    #[error("failed to write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sidecar does not compare.
    #[error("the sidecar at {address} does not compare: {reason}")]
    NotVerified {
        /// Where it answers.
        address: SocketAddr,
        /// Why, in its words.
        reason: String,
    },
    /// Something at the database; its own text says what to do.
    #[error("failed to {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: BoxError,
    },
    /// There is no such parked event that could be tried or dropped.
    #[error("no event {event} is parked that could be; one from the future waits for its time")]
    NotParked {
        /// As it was given.
        event: String,
    },
    /// There is no such member, or more than one.
    #[error("{} that name or id that could be expelled; `rowcast members list` shows them", match count { 0 => "there is no member of".to_owned(), count => format!("{count} members have") })]
    NoMember {
        /// As it was given.
        member: String,
        /// How many fit.
        count: usize,
    },
    /// The node could not go on.
    #[error("the node has failed")]
    Node {
        /// Why.
        source: BoxError,
    },
    /// The node was told to stop and did not.
    #[error("the node did not stop within {seconds} s and was cut off")]
    Stuck {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The HTTP server.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The service, or the command before the start.
    #[error(transparent)]
    Supervise(#[from] supervise::Error),
    /// No sidecar answers.
    #[error("failed to ask the sidecar at {address}")]
    Ask {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Something answers, and it is not a sidecar that we understand.
    #[error("what answers at {address} is not a sidecar of this version: {answer}")]
    Answer {
        /// Where.
        address: SocketAddr,
        /// What it said.
        answer: String,
    },
    /// Standard output.
    #[error("failed to write to standard output")]
    Output(#[source] io::Error),
    /// The operating system does not let us begin.
    #[error("failed to start")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::ServiceName { .. }
            | Self::SchemaFile { .. }
            | Self::Schema { .. }
            | Self::Exists { .. } => WRONG,
            _ => FAULT,
        }
    }

    /// What to do about it, where that is not in the text already.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Config(_) => {
                Some("every key is explained in examples/rowcast.toml; `rowcast run --help` has the flags")
            }
            Self::SchemaFile { .. } => Some("`rowcast init` writes one from an existing database"),
            Self::Exists { .. } => Some("--force writes over it; without --output the text goes to standard output"),
            Self::Ask { source, .. } => Some(match source.kind() {
                io::ErrorKind::TimedOut => "something listens there and does not answer: read the sidecar's log",
                _ => "is the sidecar running? --http says where it answers, as for `rowcast run`",
            }),
            Self::Answer { .. } => Some("--http says where the sidecar answers"),
            Self::Http(error) => Some(error.hint()),
            Self::Supervise(supervise::Error::Before { .. }) => {
                Some("nothing was started; mend the command, or leave it out with its key `before`")
            }
            _ => None,
        }
    }

    /// `error: …` with the whole chain, and `hint: …` when there is one.
    pub fn report(&self) -> String {
        let hint = self.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error: {}{hint}", chain(self))
    }
}

/// An error and its sources, each once.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some libraries repeat the source in their own text.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_on_one_line_and_the_hint_on_the_next() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Error::Ask { address: "127.0.0.1:7200".parse().unwrap(), source: refused };
        insta::assert_snapshot!(error.report(), @r"
        error: failed to ask the sidecar at 127.0.0.1:7200: connection refused
        hint: is the sidecar running? --http says where it answers, as for `rowcast run`
        ");
        assert_eq!(error.exit_code(), FAULT);
    }

    #[test]
    fn what_a_library_repeats_is_said_once() {
        let inner = io::Error::other("the disk is full");
        let error = Error::Write { file: "a".into(), source: io::Error::other(io::Error::other(inner)) };
        assert_eq!(error.report(), "error: failed to write a: the disk is full");
    }
}
