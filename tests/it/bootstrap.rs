//! A node that begins with nothing, and the gate: READY only when everything is there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rowcast_tests::process::Signal;
use rowcast_tests::{Bus, Cluster, NatsServer, Node, Proxy, eventually, eventually_eq};

const SHOP: &str = "
CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER);
CREATE TABLE notes(id TEXT NOT NULL PRIMARY KEY, item TEXT NOT NULL REFERENCES items);
CREATE INDEX notes_of_items ON notes(item);
INSERT INTO items SELECT 'i' || value, value FROM (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 5000) SELECT value FROM s);
INSERT INTO notes SELECT 'n' || n, id FROM items;";

#[test]
fn an_empty_node_is_503_until_it_has_every_row() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, SHOP, ["a"]).started();
    let [a] = cluster.nodes();
    let b = cluster.add("b");
    let link = Proxy::cut_off(&nats);
    b.through(&link.url());
    b.start();
    eventually_eq!(b.get("/livez").map(|(status, _)| status), Some(200));
    eventually!(b.readyz().0 == 503);
    let (_, why) = b.readyz();
    assert_eq!(why["state"], "NOT_READY");
    assert!(!why["reasons"].as_array().unwrap().is_empty(), "{why}");
    assert!(
        !b.database().exists()
            || b.number("SELECT count(*) FROM sqlite_master WHERE name = 'items'") == 0
            || b.number("SELECT count(*) FROM items") == 0
    );

    link.heal();
    // While it joins, the others go on writing.
    thread::scope(|scope| {
        let writer =
            scope.spawn(|| (0..300).for_each(|n| a.sql(&format!("INSERT INTO items VALUES ('late {n}', {n})"))));
        eventually!({
            let (status, _) = b.readyz();
            if status == 200 {
                // READY is to have at least all that was there when it began.
                assert!(b.number("SELECT count(*) FROM items") >= 5_000);
                assert_eq!(b.number("SELECT count(*) FROM notes"), 5_000);
            }
            status == 200
        });
        writer.join().unwrap();
    });
    let rows = cluster.converged();
    assert_eq!((rows["items"].len(), rows["notes"].len()), (5_300, 5_000));
    // The tables are the donor's, indexes too.
    let objects = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%rowcast%' AND name NOT LIKE '%Events%' ORDER BY name";
    assert_eq!(b.rows(objects), a.rows(objects));
    // And it is a node like any other.
    b.sql("INSERT INTO items VALUES ('from b', 1)");
    eventually_eq!(a.rows("SELECT n FROM items WHERE id = 'from b'"), ["1"]);
}

#[test]
fn a_node_that_nobody_answers_is_not_ready_unless_it_is_told_to_be_the_first() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, SHOP, ["a"]);
    let [a] = cluster.nodes();
    a.start();
    let no_peer = || {
        a.readyz().1["reasons"]
            .as_array()
            .is_some_and(|all| all.iter().any(|reason| reason["code"] == "no_peer_answered"))
    };
    eventually!(no_peer());
    // It stays so.
    for _ in 0..20 {
        assert_eq!(a.readyz().0, 503);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(a.readyz().1.to_string().contains("--first"), "it says what to do: {}", a.readyz().1);
    assert!(a.stop().success());
    a.start_with(&["--first"]);
    a.ready();
    // A node that was complete before may start alone.
    assert!(a.stop().success());
    a.start();
    a.ready();
    assert_eq!(a.number("SELECT count(*) FROM items"), 5_000);
}

#[test]
fn nodes_that_wait_for_one_another_do_not_flood_the_bus() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, SHOP, ["a", "b", "c"]);
    let nodes: [_; 3] = cluster.nodes();
    let bus = Bus::connect(&nats);
    let mut all = bus.subscribe("rowcast.>");
    for node in &nodes {
        node.start();
    }
    for node in &nodes {
        eventually!(node.status()["members"].as_array().is_some_and(|members| members.len() == 2));
    }
    // Each says five times a second that it is there; the others answer, and that is that.
    let start = Instant::now();
    let mut heard = 0;
    while start.elapsed() < Duration::from_secs(2) {
        heard += usize::from(all.next(Duration::from_millis(100)).is_some());
    }
    assert!(nodes.iter().all(|node| node.readyz().0 == 503));
    assert!(heard < 500, "{heard} messages in two seconds");
}

#[test]
fn first_is_ignored_when_a_peer_answers() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, SHOP, ["a"]).started();
    let b = cluster.add("b");
    // On a busy machine an answer may take its time.
    b.set("PRESENCE_WAIT", "5s");
    b.start_with(&["--first"]);
    b.ready();
    assert_eq!(cluster.converged()["items"].len(), 5_000);
}

#[test]
fn what_a_fresh_nodes_own_migration_inserted_does_not_overwrite_the_others() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE settings(name TEXT NOT NULL PRIMARY KEY, value TEXT);
               INSERT INTO settings VALUES ('theme', 'default'), ('size', 'default'), ('gone', 'default')";
    let mut cluster = Cluster::prepare(&nats, sql, ["a"]).started();
    let [a] = cluster.nodes();
    a.sql("UPDATE settings SET value = 'dark' WHERE name = 'theme'; DELETE FROM settings WHERE name = 'gone'");
    eventually_eq!(a.journal(), Ok(0));
    let b = cluster.add("b");
    // Its migration runs later than all of that, and brings one row that nobody else has.
    b.create(&format!("{sql}; INSERT INTO settings VALUES ('new', 'default')"));
    b.start();
    b.ready();
    cluster.converged();
    assert_eq!(a.rows("SELECT value FROM settings WHERE name = 'theme'"), ["'dark'"]);
    assert_eq!(a.rows("SELECT value FROM settings WHERE name = 'size'"), ["'default'"]);
    assert_eq!(b.rows("SELECT * FROM settings WHERE name = 'gone'"), [""; 0], "what was deleted stays so");
    assert_eq!(a.rows("SELECT * FROM settings WHERE name = 'new'"), ["'new' | 'default'"]);
    // What the service writes from now on counts.
    b.sql("UPDATE settings SET value = 'large' WHERE name = 'size'");
    eventually_eq!(a.rows("SELECT value FROM settings WHERE name = 'size'"), ["'large'"]);
}

#[test]
fn a_migration_can_go_first() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, SHOP, ["a"]).started();
    let b = cluster.add("b");
    let ran = b.folder().join("migrated");
    b.start_with(&["--before", &format!("echo done > '{}'", ran.display())]);
    b.ready();
    assert_eq!(std::fs::read_to_string(&ran).unwrap().trim(), "done");
    assert_eq!(cluster.converged()["items"].len(), 5_000);
    // One that fails is a fault, and says so.
    assert!(b.stop().success());
    b.start_with(&["--before", "echo the migration is broken >&2; exit 3"]);
    assert!(!b.ended().success());
    assert!(b.log().contains("--before") || b.log().contains("broken"), "{}", b.log());
}

#[test]
fn a_join_goes_on_when_its_donor_dies_and_another_takes_over() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::start(&nats, SHOP, ["a", "b"]);
    let [a, b] = cluster.nodes();
    a.sql("CREATE TABLE bulk(id INTEGER NOT NULL PRIMARY KEY)");
    a.transaction("UPDATE items SET n = n + 1");
    cluster.converged();
    let c = cluster.add("c");
    c.start();
    a.kill();
    c.ready();
    assert_eq!(c.number("SELECT count(*) FROM items"), 5_000);
    assert!(b.is_ready());
    a.start();
    a.ready();
    cluster.converged();
}

#[test]
fn a_service_started_by_the_sidecar_runs_only_when_ready_and_gets_its_signals() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, SHOP, ["a"]).started();
    let b = cluster.add("b");
    let link = Proxy::cut_off(&nats);
    b.through(&link.url());
    let said = b.folder().join("service said");
    let script = service_script(b.folder(), &said);
    b.start_with(&["--exec", "--", "/bin/sh", &script]);
    eventually!(b.readyz().0 == 503);
    thread::sleep(Duration::from_millis(500));
    assert!(!said.exists(), "the service does not run before the node is READY");
    link.heal();
    b.ready();
    eventually_eq!(lines(&said), ["started"]);
    b.signal(Signal::HUP);
    eventually_eq!(lines(&said), ["started", "HUP"]);
    let status = b.stop();
    assert_eq!(lines(&said), ["started", "HUP", "TERM"]);
    assert!(status.success(), "the service ended well, and so does the sidecar: {status}");
}

#[test]
fn when_its_service_ends_the_sidecar_ends_too() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, SHOP, ["a"]);
    let [a] = cluster.nodes();
    a.start_with(&["--first", "--exec", "--", "/bin/sh", "-c", "exit 7"]);
    let status = a.ended();
    assert!(!status.success(), "a service that failed is seen: {status}");
}

/// A service that writes down what happens to it.
fn service_script(folder: &Path, said: &Path) -> String {
    let file = folder.join("service.sh");
    let said = said.display();
    let text = format!(
        "say() {{ echo \"$1\" >> '{said}'; }}\ntrap 'say HUP' HUP\ntrap 'say TERM; exit 0' TERM\nsay started\nwhile :; do sleep 0.1; done\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file.to_str().unwrap().to_owned()
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn the_gate_tells_people_and_machines_the_same() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, SHOP, ["a", "b"]);
    let [a, b] = cluster.nodes();
    let (status, readyz) = a.readyz();
    assert_eq!((status, &readyz["state"]), (200, &"READY".into()));
    let bus = Bus::connect(&nats);
    let mut states = bus.subscribe("rowcast.story.state.a");
    let said = states.next(Duration::from_secs(30)).expect("the state is said as often as presence");
    let said: serde_json::Value = serde_json::from_slice(&said.payload).unwrap();
    assert_eq!(said, readyz, "the bus is told what the probes are told");
    let (_, metrics) = a.get("/metrics").unwrap();
    assert!(
        metrics.lines().any(|line| line.starts_with("rowcast_") && line.contains("ready") && line.ends_with(" 1")),
        "{metrics}"
    );
    let address = format!("127.0.0.1:{}", b.http_port());
    let told = rowcast_tests::binary::run(["status", "--http", &address]).well();
    assert!(told.contains("READY"), "{told}");
    let told = rowcast_tests::binary::run(["status", "--http", &address, "--json"]).well();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["node"], "b");
    is_replicated_twice(&a, &b);
}

fn is_replicated_twice(a: &Node, b: &Node) {
    a.sql("INSERT INTO items VALUES ('x', 1)");
    eventually_eq!(b.rows("SELECT n FROM items WHERE id = 'x'"), ["1"]);
    b.sql("INSERT INTO items VALUES ('y', 1)");
    eventually_eq!(a.rows("SELECT n FROM items WHERE id = 'y'"), ["1"]);
}
