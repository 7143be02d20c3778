//! Foreign keys across writers: they are not promised, and what is broken is found and said.

use std::time::Duration;

use super::cluster::Cluster;
use super::{Node, toml};

/// One node deletes a parent while another inserts its child. The rows end alike, and each node says what refers to nothing,
/// by whatever foreign key, until it is mended.
#[test]
fn rows_that_refer_to_nothing_are_counted_and_shown_until_they_are_mended() {
    let tables =
        "CREATE TABLE p(id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, code INTEGER UNIQUE, a, b, plain, UNIQUE (a, b));
         CREATE TABLE c(id TEXT PRIMARY KEY NOT NULL, p TEXT REFERENCES p, code REFERENCES p(code), a, b, lost,
             FOREIGN KEY (a, b) REFERENCES p(a, b), FOREIGN KEY (lost) REFERENCES p(plain));";
    let mut cluster = Cluster::ready(2, &toml(&["p", "c"]), tables);
    for node in &mut cluster.nodes {
        node.sql("PRAGMA foreign_keys = off"); // SQLite's own default, for the one that leads to what is not unique.
        node.verify_interval = Duration::from_secs(1);
        node.start(false);
    }
    cluster.until("both are READY", |cluster| cluster.nodes.iter_mut().all(|node| node.replica().is_ready()));
    cluster.nodes[0].sql("INSERT INTO p VALUES ('x', 1, 1, 1, 1), ('y', 2, 1, NULL, 2)");
    cluster.settle();
    let dangling = |node: &mut Node| {
        let at = node.at();
        let status = node.replica().status(at);
        let warned = status.warnings.iter().any(|warning| warning.contains("table c:") && warning.contains("refer"));
        let count = |name: &str| status.tables.iter().find(|table| table.name == name).unwrap().dangling;
        assert_eq!((count("p"), warned), (0, count("c") > 0), "{:?}", status.warnings);
        count("c")
    };
    cluster.nodes[0].sql("DELETE FROM p WHERE id = 'x'");
    cluster.nodes[1].sql(
        "INSERT INTO c(id, p) VALUES ('key', 'x'), ('other case', 'Y'), ('nobody', NULL);
         INSERT INTO c(id, code) VALUES ('unique', 1), ('text', '2');
         INSERT INTO c(id, a, b) VALUES ('two', 1, 1), ('null', 7, NULL);
         INSERT INTO c(id, lost) VALUES ('no index', 7)",
    );
    cluster.settle();
    cluster.until("both say it", |cluster| cluster.nodes.iter_mut().all(|node| dangling(node) == 3));
    cluster.nodes[0].sql("DELETE FROM c WHERE id IN ('key', 'unique'); UPDATE c SET a = NULL WHERE id = 'two'");
    cluster.until("both are content", |cluster| cluster.nodes.iter_mut().all(|node| dangling(node) == 0));
}
