//! Conflicts are kept on every node under one id, whichever event came first there.

use rowcast::edge::store::conflicts;

use super::claims::{all_have, exchange};
use super::{Node, a_millisecond_passes, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

#[test]
fn a_conflict_has_one_id_everywhere_and_says_which_event_counts() {
    let mut nodes = [(); 2].map(|()| Node::ready(&toml(&["t"]), TABLE));
    exchange(&mut nodes);
    nodes[0].sql("INSERT INTO t VALUES ('x', 'earlier')");
    a_millisecond_passes();
    nodes[1].sql("INSERT INTO t VALUES ('x', 'later')");
    exchange(&mut nodes);
    all_have(&nodes, "SELECT a AS v FROM t", "later");
    let [one, other] = [0, 1].map(|at: usize| conflicts::conflicts(&nodes[at].path(), 10).unwrap());
    assert_eq!((one.len(), other.len()), (1, 1));
    assert_eq!(one[0].id, other[0].id);
    assert_eq!((&one[0].winner, &one[0].loser), (&other[0].winner, &other[0].loser));
    let data = |id: &str| nodes[0].text(&format!("SELECT data AS v FROM t_Events WHERE id = '{id}'")).unwrap();
    assert_eq!(data(&one[0].winner), r#"{"id":"x","a":"later"}"#);
    assert_eq!(data(&one[0].loser), r#"{"id":"x","a":"earlier"}"#);
}

#[test]
fn two_that_say_the_same_are_no_conflict() {
    let mut nodes = [(); 2].map(|()| Node::ready(&toml(&["t"]), TABLE));
    exchange(&mut nodes);
    nodes.iter().for_each(|node| node.sql("INSERT INTO t VALUES ('x', 'same')"));
    exchange(&mut nodes);
    all_have(&nodes, "SELECT count(*) AS v FROM _rowcast_conflicts", "0");
}
