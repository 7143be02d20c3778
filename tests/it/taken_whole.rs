//! A node without a database file takes another node's whole: equal from the first moment on, a node of its own, and
//! nothing of its donor's own in it. Whatever is killed on the way, there is no database or a right one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rowcast_tests::random::Random;
use rowcast_tests::{Cluster, NatsServer, Node, Proxy, binary, eventually, eventually_eq};

const SHOP: &str = "
CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER, note TEXT);
CREATE TABLE said(id TEXT NOT NULL PRIMARY KEY, n INTEGER);
CREATE TABLE private(id INTEGER PRIMARY KEY, word TEXT);
CREATE VIEW large AS SELECT * FROM items WHERE n > 100;
INSERT INTO items SELECT 'i' || value, value, hex(randomblob(60)) FROM (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 20000) SELECT value FROM s);
INSERT INTO said SELECT id, n FROM items WHERE n <= 500;
INSERT INTO private(word) VALUES ('nobody else reads this');
PRAGMA user_version = 42;";

const DECLARED: &str = "service = \"story\"\n[tables.items]\n[tables.said]\ncapture = \"events\"\n";

const TAKEN: &str = "took the database of another node whole";

fn shop<const N: usize>(nats: &NatsServer, names: [&str; N]) -> Cluster {
    Cluster::declared(nats, SHOP, DECLARED, names)
}

fn files(node: &Node) -> Vec<String> {
    let names = std::fs::read_dir(node.folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("app.db")).collect();
    names.sort();
    names
}

/// Nothing of what was made on the way is left.
fn is_tidy(node: &Node) {
    eventually!(!files(node).iter().any(|name| name.contains("-rowcast-")));
}

fn taken_whole(node: &Node) -> bool {
    node.log().contains(TAKEN)
}

fn verified(node: &Node) {
    let mut command = binary::command();
    command.args(["verify", "--http", &format!("127.0.0.1:{}", node.http_port())]);
    let told = binary::outcome("rowcast verify", command).well();
    assert!(told.contains("items"), "{told}");
}

#[test]
fn a_node_without_a_file_takes_the_database_of_another_whole_and_is_a_node_of_its_own() {
    let nats = NatsServer::start();
    let mut cluster = shop(&nats, ["a"]);
    let [a] = cluster.nodes();
    a.sql("UPDATE items SET n = n + 1 WHERE n < 50");
    let b = cluster.add("b");
    b.start();
    b.ready();
    assert!(taken_whole(&b), "{}", b.log());
    assert_eq!(cluster.converged()["items"].len(), 20_000);
    assert_eq!(b.rows("SELECT * FROM private"), [""; 0]);
    assert_eq!(b.rows("PRAGMA user_version"), ["42"]);
    assert_eq!(b.number("SELECT count(*) FROM large"), a.number("SELECT count(*) FROM large"));
    assert_ne!(a.status()["node_id"], b.status()["node_id"]);
    a.sql("INSERT INTO items VALUES ('from a', 1, NULL); DELETE FROM items WHERE id = 'i7'");
    b.sql("INSERT INTO items VALUES ('from b', 1, NULL); UPDATE items SET n = -1 WHERE id = 'i8'");
    eventually_eq!(b.rows("SELECT n FROM items WHERE id = 'from a'"), ["1"]);
    eventually_eq!(a.rows("SELECT n FROM items WHERE id IN ('from b', 'i8') ORDER BY n"), ["-1", "1"]);
    cluster.converged();
    verified(&a);
    verified(&b);
    // Nothing keeps the donor's log from being reset.
    assert_eq!(a.rows("PRAGMA wal_checkpoint(TRUNCATE)"), ["0 | 0 | 0"]);
    is_tidy(&a);
    is_tidy(&b);
    // A third one takes it from either, and knows of both.
    let c = cluster.add("c");
    c.start();
    c.ready();
    assert!(taken_whole(&c));
    let made = format!(
        "made a copy of the database for a node that has none joiner={}",
        c.status()["node_id"].as_str().unwrap()
    );
    let copies: usize = [&a, &b].iter().map(|donor| donor.log().matches(&made).count()).sum();
    assert_eq!(copies, 1, "it waits for the one that is being made");
    c.restart();
    c.ready();
    c.sql("INSERT INTO items VALUES ('from c', 1, NULL)");
    eventually_eq!(a.rows("SELECT n FROM items WHERE id = 'from c'"), ["1"]);
    cluster.converged();
    cluster.sound_with_references();
}

#[test]
fn what_the_donors_service_writes_meanwhile_is_lost_nowhere_and_becomes_nobody_elses() {
    let nats = NatsServer::start();
    let mut cluster = shop(&nats, ["a"]);
    let [a] = cluster.nodes();
    let joiners = ["b", "c", "d"].map(|name| cluster.add(name));
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let service = a.service();
            let mut n = 0;
            while done.load(Ordering::Relaxed) < joiners.len() {
                n += 1;
                // What is not announced is found by comparing: its row is ahead of its events for long.
                service
                    .execute_batch(&format!(
                        "BEGIN IMMEDIATE; UPDATE items SET n = {n} WHERE id = 'i{}'; DELETE FROM items WHERE id = 'i{}';
                         INSERT INTO items VALUES ('new {n}', {n}, 'x'); UPDATE said SET n = {n} WHERE id = 'i{}'; COMMIT",
                        n % 1000 + 1,
                        n + 1000,
                        n % 500 + 1
                    ))
                    .unwrap();
                // A service that writes without a pause is ahead of its sidecar for long, and no copy is made of it.
                thread::sleep(Duration::from_millis(1));
            }
            n
        });
        // At once: one takes it while the others wait for their turn.
        joiners.iter().for_each(|joiner| joiner.start());
        for joiner in &joiners {
            joiner.ready();
            done.fetch_add(1, Ordering::Relaxed);
        }
        assert!(writer.join().unwrap() > 10);
    });
    assert!(joiners.iter().any(|joiner| taken_whole(joiner)));
    a.restart(); // It looks at the announced table at once.
    cluster.converged();
    let a_id = a.rows("SELECT value FROM _rowcast_state WHERE key = 'node_id'");
    for joiner in &joiners {
        assert_eq!(joiner.rows("SELECT DISTINCT source_node_id FROM items_Events"), a_id, "{}", joiner.name());
        assert_eq!(joiner.rows("SELECT DISTINCT source_node_id FROM said_Events"), a_id, "{}", joiner.name());
        verified(joiner);
        assert!(!joiner.log().contains("diverges"), "{}", joiner.log());
    }
    cluster.sound_with_references();
}

/// A joiner, of which nothing that asks for a chunk gets through after the first few.
fn stuck_in_the_middle(nats: &NatsServer, cluster: &mut Cluster) -> (Arc<Node>, Proxy) {
    let b = cluster.add("b");
    let link = Proxy::to(nats);
    let asked = AtomicUsize::new(0);
    link.lose(move |subject| subject.ends_with(".chunk") && asked.fetch_add(1, Ordering::Relaxed) >= 2);
    b.through(&link.url());
    b.start();
    eventually!(b.readyz().1["progress"]["done"].as_u64().is_some_and(|done| done > 0));
    (b, link)
}

#[test]
fn a_donor_that_dies_in_the_middle_leaves_nothing_and_another_one_takes_over() {
    let nats = NatsServer::start();
    let mut cluster = shop(&nats, ["a"]);
    let [a] = cluster.nodes();
    let (b, link) = stuck_in_the_middle(&nats, &mut cluster);
    let (status, why) = b.readyz();
    assert_eq!(status, 503);
    assert!(why.to_string().contains("taking the database of node a"), "{why}");
    assert!(!b.database().exists());
    a.kill();
    link.lose_nothing();
    eventually!(b.readyz().1.to_string().contains("no_peer_answered"));
    assert!(!b.database().exists(), "there is no database rather than half of one");
    a.start();
    b.ready();
    assert!(taken_whole(&b));
    cluster.converged();
    is_tidy(&a);
    is_tidy(&b);
}

#[test]
fn a_joiner_killed_at_any_moment_has_no_database_or_a_right_one() {
    let nats = NatsServer::start();
    let mut cluster = shop(&nats, ["a"]);
    let [a] = cluster.nodes();
    let mut random = Random::seeded(7);
    let (mut none, mut right) = (0, 0);
    for round in 0..12 {
        let b = cluster.add(&format!("b{round}"));
        b.start();
        thread::sleep(Duration::from_millis(random.below(120) as u64 * 10));
        b.kill();
        if b.database().exists() {
            right += 1;
            assert_eq!(b.rows("PRAGMA quick_check"), ["'ok'"]);
            assert_eq!(b.number("SELECT count(*) FROM items"), a.number("SELECT count(*) FROM items"));
            b.close_service();
        } else {
            none += 1;
        }
        a.sql(&format!("INSERT INTO items VALUES ('round {round}', 1, NULL)"));
        b.start();
        b.ready();
        eventually_eq!(b.rows(&format!("SELECT n FROM items WHERE id = 'round {round}'")), ["1"]);
        is_tidy(&b);
        assert!(b.stop().success());
    }
    println!("{none} times there was none, {right} times a right one");
    // Each of them came back under the id that it had begun with.
    let members = a.number("SELECT count(*) FROM _rowcast_members");
    assert_eq!(members, 12, "nobody is waited for that will never come");
    is_tidy(&a);
}

#[test]
fn a_file_that_the_service_makes_meanwhile_stays_and_gets_everything_event_by_event() {
    let nats = NatsServer::start();
    let mut cluster = shop(&nats, ["a"]);
    let (b, link) = stuck_in_the_middle(&nats, &mut cluster);
    b.create(
        "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER, note TEXT);
         CREATE TABLE mine(id TEXT NOT NULL PRIMARY KEY); INSERT INTO mine VALUES ('stays')",
    );
    link.lose_nothing();
    b.ready();
    assert!(!taken_whole(&b));
    assert!(b.log().contains("has come meanwhile"), "{}", b.log());
    assert_eq!(b.rows("SELECT id FROM mine"), ["'stays'"]);
    assert_eq!(cluster.converged()["items"].len(), 20_000);
    is_tidy(&b);
}

#[test]
fn a_node_that_shall_not_take_a_file_or_whose_donor_cannot_give_one_loads_event_by_event() {
    let nats = NatsServer::start();
    let mut cluster = shop(&nats, ["a"]);
    let b = cluster.add("b");
    b.set("BOOTSTRAP", "events");
    b.start();
    b.ready();
    assert!(!taken_whole(&b));
    cluster.converged();
    // SQLite cannot copy a table whose module it does not know.
    let nats = NatsServer::start();
    let sql = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY); INSERT INTO items VALUES ('x');
               PRAGMA writable_schema = ON;
               INSERT INTO sqlite_schema VALUES ('table', 'strange', 'strange', 0, 'CREATE VIRTUAL TABLE strange USING nobody_has_it(x)')";
    let mut cluster = Cluster::declared(&nats, sql, "service = \"story\"\n[tables.items]\n", ["a"]);
    let b = cluster.add("b");
    b.start();
    b.ready();
    assert!(!taken_whole(&b), "{}", b.log());
    assert!(b.log().contains("everything is loaded event by event"), "{}", b.log());
    assert_eq!(cluster.converged()["items"], ["'x'"]);
    is_tidy(&b);
}

#[test]
fn a_node_that_nobody_answers_makes_no_file_and_takes_one_when_somebody_does() {
    let nats = NatsServer::start();
    let mut cluster = shop(&nats, ["a"]);
    let [a] = cluster.nodes();
    assert!(a.stop().success());
    let b = cluster.add("b");
    b.start();
    eventually!(b.readyz().1.to_string().contains("no_peer_answered"));
    eventually_eq!(b.get("/livez").map(|(status, _)| status), Some(200));
    assert!(!Path::exists(b.database()));
    a.start();
    b.ready();
    assert!(taken_whole(&b));
    cluster.converged();
}
