//! Rowcast's own small tables, as DDL.
//!
//! They live in the service's database because a position and the rows it speaks of must commit together.

/// Facts of this node, by key: see the sidecar's store for the keys.
pub const STATE: &str = "_rowcast_state";
/// Per origin, how far everything is stored here.
pub const POSITIONS: &str = "_rowcast_positions";
/// What an author had seen, each time that changed.
pub const CONTEXTS: &str = "_rowcast_contexts";
/// Every layout that an event here refers to.
pub const LAYOUTS: &str = "_rowcast_layouts";
/// Events that are stored and could not be applied.
pub const PARKED: &str = "_rowcast_parked";
/// What stood where a damaged record was mended.
pub const MENDED: &str = "_rowcast_mended";

/// Every node that was ever heard.
pub const MEMBERS: &str = "_rowcast_members";

/// Pairs of events that met without knowing of each other.
pub const CONFLICTS: &str = "_rowcast_conflicts";

/// The tables above, all of them.
pub const TABLES: [&str; 8] = [STATE, POSITIONS, CONTEXTS, LAYOUTS, PARKED, MENDED, MEMBERS, CONFLICTS];

/// The statements that make them, where they do not exist.
pub const CREATE: [&str; 11] = [
    "CREATE TABLE IF NOT EXISTS _rowcast_state (
  key TEXT PRIMARY KEY NOT NULL,
  value NOT NULL
) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _rowcast_positions (
  origin TEXT PRIMARY KEY NOT NULL,
  position INTEGER NOT NULL,  -- every event up to here is stored; of this node: its head
  horizon INTEGER NOT NULL,   -- events up to here may be missing their superseded ones: not served one by one
  timestamp INTEGER NOT NULL  -- the greatest timestamp taken from this origin: the clock never goes below it
) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _rowcast_contexts (
  origin TEXT NOT NULL,
  first INTEGER NOT NULL,     -- the first sequence number made with this vector
  vector TEXT NOT NULL,       -- JSON: origin to position, as the author had it
  PRIMARY KEY (origin, first)
) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _rowcast_members (
  node TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  heard_at INTEGER NOT NULL,  -- milliseconds since 1970
  vector TEXT NOT NULL,       -- JSON: origin to position, as it said when this node had caught up with it
  stamp INTEGER NOT NULL,     -- what it numbers after that vector is later than this
  lost TEXT NOT NULL,         -- JSON list of nodes: whom it took nothing from any more
  standing TEXT NOT NULL      -- member, lost, expelled
) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _rowcast_layouts (
  layout INTEGER PRIMARY KEY NOT NULL,
  table_name TEXT NOT NULL,
  columns TEXT NOT NULL,      -- JSON list of names
  key TEXT NOT NULL,          -- JSON list of places in columns
  here INTEGER NOT NULL DEFAULT 0 -- 1: the table in this database has it, or had it once
)",
    "CREATE TABLE IF NOT EXISTS _rowcast_parked (
  event TEXT PRIMARY KEY NOT NULL, -- id in its event table, where processed = 0
  table_name TEXT NOT NULL,
  record_id TEXT NOT NULL,
  reason TEXT NOT NULL,       -- unique, constraint, clock, schema
  detail TEXT NOT NULL,
  parked_at INTEGER NOT NULL, -- milliseconds since 1970
  timestamp INTEGER NOT NULL, -- the event's own: the greatest is tried first
  holder TEXT,                -- unique: the record that holds the value
  due BOOLEAN NOT NULL DEFAULT TRUE, -- what is in its way may have changed: it is tried at once
  tried_at INTEGER NOT NULL DEFAULT 0, -- milliseconds since 1970
  dropping BOOLEAN NOT NULL DEFAULT FALSE -- the operator gives it up: a new event is to supersede it
) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _rowcast_mended (
  n INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,        -- milliseconds since 1970
  table_name TEXT NOT NULL,
  record_id TEXT NOT NULL,
  what TEXT NOT NULL,         -- row, or event and its id
  found TEXT,                 -- what stood there, as JSON; NULL: nothing did
  made TEXT                   -- what stands there now
)",
    "CREATE TABLE IF NOT EXISTS _rowcast_conflicts (
  n INTEGER PRIMARY KEY,      -- the order in which they were met here
  id TEXT NOT NULL UNIQUE,    -- both events, the lesser id first: the same on every node
  table_name TEXT NOT NULL,
  record_id TEXT NOT NULL,
  winner TEXT NOT NULL,       -- the event that counts
  loser TEXT NOT NULL,
  rule TEXT NOT NULL,
  met_at INTEGER NOT NULL     -- milliseconds since 1970
)",
    "CREATE INDEX IF NOT EXISTS _rowcast_parked_record ON _rowcast_parked (table_name, record_id)",
    "CREATE INDEX IF NOT EXISTS _rowcast_parked_holder ON _rowcast_parked (table_name, holder) WHERE holder IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS _rowcast_parked_due ON _rowcast_parked (timestamp, event) WHERE due",
];
