//! What every test needs that drives replicas in its own process: a service's database, the options of a node, and what
//! a node answers. Each test has a bus and a time of its own, for what it is about.

use std::path::Path;
use std::time::Duration;

use rowcast::bootstrap::donor;
use rowcast::edge::store::Reader;
use rowcast::flow::fetch::Request;
use rowcast::replica::Options;
use rowcast::wire;
use rowcast_schema::declaration::Declaration;
use rusqlite::Connection;
use uuid::Uuid;

pub(crate) fn declaration(toml: &str) -> Declaration {
    Declaration::parse("schema.toml", toml).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// A connection as services have it, in WAL mode and with synchronous = NORMAL, after `sql`.
pub(crate) fn service(path: &Path, sql: &str) -> Connection {
    let service = Connection::open(path).unwrap();
    service.execute_batch(&format!("PRAGMA journal_mode = wal; PRAGMA synchronous = NORMAL; {sql}")).unwrap();
    service
}

/// The options of a node, with times that suit most tests. It compares nothing with other nodes by itself.
pub(crate) fn options(name: &str, first: bool) -> Options {
    Options {
        name: name.to_owned(),
        servers: String::new(),
        first,
        presence_interval: Duration::from_secs(1),
        presence_wait: Duration::from_secs(2),
        context_timeout: Duration::from_secs(30),
        reconcile_interval: Duration::from_secs(3600),
        verify_interval: Duration::ZERO,
        member_timeout: Duration::from_secs(7 * 24 * 3600),
        session: Uuid::new_v4(),
    }
}

/// Where a node looks up its answers.
pub(crate) fn reader(path: &Path, declaration: &Declaration) -> Reader {
    Reader::open(path, declaration).unwrap()
}

/// What a node answers to a request, from its database.
pub(crate) fn answer(reader: &Reader, request: &Request) -> Vec<u8> {
    wire::encode(&donor::answer(reader, request).unwrap())
}
