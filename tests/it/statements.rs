//! Every kind of statement a service can run: the replicas equal the source.

use rowcast_tests::{Cluster, NatsServer, eventually_eq, rows};

const LIBRARY: &str = "
CREATE TABLE authors(id TEXT NOT NULL PRIMARY KEY, name TEXT);
CREATE TABLE books(id TEXT NOT NULL PRIMARY KEY, author TEXT NOT NULL REFERENCES authors ON DELETE CASCADE ON UPDATE CASCADE, title TEXT);
CREATE TABLE loans(id TEXT NOT NULL PRIMARY KEY, book TEXT REFERENCES books ON DELETE SET NULL ON UPDATE SET NULL);
CREATE TABLE users(id TEXT NOT NULL PRIMARY KEY, email TEXT UNIQUE, handle TEXT, active INTEGER NOT NULL DEFAULT 1, n INTEGER);
CREATE UNIQUE INDEX active_handles ON users(handle) WHERE active;
CREATE UNIQUE INDEX lower_emails ON users(lower(email));
CREATE TABLE seats(room TEXT NOT NULL COLLATE NOCASE, seat INTEGER NOT NULL, who TEXT, PRIMARY KEY(room, seat)) WITHOUT ROWID;
CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT COLLATE NOCASE, value);
CREATE TRIGGER user_log AFTER UPDATE OF email ON users BEGIN INSERT INTO log(what) VALUES ('email of ' || new.id); END;
INSERT INTO authors VALUES ('lem', 'Stanisław'), ('le guin', 'Ursula'), ('borges', 'Jorge');
INSERT INTO books VALUES ('solaris', 'lem', 'Solaris'), ('cyberiad', 'lem', 'Cyberiad'), ('lathe', 'le guin', 'Lathe');
INSERT INTO loans VALUES ('1', 'solaris'), ('2', 'lathe'), ('3', 'lathe');
INSERT INTO users VALUES ('1', 'a@x', 'ann', 1, 1), ('2', 'b@x', 'bob', 1, 2), ('3', 'c@x', 'cat', 1, 3), ('4', 'd@x', 'dan', 0, 4);
INSERT INTO seats VALUES ('Blue', 1, 'ann'), ('Blue', 2, NULL), ('Red', 1, 'bob');
INSERT INTO log VALUES (1, 'first', 1), (2, 'second', 'x');";

/// What is done, and how. Each runs on what the one before left.
const STATEMENTS: &[(&str, &str)] = &[
    ("a primary key is updated", "UPDATE users SET id = 'one' WHERE id = '1'"),
    ("a primary key is updated to what it was", "UPDATE users SET id = id, n = n + 1 WHERE id = '2'"),
    ("primary keys are swapped", "BEGIN; UPDATE users SET id = 'tmp' WHERE id = '2'; UPDATE users SET id = '2' WHERE id = '3';
        UPDATE users SET id = '3' WHERE id = 'tmp'; COMMIT"),
    ("a key changes its letters' case only", "UPDATE seats SET room = 'BLUE' WHERE room = 'Blue'"),
    ("a text changes its letters' case only", "UPDATE log SET what = 'FIRST' WHERE id = 1"),
    ("a value changes its type only", "UPDATE log SET value = 1.0 WHERE id = 1"),
    ("all keys of a table move", "UPDATE log SET id = id + 100"),
    ("REPLACE of the same key", "INSERT OR REPLACE INTO log VALUES (101, 'replaced', NULL)"),
    ("REPLACE that evicts a row by a second unique key", "INSERT OR REPLACE INTO users VALUES ('5', 'b@x', 'eve', 1, 5)"),
    ("REPLACE that evicts by a partial unique index", "INSERT OR REPLACE INTO users VALUES ('6', 'f@x', 'cat', 1, 6)"),
    ("REPLACE that evicts by an expression index", "INSERT OR REPLACE INTO users VALUES ('7', 'F@X', 'gus', 1, 7)"),
    ("REPLACE that evicts three rows", "BEGIN; INSERT INTO users VALUES ('8', 'h@x', 'hal', 1, 8), ('9', 'i@x', 'ida', 1, 9);
        REPLACE INTO users VALUES ('9', 'h@x', 'gus', 1, 10); COMMIT"),
    ("UPDATE OR REPLACE that evicts a row", "BEGIN; INSERT INTO users VALUES ('10', 'j@x', 'jon', 1, 11), ('11', 'k@x', 'kim', 1, 12);
        UPDATE OR REPLACE users SET handle = 'jon' WHERE id = '11'; COMMIT"),
    ("REPLACE of a row and its return", "BEGIN; INSERT INTO users VALUES ('12', 'l@x', 'lea', 1, 1); REPLACE INTO users VALUES ('13', 'l@x', 'max', 1, 1);
        DELETE FROM users WHERE id = '13'; INSERT INTO users VALUES ('12', 'l@x', 'lea', 1, 2); COMMIT"),
    ("INSERT OR IGNORE of what is there", "INSERT OR IGNORE INTO users VALUES ('12', 'z@x', 'zoe', 1, 0), ('14', 'n@x', 'nat', 1, 14)"),
    ("an upsert that inserts", "INSERT INTO users VALUES ('15', 'o@x', 'oto', 1, 1) ON CONFLICT(id) DO UPDATE SET n = n + 1"),
    ("an upsert that updates", "INSERT INTO users VALUES ('15', 'o@x', 'oto', 1, 1) ON CONFLICT(id) DO UPDATE SET n = n + 1"),
    ("an upsert by a second unique key", "INSERT INTO users VALUES ('16', 'o@x', 'oto', 1, 1) ON CONFLICT(email) DO UPDATE SET n = 99, handle = 'pia'"),
    ("an upsert that does nothing", "INSERT INTO users VALUES ('15', 'o@x', 'oto', 1, 1) ON CONFLICT DO NOTHING"),
    ("many rows in one statement", "INSERT INTO log(what, value) SELECT 'row ' || value, value FROM
        (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 300) SELECT value FROM n)"),
    ("many rows are updated", "UPDATE log SET value = value * 2 WHERE value % 3 = 0"),
    ("rows are updated to what they are", "UPDATE log SET value = value"),
    ("many rows are deleted", "DELETE FROM log WHERE value % 2 = 1"),
    ("a row is deleted and made again", "BEGIN; DELETE FROM users WHERE id = '15'; INSERT INTO users VALUES ('15', 'o@x', 'new', 1, 0); COMMIT"),
    ("a row is made and deleted", "BEGIN; INSERT INTO users VALUES ('17', 'q@x', 'quo', 1, 0); DELETE FROM users WHERE id = '17'; COMMIT"),
    ("unique values are swapped", "BEGIN; UPDATE users SET email = NULL WHERE id = '12'; UPDATE users SET email = 'l@x' WHERE id = '14';
        UPDATE users SET email = 'n@x' WHERE id = '12'; COMMIT"),
    ("the service's own trigger writes", "UPDATE users SET email = 'new@x' WHERE id = '11'"),
    ("a parent's key cascades", "UPDATE authors SET id = 'stanislaw' WHERE id = 'lem'"),
    ("a referenced key sets NULL", "UPDATE books SET id = 'the lathe' WHERE id = 'lathe'"),
    ("a parent's end cascades", "DELETE FROM authors WHERE id = 'stanislaw'"),
    ("REPLACE of a parent ends its children", "INSERT OR REPLACE INTO authors VALUES ('le guin', 'Ursula K.')"),
    ("a rolled-back savepoint leaves nothing", "BEGIN; INSERT INTO seats VALUES ('Green', 1, 'kept'); SAVEPOINT s; INSERT INTO seats VALUES ('Green', 2, 'gone');
        UPDATE seats SET who = 'gone' WHERE room = 'Green' AND seat = 1; DELETE FROM authors; ROLLBACK TO s; UPDATE seats SET who = 'after' WHERE seat = 1 AND room = 'Red'; COMMIT"),
    ("nested savepoints", "SAVEPOINT a; INSERT INTO seats VALUES ('N', 1, NULL); SAVEPOINT b; INSERT INTO seats VALUES ('N', 2, NULL); SAVEPOINT c;
        DELETE FROM seats WHERE room = 'N'; ROLLBACK TO c; RELEASE b; INSERT INTO seats VALUES ('N', 3, NULL); RELEASE a"),
    ("a rolled-back transaction leaves nothing", "BEGIN; DELETE FROM seats; DELETE FROM log; ROLLBACK"),
    ("a table is emptied", "DELETE FROM log"),
    ("a table is emptied and filled again", "BEGIN; DELETE FROM seats; INSERT INTO seats VALUES ('red', 1, 'new'), ('Blue', 1, 'ann'); COMMIT"),
    ("everything is deleted", "BEGIN; DELETE FROM loans; DELETE FROM authors; DELETE FROM books; DELETE FROM users; DELETE FROM seats; DELETE FROM log; COMMIT"),
    ("and begun again", "BEGIN; INSERT INTO authors VALUES ('borges', 'Jorge Luis'); INSERT INTO books VALUES ('aleph', 'borges', 'El Aleph'); COMMIT"),
];

#[test]
fn replicas_equal_the_source_after_every_kind_of_statement() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, LIBRARY, ["a", "b", "c"]);
    let [a, b, _c] = cluster.nodes();
    for (at, (what, sql)) in STATEMENTS.iter().enumerate() {
        // The author changes: what arrived must be as good a start as what was written here.
        let author = if at % 2 == 0 { &a } else { &b };
        println!("{what}, on {}", author.name());
        author.sql(sql);
        cluster.converged();
    }
    cluster.sound_with_references();
    assert_eq!(b.rows("SELECT * FROM books"), ["'aleph' | 'borges' | 'El Aleph'"]);
}

#[test]
fn what_is_replicated_equals_what_sqlite_alone_would_hold() {
    let alone = rusqlite::Connection::open_in_memory().unwrap();
    alone.execute_batch(LIBRARY).unwrap();
    let tables = rows::service_tables(&alone).unwrap();
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, LIBRARY, ["a", "b"]);
    let [a, b] = cluster.nodes();
    for (what, sql) in STATEMENTS {
        println!("{what}");
        alone.execute_batch(sql).unwrap();
        a.sql(sql);
        let expected = rows::dump_of(&alone, &tables, &[]).unwrap();
        assert_eq!(rows::difference(&expected, &a.dump().unwrap()), None, "the service's own rows after: {what}");
        eventually_eq!(rows::difference(&expected, &b.dump().unwrap()), None);
    }
}

#[test]
fn a_statement_gives_the_service_what_it_would_without_rowcast() {
    let alone = rusqlite::Connection::open_in_memory().unwrap();
    alone.execute_batch(LIBRARY).unwrap();
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, LIBRARY, ["a"]);
    let [a] = cluster.nodes();
    let service = a.service();
    for sql in [
        "INSERT INTO log(what) VALUES ('x'), ('y')",
        "UPDATE log SET value = 1",
        "UPDATE users SET n = n + 1 WHERE id > '1'",
        "DELETE FROM log WHERE id = 1",
        "INSERT INTO users VALUES ('1', 'new@x', 'new', 1, 1)",
        "INSERT INTO users VALUES ('20', 'A@X', 'new', 1, 1)",
        "INSERT INTO users VALUES (NULL, 'y@x', 'new', 1, 1)",
        "INSERT INTO books VALUES ('x', 'nobody', 'x')",
        "INSERT OR REPLACE INTO users VALUES ('21', 'a@x', 'bob', 1, 1)",
        "INSERT OR IGNORE INTO users VALUES ('21', 'a@x', 'bob', 1, 1)",
        "INSERT OR ABORT INTO seats VALUES ('Blue', 5, 1), ('blue', 5, 2)",
        "INSERT OR FAIL INTO seats VALUES ('Blue', 6, 1), ('blue', 6, 2)",
        "DELETE FROM authors",
        "DELETE FROM users WHERE 0",
        "UPDATE seats SET room = 'red' WHERE room = 'Blue'",
        "DELETE FROM nothing",
    ] {
        let outcome = |connection: &rusqlite::Connection| {
            let result = connection.execute(sql, []).map_err(|error| error.to_string());
            (result, connection.last_insert_rowid(), connection.changes())
        };
        assert_eq!(outcome(&service), outcome(&alone), "{sql}");
    }
    for sql in [
        "INSERT INTO log(what, value) VALUES ('r', 2.5) RETURNING *",
        "UPDATE users SET n = -n RETURNING id, n",
        "DELETE FROM seats RETURNING *",
    ] {
        assert_eq!(rows::query(&service, sql).unwrap(), rows::query(&alone, sql).unwrap(), "{sql}");
    }
}
