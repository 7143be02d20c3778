//! A row that is too large to travel.

use std::time::Duration;

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::edge::store::operator;
use rowcast::limits;
use rowcast_schema::layout::Layout;

use super::cluster::Cluster;
use super::{Node, event, layout, node_id, piece, toml};

/// It stays where it was written, whatever compares it there; the record is on the others what it was; both say so; and
/// everything behind it arrives.
#[test]
fn a_row_that_is_too_large_to_travel_stays_on_its_node_and_keeps_nothing_else_waiting() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    cluster.nodes[0].sql("INSERT INTO t VALUES ('grows', 'small')");
    cluster.settle();
    let bytes = limits::ROW_BYTES_MAX;
    cluster.nodes[0].sql(&format!("UPDATE t SET a = printf('%.*c', {bytes}, 'x'); INSERT INTO t VALUES ('next', '1')"));
    cluster.settle();
    cluster.nodes[1].sql("INSERT INTO t VALUES ('other', '1')");
    cluster.settle();
    let lengths = "SELECT id || length(a) AS v FROM t ORDER BY id";
    let here = format!("grows{bytes},next1,other1");
    assert_eq!(cluster.nodes[0].text(lengths).unwrap(), here);
    assert_eq!(cluster.nodes[1].text(lengths).unwrap(), "grows5,next1,other1");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "size");
    for node in &cluster.nodes {
        let (rows, _) = operator::parked(&node.path(), 10).unwrap();
        assert!(rows[0].detail.contains("more than the"), "{rows:?}");
    }
    // A start, a comparison with its own events and with the other node, a migration.
    cluster.nodes[0].verify_interval = Duration::from_secs(1);
    cluster.nodes[0].start(false);
    cluster.nodes[0].sql("ALTER TABLE t ADD COLUMN b");
    cluster.settle();
    assert_eq!(cluster.nodes[0].text(lengths).unwrap(), here);
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "size");
    // The next word of its record ends it.
    cluster.nodes[0].sql("UPDATE t SET a = 'small again' WHERE id = 'grows'");
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", "growssmall again,next1,other1");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}

/// A node with a row that was small and is too large now, and what another node says of its record: what the row says is nowhere
/// else.
struct Grown {
    node: Node,
    shape: Layout,
    sequence: u64,
}

impl Grown {
    /// The migration is run while the row is small.
    fn new(definition: &str, migration: &str) -> Self {
        let mut node = Node::ready(&toml(&["t"]), definition);
        node.sql("INSERT INTO t(id, a) VALUES ('grows', 'small')");
        node.run();
        node.sql(migration);
        node.run();
        node.sql(&format!("UPDATE t SET a = printf('%.*c', {}, 'x')", limits::ROW_BYTES_MAX));
        node.run();
        Self { node, shape: layout("t", &["id", "a"]), sequence: 0 }
    }

    fn hears(&mut self, record: &str, a: &str, at: Timestamp) {
        self.sequence += 1;
        let said = event(&self.shape, record, Some(&format!(r#"{{"id":"{record}","a":"{a}"}}"#)), at);
        self.node.feed(node_id(9), vec![piece(self.sequence, self.sequence, vec![said])], vec![self.shape.clone()]);
        self.node.run();
    }

    fn rows_are(&self, expected: &str) {
        assert_eq!(self.node.text("SELECT id || length(a) AS v FROM t ORDER BY id").as_deref(), Some(expected));
    }

    fn parked_is(&self, expected: &str) {
        let parked = self.node.text("SELECT reason AS v FROM _rowcast_parked ORDER BY reason");
        assert_eq!(parked.unwrap_or_default(), expected);
    }
}

/// A later one supersedes it.
#[test]
fn a_row_that_is_too_large_to_travel_is_not_overwritten_by_an_older_event() {
    let before = clock::now();
    let mut grown = Grown::new("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT)", "");
    let now = clock::now();
    let stands = format!("grows{}", limits::ROW_BYTES_MAX);
    grown.hears("grows", "older than all", before);
    grown.rows_are(&stands);
    grown.parked_is("size");
    grown.hears("grows", "later", now);
    grown.rows_are("grows5");
    grown.parked_is("");
}

/// The record is put together anew where its newest event was written before a migration.
#[test]
fn a_row_that_is_too_large_to_travel_is_not_made_from_the_events_before_it() {
    let before = clock::now();
    let mut grown =
        Grown::new("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT)", "ALTER TABLE t ADD COLUMN b DEFAULT 'new'");
    grown.hears("grows", "older than all", before);
    grown.rows_are(&format!("grows{}", limits::ROW_BYTES_MAX));
    grown.parked_is("size");
}

/// Also where the node goes on under another id since: an older event of its record, and a record that claims its UNIQUE value.
#[test]
fn a_row_that_is_too_large_to_travel_stands_under_another_id_too() {
    let before = clock::now();
    let definition = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, u TEXT DEFAULT 'one' UNIQUE)";
    let mut grown = Grown::new(definition, "");
    let old = grown.node.replica().node();
    grown.node.replica = None;
    grown.node.sql(&format!(
        "INSERT INTO _rowcast_state(key, value) VALUES ('former_ids', json_array('{old}'));
         UPDATE _rowcast_state SET value = '{}' WHERE key = 'node_id'",
        node_id(77)
    ));
    grown.node.start(true);
    grown.node.run();
    assert_eq!(grown.node.replica().node(), node_id(77));
    let stands = format!("grows{}", limits::ROW_BYTES_MAX);
    grown.hears("grows", "older than all", before);
    grown.hears("other", "later", clock::now());
    grown.rows_are(&stands);
    grown.parked_is("size,unique");
}

/// Not while what is later is forbidden here, nor after it.
#[test]
fn a_row_that_is_too_large_to_travel_stays_when_what_is_later_is_forbidden() {
    let before = clock::now();
    let definition = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT CHECK (a <> 'forbidden'))";
    let mut grown = Grown::new(definition, "ALTER TABLE t ADD COLUMN b DEFAULT 'new'");
    let stands = format!("grows{}", limits::ROW_BYTES_MAX);
    grown.hears("grows", "forbidden", clock::now());
    grown.rows_are(&stands);
    grown.hears("grows", "older than all", before);
    grown.rows_are(&stands);
    grown.parked_is("constraint,size");
    grown.hears("grows", "later", clock::now());
    grown.rows_are("grows5");
    grown.parked_is("");
}

/// Another record that claims its UNIQUE value later waits, until the next word of its own record lets go of that.
#[test]
fn a_row_that_is_too_large_to_travel_is_not_put_out_by_another_record() {
    let definition = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, u TEXT DEFAULT 'one' UNIQUE)";
    let mut grown = Grown::new(definition, "");
    let stands = format!("grows{}", limits::ROW_BYTES_MAX);
    grown.hears("other", "later", clock::now());
    grown.rows_are(&stands);
    grown.parked_is("size,unique");
    grown.node.start(false);
    grown.node.run();
    grown.rows_are(&stands);
    grown.node.sql("UPDATE t SET a = 'small again', u = 'two'");
    grown.node.run();
    grown.rows_are("grows11,other5");
    grown.parked_is("");
}

/// What is read at a time is bounded by bytes as well as by rows, and what was not read comes next: rows that a first node has from
/// before, and those of a long transaction of another node.
#[test]
fn large_rows_are_read_a_few_at_a_time_and_all_of_them() {
    let bytes = limits::READ_BYTES_MAX / 2 + 1;
    let table = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";
    let fill = format!("INSERT INTO t SELECT value, printf('%.*c', {bytes}, 'x') FROM json_each('[1,2,3,4,5]')");
    let mut node = Node::ready(&toml(&["t"]), &format!("{table}{fill}"));
    assert_eq!(node.text("SELECT count(*) AS v FROM t_Events").as_deref(), Some("5"));
    let shape = layout("t", &["id", "a"]);
    let data = |id| format!(r#"{{"id":"{id}","a":"{}"}}"#, "y".repeat(bytes));
    for at in 1..=5 {
        let large = event(&shape, &format!("y{at}"), Some(&data(format!("y{at}"))), clock::now());
        node.feed(node_id(9), vec![piece(at, 5, vec![large])], vec![shape.clone()]);
        node.run();
    }
    assert_eq!(node.text("SELECT count(*) AS v FROM t WHERE id LIKE 'y%'").as_deref(), Some("5"));
    let mut store = node.store();
    let found = store.tables().get("t").cloned().unwrap();
    let shape = found.shape.as_ref().unwrap();
    store
        .write(|tx| {
            let (rows, more) = tx.rows_after(shape, None, 500)?;
            assert_eq!((rows.len(), more), (2, true));
            let events = tx.staged(&found, node_id(9), (1, 5), 500)?;
            assert_eq!(events.iter().map(|staged| staged.id.sequence).collect::<Vec<_>>(), [5, 4]);
            Ok(())
        })
        .unwrap();
}

/// Two nodes, and a record whose row was too large once. What superseded that is what it says now.
fn grown_and_small_again() -> Cluster {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    cluster.nodes[0].sql("INSERT INTO t VALUES ('grows', 'small')");
    cluster.settle();
    let bytes = limits::ROW_BYTES_MAX;
    cluster.nodes[0].sql(&format!("UPDATE t SET a = printf('%.*c', {bytes}, 'x')"));
    cluster.settle();
    cluster.nodes[0].sql("UPDATE t SET a = 'again'");
    cluster.settle();
    cluster
}

/// On one node first.
fn migrate(cluster: &mut Cluster, sql: &str) {
    for node in [0, 1] {
        cluster.nodes[node].sql(sql);
        cluster.settle();
    }
}

/// A migration reads what the record's events said of a column before.
#[test]
fn a_row_that_was_too_large_once_stands_in_the_way_of_no_migration() {
    let mut cluster = grown_and_small_again();
    migrate(&mut cluster, "ALTER TABLE t RENAME COLUMN a TO b");
    cluster.all_say("SELECT id || b AS v FROM t", "growsagain");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}

/// New rules of one node forbid the newest word of the record, and the one before it is none that a row could be made of.
#[test]
fn a_row_that_was_too_large_once_is_parked_again_where_what_superseded_it_is_forbidden() {
    let mut cluster = grown_and_small_again();
    cluster.nodes[1].sql(
        "BEGIN; CREATE TABLE new_t(id TEXT PRIMARY KEY NOT NULL, a TEXT CHECK (a <> 'again'));
        INSERT INTO new_t SELECT * FROM t WHERE a <> 'again'; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT",
    );
    cluster.settle();
    assert_eq!(cluster.nodes[1].text("SELECT id || a AS v FROM t").as_deref(), Some("growssmall"));
    let parked = "SELECT reason AS v FROM _rowcast_parked ORDER BY reason";
    assert_eq!(cluster.nodes[1].text(parked).as_deref(), Some("constraint,size"));
    cluster.nodes[0].sql("UPDATE t SET a = 'allowed'");
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t", "growsallowed");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}

/// Written again while it is large, as where a counter stands beside it: the record is what it was before, for a migration, for
/// those who have it, and for those who come.
#[test]
fn a_row_that_is_too_large_twice_stands_in_the_way_of_nothing() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, n INT);");
    cluster.nodes[0].sql("INSERT INTO t VALUES ('grows', 'small', 0)");
    cluster.settle();
    cluster.nodes[0].sql(&format!("UPDATE t SET a = printf('%.*c', {}, 'x')", limits::ROW_BYTES_MAX));
    cluster.settle();
    cluster.nodes[0].sql("UPDATE t SET n = 1");
    cluster.settle();
    migrate(&mut cluster, "ALTER TABLE t ADD COLUMN b DEFAULT 'd'");
    cluster.nodes[1].sql("INSERT INTO t(id, a, n) VALUES ('next', 'small', 0)");
    cluster.settle();
    let rows = "SELECT id || length(a) || n AS v FROM t ORDER BY id";
    assert_eq!(cluster.nodes[0].text(rows), Some(format!("grows{}1,next50", limits::ROW_BYTES_MAX)));
    assert_eq!(cluster.nodes[1].text(rows).as_deref(), Some("grows50,next50"));
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "size,size");
    cluster.nodes[0].sql("UPDATE t SET a = 'small again' WHERE id = 'grows'");
    cluster.settle();
    cluster.all_say(rows, "grows111,next50");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}

/// Small again, but kept out of the table by another record: what did not travel must not be what is left of it.
#[test]
fn a_row_that_was_too_large_once_and_is_kept_out_stands_in_the_way_of_no_migration() {
    let table = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, u TEXT UNIQUE);";
    let mut cluster = Cluster::ready(2, &toml(&["t"]), table);
    cluster.nodes[0].sql("INSERT INTO t VALUES ('grows', 'small', 'two')");
    cluster.settle();
    cluster.nodes[0].sql(&format!("UPDATE t SET a = printf('%.*c', {}, 'x')", limits::ROW_BYTES_MAX));
    cluster.settle();
    cluster.nodes[0].sql("UPDATE t SET a = 'again', u = 'one'");
    cluster.nodes[0].run();
    cluster.nodes[1].sql("INSERT INTO t VALUES ('other', 'later', 'one')");
    cluster.settle();
    migrate(&mut cluster, "ALTER TABLE t ADD COLUMN b DEFAULT 'd'");
    cluster.nodes[0].sql("INSERT INTO t(id, a) VALUES ('next', 'n')");
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", "nextn,otherlater");
    cluster.nodes[1].sql("UPDATE t SET u = 'three' WHERE id = 'other'");
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", "growsagain,nextn,otherlater");
    cluster.all_say("SELECT reason AS v FROM _rowcast_parked", "");
}

/// It has no event that a row could be made of, and never had.
#[test]
fn a_row_that_was_always_too_large_is_not_put_out_by_another_record() {
    let definition = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, u TEXT DEFAULT 'one' UNIQUE)";
    let fill = format!("INSERT INTO t(id, a) VALUES ('before', printf('%.*c', {}, 'x'))", limits::ROW_BYTES_MAX);
    for (definition, fill) in [(format!("{definition}; {fill}"), ""), (definition.to_owned(), fill.as_str())] {
        let mut node = Node::ready(&toml(&["t"]), &definition);
        node.sql(fill);
        node.run();
        let mut grown = Grown { node, shape: layout("t", &["id", "a"]), sequence: 0 };
        grown.hears("other", "later", clock::now());
        grown.rows_are(&format!("before{}", limits::ROW_BYTES_MAX));
        grown.parked_is("size,unique");
        grown.node.sql("DELETE FROM t");
        grown.node.run();
        grown.rows_are("other5");
    }
}
