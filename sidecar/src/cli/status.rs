//! `rowcast status`: what a running sidecar says of itself.

use clap::Args;

use super::{Error, print};
use crate::config::{Environment, Sources};
use crate::edge::http;
use crate::observe::status::Status;

/// Show the state of a running sidecar: what is wrong and what to do, then the figures.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the sidecar answers HTTP [env: ROWCAST_HTTP] [default: 127.0.0.1:7200]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// The node config to take the address from [env: ROWCAST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Print JSON, as the sidecar's /status has it
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(arguments: Arguments, environment: Environment) -> Result<(), Error> {
    let flags = arguments.http.map(|address| ("http", address)).into_iter().collect();
    let file = arguments.config.or_else(|| environment.config_file());
    let address = Sources { file, flags, environment }.http()?;
    let answer = http::get(address, "/status").await.map_err(|source| Error::Ask { address, source })?;
    let strange = || {
        let text = String::from_utf8_lossy(&answer.body);
        let start: String = text.chars().take(200).collect();
        Error::Answer { address, answer: format!("{} {}", answer.code, start.escape_debug()) }
    };
    if answer.code != 200 {
        return Err(strange());
    }
    let status: Status = serde_json::from_slice(&answer.body).map_err(|_| strange())?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&status).expect("bug: a status is JSON, it came as such");
        print(&format!("{json}\n"))
    } else {
        print(&status.to_text())
    }
}
