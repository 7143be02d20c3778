//! The rows that are written: 36 characters of key in random order, 282 bytes as JSON.

use rowcast::clock::Timestamp;
use rowcast::edge::clock;
use rowcast::event::{Event, Operation, Piece};
use rowcast::position::{Sequence, Vector};
use rowcast_schema::layout::Layout;
use rowcast_schema::record;
use rowcast_schema::value::Value;
use rusqlite::Connection;

/// The table.
pub(crate) const SQL: &str =
    "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, name TEXT, email TEXT, qty INTEGER, price REAL, note TEXT);";

/// The declaration.
pub(crate) const TOML: &str = "service = \"s\"\n[tables.items]\n";

const INSERT: &str = "INSERT INTO items (id, name, email, qty, price, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, qty = excluded.qty, price = excluded.price,
    note = excluded.note";

/// SplitMix64: spreads the keys.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The cells of row `at`, as of its `round`-th write.
pub(crate) fn cells(at: u64, round: u64) -> Vec<Value> {
    const NAMES: [&str; 4] = ["Ada Lovelace", "Grace Hopper", "Edsger Dijkstra", "Barbara Liskov"];
    let (high, low) = (mixed(at), mixed(at ^ 0x5555_5555));
    let id = uuid::Uuid::from_u64_pair(high, low).to_string();
    let name = NAMES[usize::try_from(at % 4).unwrap()];
    let email = format!("{}{}@example.org", name.split(' ').next().unwrap().to_lowercase(), at % 97);
    let note: String =
        (0..140_u64).map(|place| char::from(b'a' + u8::try_from((at * 7 + place * 3 + round) % 26).unwrap())).collect();
    #[expect(clippy::cast_precision_loss, reason = "a price")]
    let price = (at % 10_000) as f64 / 100.0 + 0.25;
    vec![
        Value::from(id.as_str()),
        Value::from(name),
        Value::from(email.as_str()),
        Value::Integer(i64::try_from(at % 500 + round).unwrap()),
        Value::Real(price),
        Value::from(note.as_str()),
    ]
}

/// The captured columns.
pub(crate) fn layout() -> Layout {
    let columns = ["id", "name", "email", "qty", "price", "note"];
    Layout::new("items".into(), columns.iter().map(|&column| column.into()).collect(), vec![0])
}

/// The event of row `at`.
pub(crate) fn event(layout: &Layout, at: u64, round: u64, timestamp: Timestamp) -> Event {
    let cells = cells(at, round);
    let Value::Text(id) = &cells[0] else { unreachable!() };
    Event {
        table: "items".into(),
        operation: if round == 0 { Operation::Create } else { Operation::Update },
        record_id: String::from_utf8(id.clone()).unwrap(),
        data: Some(record::row_to_json(&layout.columns, &cells)),
        timestamp,
        layout: layout.id,
        changed: -1,
    }
}

/// A group of the events of `rows`, numbered from `first`.
pub(crate) fn group(first: Sequence, rows: impl IntoIterator<Item = u64>, round: u64) -> Piece {
    let layout = layout();
    let now = clock::now().0;
    let events: Vec<Event> =
        rows.into_iter().zip(0..).map(|(at, place)| event(&layout, at, round, Timestamp(now + place))).collect();
    Piece { first, group_last: first + events.len() as u64 - 1, context: Vector::default(), events }
}

/// Writes rows as a service does, in one transaction.
pub(crate) fn write(service: &Connection, rows: impl IntoIterator<Item = u64>, round: u64) {
    service.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut statement = service.prepare_cached(INSERT).unwrap();
    for at in rows {
        bind(&mut statement, &cells(at, round));
    }
    service.execute_batch("COMMIT").unwrap();
}

/// Executes the service's own statement with these cells.
pub(crate) fn bind(statement: &mut rusqlite::Statement<'_>, cells: &[Value]) {
    for (place, cell) in cells.iter().enumerate() {
        let place = place + 1;
        match cell {
            Value::Integer(number) => statement.raw_bind_parameter(place, number).unwrap(),
            Value::Real(number) => statement.raw_bind_parameter(place, number).unwrap(),
            Value::Text(text) => statement.raw_bind_parameter(place, std::str::from_utf8(text).unwrap()).unwrap(),
            _ => unreachable!(),
        }
    }
    statement.raw_execute().unwrap();
}

/// The service's own statement.
pub(crate) fn statement(service: &Connection) -> rusqlite::CachedStatement<'_> {
    service.prepare_cached(INSERT).unwrap()
}
