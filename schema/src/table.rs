//! The shape of a table, as SQLite describes it, and the reasons why one cannot be replicated.
//!
//! The sidecar fills these from `PRAGMA table_list`, `table_xinfo`, `index_list` and `index_xinfo`; here they are plain
//! data, so that every rule about a shape can be tested without a database.

use crate::record::{Collation, KeyColumn};
use crate::value::Affinity;

/// The most columns a replicated table may have: our triggers name each of them in one expression, and SQLite's
/// default limits on expression depth (1,000) and columns (2,000) leave room for this many with certainty.
pub const COLUMNS_MAX: usize = 500;

/// A table of the service, as it is in the database now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The name as the database spells it.
    pub name: String,
    /// What `PRAGMA table_list` calls it.
    pub kind: Kind,
    /// All columns in the order of the table, generated ones included.
    pub columns: Vec<Column>,
    /// The primary key: places in `columns`, in key order. Empty when the table declares none.
    pub key: Vec<usize>,
    /// The primary key has an index of its own, or is the table: then it is no other name of the rowid, whatever its type.
    pub key_indexed: bool,
    /// Declared WITHOUT ROWID.
    pub without_rowid: bool,
    /// Declared STRICT.
    pub strict: bool,
    /// Declared with AUTOINCREMENT.
    pub autoincrement: bool,
    /// UNIQUE constraints and unique indexes beside the primary key.
    pub uniques: Vec<Unique>,
    /// Names of the service's own triggers on this table.
    pub triggers: Vec<String>,
    /// What is done to one of its rows can change that row again before our triggers run: foreign keys lead from this table back to
    /// it, at once or by way of others, or one that refers to it has triggers of the service.
    pub comes_back: bool,
    /// The `CREATE TABLE` statement, as stored.
    pub sql: String,
    /// The `CREATE INDEX` statements of the table, as stored.
    pub index_sql: Vec<String>,
}

/// What sort of table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary table.
    Table,
    /// A view.
    View,
    /// A virtual table.
    Virtual,
    /// A table that a virtual table keeps its data in.
    Shadow,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name as the table spells it.
    pub name: String,
    /// The declared type, possibly empty.
    pub declared_type: String,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// The text of the DEFAULT clause.
    pub default: Option<String>,
    /// Computed by SQLite: never written by anyone.
    pub generated: bool,
    /// The collation of the column; in a key column, that of the key.
    pub collation: String,
}

/// A UNIQUE constraint or unique index that is not the primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The index's name.
    pub index: String,
    /// What is unique, in index order.
    pub terms: Vec<Term>,
    /// The WHERE of a partial index, as its text stands in the CREATE INDEX statement.
    pub predicate: Option<String>,
}

impl Unique {
    /// The texts of its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().filter_map(|term| match term {
            Term::Expression(text, _) => Some(text.as_str()),
            Term::Column(..) => None,
        })
    }
}

/// One term of a unique index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A column, by its place in the table, under a collation.
    Column(usize, String),
    /// An expression, as its text stands in the CREATE INDEX statement, under a collation.
    Expression(String, String),
}

/// Why a table cannot be replicated, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is in the way.
    pub reason: String,
    /// What mends it.
    pub fix: String,
}

impl Table {
    /// The column of that name, by SQLite's rule: without regard to ASCII case.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The affinity of the column at `at`.
    pub fn affinity(&self, at: usize) -> Affinity {
        Affinity::of(&self.columns[at].declared_type, self.strict)
    }

    /// Whether the primary key is an alias of the rowid: one column declared exactly INTEGER in a rowid table, and not
    /// `INTEGER PRIMARY KEY DESC`.
    pub fn has_integer_key(&self) -> bool {
        !self.without_rowid
            && !self.key_indexed
            && matches!(self.key[..], [at] if self.columns[at].declared_type.eq_ignore_ascii_case("INTEGER"))
    }

    /// Whether a unique index has the whole key among its columns: no two records can claim the same of it, and SQLite
    /// does not take one with the rowid as the target of an upsert.
    pub fn is_covered_by_key(&self, unique: &Unique) -> bool {
        let has = |&key: &usize| {
            unique.terms.iter().any(|term| match term {
                Term::Column(at, collation) => {
                    let as_strict = collation.eq_ignore_ascii_case(&self.columns[key].collation)
                        || collation.eq_ignore_ascii_case("BINARY");
                    *at == key && (as_strict || self.has_integer_key())
                }
                Term::Expression(..) => false,
            })
        };
        !self.key.is_empty() && self.key.iter().all(has)
    }

    /// What a record id needs to know of the key, in key order; `None` when a collation is not built in.
    pub fn key_columns(&self) -> Option<Vec<KeyColumn>> {
        let column = |&at: &usize| {
            let collation = Collation::named(&self.columns[at].collation)?;
            Some(KeyColumn { collation, holds_text: self.affinity(at) == Affinity::Text })
        };
        self.key.iter().map(column).collect()
    }

    /// Why this table cannot be replicated without `excluded` columns; empty when it can.
    pub fn refusals(&self, excluded: &[String]) -> Vec<Refusal> {
        let name = &self.name;
        let refuse = |reason: String, fix: String| vec![Refusal { reason, fix }];
        match self.kind {
            Kind::Table => {}
            Kind::View => {
                return refuse("it is a view".into(), "declare the tables it reads instead".into());
            }
            Kind::Virtual => {
                return refuse(
                    "it is a virtual table; triggers cannot watch it".into(),
                    "replicate the table it is built from, and rebuild it on each node".into(),
                );
            }
            Kind::Shadow => {
                return refuse("it holds the data of a virtual table".into(), "leave it out".into());
            }
        }
        if self.key.is_empty() {
            return refuse(
                "it has no primary key, so a row cannot be told from another on a different node".into(),
                format!("rebuild `{name}` with a PRIMARY KEY, best a UUID: id TEXT PRIMARY KEY NOT NULL"),
            );
        }
        let mut refusals = Vec::new();
        for &at in &self.key {
            self.refuse_key_column(&self.columns[at], excluded, &mut refusals);
        }
        for column in &self.columns {
            let kept_out = excluded.iter().any(|name| name.eq_ignore_ascii_case(&column.name));
            if kept_out && column.not_null && column.default.is_none() && !column.generated {
                refusals.push(Refusal {
                    reason: format!("column `{}` is excluded but NOT NULL without a default", column.name),
                    fix: "give it a DEFAULT, or replicate it".into(),
                });
            }
        }
        if self.columns.len() > COLUMNS_MAX {
            refusals.push(Refusal {
                reason: format!("it has {} columns, more than {COLUMNS_MAX}", self.columns.len()),
                fix: "split the table".into(),
            });
        }
        refusals
    }

    fn refuse_key_column(&self, column: &Column, excluded: &[String], refusals: &mut Vec<Refusal>) {
        let column_name = &column.name;
        if !column.not_null && !self.has_integer_key() && !self.without_rowid {
            refusals.push(Refusal {
                reason: format!("key column `{column_name}` may be NULL, and SQLite lets NULL keys repeat"),
                fix: format!("rebuild `{}` with `{column_name}` NOT NULL", self.name),
            });
        }
        if Collation::named(&column.collation).is_none() {
            refusals.push(Refusal {
                reason: format!(
                    "key column `{column_name}` uses the collation `{}`, which only the service knows",
                    column.collation
                ),
                fix: "use BINARY, NOCASE or RTRIM in the key".into(),
            });
        }
        if excluded.iter().any(|name| name.eq_ignore_ascii_case(column_name)) {
            refusals.push(Refusal {
                reason: format!("key column `{column_name}` is excluded"),
                fix: "take it out of `exclude`: a record is known by its whole key".into(),
            });
        }
    }
}

/// A table for tests: `key` names the key columns, all columns are NOT NULL TEXT.
#[doc(hidden)]
pub fn example(name: &str, columns: &[&str], key: &[&str]) -> Table {
    let columns: Vec<Column> = columns
        .iter()
        .map(|column| Column {
            name: (*column).to_owned(),
            declared_type: "TEXT".to_owned(),
            not_null: true,
            default: None,
            generated: false,
            collation: "BINARY".to_owned(),
        })
        .collect();
    let key = key.iter().filter_map(|name| columns.iter().position(|column| column.name == *name)).collect();
    Table {
        name: name.to_owned(),
        kind: Kind::Table,
        columns,
        key,
        without_rowid: false,
        strict: false,
        autoincrement: false,
        key_indexed: false,
        uniques: Vec::new(),
        triggers: Vec::new(),
        comes_back: false,
        sql: String::new(),
        index_sql: Vec::new(),
    }
}
