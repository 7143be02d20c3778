//! A replicated table as this node has it: its declaration, its shape now, and the statements made from both.
//!
//! Every name in a statement comes from SQLite's own catalogue and is quoted by the schema crate.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use rowcast_schema::declaration::{Declaration, TableDeclaration, Triggers};
use rowcast_schema::event_table;
use rowcast_schema::identifier::{quoted, quoted_list};
use rowcast_schema::layout::Layout;
use rowcast_schema::record::{self, Collation, KeyColumn};
use rowcast_schema::table::{Table, Term, Unique};
use rowcast_schema::value::{Affinity, Value};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::error::Error;
use super::{cell, install, journal, serve};

/// One declared, enabled table.
#[derive(Debug)]
pub struct Replicated {
    /// The name, as the declaration spells it.
    pub name: String,
    /// What is declared for it.
    pub declared: TableDeclaration,
    /// How it looks now; none while the database lacks it.
    pub shape: Option<Shape>,
    /// Why it cannot be replicated as it is in the database now; then it has no shape.
    pub refused: Option<String>,
    pub(super) events: EventSql,
}

/// The statements over an event table.
#[derive(Debug)]
pub(super) struct EventSql {
    pub insert: String,
    pub newest: String,
    pub history: String,
    pub by_id: String,
    pub staged: String,
    pub any_between: String,
    pub is_staged: String,
    pub set_processed: String,
    pub set_range_processed: String,
    pub records_after: String,
}

/// A table's shape, and the statements over its rows.
#[derive(Debug)]
pub struct Shape {
    /// As SQLite describes it.
    pub table: Table,
    /// The captured columns.
    pub layout: Arc<Layout>,
    /// The key's columns, in key order.
    pub key: Vec<KeyColumn>,
    /// What a column holds that nobody has written, in the order of the layout.
    pub defaults: Vec<Value>,
    /// What writing a row needs of the connection.
    pub(super) triggers: Firing,
    pub(super) row: String,
    pub(super) scan: String,
    pub(super) scan_after: String,
    pub(super) delete: String,
    pub(super) upsert: String,
    pub(super) holders: Vec<Holders>,
}

/// Whether triggers are to fire when a row of the table is written by the sidecar. Ours never do anything then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firing {
    /// The service's are to fire.
    On,
    /// The service's must not fire.
    Off,
    /// There are none.
    Either,
}

impl Firing {
    fn of(table: &Table, declared: &TableDeclaration) -> Self {
        match declared.triggers {
            _ if table.triggers.is_empty() => Self::Either,
            Triggers::Run => Self::On,
            Triggers::Skip => Self::Off,
        }
    }

    /// Makes the connection ready for it. Each change has SQLite compile its statements anew, so there is none without need.
    pub(super) fn set(self, connection: &Connection) -> rusqlite::Result<()> {
        let on = match self {
            Self::On => true,
            Self::Off => false,
            Self::Either => return Ok(()),
        };
        if connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)? != on {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, on)?;
        }
        Ok(())
    }
}

/// How to find the rows that hold what a new row would claim of one unique index.
#[derive(Debug)]
pub(super) enum Holders {
    /// A query: the index is over columns that events carry.
    Query(String),
    /// An insert that answers with the row in its way, to be rolled back: only SQLite knows what a generated column, or
    /// one that is not replicated, will hold.
    Probe(String),
}

impl Holders {
    fn sql(&self) -> &String {
        let (Self::Query(sql) | Self::Probe(sql)) = self;
        sql
    }
}

impl Replicated {
    pub(super) fn new(declared: &TableDeclaration, shape: Option<Shape>) -> Self {
        let events = EventSql::of(&declared.name);
        Self { name: declared.name.clone(), declared: declared.clone(), shape, refused: None, events }
    }
}

/// The columns of an event, in the order in which they are read.
pub(super) const EVENT: &str =
    "source_node_id, sequence_number, operation_type, record_id, data, timestamp, layout, changed, group_last";

impl EventSql {
    fn of(table: &str) -> Self {
        let events = quoted(&event_table::name(table));
        Self {
            insert: format!(
                "INSERT INTO {events} (id, operation_type, record_id, data, timestamp, source_node_id, processed, sequence_number, layout, changed, group_last)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING"
            ),
            // Ties on the timestamp are rare: the reader walks on while they last, instead of sorting here.
            newest: format!(
                "SELECT timestamp, source_node_id, sequence_number, operation_type, layout, processed FROM {events}
                 WHERE record_id = ?1 ORDER BY timestamp DESC"
            ),
            history: format!(
                "SELECT {EVENT} FROM {events} WHERE record_id = ?1
                   AND (processed OR ?2 AND id IN (SELECT event FROM _rowcast_parked))
                 ORDER BY timestamp DESC, source_node_id DESC"
            ),
            is_staged: format!(
                "SELECT 1 FROM {events} WHERE id = ?1 AND NOT processed AND id NOT IN (SELECT event FROM _rowcast_parked)"
            ),
            by_id: format!("SELECT {EVENT} FROM {events} WHERE id = ?1"),
            // Mostly its record has no other event, or older ones of the same author: seen here, it costs no look of its own.
            staged: format!(
                "SELECT {EVENT}, (SELECT count(*) = 3 OR coalesce(max(by <> event.source_node_id OR event.timestamp <= at), 0)
                   FROM (SELECT other.source_node_id AS by, other.timestamp AS at FROM {events} AS other
                         WHERE other.record_id = event.record_id AND other.rowid <> event.rowid
                         ORDER BY other.timestamp DESC LIMIT 3)) AS contested
                 FROM {events} AS event WHERE ?1 <= id AND id <= ?2 ORDER BY id DESC"
            ),
            any_between: format!("SELECT 1 FROM {events} WHERE ?1 <= id AND id <= ?2"),
            set_processed: format!("UPDATE {events} SET processed = ?2 WHERE id = ?1"),
            records_after: format!(
                "SELECT DISTINCT record_id FROM {events} WHERE ?1 < record_id ORDER BY record_id LIMIT ?2"
            ),
            // A parked one stays as it is.
            set_range_processed: format!(
                "UPDATE {events} SET processed = 1 WHERE ?1 <= id AND id <= ?2 AND NOT processed
                 AND NOT (?3 AND id IN (SELECT event FROM _rowcast_parked))"
            ),
        }
    }
}

impl Shape {
    /// Whether the default of the column at `at` of the layout is another one at each moment.
    pub(super) fn has_default_of_its_moment(&self, at: usize) -> bool {
        let place = self.table.column(&self.layout.columns[at]);
        let default = place.and_then(|place| self.table.columns[place].default.as_deref());
        default.is_some_and(is_of_its_moment)
    }

    pub(super) fn of(connection: &Connection, table: Table, declared: &TableDeclaration) -> Result<Self, Error> {
        let triggers = Firing::of(&table, declared);
        let shape = Self::unproven(connection, table, &declared.exclude, triggers)?;
        shape.prove(connection)?;
        Ok(shape)
    }

    /// As it is read. Whether it can be written is not known.
    fn unproven(connection: &Connection, table: Table, exclude: &[String], triggers: Firing) -> Result<Self, Error> {
        if let Some(refusal) = table.refusals(exclude).into_iter().next() {
            return Err(Error::Table { table: table.name, reason: refusal.reason, fix: refusal.fix });
        }
        let layout = Layout::of(&table, exclude);
        let key: Vec<KeyColumn> = table.key_columns().expect("bug: a custom collation is refused above");
        let name = quoted(&table.name);
        let columns = quoted_list(layout.columns.iter().map(String::as_str));
        let is_key = key_equals(&layout, &key);
        Ok(Self {
            row: format!("SELECT {columns} FROM {name} WHERE {is_key}"),
            scan: format!("SELECT {columns} FROM {name} ORDER BY {}", key_order(&layout, &key)),
            scan_after: scan_after_by_index(connection, &table, &columns, &layout)
                .unwrap_or_else(|| scan_after(&name, &columns, &layout, &key)),
            delete: format!("DELETE FROM {name} WHERE {is_key}"),
            upsert: upsert(&table, &layout, &key, &layout.columns),
            holders: table.uniques.iter().map(|unique| holders(&table, &layout, unique)).collect(),
            defaults: defaults(connection, &table, &layout),
            triggers,
            key,
            layout: Arc::new(layout),
            table,
        })
    }

    /// Whether writing a row of it changes nothing else, and depends on no other row.
    pub fn keeps_to_its_row(&self) -> bool {
        self.holders.is_empty() && self.triggers != Firing::On
    }

    /// Prepares the statements once: a table whose definition calls a function of the service cannot be written here.
    fn prove(&self, connection: &Connection) -> Result<(), Error> {
        let holders = self.holders.iter().map(Holders::sql);
        let broken = |error: rusqlite::Error| {
            Error::Table {
            table: self.table.name.clone(),
            reason: format!("SQLite cannot prepare a statement over it without the service: {error}"),
            fix: match self.triggers {
                Firing::On => {
                    "take functions that only the service knows out of its definition and its triggers, and DELETE FROM \
                     replicated tables out of its triggers, or declare triggers = \"skip\""
                }
                _ => "take functions and collations that only the service knows out of its definition",
            }
            .into(),
        }
        };
        self.triggers.set(connection).map_err(broken)?;
        for sql in [&self.row, &self.scan, &self.scan_after, &self.delete, &self.upsert].into_iter().chain(holders) {
            connection.prepare(sql).map_err(broken)?;
        }
        Ok(())
    }

    /// The upsert of a row that has only `columns`.
    pub(super) fn upsert_of(&self, columns: &[String]) -> String {
        upsert(&self.table, &self.layout, &self.key, columns)
    }

    /// The key among the cells of a row of this layout.
    pub fn key_of(&self, cells: &[Value]) -> Vec<Value> {
        self.layout.key.iter().map(|&at| cells[at].clone()).collect()
    }

    /// The record id of a row of this layout.
    pub fn record_id(&self, cells: &[Value]) -> String {
        self.record_id_of_key(&self.key_of(cells))
    }

    /// The record id of a key.
    pub fn record_id_of_key(&self, key: &[Value]) -> String {
        record::record_id(key, &self.key)
    }

    /// Whether `layout` has the same key columns as the table has now.
    pub fn has_key_of(&self, layout: &Layout) -> bool {
        self.layout.has_key_of(layout)
    }

    /// The affinity of the column at `at` of the layout.
    pub fn affinity(&self, at: usize) -> Affinity {
        let column = self.table.column(&self.layout.columns[at]).expect("bug: a layout names columns of its table");
        self.table.affinity(column)
    }
}

fn collate(collation: Collation) -> &'static str {
    match collation {
        Collation::Binary => "BINARY",
        Collation::NoCase => "NOCASE",
        Collation::Rtrim => "RTRIM",
    }
}

fn key_terms<'a>(layout: &'a Layout, key: &'a [KeyColumn]) -> impl Iterator<Item = (String, &'static str)> + 'a {
    layout.key.iter().zip(key).map(|(&at, column)| (quoted(&layout.columns[at]), collate(column.collation)))
}

fn key_equals(layout: &Layout, key: &[KeyColumn]) -> String {
    let terms = key_terms(layout, key).enumerate();
    let terms: Vec<String> = terms.map(|(at, (name, by))| format!("{name} = ?{} COLLATE {by}", at + 1)).collect();
    terms.join(" AND ")
}

fn key_order(layout: &Layout, key: &[KeyColumn]) -> String {
    let names: Vec<String> = key_terms(layout, key).map(|(column, by)| format!("{column} COLLATE {by}")).collect();
    names.join(", ")
}

/// All rows after a key, in key order.
fn scan_after(name: &str, columns: &str, layout: &Layout, key: &[KeyColumn]) -> String {
    let order = key_order(layout, key);
    let places: Vec<String> = (1..=layout.key.len()).map(|at| format!("?{at}")).collect();
    // SQLite finds no index for a row value with collations; for its first column alone it does. What begins with the same
    // value is walked over.
    let first = key_terms(layout, key).next().map(|(column, by)| format!("{column} COLLATE {by} >= ?1"));
    let first = first.filter(|_| layout.key.len() > 1).map(|term| format!("{term} AND ")).unwrap_or_default();
    format!("SELECT {columns} FROM {name} WHERE {first}({order}) > ({}) ORDER BY {order}", places.join(", "))
}

/// The same without collations, where SQLite says that it walks along the key's own index by it: so the columns have the
/// collations of the key, and no page of a walk begins anywhere but at its first row.
fn scan_after_by_index(connection: &Connection, table: &Table, columns: &str, layout: &Layout) -> Option<String> {
    if layout.key.len() < 2 {
        return None;
    }
    let order = quoted_list(layout.key.iter().map(|&at| layout.columns[at].as_str()));
    let places: Vec<String> = (1..=layout.key.len()).map(|at| format!("?{at}")).collect();
    let name = quoted(&table.name);
    let sql = format!("SELECT {columns} FROM {name} WHERE ({order}) > ({}) ORDER BY {order}", places.join(", "));
    let plan: Vec<String> = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .and_then(|mut statement| {
            let nulls = vec![rusqlite::types::Null; layout.key.len()];
            statement.query_map(rusqlite::params_from_iter(nulls), |row| row.get(3))?.collect()
        })
        .ok()?;
    let index: Option<String> = connection
        .query_row("SELECT name FROM pragma_index_list(?1) WHERE origin = 'pk'", [&table.name], |row| row.get(0))
        .ok();
    let by_key = |line: &str| {
        line.starts_with("SEARCH")
            && (line.contains(" USING PRIMARY KEY ")
                || index.is_some_and(|index| line.contains(&format!(" INDEX {index} "))))
    };
    matches!(&plan[..], [line] if by_key(line)).then_some(sql)
}

/// Never REPLACE: that would delete other rows. `OR ABORT` overrides what the table itself says about conflicts.
fn upsert(table: &Table, layout: &Layout, key: &[KeyColumn], columns: &[String]) -> String {
    let names: Vec<&str> = layout.key.iter().map(|&at| layout.columns[at].as_str()).collect();
    let set: Vec<String> = columns
        .iter()
        .filter(|column| {
            // A key column is set only where an equal key can still read differently: 'a' and 'A', 1 and 1.0.
            match names.iter().position(|name| name == column) {
                None => true,
                Some(_) if table.has_integer_key() => false,
                Some(at) => key[at].collation != Collation::Binary || table.affinity(table.key[at]) == Affinity::Blob,
            }
        })
        .map(|column| format!("{0} = excluded.{0}", quoted(column)))
        .collect();
    let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
    let places: Vec<String> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
    format!(
        "INSERT OR ABORT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO {action}",
        quoted(&table.name),
        quoted_list(columns.iter().map(String::as_str)),
        places.join(", "),
        quoted_list(names)
    )
}

/// The keys of rows that hold what a row with the bound cells would claim of one unique index. What expressions and a
/// predicate make of a row only SQLite tells, by writing it: the collations and affinities of the columns are in it.
fn holders(table: &Table, layout: &Layout, unique: &Unique) -> Holders {
    let carried = |term: &Term| match term {
        Term::Column(at, collation) => {
            let name = &table.columns[*at].name;
            let place = layout.columns.iter().position(|column| column == name)?;
            Some((quoted(name), place + 1, quoted(collation)))
        }
        Term::Expression(..) => None,
    };
    match unique.terms.iter().map(carried).collect::<Option<Vec<_>>>() {
        Some(terms) if unique.predicate.is_none() => Holders::Query(query_holders(table, layout, &terms)),
        _ => Holders::Probe(probe_holders(table, layout, unique)),
    }
}

/// Of an index over columns alone: of each its name, its place among the bound cells, and the collation.
fn query_holders(table: &Table, layout: &Layout, terms: &[(String, usize, String)]) -> String {
    let key: Vec<String> = layout.key.iter().map(|&at| quoted(&layout.columns[at])).collect();
    let terms: Vec<String> =
        terms.iter().map(|(name, place, collation)| format!("{name} = ?{place} COLLATE {collation}")).collect();
    format!("SELECT {} FROM {} WHERE {}", key.join(", "), quoted(&table.name), terms.join(" AND "))
}

fn probe_holders(table: &Table, layout: &Layout, unique: &Unique) -> String {
    let name = quoted(&table.name);
    let key: Vec<String> = layout.key.iter().map(|&at| quoted(&layout.columns[at])).collect();
    let places: Vec<String> = (1..=layout.columns.len()).map(|at| format!("?{at}")).collect();
    let target: Vec<String> = unique
        .terms
        .iter()
        .map(|term| match term {
            Term::Column(at, collation) => {
                format!("{} COLLATE {}", quoted(&table.columns[*at].name), quoted(collation))
            }
            // As it stands in the index, with the collation that it has there: another one would be another index.
            Term::Expression(text, _) => format!("({text})"),
        })
        .collect();
    let predicate = unique.predicate.as_ref().map(|predicate| format!(" WHERE {predicate}")).unwrap_or_default();
    format!(
        "INSERT OR ABORT INTO {name} ({}) VALUES ({}) ON CONFLICT ({}){predicate} DO UPDATE SET {first} = {name}.{first} RETURNING {}",
        quoted_list(layout.columns.iter().map(String::as_str)),
        places.join(", "),
        target.join(", "),
        key.join(", "),
        first = key[0],
    )
}

/// A default that only SQLite can compute at insert: whatever is not a literal. The schema shows an expression without the
/// parentheses that it was written in.
fn is_of_its_moment(default: &str) -> bool {
    let text = default.trim();
    let quoted = |text: &str, quote: char| {
        let inner = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        inner.is_some_and(|inner| !inner.replace(&format!("{quote}{quote}"), "").contains(quote))
    };
    let is_blob = |text: &str| text.strip_prefix(['x', 'X']).is_some_and(|digits| quoted(digits, '\''));
    let number = text.trim_start_matches(['+', '-', ' ']).to_ascii_lowercase();
    let is_hexadecimal = number.strip_prefix("0x").is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok());
    let is_decimal = number.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let is_number = is_hexadecimal || (is_decimal && number.parse::<f64>().is_ok());
    let is_word = ["null", "true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word));
    !(quoted(text, '\'') || quoted(text, '"') || is_blob(text) || is_number || is_word)
}

/// What each column of the layout holds where nobody wrote it. A default that only SQLite can compute at insert
/// (CURRENT_TIMESTAMP, an expression) cannot be that of a column that was added later, and counts as NULL.
fn defaults(connection: &Connection, table: &Table, layout: &Layout) -> Vec<Value> {
    let default = |column: &String| {
        let at = table.column(column)?;
        let text = table.columns[at].default.as_ref()?;
        if is_of_its_moment(text) {
            return None;
        }
        let value = connection.query_row(&format!("SELECT {text}"), [], |row| Ok(cell::read(row.get_ref(0)?))).ok()?;
        Some(cell::with_affinity(value, table.affinity(at)))
    };
    layout.columns.iter().map(|column| default(column).unwrap_or(Value::Null)).collect()
}

/// What the service wrote while a table was declared becomes events, also when it is not declared any more: of the tables that
/// are `found` besides the declared ones, those of which the journal has rows. One that cannot be read any more, or has no event
/// table, is none of them.
fn leaving(
    connection: &Connection,
    mut found: HashMap<String, Table>,
) -> Result<HashMap<String, Arc<Replicated>>, Error> {
    let mut leaving = HashMap::new();
    let installed = install::installed(connection)?;
    let mut left =
        installed.iter().filter_map(|name| Some((name, found.remove(&name.to_ascii_lowercase())?))).peekable();
    if left.peek().is_none() {
        return Ok(leaving);
    }
    let (journaled, with_events) = (journal::tables(connection)?, serve::event_tables(connection)?);
    let has = |names: &[String], name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    for (name, table) in left.filter(|(name, _)| has(&journaled, name) && has(&with_events, name)) {
        let declared = TableDeclaration::of(name);
        if let Ok(shape) = Shape::unproven(connection, table, &declared.exclude, Firing::Either) {
            leaving.insert(name.to_ascii_lowercase(), Arc::new(Replicated::new(&declared, Some(shape))));
        }
    }
    Ok(leaving)
}

/// All declared, enabled tables.
#[derive(Debug, Default, Clone)]
pub struct Tables {
    list: Vec<Arc<Replicated>>,
    by_name: HashMap<String, usize>,
    /// Those that are declared no more, of which the journal has rows, by their names in lower case.
    leaving: HashMap<String, Arc<Replicated>>,
    with_events: OnceCell<Vec<String>>,
}

impl Tables {
    /// At the start a table that cannot be replicated is an error, unless it could be before; later it waits by itself.
    pub(super) fn of(
        connection: &Connection,
        declaration: &Declaration,
        found: Vec<Table>,
        starting: bool,
    ) -> Result<Self, Error> {
        let mut found: HashMap<String, Table> =
            found.into_iter().map(|table| (table.name.to_ascii_lowercase(), table)).collect();
        let mut tables = Self::default();
        for declared in declaration.enabled() {
            let key = declared.name.to_ascii_lowercase();
            let shape = found.remove(&key).map(|table| Shape::of(connection, table, declared));
            let replicated = match shape {
                None => Replicated::new(declared, None),
                Some(Ok(shape)) => Replicated::new(declared, Some(shape)),
                Some(Err(error @ Error::Table { .. }))
                    if !starting || install::is_installed(connection, &declared.name)? =>
                {
                    Replicated { refused: Some(error.to_string()), ..Replicated::new(declared, None) }
                }
                Some(Err(error)) => return Err(error),
            };
            tables.by_name.insert(key, tables.list.len());
            tables.list.push(Arc::new(replicated));
        }
        tables.leaving = leaving(connection, found)?;
        Ok(tables)
    }

    /// The table of which a row of the journal speaks: it is declared, or was when the row was written.
    pub fn journaled(&self, name: &str) -> Option<&Arc<Replicated>> {
        self.get(name).or_else(|| self.leaving.get(&name.to_ascii_lowercase()))
    }

    /// Whether there are any that are declared no more.
    pub(super) fn any_leaves(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The declared table of that name, by SQLite's rule: without regard to ASCII case.
    pub fn get(&self, name: &str) -> Option<&Arc<Replicated>> {
        // Names come as they were declared nearly always: try them before making a lower-case copy.
        let at = self.by_name.get(name).or_else(|| self.by_name.get(&name.to_ascii_lowercase()));
        at.map(|&at| &self.list[at])
    }

    /// All of them, in the order of the declaration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Replicated>> {
        self.list.iter()
    }

    /// The tables that have an event table, declared or not. Looked for once, when they are needed: of what a transaction finds
    /// made for this schema.
    pub(super) fn with_events(&self, connection: &Connection) -> Result<&[String], Error> {
        if let Some(known) = self.with_events.get() {
            return Ok(known);
        }
        let found = serve::event_tables(connection)?;
        Ok(self.with_events.get_or_init(|| found))
    }

    /// The columns of the widest table.
    pub(super) fn width(&self) -> usize {
        let widths = self.list.iter().filter_map(|table| table.shape.as_ref()).map(|shape| shape.layout.columns.len());
        widths.max().unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "replicated/tests.rs"]
mod tests;
