//! What this node knows of itself and of the others: positions, contexts, layouts, and facts by key.

use rowcast_schema::bookkeeping;
use rowcast_schema::layout::{Layout, LayoutId};
use rusqlite::{Connection, OptionalExtension as _};

use super::error::{Doing as _, Error, damaged};
use super::renewal;
use super::tx::{Tx, signed, unsigned};
use super::{Durable, Ends, OpenGroup, definition, drift, dropping, parked, parse, serve};
use crate::clock::{Clock, Timestamp};
use crate::event::EventId;
use crate::limits;
use crate::position::{NodeId, Sequence, Vector};

impl Tx<'_> {
    /// Moves the position of `origin`, with the greatest timestamp taken from it.
    pub fn set_position(&mut self, origin: NodeId, position: Sequence, timestamp: Timestamp) -> Result<(), Error> {
        self.durable.vector.set(origin, position);
        self.durable.clock.merge(timestamp);
        self.connection
            .prepare_cached(
                "INSERT INTO _rowcast_positions (origin, position, horizon, timestamp) VALUES (?1, ?2, 0, ?3)
                 ON CONFLICT (origin) DO UPDATE SET position = excluded.position, timestamp = max(timestamp, excluded.timestamp)",
            )
            .and_then(|mut statement| statement.execute((origin.to_string(), signed(position), timestamp.0)))
            .doing_with(|| format!("move the position of {origin}"))
            .map(drop)
    }

    /// The same, at the end of the transaction: of many groups the last position is written.
    pub fn move_position(&mut self, origin: NodeId, position: Sequence, timestamp: Timestamp) -> Result<(), Error> {
        self.durable.vector.set(origin, position);
        self.durable.clock.merge(timestamp);
        let greatest = self.moved.entry(origin).or_default();
        *greatest = timestamp.max(*greatest);
        Ok(())
    }

    /// Writes the positions that were moved.
    pub(super) fn write_positions(&mut self) -> Result<(), Error> {
        while let Some((origin, timestamp)) = self.moved.pop_first() {
            self.set_position(origin, self.durable.vector.of(origin), timestamp)?;
        }
        Ok(())
    }

    /// Says that events of `origin` up to `horizon` cannot be served one by one.
    pub fn set_horizon(&mut self, origin: NodeId, horizon: Sequence) -> Result<(), Error> {
        self.write_positions()?;
        self.connection
            .prepare_cached("UPDATE _rowcast_positions SET horizon = max(horizon, ?2) WHERE origin = ?1")
            .and_then(|mut statement| statement.execute((origin.to_string(), signed(horizon))))
            .doing_with(|| format!("move the horizon of {origin}"))?;
        self.durable.horizon.raise(origin, horizon);
        Ok(())
    }

    /// Keeps what the author of `first` and the events after it had seen.
    pub fn save_context(&self, origin: NodeId, first: Sequence, context: &Vector) -> Result<(), Error> {
        let text = serde_json::to_string(context).expect("bug: a vector has a JSON form");
        self.connection
            .prepare_cached(
                "INSERT INTO _rowcast_contexts (origin, first, vector) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )
            .and_then(|mut statement| statement.execute((origin.to_string(), signed(first), text)))
            .doing("store a context")
            .map(drop)
    }

    /// What the author of an event had seen.
    pub fn context(&self, id: EventId) -> Result<Vector, Error> {
        serve::context(self.connection, id).map(|found| found.map(|(_, vector)| vector).unwrap_or_default())
    }

    /// The group that is being ingested in several transactions.
    pub fn set_open_group(&mut self, group: Option<OpenGroup>) -> Result<(), Error> {
        if self.durable.open_group == group {
            return Ok(());
        }
        self.durable.open_group = group;
        match group {
            Some(group) => {
                let text = serde_json::to_string(&group).expect("bug: a group has a JSON form");
                set_state(self.connection, "open_group", &text)
            }
            None => self.forget_state("open_group"),
        }
    }

    /// Notes that everything was loaded once.
    pub fn set_loaded(&mut self) -> Result<(), Error> {
        self.durable.loaded = true;
        set_state(self.connection, "loaded", "1")?;
        drift::note_loaded(self.connection)
    }

    /// Notes that this node has everything, for the first time.
    pub fn set_complete(&mut self) -> Result<(), Error> {
        self.durable.complete = true;
        set_state(self.connection, "complete", "1")
    }

    /// Notes a fact for the operator, such as when `--first` was used.
    pub fn note(&mut self, key: &str, value: &str) -> Result<(), Error> {
        set_state(self.connection, key, value)
    }

    pub(super) fn forget_state(&self, key: &str) -> Result<(), Error> {
        self.connection.execute("DELETE FROM _rowcast_state WHERE key = ?1", [key]).doing("forget a state").map(drop)
    }

    /// Notes that the rows of `table` agree with their events again.
    /// A change of the schema since `round` makes it necessary again, and is not forgotten.
    pub fn reconciled(&mut self, table: &str, round: i64) -> Result<(), Error> {
        super::drift::reconciled(self.connection, table, round)
    }

    /// Forgets what the journal holds: only on a node that is not complete yet, whose rows are compared afterwards.
    pub fn journal_forget(&mut self) -> Result<(), Error> {
        self.durable.journal_ends = Ends::default();
        self.connection.execute_batch("DELETE FROM _rowcast_journal").doing("clear the journal")
    }

    /// Makes a declared table that this database lacks, from another node's statements.
    pub fn create_table(&mut self, name: &str, statements: &[String]) -> Result<(), Error> {
        definition::check(name, statements)?;
        for sql in statements {
            self.connection.execute(sql, []).doing_with(|| format!("make table `{name}`"))?;
        }
        Ok(())
    }
}

pub(super) fn state(connection: &Connection, key: &str) -> Result<Option<String>, Error> {
    connection
        .prepare_cached("SELECT value FROM _rowcast_state WHERE key = ?1")
        .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
        .doing_with(|| format!("read the state `{key}`"))
}

pub(super) fn set_state(connection: &Connection, key: &str, value: &str) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT INTO _rowcast_state (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .and_then(|mut statement| statement.execute([key, value]))
        .doing_with(|| format!("write the state `{key}`"))
        .map(drop)
}

pub(super) fn layout(connection: &Connection, id: LayoutId) -> Result<Option<Layout>, Error> {
    let found: Option<(String, String, String)> = connection
        .prepare_cached("SELECT table_name, columns, key FROM _rowcast_layouts WHERE layout = ?1")
        .and_then(|mut statement| {
            statement.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .doing("read a layout")?;
    let Some((table, columns, key)) = found else { return Ok(None) };
    let broken = |error: serde_json::Error| damaged(bookkeeping::LAYOUTS, error);
    let columns = serde_json::from_str(&columns).map_err(broken)?;
    let layout = Layout::new(table, columns, serde_json::from_str(&key).map_err(broken)?);
    if layout.id == id {
        Ok(Some(layout))
    } else {
        Err(damaged(bookkeeping::LAYOUTS, format!("{}: other names", id.0)))
    }
}

pub(super) fn save_layout(connection: &Connection, layout: &Layout) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT INTO _rowcast_layouts (layout, table_name, columns, key) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")
        .and_then(|mut statement| {
            statement.execute((layout.id.0, &layout.table, json(&layout.columns), json(&layout.key)))
        })
        .doing("store a layout")
        .map(drop)
}

fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).expect("bug: a list of names or places has a JSON form")
}

/// Reads what this node knows, as it was committed last.
pub(super) fn load(connection: &Connection) -> Result<Durable, Error> {
    let node: NodeId = match state(connection, "node_id")? {
        Some(text) => parse("_rowcast_state, node_id", &text)?,
        None => return Err(damaged(bookkeeping::STATE, "no node_id")),
    };
    let positions: Vec<(String, i64, i64, i64)> = connection
        .prepare("SELECT origin, position, horizon, timestamp FROM _rowcast_positions")
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
        })
        .doing("read the positions")?;
    let (mut vector, mut horizons) = (Vector::default(), Vector::default());
    let mut last = Timestamp::default();
    for (origin, position, horizon, timestamp) in positions {
        let origin = parse("_rowcast_positions", &origin)?;
        vector.set(origin, unsigned(position));
        horizons.set(origin, unsigned(horizon));
        last = last.max(Timestamp(timestamp));
    }
    let open_group: Option<OpenGroup> = match state(connection, "open_group")? {
        Some(text) => Some(serde_json::from_str(&text).map_err(|error| damaged(bookkeeping::STATE, error))?),
        None => None,
    };
    let head = vector.of(node);
    let (parked, doubtful, due) = parked::count(connection)?;
    let newest = EventId { origin: node, sequence: Sequence::MAX >> 1 };
    Ok(Durable {
        node,
        next: open_group.map_or(head, |group| group.next - 1) + 1,
        clock: Clock::starting_after(last),
        context: serve::context(connection, newest)?.map(|(_, context)| context).unwrap_or_default(),
        open_group,
        horizon: horizons,
        loaded: state(connection, "loaded")?.is_some(),
        complete: state(connection, "complete")?.is_some(),
        load_target: dropping::load_target(connection)?,
        parked,
        doubtful,
        renewal: renewal::load(connection)?,
        due,
        vector,
        journal_ends: Ends::default(),
        former: former_ids(connection)?,
    })
}

/// The key of the ids that this database had.
const FORMER: &str = "former_ids";

/// The ids that this database had before the present one, the newest last.
pub(super) fn former_ids(connection: &Connection) -> Result<Vec<NodeId>, Error> {
    let Some(text) = state(connection, FORMER)? else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|error| damaged(bookkeeping::STATE, error))
}

/// Makes a node id and stores it, and notes the one that is left. The chance comes from SQLite, which takes it from the
/// system, or from the seed of a simulation: a node id breaks ties, so that a history could not be repeated without it.
pub(super) fn begin_identity(connection: &Connection) -> Result<NodeId, Error> {
    let random: [u8; 16] =
        connection.query_row("SELECT randomblob(16)", [], |row| row.get(0)).doing("make a node id")?;
    let node = NodeId(uuid::Builder::from_random_bytes(random).into_uuid());
    if let Some(left) = state(connection, "node_id")? {
        let mut former = former_ids(connection)?;
        former.push(parse("_rowcast_state, node_id", &left)?);
        let newest = &former[former.len().saturating_sub(limits::FORMER_IDS_MAX)..];
        set_state(connection, FORMER, &json(newest))?;
    }
    set_state(connection, "node_id", &node.to_string())?;
    Ok(node)
}
