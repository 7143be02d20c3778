//! Reads the journal: what the triggers wrote, in the order in which it was done.

use std::sync::Arc;

use rowcast_schema::journal::{JOURNAL, Op};
use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::value::Value;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::error::{Doing as _, Error, damaged};
use super::tx::Tx;
use super::{Store, cell};
use crate::clock::Timestamp;
use crate::limits;
use crate::position::Sequence;

/// One row of the journal.
#[derive(Debug)]
pub struct JournalRow {
    /// Its place in the order of changes, over all tables.
    pub n: i64,
    /// Which columns the table had.
    pub layout: Arc<Layout>,
    /// What was done.
    pub op: Op,
    /// Bit mask of the columns that an update changed.
    pub changed: i64,
    /// When.
    pub at: Timestamp,
    /// The row after the change; of a delete or a suspect, the key.
    pub cells: Vec<Value>,
}

impl JournalRow {
    /// What its cells take, roughly.
    pub fn bytes(&self) -> usize {
        let bytes = |cell: &Value| match cell {
            Value::Text(bytes) | Value::Blob(bytes) => bytes.len(),
            Value::Null | Value::Integer(_) | Value::Real(_) => 8,
        };
        self.cells.iter().map(bytes).sum()
    }
}

/// A group that is ingested in several transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenGroup {
    /// The journal row that it ends with.
    pub until: i64,
    /// The sequence number that it begins with.
    pub first: Sequence,
    /// The sequence number that it ends with.
    pub last: Sequence,
    /// The next sequence number to give out in it.
    pub next: Sequence,
}

/// Where transactions of the service are known to end: the last row of the journal, each time that it was looked at. Known in
/// memory only, and good for as long as rows are taken away from the beginning alone: SQLite gives the number of a last row that
/// is gone to the next one.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// The row after the last one that was ingested.
    next: i64,
    ends: Vec<i64>,
}

impl Ends {
    /// The row that a group which begins with `first` is to end with, of a journal that ends with `last`: the last known end
    /// within so many rows, else the next one.
    pub fn cut(&mut self, (first, last): (i64, i64), rows_max: usize) -> i64 {
        if self.next != first || self.ends.last().is_some_and(|end| last < *end) {
            self.ends.clear();
        }
        let most = first.saturating_add(i64::try_from(rows_max).unwrap_or(i64::MAX));
        let within = self.ends.partition_point(|end| *end < most);
        let fits = within.checked_sub(1).map(|at| self.ends[at]).filter(|end| first <= *end);
        fits.or_else(|| self.ends.get(within).copied()).unwrap_or(last)
    }

    /// Whether any end is known.
    pub fn are_known(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Whether an end is known within so many rows of the next one.
    pub fn fits(&self, rows: usize) -> bool {
        let after = self.next.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX));
        self.ends.first().is_some_and(|end| *end < after)
    }

    /// Rows up to `ingested` are taken away, and what is left, if anything, ends with `last`.
    pub fn note(&mut self, ingested: i64, last: Option<i64>) {
        let Some(last) = last else { return *self = Self::default() };
        self.next = ingested + 1;
        let gone = self.ends.partition_point(|end| *end <= ingested);
        self.ends.drain(..gone);
        self.push(last);
    }

    /// The journal begins and ends with these rows.
    fn see(&mut self, (first, last): (i64, i64)) {
        if self.next != first || self.ends.last().is_some_and(|end| last < *end) {
            *self = Self { next: first, ends: Vec::new() };
        }
        self.push(last);
    }

    fn push(&mut self, last: i64) {
        if self.ends.last().is_some_and(|end| last <= *end) {
            return;
        }
        if self.ends.len() == limits::JOURNAL_ENDS_MAX {
            // So many rows become one group in any case.
            let group = i64::try_from(limits::GROUP_ROWS_AIM).unwrap_or(i64::MAX);
            let mut kept = i64::MIN;
            self.ends.retain(|end| {
                let far = kept.saturating_add(group) <= *end;
                kept = if far { *end } else { kept };
                far
            });
        }
        if self.ends.len() < limits::JOURNAL_ENDS_MAX {
            self.ends.push(last);
        }
    }
}

/// The first row of the journal and the last; none when it is empty.
fn extent(connection: &Connection) -> Result<Option<(i64, i64)>, Error> {
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached("SELECT (SELECT min(n) FROM _rowcast_journal), (SELECT max(n) FROM _rowcast_journal)")
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .doing("look at the journal")?;
    Ok(first.zip(last))
}

/// The tables of which it has rows.
pub(super) fn tables(connection: &Connection) -> Result<Vec<String>, Error> {
    if !connection.table_exists(None, JOURNAL).doing("look for the journal")? {
        return Ok(Vec::new()); // It is made next.
    }
    let sql = "SELECT DISTINCT table_name FROM _rowcast_layouts
               WHERE layout IN (SELECT DISTINCT layout FROM _rowcast_journal)";
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .doing("look which tables the journal speaks of")
}

impl Store {
    /// Looks where the newest transaction of the service ends, without the write lock. Where many are taken together, groups of
    /// events are as short as their ends are known.
    pub fn see_journal(&mut self) {
        match extent(&self.connection) {
            Ok(Some(rows)) => self.durable.journal_ends.see(rows),
            Ok(None) => {}
            // The group is a longer one.
            Err(error) => tracing::debug!(error = error.chain(), "where a transaction ends is not known"),
        }
    }
}

impl Tx<'_> {
    /// The last row of the journal, and roughly how many there are; none when it is empty.
    pub fn journal_extent(&self) -> Result<Option<(i64, usize)>, Error> {
        let rows = |(first, last): (i64, i64)| (last, usize::try_from(last - first + 1).unwrap_or(usize::MAX));
        Ok(extent(self.connection)?.map(rows))
    }

    /// The number of rows up to and with `until`.
    pub fn journal_count(&self, until: i64) -> Result<u64, Error> {
        self.connection
            .prepare_cached("SELECT count(*) FROM _rowcast_journal WHERE n <= ?1")
            .and_then(|mut statement| statement.query_row([until], |row| row.get(0)))
            .doing("count the journal")
    }

    /// The first rows up to and with `until`, in order.
    pub fn journal_rows(&mut self, until: i64, limit: usize) -> Result<Vec<JournalRow>, Error> {
        self.rows("SELECT * FROM _rowcast_journal WHERE n <= ?1 ORDER BY n LIMIT ?2", until, limit)
    }

    /// All of a short journal, in order; none where there are `limit` rows or more, or they are large.
    pub fn journal_whole(&mut self, limit: usize) -> Result<Option<Vec<JournalRow>>, Error> {
        let rows = self.journal_rows(i64::MAX, limit)?;
        let bytes: usize = rows.iter().map(JournalRow::bytes).sum();
        Ok((rows.len() < limit && bytes < limits::INGEST_BYTES_MAX).then_some(rows))
    }

    /// The first suspects up to and with `until`.
    pub fn journal_suspects(&mut self, until: i64, limit: usize) -> Result<Vec<JournalRow>, Error> {
        self.rows("SELECT * FROM _rowcast_journal WHERE n <= ?1 AND op = 4 ORDER BY n LIMIT ?2", until, limit)
    }

    /// Looks at suspects up to and with `until`, at most `limit` of them: those that are gone become deletes, the others are dropped.
    /// Answers whether all of them were looked at.
    ///
    /// # Errors
    /// When the database fails.
    pub fn settle_suspects(&mut self, until: i64, limit: usize) -> Result<bool, Error> {
        let suspects = self.journal_suspects(until, limit)?;
        let some = !suspects.is_empty();
        for suspect in suspects {
            let table = self.tables().journaled(&suspect.layout.table);
            let alive = match table.and_then(|table| table.shape.as_ref()) {
                Some(shape) => self.row(shape, &suspect.cells)?.is_some(),
                None => true,
            };
            // One that was deleted in the ordinary way as well is deleted twice, which changes nothing.
            if alive {
                self.journal_delete(suspect.n)?;
            } else {
                self.journal_confirm(suspect.n)?;
            }
        }
        // A page of them ends by bytes, too: what was looked at is no suspect any more.
        Ok(!some || self.journal_suspects(until, 1)?.is_empty())
    }

    /// Makes a suspect that is gone the delete that it is.
    fn journal_confirm(&mut self, n: i64) -> Result<(), Error> {
        self.connection
            .prepare_cached("UPDATE _rowcast_journal SET op = 3 WHERE n = ?1")
            .and_then(|mut statement| statement.execute([n]))
            .doing("confirm a suspect")
            .map(drop)
    }

    fn rows(&mut self, sql: &str, until: i64, limit: usize) -> Result<Vec<JournalRow>, Error> {
        let connection = self.connection;
        let mut statement = connection.prepare_cached(sql).doing("read the journal")?;
        let mut rows = statement.query((until, limit)).doing("read the journal")?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < limits::INGEST_BYTES_MAX
            && let Some(row) = rows.next().doing("read the journal")?
        {
            let head = || Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
            let (n, layout, op, changed, at): (i64, i64, i64, i64, i64) = head().doing("read the journal")?;
            let place = || format!("{JOURNAL}, row {n}");
            let layout = self.layout(LayoutId(layout))?.ok_or_else(|| damaged(place(), "an unknown layout"))?;
            let op = Op::from_number(op).ok_or_else(|| damaged(place(), format!("operation {op}")))?;
            let width = match op {
                Op::Create | Op::Update => layout.columns.len(),
                Op::Delete | Op::Suspect => layout.key.len(),
            };
            let cells = (0..width).map(|at| row.get_ref(5 + at).map(cell::read)).collect::<rusqlite::Result<_>>();
            let cells = cells.doing("read the journal")?;
            let row = JournalRow { n, layout, op, changed, at: Timestamp::from_millis(at), cells };
            bytes += row.bytes();
            found.push(row);
        }
        Ok(found)
    }

    /// The layouts that its rows up to and with `until` have. An unknown one is damage.
    pub fn journal_layouts(&mut self, until: i64) -> Result<Vec<Arc<Layout>>, Error> {
        let connection = self.connection;
        let ids = connection
            .prepare_cached("SELECT DISTINCT layout FROM _rowcast_journal WHERE n <= ?1")
            .and_then(|mut statement| {
                statement.query_map([until], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()
            })
            .doing("look at the journal")?;
        let layout = |id| self.layout(LayoutId(id))?.ok_or_else(|| damaged(JOURNAL, format!("an unknown layout {id}")));
        ids.into_iter().map(layout).collect()
    }

    /// Drops the rows of one layout. Answers how many there were.
    pub fn journal_delete_layout(&mut self, layout: LayoutId) -> Result<usize, Error> {
        self.durable.journal_ends = Ends::default();
        self.connection.execute("DELETE FROM _rowcast_journal WHERE layout = ?1", [layout.0]).doing("clear the journal")
    }

    /// Drops the rows up to and with `until`: they are events now.
    pub fn journal_delete_until(&mut self, until: i64) -> Result<(), Error> {
        self.connection
            .prepare_cached("DELETE FROM _rowcast_journal WHERE n <= ?1")
            .and_then(|mut statement| statement.execute([until]))
            .doing("clear the journal")
            .map(drop)
    }

    /// Drops one row: a suspect that is alive.
    fn journal_delete(&mut self, n: i64) -> Result<(), Error> {
        self.durable.journal_ends = Ends::default();
        self.connection
            .prepare_cached("DELETE FROM _rowcast_journal WHERE n = ?1")
            .and_then(|mut statement| statement.execute([n]))
            .doing("clear the journal")
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_ends_where_a_transaction_was_seen_to_end_and_fits_if_one_does() {
        let mut ends = Ends::default();
        assert_eq!(ends.cut((1, 900), 500), 900, "nothing is known");
        for (ingested, last) in [(500, 1_300), (900, 1_700), (900, 1_700), (1_000, 2_600)] {
            ends.note(ingested, Some(last));
        }
        assert_eq!(ends.cut((1_001, 2_600), 500), 1_300, "two fit not");
        assert_eq!(ends.cut((1_001, 2_600), 700), 1_700, "the last one that fits");
        assert_eq!(ends.cut((1_001, 2_600), 200), 1_300, "none fits: the next one");
        assert!(ends.fits(300) && !ends.fits(299));
        ends.note(1_300, Some(2_600));
        assert_eq!(ends.cut((1_301, 2_600), 500), 1_700);
    }

    #[test]
    fn an_end_that_was_seen_is_one_until_the_journal_begins_elsewhere() {
        let mut ends = Ends::default();
        [(1, 300), (1, 300), (1, 600)].into_iter().for_each(|rows| ends.see(rows));
        assert_eq!(ends.cut((1, 700), 500), 300);
        ends.note(300, Some(700));
        ends.see((301, 900));
        assert_eq!([500, 600].map(|most| ends.cut((301, 900), most)), [700, 900]);
        ends.see((2, 40));
        assert_eq!(ends.cut((2, 50), 500), 40, "it was emptied, and its numbers began anew");
        ends.see((2, 30));
        assert_eq!(ends.cut((2, 50), 500), 30, "rows at its end are gone");
    }

    #[test]
    fn where_more_ends_are_seen_than_are_kept_some_are_known_all_along() {
        let (ends_max, most) = (limits::JOURNAL_ENDS_MAX as i64, limits::GROUP_ROWS_AIM);
        let (mut ends, rows) = (Ends::default(), 50 * ends_max);
        (1..=rows / 5).for_each(|end| ends.see((1, end * 5)));
        let (mut first, mut longest) = (1, 0);
        while first <= rows {
            let last = ends.cut((first, rows), most);
            longest = longest.max(last + 1 - first);
            ends.note(last, (last < rows).then_some(rows));
            first = last + 1;
        }
        assert!(longest <= 2 * most as i64, "{longest}");
    }

    #[test]
    fn what_somebody_else_took_away_makes_all_ends_unknown() {
        let noted = || {
            let mut ends = Ends::default();
            ends.note(100, Some(300));
            ends.note(200, Some(600));
            ends
        };
        assert_eq!(noted().cut((201, 700), 150), 300);
        assert_eq!(noted().cut((202, 700), 150), 700, "a row is gone");
        assert_eq!(noted().cut((1, 700), 150), 700, "all were gone, and the numbers began anew");
        assert_eq!(noted().cut((201, 500), 150), 500, "it ends before an end");
        let mut emptied = noted();
        emptied.note(600, None);
        assert_eq!(emptied.cut((1, 700), 150), 700);
    }
}
