//! A record: its identity as canonical text, and its row as JSON.
//!
//! A record id is what SQLite's own key comparison takes for the same key: an integral REAL is written as the integer
//! that equals it, NOCASE text in lower case, RTRIM text without its trailing spaces. A key of one column reads as
//! plainly as it can (`42`, `4f2c…-uuid`; in a TEXT column every text but the oddest); a composite key is a JSON array
//! (`[1,"a"]`).

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::value::{self, Value};

/// How text is compared in a key column. Custom collations cannot be replicated and never get this far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// Byte by byte.
    Binary,
    /// ASCII letters without regard to case.
    NoCase,
    /// Without trailing spaces.
    Rtrim,
}

impl Collation {
    /// The built-in collation of that name, if it is one.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "BINARY" => Some(Self::Binary),
            "NOCASE" => Some(Self::NoCase),
            "RTRIM" => Some(Self::Rtrim),
            _ => None,
        }
    }

    fn fold(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Binary => text.to_vec(),
            // SQLite looks no further than to the first NUL, and then at the lengths.
            Self::NoCase => {
                let mut folded = text.to_ascii_lowercase();
                let end = folded.iter().position(|&byte| byte == 0).unwrap_or(folded.len());
                folded[end..].fill(0);
                folded
            }
            Self::Rtrim => {
                let end = text.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
                text[..end].to_vec()
            }
        }
    }
}

/// What a record id needs to know of a key column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// How its text is compared.
    pub collation: Collation,
    /// It has TEXT affinity: no number is ever stored in it, so a text that looks like one stands for itself.
    pub holds_text: bool,
}

/// The canonical text of a key. `key` and `columns` go in key order and have the same length.
pub fn record_id(key: &[Value], columns: &[KeyColumn]) -> String {
    assert_eq!(key.len(), columns.len(), "bug: a key column that is not described");
    let mut out = String::new();
    if let ([part], [column]) = (key, columns) {
        match canonical(part, column.collation) {
            Value::Text(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) if reads_plainly(text, *column) => out.push_str(text),
                _ => Value::Text(bytes).write_json(&mut out),
            },
            other => other.write_json(&mut out),
        }
        return out;
    }
    out.push('[');
    for (part, column) in key.iter().zip(columns) {
        if out.len() > 1 {
            out.push(',');
        }
        canonical(part, column.collation).write_json(&mut out);
    }
    out.push(']');
    out
}

/// The key that a record id stands for: what SQLite compares equal to the key it was made of.
///
/// # Errors
/// When the text is not what [`record_id`] writes for a key of these columns.
pub fn parse_record_id(text: &str, columns: &[KeyColumn]) -> Result<Vec<Value>, serde_json::Error> {
    if let [column] = columns {
        return Ok(vec![if reads_plainly(text, *column) { Value::from(text) } else { serde_json::from_str(text)? }]);
    }
    let key: Vec<Value> = serde_json::from_str(text)?;
    if key.len() == columns.len() {
        Ok(key)
    } else {
        let parts = (key.len(), columns.len());
        Err(de::Error::custom(format_args!("a key of {} parts, where the table's has {}", parts.0, parts.1)))
    }
}

/// Whether a text key may stand for itself: nothing in it could be taken for JSON.
fn reads_plainly(text: &str, column: KeyColumn) -> bool {
    if text.contains('\0') {
        return false;
    }
    if column.holds_text {
        return !matches!(text.bytes().next(), None | Some(b'"' | b'{'));
    }
    let json_start = matches!(text.trim_start().bytes().next(), None | Some(b'"' | b'[' | b'{'));
    !json_start && serde_json::from_str::<Value>(text).is_err()
}

fn canonical(part: &Value, collation: Collation) -> Value {
    match part {
        // SQLite compares integers and doubles by their exact value.
        Value::Real(number) if number.fract() == 0.0 && (-TWO_63..TWO_63).contains(number) =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "integral and in range, checked above")]
            Value::Integer(*number as i64)
        }
        Value::Text(bytes) => Value::Text(collation.fold(bytes)),
        other => other.clone(),
    }
}

const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// The row as a JSON object, columns in the order given.
pub fn row_to_json<'a>(columns: &[String], cells: impl IntoIterator<Item = &'a Value>) -> String {
    let mut out = String::with_capacity(columns.len() * 24);
    out.push('{');
    for (column, cell) in columns.iter().zip(cells) {
        if out.len() > 1 {
            out.push(',');
        }
        value::write_string(column, &mut out);
        out.push(':');
        cell.write_json(&mut out);
    }
    out.push('}');
    out
}

/// The cells of a row written by [`row_to_json`] or by a service, in the order of `columns`.
///
/// # Errors
/// When the text is not a JSON object of values, names a column that is not in `columns`, names one twice, or
/// leaves one out: the message names the column.
pub fn row_from_json(columns: &[String], json: &str) -> Result<Vec<Value>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let cells = Row(columns).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(cells)
}

struct Row<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a value for every column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let columns = self.0;
        let mut cells: Vec<Option<Value>> = vec![None; columns.len()];
        let mut expected = 0;
        while let Some(at) = map.next_key_seed(ColumnName { columns, expected })? {
            if cells[at].is_some() {
                return Err(de::Error::custom(format_args!("column `{}` is given twice", columns[at])));
            }
            cells[at] = Some(map.next_value()?);
            expected = at + 1;
        }
        let mut row = Vec::with_capacity(columns.len());
        for (cell, column) in cells.into_iter().zip(columns) {
            row.push(cell.ok_or_else(|| de::Error::custom(format_args!("column `{column}` is missing")))?);
        }
        Ok(row)
    }
}

/// Finds a column by name; the next one in order is tried first, since that is how rows are written.
struct ColumnName<'a> {
    columns: &'a [String],
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for ColumnName<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ColumnName<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<usize, E> {
        if self.columns.get(self.expected).is_some_and(|column| column == name) {
            return Ok(self.expected);
        }
        self.columns
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| E::custom(format_args!("no column `{name}` is replicated")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::tests::any_value;

    fn key_column(collation: Collation, holds_text: bool) -> KeyColumn {
        KeyColumn { collation, holds_text }
    }

    #[test]
    fn a_record_id_reads_as_plainly_as_it_can() {
        let one = |value: Value| record_id(&[value], &[key_column(Collation::Binary, false)]);
        let text = |value: &str| record_id(&[Value::from(value)], &[key_column(Collation::Binary, true)]);
        insta::assert_snapshot!(
            [
                one(Value::Integer(42)),
                one(Value::Real(42.0)),
                one(Value::Real(0.5)),
                one(Value::from("4f2c9b1e-uuid")),
                one(Value::from("42")),
                one(Value::from("")),
                one(Value::from("[x")),
                one(Value::Blob(vec![1, 2])),
                one(Value::Text(vec![0xff])),
                record_id(&[Value::Integer(1), Value::from("a")], &[key_column(Collation::Binary, false); 2]),
                record_id(&[Value::from("MiXed")], &[key_column(Collation::NoCase, false)]),
                record_id(&[Value::from("end  ")], &[key_column(Collation::Rtrim, false)]),
                text("42"),
                text("null"),
                text("[x"),
                text("{x"),
            ]
            .join("\n")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn a_record_id_reads_back_to_the_canonical_key(
            key in prop::collection::vec(any_value(), 1..4), holds_text in any::<bool>(),
        ) {
            // A TEXT column turns numbers into text before anybody sees them, and no key part is NULL.
            let key: Vec<Value> = key
                .into_iter()
                .map(|part| match part {
                    Value::Integer(_) | Value::Real(_) if holds_text => Value::from(format!("{part:?}").as_str()),
                    Value::Null => Value::from("null"),
                    other => other,
                })
                .collect();
            let columns = vec![key_column(Collation::Binary, holds_text); key.len()];
            let id = record_id(&key, &columns);
            let back = parse_record_id(&id, &columns).expect(&id);
            prop_assert_eq!(record_id(&back, &columns), id);
            let canonical: Vec<_> = key.iter().map(|part| canonical(part, Collation::Binary)).collect();
            prop_assert_eq!(back, canonical);
        }

        #[test]
        fn different_keys_have_different_ids(a in any_value(), b in any_value()) {
            let id = |value: &Value| record_id(std::slice::from_ref(value), &[key_column(Collation::Binary, false)]);
            prop_assert_eq!(id(&a) == id(&b), canonical(&a, Collation::Binary) == canonical(&b, Collation::Binary));
        }

        #[test]
        fn a_row_reads_back_whatever_its_names(cells in prop::collection::vec((any::<String>(), any_value()), 1..6)) {
            let mut names: Vec<String> = cells.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            names.dedup();
            prop_assume!(names.len() == cells.len());
            let columns: Vec<String> = cells.iter().map(|(name, _)| name.clone()).collect();
            let row: Vec<Value> = cells.into_iter().map(|(_, cell)| cell).collect();
            prop_assert_eq!(row_from_json(&columns, &row_to_json(&columns, &row)).unwrap(), row);
        }
    }

    #[test]
    fn a_row_that_does_not_fit_is_refused_by_column() {
        let columns = ["id".to_owned(), "name".to_owned()];
        let error = |json: &str| row_from_json(&columns, json).unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                r#"{"id":1}"#,
                r#"{"id":1,"name":"a","nmae":2}"#,
                r#"{"id":1,"id":2,"name":"a"}"#,
                r#"{"id":[],"name":"a"}"#,
                "[1]",
                r#"{"id":1,"name":"a"} x"#
            ]
            .map(|json| format!("{json:32} {}", error(json)))
            .join("\n")
        );
    }
}
