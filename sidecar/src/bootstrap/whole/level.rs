//! A copy of a database can hold rows that are ahead of their events: what the donor's service had written, and what was
//! not an event yet. Those events come later, from the donor. Until then the rows here are what the events say, so that
//! nothing that this node did not write becomes its own change.
//!
//! It works on a file that nobody else has open, before it is put in place.

use std::collections::BTreeSet;

use rowcast_schema::declaration::Capture;
use rowcast_schema::journal::Op;
use rowcast_schema::record;

use crate::clock::Timestamp;
use crate::edge::store::{Error, JournalRow, Replicated, Store, Tx};
use crate::flow::apply::Applier;
use crate::limits;
use crate::steady::reconcile::{self, Cursor, Truth};

/// Makes all rows what their events say. Answers how many records were named by the journal. `stopped` is asked now and
/// then whether to give up; then the rest stays as it is.
///
/// # Errors
/// When the database fails.
pub fn level(store: &mut Store, now: Timestamp, stopped: impl Fn() -> bool) -> Result<usize, Error> {
    let named = store.write(|tx| take_back(tx, now))?;
    let announced = store.tables().iter().filter(|table| table.declared.capture == Capture::Events);
    let mut tables: Vec<(String, i64)> = announced.map(|table| (table.name.clone(), 0)).collect();
    // Where the triggers were not there all the time, the journal does not name everything.
    for pending in store.pending() {
        tables.retain(|(name, _)| *name != pending.table);
        tables.push((pending.table.clone(), pending.want.round));
    }
    for (table, round) in tables {
        obey(store, &table, now, &stopped)?;
        store.write(|tx| tx.reconciled(&table, round))?;
        store.forget_pending(&table, round);
    }
    Ok(named)
}

/// Takes back what the journal says was done, and empties it.
fn take_back(tx: &mut Tx<'_>, now: Timestamp) -> Result<usize, Error> {
    let mut ahead = BTreeSet::new();
    while let Some((until, _)) = tx.journal_extent()? {
        let rows = tx.journal_rows(until, limits::INGEST_ROWS_MAX)?;
        let Some(last) = rows.last().map(|row| row.n) else { break };
        for row in &rows {
            ahead.extend(named(tx, row));
        }
        tx.journal_delete_until(last)?;
    }
    // First all of them go: one that is ahead must not be in the way of another.
    for (name, record_id) in &ahead {
        let Some(table) = tx.tables().get(name) else { continue };
        let Some(shape) = &table.shape else { continue };
        if let Ok(key) = record::parse_record_id(record_id, &shape.key) {
            tx.delete(shape, &key)?;
        }
    }
    let mut applier = Applier::new(tx, now);
    for (name, record_id) in &ahead {
        applier.refold(name, record_id)?;
    }
    applier.finish()?;
    Ok(ahead.len())
}

/// The record that a row of the journal speaks of.
fn named(tx: &Tx<'_>, row: &JournalRow) -> Option<(String, String)> {
    let table: &Replicated = tx.tables().get(&row.layout.table)?;
    let shape = table.shape.as_ref().filter(|shape| shape.has_key_of(&row.layout))?;
    let key = match row.op {
        Op::Create | Op::Update => row.layout.key.iter().map(|&at| row.cells[at].clone()).collect(),
        Op::Delete | Op::Suspect => row.cells.clone(),
    };
    Some((table.name.clone(), shape.record_id_of_key(&key)))
}

/// Makes the rows of one table what their events say; a row that they do not know goes.
fn obey(store: &mut Store, table: &str, now: Timestamp, stopped: &impl Fn() -> bool) -> Result<(), Error> {
    let mut after = None;
    loop {
        after = store.write(|tx| remove_differing(tx, table, after.take()))?;
        if after.is_none() || stopped() {
            break;
        }
    }
    let mut cursor = Some(Cursor::start(table.to_owned(), Truth::Events, 0));
    while let Some(next) = cursor.take().filter(|_| !stopped()) {
        cursor = store.write(|tx| reconcile::step(tx, next, now))?.0;
    }
    Ok(())
}

type Key = Vec<rowcast_schema::value::Value>;

/// Takes out rows that are not what their events say, a page of them. Answers the key to go on after.
fn remove_differing(tx: &mut Tx<'_>, table: &str, after: Option<Key>) -> Result<Option<Key>, Error> {
    let Some(table) = tx.tables().get(table).cloned() else { return Ok(None) };
    let Some(shape) = &table.shape else { return Ok(None) };
    let (rows, more) = tx.rows_after(shape, after.as_deref(), limits::RECONCILE_ROWS_MAX)?;
    for row in &rows {
        let key = shape.key_of(row);
        let said = tx.content(&table, shape, &shape.record_id_of_key(&key))?.and_then(|content| content.cells);
        if !tx.is_as_said(shape, &key, said.as_deref())? {
            tx.delete(shape, &key)?;
        }
    }
    Ok(rows.last().filter(|_| more).map(|last| shape.key_of(last)))
}
