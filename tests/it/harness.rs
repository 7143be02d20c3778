//! The harness itself: what the stories rest on must hold without Rowcast.

use std::time::Duration;

use rowcast_tests::workload::Writer;
use rowcast_tests::{Bus, NatsServer, Proxy, Way, eventually, rows, traps};
use rusqlite::Connection;

#[test]
fn a_nats_server_comes_back_on_its_port() {
    let nats = NatsServer::start();
    let url = nats.url();
    Bus::connect(&nats).publish("x", "1");
    nats.kill();
    nats.restart();
    nats.stop();
    nats.restart();
    assert_eq!(nats.url(), url);
    Bus::connect(&nats).publish("x", "1");
}

#[test]
fn a_link_loses_what_it_is_told_to_and_can_be_cut_and_healed() {
    let nats = NatsServer::start();
    let proxy = Proxy::to(&nats);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(async_nats::connect(proxy.url())).unwrap();
    let bus = Bus::connect(&nats);
    let mut heard = bus.subscribe(">");
    let say = |subject: &'static str| {
        runtime.block_on(async {
            client.publish(subject, "hello\r\nworld".into()).await.unwrap();
            client.flush().await.unwrap();
        });
    };
    say("one");
    proxy.lose(|subject| subject == "two");
    say("two");
    say("three");
    let subjects = [(); 2].map(|()| heard.next(Duration::from_secs(10)).unwrap().subject);
    assert_eq!(subjects, ["one", "three"]);
    assert_eq!(proxy.lost(), 1);

    proxy.cut();
    eventually!(client.connection_state() != async_nats::connection::State::Connected);
    proxy.heal();
    eventually!(client.connection_state() == async_nats::connection::State::Connected);
    say("four");
    assert_eq!(heard.next(Duration::from_secs(10)).unwrap().subject, "four");
}

#[test]
fn a_link_can_hold_or_lose_one_direction_and_let_the_other_through() {
    let nats = NatsServer::start();
    let proxy = Proxy::to(&nats);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(async_nats::connect(proxy.url())).unwrap();
    let mut behind = runtime.block_on(client.subscribe("in")).unwrap();
    runtime.block_on(client.flush()).unwrap();
    let bus = Bus::connect(&nats);
    let mut heard = bus.subscribe("out");
    let say = |payload: &'static str| runtime.block_on(client.publish("out", payload.into())).unwrap();
    let mut next_behind = || {
        let next = async { tokio::time::timeout(Duration::from_secs(10), futures::StreamExt::next(&mut behind)).await };
        runtime.block_on(next).unwrap().unwrap().payload
    };

    proxy.lose_all(Way::Out);
    say("1");
    bus.publish("in", "2");
    assert_eq!(next_behind(), "2");
    eventually!(proxy.lost() == 1);
    proxy.lose_nothing();

    proxy.hold(Way::Out);
    say("3");
    bus.publish("in", "4");
    assert_eq!(next_behind(), "4");
    assert!(heard.next(Duration::from_millis(200)).is_none(), "it is held");
    proxy.release();
    assert_eq!(heard.next(Duration::from_secs(10)).unwrap().payload, b"3");
}

#[test]
fn a_dump_tells_values_apart_that_look_alike() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE t_Events(id);
             INSERT INTO t(v) VALUES (1), (1.0), ('1'), (x'31'), (-0.0), (0.0), (NULL), (CAST(x'ff' AS TEXT)), (9e999),
               ('a' || char(0)), (zeroblob(300))",
        )
        .unwrap();
    let dump = rows::dump(&connection, &[]).unwrap();
    let mut cells: Vec<&str> = dump["t"].iter().map(|row| row.split_once(" | ").unwrap().1).collect();
    cells.sort_unstable();
    let long = cells.remove(7);
    assert!(long.starts_with("blob x'00000000000000000000000000000000…' of 300 bytes, hash "), "{long}");
    assert_eq!(cells, [r"'1'", r"'a\0'", "-0.0", "0.0", "1", "1.0", "NULL", "inf", "text x'ff'", "x'31'"]);
}

#[test]
fn the_workload_is_the_same_for_the_same_seed_and_touches_every_trap() {
    let run = |seed| {
        let connection = traps::database();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        connection
            .execute_batch("DELETE FROM task_log; DELETE FROM big; DROP TRIGGER tasks_made; DROP TRIGGER tasks_gone")
            .unwrap();
        connection.execute_batch("UPDATE defaults SET r = 0, at = 0; UPDATE texts SET k = 0").unwrap();
        let tables = rows::service_tables(&connection).unwrap();
        let before = rows::dump_of(&connection, &tables, &[]).unwrap();
        let mut writer = Writer::new(seed, 0, 1, &connection, &tables);
        for _ in 0..600 {
            writer.transact(&connection);
        }
        assert!(writer.done() > 1_000, "{} statements", writer.done());
        let after = rows::dump_of(&connection, &tables, &[]).unwrap();
        for (table, rows) in &after {
            assert_ne!(*rows, before[table], "{table} was not touched");
        }
        after
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
