//! What the commands share that list something of the database or ask a running sidecar: their flags, and how they print.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Error, print};
use crate::config::{Environment, Sources};
use crate::edge::http;

/// The database that a command works on, beside a running sidecar.
#[derive(Debug, Args)]
pub(super) struct Database {
    /// The service's SQLite file
    #[arg(long, value_name = "FILE")]
    pub(super) database: PathBuf,
}

/// A list of rows that may be long.
#[derive(Debug, Args)]
pub(super) struct Listed {
    #[command(flatten)]
    pub(super) database: Database,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// How many to show
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub(super) limit: usize,
}

/// Which sidecar is asked.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Where the sidecar answers HTTP [env: ROWCAST_HTTP] [default: 127.0.0.1:7200]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// The node config to take the address from [env: ROWCAST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Asked {
    /// Its address.
    pub(super) fn address(self, environment: Environment) -> Result<SocketAddr, Error> {
        let flags = self.http.map(|address| ("http", address)).into_iter().collect();
        let file = self.config.or_else(|| environment.config_file());
        Ok(Sources { file, flags, environment }.http()?)
    }
}

/// What answered is no sidecar, or one that says something else than was asked.
pub(super) fn strange(address: SocketAddr, answer: &http::Answer) -> Error {
    let text = String::from_utf8_lossy(&answer.body);
    let start: String = text.chars().take(200).collect();
    Error::Answer { address, answer: format!("{} {}", answer.code, start.escape_debug()) }
}

/// Prints what was asked for, as JSON or as text.
pub(super) fn show<T: Serialize>(json: bool, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Error> {
    if json {
        let json = serde_json::to_string_pretty(value).expect("bug: numbers and texts have a JSON form");
        return print(&format!("{json}\n"));
    }
    print(&text(value))
}

/// Milliseconds since 1970, as RFC 3339 in UTC.
pub(super) fn date(millis: i64) -> String {
    let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // Days to a date, by the civil calendar (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = rest / 1_000;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
