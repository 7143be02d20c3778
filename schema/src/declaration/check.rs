//! The declaration against the real database: what cannot be replicated, what is worth knowing, and what to do.
//!
//! Why the shape of a table is in the way is [`Table::refusals`]; here is what depends on the declaration or on the
//! other tables.

use std::fmt;

use serde::Serialize;

use super::{
    Declaration, TableDeclaration, Triggers, is_event_table, is_event_table_of, migrations, one_line, references,
    shown, suggestion,
};
use crate::event_table;
use crate::table::{Refusal, Table, Term, Unique};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The table cannot be replicated as it is.
    Refused,
    /// The table is declared and not in the database: normal on a fresh node, which gets it from another; an error on
    /// one that should have it.
    Missing,
    /// The table is replicated, and somebody should know something about it.
    Warning,
}

/// One thing that a check found about a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The table, as the database spells it; as the file does where the database lacks it.
    pub table: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, a fragment that reads after the table's name and a colon.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

/// One line for an operator.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, severity, reason, fix } = self;
        let (table, reason, fix) = (shown(table), one_line(reason), one_line(fix));
        match severity {
            Severity::Refused => write!(f, "table `{table}` cannot be replicated: {reason}; fix: {fix}"),
            Severity::Missing => write!(f, "table `{table}` is missing: {reason}; fix: {fix}"),
            Severity::Warning => write!(f, "table `{table}`: {reason}; fix: {fix}"),
        }
    }
}

impl Declaration {
    /// What is to be said about the enabled tables, in the order of the file. `tables` are all of the database,
    /// Rowcast's own included. A table that is refused gets no warnings beside.
    pub fn check(&self, tables: &[Table]) -> Vec<Finding> {
        self.enabled().flat_map(|declared| self.check_table(declared, tables)).collect()
    }

    fn check_table(&self, declared: &TableDeclaration, tables: &[Table]) -> Vec<Finding> {
        let find = |name: &str| tables.iter().find(|table| table.name.eq_ignore_ascii_case(name));
        let Some(table) = find(&declared.name) else {
            let undeclared = tables.iter().map(|table| table.name.as_str()).filter(|name| self.table(name).is_none());
            return vec![Finding {
                table: declared.name.clone(),
                severity: Severity::Missing,
                reason: format!("it is declared, and not in the database{}", suggestion(&declared.name, undeclared)),
                fix: "create it, correct its name in the schema TOML, or let this node get it from another".to_owned(),
            }];
        };
        let refused = refusals(table, &declared.exclude, tables);
        let (severity, found) = if refused.is_empty() {
            let undeclared = |name: &String| {
                let known = self.table(name).is_some_and(|declared| declared.enabled);
                !known && find(name).is_some()
            };
            (Severity::Warning, warnings(table, declared, undeclared))
        } else {
            (Severity::Refused, refused)
        };
        let finding = |Refusal { reason, fix }| Finding { table: table.name.clone(), severity, reason, fix };
        found.into_iter().map(finding).collect()
    }
}

/// Why `table` cannot be replicated without `excluded` columns, in a database of `tables`.
pub(super) fn refusals(table: &Table, excluded: &[String], tables: &[Table]) -> Vec<Refusal> {
    if is_event_table(table) {
        return vec![Refusal {
            reason: "it is a table that Rowcast makes for events".to_owned(),
            fix: "declare the table whose events it holds".to_owned(),
        }];
    }
    let mut refusals = table.refusals(excluded);
    for name in excluded.iter().filter(|name| table.column(name).is_none()) {
        // Not a warning: a column that was to stay on its node would be on all of them.
        let guess = suggestion(name, table.columns.iter().map(|column| column.name.as_str()));
        refusals.push(Refusal {
            reason: format!("excluded column `{}` does not exist{guess}", shown(name)),
            fix: "correct or remove it in `exclude`".to_owned(),
        });
    }
    for unique in table.uniques.iter().filter(|unique| defaults_collide(table, unique, excluded)) {
        let columns = terms(table, unique);
        refusals.push(Refusal {
            reason: format!("{columns} is excluded and UNIQUE with a default, which only one row can have"),
            fix: "remove the DEFAULT, so that rows from other nodes have NULL there, or replicate it".to_owned(),
        });
    }
    let taken = |other: &&Table| is_event_table_of(&other.name, &table.name) && !is_event_table(other);
    if let Some(other) = tables.iter().find(taken) {
        refusals.push(Refusal {
            reason: format!("its events belong into `{}`, a name that the service itself uses", other.name),
            fix: format!("rename `{}`: Rowcast needs the name {}", other.name, event_table::name(&table.name)),
        });
    }
    refusals
}

/// What is worth knowing about a table that can be replicated. `unreplicated` tells of tables that stay on their node.
fn warnings(table: &Table, declared: &TableDeclaration, unreplicated: impl Fn(&String) -> bool) -> Vec<Refusal> {
    let excluded = &declared.exclude;
    let mut warnings: Vec<Refusal> = migrations::stays(table).into_iter().collect();
    if table.has_integer_key() {
        warnings.push(integer_key());
    }
    let claims: Vec<_> = table.uniques.iter().filter(|unique| can_be_claimed_twice(table, unique, excluded)).collect();
    if !claims.is_empty() {
        let claims: Vec<_> = claims.into_iter().map(|unique| terms(table, unique)).collect();
        warnings.push(Refusal {
            reason: format!(
                "two nodes can claim the same value of UNIQUE {}; the greater version keeps it, and the other record is \
                 parked: out of the table on every node, visible in `rowcast status`, back when the value is free",
                claims.join(" and of UNIQUE ")
            ),
            fix: "nothing, where no two nodes can choose the same value; else make it part of the primary key".to_owned(),
        });
    }
    let apart: Vec<_> = references::tables(&table.sql).into_iter().filter(unreplicated).collect();
    if !apart.is_empty() {
        warnings.push(Refusal {
            reason: format!("it refers to {}, not replicated: elsewhere its rows may refer to nothing", names(&apart)),
            fix: "replicate both, or see to it that every node has the same rows there".to_owned(),
        });
    }
    if !table.triggers.is_empty() && declared.triggers == Triggers::Skip {
        warnings.push(Refusal {
            reason: format!("rows from other nodes do not fire its triggers {}", names(&table.triggers)),
            fix: "nothing, where they write replicated tables only: those rows arrive by themselves; what they write \
                  elsewhere has to be made on each node, or needs triggers = \"run\""
                .to_owned(),
        });
    }
    warnings
}

/// The same for every table, so that it can be said once for all of them.
///
/// AUTOINCREMENT with a range for each node is no remedy: a row that arrives from another node's range moves
/// `sqlite_sequence` into that range.
fn integer_key() -> Refusal {
    Refusal {
        reason: "its key is an INTEGER PRIMARY KEY: SQLite picks the next free number, so two nodes that insert at the \
                 same time pick the same one, and one row replaces the other"
            .to_owned(),
        fix: "make keys that no two nodes can pick, best UUIDv7 or ULID (id TEXT PRIMARY KEY NOT NULL), or integers that \
              the service takes from a range of its own on each node; or let one node alone insert"
            .to_owned(),
    }
}

/// Whether two records can hold one value: not when the value contains the key, nor when it never leaves its node.
fn can_be_claimed_twice(table: &Table, unique: &Unique, excluded: &[String]) -> bool {
    let has_key = table.key.iter().all(|&key| {
        let collation = &table.columns[key].collation;
        unique.terms.iter().any(
            |term| matches!(term, Term::Column(at, compared) if *at == key && compared.eq_ignore_ascii_case(collation)),
        )
    });
    let stays = unique.terms.iter().any(|term| is_excluded(table, term, excluded, Some("NULL")));
    !has_key && !stays
}

/// Whether every row from another node would have the same value.
fn defaults_collide(table: &Table, unique: &Unique, excluded: &[String]) -> bool {
    let stays =
        |term: &Term| is_excluded(table, term, excluded, None) && !is_excluded(table, term, excluded, Some("NULL"));
    !unique.terms.is_empty() && unique.terms.iter().all(stays)
}

/// Whether the term is an excluded column, with that default if one is asked for. No default is NULL.
fn is_excluded(table: &Table, term: &Term, excluded: &[String], default: Option<&str>) -> bool {
    let Term::Column(at, _) = term else { return false };
    let column = &table.columns[*at];
    let has = column.default.as_deref().unwrap_or("NULL").trim();
    excluded.iter().any(|name| name.eq_ignore_ascii_case(&column.name))
        && default.is_none_or(|asked| asked.eq_ignore_ascii_case(has))
}

/// `(email, lower(name))`.
fn terms(table: &Table, unique: &Unique) -> String {
    let term = |term: &Term| match term {
        Term::Column(at, _) => table.columns[*at].name.clone(),
        Term::Expression(text, _) => text.clone(),
    };
    format!("({})", unique.terms.iter().map(term).collect::<Vec<_>>().join(", "))
}

fn names(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Kind, example};

    /// What a check finds, a line each.
    fn found(declared: &str, tables: &[Table]) -> String {
        let declaration = Declaration::parse("schema.toml", &format!("service = 's'\n{declared}")).expect(declared);
        let lines: Vec<_> = declaration.check(tables).iter().map(|finding| format!("{finding}\n")).collect();
        lines.concat()
    }

    fn with(name: &str, change: impl FnOnce(&mut Table)) -> Table {
        let mut table = example(name, &["id", "email", "note"], &["id"]);
        change(&mut table);
        table
    }

    fn unique(terms: Vec<Term>) -> Unique {
        Unique { index: "sqlite_autoindex_1".to_owned(), terms, predicate: None }
    }

    fn column(at: usize) -> Term {
        Term::Column(at, "BINARY".to_owned())
    }

    #[test]
    fn a_table_without_faults_has_no_findings() {
        let tables = [with("Track", |_| ()), with("View", |table| table.kind = Kind::View)];
        assert_eq!(
            found("[tables.TRACK]\n[tables.View]\nenabled = false\n[tables.Gone]\nenabled = false", &tables),
            ""
        );
    }

    #[test]
    fn what_cannot_be_replicated_is_told_with_its_fix() {
        let events = example("Track_Events", &event_table::REQUIRED_COLUMNS, &["id"]);
        let tables = [
            with("Track", |_| ()),
            with("no key", |table| table.key.clear()),
            with("nullable", |table| table.columns[0].not_null = false),
            with("collated", |table| table.columns[0].collation = "GERMAN\nDIN".to_owned()),
            with("search", |table| table.kind = Kind::Virtual),
            with("tidy", |table| table.columns[2].default = Some("''".to_owned())),
            with("secret", |table| {
                table.columns[1].default = Some("'nobody'".to_owned());
                table.uniques.push(unique(vec![column(1)]));
            }),
            with("Order", |_| ()),
            with("order_events", |_| ()),
            events,
        ];
        insta::assert_snapshot!(found(
            "[tables.Tracks]\n[tables.Nothing]\n[tables.'no key']\n[tables.nullable]\n[tables.collated]\n[tables.search]\n\
             [tables.tidy]\nexclude = ['NOTES', 'nothing', 'id', 'email']\n[tables.secret]\nexclude = ['email']\n\
             [tables.Order]\n[tables.track_events]",
            &tables
        ));
    }

    #[test]
    fn what_is_worth_knowing_is_told_with_its_remedies() {
        let tables = [
            with("Track", |table| {
                table.columns[0].declared_type = "INTEGER".to_owned();
                table.triggers = vec!["track_search".to_owned(), "odd name".to_owned()];
                table.sql =
                    "CREATE TABLE Track (id INTEGER PRIMARY KEY, email REFERENCES Genre, note REFERENCES Album)"
                        .to_owned();
            }),
            with("Genre", |_| ()),
            with("alembic_version", |_| ()),
            with("Album", |table| {
                table.uniques = vec![
                    unique(vec![column(1), Term::Expression("lower(note)".to_owned(), "BINARY".to_owned())]),
                    unique(vec![Term::Column(2, "NOCASE".to_owned())]),
                ];
                table.sql = "CREATE TABLE Album (id REFERENCES Nowhere, email REFERENCES album)".to_owned();
            }),
        ];
        insta::assert_snapshot!(found(
            "[tables.Track]\n[tables.Genre]\nenabled = false\n[tables.Album]\n[tables.alembic_version]",
            &tables
        ));
    }

    #[test]
    fn a_unique_value_that_two_records_cannot_both_claim_is_no_warning() {
        let key_within = with("a", |table| table.uniques.push(unique(vec![column(1), column(0)])));
        assert_eq!(found("[tables.a]", &[key_within]), "");
        let stays_here = with("a", |table| {
            table.columns[1].not_null = false;
            table.uniques.push(unique(vec![column(1)]));
        });
        assert_eq!(found("[tables.a]\nexclude = ['Email']", std::slice::from_ref(&stays_here)), "");
        assert!(found("[tables.a]", &[stays_here]).contains("UNIQUE (email)"));
        let other_case = with("a", |table| table.uniques.push(unique(vec![Term::Column(0, "NOCASE".to_owned())])));
        assert!(found("[tables.a]", &[other_case]).contains("UNIQUE (id)"));
    }

    #[test]
    fn a_table_is_one_of_events_by_its_columns_not_by_its_name_alone() {
        let own = example("Track_Events", &event_table::REQUIRED_COLUMNS, &["id"]);
        assert_eq!(found("[tables.Track]", &[with("Track", |_| ()), own]), "");
        let services = with("Track_Events", |_| ());
        assert!(
            found("[tables.Track]", &[with("Track", |_| ()), services.clone()]).contains("the service itself uses")
        );
        assert_eq!(found("[tables.Track_Events]", &[services]), "");
    }

    #[test]
    fn a_finding_serializes_for_status_pages() {
        let finding =
            Finding { table: "t".into(), severity: Severity::Missing, reason: "gone".into(), fix: "make it".into() };
        let json = serde_json::to_string(&finding).expect("plain data");
        assert_eq!(json, r#"{"table":"t","severity":"missing","reason":"gone","fix":"make it"}"#);
    }
}
