//! `<Table>_Events`: the persistent events of one replicated table, as DDL.

use crate::identifier::quoted;

/// The columns that the requirements name, in their order. Rowcast's own follow them.
pub const REQUIRED_COLUMNS: [&str; 8] =
    ["id", "operation_type", "record_id", "data", "timestamp", "source_node_id", "processed", "sequence_number"];

/// The name of the event table of `table`.
pub fn name(table: &str) -> String {
    format!("{table}_Events")
}

/// The name of the index that finds a record's newest event.
pub fn record_index(table: &str) -> String {
    format!("{}_record", name(table))
}

/// The statements that make the event table of `table`, where it does not exist.
///
/// `id` is `<origin>:<sequence number, 16 hex digits>`: its index serves both the idempotent insert and ranges of one
/// origin in sequence order. The one other index serves the newest event of a record. A third costs more than it gives.
pub fn create(table: &str) -> [String; 2] {
    let events = quoted(&name(table));
    [
        format!(
            "CREATE TABLE IF NOT EXISTS {events} (
  id TEXT PRIMARY KEY NOT NULL,     -- <source_node_id>:<sequence_number as 16 hex digits>
  operation_type TEXT NOT NULL,     -- CREATE, UPDATE, DELETE
  record_id TEXT NOT NULL,          -- the primary key as canonical text
  data TEXT,                        -- the full row after the change, as JSON; NULL for DELETE
  timestamp INTEGER NOT NULL,       -- hybrid logical clock; timestamp >> 31 is seconds since 1970
  source_node_id TEXT NOT NULL,     -- the node that made the event
  processed BOOLEAN NOT NULL DEFAULT FALSE, -- 0: stored here, not applied (yet)
  sequence_number INTEGER NOT NULL, -- dense per source node, over all tables
  layout INTEGER NOT NULL,          -- which columns the row had: _rowcast_layouts
  changed INTEGER NOT NULL,         -- bit mask of the columns an UPDATE changed; -1: all
  group_last INTEGER NOT NULL       -- sequence number of the last event of its group
)"
        ),
        format!("CREATE INDEX IF NOT EXISTS {} ON {events} (record_id, timestamp)", quoted(&record_index(table))),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ddl_of_an_event_table() {
        insta::assert_snapshot!(super::create("Order \"Line\"").join(";\n"));
    }

    #[test]
    fn the_required_columns_come_first_and_in_order() {
        let ddl = &super::create("t")[0];
        let mut at = 0;
        for column in super::REQUIRED_COLUMNS {
            at += ddl[at..].find(&format!("  {column} ")).expect(column) + 1;
        }
    }
}
