//! What compaction asks of the database, counted by SQLite itself: with a hundred tables each question too many, asked once a
//! record, kept the service from its lock for tens of milliseconds.

use std::path::Path;
use std::time::Duration;

use rowcast_schema::declaration::Declaration;
use rusqlite::StatementStatus;
use rusqlite::config::DbConfig;
use uuid::Uuid;

use super::*;
use crate::limits;
use crate::replica::{Input, Moment, Options, Replica, Worked};

/// How often a statement ran on the connection that writes.
fn runs(store: &Store, sql: &str) -> i32 {
    store.connection.prepare_cached(sql).unwrap().get_status(StatementStatus::Run)
}

fn declaration(history: &str) -> Declaration {
    Declaration::parse("schema.toml", &format!("service = \"s\"\n[tables.t]\nhistory = \"{history}\"")).unwrap()
}

/// The database of a service with a table, and rows in it.
fn service(path: &Path, rows: u32) -> Connection {
    let service = super::super::open::for_writing(path).unwrap();
    service.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
    service.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, a TEXT)").unwrap();
    for row in 0..rows {
        service.execute("INSERT INTO t VALUES (?1, 'a')", [row]).unwrap();
    }
    service
}

#[test]
fn the_tables_with_events_are_looked_for_once_however_many_events_go() {
    const EVENTS: u64 = 50;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    drop(service(&path, 0));
    let mut store = Store::open(&path, declaration("latest")).unwrap();
    let origin = NodeId(Uuid::from_u128(7));
    let table = store.tables().get("t").unwrap().clone();
    store
        .write(|tx| {
            tx.set_position(origin, EVENTS, Timestamp::default())?;
            (1..=EVENTS).try_for_each(|first| tx.save_context(origin, first, &Vector::default()))
        })
        .unwrap();
    let before = runs(&store, serve::EVENT_TABLES);
    for sequences in [1..EVENTS / 2, EVENTS / 2..EVENTS] {
        store
            .write(|tx| sequences.clone().try_for_each(|sequence| tx.compact(&table, &[EventId { origin, sequence }])))
            .unwrap();
    }
    let contexts = "SELECT count(*) FROM _rowcast_contexts";
    let left: i64 = store.connection.query_row(contexts, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1, "it was looked whether contexts can go");
    assert_eq!(runs(&store, serve::EVENT_TABLES) - before, 1);
}

#[test]
fn records_with_one_event_are_passed_over_without_the_write_lock() {
    const BEGIN: &str = "BEGIN IMMEDIATE";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let service = service(&path, 2);
    let at = |seconds| Moment { wall: crate::edge::clock::now(), uptime: Duration::from_secs(seconds) };
    let store = Store::open(&path, declaration("latest")).unwrap();
    let mut replica = Replica::new(store, options(), at(0)).unwrap();
    replica.handle(Input::Connected(true), at(0));
    let run = |replica: &mut Replica, from: u64, to: u64| {
        for second in from..to {
            replica.handle(Input::Wake, at(second));
            replica.tick(at(second));
            while replica.work(at(second)).unwrap() != Worked::Idle {}
        }
    };
    run(&mut replica, 1, 20);
    assert!(replica.is_ready());
    service.execute_batch("UPDATE t SET a = 'b' WHERE id = 0").unwrap();
    run(&mut replica, 20, 40);
    let events = "SELECT count(*) FROM t_Events";
    let left = || service.query_row(events, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(left(), 2, "what was superseded went: it is looked at events");

    // The journal is looked at with each wake-up: it is not woken any more.
    let anew = 2 * limits::COMPACT_ANEW_INTERVAL.as_secs();
    let before = runs(replica.store(), BEGIN);
    for second in anew..anew + 20 {
        replica.tick(at(second));
        while replica.work(at(second)).unwrap() != Worked::Idle {}
    }
    assert_eq!(runs(replica.store(), BEGIN), before, "all events were looked at anew");
}

fn options() -> Options {
    Options {
        name: "n".into(),
        servers: String::new(),
        first: true,
        presence_interval: Duration::from_secs(1),
        presence_wait: Duration::from_secs(2),
        context_timeout: Duration::from_secs(30),
        reconcile_interval: Duration::from_secs(100_000),
        verify_interval: Duration::ZERO,
        member_timeout: Duration::from_secs(100_000),
        session: Uuid::from_u128(1),
    }
}
