//! Takes a change event that a service published, checks it, and makes events of it.
//!
//! The payload becomes an event. If the row then reads differently, the present row becomes one more: announcements are
//! fire and forget, so the row knows better. If the payload is what the record's content already is, nothing is made and
//! the existing sequence number is the answer, so that a careful service can send again. The service's rows are never
//! written here.
//!
//! The contract is `docs/change-event.schema.json`.

use std::collections::HashMap;
use std::fmt;

use rowcast_schema::declaration::Capture;
use rowcast_schema::value::{Affinity, Value};
use rowcast_schema::{is_own_table, record};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Change;
use crate::clock::Timestamp;
use crate::edge::store::{self, Replicated, Shape, Tx, with_affinity};
use crate::event::Operation;
use crate::flow::ingest::{self, Ingested};
use crate::limits;
use crate::position::Sequence;

/// A change event, as a service writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    table: String,
    operation: Said,
    data: Option<Cells>,
    key: Option<Cells>,
    /// Milliseconds since 1970.
    at: Option<i64>,
}

/// Cells by column name. A cell that is no value is refused with the name of its column.
#[derive(Debug)]
struct Cells(HashMap<String, Value>);

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = Cells;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of columns and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cells, A::Error> {
                let mut cells = HashMap::new();
                while let Some(column) = map.next_key::<String>()? {
                    let value = map
                        .next_value()
                        .map_err(|error| de::Error::custom(format_args!("column `{column}`: {error}")))?;
                    if cells.insert(column.clone(), value).is_some() {
                        return Err(de::Error::custom(format_args!("column `{column}` is given twice")));
                    }
                }
                Ok(Cells(cells))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Create,
    Update,
    Delete,
}

/// Why a change event was refused, in words for the service's developer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// A change event that was read and whose table is known.
#[derive(Debug)]
pub struct Announcement {
    payload: Payload,
    /// As it came.
    pub bytes: usize,
}

/// What a change event is about.
#[derive(Debug)]
pub enum Read {
    /// A table of the service.
    Change(Announcement),
    /// One of Rowcast's own tables, by name: nobody's change, and ignored.
    Own(String),
}

/// Reads a change event.
///
/// # Errors
/// When it is too large, or not what the contract says: the words name the key that is wrong.
pub fn read(payload: &[u8], tables: &[String]) -> Result<Read, Refusal> {
    if limits::CHANGE_BYTES_MAX < payload.len() {
        return Err(Refusal(format!(
            "a change event of {} bytes; at most {} are taken. Declare the table with capture = \"triggers\"",
            payload.len(),
            limits::CHANGE_BYTES_MAX
        )));
    }
    let bytes = payload.len();
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|error| Refusal(format!("not a change event: {error}")))?;
    let own = is_own_table(&payload.table, tables.iter().map(String::as_str));
    Ok(if own { Read::Own(payload.table) } else { Read::Change(Announcement { payload, bytes }) })
}

/// What came of an announcement.
#[derive(Debug)]
pub struct Heard {
    /// New events, to be published once hardened.
    pub ingested: Ingested,
    /// The event that holds what was announced.
    pub sequence: Sequence,
}

/// Makes events of an announcement, within a transaction whose journal is drained.
///
/// # Errors
/// The inner one when the announcement does not fit its table; the outer one when the database fails.
pub fn ingest(
    tx: &mut Tx<'_>,
    announcement: Announcement,
    now: Timestamp,
) -> Result<Result<Heard, Refusal>, store::Error> {
    let payload = announcement.payload;
    let Some(table) = tx.tables().get(&payload.table) else {
        return Ok(Err(Refusal(format!("table `{}` is not declared in the schema file", payload.table))));
    };
    let Some(shape) = &table.shape else {
        return Ok(Err(Refusal(format!("table `{}` is not in the database", table.name))));
    };
    let read = match table.declared.capture {
        Capture::Events => cells(&payload, table, shape),
        Capture::Triggers => {
            Err(Refusal(format!("table `{}` is captured by triggers: its changes need no announcement", table.name)))
        }
    };
    match read {
        Ok((key, _)) if tx.is_kept_out(table, &shape.record_id_of_key(&key))? && tx.row(shape, &key)?.is_none() => {
            Ok(Err(Refusal(format!(
                "the record {} of `{}` waits for a UNIQUE value that another record holds, and is not in the table now",
                shape.record_id_of_key(&key),
                table.name
            ))))
        }
        Ok((key, cells)) => announced(tx, table, shape, (payload, key, cells), now).map(Ok),
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn announced(
    tx: &mut Tx<'_>,
    table: &Replicated,
    shape: &Shape,
    (payload, key, cells): (Payload, Vec<Value>, Option<Vec<Value>>),
    now: Timestamp,
) -> Result<Heard, store::Error> {
    let record_id = shape.record_id_of_key(&key);
    // What a record was before another one kept it out of the table is not what it is now.
    let content = if tx.is_kept_out(table, &record_id)? { None } else { tx.content(table, shape, &record_id)? };
    let recorded = content.as_ref().and_then(|content| content.cells.as_ref());
    let same = match (&cells, recorded) {
        (None, None) => content.is_some(),
        (Some(cells), Some(recorded)) => cells.iter().zip(recorded).all(|(cell, held)| held.as_ref() == Some(cell)),
        _ => false,
    };
    let row = tx.row(shape, &key)?;
    let at = payload.at.map_or(now, Timestamp::from_millis);
    let change = |operation: Operation, cells: Option<&Vec<Value>>, changed: i64, at: Timestamp| Change {
        table: table.name.clone(),
        operation,
        record_id: record_id.clone(),
        data: cells.map(|cells| record::row_to_json(&shape.layout.columns, cells)),
        layout: shape.layout.id,
        changed,
        at: Some(at),
    };
    let mut changes = Vec::new();
    if !same {
        let (operation, changed) = match payload.operation {
            Said::Create => (Operation::Create, -1),
            Said::Update => (Operation::Update, changed(recorded, cells.as_ref())),
            Said::Delete => (Operation::Delete, 0),
        };
        changes.push(change(operation, cells.as_ref(), changed, at));
    }
    let announced_at = changes.len();
    if row != cells {
        // The row went on since, or never was what was said: what is there now counts.
        let operation = match (&cells, &row) {
            (_, None) => Operation::Delete,
            (None, Some(_)) => Operation::Create,
            (Some(_), Some(_)) => Operation::Update,
        };
        let changed = if row.is_none() { 0 } else { -1 };
        changes.push(change(operation, row.as_ref(), changed, now));
    }
    let sequence = match announced_at {
        0 => content.map_or(0, |content| content.version.sequence),
        _ => tx.durable.next,
    };
    Ok(Heard { ingested: ingest::changes(tx, changes, now)?, sequence })
}

fn changed(recorded: Option<&Vec<Option<Value>>>, cells: Option<&Vec<Value>>) -> i64 {
    let (Some(recorded), Some(cells)) = (recorded, cells) else { return -1 };
    let differs = recorded.iter().zip(cells).enumerate().filter(|(_, (held, cell))| held.as_ref() != Some(cell));
    differs.fold(0, |mask, (at, _)| mask | rowcast_schema::layout::Layout::changed_bit(at))
}

type KeyAndCells = (Vec<Value>, Option<Vec<Value>>);

/// The key, and the row after the change, checked against the table.
fn cells(payload: &Payload, table: &Replicated, shape: &Shape) -> Result<KeyAndCells, Refusal> {
    let name = &table.name;
    let layout = &shape.layout;
    if let Said::Delete = payload.operation {
        let given = payload
            .key
            .as_ref()
            .or(payload.data.as_ref())
            .ok_or_else(|| Refusal(format!("a delete from `{name}` needs `key`")))?;
        let part = |&at: &usize| cell(given, at, name, shape, "key");
        return Ok((layout.key.iter().map(part).collect::<Result<_, _>>()?, None));
    }
    let Some(given) = &payload.data else {
        return Err(Refusal(format!("a create or update of `{name}` needs `data`, the full row after the change")));
    };
    for column in given.0.keys() {
        if shape.table.column(column).is_none() {
            return Err(Refusal(format!("table `{name}` has no column `{column}`")));
        }
    }
    let places = 0..layout.columns.len();
    let cells = places.map(|at| cell(given, at, name, shape, "data")).collect::<Result<Vec<Value>, _>>()?;
    Ok((shape.key_of(&cells), Some(cells)))
}

/// One cell, as the column would keep it.
fn cell(Cells(given): &Cells, at: usize, table: &str, shape: &Shape, place: &str) -> Result<Value, Refusal> {
    let column = &shape.layout.columns[at];
    let value = given
        .get(column)
        .or_else(|| given.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map(|(_, value)| value))
        .ok_or_else(|| Refusal(format!("`{place}` of `{table}` lacks the column `{column}`")))?;
    let affinity = shape.affinity(at);
    let value = with_affinity(value.clone(), affinity);
    let declared = &shape.table.columns[shape.table.column(column).expect("bug: a layout names columns of its table")];
    if value == Value::Null && (declared.not_null || shape.layout.key.contains(&at)) {
        return Err(Refusal(format!("column `{column}` of `{table}` may not be NULL")));
    }
    if shape.table.strict && !fits(&value, affinity) {
        return Err(Refusal(format!(
            "column `{column}` of `{table}` is {}, and the change event gives it {}",
            declared.declared_type,
            value.type_name()
        )));
    }
    Ok(value)
}

/// Whether a STRICT column takes the value.
fn fits(value: &Value, affinity: Affinity) -> bool {
    matches!(
        (affinity, value),
        (_, Value::Null)
            | (Affinity::Integer, Value::Integer(_))
            | (Affinity::Real, Value::Real(_))
            | (Affinity::Text, Value::Text(_))
            | (Affinity::Blob | Affinity::Numeric, _)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_change_event_is_refused_by_its_place() {
        let refusal = |text: &str| read(text.as_bytes(), &[]).map(|_| ()).unwrap_err().0;
        insta::assert_snapshot!(
            [
                "garbage",
                "{}",
                r#"{"table":5,"operation":"create"}"#,
                r#"{"table":"t","operation":"upsert"}"#,
                r#"{"table":"t","operation":"create","data":{"a":[1]}}"#,
                r#"{"table":"t","operation":"create","data":{"a":true}}"#,
                r#"{"table":"t","operation":"create","dta":{}}"#,
            ]
            .map(|text| format!("{text:56} {}", refusal(text)))
            .join("\n")
        );
    }

    #[test]
    fn own_tables_are_nobodys_change() {
        let own = |table: &str| {
            let text = format!(r#"{{"table":"{table}","operation":"create","data":{{}}}}"#);
            matches!(read(text.as_bytes(), &["Track".to_owned()]), Ok(Read::Own(name)) if name == table)
        };
        assert!(own("Track_Events") && own("track_events") && own("_rowcast_journal"));
        assert!(!own("Track"));
    }
}
