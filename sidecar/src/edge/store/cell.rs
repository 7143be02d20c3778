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

/// Whether a column of that affinity that was told to keep `said` holds `held`. What a TEXT column makes of a REAL differs
/// between versions of SQLite, and the service may have another one.
pub(crate) fn keeps(affinity: Affinity, said: &Value, held: &Value) -> bool {
    if said == held {
        return true;
    }
    match (affinity, said, held) {
        (Affinity::Text, Value::Real(number), Value::Text(text)) => {
            std::str::from_utf8(text).is_ok_and(|text| writes(*number, text))
        }
        _ => with_affinity(said.clone(), affinity) == *held,
    }
}

/// Whether a text is what SQLite writes of a number: `%!.15g` for a long time (<https://sqlite.org/printf.html>), more digits by
/// now, of which the last may be another one than is exact. There is always a point, and no zero too many.
fn writes(number: f64, text: &str) -> bool {
    let mantissa = text.split('e').next().unwrap_or(text);
    let is_short = mantissa.contains('.') && (mantissa.ends_with(".0") || !mantissa.ends_with('0'));
    let digits = |number: f64| format!("{number:.14e}");
    is_short && text.parse().is_ok_and(|read: f64| read == number || digits(read) == digits(number))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As this SQLite does it, whatever the number.
    #[test]
    fn a_text_column_keeps_a_real_as_sqlite_writes_it() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare("SELECT CAST(?1 AS TEXT)").unwrap();
        let mut number = 1.0_f64;
        let steps = (0..2_000_u32).map(|step| {
            number *= -1.37;
            if step % 700 == 699 {
                number = 1e-12 / 3.0;
            }
            number
        });
        let known =
            [1.5, -0.0, 0.1, 0.1 + 0.2, 100.0, 1e15, 1e16, 1e20, 123_456_789_012_345_680_000.0, 1e-4, 1e-5, 1e-300];
        for number in known.into_iter().chain(steps) {
            let text: String = statement.query_row([number], |row| row.get(0)).unwrap();
            let held = Value::Text(text.clone().into_bytes());
            assert!(keeps(Affinity::Text, &Value::Real(number), &held), "{number:e}: {text}");
            for other in [format!("1{text}"), format!("{text}0"), text.replacen('.', "", 1)] {
                let other = Value::Text(other.into_bytes());
                assert!(number == 0.0 || !keeps(Affinity::Text, &Value::Real(number), &other), "{number:e}: {other:?}");
            }
        }
    }
}
