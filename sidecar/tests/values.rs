//! Values, bit for bit: through JSON and back a million times, and through a service's table, its journal and its events.
#![expect(clippy::disallowed_methods, reason = "the test plays the service, which opens its own database")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../tests/src/random.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared; not all of it is used here")]
mod random;

use random::Random;
use rowcast::clock::Timestamp;
use rowcast::edge::store::Store;
use rowcast::flow::ingest;
use rowcast_schema::declaration::Declaration;
use rowcast_schema::record::{self, Collation, KeyColumn};
use rowcast_schema::value::Value;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

const ROUND_TRIPS: u64 = 1_000_000;
const ROWS: u64 = 20_000;

const TEXTS: &[&str] = &[
    "",
    "a",
    "42",
    "-1.5e3",
    "null",
    "\"",
    "\\",
    "{\"$blob\":\"\"}",
    "a\0b",
    "\0",
    "é",
    "\u{10ffff}",
    "\u{feff}",
    "\u{2028}",
    " 7",
    "\u{7f}\u{1}",
];
const REALS: &[f64] = &[
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    2.225_073_858_507_201e-308,
    f64::MIN_POSITIVE,
    f64::MAX,
    f64::MIN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    0.1 + 0.2,
    1.0,
    9_007_199_254_740_993.0,
    9.223_372_036_854_776e18,
    1e15,
    1e16,
    1e22,
];
const INTEGERS: &[i64] = &[i64::MIN, i64::MAX, 0, 1, -1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, 1 << 31];

/// Any value that SQLite can hold, the awkward ones often.
fn value(random: &mut Random) -> Value {
    let real = |number: f64| if number.is_nan() { Value::Null } else { Value::Real(number) };
    match random.below(12) {
        0 => Value::Null,
        1 => Value::Integer(*random.pick(INTEGERS)),
        2 => Value::Integer(i64::from_ne_bytes(random.bits().to_ne_bytes()) >> random.below(64)),
        3 => real(*random.pick(REALS)),
        4 => real(f64::from_bits(random.bits())),
        5 => real(f64::from_bits(random.bits() >> 12)), // Subnormal, of either kind of length.
        6 => real(f64::from_bits(*random.pick(&[1_u64, 1 << 63, 0x7ff0 << 48]) ^ (1 << random.below(64)))),
        7 => Value::from(*random.pick(TEXTS)),
        8 => {
            let length = random.below(20);
            Value::Text(random.bytes(length)) // Nearly never UTF-8.
        }
        9 => Value::Text(
            (0..random.below(12))
                .map(|_| char::from_u32(random.below(0xd800).try_into().unwrap()).unwrap())
                .collect::<String>()
                .into(),
        ),
        10 => Value::Blob(Vec::new()),
        _ => {
            let length = random.below(40);
            Value::Blob(random.bytes(length))
        }
    }
}

#[test]
fn a_million_values_survive_json_bit_for_bit() {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let kinds: Vec<[u64; 5]> = std::thread::scope(|scope| {
        let run = |seed| {
            scope.spawn(move || {
                let (mut random, mut json, mut kinds) = (Random::seeded(seed), String::new(), [0; 5]);
                for _ in 0..ROUND_TRIPS.div_ceil(threads) {
                    let value = value(&mut random);
                    kinds[["null", "integer", "real", "text", "blob"]
                        .iter()
                        .position(|kind| *kind == value.type_name())
                        .unwrap()] += 1;
                    json.clear();
                    value.write_json(&mut json);
                    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{json}");
                }
                kinds
            })
        };
        (0..threads).map(run).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for kind in 0..5 {
        assert!(kinds.iter().map(|kinds| kinds[kind]).sum::<u64>() > ROUND_TRIPS / 50, "too few of kind {kind}");
    }
}

struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn held(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// What the service bound, what its table holds, and what the event says: the same, in a column that keeps what it is given;
/// elsewhere the event says what the table holds.
#[test]
fn what_a_service_binds_is_in_its_table_and_in_its_events_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut service = Connection::open(&path).unwrap();
    let columns = ["id", "any", "t", "n", "i", "r", "b"].map(str::to_owned);
    service
        .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t(id INTEGER PRIMARY KEY, any, t TEXT, n NUMERIC, i INTEGER, r REAL, b BLOB)")
        .unwrap();
    let declaration = Declaration::parse("schema.toml", "service = \"s\"\n[tables.t]\n").unwrap();
    let mut store = Store::open(&path, declaration).unwrap();
    let mut random = Random::seeded(7);
    let values: Vec<Value> = (0..ROWS).map(|_| value(&mut random)).collect();
    let writes = service.transaction().unwrap();
    for (id, value) in (1_i64..).zip(&values) {
        let cell = Bound(value);
        // Half of them come to be what they are by an update.
        let first = if id % 2 == 0 { Bound(&Value::Null) } else { Bound(value) };
        writes
            .prepare_cached("INSERT INTO t VALUES (?1, ?2, ?2, ?2, ?2, ?2, ?2)")
            .unwrap()
            .execute((id, &first))
            .unwrap();
        let update = "UPDATE t SET any = ?2, t = ?2, n = ?2, i = ?2, r = ?2, b = ?2 WHERE id = ?1";
        writes.prepare_cached(update).unwrap().execute((id, &cell)).unwrap();
    }
    writes.commit().unwrap();
    while store.write(|tx| ingest::journal(tx, Timestamp::from_millis(1_800_000_000_000), 5_000)).unwrap().left > 0 {}

    let sql =
        "SELECT t.*, data FROM t JOIN (SELECT record_id, data, max(sequence_number) FROM t_Events GROUP BY record_id)
               ON record_id = CAST(id AS TEXT) ORDER BY id";
    let mut statement = service.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut seen = 0;
    while let Some(row) = rows.next().unwrap() {
        let there: Vec<Value> = (0..columns.len()).map(|at| held(row.get_ref(at).unwrap())).collect();
        let said = record::row_from_json(&columns, &row.get::<_, String>(columns.len()).unwrap()).unwrap();
        assert_eq!(said, there, "row {}", seen + 1);
        assert_eq!([&there[1], &there[6]], [&values[seen]; 2], "row {}", seen + 1);
        seen += 1;
    }
    assert_eq!(seen as u64, ROWS);
}

/// Two keys have one record id just where SQLite takes them for one key.
#[test]
fn keys_are_told_apart_as_sqlite_does() {
    let connection = Connection::open_in_memory().unwrap();
    let mut random = Random::seeded(11);
    let texts = ["a", "A", "b", "\0", " ", "é", "É", "7"];
    let mut alike = 0;
    for (name, collation) in [("BINARY", Collation::Binary), ("NOCASE", Collation::NoCase), ("RTRIM", Collation::Rtrim)]
    {
        let column = [KeyColumn { collation, holds_text: true }];
        let sql = format!("SELECT ?1 = ?2 COLLATE {name}");
        let mut equal = connection.prepare(&sql).unwrap();
        for _ in 0..20_000 {
            let [one, other] = [(); 2].map(|()| {
                let length = random.below(4);
                (0..length).map(|_| *random.pick::<&str>(&texts)).collect::<String>()
            });
            let id = |text: &str| record::record_id(&[Value::from(text)], &column);
            let same: bool = equal.query_row([&one, &other], |row| row.get(0)).unwrap();
            assert_eq!(id(&one) == id(&other), same, "{name} {one:?} {other:?}");
            let key = record::parse_record_id(&id(&one), &column).unwrap();
            let Value::Text(key) = &key[0] else { panic!("{one:?} is a text") };
            let finds: bool = equal.query_row([&one, std::str::from_utf8(key).unwrap()], |row| row.get(0)).unwrap();
            assert!(finds, "{name} {one:?}");
            alike += u32::from(same && one != other);
        }
    }
    assert!(alike > 100, "{alike}");
}
