//! Copies that a donor makes, and files that a joiner must not take.

use std::fs;

use rowcast_schema::declaration::Declaration;

use super::*;
use crate::bootstrap::whole::level::level;
use crate::clock::Timestamp;
use crate::edge::store::{Claim, Store};
use crate::flow::ingest;

const SCHEMA: &str = "service = \"s\"\n[tables.items]\n[tables.seats]\n";

const TABLES: &str = "
CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, n INTEGER, code TEXT UNIQUE);
CREATE TABLE seats(id TEXT NOT NULL PRIMARY KEY, who TEXT);
CREATE TABLE private(id INTEGER PRIMARY KEY AUTOINCREMENT, word TEXT);
CREATE VIEW many AS SELECT * FROM items WHERE n > 1;
CREATE TRIGGER noted AFTER INSERT ON private BEGIN UPDATE seats SET who = NULL WHERE id = 'none'; END;
CREATE VIRTUAL TABLE found USING fts5(code, content='items');
CREATE VIRTUAL TABLE diary USING fts5(page);
INSERT INTO items VALUES ('a', 1, 'one'), ('b', 2, 'two');
INSERT INTO seats VALUES ('s', 'me');
INSERT INTO private(word) VALUES ('marzipan'), ('nougat');
INSERT INTO diary VALUES ('marzipan every day');
INSERT INTO found(found) VALUES ('rebuild');
ANALYZE;
PRAGMA user_version = 7;
PRAGMA application_id = 99;";

fn declaration() -> Declaration {
    Declaration::parse("schema.toml", SCHEMA).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

/// A service's own connection.
#[expect(clippy::disallowed_methods, reason = "it stands for the service")]
fn service(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

struct Donor {
    folder: tempfile::TempDir,
    store: Store,
    joiner: NodeId,
}

impl Donor {
    /// A node that has everything, with a member that is about to join.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("donor.db");
        service(&path).execute_batch(TABLES).unwrap();
        let mut store = Store::open(&path, declaration()).unwrap();
        let joiner = NodeId(Uuid::from_u128(5));
        service(&path)
            .execute_batch(&format!(
                "UPDATE items SET n = n; UPDATE items SET n = n + 10; UPDATE seats SET who = 'you';
                 INSERT INTO _rowcast_members VALUES
                     ('{joiner}', 'new', 0, '{{}}', 0, '[]', 'member'),
                     ('{}', 'other', 0, '{{\"x\":1}}', 9, '[]', 'lost');
                 INSERT INTO _rowcast_mended(at, table_name, record_id, what) VALUES (1, 'items', 'x', 'row');
                 INSERT INTO _rowcast_state VALUES ('first', 'marzipan')",
                NodeId(Uuid::from_u128(6))
            ))
            .unwrap();
        store
            .write(|tx| {
                tx.set_loaded()?;
                tx.set_complete()?;
                ingest::journal(tx, now(), 1000).map(drop)
            })
            .unwrap();
        // What compared everything: here it is said.
        store
            .write(|tx| ["items", "seats"].iter().try_for_each(|table| tx.reconciled(table, tx.schema_version()?)))
            .unwrap();
        Self { folder, store, joiner }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            database: self.store.path().to_owned(),
            declaration: declaration(),
            joiner: self.joiner,
            copy: Uuid::from_u128(0x77),
        }
    }

    fn copy(&self) -> Copied {
        copy(&self.wanted(), || false).unwrap()
    }

    fn place(&self) -> PathBuf {
        self.folder.path().join("joiner.db")
    }

    /// What the joiner has received.
    fn arrived(&self, copied: &Copied) -> Arriving {
        let arriving = Arriving::begin(&self.place(), copied.bytes).unwrap();
        let bytes = copied.read(0, usize::try_from(copied.bytes).unwrap()).unwrap();
        arriving.write(0, &bytes).unwrap();
        arriving
    }

    fn admit(&self, arriving: &Arriving) -> Result<(), String> {
        let declaration = declaration();
        let expected = Expected { copy: Uuid::from_u128(0x77), joiner: self.joiner, declaration: &declaration };
        let members = [(self.store.durable().node, "donor".to_owned()), (self.joiner, "itself".to_owned())];
        arriving.admit(&expected, &members, now()).map_err(|refusal| refusal.to_string())
    }

    /// The joiner's database, in its place.
    fn joined(&self) -> Store {
        let claim = Claim::take(&self.place()).unwrap();
        let copied = self.copy();
        let arriving = self.arrived(&copied);
        self.admit(&arriving).unwrap();
        let mut store = arriving.open(claim, declaration()).unwrap();
        level(&mut store, now(), || false).unwrap();
        let claim = store.finish().unwrap();
        assert_eq!(arriving.put_in_place(&claim).unwrap(), Placed::Done);
        Store::open_claimed(claim, declaration()).unwrap()
    }
}

fn rows(path: &Path, sql: &str) -> Vec<String> {
    let connection = service(path);
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| {
        let cell = |at| row.get_ref(at).map(|cell| rusqlite::types::Value::try_from(cell).unwrap().text());
        (0..columns).map(cell).collect::<rusqlite::Result<Vec<_>>>().map(|cells| cells.join("|"))
    };
    statement.query_map([], read).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

trait Text {
    fn text(self) -> String;
}

impl Text for rusqlite::types::Value {
    fn text(self) -> String {
        match self {
            Self::Null => "NULL".into(),
            Self::Integer(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Text(text) => text,
            Self::Blob(bytes) => format!("{bytes:?}"),
        }
    }
}

#[test]
fn a_copy_has_what_a_node_needs_and_nothing_of_the_donors_own() {
    let donor = Donor::new();
    let store = donor.joined();
    let (from, to) = (donor.store.path(), store.path());
    for same in ["SELECT * FROM items", "SELECT * FROM seats", "SELECT * FROM items_Events ORDER BY id"] {
        assert_eq!(rows(to, same), rows(from, same), "{same}");
    }
    assert_eq!(rows(to, "SELECT rowid FROM found('two')"), rows(from, "SELECT rowid FROM found('two')"));
    assert_eq!(
        rows(to, "SELECT user_version, application_id FROM pragma_user_version, pragma_application_id"),
        ["7|99"]
    );
    assert_eq!(rows(to, "SELECT id FROM many"), ["a", "b"]);
    let schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY name";
    assert_eq!(rows(to, schema), rows(from, schema), "tables, indexes, views and triggers");
    for empty in ["private", "diary", "_rowcast_mended", "_rowcast_journal"] {
        assert_eq!(rows(to, &format!("SELECT count(*) FROM {empty}")), ["0"], "{empty}");
    }
    service(to).execute_batch("INSERT INTO private(word) VALUES ('x'); INSERT INTO diary VALUES ('today')").unwrap();
    assert_eq!(rows(to, "SELECT id FROM private"), ["1"], "numbers begin anew");
    assert_eq!(rows(to, "SELECT page FROM diary('today')"), ["today"]);
    assert!(!fs::read(to).unwrap().windows(8).any(|bytes| bytes == b"marzipan"), "nor is it left in free space");
    assert!(fs::read(from).unwrap().windows(8).any(|bytes| bytes == b"marzipan"));
    assert_eq!(rows(to, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn the_node_that_takes_it_is_itself_and_goes_on_where_the_donor_was() {
    let donor = Donor::new();
    let store = donor.joined();
    let (own, theirs) = (store.durable(), donor.store.durable());
    assert_eq!(own.node, donor.joiner);
    assert!(store.has_new_identity() && own.loaded && !own.complete);
    assert_eq!(own.vector.of(theirs.node), theirs.vector.of(theirs.node));
    assert!(theirs.vector.of(theirs.node) > 0);
    assert_eq!((own.vector.of(own.node), own.next), (0, 1));
    assert!(store.last_timestamp() >= donor.store.last_timestamp());
    let members: Vec<String> =
        rows(store.path(), "SELECT name || ' ' || standing || ' ' || vector FROM _rowcast_members");
    assert_eq!(members.len(), 2, "{members:?}");
    assert!(members.contains(&"donor member {}".to_owned()) && members.contains(&"other member {}".to_owned()));
    assert!(rows(store.path(), "SELECT key FROM _rowcast_state WHERE key IN ('first', 'whole')").is_empty());
    let left: Vec<String> = fs::read_dir(donor.folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.iter().all(|name| !name.contains("-rowcast-")), "{left:?}");
}

#[test]
fn rows_that_are_ahead_of_their_events_wait_for_them() {
    let donor = Donor::new();
    // The two values change places, one row is new, one is gone, and no event says so yet.
    service(donor.store.path())
        .execute_batch(
            "UPDATE items SET code = 'x' WHERE id = 'a'; UPDATE items SET code = 'one' WHERE id = 'b';
             UPDATE items SET code = 'two' WHERE id = 'a'; INSERT INTO items VALUES ('c', 1, 'three');
             DELETE FROM seats; UPDATE items SET n = 100",
        )
        .unwrap();
    let store = donor.joined();
    assert_eq!(rows(store.path(), "SELECT * FROM items ORDER BY id"), ["a|11|one", "b|12|two"]);
    assert_eq!(rows(store.path(), "SELECT * FROM seats"), ["s|you"]);
    assert_eq!(rows(store.path(), "SELECT count(*) FROM _rowcast_journal"), ["0"]);
    assert_eq!(rows(store.path(), "SELECT count(*) FROM _rowcast_parked"), ["0"]);
    assert_eq!(store.durable().next, 1, "nothing of it is this node's own");
}

#[test]
fn a_donor_refuses_when_it_is_not_the_time_or_not_the_database_for_it() {
    let donor = Donor::new();
    let path = donor.store.path();
    let why = |sql: &str, wanted: &Wanted| {
        service(path).execute_batch(sql).unwrap();
        match copy(wanted, || false) {
            Err(Refusal::Later(why)) => format!("later: {why}"),
            Err(Refusal::Never(why)) => format!("never: {why}"),
            other => panic!("{sql}: {other:?}"),
        }
    };
    let stranger = Wanted { joiner: NodeId(Uuid::from_u128(8)), ..donor.wanted() };
    assert!(why("", &stranger).starts_with("later: the node that asks is not among the members"));
    let lost = Wanted { joiner: NodeId(Uuid::from_u128(6)), ..donor.wanted() };
    assert!(why("", &lost).starts_with("never: "));
    for key in ["load_again", "load_target", "migrating", "open_group", "renewal"] {
        let set = format!("INSERT INTO _rowcast_state VALUES ('{key}', '1')");
        assert!(why(&set, &donor.wanted()).starts_with("later: "), "{key}");
        service(path).execute_batch(&format!("DELETE FROM _rowcast_state WHERE key = '{key}'")).unwrap();
    }
    let toml = "service = \"s\"\n[tables.items]\nexclude = [\"n\"]\n";
    let excluding = Wanted { declaration: Declaration::parse("schema.toml", toml).unwrap(), ..donor.wanted() };
    assert!(why("", &excluding).starts_with("never: table items has columns that stay"));
    assert!(matches!(copy(&donor.wanted(), || true), Err(Refusal::Never(_))), "told to stop");
    for (toml, why) in [
        ("service = \"s\"\n[tables.items]\ntriggers = \"run\"\n[tables.seats]\n", "row by row"),
        ("service = \"s\"\n[tables.items]\n", "not replicated any more"),
    ] {
        let declaration = Declaration::parse("schema.toml", toml).unwrap();
        match copy(&Wanted { declaration, ..donor.wanted() }, || false) {
            Err(Refusal::Never(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(!copy_path(path).exists(), "nothing is left");
    drop(donor.copy());
    assert!(!copy_path(path).exists(), "a copy goes when nobody holds it any more");
}

#[test]
fn a_file_that_is_not_the_copy_that_was_asked_for_is_refused() {
    let donor = Donor::new();
    let copied = donor.copy();
    let refused = |sql: &str| {
        let arriving = donor.arrived(&copied);
        service(&arriving_path(&donor.place())).execute_batch(sql).unwrap();
        donor.admit(&arriving).expect_err(sql)
    };
    for (sql, word) in [
        ("INSERT INTO private(word) VALUES ('x')", "not declared"),
        ("CREATE TABLE more(x); INSERT INTO more VALUES (1)", "rows of the table more"),
        ("DROP TABLE seats", "declared table seats"),
        ("CREATE TABLE _rowcast_other(x)", "does not know"),
        (
            "UPDATE _rowcast_state SET value = replace(value, '\"schema\":\"', '\"schema\":\"0') WHERE key = 'whole'",
            "schema TOML",
        ),
        ("UPDATE _rowcast_state SET value = replace(value, '77', '78') WHERE key = 'whole'", ""),
        ("DELETE FROM _rowcast_state WHERE key = 'whole'", "no copy made"),
        ("UPDATE _rowcast_state SET value = 'other' WHERE key = 'service'", "another service"),
        ("INSERT INTO _rowcast_state VALUES ('nonce', 'x')", "donor's own: nonce"),
        ("INSERT INTO _rowcast_state VALUES ('node_id', 'x')", "donor's own: node_id"),
        ("UPDATE _rowcast_positions SET position = 0", "beyond its own positions"),
        ("UPDATE _rowcast_positions SET timestamp = 9223372036854775807", "clock"),
        ("INSERT INTO _rowcast_positions VALUES ('00000000-0000-0000-0000-000000000005', 1, 0, 0)", "knows this node"),
        ("DROP TABLE _rowcast_state", "not one of Rowcast"),
    ] {
        let why = refused(sql);
        assert!(why.contains(word), "{sql}: {why}");
        assert!(!donor.place().exists() && !arriving_path(&donor.place()).exists());
    }
}

#[test]
fn damaged_bytes_are_never_put_in_place_and_never_panic() {
    let donor = Donor::new();
    let copied = donor.copy();
    let whole = copied.read(0, usize::try_from(copied.bytes).unwrap()).unwrap();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(1021) {
        let arriving = donor.arrived(&copied);
        let mut torn = whole.clone();
        torn[at] ^= 0xff;
        torn.truncate(if at % 2 == 0 { whole.len() } else { at });
        fs::write(arriving_path(&donor.place()), &torn).unwrap();
        refused += usize::from(donor.admit(&arriving).is_err());
    }
    assert!(refused > 0, "some of it was noticed; the hash notices the rest before");
}

#[test]
fn it_is_never_put_over_a_file_that_came_meanwhile() {
    let donor = Donor::new();
    for name in ["joiner.db", "joiner.db-wal"] {
        let claim = Claim::take(&donor.place()).unwrap();
        let copied = donor.copy();
        let arriving = donor.arrived(&copied);
        let there = donor.folder.path().join(name);
        fs::write(&there, "somebody's").unwrap();
        assert_eq!(arriving.put_in_place(&claim).unwrap(), Placed::Taken);
        assert_eq!(fs::read_to_string(&there).unwrap(), "somebody's");
        fs::remove_file(there).unwrap();
        assert!(!arriving_path(&donor.place()).exists());
    }
    let from = donor.folder.path().join("from");
    let to = donor.folder.path().join("to");
    fs::write(&from, "new").unwrap();
    fs::write(&to, "old").unwrap();
    assert!(!arrive::rename(&from, &to).unwrap(), "not even when it comes in the last moment");
    assert_eq!(fs::read_to_string(&to).unwrap(), "old");
    fs::remove_file(&to).unwrap();
    assert!(arrive::rename(&from, &to).unwrap() && !from.exists());
}

#[test]
fn more_than_the_disk_has_room_for_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [1 << 48, u64::MAX] {
        let refusal = Arriving::begin(&folder.path().join("app.db"), bytes).unwrap_err();
        assert!(refusal.to_string().contains("has room for"), "{refusal}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
