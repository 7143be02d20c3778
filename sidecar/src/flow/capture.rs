//! Where changes come from: the journal that triggers fill, and change events that a service announces.

pub mod announced;
pub mod compared;
pub mod journal;

use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::record;
use rowcast_schema::value::Value;

use crate::clock::Timestamp;
use crate::edge::store::{Error, Replicated, Shape, Tx, keeps};
use crate::event::Operation;
use crate::limits;

/// What was done to a record, before it is an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table, as declared.
    pub table: String,
    /// What was done.
    pub operation: Operation,
    /// The canonical text of the primary key.
    pub record_id: String,
    /// The full row after the change, as JSON; none for a delete.
    pub data: Option<String>,
    /// Which columns the row had.
    pub layout: LayoutId,
    /// Bit mask of the columns that an update changed; -1 stands for all.
    pub changed: i64,
    /// When it was written; `None` for a row that was there before this node was complete.
    pub at: Option<Timestamp>,
}

/// How the row that is there differs from the record's content by its events, as a change; none when it does not.
///
/// A record that another one keeps out of the table is not deleted by being absent; a row that is there all the same
/// was written by the service.
///
/// # Errors
/// When the database fails.
pub fn difference(
    tx: &mut Tx<'_>,
    table: &Replicated,
    shape: &Shape,
    key: &[Value],
    at: Option<Timestamp>,
) -> Result<Option<Change>, Error> {
    let record_id = shape.record_id_of_key(key);
    let row = tx.row(shape, key)?;
    let kept_out = tx.is_kept_out(table, &record_id)?;
    let content = match tx.content(table, shape, &record_id)? {
        Some(content) if !kept_out => content.cells,
        _ => None,
    };
    let (operation, changed) = match (&content, &row) {
        (None, None) => return Ok(None),
        (None, Some(_)) => (Operation::Create, -1),
        (Some(_), None) => (Operation::Delete, 0),
        (Some(cells), Some(row)) => match changed_columns(shape, cells, row) {
            0 => return Ok(None),
            changed => (Operation::Update, changed),
        },
    };
    let data = row.map(|row| record::row_to_json(&shape.layout.columns, &row));
    let name = table.name.clone();
    let change = Change { table: name, operation, record_id, data, layout: shape.layout.id, changed, at };
    Ok(if is_told_large(tx, (table, shape), &change)? { None } else { Some(change) })
}

/// Whether the row is one that does not travel, and everybody knows that already.
fn is_told_large(tx: &Tx<'_>, (table, shape): (&Replicated, &Shape), change: &Change) -> Result<bool, Error> {
    let is_large = change.data.as_ref().is_some_and(|data| limits::ROW_BYTES_MAX < data.len());
    Ok(is_large && tx.large_row(table, shape, &change.record_id)?.is_some())
}

/// Whether the column at `at` of a row holds what its events say, as this column keeps it: its type may have changed.
fn equals(shape: &Shape, at: usize, content: Option<&Value>, cell: &Value) -> bool {
    let content = content.unwrap_or(&shape.defaults[at]);
    keeps(shape.affinity(at), content, cell)
}

/// The columns in which a row differs from its content, as a bit mask. What no event has counts as the default.
fn changed_columns(shape: &Shape, content: &[Option<Value>], row: &[Value]) -> i64 {
    let mut changed = 0;
    for (at, cell) in row.iter().enumerate() {
        if !equals(shape, at, content[at].as_ref(), cell) {
            changed |= Layout::changed_bit(at);
        }
    }
    changed
}
