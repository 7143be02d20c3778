//! `rowcast status`: what a running sidecar says of itself.

use clap::Args;

use super::Error;
use super::listing::{Asked, show, strange};
use crate::config::Environment;
use crate::edge::http;
use crate::observe::status::Status;

/// Show the state of a running sidecar: what is wrong and what to do, then the figures.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asked: Asked,
    /// Print JSON, as the sidecar's /status has it
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(arguments: Arguments, environment: Environment) -> Result<(), Error> {
    let address = arguments.asked.address(environment)?;
    let answer = http::get(address, "/status").await.map_err(|source| Error::Ask { address, source })?;
    if answer.code != 200 {
        return Err(strange(address, &answer));
    }
    let status: Status = serde_json::from_slice(&answer.body).map_err(|_| strange(address, &answer))?;
    show(arguments.json, &status, Status::to_text)
}
