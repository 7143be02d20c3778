//! Reads changes from the journal.

use rowcast_schema::journal::Op;
use rowcast_schema::layout::Layout;
use rowcast_schema::record::{self, Collation, KeyColumn};
use rowcast_schema::value::Value;

use super::Change;
use crate::edge::store::{Error, JournalRow, Tx};
use crate::event::Operation;

/// Looks at suspects up to and with `until`: those that are gone become deletes, the others are dropped. Answers
/// whether all of them were looked at.
///
/// # Errors
/// When the database fails.
pub fn settle_suspects(tx: &mut Tx<'_>, until: i64, limit: usize) -> Result<bool, Error> {
    let suspects = tx.journal_suspects(until, limit)?;
    let some = !suspects.is_empty();
    for suspect in suspects {
        let alive = match tx.tables().shape(&suspect.layout.table) {
            Some(shape) => tx.row(shape, &suspect.cells)?.is_some(),
            None => true,
        };
        // One that was deleted in the ordinary way as well is deleted twice, which changes nothing.
        if alive {
            tx.journal_delete(suspect.n)?;
        } else {
            tx.journal_confirm(suspect.n)?;
        }
    }
    // A page of them ends by bytes, too: what was looked at is no suspect any more.
    Ok(!some || tx.journal_suspects(until, 1)?.is_empty())
}

/// Whether events can be made of rows of that layout.
pub fn is_readable(tx: &Tx<'_>, layout: &Layout) -> bool {
    tx.tables().shape(&layout.table).is_some_and(|shape| shape.has_key_of(layout))
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
    let table = tx.tables().get(&row.layout.table);
    // A table can go, or get another key, in the middle of a long group: its numbers are given out by then.
    let shape = tx.tables().shape(&row.layout.table).filter(|shape| shape.has_key_of(&row.layout));
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
