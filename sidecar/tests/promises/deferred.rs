//! Where several groups wait a node applies them in one transaction, in the order of their records: that comes to the same as
//! one after the other as they came.

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::event::{Event, EventId, Operation, Piece};
use rowcast::flow::apply::Applier;
use rowcast::limits;
use rowcast::position::{NodeId, Sequence};
use rowcast::replica::Worked;
use rowcast_schema::layout::Layout;

use super::order::presence;
use super::random::Random;
use super::{Node, layout, layouts, node_id, piece};

/// `t` has nothing but its key, `u` a UNIQUE value, and a trigger of the service fires for each row of `s`.
const TABLES: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT);
    CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, a TEXT UNIQUE);
    CREATE TABLE s(id TEXT PRIMARY KEY NOT NULL, a TEXT);
    CREATE TABLE fired(id TEXT, a TEXT, t TEXT);
    CREATE TRIGGER f AFTER INSERT ON s BEGIN INSERT INTO fired VALUES (new.id, new.a, (SELECT group_concat(v) FROM (SELECT id || a AS v FROM t ORDER BY id))); END;";

const DECLARED: &str = "service = \"s\"\n[tables.t]\n[tables.u]\n[tables.s]\ntriggers = \"run\"\n";

/// What is looked at in the end. In `fired` the order counts.
const LOOKED_AT: [&str; 6] = [
    "SELECT id || a AS v FROM t ORDER BY id",
    "SELECT id || coalesce(a, '') AS v FROM u ORDER BY id",
    "SELECT id || a AS v FROM s ORDER BY id",
    "SELECT concat_ws(' ', id, a, t) AS v FROM fired ORDER BY rowid",
    "SELECT concat_ws(' ', id, record_id, operation_type, data, timestamp, processed, group_last) AS v
     FROM (SELECT * FROM t_Events UNION ALL SELECT * FROM u_Events UNION ALL SELECT * FROM s_Events) ORDER BY id",
    "SELECT concat_ws(' ', table_name, record_id, winner, loser) AS v FROM _rowcast_conflicts ORDER BY 1",
];

struct Story {
    random: Random,
    shapes: Vec<Layout>,
    base: Timestamp,
    positions: [Sequence; 3],
}

impl Story {
    /// One of the layouts is from before `t` had all of its columns.
    fn seeded(seed: u64, base: Timestamp) -> Self {
        let tables: [(&str, &[&str]); 4] =
            [("t", &["id", "a"]), ("t", &["id"]), ("u", &["id", "a"]), ("s", &["id", "a"])];
        let shapes = tables.map(|(table, columns)| layout(table, columns)).to_vec();
        Self { random: Random::seeded(seed), shapes, base, positions: [0; 3] }
    }

    fn event(&mut self) -> Event {
        let (random, shape) = (&mut self.random, &self.shapes);
        // Most are of the table whose events may change their order.
        let shape = if random.chance(7, 8) { &shape[0] } else { random.pick(shape) };
        let record = format!("k{}", random.below(9));
        let value = format!("v{}", random.below(5));
        let value = if shape.columns.len() == 1 { String::new() } else { format!(r#","a":"{value}""#) };
        let data = random.chance(4, 5).then(|| format!(r#"{{"id":"{record}"{value}}}"#));
        Event {
            table: shape.table.clone(),
            operation: if data.is_some() { Operation::Update } else { Operation::Delete },
            record_id: record,
            data,
            timestamp: Timestamp(self.base.0 + i64::try_from(random.below(60)).unwrap()),
            layout: shape.id,
            changed: -1,
        }
    }

    /// A group, and which of the origins made it.
    fn group(&mut self) -> (NodeId, Piece) {
        let events: Vec<Event> = (0..=self.random.below(4)).map(|_| self.event()).collect();
        let origin = self.random.below(3);
        let context = (0..3).filter(|_| self.random.chance(1, 2)).collect::<Vec<_>>();
        let context = context.into_iter().map(|at| (node_id(at as u128 + 7), self.positions[at])).collect();
        let first = self.positions[origin] + 1;
        self.positions[origin] += events.len() as Sequence;
        (node_id(origin as u128 + 7), Piece { context, ..piece(first, self.positions[origin], events) })
    }
}

#[test]
fn in_the_order_of_the_records_it_comes_to_the_same() {
    let mut moved = 0;
    for seed in 0..60 {
        let mut nodes = [(); 2].map(|()| Node::ready(DECLARED, TABLES));
        let mut stores = nodes.each_mut().map(Node::store);
        let now = clock::now();
        let mut story = Story::seeded(seed, now);
        let known = layouts(&story.shapes.iter().collect::<Vec<_>>());
        for _ in 0..6 {
            let groups: Vec<(NodeId, Piece)> = (0..=story.random.below(20)).map(|_| story.group()).collect();
            // A load may have brought some of it before.
            let brought = story.random.chance(1, 3).then(|| story.random.pick(&groups).clone());
            for (store, defers) in stores.iter_mut().zip([false, true]) {
                let applied = store.write(|tx| {
                    let mut applier = Applier::new(tx, now);
                    if let Some((origin, piece)) = &brought {
                        for (event, sequence) in piece.events.iter().zip(piece.first..) {
                            applier.snapshot_event(EventId { origin: *origin, sequence }, piece.group_last, event)?;
                        }
                    }
                    for (origin, group) in groups.clone() {
                        match defers {
                            true => applier.defer(origin, group, &known)?,
                            false => applier.group(origin, &group, &known)?,
                        }
                    }
                    applier.finish()
                });
                let applied = applied.unwrap();
                let events: usize = groups.iter().map(|(_, group)| group.events.len()).sum();
                let twice = brought.as_ref().map_or(0, |(_, piece)| piece.events.len());
                assert_eq!((applied.events, applied.duplicates), (events as u64, twice as u64));
            }
            assert_eq!(stores[0].durable().vector, stores[1].durable().vector);
            for sql in LOOKED_AT {
                assert_eq!(nodes[0].text(sql), nodes[1].text(sql), "seed {seed}: {sql}");
            }
        }
        assert!(nodes[0].text(LOOKED_AT[0]).is_some_and(|rows| rows.len() > 10), "there is something to compare");
        let stored = nodes.each_ref().map(|node| node.text("SELECT id AS v FROM t_Events ORDER BY rowid"));
        moved += usize::from(stored[0] != stored[1]);
    }
    assert!(moved > 50, "they were applied in another order in {moved} of 60");
}

/// A live feed has a group in pieces, a long one is stored before it is applied, and its cause may come later: a node that gets all of it
/// before it works applies in few transactions what another one applies in many.
#[test]
fn however_much_waits_it_comes_to_the_same() {
    let mut transactions = [0, 0];
    for seed in 0..25 {
        let now = clock::now();
        let mut story = Story::seeded(1_000 + seed, now);
        let groups: Vec<(NodeId, Piece)> = (0..60).map(|_| story.group()).collect();
        let mut frames: Vec<(NodeId, Vec<Piece>)> = Vec::new();
        for (origin, mut group) in groups {
            // Some rows are so large that their group is long.
            if story.random.chance(1, 12) {
                let padding = format!(r#""a":"{}"#, "-".repeat(limits::PIECE_BYTES_MAX / 2));
                group
                    .events
                    .iter_mut()
                    .flat_map(|event| &mut event.data)
                    .for_each(|data| *data = data.replace(r#""a":""#, &padding));
            }
            while group.events.len() > 1 && story.random.chance(1, 2) {
                let rest = group.events.split_off(1 + story.random.below(group.events.len() - 1));
                let first = group.first + group.events.len() as Sequence;
                let begun = std::mem::replace(&mut group.events, rest);
                frames.push((origin, vec![Piece { events: begun, ..group.clone() }]));
                group.first = first;
            }
            match frames.last_mut().filter(|(last, _)| *last == origin && story.random.chance(1, 2)) {
                Some((_, pieces)) => pieces.push(group),
                None => frames.push((origin, vec![group])),
            }
        }
        let heads: [(u128, Sequence); 3] = [0, 1, 2].map(|at| (at as u128 + 7, story.positions[at]));
        let ended = [true, false].map(|at_once| {
            let mut node = Node::new(DECLARED, TABLES);
            node.store().write(|tx| tx.set_loaded()).unwrap();
            node.start(false);
            node.hear(presence(&node, 7, &heads));
            node.run();
            node.hear(presence(&node, 7, &heads));
            let mut order: Vec<_> = frames.iter().collect();
            if at_once {
                // As the answers of several fetches come.
                story.random.shuffle(&mut order);
            }
            for (origin, pieces) in order {
                // What is cut may tell of a layout only where it needs it.
                let needs = |shape: &&Layout| {
                    pieces.iter().flat_map(|piece| &piece.events).any(|event| event.layout == shape.id)
                };
                let shapes = story.shapes.iter().filter(needs).cloned().collect();
                node.feed(*origin, pieces.clone(), shapes);
                while !at_once && node.work() != Worked::Idle {}
            }
            node.run();
            node
        });
        for (node, count) in ended.iter().zip(&mut transactions) {
            *count += node.applied;
        }
        // With whom an event was in conflict, and what its trigger saw, depends on what came before it.
        for sql in [0, 1, 2, 4].map(|at| LOOKED_AT[at]) {
            assert_eq!(ended[0].text(sql), ended[1].text(sql), "seed {seed}: {sql}");
        }
        for mut node in ended {
            let vector = &node.replica().store().durable().vector;
            assert_eq!(heads.map(|(id, _)| vector.of(node_id(id))), heads.map(|(_, head)| head), "seed {seed}");
        }
    }
    assert!(transactions[0] * 3 < transactions[1], "{transactions:?}");
}
