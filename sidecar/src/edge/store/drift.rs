//! What is to be known of a table whose schema changed, or whose triggers were not there all the time: kept in the
//! database until its rows are compared with their events.
//!
//! It says what changed, and what a migration by itself may have put into a new column. It decides nothing: what that
//! means for a row is decided in `flow/capture/compared.rs`.

use rowcast_schema::bookkeeping;
use rowcast_schema::record;
use rowcast_schema::value::Value;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::error::{Doing as _, Error, damaged};
use super::replicated::{Replicated, Shape, Tables};
use super::tx::Tx;
use super::{serve, state};
use crate::event::Version;
use crate::position::Sequence;
use rowcast_schema::layout::Layout;

/// Rows that are looked at to find what a migration put into a new column, and whether a table is the one it was.
const SAMPLE_ROWS: usize = 100;

/// A table whose rows must be compared with their events, because its triggers were not there all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The table, as declared.
    pub table: String,
    /// What is to be known for it.
    pub want: Want,
}

/// What a comparison needs to know. Stored until it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The schema version that made it necessary: a comparison that began before another change begins again.
    pub round: i64,
    /// Columns that were not captured before: what a migration put there gives way to what the events say.
    pub new_columns: Vec<String>,
    /// Columns that were captured before: a new one may have taken over their values.
    #[serde(default)]
    pub gone_columns: Vec<String>,
    /// The migration ran under `rowcast migrate`, or before the start: what new columns hold comes from it.
    #[serde(default)]
    pub calm: bool,
    /// No trigger of ours was left: the table was rebuilt, or dropped and made again.
    #[serde(default)]
    pub rebuilt: bool,
    /// None of its rows is known to the events: it was dropped and made again, and its records come back.
    #[serde(default)]
    pub returned: bool,
    /// It was replicated here, and not declared for a while: a row without an event was written in that time. Within one change of
    /// the schema: that takes nothing away from it.
    #[serde(default)]
    pub again: bool,
    /// The first own sequence number after the change was noticed; none before it was looked at.
    #[serde(default)]
    pub since: Option<Sequence>,
    /// What most rows hold in a new column, as a JSON object of that one column.
    #[serde(default)]
    pub fillers: Vec<(String, String)>,
}

impl Want {
    /// What most rows held in a new column when the change was noticed.
    pub fn filler(&self, column: &str) -> Option<Value> {
        let (name, json) = self.fillers.iter().find(|(name, _)| name == column)?;
        record::row_from_json(std::slice::from_ref(name), json).ok()?.pop()
    }

    /// Takes in what an earlier change, not compared yet, left to be known.
    fn after(mut self, earlier: Self) -> Self {
        let add = |list: &mut Vec<String>, more: Vec<String>| {
            for name in more {
                if !list.contains(&name) {
                    list.push(name);
                }
            }
        };
        add(&mut self.new_columns, earlier.new_columns);
        add(&mut self.gone_columns, earlier.gone_columns);
        self.calm |= earlier.calm;
        self.rebuilt |= earlier.rebuilt && earlier.since.is_none();
        self.returned = earlier.returned;
        self.again &= earlier.again;
        self.fillers = earlier.fillers;
        // Looked at again, and what was written since the earlier one is what was written since.
        self.since = None;
        self
    }
}

/// Where it is kept what of a table is to be compared.
pub(super) fn key(table: &str) -> String {
    format!("reconcile:{table}")
}

fn read(connection: &Connection, table: &str) -> Result<Option<Want>, Error> {
    let Some(text) = state::state(connection, &key(table))? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| damaged(bookkeeping::STATE, error))
}

fn keep(connection: &Connection, table: &str, want: &Want) -> Result<(), Error> {
    let text = serde_json::to_string(want).expect("bug: names have a JSON form");
    state::set_state(connection, &key(table), &text)
}

/// Notes that the rows of `table` must be compared, beside what is noted already.
pub(super) fn note(connection: &Connection, table: &str, want: Want) -> Result<(), Error> {
    let want = match read(connection, table)? {
        Some(earlier) => want.after(earlier),
        None => Want { again: false, ..want },
    };
    keep(connection, table, &want)
}

/// Notes that a table is not declared any more: its rows must be compared when it is declared again. Where they wait to be compared
/// already, what they are is not known.
pub(super) fn note_left(connection: &Connection, table: &str, round: i64) -> Result<(), Error> {
    match read(connection, table)? {
        Some(_) => Ok(()),
        None => keep(connection, table, &Want { round, again: true, ..Want::default() }),
    }
}

/// Everything was loaded: which rows of tables that are not declared were written here is not known any more.
pub(super) fn note_loaded(connection: &Connection) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE _rowcast_state SET value = json_set(value, '$.again', json('false'))
             WHERE substr(key, 1, length(?1)) = ?1 AND json_extract(value, '$.again')",
        )
        .and_then(|mut statement| statement.execute([key("")]))
        .doing("note that everything was loaded")
        .map(drop)
}

/// What a change from `before` to `after` leaves to be known.
pub(super) fn between(before: Option<&Layout>, after: &Layout, round: i64, rebuilt: bool) -> Want {
    let Some(before) = before else { return Want { round, ..Want::default() } };
    let lacking = |from: &Layout, of: &Layout| -> Vec<String> {
        from.columns.iter().filter(|column| of.place(column).is_none()).cloned().collect()
    };
    Want {
        round,
        new_columns: lacking(after, before),
        gone_columns: lacking(before, after),
        rebuilt,
        again: before.has_key_of(after),
        ..Want::default()
    }
}

/// The tables that wait for a comparison.
pub(super) fn pending(connection: &Connection, tables: &Tables) -> Result<Vec<Pending>, Error> {
    let mut pending = Vec::new();
    for table in tables.iter().filter(|table| table.shape.is_some()) {
        if let Some(want) = read(connection, &table.name)? {
            pending.push(Pending { table: table.name.clone(), want });
        }
    }
    Ok(pending)
}

/// Forgets that `table` had to be compared, unless the schema has changed again since `round`.
pub(super) fn reconciled(connection: &Connection, table: &str, round: i64) -> Result<(), Error> {
    connection
        .execute(
            "DELETE FROM _rowcast_state WHERE key = ?1 AND json_extract(value, '$.round') = ?2",
            (key(table), round),
        )
        .optional()
        .doing("note a finished reconciliation")
        .map(drop)
}

/// What the events of a record say of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The value in the greatest event that has the column.
    pub value: Value,
    /// That event's version.
    pub version: Version,
    /// The version of the greatest event that changed the column, if one is left.
    pub changed: Option<Version>,
}

impl Tx<'_> {
    /// Why the rows of `table` must be compared with their events, if they must.
    pub fn pending(&self, table: &Replicated) -> Option<&Want> {
        self.pending.iter().find(|pending| pending.table == table.name).map(|pending| &pending.want)
    }

    /// Looks, once after each change of the schema, at what the rows of a table look like now.
    pub(super) fn look_at_pending(&mut self, pending: &Pending) -> Result<Want, Error> {
        let mut want = pending.want.clone();
        want.since = Some(self.durable.next);
        let Some(table) = self.tables().get(&pending.table).cloned() else { return Ok(want) };
        let Some(shape) = &table.shape else { return Ok(want) };
        let rows = if want.rebuilt || !want.new_columns.is_empty() {
            self.rows_after(shape, None, SAMPLE_ROWS)?.0
        } else {
            Vec::new()
        };
        for column in &want.new_columns {
            if let Some(at) = shape.layout.place(column)
                && !want.fillers.iter().any(|(name, _)| name == column)
                && let Some(value) = most_common(&rows, at)
            {
                want.fillers.push((column.clone(), record::row_to_json(std::slice::from_ref(column), [value])));
            }
        }
        if want.rebuilt {
            want.returned = self.knows_none_of(&table, shape, &rows)? && self.knows_some_record(&table, shape)?;
            if want.returned {
                tracing::warn!(
                    table = table.name,
                    "the table was dropped and made again: its rows come back from the events; delete rows with DELETE"
                );
            }
        }
        keep(self.connection, &table.name, &want)?;
        Ok(want)
    }

    fn knows_none_of(&mut self, table: &Replicated, shape: &Shape, rows: &[Vec<Value>]) -> Result<bool, Error> {
        for row in rows {
            let record_id = shape.record_id(row);
            if self.content(table, shape, &record_id)?.is_some_and(|content| content.cells.is_some()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn knows_some_record(&mut self, table: &Replicated, shape: &Shape) -> Result<bool, Error> {
        for record_id in self.records_after(table, None, SAMPLE_ROWS)? {
            if self.content(table, shape, &record_id)?.is_some_and(|content| content.cells.is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the applied events of a record say of columns, whatever layouts they stand in, back to the last delete.
    /// Own events from `own_before` on are left out.
    pub fn told(
        &mut self,
        table: &Replicated,
        record_id: &str,
        columns: &[String],
        own_before: Option<Sequence>,
    ) -> Result<Vec<Option<Told>>, Error> {
        let doing = || format!("read the events of `{}` {record_id}", table.name);
        let connection = self.connection;
        let mut statement = connection.prepare_cached(&table.events.history).doing(doing())?;
        let mut rows = statement.query((record_id, false)).doing(doing())?;
        let mut told: Vec<Option<Told>> = vec![None; columns.len()];
        while let Some(row) = rows.next().doing(doing())? {
            let (id, event, _) = serve::event_of(row, &table.name)?;
            if id.origin == self.durable.node && own_before.is_some_and(|before| before <= id.sequence) {
                continue;
            }
            let Some(data) = &event.data else { break };
            let version = Version { timestamp: event.timestamp, origin: id.origin, sequence: id.sequence };
            if self.layout(event.layout)?.is_some_and(|layout| event.left_out(&layout).is_some()) {
                continue; // Its row did not travel, and it is not the newest: it adds nothing.
            }
            let (layout, values) = self.decode(event.layout, data)?;
            for (column, told) in columns.iter().zip(&mut told) {
                let Some(at) = layout.place(column) else { continue };
                let told = told.get_or_insert_with(|| Told { value: values[at].clone(), version, changed: None });
                if event.changed & Layout::changed_bit(at) != 0 {
                    told.changed.get_or_insert(version);
                }
            }
            if told.iter().all(|told| told.as_ref().is_some_and(|told| told.changed.is_some())) {
                break;
            }
        }
        Ok(told)
    }
}

/// The value that most of `rows` hold at `at`; none when no value stands in more than half of them.
fn most_common(rows: &[Vec<Value>], at: usize) -> Option<&Value> {
    // The majority vote of Boyer and Moore: what is left over is the majority, if there is one.
    let (mut candidate, mut votes) = (None, 0_usize);
    for value in rows.iter().map(|row| &row[at]) {
        if votes == 0 {
            (candidate, votes) = (Some(value), 1);
        } else if candidate == Some(value) {
            votes += 1;
        } else {
            votes -= 1;
        }
    }
    let count = rows.iter().filter(|row| Some(&row[at]) == candidate).count();
    candidate.filter(|_| rows.len() < 2 * count)
}
