//! The status as text for people: at the top what is wrong and what to do, below it the figures.

use std::fmt::Write as _;

use super::{Database, Member, Position, Progress, State, Status};

impl Status {
    /// The page that `rowcast status` shows.
    pub fn to_text(&self) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail.
        for part in [Self::head_lines, Self::figures, Self::table_lines, Self::parked_lines, Self::verification_lines] {
            part(self, &mut page).expect("bug: a String takes any text");
        }
        page
    }

    fn head_lines(&self, page: &mut String) -> std::fmt::Result {
        let state = match self.state {
            State::Ready => "READY",
            State::NotReady => "NOT READY",
        };
        writeln!(page, "{state}  node {} of service {}", self.node, self.service)?;
        for reason in &self.reasons {
            writeln!(page, "  {}: {}", reason.code, reason.text)?;
            writeln!(page, "    -> {}", reason.hint)?;
        }
        if let Some(progress) = &self.progress {
            writeln!(page, "  progress: {}", progress.to_text())?;
        }
        for warning in &self.warnings {
            writeln!(page, "  warning: {warning}")?;
        }
        writeln!(page)
    }

    fn figures(&self, page: &mut String) -> std::fmt::Result {
        let id = self.node_id.map_or_else(|| "not known yet".to_owned(), |id| id.to_string());
        writeln!(page, "node id   {id}  (rowcast {})", self.version)?;
        writeln!(page, "database  {}", self.database.to_text())?;
        let server = self.bus.server.as_deref().unwrap_or("no server");
        let connected = if self.bus.connected { "connected" } else { "NOT CONNECTED" };
        writeln!(page, "bus       {connected}: {server}, {} reconnects", self.bus.reconnects)?;
        let counters = &self.counters;
        writeln!(
            page,
            "events    head {}, captured {}, published {}, applied {}, duplicates {}, conflicts {}, parked {}, \
             gaps fetched {}",
            self.head,
            counters.captured,
            counters.published,
            counters.applied,
            counters.duplicates,
            counters.conflicts,
            counters.parked,
            counters.gaps_fetched,
        )
    }

    fn table_lines(&self, page: &mut String) -> std::fmt::Result {
        let positions = self.positions.iter().map(|position| {
            vec![position.name(), position.position.to_string(), position.known.to_string(), position.lag().to_string()]
        });
        grid(page, &["ORIGIN", "POSITION", "KNOWN", "LAG"], positions)?;
        let members = self.members.iter().map(|member| {
            vec![
                member.name.clone(),
                member.state_text().to_owned(),
                format!("{:.1} s ago", member.seen_seconds_ago),
                member.lacks(&self.positions).to_string(),
                if member.schema_matches { "same" } else { "DIFFERENT" }.to_owned(),
                member.id.to_string(),
            ]
        });
        grid(page, &["MEMBER", "STATE", "SEEN", "LACKS", "SCHEMA", "ID"], members)?;
        let tables = self.tables.iter().map(|table| {
            vec![
                table.name.clone(),
                table.capture.clone(),
                table.events.to_string(),
                table.parked.to_string(),
                if table.missing_columns.is_empty() { "-".to_owned() } else { table.missing_columns.join(", ") },
            ]
        });
        grid(page, &["TABLE", "CAPTURE", "EVENTS", "PARKED", "MISSING COLUMNS"], tables)
    }

    fn parked_lines(&self, page: &mut String) -> std::fmt::Result {
        if self.parked.is_empty() {
            return Ok(());
        }
        let total: u64 = self.tables.iter().map(|table| table.parked).sum();
        writeln!(page, "\nparked: stored, not applied, tried again ({} of {total} shown)", self.parked.len())?;
        for parked in &self.parked {
            writeln!(page, "  {} {}: {}", parked.table, parked.record.escape_debug(), parked.reason)?;
            writeln!(page, "    event {}", parked.event)?;
        }
        Ok(())
    }
}

impl Status {
    fn verification_lines(&self, page: &mut String) -> std::fmt::Result {
        let verification = &self.verification;
        if let Some((table, records)) = &verification.running {
            writeln!(page, "\nverify: comparing table {table}, {records} records done")?;
        }
        let reports = [&verification.last, &verification.asked].into_iter().flatten();
        let last = reports.max_by_key(|report| report.ended_at);
        if let Some(last) = last.filter(|last| verification.running.is_none() && !last.is_equal()) {
            write!(page, "\nverify: {}", last.to_text())?;
        }
        for divergence in &verification.open {
            write!(page, "\ndiverged, not mended: {}", divergence.to_text())?;
        }
        Ok(())
    }
}

impl Database {
    fn to_text(&self) -> String {
        if self.path.as_os_str().is_empty() {
            return "not open yet".to_owned();
        }
        let (path, size, wal) = (self.path.display(), bytes(self.bytes), bytes(self.wal_bytes));
        format!("{path}  {size}, wal {wal}, {} waiting in the journal", self.journal_rows)
    }
}

impl Progress {
    /// `4200 of 11000 events from node a, about 12 s left`.
    pub fn to_text(&self) -> String {
        let total = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let eta = self.eta_seconds.map(|eta| format!(", about {eta} s left")).unwrap_or_default();
        format!("{}{total} {}{eta}", self.done, self.what)
    }
}

impl Position {
    fn name(&self) -> String {
        self.node.clone().unwrap_or_else(|| self.origin.to_string())
    }
}

impl Member {
    fn state_text(&self) -> &'static str {
        match self.state {
            State::Ready => "READY",
            State::NotReady => "NOT READY",
        }
    }

    /// Events that this node knows of and the member has not reported to have.
    fn lacks(&self, positions: &[Position]) -> u64 {
        let of = |origin| self.position.get(origin).copied().unwrap_or(0);
        positions.iter().map(|position| position.known.saturating_sub(of(&position.origin))).sum()
    }
}

/// A heading and rows in columns that are as wide as their longest cell. Nothing when there are no rows.
pub(super) fn grid(page: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> std::fmt::Result {
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([heads[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(page, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    line(vec![""; heads.len()])?;
    line(heads.to_vec())?;
    rows.iter().try_for_each(|row| line(row.iter().map(String::as_str).collect()))
}

/// `20.5 MiB`.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    // Exact to a tenth is enough for people, so the rounding of a large u64 does not matter.
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
