//! Bad input from people: each is a clear error that names its place and says what to do, and nothing is written.

use std::path::Path;
use std::process::Command;

use rowcast_tests::binary::{self, Outcome};
use rowcast_tests::{Cluster, NatsServer, Node, eventually, port};
use rusqlite::Connection;
use tempfile::TempDir;

const ITEMS: &str = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER)";

/// It went wrong as `code` says, and names every one of `places`; there is no trace of Rowcast's own inside.
fn clear(outcome: &Outcome, code: Option<i32>, places: &[&str]) {
    let said = &outcome.said;
    match code {
        Some(_) => assert_eq!(outcome.code, code, "{said}"),
        None => assert!(outcome.code.is_some_and(|code| code != 0), "{:?}: {said}", outcome.code),
    }
    for place in places {
        assert!(said.contains(place), "it does not name {place:?}:\n{said}");
    }
    for inside in ["panicked", "RUST_BACKTRACE", "src/", "Error {", "Some("] {
        assert!(!said.contains(inside), "{inside:?} is not for people:\n{said}");
    }
}

/// `rowcast check` for this node.
fn check(node: &Node) -> Outcome {
    let mut arguments = node.arguments();
    arguments[0] = "check".to_owned();
    binary::run(arguments)
}

/// `rowcast run` for this node, which must end by itself.
fn run(node: &Node) -> Outcome {
    binary::run(node.arguments().into_iter().chain(["--first".to_owned()]))
}

fn init(database: &Path) -> Outcome {
    binary::run(["init", "--service", "story", "--database", database.to_str().unwrap()])
}

#[test]
fn a_sound_node_passes_the_check() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, ITEMS, ["a"]);
    let [a] = cluster.nodes();
    check(&a).well();
}

#[test]
fn mistakes_in_the_schema_toml_are_named_all_at_once_with_their_lines() {
    let nats = NatsServer::start();
    let toml = "service = \"story\"\ncolour = 1\n[defaults]\nconflict = \"dice\"\n[tables.items]\nhistroy = \"1d\"\nexclude = [\"nothing\"]\n";
    let cluster = Cluster::prepare_declared(&nats, ITEMS, toml, ["a"]);
    let [a] = cluster.nodes();
    let file = cluster.schema().to_str().unwrap();
    let line = |number| format!("{file}:{number}");
    let places = [line(2), line(4), line(6)];
    let places: Vec<&str> = places.iter().map(String::as_str).chain(["colour", "dice", "histroy"]).collect();
    clear(&check(&a), Some(2), &places);
    clear(&run(&a), Some(2), &places);
    std::fs::write(cluster.schema(), "service = \"story\"\n[tables.items]\n[tables.itmes]\n").unwrap();
    clear(&check(&a), Some(2), &["itmes", "not in the database"]);
    std::fs::write(cluster.schema(), "service = \"story\"\n[tables.items]\nexclude = [\"nothing\"]\n").unwrap();
    clear(&check(&a), None, &["items", "nothing"]);
    std::fs::write(cluster.schema(), "service = \"story\"\n[tables.items\n").unwrap();
    clear(&check(&a), Some(2), &[&line(2)]);
    std::fs::remove_file(cluster.schema()).unwrap();
    clear(&check(&a), Some(2), &[file]);
    clear(&run(&a), Some(2), &[file]);
    assert_eq!(a.number("SELECT count(*) FROM sqlite_master WHERE name LIKE '%rowcast%'"), 0, "nothing was written");
}

#[test]
fn a_declared_table_that_nobody_has_keeps_the_node_from_being_ready_and_is_named() {
    let nats = NatsServer::start();
    let toml = "service = \"story\"\n[tables.items]\n[tables.itmes]\n";
    let cluster = Cluster::prepare_declared(&nats, ITEMS, toml, ["a"]);
    let [a] = cluster.nodes();
    a.start_with(&["--first"]);
    eventually!(reason(&a, "schema").is_some_and(|text| text.contains("itmes")));
    a.sql("INSERT INTO items VALUES ('x', 1)");
    // Once the table is there, it is as if it always had been.
    a.sql("CREATE TABLE itmes(id TEXT NOT NULL PRIMARY KEY); INSERT INTO itmes VALUES ('y')");
    a.ready();
    eventually!(a.number("SELECT count(*) FROM itmes_Events") == 1);
}

#[test]
fn tables_that_cannot_be_replicated_are_left_out_by_init_and_refused_by_check_each_with_its_reason() {
    let nats = NatsServer::start();
    let sql = "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY); CREATE TABLE keyless(a, b);
               CREATE TABLE nullable(id TEXT PRIMARY KEY); CREATE VIEW seen AS SELECT * FROM items;
               CREATE VIRTUAL TABLE search USING fts5(text); CREATE TABLE \"what is \"\"this\"\"\"(a);
               CREATE TABLE orders(id TEXT NOT NULL PRIMARY KEY); CREATE TABLE orders_Events(id TEXT NOT NULL PRIMARY KEY)";
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("app.db");
    let connection = Connection::open(&database).unwrap();
    connection.execute_batch(sql).unwrap();
    // A collation that only the service knows, and this process does not either.
    connection
        .execute_batch(
            "CREATE TABLE collated(name TEXT NOT NULL PRIMARY KEY COLLATE RTRIM); PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = replace(sql, 'RTRIM', 'german') WHERE name = 'collated'",
        )
        .unwrap();
    drop(connection);
    let cluster = Cluster::prepare_copy(&nats, &database, ["a"]);
    let [a] = cluster.nodes();
    let said = cluster.init_said();
    let toml = std::fs::read_to_string(cluster.schema()).unwrap();
    for (table, reason) in [
        ("keyless", "primary key"),
        ("nullable", "NULL"),
        ("seen", "view"),
        ("search", "virtual"),
        ("collated", "german"),
        ("this", "primary key"),
        ("orders", "orders_Events"),
    ] {
        assert!(said.contains(table) && said.contains(reason), "init says why it left {table} out ({reason}):\n{said}");
        let entry = format!("\n[tables.{table}]");
        assert!(!toml.contains(&entry), "{table} is not declared:\n{toml}");
        std::fs::write(cluster.schema(), format!("service = \"story\"\n[tables.items]\n[tables.{table}]\n")).unwrap();
        if table != "this" {
            clear(&check(&a), None, &[table, reason]);
            clear(&run(&a), None, &[table, reason]);
        }
    }
    assert!(toml.contains("[tables.items]"), "{toml}");
}

#[test]
fn a_database_that_is_missing_is_named() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("nowhere.db");
    clear(&init(&missing), None, &["nowhere.db"]);
    assert!(!missing.exists(), "nothing was made");
    let unreachable = folder.path().join("no folder/app.db");
    clear(&init(&unreachable), None, &["no folder/app.db"]);
}

#[test]
fn a_file_that_is_no_database_or_in_another_format_is_named() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, ITEMS, ["a"]);
    let [a] = cluster.nodes();
    a.close_service();
    // Nobody has it open: it may be read and written as a file.
    let good = std::fs::read(a.database()).unwrap();
    let mut future = good.clone();
    future[18] = 7;
    future[19] = 7;
    let mut cut = good.clone();
    cut.truncate(1_000);
    for (what, bytes) in [
        (
            "text",
            b"this is no database, and longer than a header must be for anybody to be sure of that, really".to_vec(),
        ),
        ("a format of another time", future),
        ("a piece", cut),
    ] {
        println!("{what}");
        std::fs::write(a.database(), &bytes).unwrap();
        clear(&init(a.database()), None, &["app.db"]);
        clear(&check(&a), None, &["app.db"]);
        clear(&run(&a), None, &["app.db"]);
        assert_eq!(std::fs::read(a.database()).unwrap(), bytes, "it was left as it was");
    }
}

#[test]
fn a_database_that_is_locked_is_named() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("app.db");
    let service = Connection::open(&database).unwrap();
    service.execute_batch(ITEMS).unwrap();
    service.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // It is in rollback mode: to switch it to WAL, init needs it for a moment.
    clear(&init(&database), None, &["app.db", "locked"]);
    service
        .execute_batch(
            "COMMIT; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; INSERT INTO items VALUES ('x', 1)",
        )
        .unwrap();
    clear(&init(&database), None, &["app.db", "locked"]);
}

#[test]
fn a_database_that_is_read_only_is_named() {
    let folder = TempDir::new().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path());
    let mount = binary::outcome("mount", mount);
    assert_eq!(mount.code, Some(0), "this story needs a tmpfs, which root can mount: {}", mount.said);
    let _mounted = Mounted(folder.path());
    let database = folder.path().join("app.db");
    Connection::open(&database).unwrap().execute_batch(ITEMS).unwrap();
    let mut again = Command::new("mount");
    assert!(again.args(["-o", "remount,ro"]).arg(folder.path()).status().unwrap().success());
    let said = init(&database);
    clear(&said, None, &["app.db", "read"]);
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, ITEMS, ["a"]);
    let node = cluster.add_with_database("r", &database);
    clear(&check(&node), None, &["app.db", "read"]);
    clear(&run(&node), None, &["app.db", "ead-only"]);
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[test]
fn a_nats_address_that_refuses_is_named_and_waited_for() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, ITEMS, ["a"]);
    let [a] = cluster.nodes();
    let nobody = format!("127.0.0.1:{}", port::free());
    a.through(&format!("nats://{nobody}"));
    clear(&check(&a), None, &[&nobody]);
    a.start_with(&["--first"]);
    // It may come later: the sidecar does not give up, and says what it waits for and where.
    eventually!(reason(&a, "bus").is_some());
    eventually!(a.log().contains(&nobody));
    assert!(a.alive());
    a.through("nats://127.0.0.1:notaport");
    clear(&check(&a), Some(2), &["notaport"]);
}

#[test]
fn wrong_credentials_are_named_and_right_ones_are_taken() {
    let nats = NatsServer::with_config("authorization { user: ann, password: right }");
    let cluster = Cluster::prepare(&nats, ITEMS, ["a"]);
    let [a] = cluster.nodes();
    let password = cluster.folder().join("password");
    std::fs::write(&password, "wrong").unwrap();
    a.set("USER", "ann");
    a.set("PASSWORD_FILE", password.to_str().unwrap());
    a.start_with(&["--first"]);
    eventually!(reason(&a, "bus").is_some_and(|text| text.to_lowercase().contains("authorization")));
    let mut check = binary::command();
    let mut arguments = a.arguments();
    arguments[0] = "check".to_owned();
    check.args(&arguments).env("ROWCAST_USER", "ann").env("ROWCAST_PASSWORD_FILE", &password);
    clear(&binary::outcome("rowcast check", check), None, &[&nats.url(), "uthorization"]);
    assert!(!a.log().contains("wrong\""), "a password is never said");
    assert!(a.stop().success());
    a.start_with(&["--first"]);
    eventually!(reason(&a, "bus").is_some());
    // A secret may be renewed while the sidecar runs.
    std::fs::write(&password, "right\n").unwrap();
    a.ready();
}

/// The text of one reason why the node is not READY.
fn reason(node: &Node, code: &str) -> Option<String> {
    let (_, json) = node.readyz();
    let reasons = json["reasons"].as_array().cloned().unwrap_or_default();
    reasons.into_iter().find(|reason| reason["code"] == code).map(|reason| reason.to_string())
}

#[test]
fn an_http_address_that_is_taken_is_named() {
    let nats = NatsServer::start();
    let cluster = Cluster::prepare(&nats, ITEMS, ["a"]);
    let [a] = cluster.nodes();
    let address = format!("127.0.0.1:{}", a.http_port());
    let _taken = std::net::TcpListener::bind(&address).unwrap();
    clear(&run(&a), Some(1), &[&address, "--http"]);
}

#[test]
fn usage_that_is_wrong_ends_with_two_and_says_how() {
    for (arguments, places) in [
        (&["walk"][..], &["walk", "Usage"][..]),
        (&["run", "--speed", "9"], &["--speed", "Usage"]),
        (&["run", "--node", "a b"], &["node"]),
        (&["run"], &["--node", "--database", "--schema"]),
        (&["init"], &["--database"]),
        (&["status", "--http", "nowhere"], &["nowhere"]),
    ] {
        println!("{arguments:?}");
        clear(&binary::run(arguments), Some(2), places);
    }
    let nobody = format!("127.0.0.1:{}", port::free());
    clear(&binary::run(["status", "--http", &nobody]), Some(1), &[&nobody]);
    binary::run(["--help"]).well();
    binary::run(["--version"]).well();
}

#[test]
fn a_database_in_utf16_is_replicated_as_text_or_refused_by_name() {
    let nats = NatsServer::start();
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("wide.db");
    let service = Connection::open(&database).unwrap();
    service
        .execute_batch("PRAGMA encoding = 'UTF-16le'; CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, t TEXT)")
        .unwrap();
    service.execute_batch("INSERT INTO items VALUES ('a', 'plain'), ('ä 🦀', 'ünïcode'), ('', NULL)").unwrap();
    drop(service);
    let refused = init(&database);
    if refused.code != Some(0) {
        return clear(&refused, None, &["wide.db", "UTF-16"]);
    }
    let mut cluster = Cluster::prepare_copy(&nats, &database, ["a"]).started();
    let [a] = cluster.nodes();
    let b = cluster.add("b");
    b.start();
    b.ready();
    a.sql("UPDATE items SET t = t || '!'");
    assert_eq!(cluster.converged()["items"], ["'' | NULL", "'a' | 'plain!'", "'ä 🦀' | 'ünïcode!'"]);
}
