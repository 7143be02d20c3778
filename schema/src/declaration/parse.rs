//! Reads the schema TOML. A file is refused with everything that is wrong with it, not with the first thing only; but
//! one that is not TOML is refused for that alone, since what its broken lines were meant to say is a guess.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Collector;
use super::words::Words;
use super::{Capture, Conflict, Declaration, History, Problems, TableDeclaration, Triggers};
use super::{is_event_table_of, reserved, service_fault, shown, suggestion, toml_key};

const SERVICE: &str = "service";
const DEFAULTS: &str = "defaults";
const TABLES: &str = "tables";
pub(super) const ENABLED: &str = "enabled";
pub(super) const CAPTURE: &str = "capture";
pub(super) const CONFLICT: &str = "conflict";
pub(super) const HISTORY: &str = "history";
const EXCLUDE: &str = "exclude";
const TRIGGERS: &str = "triggers";

/// The keys of the file.
pub(super) const FILE_KEYS: &[&str] = &[SERVICE, DEFAULTS, TABLES];
/// The keys of `[defaults]`.
pub(super) const DEFAULTS_KEYS: &[&str] = &[CAPTURE, CONFLICT, HISTORY];
/// The keys of `[tables.<Name>]`.
pub(super) const TABLE_KEYS: &[&str] = &[ENABLED, CAPTURE, CONFLICT, HISTORY, TRIGGERS, EXCLUDE];

impl Declaration {
    /// Reads a schema TOML. `file` is its name, for the messages.
    ///
    /// # Errors
    /// When the text is not TOML, or says what this version does not know: with every place and what to do there.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let mut problems = Collector::new(text);
        let (document, faults) = DeTable::parse_recoverable(text);
        if !faults.is_empty() {
            refuse_syntax(&faults, &mut problems);
            problems.finish(file)?;
        }
        let mut reader = Reader { problems };
        let declaration = reader.file(document.get_ref());
        reader.problems.finish(file)?;
        Ok(declaration)
    }
}

/// Of each line the first fault: those after it mostly follow from it.
fn refuse_syntax(faults: &[toml::de::Error], problems: &mut Collector<'_>) {
    let mut faults: Vec<_> =
        faults.iter().map(|fault| (fault.span().map_or(0, |span| span.start), fault.message())).collect();
    faults.sort_by_key(|(offset, _)| *offset);
    faults.dedup_by_key(|(offset, _)| problems.line(*offset));
    for (offset, message) in faults {
        problems.add(offset, String::new(), format!("not TOML: {}", shown(message)));
    }
}

/// What `[defaults]` and a table have in common.
#[derive(Clone, Copy, Default)]
struct Settings {
    capture: Capture,
    conflict: Conflict,
    history: History,
}

/// A key that this version knows, with its value.
struct Entry<'a> {
    name: &'a str,
    place: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

/// A table of the file whose unknown keys were already refused.
struct Section<'a> {
    path: String,
    entries: Vec<Entry<'a>>,
}

impl<'a> Section<'a> {
    fn get(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn path_of(&self, name: &str) -> String {
        path_of(&self.path, name)
    }
}

fn path_of(parent: &str, name: &str) -> String {
    let key = shown(&toml_key(name));
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

struct Reader<'t> {
    problems: Collector<'t>,
}

impl Reader<'_> {
    fn file(&mut self, document: &DeTable<'_>) -> Declaration {
        let file = self.section(String::new(), document, FILE_KEYS);
        let service = self.service(&file);
        let mut defaults = Settings::default();
        if let Some(entry) = file.get(DEFAULTS)
            && let Some(table) = self.table_value(&file, entry)
        {
            let section = self.section(DEFAULTS.to_owned(), table, DEFAULTS_KEYS);
            defaults = self.settings(&section, defaults);
        }
        let mut tables = Vec::new();
        if let Some(entry) = file.get(TABLES)
            && let Some(all) = self.table_value(&file, entry)
        {
            for entry in in_file_order(all) {
                self.table(&entry, defaults, &mut tables);
            }
        }
        self.refuse_event_tables(&tables);
        Declaration { service, tables: tables.into_iter().map(|(table, _)| table).collect() }
    }

    fn service(&mut self, file: &Section<'_>) -> String {
        let Some(entry) = file.get(SERVICE) else {
            let message = "missing; the file begins with the service's name, as in service = \"music\"";
            self.problems.add(0, SERVICE.to_owned(), message.to_owned());
            return String::new();
        };
        let Some(name) = self.text_value(file, entry) else { return String::new() };
        if let Some(fault) = service_fault(name) {
            self.refuse(file, entry, format!("\"{}\" {fault}", shown(name)));
        }
        name.to_owned()
    }

    /// Adds one declared table, with the place of its name.
    fn table(&mut self, entry: &Entry<'_>, defaults: Settings, tables: &mut Vec<(TableDeclaration, usize)>) {
        let Entry { name, place, value } = entry;
        let parent = Section { path: TABLES.to_owned(), entries: Vec::new() };
        if let Some(reason) = reserved(name) {
            self.refuse(&parent, entry, format!("{reason} and are never replicated; remove this table"));
        }
        let line = self.problems.line(place.start);
        if let Some((earlier, _)) = tables.iter().find(|(table, _)| table.name.eq_ignore_ascii_case(name)) {
            let message = format!(
                "already declared on line {} as `{}`; to SQLite they are one",
                earlier.line,
                shown(&earlier.name)
            );
            self.refuse(&parent, entry, message);
        }
        let DeValue::Table(keys) = value.get_ref() else {
            let message = format!("must be a table of settings, as in [{}]", parent.path_of(name));
            return self.refuse(&parent, entry, message);
        };
        let section = self.section(parent.path_of(name), keys, TABLE_KEYS);
        let Settings { capture, conflict, history } = self.settings(&section, defaults);
        let enabled = self.enabled(&section);
        let triggers = self.word(&section, TRIGGERS, Triggers::WORDS).unwrap_or_default();
        let exclude = self.exclude(&section);
        let name = (*name).to_owned();
        tables.push((
            TableDeclaration { name, enabled, capture, conflict, history, triggers, exclude, line },
            place.start,
        ));
    }

    fn settings(&mut self, section: &Section<'_>, defaults: Settings) -> Settings {
        Settings {
            capture: self.word(section, CAPTURE, Capture::WORDS).unwrap_or(defaults.capture),
            conflict: self.word(section, CONFLICT, Conflict::WORDS).unwrap_or(defaults.conflict),
            history: self.history(section).unwrap_or(defaults.history),
        }
    }

    fn word<T: Copy>(&mut self, section: &Section<'_>, key: &str, words: Words<T>) -> Option<T> {
        let entry = section.get(key)?;
        let text = self.text_value(section, entry)?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, Some(meaning))) => return Some(*meaning),
            Some((word, None)) => {
                let message = format!("\"{word}\" is for a later version; this one knows {}", usable(words));
                self.refuse(section, entry, message);
            }
            None => {
                let message = format!("\"{}\" is unknown; use {}", shown(text), usable(words));
                self.refuse(section, entry, message);
            }
        }
        None
    }

    fn history(&mut self, section: &Section<'_>) -> Option<History> {
        let entry = section.get(HISTORY)?;
        let text = self.text_value(section, entry)?;
        text.parse().map_err(|error| self.refuse(section, entry, format!("\"{}\" {error}", shown(text)))).ok()
    }

    fn enabled(&mut self, section: &Section<'_>) -> bool {
        let Some(entry) = section.get(ENABLED) else { return true };
        let DeValue::Boolean(enabled) = entry.value.get_ref() else {
            self.refuse(section, entry, format!("must be true or false, not {}", kind(entry.value)));
            return true;
        };
        *enabled
    }

    fn exclude(&mut self, section: &Section<'_>) -> Vec<String> {
        let Some(entry) = section.get(EXCLUDE) else { return Vec::new() };
        let DeValue::Array(items) = entry.value.get_ref() else {
            let message = format!("must be a list of column names, as in [\"note\"], not {}", kind(entry.value));
            self.refuse(section, entry, message);
            return Vec::new();
        };
        let mut columns: Vec<String> = Vec::new();
        for item in items {
            let fault = match item.get_ref() {
                DeValue::String(name) if columns.iter().any(|column| column.eq_ignore_ascii_case(name)) => {
                    format!("names `{}` twice", shown(name))
                }
                DeValue::String(name) => {
                    columns.push(name.to_string());
                    continue;
                }
                _ => format!("must hold column names, not {}", kind(item)),
            };
            self.problems.add(item.span().start, section.path_of(EXCLUDE), fault);
        }
        columns
    }

    /// The events of `Track` are in `Track_Events`: a service's table of that name cannot be replicated beside it.
    fn refuse_event_tables(&mut self, tables: &[(TableDeclaration, usize)]) {
        let enabled = || tables.iter().filter(|(table, _)| table.enabled);
        for (table, place) in enabled() {
            if let Some((of, _)) = enabled().find(|(other, _)| is_event_table_of(&table.name, &other.name)) {
                let of = shown(&of.name);
                let message = format!("this is the name of the table that Rowcast makes for the events of `{of}`");
                self.problems.add(*place, path_of(TABLES, &table.name), message);
            }
        }
    }

    /// Takes the keys that are known and refuses the others.
    fn section<'a>(&mut self, path: String, table: &'a DeTable<'a>, known: &[&str]) -> Section<'a> {
        let mut entries = in_file_order(table);
        entries.retain(|Entry { name, place, .. }| {
            let is_known = known.contains(name);
            if !is_known {
                let guess = suggestion(name, known.iter().copied());
                let message = if guess.is_empty() {
                    format!("unknown key; known are {}", list(known))
                } else {
                    format!("unknown key{guess}")
                };
                self.problems.add(place.start, path_of(&path, name), message);
            }
            is_known
        });
        Section { path, entries }
    }

    fn table_value<'a>(&mut self, section: &Section<'a>, entry: &Entry<'a>) -> Option<&'a DeTable<'a>> {
        if let DeValue::Table(table) = entry.value.get_ref() {
            return Some(table);
        }
        self.refuse(section, entry, format!("must be a table, not {}", kind(entry.value)));
        None
    }

    fn text_value<'a>(&mut self, section: &Section<'a>, entry: &Entry<'a>) -> Option<&'a str> {
        if let DeValue::String(text) = entry.value.get_ref() {
            return Some(text);
        }
        self.refuse(section, entry, format!("must be a text in quotes, not {}", kind(entry.value)));
        None
    }

    fn refuse(&mut self, section: &Section<'_>, entry: &Entry<'_>, message: String) {
        self.problems.add(entry.place.start, section.path_of(entry.name), message);
    }
}

/// The parser sorts keys by name; what people read goes by the file.
fn in_file_order<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let entry = |(key, value): (&'a Spanned<_>, _)| -> Entry<'a> {
        let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
        Entry { name, place: key.span(), value }
    };
    let mut entries: Vec<Entry<'a>> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.place.start);
    entries
}

fn kind(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn usable<T>(words: Words<T>) -> String {
    let usable: Vec<_> =
        words.iter().filter(|(_, meaning)| meaning.is_some()).map(|(word, _)| format!("\"{word}\"")).collect();
    usable.join(" or ")
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems(text: &str) -> String {
        Declaration::parse("schema.toml", text).expect_err(text).to_string()
    }

    #[test]
    fn a_declaration_has_the_defaults_filled_in() {
        let text = r#"
            service = "music"
            [tables.Track]
            [tables.Playlist]
            history = "forever"
            exclude = ["Note", "last opened"]
            [tables.Session]
            enabled = false
            conflict = "last-write-wins"
            [tables."order lines"]
            capture = "triggers"
            [defaults]
            capture = "events"
            history = "12h"
        "#;
        insta::assert_debug_snapshot!(Declaration::parse("schema.toml", text).expect("well"));
    }

    #[test]
    fn tables_come_in_the_order_of_the_file_however_they_are_written() {
        for text in [
            "service='s'\n[tables.b]\n[tables.a]\n[tables.c]",
            "service='s'\ntables.b={}\ntables.a.enabled=true\ntables.c={}",
            "service='s'\r\ntables={b={},a={},c={}}",
            "\u{feff}service='s'\n[tables]\nb={}\n'a'={}\n\"\\u0063\"={}",
        ] {
            let declaration = Declaration::parse("schema.toml", text).expect(text);
            assert_eq!(
                declaration.tables.iter().map(|table| &table.name).collect::<Vec<_>>(),
                ["b", "a", "c"],
                "{text}"
            );
        }
    }

    #[test]
    fn a_service_without_tables_is_a_declaration() {
        assert_eq!(Declaration::parse("schema.toml", "service = 'music'").expect("well").tables, []);
    }

    #[test]
    fn all_that_is_wrong_with_a_file_is_told_together() {
        insta::assert_snapshot!(problems(
            r#"# Everything wrong at once.
service = "my music"
sevice = "music"
tabels = {}

[defaults]
conflict = "merge"
history = "0d"
enabled = true
capture = "trigger"

[tables.Track]
conflct = "last-write-wins"
history = 30
enabled = "yes"
exclude = ["note", "Note", 7]

[tables.TRACK]
conflict = "first-write-wins"

[tables.Track_Events]
exclude = "note"

[tables."odd.name"]
captur = "events"
history = "a while"
zebra = 1

[tables.sqlite_sequence]
[tables._ROWCAST_state]

[[tables.List]]
[tables]
Text = "text"
"#
        ));
    }

    #[test]
    fn each_wrong_thing_has_its_own_words() {
        let long = format!("service = \"{}\"", "a".repeat(65));
        let cases = [
            "",
            "service = ''",
            "service = 7",
            "service = 'a.b'",
            "service = 'größe'",
            "service = \"a\\nb\"",
            &long,
            "service = 's'\ndefaults = 1\ntables = []",
            "service = 's'\n[table.Track]",
            "service = 's'\n[defaults]\nconflict = 'custom'\nhistory = '101y'",
            "service = 's'\n[defaults]\nhistory = 'for ever'\ncapture = true",
            "service = 's'\n[tables.a]\nhistory = '99999d'\nexclude = {}",
            "service = 's'\n[tables.a]\nexclude = [1979-05-27, [], {}, 1.5, true]",
            "service = 's'\n[tables.'']\n'' = 1\n\"a\\nb\" = 2",
        ];
        insta::assert_snapshot!(
            cases.map(|text| format!("{text}\n  => {}", problems(text).replace('\n', "\n     "))).join("\n\n")
        );
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_by_line_and_column() {
        let cases = [
            "service = music",
            "service = \"music\n[tables.Track]\n",
            "service = 's'\n\n[tables.Track\nconflict = 'x'\nthis is nothing\n",
            "service = 's'\n[tables.Track]\n[tables.Track]\n",
            "service = 's'\nservice = 't'\n",
            "[tables]\nTrack.enabled = true\n[tables.Track]\n",
            "service = 's' tables = {}",
            "größe = 'x' y",
            "a = \"\\q\"",
            "{\"service\": \"music\"}",
            "SQLite format 3\0\u{10}",
        ];
        insta::assert_snapshot!(
            cases.map(|text| format!("{text:?}\n  => {}", problems(text).replace('\n', "\n     "))).join("\n\n")
        );
    }

    #[test]
    fn only_ascii_case_and_enabled_tables_are_in_the_way() {
        for tables in
            ["\"É\" = {}\n\"é\" = {}", "Track = { enabled = false }\nTrack_Events = {}", "Events = {}\n'' = {}"]
        {
            let text = format!("service = 's'\n[tables]\n{tables}");
            assert_eq!(Declaration::parse("schema.toml", &text).expect(&text).tables.len(), 2);
        }
    }

    #[test]
    fn deep_and_wide_files_are_refused_or_read_and_nothing_else() {
        let deep = 100_000;
        for text in [
            format!("a = {}", "[".repeat(deep)),
            format!("a = {}", "{a=".repeat(deep)),
            format!("{}a = 1", "a.".repeat(deep)),
            format!("[{}a]", "tables.".repeat(deep)),
            format!("{} = 1", "a".repeat(deep)),
        ] {
            let message = problems(&text);
            assert!(message.len() < 1_000, "{message}");
        }
    }

    /// Texts that look like a schema TOML, mostly wrong ones.
    fn any_file() -> impl Strategy<Value = String> {
        let words =
            "service|defaults|tables|Track|track|enabled|capture|conflict|history|exclude|sqlite_x|\"a b\"|'\\.'";
        let line = format!(
            "(\\[({words})\\]|\\[tables\\.({words})\\]|({words}) = (\"[a-z0-9-]{{0,9}}\"|true|-?[0-9]{{1,3}}|\\[\\]|\\{{\\}}|\\['a', 'A', 1\\])|\\PC{{0,9}})\n"
        );
        prop::collection::vec(proptest::string::string_regex(&line).expect("a regex"), 0..9)
            .prop_map(|lines| format!("service = 's'\n{}", lines.concat()))
    }

    /// What holds for every answer.
    fn is_sound(text: &str) -> Result<(), TestCaseError> {
        match Declaration::parse("schema.toml", text) {
            Ok(declaration) => {
                prop_assert_eq!(service_fault(&declaration.service), None);
                prop_assert!(declaration.tables.is_sorted_by_key(|table| table.line));
                for table in &declaration.tables {
                    prop_assert_eq!(declaration.table(&table.name.to_ascii_uppercase()), Some(table));
                }
            }
            Err(problems) => {
                prop_assert!(problems.iter().count() > 0);
                prop_assert_eq!(problems.to_string().lines().count(), problems.iter().count());
                for problem in problems.iter() {
                    let lines = text.split('\n').count();
                    prop_assert!((1..=lines).contains(&problem.line), "line {} of {lines}", problem.line);
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            is_sound(&String::from_utf8_lossy(&bytes))?;
        }

        #[test]
        fn no_file_makes_it_panic(text in any_file()) {
            is_sound(&text)?;
        }
    }
}
