//! `rowcast parked`: what waits, why, and what to do with it.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::listing::{Database, Listed, date, show};
use super::{Error, outside, print};
use crate::edge::store::ParkedRow;

/// List parked events, have them tried again, or give one up.
///
/// A parked event is stored and not applied: another record holds a UNIQUE value that it claims, the table's rules forbid
/// it here, its table is not here, it does not read, its row is too large to travel, or its timestamp lies in the future.
/// Works on the database file, beside a running sidecar.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the parked events, those that wait for the longest time first
    List {
        #[command(flatten)]
        listed: Listed,
    },
    /// Have parked events tried at once: all of them, or one
    Retry {
        #[command(flatten)]
        database: Database,
        /// The event, as `list` shows it
        event: Option<String>,
    },
    /// Give a parked event up, on every node
    ///
    /// The sidecar makes a new event of the record as it is here, or of its absence, which is later than the parked one
    /// and replaces it everywhere. An event from the future cannot be dropped: it would win over the new one.
    Drop {
        #[command(flatten)]
        database: Database,
        /// The event, as `list` shows it
        event: String,
    },
}

#[derive(Serialize)]
struct List {
    total: u64,
    parked: Vec<ParkedRow>,
}

/// How long it is waited for the sidecar to do what it is asked for.
const WAIT: Duration = Duration::from_secs(5);

pub(super) async fn parked(arguments: Arguments) -> Result<(), Error> {
    match arguments.what {
        What::List { listed } => {
            let (parked, total) = outside::parked(&listed.database.database, listed.limit).await?;
            show(listed.json, &List { total, parked }, |list| as_text(&list.parked, list.total))
        }
        What::Retry { database, event } => {
            let marked = outside::retry_parked(&database.database, event.clone()).await?;
            if let (0, Some(event)) = (marked, event) {
                return Err(Error::NotParked { event });
            }
            print(&format!("{marked} parked events are tried as soon as the sidecar looks, within a second or two\n"))
        }
        What::Drop { database, event } => {
            if !outside::drop_parked(&database.database, event.clone()).await? {
                return Err(Error::NotParked { event });
            }
            let gone = is_gone(&database.database, &event).await?;
            print(&if gone {
                format!("{event} is dropped: a later event with the record as it is here replaces it on every node\n")
            } else {
                format!("{event} is marked: it is dropped once a sidecar runs here and its table is in the database\n")
            })
        }
    }
}

async fn is_gone(database: &Path, event: &str) -> Result<bool, Error> {
    let tries = 20;
    for _ in 0..tries {
        tokio::time::sleep(WAIT / tries).await;
        let (rows, _) = outside::parked(database, usize::MAX >> 1).await?;
        if !rows.iter().any(|row| row.event == event) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn as_text(rows: &[ParkedRow], all: u64) -> String {
    if rows.is_empty() {
        return "nothing is parked\n".to_owned();
    }
    let mut text = format!("{} of {all} parked events\n", rows.len());
    for row in rows {
        let ParkedRow { event, table, reason, detail, bytes, .. } = row;
        let record = row.record.escape_debug();
        let since = date(row.since);
        let dropping = if row.dropping { ", to be dropped" } else { "" };
        text.push_str(&format!(
            "\n{event}\n  {table} {record}, {bytes} bytes, since {since}{dropping}\n  {reason}: {detail}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_event_is_shown_with_its_reason() {
        let row = ParkedRow {
            event: "00000000-0000-0000-0000-000000000007:0000000000000001".into(),
            table: "User".into(),
            record: "a\nb".into(),
            origin: "00000000-0000-0000-0000-000000000007".into(),
            sequence: 1,
            reason: "unique".into(),
            detail: "record c holds a UNIQUE value that it claims".into(),
            since: 1_709_210_096_789,
            tried: 1_709_210_096_789,
            bytes: 12,
            dropping: false,
        };
        insta::assert_snapshot!(as_text(&[row], 3), @r"
        1 of 3 parked events

        00000000-0000-0000-0000-000000000007:0000000000000001
          User a\nb, 12 bytes, since 2024-02-29T12:34:56Z
          unique: record c holds a UNIQUE value that it claims
        ");
        assert_eq!(as_text(&[], 0), "nothing is parked\n");
    }
}
