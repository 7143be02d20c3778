//! The workload W0: one table, and row `i` made of nothing but `i`, so that every run and every peer writes the same.
//!
//! Row `i` has a key of 36 characters in random order, short texts, two numbers and a note of 140 characters: 282 bytes
//! as a JSON object, on average.

use std::ops::Range;

use rowcast_tests::random::Random;
use uuid::Uuid;

/// The column list and constraints of W0's table.
const COLUMNS: &str = "(id TEXT NOT NULL PRIMARY KEY, name TEXT, email TEXT, qty INTEGER, price REAL, note TEXT)";

const FIRST: [&str; 16] = [
    "Ada",
    "Alan",
    "Barbara",
    "Claude",
    "Donald",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "John",
    "Katherine",
    "Leslie",
    "Margaret",
    "Niklaus",
    "Radia",
    "Tony",
];
const LAST: [&str; 16] = [
    "Allen", "Dijkstra", "Hamilton", "Hoare", "Hopper", "Johnson", "Knuth", "Lamarr", "Lamport", "Liskov", "Lovelace",
    "Perlman", "Shannon", "Turing", "Neumann", "Wirth",
];
const WORDS: [&str; 32] = [
    "order", "parcel", "window", "river", "seven", "copper", "ledger", "garden", "signal", "harbour", "winter",
    "paper", "yellow", "market", "engine", "silver", "bridge", "corner", "morning", "village", "letter", "planet",
    "number", "forest", "canvas", "butter", "travel", "simple", "marble", "needle", "pocket", "orange",
];
const NOTE: usize = 140;

/// A row of W0.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The key: a hash of the row's number, shaped as a UUID.
    pub id: String,
    /// A name from a small list.
    pub name: String,
    /// An address made of the name.
    pub email: String,
    /// Below 1,000.
    pub qty: i64,
    /// With two digits after the point.
    pub price: f64,
    /// 140 characters.
    pub note: String,
}

/// The one table of W0.
pub fn items() -> Vec<String> {
    vec!["items".to_owned()]
}

/// The statement that makes a table of W0's shape.
pub fn table(name: &str) -> String {
    format!("CREATE TABLE {name}{COLUMNS}")
}

/// The schema TOML that declares tables with a way of capture.
pub fn declaration(tables: &[String], capture: &str) -> String {
    let tables: String = tables.iter().map(|table| format!("[tables.{table}]\n")).collect();
    format!("service = \"{}\"\n[defaults]\ncapture = \"{capture}\"\n{tables}", rowcast_tests::cluster::SERVICE)
}

fn random(i: u64) -> Random {
    Random::seeded(i.wrapping_mul(0x5851_f42d_4c95_7f2d))
}

/// The key of row `i` as a number: the texts have the same order.
pub fn key(i: u64) -> u128 {
    let mut random = random(i);
    (u128::from(random.bits()) << 64) | u128::from(random.bits())
}

/// Row `i`.
pub fn row(i: u64) -> Row {
    let mut random = random(i);
    let (high, low) = (random.bits(), random.bits());
    let id = Uuid::from_u64_pair(high, low).to_string();
    let (first, last) = (*random.pick(&FIRST), *random.pick(&LAST));
    let qty = i64::try_from(random.below(1_000)).expect("bug: below 1,000");
    let cents = u32::try_from(random.below(100_000)).expect("bug: below 100,000");
    let mut note = String::with_capacity(NOTE + 8);
    while note.len() < NOTE {
        let word: &str = random.pick::<&str>(&WORDS);
        note.push_str(word);
        note.push(' ');
    }
    note.truncate(NOTE);
    let email = format!("{}.{}@mail.example", first.to_lowercase(), last.to_lowercase());
    Row { id, name: format!("{first} {last}"), email, qty, price: f64::from(cents) / 100.0, note }
}

/// Rows by their numbers.
pub fn rows(numbers: Range<u64>) -> Vec<Row> {
    numbers.map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(row: &Row) -> String {
        serde_json::json!({"id": row.id, "name": row.name, "email": row.email, "qty": row.qty, "price": row.price,
                           "note": row.note})
        .to_string()
    }

    #[test]
    fn a_row_is_the_same_each_time_and_has_the_size_that_peers_were_measured_with() {
        let rows = rows(0..2_000);
        assert_eq!(rows[7], row(7));
        assert_eq!(rows[7].id.replace('-', ""), format!("{:032x}", key(7)));
        assert!(rows.iter().all(|row| row.id.len() == 36 && row.note.len() == NOTE));
        let bytes: usize = rows.iter().map(|row| json(row).len()).sum();
        assert!((2_000 * 278..=2_000 * 286).contains(&bytes), "{} bytes a row as JSON", bytes / 2_000);
        let ids: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids.len(), rows.len());
        assert!(rows.windows(2).filter(|pair| pair[0].id < pair[1].id).count() < 1_200, "keys come in random order");
    }
}
