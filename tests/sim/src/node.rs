//! One node of the simulation: its files, its service, its sidecar, and its clock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rowcast::clock::Timestamp;
use rowcast::edge::store::{Reader, Store};
use rowcast::position::{NodeId, Vector};
use rowcast::replica::{Moment, Options, Replica};
use rowcast_schema::declaration::Declaration;
use rusqlite::Connection;
use uuid::Uuid;

use crate::chance::Chance;
use crate::disk::{self, Failing};
use crate::service;
use crate::whole::{Seeker, Shipped};

/// 2026, in milliseconds since 1970: where the simulated time begins.
pub const EPOCH_MILLIS: i64 = 1_767_225_600_000;

/// Files of a node beside the database, by their suffix.
const FILES: [&str; 3] = ["", "-wal", "-rowcast"];

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its place among the others.
    pub number: usize,
    folder: PathBuf,
    history: &'static str,
    /// A table that is not declared here, for a while.
    pub undeclared: Option<&'static str>,
    /// The service's connection, while the service runs.
    pub service: Option<Connection>,
    /// The sidecar, while it runs.
    pub sidecar: Option<Sidecar>,
    /// The sidecar, while it has no database and looks for one.
    pub seeker: Option<Seeker>,
    /// Counts the runs of the sidecar: what was meant for an earlier one is not delivered to this one.
    pub life: u64,
    /// Its wall clock less the simulation's time, in milliseconds.
    pub clock_off: i64,
    /// How much faster its wall clock runs, in parts of a million.
    pub clock_drift: i64,
    /// How coarse its wall clock is, in milliseconds.
    pub clock_grain: i64,
    /// Faults that the sidecar's disk has now.
    pub failing: Option<(u64, Failing)>,
    /// Promises from here on were not synced yet.
    pub unsynced_from: Option<usize>,
    /// The node was READY once since its files were made.
    pub was_ready: bool,
    /// An older copy of its files, and the number of promises at that time.
    pub backup: Option<(PathBuf, usize)>,
    /// How long a member may be silent.
    pub member_timeout: Duration,
    /// It compares its rows with those of the others.
    pub verifies: bool,
    /// The id and the next sequence number when its events were looked at last.
    pub seen: (NodeId, u64),
    /// The latest that its wall clock ever was, in milliseconds.
    pub greatest_wall: i64,
    /// What it had when it was seen last.
    pub had: Vector,
    /// What the others had when its sidecar started.
    pub others_had: BTreeMap<usize, Vector>,
    /// When each of the others told it last what it has, since this start.
    pub told: BTreeMap<usize, u64>,
    /// It founds the cluster.
    pub first: bool,
    /// Its disk was lost once.
    pub disk_lost: bool,
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    /// What is tested.
    pub replica: Replica,
    /// Serves the requests of others.
    pub reader: Reader,
    /// When it started, in microseconds.
    pub started: u64,
    /// It is connected to the bus.
    pub connected: bool,
    /// Since when.
    pub connected_at: u64,
    /// Requests that were not answered yet.
    pub asked: Vec<u64>,
    /// It says READY.
    pub ready: bool,
    /// Since when it says that it is sure of itself.
    pub sure_since: Option<u64>,
    /// Everything was loaded when it started.
    pub was_loaded: bool,
    /// It has caught up since it started.
    pub caught_up: bool,
    /// A copy of the database, for a node that has none.
    pub copy: Option<Shipped>,
}

impl Node {
    /// A node whose files lie in a folder of their own.
    pub fn new(number: usize, under: &Path, history: &'static str) -> Self {
        let folder = under.join(format!("n{number}"));
        std::fs::create_dir_all(&folder).expect("a folder of the simulation can be made");
        Self {
            number,
            folder,
            history,
            undeclared: None,
            service: None,
            sidecar: None,
            seeker: None,
            life: 0,
            clock_off: 0,
            clock_drift: 0,
            clock_grain: 1,
            failing: None,
            unsynced_from: None,
            was_ready: false,
            backup: None,
            verifies: false,
            greatest_wall: 0,
            had: Vector::default(),
            others_had: BTreeMap::new(),
            told: BTreeMap::new(),
            seen: (NodeId(Uuid::nil()), 0),
            member_timeout: Duration::from_secs(3600),
            first: false,
            disk_lost: false,
        }
    }

    /// What it replicates.
    pub fn declaration(&self) -> Declaration {
        let toml = service::declaration(self.history, self.undeclared);
        Declaration::parse("schema.toml", &toml).expect("the declaration of the simulation is right")
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of it.
    pub fn file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("app.db{suffix}"))
    }

    /// Its id, while the sidecar runs.
    pub fn id(&self) -> Option<NodeId> {
        self.sidecar.as_ref().map(|sidecar| sidecar.replica.node())
    }

    /// Whether it speaks under that id, with a database or without.
    pub fn is(&self, id: NodeId) -> bool {
        self.id() == Some(id) || self.seeker.as_ref().is_some_and(|seeker| seeker.id == id)
    }

    /// Whether it can hear others.
    pub fn hears(&self) -> bool {
        self.seeker.is_some() || self.sidecar.as_ref().is_some_and(|sidecar| sidecar.connected)
    }

    /// The wall clock at a simulated time.
    pub fn wall_millis(&self, now: u64) -> i64 {
        let now = i64::try_from(now / 1000).expect("a simulated time");
        (EPOCH_MILLIS + now + now * self.clock_drift / 1_000_000 + self.clock_off) / self.clock_grain * self.clock_grain
    }

    /// The time of a call into the sidecar. SQLite sees the same clock.
    pub fn moment(&self, now: u64) -> Moment {
        let wall = self.wall_millis(now);
        disk::set_wall(wall);
        let seeks = self.seeker.as_ref().map_or(now, |seeker| seeker.started);
        let started = self.sidecar.as_ref().map_or(seeks, |sidecar| sidecar.started);
        // A node does not start at zero: what compares an uptime with one of before must not meet the end of the range.
        let uptime = Duration::from_micros(1_000_000 + now - started);
        Moment { wall: Timestamp::from_millis(wall), uptime }
    }

    /// Starts the service: it opens its database as services do.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn start_service(&mut self) -> rusqlite::Result<()> {
        let connection = Connection::open(self.file(""))?;
        connection.execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 1000;
             PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 60",
        )?;
        self.service = Some(connection);
        Ok(())
    }

    /// Starts the sidecar, in a process of its own or in that which looked for a database.
    ///
    /// # Errors
    /// What it says when it cannot start.
    pub fn start_sidecar(&mut self, now: u64, chance: &mut Chance) -> Result<(), String> {
        let declaration = self.declaration();
        let mut at = self.moment(now);
        at.uptime = Duration::from_secs(1);
        let options = Options {
            name: format!("n{}", self.number),
            servers: "simulated".into(),
            first: self.first && !self.was_ready,
            presence_interval: Duration::from_secs(1),
            presence_wait: Duration::from_secs(2),
            context_timeout: Duration::from_secs(10),
            reconcile_interval: Duration::from_secs(10),
            verify_interval: if self.verifies { Duration::from_secs(15) } else { Duration::ZERO },
            member_timeout: self.member_timeout,
            session: Uuid::from_u64_pair(chance.number(), chance.number()),
        };
        let store = Store::open(&self.file(""), declaration).map_err(|error| error.chain())?;
        let was_loaded = store.durable().loaded;
        let reader = Reader::open(store.path(), store.declaration()).map_err(|error| error.chain())?;
        let replica = Replica::new(store, options, at).map_err(|error| error.chain())?;
        self.sidecar = Some(Sidecar {
            replica,
            reader,
            started: now,
            connected: false,
            connected_at: now,
            asked: Vec::new(),
            ready: false,
            sure_since: None,
            was_loaded,
            caught_up: false,
            copy: None,
        });
        Ok(())
    }

    /// The sidecar is gone, with what it had in memory.
    pub fn stop_sidecar(&mut self) {
        self.sidecar = None;
        self.seeker = None;
        self.life += 1;
    }

    /// Service and sidecar die at once. What they wrote is in the files, in the system's memory.
    pub fn die(&mut self) {
        // Nothing may happen on the way out that would not happen: a checkpoint when the last connection closes.
        disk::arm(0, Failing::Dead);
        self.stop_sidecar();
        self.service = None;
        disk::disarm();
        std::fs::remove_file(self.file("-shm")).ok();
    }

    /// Whether it lost its disk, and has not begun with another database.
    pub fn has_no_database(&self) -> bool {
        self.seeker.is_some() || (self.disk_lost && !self.file("").exists())
    }

    /// Copies its files as they are to another place.
    pub fn copy_to(&self, folder: &Path, with_identity: bool) {
        std::fs::create_dir_all(folder).expect("a folder of the simulation can be made");
        for suffix in FILES.iter().filter(|suffix| with_identity || **suffix != "-rowcast") {
            let to = folder.join(format!("app.db{suffix}"));
            std::fs::remove_file(&to).ok();
            std::fs::copy(self.file(suffix), to).ok();
        }
    }

    /// Puts copied files in the place of its own. Nothing of it may run.
    pub fn replace_by(&mut self, folder: &Path, with_identity: bool) {
        assert!(self.service.is_none() && self.sidecar.is_none(), "a running node's files are left alone");
        std::fs::remove_file(self.file("-shm")).ok();
        disk::forget(&self.folder);
        for suffix in FILES.iter().filter(|suffix| with_identity || **suffix != "-rowcast") {
            let to = self.file(suffix);
            std::fs::remove_file(&to).ok();
            std::fs::copy(folder.join(format!("app.db{suffix}")), to).ok();
        }
        ["", "-wal"].iter().for_each(|suffix| disk::adopt(&self.file(suffix)));
    }
}
