//! A typed cell of SQLite, and its JSON form.
//!
//! The JSON form keeps what SQLite holds, bit for bit. What JSON cannot say is a tagged object, which no SQLite
//! value can be mistaken for:
//!
//! | SQLite | JSON |
//! |---|---|
//! | NULL | `null` |
//! | INTEGER | a number without fraction or exponent, all 64 bits |
//! | REAL | a number with fraction or exponent, the shortest text that reads back to the same bits |
//! | REAL ±Infinity | `{"$real": "Infinity"}`, `{"$real": "-Infinity"}` |
//! | TEXT | a string |
//! | TEXT that is not UTF-8 | `{"$text": "<base64>"}` |
//! | BLOB | `{"$blob": "<base64>"}` |

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// One cell. `Text` is bytes because SQLite does not promise that it is UTF-8.
#[derive(Clone, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double. Never NaN: SQLite stores that as NULL.
    Real(f64),
    /// Text, as the bytes that SQLite holds.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

/// Equal means the same type and the same bits: `1` is not `1.0`, `0.0` is not `-0.0`.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) | (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl Value {
    /// SQLite's word for the type: `null`, `integer`, `real`, `text` or `blob`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "integer",
            Self::Real(_) => "real",
            Self::Text(_) => "text",
            Self::Blob(_) => "blob",
        }
    }

    /// Appends the JSON form.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Integer(number) => write_number(out, *number),
            Self::Real(number) if number.is_finite() => write_number(out, *number),
            Self::Real(number) => {
                out.push_str(if *number < 0.0 { r#"{"$real":"-Infinity"}"# } else { r#"{"$real":"Infinity"}"# });
            }
            Self::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => write_string(text, out),
                Err(_) => write_tagged(TAG_TEXT, bytes, out),
            },
            Self::Blob(bytes) => write_tagged(TAG_BLOB, bytes, out),
        }
    }
}

const TAG_BLOB: &str = "$blob";
const TAG_TEXT: &str = "$text";
const TAG_REAL: &str = "$real";

fn write_number(out: &mut String, number: impl serde::Serialize) {
    out.push_str(&serde_json::to_string(&number).expect("bug: a finite number has a JSON form"));
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(text: &str, out: &mut String) {
    // Most text needs no escape: one look, one copy.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("bug: every string has a JSON form"));
    }
}

fn write_tagged(tag: &str, bytes: &[u8], out: &mut String) {
    out.push_str("{\"");
    out.push_str(tag);
    out.push_str("\":\"");
    BASE64.encode_string(bytes, out);
    out.push_str("\"}");
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Cell)
    }
}

struct Cell;

impl<'de> Visitor<'de> for Cell {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"null, a number, a string, {"$blob": …}, {"$text": …} or {"$real": …}"#)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number)
            .map(Value::Integer)
            .map_err(|_| E::custom(format_args!("the integer {number} does not fit 64 bits with a sign")))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        if number.is_finite() { Ok(Value::Real(number)) } else { Err(E::custom("a number out of range")) }
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text.into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (tag, body): (Cow<'de, str>, Cow<'de, str>) =
            map.next_entry()?.ok_or_else(|| de::Error::custom("an empty object is not a value"))?;
        if map.next_key::<de::IgnoredAny>()?.is_some() {
            return Err(de::Error::custom("a tagged value has one key"));
        }
        let bytes = || {
            BASE64
                .decode(body.as_bytes())
                .map_err(|error| de::Error::custom(format_args!("`{tag}` is not base64: {error}")))
        };
        match tag.as_ref() {
            TAG_BLOB => Ok(Value::Blob(bytes()?)),
            TAG_TEXT => Ok(Value::Text(bytes()?)),
            TAG_REAL => match body.as_ref() {
                "Infinity" => Ok(Value::Real(f64::INFINITY)),
                "-Infinity" => Ok(Value::Real(f64::NEG_INFINITY)),
                _ => Err(de::Error::custom(r#"`$real` is "Infinity" or "-Infinity""#)),
            },
            _ => Err(de::Error::custom(format_args!("`{tag}` is not a tag: use $blob, $text or $real"))),
        }
    }
}

/// What a column does to the values stored in it (<https://sqlite.org/datatype3.html>, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Keeps text.
    Text,
    /// Makes numbers of text that looks like one.
    Numeric,
    /// As `Numeric`; differs only in casts.
    Integer,
    /// Makes integers into doubles, too.
    Real,
    /// Keeps what it is given.
    Blob,
}

impl Affinity {
    /// The affinity of a column declared with `declared_type`; of a STRICT table's `ANY`, `Blob`.
    pub fn of(declared_type: &str, strict: bool) -> Self {
        let declared = declared_type.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if strict && declared == "ANY" {
            Self::Blob
        } else if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if declared.is_empty() || has("BLOB") {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every value that SQLite can hold, with the awkward ones often.
    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let awkward =
            [0.0, -0.0, 5e-324, f64::MIN, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2, 9.007e15, 1.0];
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            prop::sample::select(vec![i64::MIN, i64::MAX, 0, -1, 1 << 53, (1 << 53) + 1]).prop_map(Value::Integer),
            any::<f64>().prop_filter("SQLite has no NaN", |number| !number.is_nan()).prop_map(Value::Real),
            prop::sample::select(awkward.to_vec()).prop_map(Value::Real),
            any::<String>().prop_map(|text| Value::Text(text.into_bytes())),
            prop::collection::vec(any::<u8>(), 0..24).prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..24).prop_map(Value::Blob),
            prop::sample::select(vec!["", "42", "-1.5e3", "\"", "[1]", "{}", " 7", "a\0b", "null", "{\"$blob\":\"\"}"])
                .prop_map(Value::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn json_keeps_every_value_bit_for_bit(value in any_value()) {
            let mut json = String::new();
            value.write_json(&mut json);
            prop_assert_eq!(serde_json::from_str::<Value>(&json).expect(&json), value);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>()) {
            drop(serde_json::from_str::<Value>(&text));
        }
    }

    #[test]
    fn what_is_not_a_value_is_refused_by_name() {
        let error = |json: &str| serde_json::from_str::<Value>(json).unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                r#"true"#,
                r#"[1]"#,
                r#"{}"#,
                r#"{"$blob":"?"}"#,
                r#"{"$real":"NaN"}"#,
                r#"{"$date":"x"}"#,
                "9223372036854775808",
                "1e400"
            ]
            .map(|json| format!("{json:24} {}", error(json)))
            .join("\n")
        );
    }

    #[test]
    fn affinity_follows_sqlites_five_rules() {
        for (declared, affinity) in [
            ("FLOATING POINT", Affinity::Integer), // The first rule wins: it contains INT.
            ("VARCHAR(10)", Affinity::Text),
            ("", Affinity::Blob),
            ("DOUBLE", Affinity::Real),
            ("DATETIME", Affinity::Numeric),
            ("BOOLEAN", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of(declared, false), affinity, "{declared}");
        }
        assert_eq!(Affinity::of("ANY", true), Affinity::Blob);
    }
}
