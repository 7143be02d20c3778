//! The service's part: it writes W0 rows into its own file as services do, in WAL mode with synchronous=NORMAL.
//!
//! Rowcast's node and the plain file that is its floor are written by the same code.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rowcast_tests::Node;
use rusqlite::{Connection, ErrorCode, params};

use crate::stats::whole;
use crate::w0::{self, Row};

/// Times that a service's write met SQLITE_BUSY after its busy timeout of five seconds, in the whole run.
static BUSY_ERRORS: AtomicU64 = AtomicU64::new(0);

/// The times so far that a write failed as busy.
pub fn busy_errors() -> u64 {
    BUSY_ERRORS.load(Ordering::SeqCst)
}

/// A connection of a service.
pub struct Service {
    connection: Connection,
    insert: String,
}

impl Service {
    /// The service of a node.
    pub fn of(node: &Node) -> Self {
        Self::on(node.service())
    }

    /// The service on a file that Rowcast knows nothing of: a new one, with W0's table.
    pub fn plain(folder: &Path, name: &str) -> Self {
        Self::plain_tables(folder, name, &w0::items())
    }

    /// The same with several tables of W0's shape.
    pub fn plain_tables(folder: &Path, name: &str, tables: &[String]) -> Self {
        let plain = Self::existing(&folder.join(name));
        tables.iter().for_each(|table| plain.connection.execute_batch(&w0::table(table)).unwrap());
        plain
    }

    /// The service on a file that is there and that Rowcast knows nothing of.
    pub fn existing(file: &Path) -> Self {
        let connection = Connection::open(file).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        Self::on(connection)
    }

    fn on(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(256);
        Self { connection, insert: insert_into("items") }
    }

    /// The connection itself.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes a row in a transaction of its own; gives the time that the service was kept.
    pub fn single(&self, row: &Row) -> Duration {
        self.timed(|| self.put(&self.insert, row))
    }

    /// Writes a row to another table of W0's shape, in a transaction of its own.
    pub fn single_into(&self, row: &Row, table: &str) {
        let insert = insert_into(table);
        self.timed(|| self.put(&insert, row));
    }

    /// Writes rows in one transaction.
    pub fn batch(&self, rows: &[Row]) -> Duration {
        self.transaction(|| rows.iter().try_for_each(|row| self.put(&self.insert, row)))
    }

    /// Writes rows in one transaction, by turns to `tables`.
    pub fn spread(&self, rows: &[Row], tables: &[String]) -> Duration {
        let inserts: Vec<String> = tables.iter().map(|table| insert_into(table)).collect();
        let pairs = || rows.iter().zip(inserts.iter().cycle());
        self.transaction(|| pairs().try_for_each(|(row, insert)| self.put(insert, row)))
    }

    /// Writes rows in transactions of `size`, one after the other.
    pub fn batches(&self, rows: &[Row], size: usize) {
        for rows in rows.chunks(size) {
            if let [row] = rows {
                self.single(row)
            } else {
                self.batch(rows)
            };
        }
    }

    /// Writes the rows of these numbers in large transactions, for what is not measured.
    pub fn fill(&self, numbers: std::ops::Range<u64>, size: usize) {
        let mut at = numbers.start;
        while at < numbers.end {
            let next = numbers.end.min(at + whole(size));
            self.batch(&w0::rows(at..next));
            at = next;
        }
    }

    /// Writes the rows `0..rows` in the order of their keys, by turns to `tables`: that is fast, for what is not measured.
    pub fn fill_in_key_order(&self, rows: u64, tables: &[String]) {
        let mut keys: Vec<(u128, u64)> = (0..rows).map(|i| (w0::key(i), i)).collect();
        keys.sort_unstable();
        for numbers in keys.chunks(10_000) {
            let rows: Vec<Row> = numbers.iter().map(|(_, i)| w0::row(*i)).collect();
            self.spread(&rows, tables);
        }
    }

    /// Runs `work` between BEGIN IMMEDIATE and COMMIT.
    pub fn transaction(&self, work: impl Fn() -> rusqlite::Result<()>) -> Duration {
        self.timed(|| {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            work()?;
            self.connection.prepare_cached("COMMIT")?.execute([]).map(|_| ())
        })
    }

    fn put(&self, insert: &str, row: &Row) -> rusqlite::Result<()> {
        let cells = params![row.id, row.name, row.email, row.qty, row.price, row.note];
        self.connection.prepare_cached(insert)?.execute(cells).map(|_| ())
    }

    /// The time of `work`. A write that fails as busy is counted and tried again, as a patient service would; the whole
    /// time counts.
    fn timed(&self, work: impl Fn() -> rusqlite::Result<()>) -> Duration {
        let start = Instant::now();
        loop {
            match work() {
                Ok(()) => return start.elapsed(),
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    BUSY_ERRORS.fetch_add(1, Ordering::SeqCst);
                    if !self.connection.is_autocommit() {
                        self.connection.execute_batch("ROLLBACK").unwrap();
                    }
                }
                Err(error) => panic!("a service's write failed: {error}"),
            }
        }
    }
}

fn insert_into(table: &str) -> String {
    format!("INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
}

/// Calls `work` so many times a second, `count` times. A call that takes too long is not made up for by a burst.
pub fn paced(per_second: u32, count: usize, mut work: impl FnMut(usize)) {
    let step = Duration::from_secs(1) / per_second;
    let mut due = Instant::now();
    for at in 0..count {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        work(at);
        due = (due + step).max(Instant::now());
    }
}
