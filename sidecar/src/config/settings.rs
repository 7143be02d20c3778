//! Settings as they were given, before they are checked: for each key the first place that has it, and the place.
//!
//! Knows the list of keys and what sort of value each holds; what a value means is for [`super::check`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Environment, Error, Place, Problem, Sources, flag, variable};

/// One key of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name in the file.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// One text, or several.
    List,
    /// A path; in the file, relative to the file's own folder.
    Path,
    /// Yes or no.
    Switch,
    /// A span of time, such as `250ms`, `5s` or `10m`.
    Duration,
}

const fn key_of(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

/// Every key, in the order of the example file.
pub const KEYS: &[Key] = &[
    key_of("node", Kind::Text),
    key_of("database", Kind::Path),
    key_of("schema", Kind::Path),
    key_of("nats", Kind::List),
    key_of("credentials", Kind::Path),
    key_of("user", Kind::Text),
    key_of("password_file", Kind::Path),
    key_of("token_file", Kind::Path),
    key_of("nkey_file", Kind::Path),
    key_of("tls_ca", Kind::Path),
    key_of("tls_cert", Kind::Path),
    key_of("tls_key", Kind::Path),
    key_of("tls_required", Kind::Switch),
    key_of("allow_plaintext", Kind::Switch),
    key_of("http", Kind::Text),
    key_of("before", Kind::Text),
    key_of("bootstrap", Kind::Text),
    key_of("presence_interval", Kind::Duration),
    key_of("presence_wait", Kind::Duration),
    key_of("context_timeout", Kind::Duration),
    key_of("reconcile_interval", Kind::Duration),
    key_of("verify_interval", Kind::Duration),
    key_of("member_timeout", Kind::Duration),
    key_of("log", Kind::Text),
    key_of("log_level", Kind::Text),
];

/// The key of that name.
pub(super) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that was probably meant by `name`, when one is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let distance = |key: &Key| strsim::damerau_levenshtein(&folded, key.name);
    let near = KEYS.iter().min_by_key(|key| distance(key))?;
    (distance(near) <= 2 && distance(near) * 2 < near.name.len()).then_some(near.name)
}

/// The value of a key, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
    Switch(bool),
}

/// A value and where it was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) place: Place,
    /// The folder that a relative path starts from, when the value stands in a file.
    pub(super) folder: Option<PathBuf>,
}

/// What was given, and what was wrong with it so far.
#[derive(Debug, Default)]
pub(super) struct Settings {
    given: BTreeMap<&'static str, Given>,
    /// The file is not TOML, so what seems to be missing may stand in it.
    pub(super) broken_file: bool,
    pub(super) problems: Vec<Problem>,
}

impl Settings {
    /// Gathers all places. What is wrong in one of them is kept in `problems`; reading goes on.
    pub(super) fn read(sources: &Sources) -> Result<Self, Error> {
        let mut settings = Self::default();
        if let Some(file) = &sources.file {
            let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.clone(), source })?;
            settings.take_file(file, &text);
        }
        settings.take_environment(&sources.environment);
        settings.take_flags(&sources.flags);
        Ok(settings)
    }

    /// Takes a key's value out.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Given> {
        self.given.remove(name)
    }

    pub(super) fn problem(&mut self, place: Place, text: impl Into<String>) {
        self.problems.push(Problem { place, text: text.into() });
    }

    fn take_file(&mut self, file: &Path, text: &str) {
        let place = |at: usize| Place::Line(file.to_owned(), line(text, at));
        let folder = file.parent().map(Path::to_owned);
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What the broken lines were meant to say is a guess, so nothing more is said of the file.
            self.broken_file = true;
        }
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let place = place(at);
            // Of each line the first fault: those after it mostly follow from it.
            if !self.problems.iter().any(|problem| problem.place == place) {
                self.problem(place, format!("not TOML: {}", error.message().trim_end()));
            }
        }
        for (name, value) in table.get_ref() {
            let written: &str = name.get_ref();
            let place = place(name.span().start);
            let Some(key) = key(written) else {
                self.problem(place, unknown(written));
                continue;
            };
            match from_toml(key.kind, value) {
                Ok(value) => {
                    self.given.insert(key.name, Given { value, place, folder: folder.clone() });
                }
                Err(wanted) => {
                    let found = value.get_ref().type_str();
                    self.problem(place, format!("`{written}` must be {wanted}, but it is of type {found}"));
                }
            }
        }
    }

    fn take_environment(&mut self, environment: &Environment) {
        for key in KEYS {
            if let Some(text) = environment.key(key.name) {
                self.take_text(key, vec![text.to_owned()], Place::Variable(variable(key.name)));
            }
        }
    }

    fn take_flags(&mut self, flags: &[(&'static str, String)]) {
        for key in KEYS {
            let texts: Vec<String> =
                flags.iter().filter(|(name, _)| *name == key.name).map(|(_, text)| text.clone()).collect();
            if !texts.is_empty() {
                self.take_text(key, texts, Place::Flag(flag(key.name)));
            }
        }
    }

    /// Takes a value that was given as text, over whatever an earlier place said.
    fn take_text(&mut self, key: &Key, mut texts: Vec<String>, place: Place) {
        let value = match key.kind {
            Kind::Text | Kind::Path | Kind::Duration => Value::Text(texts.pop().unwrap_or_default()),
            Kind::List => {
                let parts = texts.iter().flat_map(|text| text.split(','));
                Value::List(parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect())
            }
            Kind::Switch => {
                let text = texts.pop().unwrap_or_default();
                match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "1" => Value::Switch(true),
                    "false" | "no" | "0" => Value::Switch(false),
                    _ => return self.problem(place, format!("`{text}` is neither `true` nor `false`")),
                }
            }
        };
        self.given.insert(key.name, Given { value, place, folder: None });
    }
}

/// What to say about a key that does not exist.
fn unknown(name: &str) -> String {
    if matches!(name, "password" | "token" | "nkey") {
        return format!("unknown key `{name}`: secrets do not stand in this file; use `{name}_file`");
    }
    match nearest(name) {
        Some(near) => format!("unknown key `{name}`; did you mean `{near}`?"),
        None => format!("unknown key `{name}`; the keys are explained in examples/rowcast.toml"),
    }
}

/// The value as its kind wants it, or what was wanted.
fn from_toml(kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<Value, &'static str> {
    match (kind, value.get_ref()) {
        (Kind::Text | Kind::Path | Kind::Duration, DeValue::String(text)) => Ok(Value::Text(text.to_string())),
        (Kind::List, DeValue::String(text)) => Ok(Value::List(vec![text.to_string()])),
        (Kind::List, DeValue::Array(values)) => {
            let texts = values.iter().map(|value| value.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<_>>().map(Value::List).ok_or("text, or a list of texts")
        }
        (Kind::Switch, DeValue::Boolean(switch)) => Ok(Value::Switch(*switch)),
        (Kind::Text | Kind::Path, _) => Err("text"),
        (Kind::Duration, _) => Err("text such as \"250ms\", \"5s\" or \"10m\""),
        (Kind::List, _) => Err("text, or a list of texts"),
        (Kind::Switch, _) => Err("true or false"),
    }
}

/// The line, from 1, on which the byte at `at` stands.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
