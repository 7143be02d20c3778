//! The documents against the code: the contract of the change events, the subjects, the tests that the guarantees name.
//!
//! A page that says something that the code does not do is a bug like any other; here it fails a test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rowcast::bootstrap::whole::{Chunk, Offer, Whole};
use rowcast::clock::Timestamp;
use rowcast::edge::bus::subject::Subjects;
use rowcast::edge::store::{Answer, Definitions, SnapshotPage, SnapshotRow, Store};
use rowcast::event::{Event, Operation, Piece};
use rowcast::flow::capture::announced::{self, Read};
use rowcast::limits;
use rowcast::members::Presence;
use rowcast::position::{NodeId, Vector};
use rowcast::steady::digest::{Compared, Entry};
use rowcast::wire::{self, Feed, Message};
use rowcast_schema::declaration::Declaration;
use rowcast_schema::layout::Layout;
use serde_json::Value as Json;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn contract() -> Json {
    serde_json::from_str(&page("docs/change-event.schema.json")).unwrap()
}

const DECLARED: &str = "service = \"s\"\n[tables.items]\ncapture = \"events\"\n[tables.seats]\ncapture = \"events\"\n\
                        [tables.watched]\n";

const TABLES: [(&str, &str); 3] = [
    ("items", "CREATE TABLE items(id TEXT NOT NULL PRIMARY KEY, name TEXT, quantity INTEGER, price REAL, photo BLOB)"),
    ("seats", "CREATE TABLE seats(room TEXT NOT NULL, seat INTEGER NOT NULL, taken_by TEXT, PRIMARY KEY(room, seat))"),
    ("watched", "CREATE TABLE watched(id TEXT NOT NULL PRIMARY KEY)"),
];

/// A node's database with the tables that the examples of the contract speak of.
fn store(folder: &Path) -> Store {
    let declaration = Declaration::parse("schema.toml", DECLARED).unwrap();
    let mut store = Store::open(&folder.join("app.db"), declaration).unwrap();
    store.write(|tx| TABLES.iter().try_for_each(|(name, sql)| tx.create_table(name, &[(*sql).to_owned()]))).unwrap();
    store
}

/// Takes a change event as the sidecar does. Answers its sequence number, or why it was refused.
fn take(store: &mut Store, payload: &[u8]) -> Result<Option<u64>, String> {
    let tables = TABLES.map(|(name, _)| name.to_owned());
    let Read::Change(announcement) = announced::read(payload, &tables).map_err(|refusal| refusal.0)? else {
        return Ok(None);
    };
    let now = Timestamp::from_millis(1_800_000_000_000);
    let heard = store.write(|tx| announced::ingest(tx, announcement, now)).unwrap();
    heard.map(|heard| Some(heard.sequence)).map_err(|refusal| refusal.0)
}

#[test]
fn the_examples_of_the_contract_become_events() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(folder.path());
    let contract = contract();
    let examples = contract["examples"].as_array().unwrap();
    assert!(!examples.is_empty());
    for example in examples {
        let sequence = take(&mut store, example.to_string().as_bytes());
        assert!(matches!(sequence, Ok(Some(1..))), "{example}: {sequence:?}");
    }
}

#[test]
fn what_the_contract_forbids_is_refused_and_makes_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(folder.path());
    let before = store.durable().next;
    // Each with a word of the refusal, so that it is refused for its own fault.
    for (payload, word) in [
        ("", "EOF"),
        ("[]", "expected"),
        ("{}", "table"),
        (r#"{"table":5,"operation":"create","data":{}}"#, "string"),
        (r#"{"table":"items","data":{"id":"x"}}"#, "operation"),
        (r#"{"table":"items","operation":"CREATE","data":{"id":"x"}}"#, "CREATE"),
        (r#"{"table":"items","operation":"upsert","data":{"id":"x"}}"#, "upsert"),
        (r#"{"table":"items","operation":"create","dta":{}}"#, "dta"),
        (r#"{"table":"items","operation":"create"}"#, "`data`"),
        (r#"{"table":"items","operation":"update","key":{"id":"x"}}"#, "`data`"),
        (r#"{"table":"items","operation":"delete"}"#, "`key`"),
        (r#"{"table":"items","operation":"delete","key":["x"]}"#, "an object"),
        (r#"{"table":"items","operation":"delete","key":{}}"#, "`id`"),
        (r#"{"table":"seats","operation":"delete","key":{"room":"blue"}}"#, "`seat`"),
        (r#"{"table":"items","operation":"delete","key":{"id":null}}"#, "NULL"),
        (r#"{"table":"items","operation":"delete","key":{"id":true}}"#, "boolean"),
        (r#"{"table":"items","operation":"delete","key":{"id":[1]}}"#, "sequence"),
        (r#"{"table":"items","operation":"delete","key":{"id":{}}}"#, "empty"),
        (r#"{"table":"items","operation":"delete","key":{"id":{"$blob":"?"}}}"#, "base64"),
        (r#"{"table":"items","operation":"delete","key":{"id":{"$blob":"AA"}}}"#, "base64"),
        (r#"{"table":"items","operation":"delete","key":{"id":{"$real":"NaN"}}}"#, "Infinity"),
        (r#"{"table":"items","operation":"delete","key":{"id":{"$date":"x"}}}"#, "$date"),
        (r#"{"table":"items","operation":"delete","key":{"id":{"$blob":"","$text":""}}}"#, "one key"),
        (r#"{"table":"items","operation":"delete","key":{"id":9223372036854775808}}"#, "9223372036854775808"),
        (r#"{"table":"items","operation":"delete","key":{"id":"x"},"at":"now"}"#, "i64"),
        (r#"{"table":"items","operation":"delete","key":{"id":"x"},"at":1.5}"#, "i64"),
        (r#"{"table":"items","operation":"delete","key":{"id":"x","id":"y"}}"#, "twice"),
        (r#"{"table":"items","operation":"create","data":{"id":"x"}}"#, "`name`"),
        (
            r#"{"table":"items","operation":"create","data":{"id":"x","name":"n","quantity":1,"price":1,"photo":null,"colour":1}}"#,
            "`colour`",
        ),
        (r#"{"table":"itmes","operation":"delete","key":{"id":"x"}}"#, "`itmes`"),
        (r#"{"table":"watched","operation":"delete","key":{"id":"x"}}"#, "triggers"),
    ] {
        let refusal = take(&mut store, payload.as_bytes()).expect_err(payload);
        assert!(refusal.contains(word), "{payload}: {refusal}");
    }
    assert_eq!(store.durable().next, before, "nothing became an event");
}

#[test]
fn change_events_about_own_tables_are_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(folder.path());
    for table in ["items_Events", "_rowcast_journal"] {
        let payload = format!(r#"{{"table":"{table}","operation":"delete","key":{{"id":"x"}}}}"#);
        assert_eq!(take(&mut store, payload.as_bytes()), Ok(None));
    }
}

/// The words between backticks after the first that is quoted itself: serde names what it would have taken.
fn expected(refusal: &str) -> BTreeSet<String> {
    refusal.split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect()
}

fn refusal(payload: &str) -> String {
    announced::read(payload.as_bytes(), &[]).map(|_| ()).unwrap_err().0
}

#[test]
fn the_keys_operations_and_tags_of_the_contract_are_those_of_the_code() {
    let contract = contract();
    let keys: BTreeSet<String> = contract["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(expected(&refusal(r#"{"nope":1}"#)), keys);

    let operations = contract["properties"]["operation"]["enum"].as_array().unwrap();
    let operations: BTreeSet<String> = operations.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    assert_eq!(expected(&refusal(r#"{"table":"t","operation":"nope"}"#)), operations);

    let said = refusal(r#"{"table":"t","operation":"create","data":{"a":{"nope":""}}}"#);
    let definitions = contract["$defs"].as_object().unwrap();
    let tags: BTreeSet<&str> =
        definitions.values().filter_map(|definition| definition["required"][0].as_str()).collect();
    let known: BTreeSet<&str> = said.split([' ', ',']).filter(|word| word.starts_with('$')).collect();
    assert_eq!(tags, known, "{said}");
}

#[test]
fn the_subjects_in_the_documents_are_those_of_the_code() {
    let asyncapi = page("docs/asyncapi.yaml");
    let subjects = Subjects::of("{service}");
    for address in [subjects.changes("{node}"), subjects.state("{node}")] {
        assert!(asyncapi.contains(&format!("address: {address}\n")), "docs/asyncapi.yaml lacks the address {address}");
    }
    let protocol = page("docs/protocol.md");
    let node = "00000000-0000-0000-0000-000000000000";
    let id = node.parse().unwrap();
    let subjects = Subjects::of("<service>");
    let verbs =
        ["fetch", "fingerprints", "snapshot", "definitions", "digest", "entries", "records", "whole", "chunk", "ended"]
            .map(|verb| subjects.rpc(id, verb).replace(node, "<node id>"));
    let others = [
        subjects.presence(),
        subjects.events(id).replace(node, "<origin>"),
        subjects.changes("<name>"),
        subjects.state("<name>"),
    ];
    for subject in verbs.iter().chain(&others) {
        assert!(protocol.contains(&format!("`{subject}`")), "docs/protocol.md lacks the subject {subject}");
    }
}

/// The names of a struct's fields, in their order.
fn fields(value: &impl serde::Serialize) -> Vec<String> {
    let text = serde_json::to_string(value).unwrap();
    let Json::Object(object) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
    let mut names: Vec<String> = object.keys().cloned().collect();
    names.sort_by_key(|name| text.find(&format!("\"{name}\":")));
    names
}

/// The field names of a row of a table in a page: what stands before each colon, between semicolons.
fn told(page: &str, row: &str) -> Vec<String> {
    let line = page.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("no row {row}"));
    let cell = line.trim_end_matches('|').rsplit('|').next().unwrap();
    cell.split(';').map(|field| field.split(':').next().unwrap().trim().to_owned()).collect()
}

#[test]
fn the_fields_of_frames_in_the_protocol_are_those_of_the_code() {
    let layout = Layout::new("t".into(), vec!["id".into()], vec![0]);
    let event = Event {
        table: String::new(),
        operation: Operation::Delete,
        record_id: String::new(),
        data: None,
        timestamp: Timestamp(1),
        layout: layout.id,
        changed: 0,
    };
    let piece = Piece { first: 1, group_last: 1, context: Vector::default(), events: Vec::new() };
    let origin = NodeId("00000000-0000-0000-0000-000000000000".parse().unwrap());
    let feed = Feed { origin, pieces: Vec::new(), layouts: Vec::new(), before: None };
    let row = SnapshotRow { origin, sequence: 1, group_last: 1, processed: true, event: event.clone() };
    let presence = Presence::of(origin, "", origin.0);
    let offer = Offer { copy: origin.0, bytes: 512, vector: Vector::default() };
    let chunk = Chunk { copy: origin.0, at: 0, packed: Vec::new() };
    let page = page("docs/protocol.md");
    for (row, fields) in [
        ("| 0 | Feed |", fields(&feed)),
        ("| 1 | Presence |", fields(&presence)),
        ("| 3 | Snapshot |", fields(&SnapshotPage::default())),
        ("| 6 | Compared |", fields(&Compared::default())),
        ("| piece |", fields(&piece)),
        ("| event |", fields(&event)),
        ("| layout |", fields(&layout)),
        ("| row |", fields(&row)),
        ("| entry |", fields(&Entry::absent("x"))),
        ("| offer |", fields(&offer)),
        ("| chunk |", fields(&chunk)),
    ] {
        assert_eq!(told(&page, row), fields, "docs/protocol.md, the row {row}");
    }
    let meanings = page.split("## Presence").nth(1).unwrap();
    for field in fields(&presence) {
        let is_told = meanings.lines().any(|line| {
            let names = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next());
            names.is_some_and(|names| names.split(", ").any(|name| name == field))
        });
        assert!(is_told, "docs/protocol.md does not say what `{field}` of a presence means");
    }
}

/// The name of a message in the page. A message that is not named here does not compile.
fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Feed(_) => "Feed",
        Message::Presence(_) => "Presence",
        Message::Fetched(_) => "Fetched",
        Message::Snapshot(_) => "Snapshot",
        Message::Definitions(_) => "Definitions",
        Message::Refused(_) => "Refused",
        Message::Compared(_) => "Compared",
        Message::Whole(_) => "Whole",
    }
}

fn name_of_whole(whole: &Whole) -> &'static str {
    match whole {
        Whole::Offer(_) => "Offer",
        Whole::Making => "Making",
        Whole::Later(_) => "Later",
        Whole::Chunk(_) => "Chunk",
        Whole::Hash(_) => "Hash",
    }
}

#[test]
fn the_numbers_of_messages_in_the_protocol_are_those_on_the_wire() {
    let origin = NodeId("00000000-0000-0000-0000-000000000000".parse().unwrap());
    let page = page("docs/protocol.md");
    let messages = [
        Message::Feed(Feed { origin, pieces: Vec::new(), layouts: Vec::new(), before: None }),
        Message::Presence(Presence::of(origin, "", origin.0)),
        Message::Fetched(Answer::NotHere),
        Message::Snapshot(SnapshotPage::default()),
        Message::Definitions(Definitions::default()),
        Message::Refused(String::new()),
        Message::Compared(Compared::default()),
        Message::Whole(Whole::Making),
    ];
    for message in &messages {
        // Behind the eight bytes that every frame begins with.
        let row = format!("\n| {} | {} |", wire::encode(message)[8], name_of(message));
        assert!(page.contains(&row), "docs/protocol.md lacks the row {row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).count();
    assert_eq!(rows, messages.len(), "docs/protocol.md has messages that there are not");
    let row = page.lines().find(|line| line.starts_with("| 7 | Whole |")).unwrap();
    for whole in [
        Whole::Offer(Offer { copy: origin.0, bytes: 512, vector: Vector::default() }),
        Whole::Making,
        Whole::Later(String::new()),
        Whole::Chunk(Chunk { copy: origin.0, at: 0, packed: Vec::new() }),
        Whole::Hash([0; 32]),
    ] {
        let name = name_of_whole(&whole);
        let variant = format!("ariant {}, {name}:", wire::encode(&Message::Whole(whole))[9]);
        assert!(row.contains(&variant), "docs/protocol.md: the row of Whole lacks {variant}");
    }
}

/// A number as people write it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// What each document says of the limits.
fn limits_told() -> Vec<(&'static str, Vec<String>)> {
    let number = |number: usize| grouped(number as u64);
    let mib = |bytes: usize| {
        assert_eq!(bytes % (1 << 20), 0);
        format!("{} MiB", bytes >> 20)
    };
    let a_second = |pause: Duration| number(1000 / pause.as_millis() as usize * limits::DIGEST_PAGE);
    let [inbox, feed, held] = [limits::INBOX_BYTES_MAX, limits::INBOX_FEED_BYTES_MAX, limits::HELD_BYTES_MAX].map(mib);
    vec![
        (
            "ARCHITECTURE.md",
            vec![
                format!("| inbox | {} messages, {inbox}, with one more of a feed {feed} |", number(limits::INBOX_LEN)),
                format!("| outbox | {} messages |", number(limits::OUTBOX_LEN)),
                format!("| pieces held because something before them is missing | {held} |"),
                format!("messages, {} | the message is dropped", mib(limits::PARTS_BYTES_MAX)),
                format!("more than {} s ahead", limits::DRIFT_MAX.as_secs()),
            ],
        ),
        (
            "docs/operations.md",
            vec![
                format!("in pages of {} records", limits::DIGEST_PAGE),
                format!("at most {} records a second", a_second(limits::DIGEST_PAUSE)),
                format!("up to {} a second", a_second(limits::DIGEST_PAUSE_ASKED)),
                format!("More than {} records of one table", number(limits::REPAIRS_MAX)),
                format!("shows the last {} that", grouped(limits::CONFLICTS_KEPT.unsigned_abs())),
                format!("more than {} as JSON", mib(limits::ROW_BYTES_MAX)),
            ],
        ),
        (
            "docs/guarantees.md",
            vec![
                format!("of more than {} rows is applied in pieces", grouped(limits::GROUP_ROWS_MAX)),
                format!("of more than {} as JSON stays", mib(limits::ROW_BYTES_MAX)),
                format!("more than {} s ahead", limits::DRIFT_MAX.as_secs()),
                format!("about {} ms while the node is not READY", limits::APPLY_TIME_BEHIND.as_millis()),
            ],
        ),
        (
            "docs/performance.md",
            vec![
                format!(
                    "takes up to {} rows, or {}, in one transaction while it is not READY",
                    number(limits::APPLY_ROWS_BEHIND_MAX),
                    mib(limits::LOT_BYTES_MAX)
                ),
                format!("longer than {} ms, and a thread", limits::APPLY_TIME_BEHIND.as_millis()),
                format!("hold the lock for more than {} ms", limits::APPLY_TIME.as_millis()),
            ],
        ),
        (
            "docs/protocol.md",
            vec![
                format!("there is room, {} fetches in all", limits::FETCHES_AT_ONCE),
                format!("at most {}, before and after", mib(limits::MESSAGE_BYTES_MAX)),
                format!("at most {} of memory", mib(limits::DECODED_BYTES_MAX)),
                format!("{} that travel", mib(limits::ROW_BYTES_MAX)),
                format!(
                    "more than {} KiB or {} events",
                    limits::PIECE_BYTES_MAX >> 10,
                    number(limits::PIECE_EVENTS_MAX)
                ),
                format!(
                    "At most {} members are remembered, and {}",
                    number(limits::MEMBERS_MAX),
                    number(limits::ORIGINS_MAX)
                ),
            ],
        ),
    ]
}

#[test]
fn the_limits_in_the_documents_are_those_of_the_code() {
    for (name, texts) in limits_told() {
        // Lines are cut where they are full: that says nothing.
        let page = page(name).split_whitespace().collect::<Vec<_>>().join(" ");
        for text in texts {
            assert!(page.contains(&text), "{name} does not say {text:?}");
        }
    }
}

/// Every file with Rust in it, beside what was built.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_tests_and_files_that_the_guarantees_name_exist() {
    let page = page("docs/guarantees.md");
    let mut found = Vec::new();
    sources(&root(), &mut found);
    let mut named = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && !word.contains([' ', '<']);
        // A test's name reads as a sentence: nothing else there has so many underscores.
        let is_test =
            3 <= word.matches('_').count() && word.chars().all(|letter| letter == '_' || letter.is_ascii_lowercase());
        if is_path {
            let there = ["", "sidecar/src", "schema/src"].iter().any(|place| root().join(place).join(word).exists());
            assert!(there, "docs/guarantees.md names the file {word}, which is not there");
        } else if is_test {
            named += 1;
            let there = found.iter().any(|text| text.contains(&format!("fn {word}(")));
            assert!(there, "docs/guarantees.md names the test {word}, which is not there");
        }
    }
    assert!(10 <= named, "only {named} tests are named");
}

/// Every page of the project, by its path from the root.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The anchor of a heading, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_links_between_pages_lead_somewhere() {
    let mut found = Vec::new();
    pages(&root(), &mut found);
    let mut links = 0;
    for page in &found {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: the link {link} leads nowhere", page.display());
            let has_heading = heading.is_empty()
                || fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(has_heading, "{}: the link {link} names a heading that is not there", page.display());
        }
    }
    assert!(20 <= links, "only {links} links were found");
}
