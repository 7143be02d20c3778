//! What SQLite alone takes for the same rows: the floors.

use std::cell::Cell;

use divan::Bencher;
use divan::counter::ItemsCount;
use rowcast::event::Piece;
use rowcast_schema::event_table;
use rowcast_schema::value::Value;
use rusqlite::Connection;

use crate::rows;
use crate::stage::service;

/// One transaction of the service.
pub(crate) fn transaction(service: &Connection, rows: &[Vec<Value>]) {
    service.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut statement = rows::statement(service);
    for cells in rows {
        rows::bind(&mut statement, cells);
    }
    drop(statement);
    service.execute_batch("COMMIT").unwrap();
}

/// The service's own transaction, without Rowcast.
#[divan::bench(args = [1, 100], sample_count = 400, sample_size = 1)]
fn write_without_triggers(bencher: Bencher<'_, '_>, count: u64) {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder.path().join("app.db"), rows::SQL);
    let next = Cell::new(0);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let first = next.replace(next.get() + count);
            (first..first + count).map(|at| rows::cells(at, 0)).collect::<Vec<_>>()
        })
        .bench_local_values(|cells| transaction(&service, &cells));
}

/// One writer puts rows and their events into a database from memory, in transactions of 500.
#[divan::bench(args = [50_000], sample_count = 3, sample_size = 1)]
fn rows_and_events_from_memory(bencher: Bencher<'_, '_>, count: u64) {
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let folder = tempfile::tempdir().unwrap();
            let service = service(&folder.path().join("app.db"), rows::SQL);
            event_table::create("items").iter().for_each(|sql| service.execute_batch(sql).unwrap());
            let given: Vec<_> = (0..count).map(|at| (rows::cells(at, 0), rows::group(at + 1, [at], 0))).collect();
            (folder, service, given)
        })
        .bench_local_refs(|(_, service, given)| put(service, given));
}

/// Rows and their events, in transactions of 500.
pub(crate) fn put(service: &Connection, given: &[(Vec<Value>, Piece)]) {
    for part in given.chunks(500) {
        service.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut row = rows::statement(service);
        let mut stored = service
            .prepare_cached("INSERT INTO items_Events VALUES (?1, 'CREATE', ?2, ?3, ?4, ?5, 1, ?6, ?7, -1, ?6)")
            .unwrap();
        for (cells, group) in part {
            rows::bind(&mut row, cells);
            let event = &group.events[0];
            let sequence = i64::try_from(group.first).unwrap();
            let origin = "00000000-0000-0000-0000-000000000001";
            let id = format!("{origin}:{sequence:016x}");
            stored
                .execute((id, &event.record_id, &event.data, event.timestamp.0, origin, sequence, event.layout.0))
                .unwrap();
        }
        drop((row, stored));
        service.execute_batch("COMMIT").unwrap();
    }
}
