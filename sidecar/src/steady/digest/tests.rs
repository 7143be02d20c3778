//! The rules, one by one; and that no history without damage looks like a divergence.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn node(id: u128) -> NodeId {
    NodeId(Uuid::from_u128(id))
}

fn vector(positions: &[(u128, Sequence)]) -> Vector {
    positions.iter().map(|&(id, at)| (node(id), at)).collect()
}

/// A record whose content comes from one event.
fn entry(source: (u128, Sequence), timestamp: i64, events: u64) -> Entry {
    Entry {
        sources: vec![(node(source.0), source.1)],
        newest: Timestamp(timestamp),
        row: events,
        events,
        ..Entry::absent("r")
    }
}

fn witness(id: u128, entry: Entry, vector: Vector) -> Witness {
    Witness { node: node(id), entry, vector }
}

#[test]
fn an_older_version_is_lag_until_the_position_says_that_the_newer_one_is_there() {
    let (old, new) = (entry((1, 1), 10, 1), entry((1, 2), 20, 2));
    let (behind, ahead) = (vector(&[(1, 1)]), vector(&[(1, 2)]));
    assert_eq!(compare((&old, &behind), (&new, &ahead)), Relation::Lag);
    assert_eq!(compare((&old, &ahead), (&new, &ahead)), Relation::MineLacks);
    assert_eq!(compare((&new, &ahead), (&old, &ahead)), Relation::TheirsLacks);
}

#[test]
fn the_same_events_with_other_content_are_a_divergence_at_any_position() {
    let (mine, theirs) = (entry((1, 1), 10, 1), entry((1, 1), 10, 2));
    for far in [1, 9] {
        assert_eq!(compare((&mine, &vector(&[(1, 1)])), (&theirs, &vector(&[(1, far)]))), Relation::EventsDiffer);
    }
}

#[test]
fn a_delete_that_one_node_has_forgotten_is_none() {
    let gone = Entry { deleted: true, row: 0, ..entry((1, 2), 20, 2) };
    let at = vector(&[(1, 2)]);
    assert_eq!(compare((&gone, &at), (&Entry::absent("r"), &at)), Relation::Alike);
    assert_eq!(gone.part(), 0);
    let live = entry((1, 1), 10, 1);
    assert_eq!(compare((&live, &at), (&gone, &at)), Relation::MineLacks);
}

#[test]
fn what_is_parked_or_under_way_is_left_alone() {
    let at = vector(&[(1, 2)]);
    let parked = Entry { parked: true, ..entry((1, 1), 10, 1) };
    assert_eq!(compare((&parked, &at), (&entry((1, 2), 20, 2), &at)), Relation::Lag);
    let unsettled = Entry { state: State::Unsettled, row: 7, ..entry((1, 1), 10, 1) };
    assert_eq!(compare((&entry((1, 1), 10, 1), &at), (&unsettled, &at)), Relation::Lag);
    assert_eq!(judge(node(9), (&unsettled, &at), &[]), Verdict::Fine);
}

#[test]
fn a_damaged_row_is_mended_from_its_own_events_unless_the_events_are_what_was_changed() {
    let at = vector(&[(1, 1)]);
    let mine = Entry { state: State::Differs, row: 7, ..entry((1, 1), 10, 1) };
    assert_eq!(judge(node(9), (&mine, &at), &[]), Verdict::MendRow);
    let same = witness(2, entry((1, 1), 10, 1), at.clone());
    assert_eq!(judge(node(9), (&mine, &at), &[same]), Verdict::MendRow);
    let other = witness(2, entry((1, 1), 10, 7), at.clone());
    assert_eq!(judge(node(9), (&mine, &at), &[other]), Verdict::TakeFrom(node(2)));
}

#[test]
fn events_that_differ_are_decided_by_the_majority_then_by_their_origin_and_never_by_guess() {
    let at = vector(&[(1, 1)]);
    let mine = entry((1, 1), 10, 1);
    let with = |id, events| witness(id, entry((1, 1), 10, events), at.clone());
    let judge = |me: u128, witnesses: &[Witness]| judge(node(me), (&mine, &at), witnesses);
    assert_eq!(judge(9, &[with(2, 2), with(3, 2)]), Verdict::TakeFrom(node(2)));
    assert_eq!(judge(9, &[with(2, 1), with(3, 2)]), Verdict::TheirsAtFault(node(3)));
    assert_eq!(judge(9, &[with(1, 2)]), Verdict::TakeFrom(node(1)), "the origin says so");
    assert_eq!(judge(1, &[with(2, 2)]), Verdict::TheirsAtFault(node(2)), "this node is the origin");
    assert_eq!(judge(9, &[with(2, 2)]), Verdict::Undecided(node(2)));
}

/// Origin, timestamp, and whether it deletes.
type Told = (u128, i64, bool);

/// Histories of one record over three origins: what each node has is a prefix of each origin's events.
fn any_history() -> impl Strategy<Value = (Vec<Told>, [[usize; 3]; 2])> {
    let events = prop::collection::vec((0..3_u128, 1..9_i64, any::<bool>()), 0..9);
    (events, [prop::array::uniform3(0..5_usize), prop::array::uniform3(0..5_usize)])
}

/// The entry and vector of a node that has these prefixes.
fn at_prefixes(events: &[Told], have: [usize; 3]) -> (Entry, Vector) {
    let mut found: Vec<(Version, bool)> = Vec::new();
    let mut positions = Vec::new();
    for origin in 0..3_u128 {
        let own = events.iter().filter(|(by, ..)| *by == origin);
        let held: Vec<_> = own.take(have[origin as usize]).enumerate().collect();
        positions.push((origin, held.len() as Sequence));
        for (at, (_, timestamp, deleted)) in held {
            // Timestamps of one origin grow.
            let timestamp = Timestamp(timestamp + 10 * at as i64);
            found.push((Version { timestamp, origin: node(origin), sequence: at as Sequence + 1 }, *deleted));
        }
    }
    let entry = match found.iter().max_by_key(|(version, _)| *version) {
        None => Entry::absent("r"),
        Some((newest, deleted)) => {
            let mut hash = Hash::default();
            hash.number(newest.sequence);
            let row = if *deleted { 0 } else { hash.value() };
            Entry {
                sources: vec![(newest.origin, newest.sequence)],
                newest: newest.timestamp,
                deleted: *deleted,
                row,
                events: hash.value(),
                ..Entry::absent("r")
            }
        }
    };
    (entry, vector(&positions))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn two_nodes_at_any_two_positions_of_one_history_never_diverge((events, [a, b]) in any_history()) {
        let ((mine, my_vector), (theirs, their_vector)) = (at_prefixes(&events, a), at_prefixes(&events, b));
        let relation = compare((&mine, &my_vector), (&theirs, &their_vector));
        prop_assert!(matches!(relation, Relation::Alike | Relation::Lag), "{relation:?}");
    }

    #[test]
    fn the_loss_of_the_newest_event_is_seen_by_whoever_has_it((events, [a, _]) in any_history()) {
        let (theirs, at) = at_prefixes(&events, a);
        if theirs.sources.is_empty() || theirs.deleted {
            return Ok(());
        }
        let relation = compare((&Entry::absent("r"), &at), (&theirs, &at));
        prop_assert_eq!(relation, Relation::MineLacks);
    }
}

#[test]
fn the_hash_tells_cells_apart_that_look_alike_and_is_the_same_for_ever() {
    let hash = |value: &Value| {
        let mut hash = Hash::default();
        hash.cell(value);
        hash.value()
    };
    let cells = [
        Value::Null,
        Value::Integer(0),
        Value::Integer(1),
        Value::Real(1.0),
        Value::Real(0.0),
        Value::Real(-0.0),
        Value::from("1"),
        Value::Blob(b"1".to_vec()),
        Value::from(""),
        Value::Blob(Vec::new()),
    ];
    let hashes: BTreeSet<u64> = cells.iter().map(hash).collect();
    assert_eq!(hashes.len(), cells.len());
    assert_eq!(hash(&Value::Integer(1)), 0xfead_53f7_dfca_be65, "nodes of two versions would differ for ever");
}
