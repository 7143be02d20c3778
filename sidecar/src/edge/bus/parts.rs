//! Messages larger than the server takes: cut by bytes, and put together again.
//!
//! A part is `RP`, a number that all parts of a message share, its place and their count, and the bytes. Parts of one
//! sender come in order; when one is lost, the message is dropped, and what it carried is fetched again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::limits;

const MAGIC: [u8; 2] = *b"RP";
const HEADER: usize = 2 + 8 + 4 + 4;

/// Room for what the server counts besides the payload.
const MARGIN: usize = 512;

/// Messages that may be incomplete at the same time.
const INCOMPLETE_MAX: usize = 16;

/// The message as it is, or in parts of at most `max_payload`.
pub(super) fn split(message: Bytes, max_payload: usize) -> Vec<Bytes> {
    // Before the first connection the limit is not known: the least that a server is run with.
    let limit = if max_payload == 0 { 64 * 1024 } else { max_payload.saturating_sub(MARGIN).max(HEADER + 1024) };
    if message.len() <= limit {
        return vec![message];
    }
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let count = message.len().div_ceil(limit - HEADER);
    let part = |(at, bytes): (usize, &[u8])| {
        let mut part = Vec::with_capacity(HEADER + bytes.len());
        part.extend_from_slice(&MAGIC);
        part.extend_from_slice(&number.to_le_bytes());
        part.extend_from_slice(&u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes());
        part.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        part.extend_from_slice(bytes);
        Bytes::from(part)
    };
    message.chunks(limit - HEADER).enumerate().map(part).collect()
}

/// Why a part was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Error {
    /// Its header is cut short or says what cannot be.
    #[error("its header does not make sense")]
    Header,
    /// A part before it was lost.
    #[error("a part before it was lost")]
    OutOfOrder,
    /// More incomplete messages than fit.
    #[error("more parts than fit wait for their messages")]
    TooMuch,
}

/// Puts parts together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    incomplete: HashMap<(String, u64), Incomplete>,
    bytes: usize,
    /// Parts that came so far.
    parts: u64,
}

#[derive(Debug)]
struct Incomplete {
    next: u32,
    count: u32,
    bytes: Vec<u8>,
    /// Which part its last one was.
    touched: u64,
}

impl Assembler {
    /// Takes a message or a part of one. Answers the message when it is whole.
    pub(super) fn take(&mut self, subject: &str, payload: Bytes) -> Result<Option<Bytes>, Error> {
        if payload.get(..2) != Some(&MAGIC[..]) {
            return Ok(Some(payload));
        }
        let Some((header, bytes)) = payload.split_at_checked(HEADER) else { return Err(Error::Header) };
        let word = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
        let number = header[2..10].try_into().map(u64::from_le_bytes).unwrap_or(0);
        let (at, count) = (word(10), word(14));
        if count < 2 || count <= at {
            return Err(Error::Header);
        }
        let key = (subject.to_owned(), number);
        if at == 0 {
            // A new message of this subject: what was begun before it on the subject will not be finished.
            self.forget(|other| other.0 == subject);
            if INCOMPLETE_MAX <= self.incomplete.len() {
                self.forget_oldest(&key);
            }
            self.incomplete.insert(key.clone(), Incomplete { next: 0, count, bytes: Vec::new(), touched: 0 });
        }
        let Some(message) = self.incomplete.get_mut(&key) else { return Err(Error::OutOfOrder) };
        if message.next != at || message.count != count {
            self.forget(|other| *other == key);
            return Err(Error::OutOfOrder);
        }
        while limits::PARTS_BYTES_MAX < self.bytes + bytes.len() {
            if !self.forget_oldest(&key) {
                self.forget(|other| *other == key);
                return Err(Error::TooMuch);
            }
        }
        let Some(message) = self.incomplete.get_mut(&key) else { return Err(Error::OutOfOrder) };
        self.parts += 1;
        message.touched = self.parts;
        message.next += 1;
        message.bytes.extend_from_slice(bytes);
        self.bytes += bytes.len();
        if message.next < count {
            return Ok(None);
        }
        let whole = self.incomplete.remove(&key).map(|message| message.bytes).unwrap_or_default();
        self.bytes -= whole.len();
        Ok(Some(Bytes::from(whole)))
    }

    /// What has waited longest goes: its sender may be gone for good, and must not be in the way of others. Answers whether there was
    /// anything but `spared`.
    fn forget_oldest(&mut self, spared: &(String, u64)) -> bool {
        let others = self.incomplete.iter().filter(|(key, _)| *key != spared);
        let Some(oldest) = others.min_by_key(|(_, message)| message.touched).map(|(key, _)| key.clone()) else {
            return false;
        };
        self.forget(|key| *key == oldest);
        true
    }

    fn forget(&mut self, which: impl Fn(&(String, u64)) -> bool) {
        let bytes = &mut self.bytes;
        self.incomplete.retain(|key, message| {
            let keep = !which(key);
            if !keep {
                *bytes -= message.bytes.len();
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_comes_out_as_it_went_in(length in 0..200_000_usize, limit in 2_000..70_000_usize) {
            let message: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut assembler = Assembler::default();
            let parts = split(Bytes::from(message.clone()), limit);
            prop_assert!(parts.iter().all(|part| part.len() <= limit));
            let last = parts.len() - 1;
            for (at, part) in parts.into_iter().enumerate() {
                let whole = assembler.take("s", part).unwrap();
                prop_assert_eq!(whole.is_some(), at == last);
                if let Some(whole) = whole {
                    prop_assert_eq!(&whole[..], &message[..]);
                }
            }
            prop_assert_eq!(assembler.bytes, 0);
        }

        #[test]
        fn no_bytes_make_it_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut assembler = Assembler::default();
            for mut part in parts {
                part.splice(0..0, MAGIC);
                drop(assembler.take("s", Bytes::from(part)));
            }
        }
    }

    #[test]
    fn a_lost_part_drops_its_message_only() {
        let message = Bytes::from(vec![7; 10_000]);
        let mut assembler = Assembler::default();
        let mut parts = split(message.clone(), 4_000);
        parts.remove(1);
        assert_eq!(assembler.take("s", parts[0].clone()), Ok(None));
        assert_eq!(assembler.take("s", parts[1].clone()), Err(Error::OutOfOrder));
        let whole = split(message.clone(), 4_000).into_iter().filter_map(|part| assembler.take("s", part).unwrap());
        assert_eq!(whole.last(), Some(message));
    }

    #[test]
    fn what_is_never_finished_is_in_nobodys_way() {
        let message = Bytes::from(vec![7; 10_000]);
        let mut assembler = Assembler::default();
        let begun = split(message.clone(), 4_000);
        for gone in 0..INCOMPLETE_MAX {
            assert_eq!(assembler.take(&format!("gone {gone}"), begun[0].clone()), Ok(None));
        }
        let whole = split(message.clone(), 4_000).into_iter().filter_map(|part| assembler.take("s", part).unwrap());
        assert_eq!(whole.last(), Some(message));
        assert_eq!(
            assembler.take("gone 0", begun[1].clone()),
            Err(Error::OutOfOrder),
            "the one that waited longest went"
        );
        assert_eq!(assembler.take("gone 1", begun[1].clone()), Ok(None));
        // Room in bytes, too: each of them holds a part of what all may.
        let large = Bytes::from(vec![7; limits::PARTS_BYTES_MAX / 4]);
        let mut parts = split(large, limits::PARTS_BYTES_MAX / 8);
        parts.truncate(2);
        for subject in 0..8 {
            let taken = parts.iter().map(|part| assembler.take(&format!("large {subject}"), part.clone()));
            assert!(taken.collect::<Result<Vec<_>, _>>().is_ok());
            assert!(assembler.bytes <= limits::PARTS_BYTES_MAX);
        }
    }
}
