//! What a joiner asks, takes and refuses while it takes a file whole.

use super::*;
use crate::clock::Timestamp;

fn node(id: u128) -> NodeId {
    NodeId(Uuid::from_u128(id))
}

fn at(millis: u64) -> Moment {
    Moment { wall: Timestamp::from_millis(1_800_000_000_000), uptime: Duration::from_millis(millis) }
}

/// What a READY node says, which has these on its disk.
fn said(id: u128, members: &[u128], position: u64) -> Bytes {
    let presence = Presence {
        ready: true,
        complete: true,
        vector: [(node(id), position)].into_iter().collect(),
        sure: true,
        schema: "s".into(),
        clock: at(0).wall,
        stamp: Timestamp(1),
        members: members.iter().map(|&id| node(id)).collect(),
        ..Presence::of(node(id), &format!("n{id}"), Uuid::from_u128(id))
    };
    Bytes::from(wire::encode(&Message::Presence(presence)))
}

fn seeking() -> Seeking {
    Seeking::new(node(9), Uuid::from_u128(9), "new", "s".into(), Duration::from_secs(1), at(0))
}

#[test]
fn it_asks_when_all_that_are_spoken_of_have_answered_and_keep_for_it() {
    let mut new = seeking();
    assert!(new.presence(at(0)).is_some(), "it says at once that it is there");
    assert!(new.donors(at(0)).is_empty());
    new.heard(&said(1, &[2], 5), at(10));
    assert!(new.donors(at(20)).is_empty(), "node 2 was not heard, and nobody keeps for it");
    new.heard(&said(1, &[2, 9], 5), at(30));
    assert!(new.donors(at(40)).is_empty(), "node 2 may have more");
    new.heard(&said(2, &[1], 7), at(50));
    assert!(new.donors(at(60)).is_empty(), "node 2 does not keep for it yet");
    new.heard(&said(2, &[1, 9], 7), at(70));
    assert_eq!(new.donors(at(80)), [node(2), node(1)], "the one that has most comes first");
}

#[test]
fn it_does_not_wait_for_ever_for_those_that_are_gone() {
    let mut new = seeking();
    new.heard(&said(1, &[2, 9], 5), at(10));
    assert!(new.donors(at(40)).is_empty());
    assert_eq!(new.donors(at(70)), [node(1)], "node 2 has not answered");
    let mut new = seeking();
    new.heard(&said(1, &[9], 5), at(10));
    new.heard(&said(3, &[], 5), at(10));
    assert!(new.donors(at(900)).is_empty(), "node 3 does not keep for it");
    for second in 1..=10 {
        new.heard(&said(1, &[9], 5), at(second * 1000));
        new.heard(&said(3, &[], 5), at(second * 1000));
    }
    assert_eq!(new.donors(at(10_000)), [node(1)], "whoever is asked keeps for it in any case");
}

/// A small database is here before all others could answer: then who is there is asked as at any start, and READY waits for that.
#[test]
fn with_a_database_it_asks_once_more_unless_all_have_answered_or_had_the_time_for_it() {
    let begins_with = |heard: &[Bytes], millis| {
        let mut new = seeking();
        heard.iter().for_each(|frame| assert_eq!(new.heard(frame, at(10)), Heard::Other));
        new.into_inputs(true, at(millis))
    };
    let (one, other) = (said(1, &[2, 9], 5), said(2, &[1, 9], 7));
    let asks = |inputs: &[Input]| inputs.iter().all(|input| matches!(input, Input::Presence(_)));
    let early = begins_with(std::slice::from_ref(&one), 100);
    assert!(asks(&early) && early.len() == 1, "node 2 may have more: {early:?}");
    let late = begins_with(std::slice::from_ref(&one), 500);
    assert!(matches!(&late[..], [Input::Taken(frames)] if *frames == [one.clone()]), "node 2 had time: {late:?}");
    let all = begins_with(&[one.clone(), other.clone()], 100);
    assert!(matches!(&all[..], [Input::Taken(frames)] if *frames == [one.clone(), other]), "{all:?}");
    let mut new = seeking();
    new.heard(&one, at(10));
    assert!(asks(&new.into_inputs(false, at(500))), "a database of its own is no other node's");
    assert!(begins_with(std::slice::from_ref(&one), 60_000).is_empty(), "what was said a minute ago counts for nobody");
}

#[test]
fn it_answers_who_asks_and_tells_whom_it_will_keep_for() {
    let mut new = seeking();
    let read = |frame: Vec<u8>| match wire::decode(&frame) {
        Ok(Message::Presence(presence)) => presence,
        other => panic!("{other:?}"),
    };
    assert!(read(new.presence(at(0)).unwrap()).ask);
    assert!(new.presence(at(1)).is_none());
    assert_eq!(new.heard(&said(1, &[9], 5), at(2)), Heard::Other);
    let told = read(new.presence(at(3)).expect("a new one should hear at once that it is kept for"));
    assert_eq!((told.members, told.vector, told.ready), (vec![node(1)], Vector::default(), false));
    assert!(new.presence(at(4)).is_none());
    assert!(new.presence(at(1003)).is_some());
    assert_eq!(new.heard(&said(9, &[], 0), at(5)), Heard::Nothing, "its own words");
    let mut twin = Seeking::new(node(9), Uuid::from_u128(10), "new", "s".into(), Duration::from_secs(1), at(0));
    assert_eq!(twin.heard(&Bytes::from(new.presence(at(3000)).unwrap()), at(0)), Heard::Twin);
    assert_eq!(twin.heard(&Bytes::from_static(b"garbage"), at(0)), Heard::Nothing);
}

fn offer(bytes: u64) -> Offer {
    Offer { copy: Uuid::from_u128(1), bytes, vector: Vector::default() }
}

#[test]
fn sizes_that_no_database_has_are_refused() {
    for bytes in [0, 1, 511, 513, 4096 + 1, u64::MAX, u64::MAX - 511, 1 << 49] {
        assert!(offer(bytes).check().is_err(), "{bytes}");
    }
    for bytes in [512, 4096, 1 << 30, 1 << 48] {
        offer(bytes).check().unwrap();
    }
}

#[test]
fn every_chunk_has_one_place_and_one_length() {
    let offer = offer(2 * CHUNK + 512);
    assert_eq!(offer.chunks(), 3);
    assert_eq!(offer.place(0), Some((0, limits::WHOLE_CHUNK_BYTES)));
    assert_eq!(offer.place(2), Some((2 * CHUNK, 512)));
    assert_eq!(offer.place(3), None);
    assert_eq!(offer.place(u64::MAX), None, "nothing overflows");
    let chunk = |at, length| Chunk::pack(Uuid::from_u128(1), at, &vec![7; length]).unwrap();
    assert_eq!(offer.unpack(&chunk(2, 512), 2), Ok((2 * CHUNK, vec![7; 512])));
    for (wrong, asked) in [
        (chunk(2, 511), 2),
        (chunk(2, 513), 2),
        (chunk(1, 512), 2),
        (chunk(3, 0), 3),
        (Chunk { copy: Uuid::from_u128(2), ..chunk(2, 512) }, 2),
        (Chunk { packed: b"no zstd".to_vec(), ..chunk(2, 512) }, 2),
        // What would unpack to 128 MiB.
        (Chunk { packed: zstd::bulk::compress(&vec![0; 1 << 27], 19).unwrap(), ..chunk(2, 512) }, 2),
    ] {
        offer.unpack(&wrong, asked).unwrap_err();
    }
}

#[test]
fn a_chunk_travels_as_it_is_and_one_that_is_too_long_is_refused() {
    let message = |length| {
        let packed = (0..length).map(|at: usize| u8::try_from(at % 251).unwrap()).collect();
        Message::Whole(Whole::Chunk(Chunk { copy: Uuid::from_u128(1), at: 3, packed }))
    };
    for length in [0, 1, 4096, PACKED_MAX] {
        assert_eq!(wire::decode(&wire::encode(&message(length))).unwrap(), message(length));
    }
    wire::decode(&wire::encode(&message(PACKED_MAX + 1))).unwrap_err();
    let mut noise = vec![0_u8; limits::WHOLE_CHUNK_BYTES];
    let mut state = 1_u64;
    noise.fill_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    let packed = Chunk::pack(Uuid::from_u128(1), 0, &noise).unwrap();
    assert!(packed.packed.len() <= PACKED_MAX, "what cannot be compressed fits, too");
}

#[test]
fn the_hash_is_over_every_chunk_and_their_order() {
    let [a, b] = [hash_of(b"a"), hash_of(b"b")];
    assert_ne!(hash_over(&[a, b]), hash_over(&[b, a]));
    assert_ne!(hash_over(&[a]), hash_over(&[a, b]));
    assert_ne!(hash_over(&[a]), a);
}
