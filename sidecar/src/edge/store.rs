//! The service's database: the only place that names rusqlite.
//!
//! [`Store`] owns the one connection that writes. Every change of it goes through [`Store::write`], one immediate
//! transaction, in which [`Tx`] offers what the stages need; the stages decide, this module does. What a stage changes
//! in memory (positions, clock) is kept only when the commit succeeded.
//!
//! [`Reader`] serves other nodes and the status page from a connection of its own that can change nothing.
//!
//! Nothing here opens the database or its `-shm` outside SQLite: closing such a handle would drop SQLite's locks. The
//! `-wal` carries none, and is opened to be synced.

pub mod catalogue;
mod cell;
mod checkpoint;
mod claim;
mod compaction;
pub mod conflicts;
mod contexts;
mod damage;
mod definition;
mod digest;
mod drift;
mod dropping;
mod error;
mod fingerprints;
mod guard;
mod identity;
mod install;
mod journal;
mod layouts;
mod migration;
mod open;
pub mod operator;
mod parked;
mod reader;
mod references;
mod renewal;
mod replicated;
mod room;
mod roster;
mod rows;
mod serve;
mod shelf;
mod staged;
mod state;
mod strays;
mod tx;
mod uninstall;
pub mod whole;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rowcast_schema::declaration::Declaration;
use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::{event_table, identifier};
use rusqlite::Connection;
use uuid::Uuid;

pub(crate) use self::cell::{keeps, with_affinity};
pub use self::checkpoint::{Bounds, Checkpointer, Log};
pub use self::claim::Claim;
pub use self::compaction::Visit;
pub use self::conflicts::{ConflictRow, Met};
pub use self::damage::Kept;
pub use self::digest::{Survey, Unknown};
pub use self::drift::{Pending, Told, Want};
pub use self::dropping::Stored;
use self::error::{Doing as _, damaged};
pub use self::error::{Error, Remedy};
pub use self::journal::{Ends, JournalRow, OpenGroup};
pub use self::layouts::KnownLayout;
pub use self::migration::{Migration, is_under_way as is_migrating};
pub use self::open::ensure_wal;
pub use self::operator::ParkedRow;
pub use self::parked::{ParkReason, ParkedEvent, Why};
pub use self::reader::{Facts, Reader};
pub use self::renewal::{Moved, Renewal};
pub use self::replicated::{Replicated, Shape, Tables};
pub use self::room::room;
pub use self::roster::{expel, members_of};
pub use self::rows::Written;
pub use self::serve::{Answer, Definitions, Fingerprints, Page, SnapshotPage, SnapshotRow};
pub use self::staged::Staged;
pub use self::tx::{Content, Newest, Place, Tx};
pub use self::uninstall::{Removed, uninstall};
use crate::clock::{Clock, Timestamp};
use crate::event::EventId;
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};

/// What this node knows of itself and of the others: in memory as it was at the last commit.
#[derive(Clone, Debug)]
pub struct Durable {
    /// This node.
    pub node: NodeId,
    /// How far everything is stored, per origin; of this node: the last finished group.
    pub vector: Vector,
    /// The clock.
    pub clock: Clock,
    /// The next sequence number to give out.
    pub next: Sequence,
    /// The group that is being ingested in several transactions.
    pub open_group: Option<OpenGroup>,
    /// The context of this node's newest events.
    pub context: Vector,
    /// Up to where events cannot be served one by one.
    pub horizon: Vector,
    /// Whether everything was loaded once: what is written since is a change.
    pub loaded: bool,
    /// Whether this node was READY once.
    pub complete: bool,
    /// What is to be reached before what was loaded is whole; empty when it is. Beyond the position parts of it are stored.
    pub load_target: Vector,
    /// The number of parked events.
    pub parked: u64,
    /// How many of them wait because of their timestamps.
    pub doubtful: u64,
    /// A change of the node id whose events are not all moved yet: until then nothing is ingested or applied.
    pub renewal: Option<Renewal>,
    /// Whether any of them is to be tried at once.
    pub due: bool,
    /// Where transactions of the service are known to end in the journal.
    pub journal_ends: Ends,
    /// The ids that this database had before, the newest last: numbers of theirs may have been given out twice.
    pub former: Vec<NodeId>,
}

/// The database, its declaration, and the one connection that writes.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    guard: guard::Guard,
    path: PathBuf,
    declaration: Declaration,
    tables: Tables,
    durable: Durable,
    pending: Vec<Pending>,
    wal: File,
    schema_version: i64,
    /// The schema version under which parked events were tried.
    stirred_version: i64,
    data_version: i64,
    /// The tables were not looked at yet.
    starting: bool,
    claim: Claim,
    new_identity: bool,
    held: Duration,
}

impl Store {
    /// Opens the database, which is made if it does not exist; makes Rowcast's tables, takes the lock, and knows who it is.
    ///
    /// # Errors
    /// When another sidecar runs, the file is unusable, or a declared table cannot be replicated.
    pub fn open(path: &Path, declaration: Declaration) -> Result<Self, Error> {
        Self::open_claimed(Claim::take(path)?, declaration)
    }

    /// The same with a right to the database that was taken before.
    ///
    /// # Errors
    /// As above.
    pub fn open_claimed(claim: Claim, declaration: Declaration) -> Result<Self, Error> {
        let path = claim.database().to_owned();
        let mut store = Self::open_at(&path, claim, declaration, true)?;
        store.claim.settled()?;
        Ok(store)
    }

    /// A file that is not in its place yet speaks under no id: nothing about that is to be proved.
    fn open_at(path: &Path, claim: Claim, declaration: Declaration, in_place: bool) -> Result<Self, Error> {
        let mut connection = open::for_writing(path)?;
        let guard = guard::Guard::default();
        guard.watch(&mut connection)?;
        install::begin(&connection)?;
        let made = install::bookkeeping(&connection, &declaration)
            .and_then(|()| claim.name(&connection))
            .and_then(|()| install::commit(&connection));
        if let Err(error) = made {
            install::rollback(&connection);
            return Err(error);
        }
        let wal_path = identity::beside(path, "-wal");
        let wal = File::open(&wal_path).map_err(|source| Error::File { doing: "open", path: wal_path, source })?;
        let durable = state::load(&connection)?;
        let mut store = Self {
            connection,
            guard,
            path: path.to_owned(),
            declaration,
            tables: Tables::default(),
            durable,
            pending: Vec::new(),
            wal,
            schema_version: -1,
            stirred_version: -1,
            data_version: NEVER_LOOKED,
            starting: true,
            claim,
            new_identity: false,
            held: Duration::ZERO,
        };
        if in_place {
            store.prove_identity()?;
        }
        store.write(|_| Ok(()))?; // Follows the schema: makes event tables and triggers.
        store.starting = false;
        store.harden()?;
        Ok(store)
    }

    /// A copied or restored database gets a new id: its old one may be in use elsewhere.
    fn prove_identity(&mut self) -> Result<(), Error> {
        let outside = self.claim.lock.nonce()?;
        let inside = state::state(&self.connection, "nonce")?.and_then(|text| Uuid::try_parse(&text).ok());
        // A database that was never started has no nonce. One that was may be a copy, even if it never wrote anything.
        let fresh = inside.is_none();
        if outside != inside && !fresh {
            let old = self.durable.node;
            // One that was left before must be left for good before this one is.
            while !self.write(|tx| tx.move_events(limits::APPLY_ROWS_MAX as u64))?.done {}
            // A copy knows only what was true when it was made: all of it is the old id's, but for a group that was not whole.
            let from = self.durable.vector.of(old) + 1;
            self.write(|tx| tx.begin_renewal(from))?;
            tracing::warn!(
                old_node_id = %old,
                node_id = %self.durable.node,
                "the file beside the database does not match it: it was copied or restored, so it gets a new node id"
            );
        }
        self.new_identity = outside != inside || fresh;
        let nonce = Uuid::new_v4();
        // The file first: a crash in between makes them differ, and that is noticed.
        state::set_state(&self.connection, "nonce", &nonce.hyphenated().to_string())?;
        self.harden()?;
        self.claim.lock.set_nonce(nonce)
    }

    /// Runs `work` in one immediate transaction. What it changed, in the database and in memory, is kept together or
    /// not at all.
    ///
    /// # Errors
    /// What `work` fails with, or SQLite at begin and commit.
    pub fn write<R>(&mut self, work: impl FnOnce(&mut Tx<'_>) -> Result<R, Error>) -> Result<R, Error> {
        self.begin()?;
        let began = Instant::now();
        let result = self.commit(work);
        self.held += began.elapsed();
        result
    }

    /// Waits for the write lock. A service that has it, and never for long, commits meanwhile: it is looked where its
    /// transactions end.
    fn begin(&mut self) -> Result<(), Error> {
        self.connection.busy_handler(None::<fn(i32) -> bool>).doing("set up the connection")?;
        let mut tries = 0;
        let began = loop {
            match install::begin(&self.connection) {
                Err(error) if error.remedy() == Remedy::TryAgain && open::wait_for_lock(tries) => {
                    tries += 1;
                    self.see_journal();
                }
                began => break began,
            }
        };
        self.connection.busy_handler(Some(open::wait_for_lock)).doing("set up the connection").and(began)
    }

    fn commit<R>(&mut self, work: impl FnOnce(&mut Tx<'_>) -> Result<R, Error>) -> Result<R, Error> {
        let result = self.inside(work);
        match result {
            Ok((value, durable)) => {
                if let Err(error) = install::commit(&self.connection) {
                    self.forget_after_failure();
                    return Err(error);
                }
                self.durable = durable;
                self.stirred_version = self.schema_version;
                Ok(value)
            }
            Err(error) => {
                self.forget_after_failure();
                Err(error)
            }
        }
    }

    /// For how long the write lock was held so far, without the waits for it.
    pub fn held(&self) -> Duration {
        self.held
    }

    fn inside<R>(&mut self, work: impl FnOnce(&mut Tx<'_>) -> Result<R, Error>) -> Result<(R, Durable), Error> {
        self.follow_schema()?;
        self.look_at_pending()?;
        let mut tx = Tx::new(&self.connection, &self.tables, &self.pending, self.durable.clone());
        let value = work(&mut tx)?;
        tx.write_positions()?;
        Ok((value, tx.into_durable()))
    }

    /// What a change of the schema left to be compared is looked at once, before anything else happens to the rows.
    fn look_at_pending(&mut self) -> Result<(), Error> {
        if !self.durable.loaded || self.pending.iter().all(|pending| pending.want.since.is_some()) {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let mut tx = Tx::new(&self.connection, &self.tables, &[], self.durable.clone());
        for pending in pending.iter_mut().filter(|pending| pending.want.since.is_none()) {
            pending.want = tx.look_at_pending(pending)?;
        }
        self.pending = pending;
        Ok(())
    }

    /// After any error SQLite may have rolled back already; and what was learnt of the schema may be undone.
    fn forget_after_failure(&mut self) {
        install::rollback(&self.connection);
        self.schema_version = -1;
    }

    /// When the schema changed, whoever changed it: looks again, and makes the triggers fit. Within the transaction, so
    /// that no write of the service slips between.
    fn follow_schema(&mut self) -> Result<(), Error> {
        if install::schema_version(&self.connection)? == self.schema_version {
            return Ok(());
        }
        migration::keep_away(&self.connection, &self.path)?;
        let found = catalogue::tables(&self.connection)?;
        self.guard.follow(&self.declaration, &found, &serve::event_tables(&self.connection)?);
        self.tables = Tables::of(&self.connection, &self.declaration, found, self.starting)?;
        self.pending = install::follow(&self.connection, &self.tables)?;
        if self.tables.any_leaves() {
            // What happens to their rows from here on is not seen: whether a suspect is alive they say now, or never.
            let mut tx = Tx::new(&self.connection, &self.tables, &[], self.durable.clone());
            while !tx.settle_suspects(i64::MAX, limits::INGEST_ROWS_MAX)? {}
            self.durable.journal_ends = Ends::default();
        }
        self.schema_version = install::schema_version(&self.connection)?;
        if self.stirred_version != self.schema_version {
            parked::stir_all(&self.connection)?;
        }
        let durable = &mut self.durable;
        (durable.parked, durable.doubtful, durable.due) = parked::count(&self.connection)?;
        Ok(())
    }

    /// The tables that a load asks for: those that are declared, and others of which there are events here. The donor may have none
    /// of them any more.
    pub fn loaded_tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = self.tables.iter().map(|table| table.name.clone()).collect();
        match strays::tables(&self.connection, &tables) {
            Ok(others) => tables.extend(others),
            Err(error) => {
                tracing::warn!(%error, "what is kept of tables that are not declared here is not compared with the donor's")
            }
        }
        tables
    }

    /// The tables with events of other nodes, declared or not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn tables_of_others(&self) -> Result<Vec<String>, Error> {
        let [first, last] =
            [0, Sequence::MAX >> 1].map(|sequence| EventId { origin: self.durable.node, sequence }.to_string());
        let has_others = |table: &String| {
            let events = identifier::quoted(&event_table::name(table));
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM {events} WHERE id < ?1) OR EXISTS (SELECT 1 FROM {events} WHERE ?2 < id)"
            );
            self.connection.query_row(&sql, (&first, &last), |row| row.get::<_, bool>(0))
        };
        let mut others = Vec::new();
        for table in serve::event_tables(&self.connection)? {
            if has_others(&table).doing_with(|| format!("look for events of others in `{table}`"))? {
                others.push(table);
            }
        }
        Ok(others)
    }

    /// Whether a migration is under way, so that nothing can be written.
    ///
    /// # Errors
    /// When SQLite cannot read the database.
    pub fn migrates(&self) -> Result<bool, Error> {
        migration::is_running(&self.connection, &self.path)
    }

    /// Puts everything committed so far, the service's own commits included, onto the disk.
    ///
    /// # Errors
    /// When the disk fails; nothing may be published then, and nothing is known of what was written since.
    pub fn harden(&self) -> Result<(), Error> {
        let failed = |source| Error::File { doing: "sync", path: identity::beside(&self.path, "-wal"), source };
        self.wal.sync_data().map_err(failed)
    }

    /// Whether another connection has committed since the last call. The first call tells nothing: a node begins with a look
    /// into the journal in any case.
    ///
    /// # Errors
    /// When SQLite cannot read the database.
    pub fn changed_by_others(&mut self) -> Result<bool, Error> {
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .doing("read PRAGMA data_version")?;
        let before = std::mem::replace(&mut self.data_version, version);
        Ok(before != version && before != NEVER_LOOKED)
    }

    /// Whether the node id was made by this start: then nobody else can speak under it.
    pub fn has_new_identity(&self) -> bool {
        self.new_identity
    }

    /// As of the last commit.
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// The replicated tables, as of the last transaction.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Tables whose rows must be compared with their events, and why: kept over restarts until it is done.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// The rows of `table` agree with their events again, as of `round`.
    pub fn forget_pending(&mut self, table: &str, round: i64) {
        self.pending.retain(|pending| pending.table != table || pending.want.round != round);
    }

    /// A layout that a table has or an event refers to.
    pub fn known_layout(&self, id: LayoutId) -> Option<Layout> {
        let shapes = self.tables.iter().filter_map(|table| table.shape.as_ref());
        let now = shapes.map(|shape| shape.layout.as_ref()).find(|layout| layout.id == id).cloned();
        now.or_else(|| state::layout(&self.connection, id).ok().flatten())
    }

    /// The declaration.
    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the database file, by SQLite's own count.
    pub fn bytes(&self) -> u64 {
        let pages = self.connection.query_row(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            [],
            |row| row.get(0),
        );
        pages.unwrap_or(0)
    }

    /// The bytes of the `-wal` now.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Consecutive events of one origin, from our own tables: what publish takes when memory does not have it.
    ///
    /// # Errors
    /// When SQLite fails, or our tables hold what we did not write.
    pub fn events(&self, origin: NodeId, first: Sequence, last: Sequence) -> Result<Page, Error> {
        serve::events(
            &self.connection,
            &serve::event_tables(&self.connection)?,
            origin,
            (first, last),
            limits::PAGE_BYTES,
        )
    }

    /// The greatest timestamp that the clock has seen.
    pub fn last_timestamp(&self) -> Timestamp {
        self.durable.clock.last()
    }
}

/// SQLite never gives a database this data version.
const NEVER_LOOKED: i64 = -1;

fn parse<T: std::str::FromStr>(place: &str, text: &str) -> Result<T, Error>
where
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| damaged(place, error.to_string()))
}
