//! How long superseded events are kept: the setting `history`. What is done with it is compaction's.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The words that are not a time.
pub(super) const WORDS: [(&str, History); 2] = [("latest", History::Latest), ("forever", History::Forever)];

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Letter and length in seconds, the greatest first.
const UNITS: [(char, u64); 4] = [('d', DAY_SECONDS), ('h', 60 * 60), ('m', 60), ('s', 1)];
/// A hundred years: no sum of a time of day and a history overflows.
const SECONDS_MAX: u64 = 36_500 * DAY_SECONDS;

/// How long events are kept that no longer hold a record's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum History {
    /// Only as long as other nodes need them: each record keeps its latest content.
    Latest,
    /// For this long, then as `Latest`. Whole seconds, at least one, at most a hundred years.
    For(Duration),
    /// Never removed.
    Forever,
}

impl Default for History {
    fn default() -> Self {
        Self::For(Duration::from_secs(30 * DAY_SECONDS))
    }
}

/// A text that is no [`History`]; the message says what one is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither a word nor a number with a unit.
    #[error("must be `latest`, `forever` or a time such as `30d`, `12h`, `90m` or `45s`")]
    Unknown,
    /// No time at all.
    #[error("is no time at all; to keep only each record's latest content write `latest`")]
    Zero,
    /// More than a hundred years.
    #[error("is more than a hundred years; to keep everything write `forever`")]
    Long,
}

impl FromStr for History {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((_, history)) = WORDS.into_iter().find(|(word, _)| *word == text) {
            return Ok(history);
        }
        let (letter, unit) = UNITS.into_iter().find(|(letter, _)| text.ends_with(*letter)).ok_or(Error::Unknown)?;
        let digits = text.strip_suffix(letter).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::Unknown);
        }
        // Only digits, so what does not parse is too great.
        let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or(Error::Long)?;
        match seconds {
            0 => Err(Error::Zero),
            1..=SECONDS_MAX => Ok(Self::For(Duration::from_secs(seconds))),
            _ => Err(Error::Long),
        }
    }
}

/// The form that the schema TOML has, in the greatest unit that fits.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Forever => f.write_str("forever"),
            Self::For(time) => {
                let seconds = time.as_secs();
                let (letter, unit) =
                    UNITS.into_iter().find(|(_, unit)| seconds.is_multiple_of(*unit)).unwrap_or(('s', 1));
                write!(f, "{}{letter}", seconds / unit)
            }
        }
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_reads_back_in_the_greatest_unit() {
        for (text, shown) in [
            ("30d", "30d"),
            ("48h", "2d"),
            ("90m", "90m"),
            ("60s", "1m"),
            ("45s", "45s"),
            ("007s", "7s"),
            ("36500d", "36500d"),
            ("latest", "latest"),
            ("forever", "forever"),
        ] {
            assert_eq!(text.parse::<History>().map(|history| history.to_string()).as_deref(), Ok(shown));
        }
        assert_eq!("30d".parse(), Ok(History::default()));
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_reason() {
        use Error::{Long, Unknown, Zero};
        for (text, error) in [
            ("", Unknown),
            ("d", Unknown),
            ("30", Unknown),
            ("-1d", Unknown),
            ("+1d", Unknown),
            ("1.5d", Unknown),
            ("1d 2h", Unknown),
            ("30 d", Unknown),
            ("30D", Unknown),
            ("Forever", Unknown),
            ("0d", Zero),
            ("36501d", Long),
            ("99999999999999999999s", Long),
            ("18446744073709551615d", Long),
        ] {
            assert_eq!(text.parse::<History>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_back(seconds in 1..=SECONDS_MAX) {
            let history = History::For(Duration::from_secs(seconds));
            prop_assert_eq!(history.to_string().parse(), Ok(history));
        }
    }
}
