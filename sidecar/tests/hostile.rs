//! Whatever comes, every decoder answers with a value or an error: it never panics, and takes no more memory than its
//! limits say. Bytes come as they are, and as a right message with some of it changed, which gets further.
//!
//! `ROWCAST_HOSTILE_CASES` sets how many cases each test tries.
#![expect(clippy::disallowed_methods, reason = "a test reads its own setting, and makes the database it attacks")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use rowcast::clock::Timestamp;
use rowcast::config::{Environment, Sources};
use rowcast::edge::store::{Answer, Definitions, Fingerprints, Page, SnapshotPage, SnapshotRow, Store};
use rowcast::event::{Event, Fingerprint, Operation, Piece};
use rowcast::flow::capture::announced;
use rowcast::flow::fetch::Request;
use rowcast::flow::receive;
use rowcast::limits;
use rowcast::position::{NodeId, Vector};
use rowcast::wire::{self, Error, Message};
use rowcast_schema::declaration::Declaration;
use rowcast_schema::layout::{Layout, LayoutId};
use rowcast_schema::record::{self, Collation, KeyColumn};
use rowcast_schema::value::Value;
use uuid::Uuid;

/// How many cases, where `ROWCAST_HOSTILE_CASES` says nothing else.
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("ROWCAST_HOSTILE_CASES").map_or(usual, |text| text.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn node(id: u128) -> NodeId {
    NodeId(Uuid::from_u128(id))
}

fn layout() -> Layout {
    Layout::new("t".into(), vec!["id".into(), "a".into()], vec![0])
}

fn event() -> Event {
    Event {
        table: "t".into(),
        operation: Operation::Update,
        record_id: "7".into(),
        data: Some(r#"{"id":7,"a":{"$blob":"AAE="}}"#.into()),
        timestamp: Timestamp(1 << 40),
        layout: layout().id,
        changed: 3,
    }
}

fn vector() -> Vector {
    [(node(2), 9), (node(3), u64::MAX)].into_iter().collect()
}

fn piece() -> Piece {
    Piece { first: 5, group_last: 6, context: vector(), events: vec![event(), event()] }
}

/// A right body of every message that bytes can be changed in. Those without a sample here are reached by their number.
fn bodies() -> Vec<Vec<u8>> {
    let row = SnapshotRow { origin: node(2), sequence: 5, group_last: 5, processed: true, event: event() };
    let page = SnapshotPage {
        vector: vector(),
        rows: vec![row.clone(), row],
        layouts: vec![layout()],
        contexts: vec![(node(2), 1, vector())],
        next: Some("7".into()),
        total: 9,
    };
    let page_of_events = Page { pieces: vec![piece()], layouts: vec![layout()], ..Page::default() };
    let definitions = Definitions {
        vector: vector(),
        tables: vec![("t".into(), vec!["CREATE TABLE t(id INTEGER PRIMARY KEY, a)".into()])],
    };
    let messages = [
        Message::Fetched(Answer::Events(page_of_events)),
        Message::Fetched(Answer::NotHere),
        Message::Fetched(Answer::Fingerprints(Fingerprints {
            stored: vec![(4, Fingerprint(7)), (9, Fingerprint(8))],
            newest: Timestamp(1 << 40),
        })),
        Message::Snapshot(page),
        Message::Definitions(definitions),
        Message::Refused("no".into()),
    ];
    let mut bodies: Vec<Vec<u8>> = messages.iter().map(|message| postcard::to_stdvec(message).unwrap()).collect();
    // A body of each other kind begins like this; what follows is chance.
    bodies.extend(
        (0..16).map(|kind| vec![kind, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 1, 0, 0, 0, 0]),
    );
    bodies
}

/// The frame of a body, with a right checksum: what is behind it is looked at.
fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'R', b'C', wire::VERSION, flags];
    frame.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

fn packed(body: &[u8], promised: usize) -> Vec<u8> {
    let mut packed = u32::try_from(promised).unwrap().to_le_bytes().to_vec();
    packed.extend_from_slice(&zstd::bulk::compress(body, 1).unwrap());
    frame(1, &packed)
}

/// What is done to right bytes.
#[derive(Clone, Debug)]
enum Harm {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
    Number(usize, u64),
}

fn harm() -> impl Strategy<Value = Harm> {
    let odd = prop::sample::select(vec![0, 1, 127, 128, u64::from(u32::MAX), 1 << 31, 1 << 63, u64::MAX, u64::MAX - 1]);
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (any::<usize>(), 1..30_usize).prop_map(|(at, count)| Harm::Remove(at, count)),
        (any::<usize>(), 1..60_usize).prop_map(|(at, count)| Harm::Repeat(at, count)),
        (any::<usize>(), odd).prop_map(|(at, number)| Harm::Number(at, number)),
    ]
}

fn harmed(mut bytes: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        let length = bytes.len();
        let place = |at: &usize| at % (length + 1);
        match harm {
            Harm::Set(at, byte) => {
                if let Some(old) = bytes.get_mut(place(at)) {
                    *old = *byte;
                }
            }
            Harm::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Harm::Remove(at, count) => drop(bytes.drain(place(at)..(place(at) + count).min(length))),
            Harm::Repeat(at, count) => bytes.extend_from_within(place(at)..(place(at) + count).min(length)),
            Harm::Number(at, number) => {
                let number = postcard::to_stdvec(number).unwrap();
                let end = (place(at) + number.len()).min(length);
                drop(bytes.splice(place(at)..end, number));
            }
        }
    }
    bytes
}

fn harms() -> impl Strategy<Value = Vec<Harm>> {
    prop::collection::vec(harm(), 0..6)
}

/// Everything that a node does with a frame before it touches its database.
fn take(frame: &[u8]) {
    drop(receive::feed(frame, node(2)));
    match wire::decode(frame) {
        Ok(Message::Fetched(Answer::Events(page))) => drop(receive::check(&page.pieces, &page.layouts)),
        Ok(Message::Snapshot(page)) => {
            if let Ok(known) = receive::sound(&page.layouts) {
                page.rows.iter().for_each(|row| drop(receive::check_event(&row.event, &known)));
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn a_frame_of_any_bytes_is_a_message_or_an_error(
        body in prop::collection::vec(any::<u8>(), 0..300), flags in 0..3_u8, start in 0..16_u8,
    ) {
        take(&body);
        take(&frame(flags, &body));
        take(&packed(&body, body.len()));
        let mut body = body;
        body.insert(0, start);
        take(&frame(0, &body));
    }

    #[test]
    fn a_right_message_that_was_changed_is_a_message_or_an_error(
        which in any::<prop::sample::Index>(), harms in harms(), lie in 0..3_usize,
    ) {
        let bodies = bodies();
        let body = harmed(bodies[which.index(bodies.len())].clone(), &harms);
        take(&frame(0, &body));
        take(&packed(&body, body.len() * lie));
        take(&harmed(frame(0, &body), &harms));
        take(&harmed(packed(&body, body.len()), &harms));
    }

    #[test]
    fn a_row_and_a_record_id_of_any_text_are_read_or_refused(text in any::<String>(), bytes in harms(), fold in 0..3_u8) {
        let right = br#"{"id":7,"a":{"$text":"/w=="},"b":-1.5e3,"c":{"$real":"-Infinity"},"d":null,"e":"\u0000"}"#;
        let changed = String::from_utf8_lossy(&harmed(right.to_vec(), &bytes)).into_owned();
        let columns: Vec<String> = ["id", "a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let collation = [Collation::Binary, Collation::NoCase, Collation::Rtrim][usize::from(fold)];
        for text in [&text, &changed] {
            if let Ok(cells) = record::row_from_json(&columns, text) {
                prop_assert_eq!(cells.len(), columns.len());
                prop_assert_eq!(&record::row_from_json(&columns, &record::row_to_json(&columns, &cells)).unwrap(), &cells);
            }
            if let Ok(value) = serde_json::from_str::<Value>(text) {
                let mut json = String::new();
                value.write_json(&mut json);
                prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
            }
            for (count, holds_text) in [(1, true), (1, false), (3, false)] {
                let columns = vec![KeyColumn { collation, holds_text }; count];
                if let Ok(key) = record::parse_record_id(text, &columns) {
                    prop_assert_eq!(key.len(), count);
                    drop(record::record_id(&key, &columns));
                }
            }
        }
    }

    #[test]
    fn a_change_event_and_a_request_of_any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200), harms in harms(), which in 0..3_usize,
    ) {
        let right: [&[u8]; 3] = [
            br#"{"table":"t","operation":"update","data":{"id":7,"a":{"$blob":"AAE="}},"key":{"id":7},"at":1}"#,
            br#"{"verb":"fetch","origin":"00000000-0000-0000-0000-000000000002","first":1,"last":18446744073709551615,"bytes":18446744073709551615}"#,
            br#"{"verb":"snapshot","table":"t","after":"7","bytes":0}"#,
        ];
        for bytes in [bytes, harmed(right[which].to_vec(), &harms)] {
            drop(announced::read(&bytes, &["t".to_owned()]));
            drop(serde_json::from_slice::<Request>(&bytes));
        }
    }
}

const DECLARED: &str = "service = \"music\"\n[defaults]\ncapture = \"triggers\"\nhistory = \"30d\"\n[tables.Track]\n\
    conflict = \"last-write-wins\"\nexclude = [\"a\", \"b\"]\n[tables.\"a b\"]\nenabled = false\n";
const CONFIG: &str = "name = \"a\"\ndatabase = \"app.db\"\nschema = \"schema.toml\"\nnats = [\"nats://127.0.0.1:4222\"]\n\
    http = \"127.0.0.1:9\"\npresence_interval = \"1s\"\n";

fn declared(text: &str) {
    if let Ok(declaration) = Declaration::parse("schema.toml", text) {
        // What was accepted can be told from others.
        assert_eq!(declaration.hash(), declaration.hash());
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_declaration_and_a_config_of_any_text_are_read_or_refused(text in any::<String>(), harms in harms()) {
        declared(&text);
        let changed = String::from_utf8_lossy(&harmed(DECLARED.into(), &harms)).into_owned();
        declared(&changed);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rowcast.toml");
        for text in [text.into_bytes(), harmed(CONFIG.into(), &harms)] {
            std::fs::write(&file, text).unwrap();
            let sources = Sources { file: Some(file.clone()), flags: Vec::new(), environment: Environment::default() };
            drop(sources.load());
            drop(sources.http());
        }
    }
}

#[test]
fn a_declaration_that_nests_without_end_is_refused() {
    for start in ["a = ", "[tables.t]\nexclude = ", "x."] {
        for text in
            [start.to_owned() + &"[".repeat(200_000), start.to_owned() + &"{a=".repeat(200_000), start.repeat(100_000)]
        {
            assert!(Declaration::parse("schema.toml", &text).is_err());
        }
    }
}

fn store(folder: &Path) -> Store {
    let declaration = Declaration::parse("schema.toml", "service = \"s\"\n[tables.t]\n").unwrap();
    Store::open(&folder.join("app.db"), declaration).unwrap()
}

proptest! {
    #![proptest_config(cases(80))]

    /// The tables that were there stay as they were, and nothing else comes to be than the table and its indexes.
    #[test]
    fn the_definition_of_a_table_by_another_node_makes_that_table_or_nothing(
        text in any::<String>(), table in harms(), index in harms(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let right = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT DEFAULT 'x' CHECK (length(a) < 9), g AS (a || 1) UNIQUE)";
        let changed = |text: &str, harms: &[Harm]| String::from_utf8_lossy(&harmed(text.into(), harms)).into_owned();
        let other = "CREATE UNIQUE INDEX i ON t(lower(a) COLLATE NOCASE DESC) WHERE a IS NOT NULL";
        for statements in [vec![text], vec![changed(right, &table), changed(other, &index)]] {
            let made = store.write(|tx| tx.create_table("t", &statements));
            let service = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
            let foreign: i64 = service
                .query_row(
                    "SELECT count(*) FROM sqlite_schema WHERE tbl_name NOT LIKE '\\_rowcast%' ESCAPE '\\'
                     AND tbl_name NOT LIKE 't' AND tbl_name NOT LIKE 't\\_Events' ESCAPE '\\' AND tbl_name <> 'sqlite_sequence'",
                    [],
                    |row| row.get(0),
                )
                .unwrap();
            prop_assert_eq!(foreign, 0, "{:?}", made);
        }
    }

    #[test]
    fn the_file_beside_the_database_may_hold_anything(bytes in prop::collection::vec(any::<u8>(), 0..200), harms in harms()) {
        let folder = tempfile::tempdir().unwrap();
        drop(store(folder.path()));
        let file = folder.path().join("app.db-rowcast");
        let right = std::fs::read(&file).unwrap();
        for bytes in [bytes, harmed(right, &harms)] {
            std::fs::write(&file, bytes).unwrap();
            let declaration = Declaration::parse("schema.toml", "service = \"s\"\n[tables.t]\n").unwrap();
            drop(Store::open(&folder.path().join("app.db"), declaration));
        }
    }
}

/// Lists of empty things: nothing on the wire costs less, and nothing takes more memory for it.
#[test]
fn a_small_message_does_not_become_a_large_one() {
    let count = 4_000_000;
    let list = |start: &[u8], each: &[u8]| {
        let mut body = start.to_vec();
        body.extend(postcard::to_stdvec(&count).unwrap());
        for _ in 0..count {
            body.extend_from_slice(each);
        }
        body
    };
    let definitions = postcard::to_stdvec(&Message::Definitions(Definitions::default())).unwrap()[0];
    let fetched = postcard::to_stdvec(&Message::Fetched(Answer::Events(Page::default()))).unwrap();
    // Tables with empty names and no statements; pieces with neither events nor context.
    for (start, each) in [(vec![definitions, 0], &[0, 0][..]), (fetched[..2].to_vec(), &[1, 1, 0, 0])] {
        let body = list(&start, each);
        assert!(body.len() < limits::MESSAGE_BYTES_MAX, "the size of the frame is not what refuses it");
        for frame in [frame(0, &body), packed(&body, body.len())] {
            assert!(matches!(wire::decode(&frame), Err(Error::TooLarge(_))));
        }
    }
}

/// What is sent fits what is taken, with room to spare.
#[test]
fn the_largest_page_that_is_sent_is_taken() {
    let event = |at: u64| Event {
        table: "t".into(),
        record_id: at.to_string(),
        data: None,
        operation: Operation::Delete,
        ..event()
    };
    let count = (limits::PAGE_BYTES_MAX / 64) as u64;
    let context: Vector = (0..100).map(|id| (node(id), 1_000_000)).collect();
    let pieces =
        (1..=count).map(|at| Piece { first: at, group_last: at, context: context.clone(), events: vec![event(at)] });
    let row =
        |at: u64| SnapshotRow { origin: node(1), sequence: at, group_last: at, processed: true, event: event(at) };
    let small = Page { pieces: pieces.take(4_000).collect(), layouts: vec![layout()], ..Page::default() };
    let snapshot = SnapshotPage { rows: (1..=count).map(row).collect(), ..SnapshotPage::default() };
    let long = Event { data: Some("x".repeat(limits::MESSAGE_BYTES_MAX - 1024)), ..event(1) };
    let long = Page { pieces: vec![Piece { events: vec![long], ..piece() }], ..Page::default() };
    for message in
        [Message::Fetched(Answer::Events(small)), Message::Snapshot(snapshot), Message::Fetched(Answer::Events(long))]
    {
        assert_eq!(wire::decode(&wire::encode(&message)).unwrap(), message);
    }
}

/// A record id that is not that of the row would write one record and note another.
#[test]
fn a_layout_that_is_not_there_or_not_sound_is_refused() {
    let layouts = HashMap::new();
    assert!(receive::check_event(&event(), &layouts).is_err());
    let lie = Layout { id: LayoutId(5), ..layout() };
    assert!(receive::sound(&[lie]).is_err());
}
