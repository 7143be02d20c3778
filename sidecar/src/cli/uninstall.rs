//! `rowcast uninstall`: takes Rowcast out of a database again.

use std::path::PathBuf;

use clap::Args;

use super::{Error, outside, print};
use crate::edge::store::Removed;

/// Remove Rowcast's triggers and tables from a database. The service's own rows stay as they are.
///
/// Changes that were captured and not sent yet are gone with them. The sidecar must not be running.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The service's SQLite file
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
}

pub(super) async fn uninstall(arguments: Arguments) -> Result<(), Error> {
    let removed = outside::uninstall(&arguments.database).await?;
    print(&text(&arguments.database.display().to_string(), &removed))
}

fn text(database: &str, removed: &Removed) -> String {
    let mut text = String::new();
    for (kind, names) in [("trigger", &removed.triggers), ("table", &removed.tables)] {
        text.extend(names.iter().map(|name| format!("removed {kind} {name}\n")));
    }
    if removed.identity_file {
        text.push_str(&format!("removed file {database}-rowcast\n"));
    }
    if text.is_empty() {
        return format!("{database}: nothing of Rowcast was there\n");
    }
    text.push_str(&format!("{database}: Rowcast is gone; the service's own tables are as they were\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_removed() {
        let removed = Removed {
            triggers: vec!["_rowcast_Track_insert".to_owned()],
            tables: vec!["Track_Events".to_owned(), "_rowcast_journal".to_owned()],
            identity_file: true,
        };
        insta::assert_snapshot!(text("app.db", &removed), @r"
        removed trigger _rowcast_Track_insert
        removed table Track_Events
        removed table _rowcast_journal
        removed file app.db-rowcast
        app.db: Rowcast is gone; the service's own tables are as they were
        ");
        assert_eq!(text("app.db", &Removed::default()), "app.db: nothing of Rowcast was there\n");
    }
}
