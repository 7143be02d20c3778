//! What comparing with the other nodes has found: the part of a status that `rowcast verify` shows.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::page::grid;

/// The most divergences that a report lists; their number is in its tables.
pub const FOUND_LISTED_MAX: usize = 100;

/// Comparing with the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The table that is being compared now, and how many of its records are done.
    pub running: Option<(String, u64)>,
    /// The comparison by the interval that ended last.
    pub last: Option<Report>,
    /// The comparison that was asked for and ended last.
    pub asked: Option<Report>,
    /// Records that are known to be damaged here and are not mended.
    pub open: Vec<Divergence>,
}

/// What one comparison found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The number that it was asked for under; 0: by the interval.
    pub id: u64,
    /// Whether what was found was to be mended.
    pub repair: bool,
    /// Whether it came to its end: everything that could be compared was.
    pub complete: bool,
    /// How long it took.
    pub seconds: f64,
    /// When it ended, in milliseconds since 1970.
    pub ended_at: i64,
    /// The nodes that were asked.
    pub members: Vec<String>,
    /// What could not be compared, one sentence each.
    pub notes: Vec<String>,
    /// Per table.
    pub tables: Vec<Verified>,
    /// The divergences, the first [`FOUND_LISTED_MAX`].
    pub found: Vec<Divergence>,
}

/// One table in a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its name.
    pub table: String,
    /// Records compared with their own events.
    pub records: u64,
    /// Nodes that it was compared with.
    pub members: u64,
    /// Records that diverge.
    pub found: u64,
    /// Those that were mended here.
    pub repaired: u64,
}

/// A record that diverges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// Its table.
    pub table: String,
    /// Its record id.
    pub record: String,
    /// What is wrong, in words.
    pub what: String,
    /// The other node, where it takes one to see it.
    pub member: Option<String>,
    /// The version here.
    pub here: String,
    /// The version there.
    pub there: Option<String>,
    /// It is right again.
    pub repaired: bool,
    /// Why it could not be mended, or what was done.
    pub outcome: String,
}

impl Report {
    /// Whether nothing diverges.
    pub fn is_equal(&self) -> bool {
        self.complete && self.tables.iter().all(|table| table.found == 0)
    }

    /// The page that `rowcast verify` shows.
    pub fn to_text(&self) -> String {
        let mut page = String::new();
        self.write(&mut page).expect("bug: a String takes any text");
        page
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        let found: u64 = self.tables.iter().map(|table| table.found).sum();
        let repaired: u64 = self.tables.iter().map(|table| table.repaired).sum();
        match found {
            0 if !self.complete => writeln!(page, "NOT COMPARED  see the notes")?,
            0 => writeln!(page, "EQUAL  no record diverges")?,
            1 => writeln!(page, "DIVERGENT  1 record, {repaired} repaired here")?,
            _ => writeln!(page, "DIVERGENT  {found} records, {repaired} repaired here")?,
        }
        let members = if self.members.is_empty() { "no other node".to_owned() } else { self.members.join(", ") };
        writeln!(page, "  compared with {members}, in {:.1} s", self.seconds)?;
        for note in &self.notes {
            writeln!(page, "  note: {note}")?;
        }
        if found > repaired && !self.repair {
            writeln!(page, "  -> `rowcast verify --repair` mends what is damaged here")?;
        }
        let tables = self.tables.iter().map(|table| {
            let numbers = [table.records, table.members, table.found, table.repaired];
            std::iter::once(table.table.clone()).chain(numbers.map(|number| number.to_string())).collect()
        });
        grid(page, &["TABLE", "RECORDS", "NODES ASKED", "DIVERGENT", "REPAIRED"], tables)?;
        for divergence in &self.found {
            write!(page, "\n{}", divergence.to_text())?;
        }
        let listed = self.found.len() as u64;
        if listed < found {
            writeln!(page, "\n… and {} more", found - listed)?;
        }
        Ok(())
    }
}

impl Divergence {
    /// Some lines for people.
    pub fn to_text(&self) -> String {
        let there = match (&self.member, &self.there) {
            (Some(member), Some(there)) => format!("  on {member}: {there}\n"),
            _ => String::new(),
        };
        format!(
            "{} {}: {}\n  here: {}\n{there}  {}: {}\n",
            self.table,
            self.record.escape_debug(),
            self.what,
            self.here,
            if self.repaired { "repaired" } else { "NOT repaired" },
            self.outcome,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_first_whether_all_is_equal_and_then_where_it_is_not() {
        let mut report = Report {
            id: 1,
            complete: true,
            seconds: 12.34,
            members: vec!["a".into(), "b".into()],
            tables: vec![
                Verified { table: "Playlist".into(), records: 12, members: 2, ..Verified::default() },
                Verified { table: "Track".into(), records: 100_000, members: 2, found: 2, repaired: 1 },
            ],
            found: vec![
                Divergence {
                    table: "Track".into(),
                    record: "3503".into(),
                    what: "the row is not what its events say".into(),
                    member: None,
                    here: "2026-11-20T21:07:09Z c #17".into(),
                    there: None,
                    repaired: true,
                    outcome: "the row is what its events say again".into(),
                },
                Divergence {
                    table: "Track".into(),
                    record: "3504".into(),
                    what: "the row there is not what the events there say".into(),
                    member: Some("b".into()),
                    here: "2026-11-20T21:07:09Z c #18".into(),
                    there: Some("2026-11-20T21:07:09Z c #18".into()),
                    repaired: false,
                    outcome: "node b mends itself at its own next comparison".into(),
                },
            ],
            ..Report::default()
        };
        let divergent = report.to_text();
        report.tables.truncate(1);
        report.found.clear();
        insta::assert_snapshot!(format!("{}\n---\n{divergent}", report.to_text()));
    }
}
