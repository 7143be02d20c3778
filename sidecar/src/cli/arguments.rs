//! The flags that set keys of the node config, shared by the commands that need a whole config.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Environment, Sources};

/// Flags over the node config. What they do not say is taken from the environment, then from the file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Node config")]
pub(super) struct NodeConfig {
    /// The node config; examples/rowcast.toml explains every key [env: ROWCAST_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The node's name: letters, digits, `-`, `_` [env: ROWCAST_NODE]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The service's SQLite file; need not exist on a new node [env: ROWCAST_DATABASE]
    #[arg(long, value_name = "FILE")]
    database: Option<String>,
    /// The schema TOML: which tables are replicated [env: ROWCAST_SCHEMA]
    #[arg(long, value_name = "FILE")]
    schema: Option<String>,
    /// A NATS server; several with commas, or by repeating it [env: ROWCAST_NATS]
    #[arg(long, value_name = "URL")]
    nats: Vec<String>,
    /// A .creds file to log in to NATS with [env: ROWCAST_CREDENTIALS]
    #[arg(long, value_name = "FILE")]
    credentials: Option<String>,
    /// Speak plaintext to a NATS server that is not on this machine [env: ROWCAST_ALLOW_PLAINTEXT]
    #[arg(long)]
    allow_plaintext: bool,
    /// Where the sidecar answers HTTP [env: ROWCAST_HTTP] [default: 127.0.0.1:7200]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// How log lines are written: auto, text or json [env: ROWCAST_LOG] [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log: Option<String>,
    /// A level, or a filter such as info,rowcast::flow=debug [env: ROWCAST_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl NodeConfig {
    /// Where the settings come from, with these flags.
    pub(super) fn sources(self, environment: Environment) -> Sources {
        let flags = [
            ("node", self.node),
            ("database", self.database),
            ("schema", self.schema),
            ("credentials", self.credentials),
            ("allow_plaintext", self.allow_plaintext.then(|| "true".to_owned())),
            ("http", self.http),
            ("log", self.log),
            ("log_level", self.log_level),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
        let flags = given.chain(self.nats.into_iter().map(|server| ("nats", server))).collect();
        Sources { file: self.config.or_else(|| environment.config_file()), flags, environment }
    }
}
