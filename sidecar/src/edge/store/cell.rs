//! Cells between rusqlite and the schema crate: the same bits on both sides.

use rowcast_schema::value::{Affinity, Value};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// A cell as SQLite gives it.
pub(super) fn read(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// A cell as SQLite takes it.
pub(super) struct Bound<'a>(pub(super) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// The cell as a column of that affinity would keep it (<https://sqlite.org/datatype3.html>, section 3).
pub(crate) fn with_affinity(value: Value, affinity: Affinity) -> Value {
    match (affinity, value) {
        (Affinity::Real, Value::Integer(number)) =>
        {
            #[expect(clippy::cast_precision_loss, reason = "this is what a REAL column does")]
            Value::Real(number as f64)
        }
        (Affinity::Integer | Affinity::Numeric, Value::Real(number)) => integral(number),
        (Affinity::Integer | Affinity::Numeric | Affinity::Real, Value::Text(bytes)) => {
            match std::str::from_utf8(&bytes).ok().and_then(number_in) {
                Some(number) => with_affinity(number, affinity),
                None => Value::Text(bytes),
            }
        }
        (Affinity::Text, Value::Integer(number)) => Value::Text(number.to_string().into_bytes()),
        (_, value) => value,
    }
}

fn integral(number: f64) -> Value {
    // SQLite turns a REAL into an INTEGER only where that is exact and well inside 64 bits.
    const LIMIT: f64 = 9_223_372_036_854_774_784.0;
    if number.fract() == 0.0 && (-LIMIT..=LIMIT).contains(&number) {
        #[expect(clippy::cast_possible_truncation, reason = "integral and in range, checked above")]
        Value::Integer(number as i64)
    } else {
        Value::Real(number)
    }
}

fn number_in(text: &str) -> Option<Value> {
    let text = text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if text.is_empty() || !plain {
        return None;
    }
    text.parse().map(Value::Integer).ok().or_else(|| text.parse().map(Value::Real).ok())
}
