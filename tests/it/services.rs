//! Services in other languages and on other versions of SQLite keep working, with Rowcast's triggers in their database.

use std::process::Command;
use std::thread;

use rowcast_tests::{Cluster, NatsServer, Node, binary, rows};

const NOTES: &str = "
CREATE TABLE notes(id TEXT NOT NULL PRIMARY KEY, author TEXT NOT NULL, text TEXT, made DATETIME, seen BOOLEAN DEFAULT 0);
CREATE TABLE tags(note TEXT NOT NULL REFERENCES notes ON DELETE CASCADE ON UPDATE CASCADE, tag TEXT NOT NULL, PRIMARY KEY(note, tag)) WITHOUT ROWID;
CREATE TABLE settings(name TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, value BLOB);
CREATE INDEX by_author ON notes(author);";

/// The triggers need nothing that came later.
const OLDEST: &str = "3.24.0";

#[test]
fn a_service_in_python_keeps_working_and_its_writes_arrive() {
    let python = |node: &Node, name: &str, count: &str| {
        let mut command = Command::new("python3");
        command.arg(binary::root().join("tests/services/notes.py")).arg(node.database()).args([name, count]);
        binary::outcome("the Python service", command)
    };
    keeps_working(|node, name| python(node, name, "200").said);
}

#[test]
fn a_service_on_the_oldest_sqlite_keeps_working_and_its_writes_arrive() {
    let target = binary::profile_dir().join("old-service");
    let mut build = binary::cargo();
    build.args(["build", "--locked", "--manifest-path"]).arg(binary::root().join("tests/old-service/Cargo.toml"));
    build.arg("--target-dir").arg(&target);
    build.arg("--quiet");
    let built = binary::outcome("cargo", build);
    assert_eq!(built.code, Some(0), "{}", built.said);
    keeps_working(|node, name| {
        let mut command = Command::new(target.join("debug/old-service"));
        command.arg(node.database()).args([name, "200"]);
        let said = binary::outcome("the old service", command).said;
        assert_eq!(said.trim(), OLDEST);
        said
    });
}

/// Runs a service on two nodes at once, and says what it said when it went well.
fn keeps_working(service: impl Fn(&Node, &str) -> String + Sync) {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, NOTES, ["a", "b", "c"]);
    // What the service does to a database on its own.
    let alone = Cluster::prepare(&nats, NOTES, ["alone"]);
    let [a, b, _] = cluster.nodes();
    let [without] = alone.nodes();
    for sidecar in [true, false] {
        let round = if sidecar { "with" } else { "without" };
        if !sidecar {
            assert!(b.stop().success());
        }
        thread::scope(|scope| {
            for (node, name) in [(&a, "ann"), (&b, "bob")] {
                let service = &service;
                scope.spawn(move || succeeded(&service(node, &format!("{name} {round}"))));
            }
        });
        for name in ["ann", "bob"] {
            succeeded(&service(&without, &format!("{name} {round}")));
        }
        if !sidecar {
            b.start();
            b.ready();
        }
    }
    let connection = without.service();
    let tables = rows::service_tables(&connection).unwrap();
    let expected = rows::dump_of(&connection, &tables, &[]).unwrap();
    let difference = rows::difference(&expected, &cluster.converged());
    assert!(difference.is_none(), "with and without Rowcast differ\n{}", difference.unwrap_or_default());
}

/// A service that went well says its SQLite's version, and nothing else.
fn succeeded(said: &str) {
    let numbers: Vec<u32> = said.trim().split('.').map_while(|part| part.parse().ok()).collect();
    assert!(numbers.len() == 3, "the service failed: {said}");
    println!("SQLite {said}");
}
