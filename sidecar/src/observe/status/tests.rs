//! The page as people see it, and the JSON as machines do.

use super::*;

fn id(last: u8) -> Uuid {
    Uuid::from_u128(0x0190_5f3c_7d2e_7000_8000_0000_0000_0000 + u128::from(last))
}

/// A node in the middle of everything, with fixed figures.
pub(crate) fn troubled() -> Status {
    let mut status = Status::starting("c", "music");
    status.version = "0.1.0".to_owned();
    status.node_id = Some(id(3));
    status.set_reasons(vec![
        Reason::new(Code::Joining, "4,200 events of 2 of 11 tables are loaded from node a"),
        Reason::new(Code::Schema, "table `Track` has no column `Mood`")
            .with_hint("run the migration that adds `Mood` to `Track`"),
    ]);
    status.warnings = vec!["node b declares another schema".to_owned()];
    status.progress = Some(Progress {
        what: "events from node a".to_owned(),
        done: 4200,
        total: Some(15_607),
        eta_seconds: Some(12),
    });
    status.bus = Bus { connected: true, server: Some("nats://127.0.0.1:4222".to_owned()), reconnects: 1 };
    status.database =
        Database { path: "/var/lib/music/app.db".into(), bytes: 1_234_567, wal_bytes: 4_120_032, journal_rows: 3 };
    status.head = 17;
    let position = |node: Option<&str>, origin, position, known| Position {
        node: node.map(str::to_owned),
        origin: id(origin),
        position,
        known,
    };
    status.positions =
        vec![position(Some("a"), 1, 4200, 15_607), position(None, 2, 99, 99), position(Some("c"), 3, 17, 17)];
    let member = |name: &str, member: u8, state, schema_matches| Member {
        name: name.to_owned(),
        id: id(member),
        state,
        seen_seconds_ago: 0.25 * f64::from(member),
        position: BTreeMap::from([(id(1), 15_607), (id(2), 98)]),
        schema_matches,
    };
    status.members = vec![member("a", 1, State::Ready, true), member("b", 2, State::NotReady, false)];
    status.tables = tables();
    status.counters = Counters {
        captured: 17,
        published: 17,
        applied: 4200,
        duplicates: 5,
        conflicts: 1,
        parked: 23,
        gaps_fetched: 2,
        verified: 100,
        diverged: 2,
        repaired: 1,
        ..Counters::default()
    };
    status.parked_by_reason = BTreeMap::from([("unique".to_owned(), 23)]);
    status.parked = vec![Parked {
        event: format!("{}:000000000000002a", id(2)),
        table: "Track".to_owned(),
        record: "3503".to_owned(),
        reason: "a UNIQUE value is held by another record".to_owned(),
    }];
    status
}

fn tables() -> Vec<Table> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let layout = |layout: &str, node: &str, missing: &[&str]| Layout {
        layout: layout.to_owned(),
        nodes: words(&[node]),
        missing_columns: words(missing),
    };
    let table = |name: &str, capture: &str, events, parked, layouts: Vec<Layout>| Table {
        name: name.to_owned(),
        capture: capture.to_owned(),
        events,
        parked,
        dangling: parked / 10,
        missing_columns: layouts.iter().flat_map(|layout| layout.missing_columns.clone()).collect(),
        layouts,
    };
    let layouts = vec![layout("2649013723623865432", "c", &[]), layout("8049013723623865432", "a", &["Mood", "Tempo"])];
    vec![table("Playlist", "events", 18, 0, Vec::new()), table("Track", "triggers", 3503, 23, layouts)]
}

#[test]
fn the_page_of_a_node_in_trouble_begins_with_what_to_do() {
    insta::assert_snapshot!(troubled().to_text());
}

#[test]
fn the_page_of_a_node_that_is_well_is_short() {
    let mut status = troubled();
    status.set_reasons(Vec::new());
    status.warnings.clear();
    status.progress = None;
    status.parked.clear();
    status.tables.clear();
    status.members.clear();
    insta::assert_snapshot!(status.to_text());
}

#[test]
fn the_page_of_a_node_that_has_only_begun_has_nothing_made_up() {
    let mut status = Status::starting("a", "music");
    status.version = "0.1.0".to_owned();
    insta::assert_snapshot!(status.to_text());
}

#[test]
fn json_tells_the_same_and_comes_back_equal() {
    let status = troubled();
    let json = serde_json::to_string_pretty(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    insta::assert_snapshot!(json);
}

#[test]
fn ready_is_to_have_no_reason() {
    let mut status = Status::starting("a", "music");
    assert!(!status.is_ready());
    status.set_reasons(Vec::new());
    assert!(status.is_ready());
    status.set_reasons(vec![Reason::new(Code::Gap, "3 events of b")]);
    assert_eq!(status.state, State::NotReady);
}

#[test]
fn lag_is_what_is_known_and_not_here() {
    assert_eq!(troubled().lag_events(), 15_607 - 4200);
}
