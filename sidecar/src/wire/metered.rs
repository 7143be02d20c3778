//! Reads postcard and keeps account of the memory that what is read will take, so that a small message cannot become a
//! large one: a list of a million empty things is a million bytes on the wire and many times that in memory.

use serde::Deserialize;

use crate::limits;

/// What one byte of a number, a length or a tag can become at most: an empty text in a list, whose capacity may be twice
/// what is in it.
const BYTES_PER_TAG: usize = 48;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It would take more memory than a message may.
    TooLarge,
    /// It does not read.
    Unreadable(String),
}

/// The value in `body`, all of it.
pub(super) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Refused> {
    let reader = Metered { rest: body, left: limits::DECODED_BYTES_MAX, spent: false };
    let mut reader = postcard::Deserializer::from_flavor(reader);
    let value = T::deserialize(&mut reader);
    // How it ended is known only now: an error of postcard says nothing of it.
    let rest = reader.finalize();
    match (value, rest) {
        (_, Ok((_, true))) => Err(Refused::TooLarge),
        (Err(error), _) => Err(Refused::Unreadable(error.to_string())),
        (Ok(value), Ok(([], _))) => Ok(value),
        (Ok(_), _) => Err(Refused::Unreadable("something follows its end".into())),
    }
}

struct Metered<'de> {
    rest: &'de [u8],
    left: usize,
    spent: bool,
}

impl<'de> Metered<'de> {
    fn take(&mut self, count: usize, price: usize) -> postcard::Result<&'de [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(postcard::Error::DeserializeUnexpectedEnd);
        };
        let Some(left) = self.left.checked_sub(price) else {
            self.spent = true;
            return Err(postcard::Error::SerdeDeCustom);
        };
        (self.rest, self.left) = (rest, left);
        Ok(taken)
    }
}

impl<'de> postcard::de_flavors::Flavor<'de> for Metered<'de> {
    type Remainder = (&'de [u8], bool);
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        self.take(1, BYTES_PER_TAG).map(|byte| byte[0])
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        self.take(count, count)
    }

    fn finalize(self) -> postcard::Result<Self::Remainder> {
        Ok((self.rest, self.spent))
    }
}
