//! The settings of a table that are one of a few words. Each word stands in one place: here.

use serde::{Serialize, Serializer};

/// Where a node learns of the changes that its own service makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Capture {
    /// Triggers copy each change into the journal, in the service's own transaction. Nothing can be lost.
    #[default]
    Triggers,
    /// The service announces each change on the bus after its commit.
    Events,
}

/// Who wins when two nodes change one record and neither knew of the other.
///
/// A new rule is added here: a variant, and its place in `Conflict::WORDS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// The event with the greater (timestamp, origin) is the record's content.
    #[default]
    LastWriteWins,
}

/// Whether the service's own triggers run for rows that come from other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Triggers {
    /// They do not: what they write to replicated tables arrives by itself.
    #[default]
    Skip,
    /// They do: they keep what is derived from the table on this node, such as a full-text index.
    Run,
}

/// The words of a setting. `None` stands for a word that is kept for a later version.
pub(super) type Words<T> = &'static [(&'static str, Option<T>)];

impl Capture {
    pub(super) const WORDS: Words<Self> = &[("triggers", Some(Self::Triggers)), ("events", Some(Self::Events))];

    /// The word in the schema TOML.
    pub fn word(self) -> &'static str {
        word_of(self, Self::WORDS)
    }
}

impl Triggers {
    pub(super) const WORDS: Words<Self> = &[("skip", Some(Self::Skip)), ("run", Some(Self::Run))];

    /// The word in the schema TOML.
    pub fn word(self) -> &'static str {
        word_of(self, Self::WORDS)
    }
}

impl Conflict {
    pub(super) const WORDS: Words<Self> =
        &[("last-write-wins", Some(Self::LastWriteWins)), ("merge", None), ("custom", None)];

    /// The word in the schema TOML.
    pub fn word(self) -> &'static str {
        word_of(self, Self::WORDS)
    }
}

fn word_of<T: Copy + PartialEq>(meaning: T, words: Words<T>) -> &'static str {
    words.iter().find(|(_, of)| *of == Some(meaning)).expect("bug: every setting has a word").0
}

impl Serialize for Capture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Serialize for Triggers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Serialize for Conflict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}
