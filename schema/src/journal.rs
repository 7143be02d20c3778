//! The journal and its triggers, as SQL text.
//!
//! One journal serves all tables, so its numbers order changes across tables. The triggers copy typed cells; they
//! build no JSON (that loses doubles), call nothing but `typeof` and `julianday`, cannot raise, and need no SQLite newer
//! than 3.24 and no setting of the service's connection.
//!
//! Two things that SQLite does not tell a trigger are handled here:
//! - REPLACE that evicts a row by a second UNIQUE index fires no delete trigger. A BEFORE trigger journals the possible
//!   victims as suspects; ingest looks whether they are gone.
//! - Where the service has triggers of its own on the table, theirs may run before ours and `NEW` is then stale; so it is
//!   where a foreign key's CASCADE or SET NULL comes back to the row. There ours read the row back from the table, and
//!   journal a delete as a suspect.

use crate::identifier::{literal, quoted, quoted_list};
use crate::layout::Layout;
use crate::record::Collation;
use crate::table::{Column, Table, Term, Unique};
use crate::value::Affinity;
use crate::{OWN_PREFIX, definition};

/// The journal's name.
pub const JOURNAL: &str = "_rowcast_journal";

/// How the name of a table's trigger for deletes ends: the only one that names no column but the key's.
pub const DELETE_SUFFIX: &str = "_delete";

/// What a journal row says was done. The number stands in the column `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A row came; `c0…` is the row.
    Create = 1,
    /// A row changed; `c0…` is the row after the change.
    Update = 2,
    /// A row went; `c0…` is its key, in key order.
    Delete = 3,
    /// A row may have gone; `c0…` is its key, in key order.
    Suspect = 4,
}

impl Op {
    /// The operation of that number.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete, Self::Suspect].into_iter().find(|op| *op as i64 == number)
    }
}

/// The statement that makes the journal for rows of up to `width` columns.
pub fn create(width: usize) -> String {
    let cells: String = (0..width).map(|at| format!(", c{at}")).collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {JOURNAL} (n INTEGER PRIMARY KEY, layout INTEGER, op INTEGER, changed INTEGER, at INTEGER{cells})"
    )
}

/// The statements that make a journal of `from` columns take rows of `to`.
pub fn widen(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|at| format!("ALTER TABLE {JOURNAL} ADD COLUMN c{at}")).collect()
}

/// A trigger of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name, unquoted.
    pub name: String,
    /// The whole CREATE TRIGGER statement.
    pub sql: String,
}

/// The triggers that capture `table` under `layout`.
pub fn triggers(table: &Table, layout: &Layout) -> Vec<Trigger> {
    let writer = Writer { table, layout, read_back: !table.triggers.is_empty() || table.comes_back };
    let mut triggers = vec![writer.insert(), writer.update(), writer.delete()];
    if !table.uniques.is_empty() {
        triggers.push(writer.evicted_by_insert());
        triggers.push(writer.evicted_by_update());
    }
    triggers
}

/// Milliseconds since 1970, by the clock of the machine. SQLite counts in them; as a number of days, which is what it gives out,
/// they are off by up to 20 µs to both sides, so the nearest is taken.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)";

/// Columns of one unique index whose values are seen as they are in every combination; of more, all or none.
const UNLIKE_MAX: usize = 3;

struct Writer<'a> {
    table: &'a Table,
    layout: &'a Layout,
    read_back: bool,
}

impl Writer<'_> {
    fn trigger(&self, suffix: &str, event: &str, body: &str) -> Trigger {
        let name = format!("{OWN_PREFIX}{}_{suffix}", self.table.name);
        let sql = format!("CREATE TRIGGER {} {event} ON {} {body}\nEND", quoted(&name), quoted(&self.table.name));
        Trigger { name, sql }
    }

    fn insert(&self) -> Trigger {
        let row = self.journal_row(Op::Create, "-1");
        self.trigger("insert", "AFTER INSERT", &format!("BEGIN\n  {row};"))
    }

    fn update(&self) -> Trigger {
        let changed: Vec<String> = (0..self.layout.columns.len()).map(|at| self.differs(at)).collect();
        let mask = (0..self.layout.columns.len())
            .map(|at| format!("({} << {})", changed[at], Layout::changed_bit(at).trailing_zeros()));
        let mask = balanced(mask.collect(), " | ");
        let any = balanced(changed.clone(), " OR ");
        let rekeyed = self.key_terms("OLD", "IS NOT", "NEW").map(|term| format!("({term})")).collect();
        let rekeyed = balanced(rekeyed, " OR ");
        // The delete of the old key comes first: one trigger, because SQLite promises no order between two.
        let gone =
            self.insert_into_journal(self.gone(), "0", self.key_names().map(|name| format!("OLD.{}", quoted(name))));
        let row = self.journal_row(Op::Update, &mask);
        self.trigger("update", "AFTER UPDATE", &format!("WHEN {any} BEGIN\n  {gone} WHERE {rekeyed};\n  {row};"))
    }

    fn delete(&self) -> Trigger {
        let gone =
            self.insert_into_journal(self.gone(), "0", self.key_names().map(|name| format!("OLD.{}", quoted(name))));
        self.trigger("delete", "AFTER DELETE", &format!("BEGIN\n  {gone};"))
    }

    fn evicted_by_insert(&self) -> Trigger {
        // The key of a row that SQLite numbers is not known yet, and reads -1: the row that has that key is not the same.
        let known =
            self.table.has_integer_key().then(|| self.key_names().map(|name| format!("NEW.{} <> -1", quoted(name))));
        let victims = self.victims("NEW", known.into_iter().flatten().next().as_deref());
        self.trigger("evicted_by_insert", "BEFORE INSERT", &format!("BEGIN{victims}"))
    }

    fn evicted_by_update(&self) -> Trigger {
        // SQLite computes the generated columns of NEW here from those columns only that the trigger names, and takes NULL
        // for the others. So all are named, in a condition that always holds.
        let has_generated = self.table.columns.iter().any(|column| column.generated);
        let written = self.table.columns.iter().filter(|column| has_generated && !column.generated);
        let named: Vec<String> = written.map(|column| format!("(NEW.{} IS NULL)", quoted(&column.name))).collect();
        let when = if named.is_empty() { String::new() } else { format!("WHEN {} >= 0 ", balanced(named, " + ")) };
        self.trigger("evicted_by_update", "BEFORE UPDATE", &format!("{when}BEGIN{}", self.victims("OLD", None)))
    }

    /// What a delete is journaled as.
    fn gone(&self) -> Op {
        if self.read_back { Op::Suspect } else { Op::Delete }
    }

    fn key_names(&self) -> impl Iterator<Item = &str> {
        self.layout.key.iter().map(|&at| self.layout.columns[at].as_str())
    }

    /// Compares the keys of two rows, column by column, as the key's index does: the column's own collation may be coarser.
    fn key_terms<'a>(&'a self, left: &'a str, by: &'a str, right: &'a str) -> impl Iterator<Item = String> + 'a {
        self.table.key.iter().map(move |&at| {
            let Column { name, collation, .. } = &self.table.columns[at];
            let term = format!("{left}.{0} {by} {right}.{0}", quoted(name));
            if self.table.has_integer_key() { term } else { format!("{term} COLLATE {}", quoted(collation)) }
        })
    }

    /// Journals the row after the change: from NEW, or read back where NEW may be stale.
    fn journal_row(&self, op: Op, changed: &str) -> String {
        if !self.read_back {
            let cells = self.layout.columns.iter().map(|name| format!("NEW.{}", quoted(name)));
            return self.insert_into_journal(op, changed, cells);
        }
        let cells = self.layout.columns.iter().map(|name| format!("now.{}", quoted(name)));
        let key: Vec<String> = self.key_terms("now", "IS", "NEW").collect();
        format!(
            "{} FROM {} AS now WHERE {}",
            self.insert_into_journal(op, changed, cells),
            quoted(&self.table.name),
            key.join(" AND ")
        )
    }

    fn insert_into_journal(&self, op: Op, changed: &str, cells: impl Iterator<Item = String>) -> String {
        let cells: Vec<String> = cells.collect();
        let places: String = (0..cells.len()).map(|at| format!(", c{at}")).collect();
        format!(
            "INSERT INTO {JOURNAL} (layout, op, changed, at{places})\n    SELECT {}, {}, {changed}, {NOW}, {}",
            self.layout.id.0,
            op as i64,
            cells.join(", ")
        )
    }

    /// Whether the column at `at` of the layout differs between OLD and NEW, as 0 or 1.
    fn differs(&self, at: usize) -> String {
        let name = quoted(&self.layout.columns[at]);
        let place = self.table.column(&self.layout.columns[at]).expect("bug: a layout names columns of its table");
        // The type is asked for only where values of two types can compare equal: 1 and 1.0. And there alone SQLite
        // stores -0.0, which no SQL comparison tells from 0.0: two zeros count as a change.
        if self.table.affinity(place) == Affinity::Blob {
            format!(
                "(OLD.{name} IS NOT NEW.{name} COLLATE BINARY OR typeof(OLD.{name}) <> typeof(NEW.{name}) OR (typeof(NEW.{name}) = 'real' AND NEW.{name} = 0.0))"
            )
        } else {
            format!("(OLD.{name} IS NOT NEW.{name} COLLATE BINARY)")
        }
    }

    /// Journals the rows, other than the one with the key of `spared` where that is `known`, that hold what NEW claims.
    fn victims(&self, spared: &str, known: Option<&str>) -> String {
        let spared: Vec<String> = self.key_terms("held", "IS", spared).chain(known.map(str::to_owned)).collect();
        let spared = spared.join(" AND ");
        let suspects = |which: &str| {
            let key = self.key_names().map(|name| format!("held.{}", quoted(name)));
            let suspects = self.insert_into_journal(Op::Suspect, "0", key);
            format!("\n  {suspects} FROM {} AS held WHERE {which} AND NOT ({spared});", quoted(&self.table.name))
        };
        let (elements, _) = definition::split_list(&self.table.sql);
        let mut body = String::new();
        for unique in &self.table.uniques {
            // Without the predicate SQLite could not use the index, and every write of the service would read the whole
            // table. It comes first: an expression may raise where it does not hold (JSON of what is no JSON).
            let predicate = unique.predicate.as_deref();
            let claimed = |number: Option<&Column>, as_they_are: &[usize]| {
                let unknown = number.map(|key| format!("NEW.{} = -1", quoted(&key.name)));
                let predicate_holds = predicate.map(|predicate| format!("({predicate})"));
                let claims =
                    unique.terms.iter().map(|term| self.claimed(term, predicate, number.is_some(), as_they_are));
                unknown.into_iter().chain(predicate_holds).chain(claims).collect::<Vec<_>>().join(" AND ")
            };
            // A key that reads -1 may be one that SQLite numbers, and may be -1.
            let number = known.and_then(|_| self.number_behind(unique)).map(Some);
            for (tells, columns) in self.unlike_their_columns(unique) {
                for number in [None].into_iter().chain(number) {
                    let claim = claimed(number, &columns);
                    body.push_str(&suspects(&tells.iter().cloned().chain([claim]).collect::<Vec<_>>().join(" AND ")));
                }
            }
            // What it claims may be hidden: then any row may be in its way that has the rest.
            if let Some(hidden) = self.hidden_claims(unique, &elements) {
                body.push_str(&suspects(&hidden));
            }
        }
        body
    }

    /// What tells that it is not known here what NEW claims of a unique index: a NULL that a default replaces which only SQLite can
    /// compute, or from which a generated column is computed. None for nearly every index.
    fn hidden_claims(&self, unique: &Unique, elements: &[String]) -> Option<String> {
        let columns = &self.table.columns;
        let is_term =
            |at: usize| unique.terms.iter().any(|term| matches!(term, Term::Column(place, _) if *place == at));
        let texts: Vec<&str> = unique.expressions().chain(unique.predicate.as_deref()).collect();
        let named = |texts: &[&str], name: &str| texts.iter().any(|text| definition::names(text, name));
        // A generated column may be computed from another one.
        let mut generated: Vec<(usize, &str)> = Vec::new();
        loop {
            let known = generated.len();
            for (at, column) in columns.iter().enumerate().filter(|(_, column)| column.generated) {
                let by_another = generated.iter().any(|(_, text)| definition::names(text, &column.name));
                let new = !generated.iter().any(|(place, _)| *place == at);
                if new && (by_another || is_term(at) || named(&texts, &column.name)) {
                    generated.push((at, definition::of_column(elements, &column.name, &self.table.sql)));
                }
            }
            if generated.len() == known {
                break;
            }
        }
        let definitions: Vec<&str> = generated.iter().map(|(_, text)| *text).collect();
        let hides = |(at, column): &(usize, &Column)| {
            let Some(default) = column.default.as_deref().filter(|_| column.not_null && !column.generated) else {
                return false;
            };
            let of_chance = ["random", "uuid"].iter().any(|word| default.to_ascii_lowercase().contains(word));
            let computed = constant(default).is_none() && !of_chance;
            named(&definitions, &column.name) || (computed && (is_term(*at) || named(&texts, &column.name)))
        };
        let hidden = columns.iter().enumerate().filter(hides);
        let hidden: Vec<String> = hidden.map(|(_, column)| format!("(NEW.{} IS NULL)", quoted(&column.name))).collect();
        if hidden.is_empty() {
            return None;
        }
        let plain = unique.terms.iter().filter(|term| match term {
            Term::Column(at, _) => !columns[*at].generated && !hides(&(*at, &columns[*at])),
            Term::Expression(..) => false,
        });
        let known: Vec<String> = plain.map(|term| self.claimed(term, None, false, &[])).collect();
        let hidden = format!("({})", balanced(hidden, " OR "));
        Some(known.into_iter().chain([hidden]).collect::<Vec<_>>().join(" AND "))
    }

    /// The key that SQLite numbers, where an expression of a unique index names it.
    fn number_behind(&self, unique: &Unique) -> Option<&Column> {
        unique.expressions().next()?; // A predicate alone is looked at in the rows that are there.
        let key = &self.table.columns[*self.table.key.first()?];
        let named =
            unique.expressions().chain(unique.predicate.as_deref()).any(|text| definition::names(text, &key.name));
        (named && self.table.has_integer_key()).then_some(key)
    }

    /// The number that SQLite gives the next row.
    fn number(&self, column: &Column) -> String {
        let (key, table) = (quoted(&column.name), quoted(&self.table.name));
        let mut greatest = format!("ifnull((SELECT max({key}) FROM {table}), 0)");
        if self.table.autoincrement {
            let name = literal(&self.table.name);
            greatest = format!("max({greatest}, ifnull((SELECT seq FROM sqlite_sequence WHERE name = {name}), 0))");
        }
        format!("{greatest} + 1")
    }

    /// Which columns of a unique index's expressions hold values that they do not make of what they are given, such as text in one for
    /// numbers: each combination, with what tells that it is the one. What such a column holds is there as it was given, and must
    /// not be cast: the service's own expression may look at its type before it computes anything of it.
    fn unlike_their_columns(&self, unique: &Unique) -> Vec<(Option<String>, Vec<usize>)> {
        if unique.expressions().next().is_none() || self.table.strict {
            return vec![(None, Vec::new())];
        }
        let texts: Vec<&str> = unique.expressions().chain(unique.predicate.as_deref()).collect();
        let columns = self.table.columns.iter().enumerate();
        let named = columns.filter(|(_, column)| texts.iter().any(|text| definition::names(text, &column.name)));
        let unlike: Vec<(String, usize)> = named
            .filter_map(|(at, column)| match self.table.affinity(at) {
                Affinity::Blob => None,
                Affinity::Text => Some((format!("typeof(NEW.{}) = 'blob'", quoted(&column.name)), at)),
                _ => Some((format!("typeof(NEW.{}) IN ('text', 'blob')", quoted(&column.name)), at)),
            })
            .collect();
        if UNLIKE_MAX < unlike.len() {
            let any = balanced(unlike.iter().map(|(tells, _)| format!("({tells})")).collect(), " OR ");
            let columns = unlike.into_iter().map(|(_, at)| at).collect();
            return vec![(Some(format!("NOT ({any})")), Vec::new()), (Some(any), columns)];
        }
        let combination = |bits: usize| {
            let is_in = |at: usize| bits & (1 << at) != 0;
            let tells = unlike.iter().enumerate().map(|(at, (tells, _))| {
                let not = if is_in(at) { "" } else { "NOT " };
                format!("{not}({tells})")
            });
            let tells = tells.collect::<Vec<_>>().join(" AND ");
            let columns = unlike.iter().enumerate().filter(|(at, _)| is_in(*at)).map(|(_, (_, column))| *column);
            ((!tells.is_empty()).then_some(tells), columns.collect())
        };
        (0..1 << unlike.len()).map(combination).collect()
    }

    fn claimed(&self, term: &Term, predicate: Option<&str>, numbered: bool, as_they_are: &[usize]) -> String {
        match term {
            Term::Column(at, collation) => {
                let column = &self.table.columns[*at];
                format!("held.{} = {}{}", quoted(&column.name), brought(column), collate(collation))
            }
            // The inner scope gives the unqualified names of the expression the values of NEW. Those have collations, but no
            // affinity, by which `flag = '1'` is compared: a CAST gives it.
            Term::Expression(text, collation) => {
                let value = |(at, column): (usize, &Column)| {
                    let value = if numbered && self.table.key == [at] { self.number(column) } else { brought(column) };
                    match self.table.affinity(at) {
                        _ if as_they_are.contains(&at) => value,
                        Affinity::Blob => value,
                        Affinity::Text => format!("CAST({value} AS TEXT)"),
                        Affinity::Real => format!("CAST({value} AS REAL)"),
                        Affinity::Numeric | Affinity::Integer => format!("CAST({value} AS NUMERIC)"),
                    }
                };
                let columns = self.table.columns.iter().enumerate();
                let names = columns.map(|(at, column)| format!("{} AS {}", value((at, column)), quoted(&column.name)));
                // What a partial index leaves out is not computed for NEW either: CASE is SQLite's only promise of that.
                let value = match predicate {
                    Some(predicate) => format!("CASE WHEN ({predicate}) THEN ({text}) END"),
                    None => format!("({text})"),
                };
                // The index has this collation, whatever the expression has inside: by another one it could not be used.
                format!(
                    "({text}) COLLATE {} = (SELECT {value} FROM (SELECT {}))",
                    quoted(collation),
                    names.collect::<Vec<_>>().join(", ")
                )
            }
        }
    }
}

/// What a write brings to a column: REPLACE puts the default where NOT NULL forbids the NULL of NEW.
fn brought(column: &Column) -> String {
    let name = quoted(&column.name);
    match column.default.as_deref().filter(|_| column.not_null && !column.generated).and_then(constant) {
        Some(default) => format!("ifnull(NEW.{name}, {default})"),
        None => format!("NEW.{name}"),
    }
}

/// The text of a default as an expression that can stand anywhere and cannot raise: only where it surely is one.
fn constant(text: &str) -> Option<String> {
    let word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let number = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let known = ["NULL", "TRUE", "FALSE", "CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP"];
    if number || text.starts_with('\'') || text.starts_with("x'") || text.starts_with("X'") {
        // No names, no functions: those of a service are not ours to call.
        let plain = text.bytes().all(|byte| !b"\"`[(".contains(&byte));
        (plain || (!number && text.ends_with('\''))).then(|| format!("({text})"))
    } else if known.iter().any(|known| known.eq_ignore_ascii_case(text)) {
        Some(text.to_owned())
    } else {
        // `DEFAULT word` is the text.
        (word && !text.is_empty()).then(|| format!("'{text}'"))
    }
}

fn collate(name: &str) -> String {
    if Collation::named(name) == Some(Collation::Binary) { String::new() } else { format!(" COLLATE {}", quoted(name)) }
}

/// The terms joined so that the expression is as shallow as can be: SQLite limits its depth.
fn balanced(mut terms: Vec<String>, operator: &str) -> String {
    while terms.len() > 1 {
        let pairs = terms.chunks(2).map(|pair| match pair {
            [left, right] => format!("({left}{operator}{right})"),
            _ => pair[0].clone(),
        });
        terms = pairs.collect();
    }
    terms.pop().unwrap_or_else(|| "0".to_owned())
}

/// Text for `DROP TRIGGER` of a trigger of ours.
pub fn drop_trigger(name: &str) -> String {
    format!("DROP TRIGGER IF EXISTS {}", quoted(name))
}

/// The columns of the unique constraint, for messages.
pub fn describe(table: &Table, unique: &Unique) -> String {
    let terms = unique.terms.iter().map(|term| match term {
        Term::Column(at, _) => table.columns[*at].name.as_str(),
        Term::Expression(text, _) => text.as_str(),
    });
    quoted_list(terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::example;

    fn text(table: &Table) -> String {
        let triggers = triggers(table, &Layout::of(table, &[]));
        triggers.into_iter().map(|trigger| trigger.sql + ";\n").collect()
    }

    #[test]
    fn triggers_of_a_plain_table() {
        insta::assert_snapshot!(text(&example("Track", &["TrackId", "Name"], &["TrackId"])));
    }

    #[test]
    fn triggers_with_a_second_unique_key_and_a_composite_key() {
        let mut table = example("seat", &["hall", "row \"r\"", "holder"], &["hall", "row \"r\""]);
        table.columns[2].declared_type = String::new();
        table.uniques = vec![
            Unique { index: "u1".into(), terms: vec![Term::Column(2, "NOCASE".into())], predicate: None },
            Unique {
                index: "u2".into(),
                terms: vec![Term::Expression("lower(holder)".into(), "BINARY".into())],
                predicate: None,
            },
        ];
        insta::assert_snapshot!(text(&table));
    }

    #[test]
    fn a_default_is_taken_over_only_where_it_is_a_constant() {
        let taken = |text: &str| constant(text);
        assert_eq!(taken("1 + 1").as_deref(), Some("(1 + 1)"));
        assert_eq!(taken("'a (\"b\")'").as_deref(), Some("('a (\"b\")')"));
        assert_eq!(taken("x'00'").as_deref(), Some("(x'00')"));
        assert_eq!(taken("word").as_deref(), Some("'word'"));
        assert_eq!(taken("current_timestamp").as_deref(), Some("current_timestamp"));
        for text in ["\"name\"", "own()", "1 + own()", "lower('A')", ""] {
            assert_eq!(taken(text), None, "{text}");
        }
    }

    /// A NULL that hides a claim makes the whole table suspect: only where the index has to do with it, and chance has not.
    #[test]
    fn a_null_is_suspect_only_where_it_hides_what_an_index_claims() {
        let hides = |default: &str, terms: Vec<Term>, predicate: Option<&str>| {
            let mut table = example("t", &["id", "email", "made"], &["id"]);
            table.columns[2].not_null = true;
            table.columns[2].default = Some(default.into());
            table.uniques = vec![Unique { index: "u".into(), terms, predicate: predicate.map(str::to_owned) }];
            text(&table).contains(r#"(NEW."made" IS NULL)"#)
        };
        let email = || vec![Term::Column(1, "BINARY".into())];
        let made = || vec![Term::Column(2, "BINARY".into())];
        let expression = |text: &str| vec![Term::Expression(text.into(), "BINARY".into())];
        assert!(!hides("datetime('now')", email(), Some("email IS NOT NULL")));
        assert!(!hides("datetime('now')", expression("lower(email)"), None));
        assert!(!hides("lower(hex(randomblob(16)))", made(), None));
        assert!(!hides("'word'", made(), None));
        assert!(hides("datetime('now')", made(), None));
        assert!(hides("datetime('now')", expression("lower(MADE)"), None));
        assert!(hides("datetime('now')", email(), Some("\"made\" > 0")));
    }

    #[test]
    fn triggers_where_the_service_has_its_own() {
        let mut table = example("note", &["id", "body"], &["id"]);
        table.triggers = vec!["note_touched".into()];
        insta::assert_snapshot!(text(&table));
    }

    #[test]
    fn expressions_of_a_wide_table_stay_shallow() {
        let deep = balanced((0..500).map(|at| at.to_string()).collect(), " | ");
        let depth = deep.chars().fold((0_i32, 0_i32), |(depth, most), character| match character {
            '(' => (depth + 1, most.max(depth + 1)),
            ')' => (depth - 1, most),
            _ => (depth, most),
        });
        assert_eq!(depth, (0, 9));
    }
}
