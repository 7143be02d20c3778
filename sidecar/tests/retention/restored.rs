//! A copy of a database from before something was deleted and forgotten.

use super::stage::service;
use super::{Cluster, TABLE, toml};

const FILES: [&str; 3] = ["app.db", "app.db-wal", "app.db-rowcast"];

/// A node is set back to a copy in which a row lives that all others have deleted, tombstone and all. It writes before it hears
/// them, once more after a restart, and takes a new id. What it wrote stays; what is gone does not come back.
#[test]
fn a_copy_from_before_a_forgotten_delete_does_not_bring_the_row_back() {
    let mut cluster = Cluster::new(&toml("latest"), 3);
    cluster.sql(0, "INSERT INTO t VALUES ('kept', '1')");
    cluster.sql(0, "INSERT INTO t VALUES ('deleted', '1')");
    cluster.run(20);
    let (old_id, folder) = (cluster.id(0), cluster.path(0).with_file_name(""));
    let copy = tempfile::tempdir().unwrap();
    cluster.stop(0);
    for file in FILES {
        std::fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    cluster.start(0, false);
    cluster.run(10);
    cluster.sql(0, "INSERT INTO t VALUES ('lost', '1')");
    cluster.sql(1, "DELETE FROM t WHERE id = 'deleted'");
    cluster.run(60);
    assert_eq!((cluster.events(0), cluster.events(1)), (2, 2), "nobody knows of it any more");

    cluster.stop(0);
    let other = tempfile::tempdir().unwrap();
    cluster.nodes[0].service = service(&other.path().join("app.db"), TABLE);
    std::fs::remove_file(folder.join("app.db-shm")).ok();
    for file in FILES {
        std::fs::copy(copy.path().join(file), folder.join(file)).unwrap();
    }
    cluster.nodes[0].service = service(&folder.join("app.db"), "");
    cluster.split(&[0], &[1, 2]);
    for value in ["alone", "again"] {
        cluster.start(0, false);
        cluster.run(20);
        cluster.sql(0, &format!("INSERT INTO t VALUES ('{value}', '2')"));
        cluster.run(4);
    }
    cluster.heal();
    cluster.run(100);
    assert_ne!(cluster.id(0), old_id);
    for at in 0..3 {
        let rows = cluster.rows(at);
        let ids: Vec<&str> = rows.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["again", "alone", "kept", "lost"], "n{at}");
    }
}
