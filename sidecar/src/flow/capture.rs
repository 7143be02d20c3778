//! Where changes come from: the journal that triggers fill, and change events that a service announces.

pub mod announced;
pub mod journal;

use rowcast_schema::layout::LayoutId;

use crate::clock::Timestamp;
use crate::event::Operation;

/// What was done to a record, before it is an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table, as declared.
    pub table: String,
    /// What was done.
    pub operation: Operation,
    /// The canonical text of the primary key.
    pub record_id: String,
    /// The full row after the change, as JSON; none for a delete.
    pub data: Option<String>,
    /// Which columns the row had.
    pub layout: LayoutId,
    /// Bit mask of the columns that an update changed; -1 stands for all.
    pub changed: i64,
    /// When it was written; `None` for a row that was there before this node was complete.
    pub at: Option<Timestamp>,
}
