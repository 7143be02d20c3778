//! The floors: what the same work costs without Rowcast, on the same machine in the same run.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rowcast_tests::{NatsServer, Node};
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tokio::runtime::{Builder, Runtime};

use crate::service::Service;
use crate::w0::Row;

/// One SQLite commit with fdatasync, one NATS publish-to-receive, one SQLite commit.
pub struct Hop {
    runtime: Runtime,
    publisher: async_nats::Client,
    subscriber: async_nats::Subscriber,
    written: Service,
    applied: Service,
}

impl Hop {
    /// Two files in `folder`, and two connections to `nats`.
    pub fn new(nats: &NatsServer, folder: &Path) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (publisher, subscriber) = runtime.block_on(async {
            let publisher = async_nats::connect(nats.url()).await.unwrap();
            let receiver = async_nats::connect(nats.url()).await.unwrap();
            let subscriber = receiver.subscribe("hop").await.unwrap();
            receiver.flush().await.unwrap();
            (publisher, subscriber)
        });
        let written = Service::plain(folder, "hop-written.db");
        // In WAL mode FULL is one fdatasync of the WAL at each commit.
        written.connection().pragma_update(None, "synchronous", "FULL").unwrap();
        Self { runtime, publisher, subscriber, written, applied: Service::plain(folder, "hop-applied.db") }
    }

    /// Carries one row over.
    pub fn carry(&mut self, row: &Row) -> Duration {
        let start = Instant::now();
        self.written.single(row);
        // As large as the row as JSON.
        let payload =
            [&row.id, &row.name, &row.email, &row.note, "the names of six columns and what is around them, 60 bytes"];
        let payload = payload.concat();
        self.runtime.block_on(async {
            self.publisher.publish("hop", payload.into()).await.unwrap();
            let next = tokio::time::timeout(Duration::from_secs(10), self.subscriber.next());
            next.await.expect("a message arrives within ten seconds").expect("the subscription is open");
        });
        self.applied.single(row);
        start.elapsed()
    }
}

/// Rows in a transaction of [`Applier`].
const APPLIED: usize = 10_000;
/// The page cache of a node that is behind, in KiB, and the frames from which on its commits copy the log.
const CACHE_KIB: i64 = 16 * 1024;
const LOG_FRAMES: i64 = 16_000;

/// One writer that stores rows and their events from memory: the file of a replica without a replicator. It has the page cache that
/// a node has which is behind, copies its log as seldom, and applies what one transaction has in the order of the records.
pub struct Applier {
    connection: Connection,
    upsert: String,
    event: String,
}

/// A source of rows or events: all cells of each.
type Cells = Vec<Vec<Value>>;

impl Applier {
    /// A new file in `folder` with the tables and indexes that `node` has.
    pub fn like(node: &Node, folder: &Path, name: &str) -> Self {
        let connection = Connection::open(folder.join(name)).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
        connection.pragma_update(None, "cache_size", -CACHE_KIB).unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", LOG_FRAMES).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        let source = node.service();
        let sql = "SELECT sql FROM sqlite_master WHERE tbl_name IN ('items', 'items_Events') AND type IN ('table', 'index') AND sql NOT NULL ORDER BY type DESC, rowid";
        let statements =
            source.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>();
        connection.execute_batch(&statements.unwrap().join(";\n")).unwrap();
        let columns = |table| {
            let count = source.prepare(&format!("SELECT * FROM {table}")).unwrap().column_count();
            (1..=count).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ")
        };
        let upsert = format!(
            "INSERT INTO items VALUES ({}) ON CONFLICT(id) DO UPDATE SET name = excluded.name, email = excluded.email, qty = excluded.qty, price = excluded.price, note = excluded.note",
            columns("items")
        );
        let event = format!("INSERT INTO items_Events VALUES ({})", columns("items_Events"));
        Self { connection, upsert, event }
    }

    /// Stores everything that two queries on `node` give, rows and events. Reading the source is not in the time, nor to bring
    /// it into order.
    pub fn apply(&self, node: &Node, rows: &str, events: &str) -> Duration {
        let source = node.service();
        let moment = source.unchecked_transaction().unwrap();
        let (mut rows, mut events) = (moment.prepare(rows).unwrap(), moment.prepare(events).unwrap());
        let (key, record) = (rows.column_index("id").unwrap(), events.column_index("record_id").unwrap());
        let (width, event_width) = (rows.column_count(), events.column_count());
        let (mut rows, mut events) = (rows.query([]).unwrap(), events.query([]).unwrap());
        let mut time = Duration::ZERO;
        loop {
            let (mut rows, mut events) = (take(&mut rows, width), take(&mut events, event_width));
            rows.sort_by(|a, b| text(&a[key]).cmp(text(&b[key])));
            events.sort_by(|a, b| text(&a[record]).cmp(text(&b[record])));
            assert_eq!(rows.len(), events.len(), "each row has one event");
            if rows.is_empty() {
                return time;
            }
            let start = Instant::now();
            self.store(&rows, &events).unwrap();
            time += start.elapsed();
        }
    }

    fn store(&self, rows: &Cells, events: &Cells) -> rusqlite::Result<()> {
        let mut upsert = self.connection.prepare_cached(&self.upsert)?;
        let mut event = self.connection.prepare_cached(&self.event)?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for (row, cells) in rows.iter().zip(events) {
            event.execute(params_from_iter(cells))?;
            upsert.execute(params_from_iter(row))?;
        }
        self.connection.execute_batch("COMMIT")
    }
}

fn text(cell: &Value) -> &str {
    let Value::Text(text) = cell else { panic!("W0's keys are text, and so are the ids of its records: {cell:?}") };
    text
}

fn take(from: &mut rusqlite::Rows<'_>, width: usize) -> Cells {
    let mut taken = Cells::new();
    while taken.len() < APPLIED
        && let Some(row) = from.next().unwrap()
    {
        taken.push((0..width).map(|at| row.get(at).unwrap()).collect());
    }
    taken
}

/// VACUUM INTO, and a copy of the result with fsync: what a person would do with `cp`.
pub fn copy(node: &Node, folder: &Path) -> Duration {
    let (vacuumed, copied) = (folder.join("vacuumed.db"), folder.join("copied.db"));
    let source = node.service();
    let start = Instant::now();
    source.execute("VACUUM INTO ?1", [vacuumed.to_str().expect("temporary paths are UTF-8")]).unwrap();
    std::fs::copy(&vacuumed, &copied).unwrap();
    File::open(&copied).and_then(|file| file.sync_all()).unwrap();
    let time = start.elapsed();
    std::fs::remove_file(vacuumed).unwrap();
    std::fs::remove_file(copied).unwrap();
    time
}

/// A plain file with the rows `0..filled`.
pub fn plain(folder: &Path, name: &str, filled: u64) -> Service {
    let plain = Service::plain(folder, name);
    plain.fill(0..filled, 10_000);
    plain
}
