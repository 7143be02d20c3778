//! The node config: what the operator of one node decides, as against the schema TOML, which the service's
//! developer ships and which is the same on all nodes.
//!
//! A setting is taken from the first place that has it: a flag, then the environment (`ROWCAST_<KEY>`), then the
//! file (`rowcast.toml`), then the default. The file is read when it is named, by `--config` or `ROWCAST_CONFIG`, and
//! never looked for. `examples/rowcast.toml` documents every key; a test holds the two together.
//!
//! Nothing else in Rowcast reads the environment: what a run needs from it is in [`Environment`], so that tests give
//! it a map. Secrets are never in a setting, only the path of a file that holds one: a [`Config`] can be printed.

mod check;
mod secret;
mod settings;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use secret::Secret;
pub use settings::{KEYS, Key, Kind};

use crate::observe::logging;
use settings::Settings;

/// Where a sidecar answers HTTP unless it is told otherwise: on this machine only.
pub const HTTP_DEFAULT: &str = "127.0.0.1:7200";

/// The most characters of a node's name.
pub const NODE_NAME_MAX: usize = 64;

/// Settings that have been checked. To hold one is to know that they made sense together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The node's human name: ASCII letters, digits, `-` and `_`. It is part of NATS subjects.
    pub node: String,
    /// The service's SQLite file. It need not exist: an empty node gets it from the others.
    pub database: PathBuf,
    /// The schema TOML.
    pub schema: PathBuf,
    /// How to reach NATS.
    pub nats: Nats,
    /// Where the sidecar answers HTTP. Port 0 takes a free one.
    pub http: SocketAddr,
    /// A command for `sh -c` that runs before anything else, such as a migration.
    pub before: Option<String>,
    /// How a node that has no database file gets everything.
    pub bootstrap: Bootstrap,
    /// How often the node tells the others that it is there and what it has.
    pub presence_interval: Duration,
    /// How long a starting node waits for others to answer before it says that nobody did.
    pub presence_wait: Duration,
    /// How long a group waits for a cause that no live member has.
    pub context_timeout: Duration,
    /// How often rows are compared with their events.
    pub reconcile_interval: Duration,
    /// How often all rows are compared with their events, and with those of another node; zero: never.
    pub verify_interval: Duration,
    /// How long a member may be silent before this node holds it for lost.
    pub member_timeout: Duration,
    /// How log lines are written.
    pub log: logging::Format,
    /// Which log lines are written: a level, or a filter such as `info,rowcast::flow=debug`.
    pub log_level: String,
    /// What is allowed but unwise, one sentence each.
    pub warnings: Vec<String>,
}

/// How a node that has no database file gets everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// It takes the file of another node whole, and event by event where that cannot be.
    #[default]
    File,
    /// Event by event always.
    Events,
}

/// How to reach NATS, and how to prove who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// The servers' addresses, each with its scheme and port: `nats://127.0.0.1:4222`.
    pub servers: Vec<String>,
    /// How the node logs in.
    pub login: Login,
    /// The certificate authorities that sign the server's certificate; the system's when not set.
    pub tls_ca: Option<PathBuf>,
    /// Our own certificate and its key, for servers that ask for one.
    pub tls_identity: Option<TlsIdentity>,
    /// Plaintext is refused. On by itself when a server is not on this machine, unless plaintext was allowed.
    pub tls_required: bool,
}

/// A client certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How the node logs in to NATS. Only paths: the files are read when a connection is made, by [`Secret::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// The server asks for nothing.
    None,
    /// A `.creds` file: a JWT and its nkey seed.
    Credentials(PathBuf),
    /// A name, and a file with the password.
    User {
        /// The user's name.
        user: String,
        /// The file with the password.
        password_file: PathBuf,
    },
    /// A file with a token.
    Token(PathBuf),
    /// A file with an nkey seed.
    Nkey(PathBuf),
}

impl Login {
    /// Every file that this login reads.
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Self::None => Vec::new(),
            Self::Credentials(file) | Self::Token(file) | Self::Nkey(file) => vec![file],
            Self::User { password_file, .. } => vec![password_file],
        }
    }
}

/// What a run takes from the environment: Rowcast's own variables and `NO_COLOR`.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

/// The prefix of Rowcast's variables.
const PREFIX: &str = "ROWCAST_";

impl Environment {
    /// That of this process. The only place in Rowcast that reads it.
    pub fn of_process() -> Self {
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            let wanted = name.starts_with(PREFIX) || name == "NO_COLOR";
            wanted.then(|| (name, value.to_string_lossy().into_owned()))
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one door to the environment")]
        let variables = std::env::vars_os();
        Self(variables.filter_map(ours).collect())
    }

    /// A made-up one.
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of `ROWCAST_<KEY>`. An empty one counts as not set, as Compose files leave them.
    fn key(&self, key: &str) -> Option<&str> {
        self.get(&variable(key))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The config file that `ROWCAST_CONFIG` names.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.key("config").map(PathBuf::from)
    }

    /// The user asked for text without colours (no-color.org).
    pub fn no_color(&self) -> bool {
        self.get("NO_COLOR").is_some()
    }

    /// Variables that look like a misspelt key of ours, with the key each was probably meant to be. Only a warning:
    /// Kubernetes makes variables such as `ROWCAST_PORT` for a Service of that name.
    fn misspelt(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.keys().filter_map(|name| {
            let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
            if key == "config" || settings::key(&key).is_some() {
                return None;
            }
            settings::nearest(&key).map(|near| (name.as_str(), variable(near)))
        })
    }
}

/// The variable that sets a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

/// The flag that sets a key.
pub fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// Where the settings of a run come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The config file, when one was named.
    pub file: Option<PathBuf>,
    /// What flags say, by key. A key that may hold several values may stand here several times.
    pub flags: Vec<(&'static str, String)>,
    /// What the environment says.
    pub environment: Environment,
}

impl Sources {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All problems together, each with its place.
    pub fn load(&self) -> Result<Config, Error> {
        let mut settings = Settings::read(self)?;
        let config = check::config(&mut settings, &self.environment);
        config.ok_or_else(|| Error::invalid(settings.problems))
    }

    /// Reads only where the sidecar answers HTTP, whatever else may be wrong: the state of a running sidecar can be
    /// asked for while its config is being edited.
    ///
    /// # Errors
    /// The file cannot be read, or the address is not one.
    pub fn http(&self) -> Result<SocketAddr, Error> {
        let mut settings = Settings::read(self)?;
        settings.problems.clear();
        let http = check::http(&mut settings);
        http.ok_or_else(|| Error::invalid(settings.problems))
    }
}

impl Sources {
    /// Reads only where the database and the schema TOML are, whatever else may be wrong.
    ///
    /// # Errors
    /// The file cannot be read, or does not say it.
    pub fn database(&self) -> Result<(PathBuf, PathBuf), Error> {
        let mut settings = Settings::read(self)?;
        settings.problems.clear();
        let paths = check::database(&mut settings);
        paths.ok_or_else(|| Error::invalid(settings.problems))
    }
}

/// Where a setting was given: in the order in which problems are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the config file, with the line from 1.
    Line(PathBuf, usize),
    /// In this environment variable.
    Variable(String),
    /// In this flag.
    Flag(String),
    /// Nowhere.
    None,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{}:{line}: ", file.display()),
            Self::Variable(name) | Self::Flag(name) => write!(f, "{name}: "),
            Self::None => Ok(()),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it was given; nowhere, when something is missing or several things do not go together.
    pub place: Place,
    /// What is wrong and what to write instead.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.text)
    }
}

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read the config file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was read, and something in it is wrong.
    #[error("the configuration has {}{}", count(.0), lines(.0))]
    Invalid(Vec<Problem>),
}

impl Error {
    fn invalid(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        Self::Invalid(problems)
    }

    /// The problems one by one, for `rowcast check`; none when the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "a problem:".to_owned(),
        count => format!("{count} problems:"),
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
