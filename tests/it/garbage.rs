//! Garbage on the bus: nothing dies, nothing is believed, and the truth still gets through.

use std::time::Duration;

use rowcast_tests::bus::Message;
use rowcast_tests::random::Random;
use rowcast_tests::{Bus, Cluster, NatsServer, Node, eventually_eq, rows};

const ITEMS: &str = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER);
                     INSERT INTO items VALUES ('kept', 1), ('also kept', 2)";

#[test]
fn garbage_on_every_subject_kills_nobody_and_changes_no_row() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let before = cluster.converged();
    let bus = Bus::connect(&nats);
    let ids = [&a, &b].map(|node| node.status()["node_id"].as_str().expect("a node knows its id").to_owned());
    let mut random = Random::seeded(7);
    let pieces: Vec<Vec<u8>> =
        [&b""[..], b"{}", b"null", b"[", b"\0", b"{\"table\":\"items\"}", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
            .iter()
            .map(|bytes| bytes.to_vec())
            .chain([3, 17, 64, 1_000, 60_000].map(|length| random.bytes(length)))
            .collect();
    for subject in subjects(&ids) {
        for piece in &pieces {
            bus.publish(&subject, piece.clone());
            bus.publish_with_reply(&subject, "nowhere.to.go", piece.clone());
        }
    }
    still_well(&[&a, &b], &before);
}

/// Every subject that a sidecar listens on, and some that look like it.
fn subjects(ids: &[String]) -> Vec<String> {
    let mut subjects =
        vec!["rowcast.story.presence".to_owned(), "rowcast.story".to_owned(), "rowcast.story.resolve.items".to_owned()];
    let stranger = "00000000-0000-4000-8000-000000000000".to_owned();
    for name in ids.iter().chain([&stranger, &"a".to_owned(), &"ready".to_owned(), &"no-id".to_owned()]) {
        for kind in ["events", "changes", "state"] {
            subjects.push(format!("rowcast.story.{kind}.{name}"));
        }
        for verb in ["fetch", "snapshot", "definitions", "nonsense"] {
            subjects.push(format!("rowcast.story.rpc.{name}.{verb}"));
        }
    }
    subjects
}

#[test]
fn real_messages_with_flipped_bits_or_cut_short_change_no_row() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::start(&nats, ITEMS, ["a", "b"]);
    let bus = Bus::connect(&nats);
    let heard = {
        let mut all = bus.subscribe("rowcast.story.>");
        let c = cluster.add("c");
        c.start();
        c.ready();
        let [a, b, _] = cluster.nodes();
        for n in 0..20 {
            a.sql(&format!("INSERT INTO items VALUES ('a{n}', {n})"));
            b.sql(&format!("UPDATE items SET n = n + 1 WHERE id = 'a{}'", n / 2));
        }
        cluster.converged();
        let mut heard: Vec<Message> = Vec::new();
        while let Some(message) = all.next(Duration::from_millis(1_500)) {
            heard.push(message);
            if heard.len() > 400 {
                break;
            }
        }
        heard
    };
    assert!(heard.iter().any(|message| message.subject.contains(".events.")), "event messages were heard");
    assert!(heard.iter().any(|message| message.subject.contains(".rpc.")), "requests were heard");
    let before = cluster.converged();
    let mut random = Random::seeded(11);
    for message in &heard {
        for _ in 0..4 {
            let mut bytes = message.payload.clone();
            match random.below(4) {
                _ if bytes.is_empty() => bytes = random.bytes(9),
                0 => bytes.truncate(random.below(bytes.len())),
                1 => bytes.extend(random.bytes(5)),
                _ => {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            bus.publish_with_reply(&message.subject, "nowhere.to.go", bytes);
        }
        // What was really said, said again: duplicates are harmless.
        bus.publish(&message.subject, message.payload.clone());
    }
    let [a, b, c] = cluster.nodes();
    still_well(&[&a, &b, &c], &before);
    cluster.converged();
}

/// All are alive with the rows they had, and what is written now arrives.
fn still_well(nodes: &[&Node], before: &rows::Dump) {
    for (number, author) in nodes.iter().enumerate() {
        assert!(author.alive(), "{} has died", author.name());
        let difference = rows::difference(before, &author.dump().unwrap());
        if number == 0 {
            assert!(difference.is_none(), "{}", difference.unwrap_or_default());
        }
    }
    for author in nodes {
        author.sql(&format!("INSERT INTO items VALUES ('after {}', 1)", author.name()));
        for node in nodes {
            eventually_eq!(node.rows(&format!("SELECT n FROM items WHERE id = 'after {}'", author.name())), ["1"]);
        }
    }
    for node in nodes {
        node.ready();
        node.sql("DELETE FROM items WHERE id LIKE 'after %'");
        eventually_eq!(rows::difference(before, &node.dump().unwrap()), None);
    }
}
