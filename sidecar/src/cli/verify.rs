//! `rowcast verify`: has a running sidecar compare everything, and shows what it found.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tokio::time::Instant;

use super::listing::{Asked, show, strange};
use super::{Error, FAULT, print_error};
use crate::config::Environment;
use crate::edge::http;
use crate::observe::status::{Report, Status};

/// Compare all rows of a running node with their events, and with those of the other nodes.
///
/// A node that is behind does not diverge: only records are told that differ although both nodes have the same events,
/// events that are missing below a node's own position, and rows that are not what their own events say. Each is looked at
/// twice. Without --repair nothing is changed.
///
/// Exit codes: 0 when all is equal; 1 when something diverges, also when it was repaired, or could not be compared.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Mend what is damaged on this node, however much it is; what stood there is kept in the table _rowcast_mended
    #[arg(long)]
    repair: bool,
    /// One table only
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    #[command(flatten)]
    asked: Asked,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How often the sidecar is asked how far it is.
const POLL: Duration = Duration::from_millis(200);

/// How often that is told.
const TELL: Duration = Duration::from_secs(5);

/// How long a comparison may take to begin. A node that is not READY does not begin.
const BEGIN: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Begun {
    id: u64,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    hint: String,
}

pub(super) async fn verify(arguments: Arguments, environment: Environment) -> Result<u8, Error> {
    let address = arguments.asked.address(environment)?;
    let table = arguments.table.map(|table| format!("&table={}", escaped(&table))).unwrap_or_default();
    let path = format!("/verify?repair={}{table}", arguments.repair);
    let answer = http::post(address, &path).await.map_err(|source| Error::Ask { address, source })?;
    let begun: Begun = match (answer.code, serde_json::from_slice(&answer.body)) {
        (202, Ok(begun)) => begun,
        _ => return Err(refused(address, &answer)),
    };
    let report = wait(address, begun.id).await?;
    show(arguments.json, &report, Report::to_text)?;
    Ok(if report.is_equal() { 0 } else { FAULT })
}

/// Waits until the comparison of that number has ended.
async fn wait(address: SocketAddr, id: u64) -> Result<Report, Error> {
    let (began, mut told) = (Instant::now(), Instant::now());
    loop {
        let answer = http::get(address, "/status").await.map_err(|source| Error::Ask { address, source })?;
        let status: Status = serde_json::from_slice(&answer.body).map_err(|_| refused(address, &answer))?;
        if let Some(report) = status.verification.asked.filter(|report| id <= report.id) {
            return Ok(report);
        }
        match &status.verification.running {
            Some((table, records)) if told.elapsed() >= TELL => {
                told = Instant::now();
                print_error(&format!("comparing table {table}: {records} records done"));
            }
            None if began.elapsed() >= BEGIN => {
                let reason = status.reasons.first().map_or("it does not say why", |reason| &reason.text);
                return Err(Error::NotVerified { address, reason: reason.to_owned() });
            }
            _ => {}
        }
        tokio::time::sleep(POLL).await;
    }
}

fn refused(address: SocketAddr, answer: &http::Answer) -> Error {
    match serde_json::from_slice::<Refused>(&answer.body) {
        Ok(refused) => Error::NotVerified { address, reason: format!("{}; {}", refused.error, refused.hint) },
        Err(_) => strange(address, answer),
    }
}

/// The name of a table as a part of a URL.
fn escaped(text: &str) -> String {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}
