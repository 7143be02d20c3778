//! What a run must have met at least once: kinds of schema, of statement, of outcome. A kind that never came up would be a
//! hole in the proof that nobody sees.

use std::collections::BTreeMap;

/// Every kind there is.
pub(crate) const KINDS: &[&str] = &[
    "key: INTEGER, the rowid",
    "key: INTEGER AUTOINCREMENT",
    "key: INTEGER DESC, not the rowid",
    "key: INT",
    "key: TEXT",
    "key: BLOB",
    "key: REAL",
    "key: NUMERIC",
    "key: typeless",
    "key: composite",
    "key: five columns",
    "key: NOCASE",
    "key: RTRIM",
    "key: ON CONFLICT REPLACE",
    "table: WITHOUT ROWID",
    "table: STRICT",
    "table: odd name",
    "column: odd name",
    "column: generated, virtual",
    "column: generated, stored",
    "column: NOT NULL",
    "column: NOT NULL ON CONFLICT REPLACE",
    "column: CHECK",
    "column: DEFAULT",
    "column: NOCASE or RTRIM",
    "unique: column",
    "unique: column ON CONFLICT REPLACE",
    "unique: column ON CONFLICT, another word",
    "unique: of a generated column",
    "unique: composite",
    "unique: partial",
    "unique: expression",
    "unique: partial expression",
    "unique: collated",
    "foreign key: CASCADE",
    "foreign key: SET NULL",
    "foreign key: other",
    "foreign key: to itself",
    "foreign key: deferred",
    "trigger: audit",
    "trigger: counter",
    "trigger: touches the row",
    "trigger: deletes another row",
    "trigger: RAISE(IGNORE)",
    "trigger: RAISE(ABORT)",
    "trigger: BEFORE INSERT writes",
    "pragma: recursive_triggers on",
    "pragma: foreign_keys on",
    "statement: INSERT",
    "statement: INSERT of several rows",
    "statement: INSERT DEFAULT VALUES",
    "statement: INSERT SELECT",
    "statement: INSERT with CTE",
    "statement: REPLACE",
    "statement: UPSERT DO NOTHING",
    "statement: UPSERT DO UPDATE",
    "statement: UPDATE",
    "statement: UPDATE of the key",
    "statement: UPDATE of all rows",
    "statement: UPDATE FROM",
    "statement: UPDATE to the same",
    "statement: DELETE",
    "statement: DELETE of everything",
    "statement: DELETE with CTE",
    "statement: key swap",
    "statement: RETURNING",
    "statement: OR REPLACE",
    "statement: OR IGNORE",
    "statement: OR FAIL",
    "statement: OR ABORT",
    "statement: OR ROLLBACK",
    "statement: VACUUM",
    "statement: COMMIT",
    "statement: ROLLBACK",
    "statement: ROLLBACK TO",
    "statement: RELEASE",
    "statement: CREATE UNIQUE INDEX while running",
    "statement: CREATE TRIGGER while running",
    "outcome: refused by a constraint",
    "outcome: changed rows",
    "outcome: a wrong type is refused first",
    "outcome: an expression raises first",
    super::ENDED_EARLY,
    "outcome: a suspect was journaled",
    "outcome: a record came back after its delete",
    "outcome: rows from before Rowcast",
    "run: ingested in the middle",
    "run: ingested in bits",
    "run: fed",
    "run: fetched",
];

/// How often each kind came up.
#[derive(Clone, Debug)]
pub(crate) struct Kinds(BTreeMap<&'static str, u64>);

impl Default for Kinds {
    fn default() -> Self {
        Self(KINDS.iter().map(|&kind| (kind, 0)).collect())
    }
}

impl Kinds {
    /// One more of it.
    pub(crate) fn hit(&mut self, kind: &str) {
        *self.0.get_mut(kind).unwrap_or_else(|| panic!("no such kind: {kind}")) += 1;
    }

    /// As many more as another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.get_mut(kind).unwrap() += count;
        }
    }

    /// How often it came up.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.0[kind]
    }

    /// Those that never came up.
    pub(crate) fn never(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, count)| **count == 0).map(|(kind, _)| *kind).collect()
    }

    /// All of them, a line each.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|(kind, count)| format!("{count:9}  {kind}\n")).collect()
    }
}
