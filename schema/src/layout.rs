//! A layout: which columns of a table are captured, and which of them are its key.
//!
//! A layout has one number that is the same on every node and for ever, because it is made from the names alone. It
//! travels with each event, so that an event can be read long after the table has changed.

use serde::{Deserialize, Serialize};

use crate::table::Table;

/// The number of a layout: a positive 63-bit hash of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayoutId(pub i64);

/// Which columns of a table are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The number made from everything below.
    pub id: LayoutId,
    /// The table's name.
    pub table: String,
    /// The captured columns, in the order of the table.
    pub columns: Vec<String>,
    /// The key: places in `columns`, in key order.
    pub key: Vec<usize>,
}

impl Layout {
    /// The layout of `table` without its generated and `excluded` columns.
    pub fn of(table: &Table, excluded: &[String]) -> Self {
        let captured: Vec<usize> = (0..table.columns.len())
            .filter(|&at| {
                let column = &table.columns[at];
                !column.generated && !excluded.iter().any(|name| name.eq_ignore_ascii_case(&column.name))
            })
            .collect();
        let key = table.key.iter().filter_map(|at| captured.iter().position(|captured| captured == at)).collect();
        let columns = captured.iter().map(|&at| table.columns[at].name.clone()).collect();
        Self::new(table.name.clone(), columns, key)
    }

    /// Whether the key has the same columns, in the same order.
    pub fn has_key_of(&self, other: &Self) -> bool {
        let names =
            |layout: &Self| layout.key.iter().map(|&at| layout.columns[at].to_ascii_lowercase()).collect::<Vec<_>>();
        self.id == other.id || names(self) == names(other)
    }

    /// The layout with these names.
    pub fn new(table: String, columns: Vec<String>, key: Vec<usize>) -> Self {
        let mut hash = Fnv::new();
        hash.write(table.as_bytes());
        for column in &columns {
            hash.write(&[0]);
            hash.write(column.as_bytes());
        }
        for &at in &key {
            hash.write(&[0, 1]);
            hash.write(&(at as u64).to_le_bytes());
        }
        // SQLite has no unsigned integers, and 0 is kept free to mean "none".
        let id = i64::try_from(hash.finish() >> 1).expect("bug: 63 bits fit").max(1);
        Self { id: LayoutId(id), table, columns, key }
    }

    /// Whether the number belongs to the names and every key place to a column: asked of what came over the network.
    pub fn is_sound(&self) -> bool {
        !self.key.is_empty()
            && self.key.iter().all(|&at| at < self.columns.len())
            && Self::new(self.table.clone(), self.columns.clone(), self.key.clone()).id == self.id
    }

    /// The place of a column, by SQLite's rule: without regard to ASCII case.
    pub fn place(&self, column: &str) -> Option<usize> {
        let exact = self.columns.iter().position(|name| name == column);
        exact.or_else(|| self.columns.iter().position(|name| name.eq_ignore_ascii_case(column)))
    }

    /// The bit of `changed` that stands for the column at `place`. The columns from the 63rd on share one bit.
    pub fn changed_bit(place: usize) -> i64 {
        1 << place.min(LAST_BIT)
    }
}

/// The last bit of `changed` that an INTEGER can hold without its sign.
const LAST_BIT: usize = 62;

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): stable over versions of Rust, which its own hasher
/// does not promise.
#[derive(Clone, Copy, Debug)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Fnv {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of all that was taken in.
    pub fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::example;

    #[test]
    fn the_number_depends_on_names_order_and_key_alone() {
        let table = example("t", &["a", "b", "c"], &["a"]);
        let layout = Layout::of(&table, &[]);
        assert_eq!(layout.id, LayoutId(2_649_013_723_623_865_432), "a layout's number never changes");
        assert!(layout.is_sound());
        let other = |columns: &[&str], key: &[&str]| Layout::of(&example("t", columns, key), &[]).id;
        assert_ne!(layout.id, other(&["a", "c", "b"], &["a"]));
        assert_ne!(layout.id, other(&["a", "b", "c"], &["b"]));
        assert_ne!(layout.id, other(&["ab", "c"], &["ab"]));
    }

    #[test]
    fn excluded_and_generated_columns_are_left_out() {
        let mut table = example("t", &["gen", "a", "secret", "k"], &["k"]);
        table.columns[0].generated = true;
        let layout = Layout::of(&table, &["SECRET".to_owned()]);
        assert_eq!((layout.columns, layout.key), (vec!["a".to_owned(), "k".to_owned()], vec![1]));
    }

    #[test]
    fn the_last_columns_of_a_wide_table_share_a_bit() {
        assert_eq!(Layout::changed_bit(61), 1 << 61);
        assert_eq!(Layout::changed_bit(62), Layout::changed_bit(400));
    }
}
