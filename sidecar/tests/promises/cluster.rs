//! Several nodes that hear each other, without a bus: what one says is handed to the others, or lost, as a test likes.

use std::collections::BTreeMap;
use std::time::Duration;

use rowcast::position::Vector;
use rowcast::replica::{Input, Output, Worked};
use rusqlite::types::Value;

use super::Node;
use super::stage::{answer, declaration, reader};

/// Nodes of one service.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

/// Rounds of 100 ms in which everything must have settled.
const ROUNDS_MAX: usize = 600;

impl Cluster {
    /// `count` nodes with the tables that `sql` makes, all READY.
    pub(crate) fn ready(count: usize, toml: &str, sql: &str) -> Self {
        let mut nodes = vec![Node::ready(toml, sql)];
        for _ in 1..count {
            let mut node = Node::new(toml, sql);
            node.start(false);
            nodes.push(node);
        }
        let mut cluster = Self { nodes };
        cluster.until("all nodes are READY", |cluster| cluster.nodes.iter_mut().all(|node| node.replica().is_ready()));
        cluster
    }

    /// The node does what it has to do, and what it says reaches the others if `heard` says so.
    pub(crate) fn turn(&mut self, at: usize, mut heard: impl FnMut() -> bool) {
        let node = &mut self.nodes[at];
        if node.replica.is_none() {
            return;
        }
        node.wake();
        node.tick(Duration::from_millis(100));
        for _ in 0..1000 {
            if node.work() == Worked::Idle {
                break;
            }
        }
        let from = node.replica().node();
        let outputs = node.replica().take_outputs();
        for output in outputs {
            match output {
                Output::Feed(frame) => {
                    self.hand(at, &mut heard, |_| Input::Feed { subject: from, frame: frame.clone().into() });
                }
                Output::Presence(frame) => self.hand(at, &mut heard, |_| Input::Presence(frame.clone().into())),
                Output::Ask { ask, to, request } => {
                    let asked =
                        self.nodes.iter_mut().position(|node| node.replica.as_mut().is_some_and(|r| r.node() == to));
                    let answered = |asked: usize| {
                        let node = &self.nodes[asked];
                        answer(&reader(&node.path(), &declaration(&node.toml)), &request).into()
                    };
                    let frame = asked.filter(|_| heard()).map(answered);
                    let moment = self.nodes[at].at();
                    self.nodes[at].replica().handle(Input::Answer { ask, frame }, moment);
                }
                Output::Reply { .. } => {}
            }
        }
    }

    fn hand(&mut self, from: usize, heard: &mut impl FnMut() -> bool, input: impl Fn(usize) -> Input) {
        for to in 0..self.nodes.len() {
            if to != from && self.nodes[to].replica.is_some() && heard() {
                let at = self.nodes[to].at();
                self.nodes[to].replica().handle(input(to), at);
            }
        }
    }

    /// Until `done`, with everything heard.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..ROUNDS_MAX {
            for at in 0..self.nodes.len() {
                self.turn(at, || true);
            }
            if done(self) {
                return;
            }
        }
        let pages: Vec<String> = self.nodes.iter_mut().map(|node| node.page()).collect();
        panic!("not within {ROUNDS_MAX} rounds: {what}\n{}", pages.join("\n"));
    }

    /// Until nothing is on its way, nothing is compared, and all have the same events.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        self.until("all nodes have the same events", |cluster| {
            let vectors: Vec<Vector> =
                cluster.nodes.iter_mut().map(|node| node.replica().store().durable().vector.clone()).collect();
            let equal = vectors.windows(2).all(|pair| pair[0] == pair[1]);
            let calm = cluster.nodes.iter_mut().all(|node| {
                node.replica().store().pending().is_empty()
                    && node.text("SELECT count(*) AS v FROM _rowcast_journal").as_deref() == Some("0")
            });
            quiet = if equal && calm { quiet + 1 } else { 0 };
            quiet > 12 // Longer than the pause between two tries of parked events.
        });
    }

    /// Every node has these rows.
    pub(crate) fn all_say(&self, sql: &str, expected: &str) {
        for (at, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.text(sql).unwrap_or_default(), expected, "node {at}");
        }
    }
}

/// A row by column name.
pub(crate) type Cells = BTreeMap<String, String>;

impl Node {
    pub(crate) fn page(&mut self) -> String {
        let at = self.at();
        self.replica().status(at).to_text()
    }

    /// The number of events of a table.
    pub(crate) fn events(&self, table: &str) -> i64 {
        self.service.query_row(&format!("SELECT count(*) FROM \"{table}_Events\""), [], |row| row.get(0)).unwrap()
    }

    /// The events of a record, one a line, for a failure's story.
    pub(crate) fn story(&self, table: &str, id: &str) -> String {
        let sql = format!(
            "SELECT e.timestamp || ' ' || substr(e.id, 1, 4) || ' ' || sequence_number || ' ' || processed || ' '
             || operation_type || ' ' || changed || ' ' || ifnull(data, '') || ' ' || ifnull(reason || detail, '')
             FROM \"{table}_Events\" e LEFT JOIN _rowcast_parked ON event = e.id WHERE e.record_id = ?1 ORDER BY e.timestamp"
        );
        let mut statement = self.service.prepare(&sql).unwrap();
        let lines = statement.query_map([id.trim_matches('"')], |row| row.get(0)).unwrap();
        lines.collect::<Result<Vec<String>, _>>().unwrap().join("\n")
    }

    pub(crate) fn columns(&self, table: &str) -> Vec<String> {
        let mut statement = self.service.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
        statement.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The rows of a table whose key is `id`, by key; cells as text with their type.
    pub(crate) fn rows(&self, table: &str) -> BTreeMap<String, Cells> {
        let columns = self.columns(table);
        let mut statement = self.service.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let rows = statement.query_map([], |row| {
            let cell = |(at, name): (usize, &String)| Ok((name.clone(), shown(row.get(at)?)));
            columns.iter().enumerate().map(cell).collect::<rusqlite::Result<Cells>>()
        });
        rows.unwrap().map(|row| row.unwrap()).map(|row| (row["id"].clone(), row)).collect()
    }

    /// The records of a table by its events alone: each column from the greatest event that has it, back to the last
    /// delete. A column that no event has is not there.
    pub(crate) fn fold(&self, table: &str) -> BTreeMap<String, Cells> {
        let mut statement = self
            .service
            .prepare(&format!(
                "SELECT record_id, data FROM \"{table}_Events\" ORDER BY timestamp, source_node_id, sequence_number"
            ))
            .unwrap();
        let events = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let mut fold: BTreeMap<String, Cells> = BTreeMap::new();
        for event in events {
            let (record, data): (String, Option<String>) = event.unwrap();
            let Some(data) = data else {
                fold.remove(&record);
                continue;
            };
            let said: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&data).unwrap();
            let cells = fold.entry(record).or_default();
            cells.extend(said.into_iter().map(|(column, cell)| (column, cell.to_string())));
        }
        fold.into_values().map(|cells| (cells["id"].clone(), cells)).collect()
    }
}

fn shown(cell: Value) -> String {
    match cell {
        Value::Null => "null".into(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => serde_json::Value::String(text).to_string(),
        Value::Blob(bytes) => format!("{bytes:?}"),
    }
}
