//! What travels between sidecars: encoding, and the checks of everything that arrives, before anything believes it.
//!
//! A frame is `RC`, a version, flags, the CRC-32 of all that follows, and the body: a [`Message`] in postcard, behind
//! its length when it is compressed with zstd. What people want to see with `nats sub` (state, requests, change events)
//! is JSON instead.
//!
//! Limits: a frame that says it is larger than [`limits::MESSAGE_BYTES_MAX`] is refused before memory is taken for it, and so
//! is one whose content would take more than [`limits::DECODED_BYTES_MAX`].

mod metered;

use std::cell::RefCell;

use rowcast_schema::layout::Layout;
use serde::{Deserialize, Serialize};

use self::metered::Refused;
use crate::bootstrap::whole::Whole;
use crate::edge::store::{Answer, Definitions, SnapshotPage};
use crate::event::{Fingerprint, Piece};
use crate::limits;
use crate::members::Presence;
use crate::position::NodeId;
use crate::steady::digest::Compared;

/// The version of the protocol. A sidecar takes messages of its own version only, and says so when it meets another.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 2] = *b"RC";
const HEADER: usize = 8;
const COMPRESSED: u8 = 1;

/// Everything that is sent in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Groups of one origin, or pieces of them: the live feed.
    Feed(Feed),
    /// What a node says of itself.
    Presence(Presence),
    /// What was asked with a fetch.
    Fetched(Answer),
    /// What was asked with a snapshot request.
    Snapshot(SnapshotPage),
    /// What was asked with a request for the definitions.
    Definitions(Definitions),
    /// The request was understood and cannot be served.
    Refused(String),
    /// What was asked with a digest, or with the names of records.
    Compared(Compared),
    /// What was asked of a whole database.
    Whole(Whole),
}

/// Consecutive pieces of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Who made the events. The subject says the same.
    pub origin: NodeId,
    /// The pieces, in sequence order.
    pub pieces: Vec<Piece>,
    /// The layouts that the events refer to.
    pub layouts: Vec<Layout>,
    /// The fingerprint of the event before the first one: what the receiver should have there.
    pub before: Option<Fingerprint>,
}

/// Why a frame was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It does not begin as a frame does.
    #[error("it is not a Rowcast message")]
    NotOurs,
    /// Another version of the protocol.
    #[error(
        "it speaks version {0} of the protocol, and this sidecar speaks version {VERSION}: upgrade the older of the two"
    )]
    Version(u8),
    /// Larger than anything we send.
    #[error("it has {0} bytes, more than a message may have, or takes more memory than one may")]
    TooLarge(usize),
    /// The checksum does not fit.
    #[error("its checksum is wrong: it was damaged on its way")]
    Damaged,
    /// The body does not read.
    #[error("its body does not read: {0}")]
    Body(String),
}

/// The frame of a message.
pub fn encode(message: &Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(512);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0]);
    frame = postcard::to_extend(message, frame).expect("bug: a message has a postcard form");
    let body = frame.len() - HEADER;
    // A part of a database is compressed in its own way.
    if limits::COMPRESS_BYTES_MIN <= body && !matches!(message, Message::Whole(_)) {
        compress(&mut frame);
    }
    let checksum = crc32fast::hash(&frame[HEADER..]);
    frame[4..HEADER].copy_from_slice(&checksum.to_le_bytes());
    frame
}

thread_local! {
    /// Making ready to compress costs as much as compressing a hundred rows does. Level 1: measured, it gives nearly all the
    /// gain for a third of the time.
    static PACKER: RefCell<Option<zstd::bulk::Compressor<'static>>> = RefCell::new(zstd::bulk::Compressor::new(1).ok());
}

/// Replaces the body by its length and its compressed form, where that is shorter.
fn compress(frame: &mut Vec<u8>) {
    let Some(packed) = PACKER.with_borrow_mut(|packer| packer.as_mut()?.compress(&frame[HEADER..]).ok()) else {
        return;
    };
    let length = frame.len() - HEADER;
    if packed.len() + 4 < length {
        frame.truncate(HEADER);
        frame[3] = COMPRESSED;
        frame.extend_from_slice(&u32::try_from(length).expect("bug: a message beyond 4 GiB").to_le_bytes());
        frame.extend_from_slice(&packed);
    }
}

/// The message in a frame.
///
/// # Errors
/// When the frame is not one, is too large, damaged, or of another version. It never panics, whatever the bytes.
pub fn decode(frame: &[u8]) -> Result<Message, Error> {
    let Some((header, body)) = frame.split_at_checked(HEADER) else { return Err(Error::NotOurs) };
    if header[..2] != MAGIC {
        return Err(Error::NotOurs);
    }
    if header[2] != VERSION {
        return Err(Error::Version(header[2]));
    }
    if limits::MESSAGE_BYTES_MAX < body.len() {
        return Err(Error::TooLarge(body.len()));
    }
    let checksum = [header[4], header[5], header[6], header[7]];
    if crc32fast::hash(body) != u32::from_le_bytes(checksum) {
        return Err(Error::Damaged);
    }
    match header[3] {
        0 => read(body),
        COMPRESSED => read(&unpack(body)?),
        flags => Err(Error::Body(format!("unknown flags {flags}"))),
    }
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, Error> {
    let Some((length, packed)) = body.split_first_chunk::<4>() else { return Err(Error::Damaged) };
    let length = u32::from_le_bytes(*length) as usize;
    if limits::MESSAGE_BYTES_MAX < length {
        return Err(Error::TooLarge(length));
    }
    // Memory is taken as the data comes, not as the length promises: a bomb ends at the limit, a lie costs nothing.
    let mut unpacked = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|error| Error::Body(error.to_string()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, length as u64 + 1), &mut unpacked)
        .map_err(|error| Error::Body(error.to_string()))?;
    if unpacked.len() == length { Ok(unpacked) } else { Err(Error::Body("its length is not what it says".into())) }
}

fn read(body: &[u8]) -> Result<Message, Error> {
    metered::read(body).map_err(|refused| match refused {
        Refused::TooLarge => Error::TooLarge(body.len()),
        Refused::Unreadable(reason) => Error::Body(reason),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rowcast_schema::layout::LayoutId;
    use uuid::Uuid;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::{Event, Operation};

    fn feed(rows: usize) -> Message {
        let origin = NodeId(Uuid::from_u128(1));
        let layout = Layout::new("t".into(), vec!["id".into(), "name".into()], vec![0]);
        let event = |at: usize| Event {
            table: "t".into(),
            operation: Operation::Create,
            record_id: at.to_string(),
            data: Some(format!(r#"{{"id":{at},"name":"a name"}}"#)),
            timestamp: Timestamp(7),
            layout: LayoutId(layout.id.0),
            changed: -1,
        };
        let context = [(NodeId(Uuid::from_u128(2)), 9)].into_iter().collect();
        let events = (0..rows).map(event).collect();
        let piece = Piece { first: 5, group_last: 4 + rows as u64, context, events };
        Message::Feed(Feed { origin, pieces: vec![piece], layouts: vec![layout], before: None })
    }

    #[test]
    fn the_bytes_of_a_frame_do_not_change_by_accident() {
        let hex: String = encode(&feed(1)).iter().map(|byte| format!("{byte:02x}")).collect();
        insta::assert_snapshot!(hex);
    }

    #[test]
    fn messages_read_back_small_and_compressed() {
        for rows in [1, 300] {
            let frame = encode(&feed(rows));
            assert_eq!(frame[3] == COMPRESSED, rows == 300);
            assert_eq!(decode(&frame).unwrap(), feed(rows));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for frame in [encode(&feed(1)), encode(&feed(60))] {
            for bit in 0..frame.len() * 8 {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                decode(&flipped).unwrap_err();
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_takes_memory() {
        let zeros = zstd::bulk::compress(&vec![0_u8; 64 << 20], 19).unwrap();
        for promised in [u32::MAX, 1 << 20] {
            let mut frame = vec![b'R', b'C', VERSION, COMPRESSED, 0, 0, 0, 0];
            frame.extend_from_slice(&promised.to_le_bytes());
            frame.extend_from_slice(&zeros);
            let checksum = crc32fast::hash(&frame[HEADER..]);
            frame[4..HEADER].copy_from_slice(&checksum.to_le_bytes());
            assert!(matches!(decode(&frame), Err(Error::TooLarge(_) | Error::Body(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn no_bytes_make_the_reader_panic(body in prop::collection::vec(any::<u8>(), 0..200), flags in 0..3_u8) {
            let mut frame = vec![b'R', b'C', VERSION, flags];
            frame.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
            frame.extend_from_slice(&body);
            drop(decode(&frame));
            drop(decode(&body));
        }
    }
}
