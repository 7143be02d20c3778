//! Reads changes from the journal.

use rowcast_schema::journal::Op;
use rowcast_schema::layout::Layout;
use rowcast_schema::record::{self, Collation, KeyColumn};
use rowcast_schema::value::Value;

use super::Change;
use crate::edge::store::{Error, JournalRow, Tx};
use crate::event::Operation;

/// Whether events can be made of rows of that layout.
pub fn is_readable(tx: &Tx<'_>, layout: &Layout) -> bool {
    let table = tx.tables().journaled(&layout.table);
    table.and_then(|table| table.shape.as_ref()).is_some_and(|shape| shape.has_key_of(layout))
}

/// Drops rows that no event can be made of, of layouts that rows up to and with `until` have: their table is gone or cannot be
/// replicated any more, or its primary key is another one now. What the latter meant is found by the reconciliation that follows every
/// change of a schema.
///
/// # Errors
/// When the database fails.
pub fn drop_unreadable(tx: &mut Tx<'_>, until: i64) -> Result<(), Error> {
    for layout in tx.journal_layouts(until)? {
        if !is_readable(tx, &layout) {
            let rows = tx.journal_delete_layout(layout.id)?;
            tracing::warn!(
                table = layout.table,
                rows,
                "dropped journal rows of a table that is no longer replicated as it was"
            );
        }
    }
    Ok(())
}

/// The change that a journal row stands for.
pub fn change(tx: &Tx<'_>, row: &JournalRow) -> Change {
    let table = tx.tables().journaled(&row.layout.table);
    // A table can go, or get another key, in the middle of a long group: its numbers are given out by then.
    let shape = table.and_then(|table| table.shape.as_ref()).filter(|shape| shape.has_key_of(&row.layout));
    let (operation, key, data) = match row.op {
        Op::Create | Op::Update => {
            let key: Vec<Value> = row.layout.key.iter().map(|&at| row.cells[at].clone()).collect();
            let operation = if row.op == Op::Create { Operation::Create } else { Operation::Update };
            (operation, key, Some(record::row_to_json(&row.layout.columns, &row.cells)))
        }
        Op::Delete | Op::Suspect => (Operation::Delete, row.cells.clone(), None),
    };
    Change {
        table: table.map_or(&row.layout.table, |table| &table.name).clone(),
        operation,
        record_id: match shape {
            Some(shape) => shape.record_id_of_key(&key),
            None => {
                let column = KeyColumn { collation: Collation::Binary, holds_text: false };
                record::record_id(&key, &vec![column; key.len()])
            }
        },
        data,
        layout: row.layout.id,
        changed: row.changed,
        at: Some(row.at),
    }
}
