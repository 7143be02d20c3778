//! The way to the NATS servers: whom a node speaks to, and what it says of itself there.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream};

use rowcast_tests::{Cluster, NatsServer, eventually, port};

/// The lines of a server's log that tell of a client.
fn clients(server: &NatsServer) -> usize {
    server.log().lines().filter(|line| line.contains("Client connection created")).count()
}

/// S1: what a server says of other servers comes before TLS, from whoever is on the way, and would be spoken to without it.
#[test]
fn a_node_speaks_to_the_servers_that_it_was_given_and_to_no_other() {
    let (here, there) = (port::free(), port::free());
    let member = |own: u16| {
        format!(
            "debug: true\ncluster {{ name: c, listen: \"127.0.0.1:{own}\", routes: [\"nats://127.0.0.1:{here}\"] }}"
        )
    };
    let (given, other) = (NatsServer::with_config(&member(here)), NatsServer::with_config(&member(there)));
    let told = format!(":{}\"", other.port());
    eventually!({
        let mut line = String::new();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, given.port())).unwrap();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.contains("connect_urls") && line.contains(&told)
    });
    let cluster = Cluster::start(&given, "CREATE TABLE items(id TEXT PRIMARY KEY NOT NULL);", ["a"]);
    let [a] = cluster.nodes();
    let before = clients(&other);
    let connections = a.log().matches("NATS is connected").count();
    given.kill();
    eventually!(a.log().contains("NATS is disconnected"));
    // Attempts to connect come 25 ms apart at first: there are some before the server is back.
    eventually!(a.log().contains("cannot connect to NATS"));
    given.restart();
    eventually!(connections < a.log().matches("NATS is connected").count());
    assert_eq!(clients(&other), before);
}

/// A connection alone is not the way to the others: what the server forbids is said, and not only in the log.
#[test]
fn what_the_server_forbids_is_on_the_status_page() {
    let nats = NatsServer::with_config(
        "authorization { users: [{ user: ann, password: right, permissions: { subscribe: { deny: \"rowcast.*.presence\" } } }] }",
    );
    let cluster = Cluster::prepare(&nats, "CREATE TABLE items(id TEXT PRIMARY KEY NOT NULL);", ["a", "b"]);
    let [a, b] = cluster.nodes();
    let password = cluster.folder().join("password");
    std::fs::write(&password, "right").unwrap();
    for node in [&a, &b] {
        node.set("USER", "ann");
        node.set("PASSWORD_FILE", password.to_str().unwrap());
    }
    a.start_with(&["--first"]);
    a.ready();
    eventually!(a.status()["warnings"].to_string().contains("rowcast.story.presence"));
    // It hears nobody, and has nothing to begin with.
    b.start();
    eventually!(b.readyz().1["reasons"].to_string().contains("rowcast.story.presence"));
}
