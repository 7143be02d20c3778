//! The schema TOML: what of a service is replicated, and how. The developer ships it, the same on every node.
//!
//! It is read whole ([`Declaration::parse`]), checked against the real database ([`Declaration::check`]), and written
//! for an existing database ([`mod@describe`]). Where a node runs and whom it talks to is the operator's node config, which
//! is not here. The reference of every key is `docs/schema-toml.md`.

mod check;
mod describe;
mod history;
mod migrations;
mod parse;
mod problem;
mod references;
mod words;

pub use check::{Finding, Severity};
pub use describe::{Description, describe};
pub use history::History;
pub use problem::{Problem, Problems};
pub use words::{Capture, Conflict, Triggers};

use serde::Serialize;

use crate::event_table;
use crate::layout::Fnv;
use crate::table::Table;

/// The most characters a service's name may have.
pub const SERVICE_LENGTH_MAX: usize = 64;

/// The whole schema TOML of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Declaration {
    /// The service's name, a part of every subject: ASCII letters, digits, `-` and `_`.
    pub service: String,
    /// The declared tables in the order of the file, disabled ones included.
    pub tables: Vec<TableDeclaration>,
}

/// One declared table, with the defaults already filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableDeclaration {
    /// The name as the file spells it; the database may use other ASCII case.
    pub name: String,
    /// Whether the table is replicated. Off is the same as not declared, only visible.
    pub enabled: bool,
    /// Where this node learns of local changes.
    pub capture: Capture,
    /// Who wins when two nodes change one record.
    pub conflict: Conflict,
    /// How long superseded events are kept.
    pub history: History,
    /// Whether the service's triggers run for rows that come from other nodes.
    pub triggers: Triggers,
    /// Columns that stay on their node, as the file spells them.
    pub exclude: Vec<String>,
    /// The line of the file that declares the table, from 1.
    pub line: usize,
}

impl TableDeclaration {
    /// As a section without a key declares it; of no line.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            enabled: true,
            capture: Capture::default(),
            conflict: Conflict::default(),
            history: History::default(),
            triggers: Triggers::default(),
            exclude: Vec::new(),
            line: 0,
        }
    }
}

impl Declaration {
    /// The tables to replicate, in the order of the file.
    pub fn enabled(&self) -> impl Iterator<Item = &TableDeclaration> {
        self.tables.iter().filter(|table| table.enabled)
    }

    /// The declaration of a table, disabled or not, by SQLite's rule: without regard to ASCII case.
    pub fn table(&self, name: &str) -> Option<&TableDeclaration> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// A number that is equal on two nodes when they replicate the same things by the same rules.
    ///
    /// It covers the service's name and, for each enabled table, its name, its conflict rule and its excluded columns.
    /// It leaves out `capture`, `triggers` and `history`, which each node keeps for itself and which may therefore be changed on
    /// one node after the other, and the order, case and comments of the file. It is the same in every version.
    pub fn hash(&self) -> u64 {
        let mut tables: Vec<_> = self.enabled().map(|table| (table.name.to_ascii_lowercase(), table)).collect();
        tables.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut hash = Fnv::new();
        hash_text(&mut hash, "rowcast schema 1");
        hash_text(&mut hash, &self.service);
        hash_number(&mut hash, tables.len());
        for (name, table) in tables {
            let mut exclude: Vec<_> = table.exclude.iter().map(|column| column.to_ascii_lowercase()).collect();
            exclude.sort();
            hash_text(&mut hash, &name);
            hash_text(&mut hash, table.conflict.word());
            hash_number(&mut hash, exclude.len());
            exclude.iter().for_each(|column| hash_text(&mut hash, column));
        }
        hash.finish()
    }
}

/// What is wrong with `name` as the name of a service; `None` when it is well.
///
/// It becomes one token of every subject, so it has no dots, spaces or wildcards.
pub fn service_fault(name: &str) -> Option<String> {
    let token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if let Some(other) = name.chars().find(|&c| !token(c)) {
        let other = if other == ' ' { "a space".to_owned() } else { format!("`{}`", other.escape_debug()) };
        Some(format!("has {other}; use ASCII letters, digits, `-` and `_`"))
    } else if name.len() > SERVICE_LENGTH_MAX {
        Some(format!("is {} characters long; use at most {SERVICE_LENGTH_MAX}", name.len()))
    } else {
        None
    }
}

/// Whether SQLite or Rowcast keeps this name for itself, and why.
fn reserved(name: &str) -> Option<&'static str> {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if begins("sqlite_") {
        Some("names that begin with `sqlite_` are SQLite's own")
    } else if begins(crate::OWN_PREFIX) {
        Some("names that begin with `_rowcast_` are Rowcast's own")
    } else {
        None
    }
}

/// Whether `name` is what the event table of `table` is called.
fn is_event_table_of(name: &str, table: &str) -> bool {
    event_table::name(table).eq_ignore_ascii_case(name)
}

/// Whether Rowcast made this table for events. The columns tell: a name alone could be the service's.
fn is_event_table(table: &Table) -> bool {
    let suffix = event_table::name("").to_ascii_lowercase();
    table.name.to_ascii_lowercase().ends_with(&suffix)
        && event_table::REQUIRED_COLUMNS.iter().all(|column| table.column(column).is_some())
}

/// The one of `known` that `word` was likely meant to be.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LENGTH_MAX: usize = 128; // The distance takes time in the product of the lengths.
    let word = word.to_lowercase();
    let length = word.chars().count();
    let distance = |other: &str| strsim::osa_distance(&word, &other.to_lowercase());
    known
        .into_iter()
        .filter(|other| length.max(other.chars().count()) <= LENGTH_MAX)
        .map(|other| (distance(other), other))
        .filter(|&(distance, other)| distance <= (length.min(other.chars().count()) / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, other)| other)
}

/// `, did you mean …`, or nothing.
fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|other| format!("; did you mean `{}`?", shown(other))).unwrap_or_default()
}

/// A name or text of the outside, fit for a message: on one line, and cut when long.
fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 100;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => one_line(&text[..end]) + "…",
        None => one_line(text),
    }
}

/// `text` with everything escaped that would break its line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if breaks_a_line(character) {
            line.extend(character.escape_debug());
        } else {
            line.push(character);
        }
    }
    line
}

fn breaks_a_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// `name` as a TOML key: bare where TOML allows it, else a quoted one.
fn toml_key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { toml_string(name) }
}

/// `text` as a basic TOML string.
fn toml_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if breaks_a_line(character) => quoted.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Adds a text with its length, so that no two lists of texts look alike.
fn hash_text(hash: &mut Fnv, text: &str) {
    hash_number(hash, text.len());
    hash.write(text.as_bytes());
}

fn hash_number(hash: &mut Fnv, number: usize) {
    hash.write(&(number as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../docs/schema-toml.md");

    fn parsed(text: &str) -> Declaration {
        Declaration::parse("schema.toml", text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }

    #[test]
    fn fnv_gives_the_published_numbers() {
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            let mut fnv = Fnv::new();
            fnv.write(text.as_bytes());
            assert_eq!(fnv.finish(), hash, "{text}");
        }
    }

    #[test]
    fn the_hash_covers_what_must_be_the_same_on_all_nodes_and_nothing_else() {
        let base = "service = 'music'\n[tables.Track]\nexclude = ['a', 'b']\n[tables.Album]";
        let hash = |text: &str| parsed(text).hash();
        // Other nodes may run an older version: this number never changes.
        assert_eq!(hash(base), 0x8edb_c466_0ccb_a8a9);
        for same in [
            "[tables.Album]\n[tables.track]\nexclude = ['B', 'a']",
            "# words\n[tables.Track]\nhistory = '1h'\ncapture = 'events'\nexclude = ['a', 'b']\n[tables.Album]",
            "[tables.Off]\nenabled = false\n[tables.Track]\nexclude = ['a', 'b']\n[tables.Album]",
        ] {
            assert_eq!(hash(&format!("service = 'music'\n{same}")), hash(base), "{same}");
        }
        for other in [
            "service = 'sound'\n[tables.Track]\nexclude = ['a', 'b']\n[tables.Album]",
            "service = 'music'\n[tables.Track]\nexclude = ['a', 'c']\n[tables.Album]",
            "service = 'music'\n[tables.Track]\nexclude = ['ab']\n[tables.Album]",
            "service = 'music'\n[tables.Track]\n[tables.Album]\nexclude = ['a', 'b']",
            "service = 'music'\n[tables.Track]\nexclude = ['a', 'b']\n[tables.Album]\nenabled = false",
        ] {
            assert_ne!(hash(other), hash(base), "{other}");
        }
    }

    #[test]
    fn a_table_is_found_by_sqlites_case_rule() {
        let declaration = parsed("service = 'music'\n[tables.Track]\n[tables.Session]\nenabled = false");
        assert_eq!(declaration.table("TRACK").map(|table| table.line), Some(2));
        assert_eq!(declaration.table("Tracks"), None);
        assert_eq!(declaration.enabled().map(|table| &table.name).collect::<Vec<_>>(), ["Track"]);
    }

    #[test]
    fn a_status_page_shows_words() {
        let declaration = parsed("service = 'music'\n[tables.Track]\nexclude = ['note']");
        insta::assert_snapshot!(serde_json::to_string_pretty(&declaration).expect("plain data"));
    }

    #[test]
    fn every_key_and_word_is_in_the_reference() {
        let words = Capture::WORDS.iter().map(|(word, _)| *word);
        let words = words
            .chain(Conflict::WORDS.iter().map(|(word, _)| *word))
            .chain(history::WORDS.iter().map(|(word, _)| *word));
        for name in parse::FILE_KEYS.iter().chain(parse::DEFAULTS_KEYS).chain(parse::TABLE_KEYS).copied().chain(words) {
            let named = [format!("`{name}`"), format!("`\"{name}\"`"), format!("`[{name}]`"), format!("`[{name}.")];
            assert!(named.iter().any(|form| REFERENCE.contains(form.as_str())), "docs/schema-toml.md lacks `{name}`");
        }
        assert!(REFERENCE.contains(&SERVICE_LENGTH_MAX.to_string()));
    }

    #[test]
    fn the_examples_of_the_reference_are_declarations() {
        let examples: Vec<_> = REFERENCE.split("```toml\n").skip(1).collect();
        assert!(!examples.is_empty());
        for example in examples {
            parsed(example.split("```").next().expect("an end"));
        }
    }

    #[test]
    fn the_reference_tells_the_defaults_of_the_code() {
        let declaration = parsed("service = 'music'\n[tables.Track]");
        let table = &declaration.tables[0];
        for (key, default) in [
            (parse::ENABLED, table.enabled.to_string()),
            (parse::CAPTURE, format!("\"{}\"", table.capture.word())),
            (parse::CONFLICT, format!("\"{}\"", table.conflict.word())),
            (parse::HISTORY, format!("\"{}\"", table.history)),
        ] {
            let row = format!("| `{key}` | `{default}` |");
            assert!(REFERENCE.contains(&row), "docs/schema-toml.md lacks {row}");
        }
    }
}
