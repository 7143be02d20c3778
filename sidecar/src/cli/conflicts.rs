//! `rowcast conflicts`: which events met without knowing of each other, and which of them counts.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::listing::{Listed, date, show};
use super::{Error, outside};
use crate::edge::store::ConflictRow;

/// List conflicts: two nodes changed one record, and neither knew of the other's change.
///
/// Both events are in the event table of their table as long as its history is kept, so what was given up can be read
/// there, and written again through the service. Works on the database file, beside a running sidecar.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the conflicts that were met on this node, the newest first
    List {
        #[command(flatten)]
        listed: Listed,
    },
}

pub(super) async fn conflicts(arguments: Arguments) -> Result<(), Error> {
    let What::List { listed } = arguments.what;
    let conflicts = outside::conflicts(&listed.database.database, listed.limit).await?;
    show(listed.json, &List { conflicts }, |list| as_text(&list.conflicts))
}

#[derive(Serialize)]
struct List {
    conflicts: Vec<ConflictRow>,
}

fn as_text(rows: &[ConflictRow]) -> String {
    if rows.is_empty() {
        return "no conflict was met\n".to_owned();
    }
    let mut text = String::new();
    for ConflictRow { table, record, winner, loser, rule, met, .. } in rows {
        let (record, met) = (record.escape_debug(), date(*met));
        text.push_str(&format!("{met}  {table} {record}, by {rule}\n  counts    {winner}\n  given up  {loser}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_shown_with_both_events() {
        let row = ConflictRow {
            id: "x/y".into(),
            table: "User".into(),
            record: "a\nb".into(),
            winner: "y".into(),
            loser: "x".into(),
            rule: "last-write-wins".into(),
            met: 1_709_210_096_789,
        };
        insta::assert_snapshot!(as_text(&[row]), @r"
        2024-02-29T12:34:56Z  User a\nb, by last-write-wins
          counts    y
          given up  x
        ");
        assert_eq!(as_text(&[]), "no conflict was met\n");
    }
}
