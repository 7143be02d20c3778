//! Records that claim one UNIQUE value: every order of arrival gives the same tables and the same parked events, and
//! both are what an independent definition says.
//!
//! The definition: walk the records' newest events from the greatest version down; a record is in the table if and
//! only if no greater one that is in it holds one of its values. The others are parked.

use std::collections::{BTreeMap, BTreeSet};

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::edge::store::{Error, Tx};
use rowcast::event::{Event, Operation};
use rowcast::flow::apply::Applier;
use rowcast::position::Sequence;
use rowcast_schema::layout::Layout;
use rowcast_schema::value::Value;

use super::{Node, layout, layouts, node_id, piece, toml};

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, u INTEGER UNIQUE, w INTEGER UNIQUE);";

/// What an event makes of a record: the values of both unique columns, or nothing.
type Made = Option<(Option<u8>, Option<u8>)>;

/// An event of the model: the later in the list, the greater its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    record: usize,
    made: Made,
}

/// The records that are in the table with their values, and the records that are parked.
type Outcome = (BTreeMap<usize, (Option<u8>, Option<u8>)>, BTreeSet<usize>);

fn defined(list: &[Said]) -> Outcome {
    let (mut present, mut parked): Outcome = Default::default();
    let mut seen = BTreeSet::new();
    for said in list.iter().rev().filter(|said| seen.insert(said.record)) {
        let Some((u, w)) = said.made else { continue };
        let taken = |held: &(Option<u8>, Option<u8>)| (u.is_some() && held.0 == u) || (w.is_some() && held.1 == w);
        if present.values().any(taken) {
            parked.insert(said.record);
        } else {
            present.insert(said.record, (u, w));
        }
    }
    (present, parked)
}

/// Runs many small histories in one transaction: each has records and values of its own.
struct Model<'t, 'a> {
    tx: &'t mut Tx<'a>,
    shape: Layout,
    base: Timestamp,
    runs: i64,
    sequences: [Sequence; 3],
}

impl Model<'_, '_> {
    fn event(&self, said: Said, version: usize) -> Event {
        let record = format!("r{:07}-{}", self.runs, said.record);
        let value = |value: Option<u8>| {
            value.map_or("null".to_owned(), |value| (self.runs * 10 + i64::from(value)).to_string())
        };
        let data = said.made.map(|(u, w)| format!(r#"{{"id":"{record}","u":{},"w":{}}}"#, value(u), value(w)));
        Event {
            table: "t".into(),
            operation: if data.is_some() { Operation::Update } else { Operation::Delete },
            record_id: record,
            data,
            // Two share a timestamp, and differ by their origin.
            timestamp: Timestamp(self.base.0 + (self.runs * 4) + version as i64 / 2),
            layout: self.shape.id,
            changed: -1,
        }
    }

    fn run(&mut self, list: &[Said], order: &[usize], at_once: bool) -> Outcome {
        self.runs += 1;
        let known = layouts(&[&self.shape]);
        let now = clock::now();
        for &version in order {
            let event = self.event(list[version], version);
            let origin = version % 2;
            self.sequences[origin] += 1;
            let sequence = self.sequences[origin];
            let piece = piece(sequence, sequence, vec![event]);
            let mut applier = Applier::new(self.tx, now);
            applier.group(node_id(origin as u128 + 7), &piece, &known).unwrap();
            if !at_once {
                applier.finish().unwrap();
            }
        }
        if at_once {
            Applier::new(self.tx, now).finish().unwrap();
        }
        self.outcome()
    }

    /// The same with a long group: what `whose` says is staged in two pieces and applied as one, before or after the rest.
    fn run_staged(&mut self, list: &[Said], whose: usize, first: bool) -> Outcome {
        self.runs += 1;
        let known = layouts(&[&self.shape]);
        let now = clock::now();
        let (long, rest): (Vec<usize>, Vec<usize>) = (0..list.len()).partition(|version| version % 2 == whose);
        for staged in [first, !first] {
            if !staged {
                for &version in &rest {
                    let one = vec![self.event(list[version], version)];
                    let origin = version % 2;
                    self.sequences[origin] += 1;
                    let piece = piece(self.sequences[origin], self.sequences[origin], one);
                    Applier::new(self.tx, now).group(node_id(origin as u128 + 7), &piece, &known).unwrap();
                }
            } else if !long.is_empty() {
                let last = self.sequences[whose] + long.len() as Sequence;
                for &version in &long {
                    self.sequences[whose] += 1;
                    let piece = piece(self.sequences[whose], last, vec![self.event(list[version], version)]);
                    Applier::new(self.tx, now).stage(node_id(whose as u128 + 7), &piece, &known).unwrap();
                }
                Applier::new(self.tx, now).staged_group(node_id(whose as u128 + 7), last).unwrap();
            }
        }
        Applier::new(self.tx, now).finish().unwrap();
        self.outcome()
    }

    fn outcome(&self) -> Outcome {
        let table = self.tx.tables().get("t").unwrap().clone();
        let shape = table.shape.as_ref().unwrap();
        let (mut present, mut parked): Outcome = Default::default();
        for record in 0..3 {
            let id = format!("r{:07}-{record}", self.runs);
            let value = |value: &Value| match value {
                Value::Integer(value) => Some(u8::try_from(value - self.runs * 10).unwrap()),
                _ => None,
            };
            let key = [Value::Text(id.into())];
            if let Some(row) = self.tx.row(shape, &key).unwrap() {
                present.insert(record, (value(&row[1]), value(&row[2])));
            }
            let waiting = self.tx.parked_of(&table, &shape.record_id_of_key(&key)).unwrap();
            assert!(waiting.len() <= 1, "of one record only the newest can be parked: {waiting:?}");
            if !waiting.is_empty() {
                parked.insert(record);
            }
        }
        (present, parked)
    }
}

pub(crate) fn orders(length: usize) -> Vec<Vec<usize>> {
    if length == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(length - 1) {
        for at in 0..length {
            let mut order = shorter.clone();
            order.insert(at, length - 1);
            all.push(order);
        }
    }
    all
}

/// All lists of `length` events over three records, without those that differ by the names of the records alone.
fn lists(length: usize, kinds: &[Made]) -> Vec<Vec<Said>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        all = all
            .into_iter()
            .flat_map(|list: Vec<Said>| {
                let used = list.iter().map(|said| said.record + 1).max().unwrap_or(0);
                let next = (0..=used.min(2)).flat_map(|record| kinds.iter().map(move |&made| Said { record, made }));
                next.map(|said| [list.as_slice(), &[said]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    all
}

fn every_order_agrees(kinds: &[Made], tells_something_new: impl Fn(&[Said]) -> bool) {
    let mut node = Node::ready(&toml(&["t"]), TABLE);
    let mut store = node.store();
    let base = Timestamp(clock::now().0 - (1 << 40));
    let mut runs = 0;
    for length in 1..=4 {
        for list in lists(length, kinds) {
            // Those of a single record say nothing of UNIQUE; those whose last event says what it said already, little.
            let single = list.iter().all(|said| said.record == 0);
            if single || list.windows(2).any(|pair| pair[0] == pair[1]) || !tells_something_new(&list) {
                continue;
            }
            let expected = defined(&list);
            store
                .write(|tx| {
                    let sequences = [7, 8, 9].map(|id| tx.durable.vector.of(node_id(id)));
                    let shape = layout("t", &["id", "u", "w"]);
                    let mut model = Model { tx, shape, base, runs, sequences };
                    for order in orders(length) {
                        let at_once = model.runs % 3 == 0;
                        let found = model.run(&list, &order, at_once);
                        assert_eq!(found, expected, "{list:?} in the order {order:?}, at once: {at_once}");
                    }
                    for (whose, first) in [(0, false), (0, true), (1, false), (1, true)] {
                        let found = model.run_staged(&list, whose, first);
                        assert_eq!(found, expected, "{list:?}, those of {whose} in a long group, first: {first}");
                    }
                    runs = model.runs;
                    Ok::<(), Error>(())
                })
                .unwrap();
        }
    }
    assert!(runs > 5_000, "{runs}");
}

#[test]
fn every_order_of_up_to_four_events_that_claim_one_column_gives_what_is_defined() {
    // The two values can change places: the first one named is 1.
    let first = |list: &[Said]| list.iter().find_map(|said| said.made).is_some_and(|(u, _)| u == Some(1));
    every_order_agrees(&[Some((Some(1), None)), Some((Some(2), None)), None], first);
}

#[test]
fn every_order_of_up_to_four_events_that_claim_two_columns_gives_what_is_defined() {
    every_order_agrees(&[Some((Some(1), Some(1))), Some((Some(1), None)), Some((None, Some(1)))], |_| true);
}
