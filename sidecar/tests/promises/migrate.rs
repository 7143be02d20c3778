//! A migration with Rowcast out of its way: nothing fails because of a trigger, and nothing is missed.

use rowcast::edge::store::{Migration, Store, is_migrating};
use rowcast::replica::Worked;

use super::cluster::Cluster;
use super::{Node, declaration, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT UNIQUE, d TEXT);";

fn triggers(node: &Node) -> i64 {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '\\_rowcast%' ESCAPE '\\'";
    node.service.query_row(sql, [], |row| row.get(0)).unwrap()
}

const ROWS: &str = "INSERT INTO t VALUES ('x', '1', 'd'), ('y', '2', 'd')";
const DROP: &str = "ALTER TABLE t DROP COLUMN d";

/// The stated limit, and its way out.
#[test]
fn drop_column_fails_beside_the_triggers_and_works_under_a_migration_on_one_node_first() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
    cluster.nodes[0].sql(ROWS);
    cluster.settle();
    let refused = cluster.nodes[0].service.execute_batch(DROP).unwrap_err();
    assert!(refused.to_string().contains("trigger"), "{refused}");
    let (migration, off) = Migration::begin(&cluster.nodes[0].path()).unwrap();
    assert_eq!(off, 4, "insert, update and two for evicted rows");
    cluster.nodes[0].sql(DROP);
    // Beside the sidecar, which keeps away, whatever it is woken for.
    cluster.nodes[0].sql("UPDATE t SET a = 'unseen' WHERE id = 'x'; DELETE FROM t WHERE id = 'y'");
    cluster.nodes[1].sql("INSERT INTO t VALUES ('z', '3', 'd')");
    for _ in 0..5 {
        cluster.turn(0, || true);
        cluster.turn(1, || true);
    }
    assert_eq!(triggers(&cluster.nodes[0]), 1, "only the one for deletes");
    assert_eq!(cluster.nodes[0].work(), Worked::Idle);
    assert!(cluster.nodes[0].page().contains("a migration has been running"), "{}", cluster.nodes[0].page());
    assert!(cluster.nodes[0].replica().is_ready(), "a short one is no doubt");
    cluster.nodes[0].sql("CREATE TABLE beside(a)"); // The migration goes on.
    migration.end(&declaration(&toml(&["t"]))).unwrap();
    assert_eq!(triggers(&cluster.nodes[0]), 5, "they are back at once");
    cluster.settle();
    cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", "xunseen,z3");
    assert_eq!(cluster.nodes[1].text("SELECT d AS v FROM t ORDER BY id").as_deref(), Some("d,d"), "kept where it is");
    cluster.nodes[1].sql("UPDATE t SET d = 'e'");
    cluster.settle();
    let (migration, _) = Migration::begin(&cluster.nodes[1].path()).unwrap();
    cluster.nodes[1].sql(DROP);
    migration.end(&declaration(&toml(&["t"]))).unwrap();
    let before = cluster.nodes[1].events("t");
    cluster.settle();
    assert_eq!(cluster.nodes[1].events("t"), before, "a column that goes is no event");
    cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", "xunseen,z3");
}

/// A migration that is killed leaves nothing that somebody has to clean up.
#[test]
fn a_migration_that_is_killed_is_put_right_by_the_next_sidecar_and_by_one_that_runs() {
    for running in [true, false] {
        for (at, sql) in ["", DROP, "UPDATE t SET a = 'unseen' WHERE id = 'x'"].into_iter().enumerate() {
            let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
            cluster.nodes[0].sql(ROWS);
            cluster.settle();
            if !running {
                cluster.nodes[0].replica = None;
            }
            let (migration, _) = Migration::begin(&cluster.nodes[0].path()).unwrap();
            cluster.nodes[0].sql(sql);
            drop(migration); // The system lets go of the lock.
            cluster.nodes[0].sql("INSERT INTO t(id, a) VALUES ('late', '9')");
            if !running {
                cluster.nodes[0].start(false);
            }
            cluster.settle();
            assert_eq!(triggers(&cluster.nodes[0]), 5);
            let x = if at == 2 { "xunseen" } else { "x1" };
            cluster.all_say("SELECT id || a AS v FROM t ORDER BY id", &format!("late9,{x},y2"));
        }
    }
}

/// Two cannot be told apart afterwards.
#[test]
fn a_second_migration_at_the_same_time_is_refused_and_a_sidecar_does_not_start() {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    node.replica = None;
    assert!(!is_migrating(&node.path()).unwrap());
    let (migration, _) = Migration::begin(&node.path()).unwrap();
    let refused = Migration::begin(&node.path()).unwrap_err().to_string();
    assert!(refused.contains("a migration is running"), "{refused}");
    assert!(is_migrating(&node.path()).unwrap());
    let refused = Store::open(&node.path(), declaration(&toml(&["t"]))).unwrap_err().to_string();
    assert!(refused.contains("a migration is running"), "{refused}");
    node.sql("ALTER TABLE t ADD COLUMN e TEXT; ALTER TABLE t DROP COLUMN e");
    migration.end(&declaration(&toml(&["t"]))).unwrap();
    assert!(!is_migrating(&node.path()).unwrap());
    drop(node.store());
    assert_eq!(triggers(&node), 5);
}

/// A database that Rowcast has never seen, or none at all, is migrated as if it were not there.
#[test]
fn a_migration_of_a_database_without_rowcast_changes_nothing_else() {
    let node = Node::new(&toml(&["t"]), TABLE);
    let (migration, off) = Migration::begin(&node.path()).unwrap();
    assert_eq!(off, 0);
    migration.end(&declaration(&toml(&["t"]))).unwrap();
    let tables = "SELECT name AS v FROM sqlite_schema WHERE type = 'table'";
    assert_eq!(node.text(tables).as_deref(), Some("t"));
    let folder = tempfile::tempdir().unwrap();
    let (migration, off) = Migration::begin(&folder.path().join("none.db")).unwrap();
    assert_eq!(off, 0);
    migration.end(&declaration(&toml(&["t"]))).unwrap();
    assert!(!folder.path().join("none.db").exists());
}

/// A migration computes what a new column holds, on each node; meanwhile the first node's users have changed it.
#[test]
fn what_a_later_migration_computes_does_not_undo_what_was_written_since_the_first() {
    let mut cluster = Cluster::ready(2, &toml(&["t"]), TABLE);
    cluster.nodes[0].sql(ROWS);
    cluster.settle();
    let migrate = |cluster: &mut Cluster, at: usize| {
        let (migration, _) = Migration::begin(&cluster.nodes[at].path()).unwrap();
        cluster.nodes[at].sql("ALTER TABLE t ADD COLUMN e TEXT; UPDATE t SET e = id || a");
        migration.end(&declaration(&toml(&["t"]))).unwrap();
        cluster.settle();
    };
    migrate(&mut cluster, 0);
    assert_eq!(cluster.nodes[1].replica().store().durable().parked, 0);
    cluster.nodes[0].sql("UPDATE t SET e = 'by hand' WHERE id = 'x'");
    cluster.settle();
    cluster.nodes[1].sql("INSERT INTO t VALUES ('z', '3', 'd')");
    cluster.settle();
    migrate(&mut cluster, 1);
    cluster.all_say("SELECT id || ' ' || e AS v FROM t ORDER BY id", "x by hand,y y2,z z3");
}
