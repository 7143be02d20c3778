//! Events that cannot be applied: parked with their reason, in nobody's way, and mended or given up by the operator.

use std::time::Duration;

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::edge::store::operator;
use rowcast::event::{Event, Operation};
use rowcast::replica::Input;
use rowcast::wire::{self, Feed, Message};
use rowcast_schema::layout::Layout;

use super::claims::{all_have, exchange};
use super::cluster::Cluster;
use super::{Node, a_millisecond_passes, event, layout, node_id, piece, toml};

const TABLES: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, u INTEGER UNIQUE, n TEXT NOT NULL CHECK (n <> ''));";

/// Eight kinds of poison among good events: each is kept with its reason, and the good ones are all applied.
#[test]
fn poison_of_eight_kinds_is_parked_and_keeps_nothing_else_waiting() {
    let mut node = Node::new(&toml(&["t", "later"]), TABLES);
    node.start(true);
    node.run();
    let shape = layout("t", &["id", "u", "n"]);
    let other_key = Layout::new("t".into(), vec!["id".into(), "u".into()], vec![1]);
    let (later, unknown) = (layout("later", &["id"]), layout("nobodys", &["id"]));
    let now = clock::now();
    let far = now.plus(Duration::from_secs(3600));
    let good = |id: u32| event(&shape, &id.to_string(), Some(&format!(r#"{{"id":{id},"u":{id},"n":"x"}}"#)), now);
    let bad = |id: u32, u: &str, n: &str| {
        event(&shape, &id.to_string(), Some(&format!(r#"{{"id":{id},"u":{u},"n":{n}}}"#)), now)
    };
    let poison = vec![
        event(&unknown, "1", Some(r#"{"id":1}"#), now),
        event(&other_key, "901", Some(r#"{"id":901,"u":901}"#), now),
        event(&shape, "902", Some(r#"{"id":902,"u":"#), now),
        event(&shape, "no number", Some(r#"{"id":903,"u":903,"n":"x"}"#), now),
        bad(904, "904", "null"),
        event(&shape, "905", Some(r#"{"id":905,"u":905,"n":"x"}"#), far),
        // Of two with one timestamp and origin the later number wins: that is the last good one.
        bad(906, "9", "\"x\""),
        event(&later, "1", Some(r#"{"id":1}"#), now),
    ];
    let mut events = Vec::new();
    for (at, poison) in (1..).zip(poison) {
        events.extend([poison, good(at)]);
    }
    events.push(good(9));
    let count = events.len() as u64;
    let pieces = (1..).zip(events).map(|(sequence, event)| piece(sequence, sequence, vec![event])).collect();
    node.feed(node_id(9), pieces, vec![shape, other_key, later, unknown]);
    node.run();
    assert_eq!(node.replica().store().durable().vector.of(node_id(9)), count);
    assert_eq!(node.text("SELECT id AS v FROM t ORDER BY id").as_deref(), Some("1,2,3,4,5,6,7,8,9"));
    let parked = "SELECT record_id || ':' || reason AS v FROM _rowcast_parked ORDER BY record_id";
    let expected = "1:schema,901:schema,902:schema,904:constraint,905:clock,906:unique,no number:schema";
    assert_eq!(node.text(parked).as_deref(), Some(expected));
    assert_eq!(node.text("SELECT table_name AS v FROM _rowcast_strays").as_deref(), Some("nobodys"));
    let (rows, all) = operator::parked(&node.path(), 100).unwrap();
    assert_eq!((rows.len(), all), (7, 7));
    assert!(rows.iter().all(|row| row.bytes > 0 && row.since > 0 && !row.detail.is_empty()), "{rows:?}");
    let at = node.at();
    node.tick(Duration::from_secs(2));
    let status = node.replica().status(rowcast::replica::Moment { uptime: at.uptime + Duration::from_secs(9), ..at });
    let counted: Vec<_> = status.parked_by_reason.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(counted, [("clock", 1), ("constraint", 1), ("schema", 4), ("unique", 1)]);
    // What was missing comes: the event that waited for it is applied at once.
    node.sql("CREATE TABLE later(id INTEGER PRIMARY KEY NOT NULL)");
    node.run();
    assert_eq!(node.text("SELECT id AS v FROM later").as_deref(), Some("1"));
}

/// What cannot be understood comes in right frames, from an origin that tells the truth about who it is and what number it
/// is at: all of it is kept, parked, handed on to a joiner, and superseded by the next word of its record.
#[test]
fn an_event_that_does_not_read_is_parked_as_it_came_and_keeps_its_origin_from_nothing() {
    const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a TEXT)";
    let mut cluster = Cluster::ready(1, &toml(&["t"]), TABLE);
    let (shape, other, now) = (layout("t", &["id", "a"]), layout("other", &["id", "a"]), clock::now());
    let row = |id: u32| format!(r#"{{"id":{id},"a":"x"}}"#);
    let of = |id: u32, data: &str| event(&shape, &id.to_string(), Some(data), now);
    let mut unread = vec![
        of(1, "no JSON"),
        of(2, r#"{"id":2,"a":{"$newer":"x"}}"#),
        of(3, r#"{"id":3}"#),
        of(4, r#"{"id":4,"a":"x","b":"x"}"#),
        of(5, r#"{"id":5,"a":"x","a":"y"}"#),
        of(6, r#"[6,"x"]"#),
        Event { operation: Operation::Delete, ..of(7, &row(7)) },
        Event { data: None, ..of(8, &row(8)) },
        Event { layout: other.id, ..of(9, &row(9)) },
        Event { timestamp: Timestamp(-1), ..of(10, &row(10)) },
    ];
    let count = unread.len() as u64;
    let kept: Vec<Option<String>> = unread.iter().map(|event| event.data.clone()).collect();
    unread.push(of(99, &row(99)));
    let pieces = (1..).zip(unread).map(|(at, event)| piece(at, at, vec![event])).collect();
    let node = &mut cluster.nodes[0];
    node.feed(node_id(9), pieces, vec![shape.clone(), other]);
    node.run();
    assert_eq!(node.replica().store().durable().vector.of(node_id(9)), count + 1);
    let mut joiner = Node::new(&toml(&["t"]), TABLE);
    joiner.start(false);
    cluster.nodes.push(joiner);
    cluster.until("both are READY", |cluster| cluster.nodes.iter_mut().all(|node| node.replica().is_ready()));
    cluster.all_say("SELECT id AS v FROM t", "99");
    let parked = "SELECT reason AS v FROM _rowcast_parked WHERE detail LIKE 'it does not read: %'";
    cluster.all_say(parked, &vec!["schema"; kept.len()].join(","));
    for node in &cluster.nodes {
        let mut stored =
            node.service.prepare("SELECT data FROM t_Events WHERE record_id <> '99' ORDER BY +record_id").unwrap();
        let stored: Vec<Option<String>> = stored.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(stored.len(), kept.len());
        assert!(stored.iter().all(|data| kept.contains(data)), "as it came: {stored:?}");
    }
    // An event under another's name stays refused.
    let node = &mut cluster.nodes[0];
    let frame = wire::encode(&Message::Feed(Feed {
        origin: node_id(9),
        pieces: vec![piece(count + 2, count + 2, vec![of(50, &row(50))])],
        layouts: vec![shape.clone()],
        before: None,
    }));
    let at = node.at();
    node.replica().handle(Input::Feed { subject: node_id(8), frame: frame.into() }, at);
    node.run();
    assert_eq!(node.replica().store().durable().vector.of(node_id(9)), count + 1);
    // Whoever says something of such a record again ends it.
    let again =
        (1..=10).map(|id| Event { timestamp: now.plus(Duration::from_millis(1)), ..of(id, &row(id)) }).collect();
    cluster.nodes[0].feed(node_id(9), vec![piece(count + 2, count + 1 + count, again)], vec![shape]);
    cluster.settle();
    cluster.all_say("SELECT id AS v FROM t ORDER BY id", "1,2,3,4,5,6,7,8,9,10,99");
    cluster.all_say("SELECT event AS v FROM _rowcast_parked", "");
}

fn parked_event(node: &Node) -> String {
    node.text("SELECT event AS v FROM _rowcast_parked").unwrap()
}

const COLLIDING: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE);";

fn collided() -> [Node; 2] {
    let mut nodes = [(); 2].map(|()| Node::ready(&toml(&["t"]), COLLIDING));
    exchange(&mut nodes);
    nodes[0].sql("INSERT INTO t VALUES ('a', 1)");
    a_millisecond_passes();
    nodes[1].sql("INSERT INTO t VALUES ('b', 1)");
    exchange(&mut nodes);
    all_have(&nodes, "SELECT count(*) AS v FROM _rowcast_parked", "1");
    nodes
}

#[test]
fn a_parked_event_that_the_operator_drops_is_gone_on_every_node_and_does_not_come_back() {
    let mut nodes = collided();
    assert!(operator::drop_parked(&nodes[0].path(), &parked_event(&nodes[0])).unwrap());
    exchange(&mut nodes);
    all_have(&nodes, "SELECT count(*) AS v FROM _rowcast_parked", "0");
    nodes[1].sql("DELETE FROM t WHERE id = 'b'");
    exchange(&mut nodes);
    all_have(&nodes, "SELECT id AS v FROM t", "");
    all_have(
        &nodes,
        "SELECT record_id || operation_type AS v FROM t_Events ORDER BY sequence_number, record_id",
        "aCREATE,bCREATE,aDELETE,bDELETE",
    );
    assert!(!operator::drop_parked(&nodes[0].path(), "none").unwrap());
}

#[test]
fn a_parked_event_is_tried_when_the_operator_asks() {
    let mut nodes = collided();
    let before = nodes[0].text("SELECT tried_at AS v FROM _rowcast_parked");
    a_millisecond_passes();
    assert_eq!(operator::retry_parked(&nodes[0].path(), None).unwrap(), 1);
    nodes[0].run();
    assert_eq!(nodes[0].text("SELECT due AS v FROM _rowcast_parked").as_deref(), Some("0"));
    assert_ne!(nodes[0].text("SELECT tried_at AS v FROM _rowcast_parked"), before);
}

/// It was older than a good one when it came, so it was in nobody's way; then one node's new rules forbid the good one.
#[test]
fn poison_that_was_passed_over_is_parked_when_what_came_after_it_is_forbidden() {
    let mut node = Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);");
    let shape = layout("t", &["id", "a"]);
    let now = clock::now();
    let behind = |millis: i64| Timestamp::from_millis(now.millis() - millis);
    let first = event(&shape, "x", Some(r#"{"id":"x","a":"first"}"#), behind(300));
    let poison = event(&shape, "x", Some(r#"{"id":"x","a":"#), behind(200));
    let good = event(&shape, "x", Some(r#"{"id":"x","a":"good"}"#), behind(100));
    for (event, number) in [first, poison, good].into_iter().zip(1..) {
        node.feed(node_id(9), vec![piece(number, number, vec![event])], vec![shape.clone()]);
    }
    node.run();
    assert_eq!(node.replica().store().durable().parked, 0);
    node.sql(
        "BEGIN; CREATE TABLE new_t(id TEXT PRIMARY KEY NOT NULL, a TEXT CHECK (a <> 'good'));
        INSERT INTO new_t SELECT * FROM t WHERE a <> 'good'; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT",
    );
    node.run();
    assert!(node.replica().is_ready());
    assert_eq!(node.text("SELECT id || a AS v FROM t").as_deref(), Some("xfirst"));
    let parked = "SELECT reason AS v FROM _rowcast_parked ORDER BY reason";
    assert_eq!(node.text(parked).as_deref(), Some("constraint,schema"));
}

/// Its JSON reads, and its row is another one than its record's.
#[test]
fn poison_that_speaks_of_another_row_adds_no_column_whatever_came_first() {
    let (new, old) = (layout("t", &["id", "a", "w"]), layout("t", &["id", "a"]));
    let now = clock::now();
    let earlier = Timestamp::from_millis(now.millis() - 100);
    let poison = event(&new, "x", Some(r#"{"id":"y","a":"1","w":"told"}"#), earlier);
    let good = event(&old, "x", Some(r#"{"id":"x","a":"2"}"#), now);
    for poison_first in [true, false] {
        let mut node =
            Node::ready(&toml(&["t"]), "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, w TEXT DEFAULT 'none');");
        for is_poison in [poison_first, !poison_first] {
            let (by, event, layout) = if is_poison { (8, &poison, &new) } else { (9, &good, &old) };
            node.feed(node_id(by), vec![piece(1, 1, vec![event.clone()])], vec![layout.clone()]);
            node.run();
        }
        assert_eq!(node.text("SELECT id || a || w AS v FROM t").as_deref(), Some("x2none"), "{poison_first}");
        assert_eq!(node.replica().store().durable().parked, 0);
    }
}
