//! Random cells as SQL, from few values so that they meet, with the awkward ones among them.

use super::random::Random;

/// Any value, fit for a column declared with `declared` most of the time.
pub(crate) fn literal(random: &mut Random, declared: &str) -> String {
    if random.chance(1, 12) {
        return "NULL".to_owned();
    }
    if random.chance(1, 10) {
        return awkward(random);
    }
    let fitting = !random.chance(1, 8);
    let upper = declared.to_ascii_uppercase();
    match upper.as_str() {
        "TEXT" | "VARCHAR(9)" if fitting => text(random),
        "BLOB" if fitting => blob(random),
        "REAL" | "DOUBLE" if fitting => real(random),
        "INTEGER" | "INT" | "NUMERIC" | "BOOLEAN" if fitting => integer(random),
        _ => match random.below(4) {
            0 => text(random),
            1 => blob(random),
            2 => real(random),
            _ => integer(random),
        },
    }
}

/// As [`literal`], never NULL, and rarely anything that the column would not keep as it is.
pub(crate) fn key_literal(random: &mut Random, declared: &str) -> String {
    loop {
        let literal = literal(random, declared);
        if literal != "NULL" || random.chance(1, 20) {
            return literal;
        }
    }
}

fn integer(random: &mut Random) -> String {
    (i64::try_from(random.below(7)).unwrap() - 1).to_string()
}

fn text(random: &mut Random) -> String {
    let texts =
        ["'a'", "'A'", "'b'", "'a '", "'B '", "'ab'", "''", "'1'", "'1.0'", "'é'", "'{\"k\":1}'", "'{\"k\": 1}'"];
    (*random.pick(&texts)).to_owned()
}

fn real(random: &mut Random) -> String {
    (*random.pick(&["0.5", "1.0", "2.0", "-1.5", "0.0", "-0.0", "3.0", "0.1 + 0.2"])).to_owned()
}

fn blob(random: &mut Random) -> String {
    (*random.pick(&["x''", "x'61'", "x'41'", "x'00ff'", "x'31'", "zeroblob(3)"])).to_owned()
}

fn awkward(random: &mut Random) -> String {
    let values = [
        // The greatest of all would make SQLite pick the next rowid by chance.
        "9223372036854775000",
        "-9223372036854775808",
        "9223372036854775808.0",
        "-9223372036854775808.0",
        "9007199254740993",
        "9007199254740992.0",
        "9e999",
        "-9e999",
        "5e-324",
        "1.7976931348623157e308",
        "-0.0",
        "CAST(x'ff61' AS TEXT)",
        "CAST(x'c3' AS TEXT)",
        "'a' || char(0) || 'b'",
        "char(0)",
        "'\"'",
        "'['",
        "'[1]'",
        "'{'",
        "' 1'",
        "'1e3'",
        "'null'",
        "'it''s'",
        "'\\'",
        "char(10, 9, 13)",
        "char(128512)",
        "'0x10'",
        "'-0'",
        "'Inf'",
        "zeroblob(300)",
        "printf('%.400c', 'x')",
        "1e15",
        "1e18",
        "12345678901234567890123",
    ];
    (*random.pick(&values)).to_owned()
}
