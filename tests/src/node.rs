//! One node: a database file, the service's connections to it, and the sidecar process beside it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value as Json;

use crate::eventually::{bound, eventually};
use crate::process::{Process, Signal, tail};
use crate::rows::{self, Dump};
use crate::{binary, http, port};

/// A node of a cluster. Its methods take `&self`, so that writers and watchers can share it.
pub struct Node {
    name: String,
    folder: PathBuf,
    database: PathBuf,
    schema: PathBuf,
    http: u16,
    nats: Mutex<String>,
    settings: Mutex<Vec<(String, String)>>,
    as_shipped: AtomicBool,
    sidecar: Mutex<Option<Process>>,
    service: Mutex<Option<Connection>>,
    ignored: Vec<String>,
}

impl Node {
    /// A node in `folder`, not started, without a database file.
    pub fn new(name: &str, folder: &Path, schema: &Path, nats: &str, ignored: &[String]) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            database: folder.join("app.db"),
            schema: schema.to_owned(),
            http: port::free(),
            nats: Mutex::new(nats.to_owned()),
            settings: Mutex::default(),
            as_shipped: AtomicBool::new(false),
            sidecar: Mutex::default(),
            service: Mutex::default(),
            ignored: ignored.to_vec(),
        }
    }

    /// The same node, with its database file at another place.
    pub fn with_database(mut self, database: &Path) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// Its name on the command line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its database file.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// The folder of the node: its database, its log, what a story puts there.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The schema TOML it is started with.
    pub fn schema(&self) -> &Path {
        &self.schema
    }

    /// The port of its HTTP pages.
    pub fn http_port(&self) -> u16 {
        self.http
    }

    // === The sidecar ===

    /// From the next start on, the sidecar finds NATS at `url`.
    pub fn through(&self, url: &str) {
        url.clone_into(&mut lock(&self.nats));
    }

    /// From the next start on, the sidecar has `ROWCAST_<KEY>` in its environment.
    pub fn set(&self, key: &str, value: &str) {
        lock(&self.settings).push((format!("ROWCAST_{key}"), value.to_owned()));
    }

    /// From the next start on, the sidecar has the defaults of an operator, not those of a story.
    pub fn as_shipped(&self) {
        self.as_shipped.store(true, Ordering::SeqCst);
    }

    /// The arguments of `rowcast run` for this node.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
        let pairs = [
            ("--node", self.name.clone()),
            ("--database", path(&self.database)),
            ("--schema", path(&self.schema)),
            ("--nats", lock(&self.nats).clone()),
            ("--http", format!("127.0.0.1:{}", self.http)),
        ];
        let pairs = pairs.into_iter().flat_map(|(key, value)| [key.to_owned(), value]);
        std::iter::once("run".to_owned()).chain(pairs).collect()
    }

    /// Starts the sidecar. Does not wait for anything.
    pub fn start(&self) {
        self.start_with(&[]);
    }

    /// As [`Node::start`], with more arguments, such as `--first`.
    pub fn start_with(&self, more: &[&str]) {
        let mut sidecar = lock(&self.sidecar);
        assert!(sidecar.is_none(), "the sidecar of {} is already running", self.name);
        let shipped = self.as_shipped.load(Ordering::SeqCst);
        let mut command = if shipped { binary::shipped() } else { binary::command() };
        command.args(self.arguments()).args(more).envs(lock(&self.settings).iter().cloned());
        let what = format!("the sidecar of {}", self.name);
        // With `--exec` it has a child, which must go too.
        let spawn = if more.contains(&"--exec") { Process::spawn_group } else { Process::spawn };
        *sidecar = Some(spawn(&what, command, &self.log_file()));
    }

    /// Ends the sidecar with SIGKILL.
    pub fn kill(&self) {
        self.take_sidecar().kill();
    }

    /// Ends the sidecar with SIGTERM and waits until it is gone.
    pub fn stop(&self) -> ExitStatus {
        let mut sidecar = self.take_sidecar();
        sidecar.signal(Signal::TERM);
        sidecar.wait(bound())
    }

    /// Stops, and starts again.
    pub fn restart(&self) {
        assert!(self.stop().success(), "the sidecar of {} did not end well:\n{}", self.name, self.log());
        self.start();
    }

    /// Sends the sidecar a signal: STOP, CONT, HUP.
    pub fn signal(&self, signal: Signal) {
        lock(&self.sidecar).as_ref().expect("the sidecar is not running").signal(signal);
    }

    /// Whether the sidecar runs.
    pub fn alive(&self) -> bool {
        lock(&self.sidecar).as_mut().is_some_and(|sidecar| sidecar.ended().is_none())
    }

    /// The process id of the running sidecar.
    pub fn id(&self) -> u32 {
        lock(&self.sidecar).as_ref().expect("the sidecar is not running").id()
    }

    /// The most memory that the running sidecar has taken so far, in MiB.
    ///
    /// # Panics
    /// Where the kernel does not tell: other than on Linux.
    pub fn peak_memory_mib(&self) -> u64 {
        let id = self.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") / 1024
    }

    /// Waits until the sidecar ends by itself.
    pub fn ended(&self) -> ExitStatus {
        self.take_sidecar().wait(bound())
    }

    fn take_sidecar(&self) -> Process {
        lock(&self.sidecar).take().unwrap_or_else(|| panic!("the sidecar of {} is not running", self.name))
    }

    /// What the sidecar said, in all its lives.
    pub fn log(&self) -> String {
        tail(&self.log_file(), 1 << 20)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("sidecar.log")
    }

    // === Its pages ===

    /// The status and body of one of its pages; `None` when nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.http, path)
    }

    /// The status and JSON of a page; `(0, null)` when nobody answers.
    pub fn json(&self, path: &str) -> (u16, Json) {
        match self.get(path) {
            None => (0, Json::Null),
            Some((status, body)) => {
                let json = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}\n{body}"));
                (status, json)
            }
        }
    }

    /// What `/readyz` says now: 200 or 503 (0 when nobody answers), and why.
    pub fn readyz(&self) -> (u16, Json) {
        self.json("/readyz")
    }

    /// What `/status` says now.
    pub fn status(&self) -> Json {
        self.json("/status").1
    }

    /// Whether it is READY now.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// Waits until it is READY.
    ///
    /// # Panics
    /// When it is not by the bound, or its sidecar ends meanwhile.
    pub fn ready(&self) -> &Self {
        eventually(&format!("{} is READY", self.name), || {
            assert!(self.alive(), "the sidecar of {} has ended:\n{}", self.name, self.log());
            let (status, json) = self.readyz();
            if status == 200 { Ok(()) } else { Err(format!("{status} {json}")) }
        });
        self
    }

    // === The service ===

    /// A new connection, as a service in WAL mode opens it: it waits up to five seconds for a lock, and never makes
    /// the file.
    pub fn service(&self) -> Connection {
        self.open().unwrap_or_else(|error| panic!("failed to open {}: {error}", self.database.display()))
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.database, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    /// Makes the database file, in WAL mode, with `sql` in it.
    pub fn create(&self, sql: &str) {
        let connection = Connection::open(&self.database).unwrap();
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        connection.execute_batch(sql).unwrap_or_else(|error| panic!("{error} in:\n{sql}"));
    }

    /// Runs statements of the service, each on its own unless they begin a transaction.
    pub fn sql(&self, sql: &str) {
        self.with_service(|service| service.execute_batch(sql))
            .unwrap_or_else(|error| panic!("{}: {error} in: {sql}", self.name));
    }

    /// Runs statements of the service in one transaction, which takes the write lock at once.
    pub fn transaction(&self, sql: &str) {
        self.sql(&format!("BEGIN IMMEDIATE; {sql}; COMMIT"));
    }

    /// The rows of a query, as [`rows::query`] writes them. When SQLite says no, that is the one row.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.with_service(|service| rows::query(service, sql)).unwrap_or_else(|error| vec![format!("error: {error}")])
    }

    /// The number that a query gives.
    ///
    /// # Panics
    /// When SQLite says no.
    pub fn number(&self, sql: &str) -> i64 {
        self.with_service(|service| service.prepare_cached(sql)?.query_row([], |row| row.get(0)))
            .unwrap_or_else(|error| panic!("{}: {error} in: {sql}", self.name))
    }

    /// All rows of all replicated tables.
    ///
    /// # Errors
    /// When there is no database yet, or SQLite says no.
    pub fn dump(&self) -> Result<Dump, String> {
        self.with_service(|service| rows::dump(service, &self.ignored)).map_err(|error| error.to_string())
    }

    /// What the service wrote and no event was made of yet.
    ///
    /// # Errors
    /// When there is no journal, or SQLite says no.
    pub fn journal(&self) -> Result<i64, String> {
        let count = "SELECT count(*) FROM _rowcast_journal";
        self.with_service(|service| service.query_row(count, [], |row| row.get(0))).map_err(|error| error.to_string())
    }

    /// Closes the connection that [`Node::sql`] and [`Node::rows`] use.
    pub fn close_service(&self) {
        drop(lock(&self.service).take());
    }

    fn with_service<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut service = lock(&self.service);
        if service.is_none() {
            *service = Some(self.open()?);
        }
        work(service.as_ref().expect("bug: it was just opened"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (status, readyz) = self.get("/readyz").unwrap_or_default();
            println!("=== {}: /readyz {status} {readyz}\n{}", self.name, tail(&self.log_file(), 8_000));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A story that panicked is over anyway; its node must still be dropped well.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
