//! What the writing connection may touch, statement by statement, as SQLite compiles them; and what triggers may do there.
//!
//! Beyond what applying needs nothing is allowed: a mistake of ours, or a statement that came from elsewhere, fails with
//! its table named. Where the service's triggers run for rows of other nodes (`triggers = "run"`), this is what keeps
//! them from echoing: inside a trigger an INSERT into the journal or into a replicated table, and an UPDATE of a
//! replicated column, are left out when the statement is compiled. The author's trigger did the same there, and what it
//! wrote to replicated tables arrives by itself. The service's own connections pay nothing for any of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use rowcast_schema::declaration::Declaration;
use rowcast_schema::table::{Kind, Table};
use rowcast_schema::{OWN_PREFIX, event_table, journal};
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::error::{Doing as _, Error};

/// What is allowed, shared with SQLite's callback.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard(Arc<RwLock<Known>>);

/// The tables of the database, as far as they matter here. All names in lower case.
#[derive(Debug, Default)]
struct Known {
    /// The replicated columns of each declared table.
    replicated: HashMap<String, HashSet<String>>,
    /// The event tables, also of tables that are not declared any more: an origin's numbers go over all of them.
    events: HashSet<String>,
    /// The tables in which virtual tables keep their data: a trigger writes to those by way of these.
    shadows: HashSet<String>,
}

impl Guard {
    /// Watches over `connection` from now on.
    pub(super) fn watch(&self, connection: &mut Connection) -> Result<(), Error> {
        let known = self.0.clone();
        let decide = move |context: AuthContext<'_>| {
            let allowed = known.read().unwrap_or_else(PoisonError::into_inner).decide(&context);
            if allowed == Authorization::Deny {
                tracing::error!(action = ?context.action, trigger = context.accessor, "refused a statement that Rowcast has no business with");
            }
            allowed
        };
        connection.authorizer(Some(decide)).doing("watch over the connection")
    }

    /// Takes in the tables of the database as they are now; `with_events` are those that have an event table.
    pub(super) fn follow(&self, declaration: &Declaration, found: &[Table], with_events: &[String]) {
        let mut known = Known::default();
        for declared in declaration.enabled() {
            let excluded = |name: &str| declared.exclude.iter().any(|column| column.eq_ignore_ascii_case(name));
            let table = found.iter().find(|table| table.name.eq_ignore_ascii_case(&declared.name));
            let columns = table.into_iter().flat_map(|table| &table.columns).map(|column| &column.name);
            let columns = columns.filter(|name| !excluded(name)).map(|name| name.to_ascii_lowercase()).collect();
            known.replicated.insert(declared.name.to_ascii_lowercase(), columns);
            known.events.insert(event_table::name(&declared.name).to_ascii_lowercase());
        }
        known.events.extend(with_events.iter().map(|table| event_table::name(table).to_ascii_lowercase()));
        let shadows = found.iter().filter(|table| table.kind == Kind::Shadow);
        known.shadows = shadows.map(|table| table.name.to_ascii_lowercase()).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl Known {
    fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        use AuthAction::{
            Attach, CreateView, CreateVtable, Delete, Detach, DropTable, DropView, DropVtable, Insert, Update,
        };
        let in_trigger = context.accessor.is_some();
        match context.action {
            Insert { table_name } if in_trigger && (is_journal(table_name) || self.is_replicated(table_name)) => {
                Authorization::Ignore
            }
            Update { table_name, column_name } if in_trigger && self.is_replicated(table_name) => {
                let columns = &self.replicated[&table_name.to_ascii_lowercase()];
                // A column that stays on its node is the trigger's to keep.
                if columns.contains(&column_name.to_ascii_lowercase()) {
                    Authorization::Ignore
                } else {
                    Authorization::Allow
                }
            }
            // SQLite cannot leave out a DELETE.
            Delete { table_name } if in_trigger && self.is_replicated(table_name) => Authorization::Deny,
            Insert { table_name } | Update { table_name, .. } | Delete { table_name } => {
                let allowed = if in_trigger { !is_own(table_name) } else { self.is_ours(table_name) };
                if allowed { Authorization::Allow } else { Authorization::Deny }
            }
            DropTable { table_name } if !is_own(table_name) => Authorization::Deny,
            CreateView { .. }
            | DropView { .. }
            | CreateVtable { .. }
            | DropVtable { .. }
            | Attach { .. }
            | Detach { .. } => Authorization::Deny,
            _ => Authorization::Allow,
        }
    }

    fn is_replicated(&self, table: &str) -> bool {
        self.replicated.contains_key(&table.to_ascii_lowercase())
    }

    /// Whether applying, ingesting or installing has something to write there. SQLite's own tables hold the schema.
    fn is_ours(&self, table: &str) -> bool {
        let name = table.to_ascii_lowercase();
        let known = [&self.events, &self.shadows].iter().any(|names| names.contains(&name));
        known || self.replicated.contains_key(&name) || is_own(&name) || name.starts_with("sqlite_")
    }
}

fn is_own(table: &str) -> bool {
    table.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX))
}

fn is_journal(table: &str) -> bool {
    table.eq_ignore_ascii_case(journal::JOURNAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a); CREATE TABLE t_Events(id); CREATE TABLE _rowcast_state(key);
                 CREATE TABLE gone_Events(id, record_id, source_node_id, sequence_number, group_last);
                 CREATE TABLE private(a); CREATE TABLE private_Events(id);",
            )
            .unwrap();
        let declaration = Declaration::parse("s.toml", "service = \"s\"\n[tables.T]\n").unwrap();
        let guard = Guard::default();
        let with_events = super::super::serve::event_tables(&connection).unwrap();
        guard.follow(&declaration, &super::super::catalogue::tables(&connection).unwrap(), &with_events);
        guard.watch(&mut connection).unwrap();
        connection
    }

    #[test]
    fn only_what_applying_needs_can_be_written() {
        let connection = watched();
        for allowed in [
            "INSERT INTO t VALUES ('x', 1)",
            "UPDATE t SET a = 2",
            "DELETE FROM t",
            "INSERT INTO t_Events VALUES (1)",
            "DELETE FROM gone_Events",
            "INSERT INTO _rowcast_state VALUES (1)",
            "ALTER TABLE _rowcast_state ADD COLUMN b",
            "SELECT * FROM private",
            "CREATE INDEX i ON t(a)",
        ] {
            connection.execute_batch(allowed).unwrap_or_else(|error| panic!("{allowed}: {error}"));
        }
        for denied in [
            "INSERT INTO private VALUES (1)",
            "UPDATE private SET a = 1",
            "DELETE FROM private",
            "DELETE FROM private_Events",
            "DROP TABLE private",
            "DROP TABLE t",
            "ATTACH ':memory:' AS other",
            "CREATE VIEW v AS SELECT 1",
        ] {
            let error = connection.execute_batch(denied).expect_err(denied).to_string();
            assert!(error.contains("not authorized") || error.contains("prohibited"), "{denied}: {error}");
        }
    }
}
