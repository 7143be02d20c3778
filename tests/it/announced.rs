//! `capture = "events"`: the service says what it changed, over the bus; nothing is lost when it says it badly.

use rowcast_tests::{Bus, Cluster, NatsServer, Node, eventually, eventually_eq};
use serde_json::{Value as Json, json};

const ITEMS: &str = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, name TEXT, qty INTEGER, price REAL, photo BLOB);
                     CREATE TABLE seats(room TEXT NOT NULL, seat INTEGER NOT NULL, who TEXT, PRIMARY KEY(room, seat));
                     CREATE TABLE watched(id TEXT NOT NULL PRIMARY KEY, n INTEGER)";
const DECLARED: &str = "service = \"story\"\n[defaults]\ncapture = \"events\"\n[tables.items]\n[tables.seats]\n[tables.watched]\ncapture = \"triggers\"\n";

/// Where the service of `node` says what it changed.
fn subject(node: &Node) -> String {
    format!("rowcast.story.changes.{}", node.name())
}

fn item(id: &str, name: &str, qty: i64) -> Json {
    json!({"id": id, "name": name, "qty": qty, "price": 1.5, "photo": null})
}

fn said(operation: &str, data: &Json) -> String {
    json!({"table": "items", "operation": operation, "data": data}).to_string()
}

#[test]
fn a_change_that_is_said_arrives_fire_and_forget_or_answered_with_its_sequence_number() {
    let nats = NatsServer::start();
    let cluster = Cluster::declared(&nats, ITEMS, DECLARED, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let bus = Bus::connect(&nats);
    // Without a word of it nobody knows.
    a.sql("INSERT INTO items VALUES ('1', 'one', 1, 1.5, NULL)");
    bus.publish(&subject(&a), said("create", &item("1", "one", 1)));
    eventually_eq!(b.rows("SELECT * FROM items"), ["'1' | 'one' | 1 | 1.5 | NULL"]);

    a.sql("UPDATE items SET qty = 2");
    let update = said("update", &item("1", "one", 2));
    let answer = bus.ask(&subject(&a), update.clone());
    assert_eq!(answer, json!({"ok": true, "sequence_number": 2}));
    // The same again: the service may retry, and gets the number it has.
    assert_eq!(bus.ask(&subject(&a), update), json!({"ok": true, "sequence_number": 2}));
    eventually_eq!(b.number("SELECT qty FROM items"), 2);

    a.sql("DELETE FROM items; INSERT INTO seats VALUES ('blue', 7, 'ann')");
    let answer = bus.ask(&subject(&a), r#"{"table":"items","operation":"delete","key":{"id":"1"}}"#);
    assert_eq!(answer["ok"], true, "{answer}");
    let answer =
        bus.ask(&subject(&a), r#"{"table":"seats","operation":"create","data":{"room":"blue","seat":7,"who":"ann"}}"#);
    assert_eq!(answer, json!({"ok": true, "sequence_number": 4}));
    eventually_eq!(b.number("SELECT count(*) FROM items"), 0);
    eventually_eq!(b.rows("SELECT * FROM seats"), ["'blue' | 7 | 'ann'"]);
    // A table with triggers beside it needs no word, and numbers are dense over all of them.
    a.sql("INSERT INTO watched VALUES ('w', 1)");
    eventually_eq!(b.rows("SELECT * FROM watched"), ["'w' | 1"]);
    assert_eq!(b.rows("SELECT sequence_number FROM watched_Events"), ["5"]);
    cluster.converged();
}

#[test]
fn values_that_json_cannot_hold_are_said_with_tags() {
    let nats = NatsServer::start();
    let cluster = Cluster::declared(&nats, ITEMS, DECLARED, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let bus = Bus::connect(&nats);
    a.sql("INSERT INTO items VALUES ('x', CAST(x'ff00' AS TEXT), 9223372036854775807, -9e999, x'00ff')");
    let data = json!({"id": "x", "name": {"$text": "/wA="}, "qty": i64::MAX, "price": {"$real": "-Infinity"}, "photo": {"$blob": "AP8="}});
    let answer = bus.ask(&subject(&a), said("create", &data));
    assert_eq!(answer["ok"], true, "{answer}");
    eventually_eq!(b.rows("SELECT * FROM items"), ["'x' | text x'ff00' | 9223372036854775807 | -inf | x'00ff'"]);
    cluster.converged();
}

#[test]
fn two_quick_updates_of_which_one_word_is_lost_and_a_remote_event_in_between_lose_nothing() {
    let nats = NatsServer::start();
    let cluster = Cluster::declared(&nats, ITEMS, DECLARED, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let bus = Bus::connect(&nats);
    let names = |node: &Node, id: &str| {
        node.rows(&format!(
            "SELECT DISTINCT json_extract(data, '$.name') FROM items_Events WHERE record_id = '{id}' ORDER BY 1"
        ))
    };
    for (id, first_is_lost) in [("x", false), ("y", true)] {
        a.sql(&format!("INSERT INTO items VALUES ('{id}', 'made', 0, 1.5, NULL)"));
        bus.ask(&subject(&a), said("create", &item(id, "made", 0)));
        eventually_eq!(b.number(&format!("SELECT count(*) FROM items WHERE id = '{id}'")), 1);
        // Two updates, one word; then another node's update of the same record comes in.
        a.sql(&format!("UPDATE items SET name = 'first' WHERE id = '{id}'"));
        if !first_is_lost {
            bus.publish(&subject(&a), said("update", &item(id, "first", 0)));
        }
        a.sql(&format!("UPDATE items SET name = 'second' WHERE id = '{id}'"));
        b.sql(&format!("UPDATE items SET name = 'remote' WHERE id = '{id}'"));
        bus.ask(&subject(&b), said("update", &item(id, "remote", 0)));
        if first_is_lost {
            bus.publish(&subject(&a), said("update", &item(id, "second", 0)));
        }
        let expected: &[&str] = if first_is_lost {
            &["'made'", "'remote'", "'second'"]
        } else {
            &["'first'", "'made'", "'remote'", "'second'"]
        };
        // What the rows held and what was said is an event on both nodes: nothing was overwritten unseen.
        for node in [&a, &b] {
            eventually_eq!(names(node, id), expected);
        }
        cluster.converged();
    }
}

#[test]
fn a_word_that_was_lost_between_commit_and_publish_is_found_by_the_scan_at_start() {
    let nats = NatsServer::start();
    let cluster = Cluster::declared(&nats, ITEMS, DECLARED, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("INSERT INTO items VALUES ('silent', 'nobody was told', 1, 1.0, NULL)");
    a.restart();
    a.ready();
    eventually_eq!(b.rows("SELECT id FROM items"), ["'silent'"]);
    a.sql("DELETE FROM items");
    a.restart();
    a.ready();
    eventually_eq!(b.number("SELECT count(*) FROM items"), 0);
}

#[test]
fn a_change_event_that_is_wrong_is_answered_with_what_is_wrong_and_changes_nothing() {
    let nats = NatsServer::with_config("max_payload: 33554432");
    let cluster = Cluster::declared(&nats, ITEMS, DECLARED, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let bus = Bus::connect(&nats);
    let full = item("x", "x", 1);
    let with = |key: &str, value: Json| {
        let mut data = full.clone();
        data[key] = value;
        said("update", &data)
    };
    let ten_mebibytes = with("name", "x".repeat(10 << 20).into());
    for (what, event, place) in [
        ("an unknown table", r#"{"table":"itmes","operation":"update","data":{"id":"x"}}"#.to_owned(), "itmes"),
        (
            "a missing key",
            r#"{"table":"items","operation":"update","data":{"name":"x","qty":1,"price":1.0,"photo":null}}"#.to_owned(),
            "id",
        ),
        (
            "a missing part of the key",
            r#"{"table":"seats","operation":"delete","key":{"room":"blue"}}"#.to_owned(),
            "seat",
        ),
        ("a missing column", r#"{"table":"items","operation":"update","data":{"id":"x"}}"#.to_owned(), "name"),
        ("an unknown column", with("colour", json!("red")), "colour"),
        ("a wrong type", with("qty", json!(true)), "qty"),
        ("an array", with("qty", json!([1])), "qty"),
        ("an unknown tag", with("photo", json!({"$image": "AA=="})), "$image"),
        ("base64 that is none", with("photo", json!({"$blob": "?"})), "base64"),
        (
            "a number too large",
            said("update", &full).replace("\"qty\":1", "\"qty\":9223372036854775808"),
            "9223372036854775808",
        ),
        ("a key that is NULL", with("id", Json::Null), "id"),
        ("an unknown operation", said("upsert", &full), "upsert"),
        ("no operation", r#"{"table":"items","data":{"id":"x"}}"#.to_owned(), "operation"),
        ("no data", r#"{"table":"items","operation":"update"}"#.to_owned(), "data"),
        ("no JSON", "items x".to_owned(), ""),
        ("nothing", String::new(), ""),
        ("a list", "[]".to_owned(), ""),
        ("ten MiB", ten_mebibytes, "bytes"),
        (
            "Rowcast's own table",
            r#"{"table":"items_Events","operation":"delete","key":{"id":"x"}}"#.to_owned(),
            "own tables",
        ),
        (
            "Rowcast's own journal",
            r#"{"table":"_rowcast_journal","operation":"delete","key":{"n":1}}"#.to_owned(),
            "own tables",
        ),
    ] {
        let answer = bus.ask(&subject(&a), event.clone());
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(answer["ok"] == false && error.contains(place) && !error.is_empty(), "{what}: {answer}");
        // Nobody waits for an answer: it is dropped, and counted or logged, and nothing dies.
        bus.publish(&subject(&a), event);
    }
    assert_eq!(a.number("SELECT count(*) FROM items_Events"), 0);
    a.sql("INSERT INTO items VALUES ('good', 'good', 1, 1.5, NULL)");
    assert_eq!(
        bus.ask(&subject(&a), said("create", &item("good", "good", 1))),
        json!({"ok": true, "sequence_number": 1})
    );
    eventually!(b.number("SELECT count(*) FROM items") == 1);
    assert!(a.alive() && b.alive());
}
