//! Makes events of changes: stamps them, numbers them, stores them, all in the transaction that clears the journal.
//!
//! A group is always whole transactions of the service. Where one ends the journal does not say; but whoever reads it sees it end
//! with a whole one. A short journal is one group. Of a longer one a group ends where a transaction was seen to end before, after some
//! [`limits::GROUP_ROWS_AIM`] rows: in the last ingest, when the service's commit woke the node, or while the write lock was waited
//! for. Else each group would be what was written while the one before it was ingested, each longer than the last, and others hold
//! their write lock for a whole one. A group may need several transactions; its last number is fixed at the beginning, so nothing of it is published before all of it is stored.
//!
//! Invariants: I1 (nothing leaves before it is stored), I2 (numbers are dense), I5 (stamps grow).

use rowcast_schema::journal::Op;

use crate::clock::Timestamp;
use crate::edge::store::{Ends, Error, JournalRow, OpenGroup, ParkReason, Place, Tx, Why};
use crate::event::{self, Event, EventId, Piece, Version};
use crate::flow::capture::{self, Change};
use crate::limits;
use crate::position::Sequence;

/// What one ingest did.
#[derive(Debug, Default)]
pub struct Ingested {
    /// Groups that are finished with this transaction, whole: to be published once hardened.
    pub groups: Vec<Piece>,
    /// Finished groups too long to be handed over in memory: first and last sequence number.
    pub stored: Option<(Sequence, Sequence)>,
    /// Rows that the journal still holds, roughly.
    pub left: usize,
    /// Events stored.
    pub events: usize,
    /// Bytes of the rows of the journal that were taken.
    bytes: usize,
    /// Milliseconds in which the service wrote them: about as often it committed. A long transaction counts more than once, and
    /// what it commits within one of them counts once.
    pub commits: u32,
}

/// Ingests the journal, at most `rows_max` rows of it.
///
/// # Errors
/// When the database fails.
pub fn journal(tx: &mut Tx<'_>, now: Timestamp, rows_max: usize) -> Result<Ingested, Error> {
    let (open, rows, emptied) = match short(tx, rows_max)? {
        Short::Empty => return Ok(Ingested::default()),
        Short::Whole(open, rows) => (open, rows, true),
        Short::No => {
            let Some(open) = open_group(tx, rows_max)? else {
                return Ok(Ingested { left: rows_of(tx.journal_extent()?), ..Default::default() });
            };
            // By count, not by number: SQLite gives a number out again when the journal was empty in between.
            let left = usize::try_from(open.last + 1 - open.next).unwrap_or(usize::MAX);
            (open, tx.journal_rows(open.until, rows_max.min(left))?, false)
        }
    };
    let mut writer = Writer::begin(tx, open.next, open.last)?;
    let bytes = rows.iter().map(JournalRow::bytes).sum();
    let (mut last_row, mut commits, mut written_at) = (None, 0, None);
    for row in &rows {
        if written_at.replace(row.at) != Some(row.at) {
            commits += 1;
        }
        let change = capture::journal::change(writer.tx, row);
        writer.store(change, now)?;
        last_row = Some(row.n);
    }
    let events = writer.events;
    let last_timestamp = writer.tx.durable.clock.last();
    if let Some(last_row) = last_row {
        tx.journal_delete_until(last_row)?;
    }
    let left = if emptied { None } else { tx.journal_extent()? };
    if let Some(last_row) = last_row {
        tx.durable.journal_ends.note(last_row, left.map(|(last, _)| last));
    }
    let next = open.next + events.len() as Sequence;
    let ended = rows.is_empty() || open.last < next;
    let left = rows_of(left);
    let ingested = finish(tx, Progress { open, next, ended, last_timestamp, left }, events)?;
    Ok(Ingested { commits, bytes, ..ingested })
}

/// The most that one transaction ingests.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Rows, and somewhat more where a group ends there.
    pub rows: usize,
    /// Bytes of their cells, and somewhat more.
    pub bytes: usize,
}

/// Ingests group after group, as many as fit the page. It ends with a whole group, unless one is longer than the page.
///
/// # Errors
/// When the database fails.
pub fn page(tx: &mut Tx<'_>, now: Timestamp, most: Page) -> Result<Vec<Ingested>, Error> {
    let mut done = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let ingested = journal(tx, now, limits::INGEST_ROWS_MAX)?;
        rows += ingested.events;
        bytes += ingested.bytes;
        let room = if bytes < most.bytes { most.rows.saturating_sub(rows) } else { 0 };
        let fits = tx.durable.open_group.is_some() || ingested.left <= room || tx.durable.journal_ends.fits(room);
        let goes_on = 0 < room && 0 < ingested.left && 0 < ingested.events && fits;
        done.push(ingested);
        if !goes_on {
            return Ok(done);
        }
    }
}

struct Progress {
    open: OpenGroup,
    next: Sequence,
    ended: bool,
    last_timestamp: Timestamp,
    /// Rows that the journal still has, roughly.
    left: usize,
}

/// Moves the head when the group is whole, and remembers the group when it is not.
fn finish(tx: &mut Tx<'_>, progress: Progress, events: Vec<Event>) -> Result<Ingested, Error> {
    let Progress { open, next, ended, last_timestamp, left } = progress;
    let node = tx.durable.node;
    tx.durable.next = next;
    let count = events.len();
    if !ended {
        tx.set_position(node, open.first - 1, last_timestamp)?;
        tx.set_open_group(Some(OpenGroup { next, ..open }))?;
        return Ok(Ingested { events: count, left, ..Default::default() });
    }
    tx.set_open_group(None)?;
    let last = next - 1;
    assert_eq!(last, open.last, "bug: a group has another length than it was numbered for");
    tx.set_position(node, last, last_timestamp)?;
    let mut ingested = Ingested { events: count, left, ..Default::default() };
    if count as Sequence == last + 1 - open.first {
        let context = tx.durable.context.clone();
        ingested.groups.push(Piece { first: open.first, group_last: last, context, events });
    } else {
        ingested.stored = Some((open.first, last));
    }
    Ok(ingested)
}

/// What is to be known of a journal by one look at it: each further one would be made while the service waits for the lock.
enum Short {
    /// There is nothing in it.
    Empty,
    /// All of it is one group, which takes no look at the tables.
    Whole(OpenGroup, Vec<JournalRow>),
    /// It is long, or ends within it are known, or it has begun to be ingested, or has suspects, or rows that cannot be read any more.
    No,
}

/// Where the next group is to end, in a journal that ends with `last` and has roughly so many rows.
struct NextGroup {
    until: i64,
    last: i64,
    rows: usize,
}

impl NextGroup {
    /// Whether a journal that has enough rows for several groups is to become several.
    fn is_part(&self) -> bool {
        limits::GROUP_ROWS_AIM < self.rows && self.until < self.last
    }
}

fn next_group(tx: &mut Tx<'_>) -> Result<Option<NextGroup>, Error> {
    let Some((last, rows)) = tx.journal_extent()? else { return Ok(None) };
    let first = last + 1 - i64::try_from(rows).unwrap_or(i64::MAX);
    let until = tx.durable.journal_ends.cut((first, last), limits::GROUP_ROWS_AIM);
    Ok(Some(NextGroup { until, last, rows }))
}

fn short(tx: &mut Tx<'_>, rows_max: usize) -> Result<Short, Error> {
    if tx.durable.open_group.is_some() {
        return Ok(Short::No);
    }
    // Before the rows are read, which would be read again. Where no end is known, as mostly, it takes no look.
    if tx.durable.journal_ends.are_known() && next_group(tx)?.is_some_and(|next| next.is_part()) {
        return Ok(Short::No);
    }
    let Some(rows) = tx.journal_whole(rows_max)? else { return Ok(Short::No) };
    let Some(last) = rows.last() else { return Ok(Short::Empty) };
    let mut readable = None;
    for row in &rows {
        let known = readable == Some(row.layout.id);
        if row.op == Op::Suspect || !(known || capture::journal::is_readable(tx, &row.layout)) {
            return Ok(Short::No);
        }
        readable = Some(row.layout.id);
    }
    let (until, first) = (last.n, tx.durable.next);
    Ok(Short::Whole(OpenGroup { until, first, last: first + rows.len() as Sequence - 1, next: first }, rows))
}

/// The group to go on with, or a new one; none when there is nothing to ingest, or suspects are still to be looked at.
fn open_group(tx: &mut Tx<'_>, rows_max: usize) -> Result<Option<OpenGroup>, Error> {
    if let Some(open) = tx.durable.open_group {
        return Ok(Some(open));
    }
    let Some(NextGroup { mut until, last, .. }) = next_group(tx)? else { return Ok(None) };
    // Whether a suspect is alive the rows say, and those are as all of the journal left them.
    // They may be looked at in several transactions, after which they are none any more.
    if until < last && !tx.journal_suspects(until, 1)?.is_empty() {
        tx.durable.journal_ends = Ends::default();
        until = last;
    }
    capture::journal::drop_unreadable(tx, until)?;
    if !tx.settle_suspects(until, rows_max)? {
        return Ok(None);
    }
    let count = tx.journal_count(until)?;
    if count == 0 {
        return Ok(None);
    }
    let first = tx.durable.next;
    Ok(Some(OpenGroup { until, first, last: first + count - 1, next: first }))
}

/// Ingests changes that do not come from the journal, as one group.
///
/// # Errors
/// When the database fails.
pub fn changes(tx: &mut Tx<'_>, changes: Vec<Change>, now: Timestamp) -> Result<Ingested, Error> {
    debug_assert!(tx.durable.open_group.is_none(), "a group is ingested whole before another begins");
    if changes.is_empty() {
        return Ok(Ingested::default());
    }
    let first = tx.durable.next;
    let last = first + changes.len() as Sequence - 1;
    let mut writer = Writer::begin(tx, first, last)?;
    for change in changes {
        writer.store(change, now)?;
    }
    let events = writer.events;
    let last_timestamp = tx.durable.clock.last();
    let open = OpenGroup { until: 0, first, last, next: first };
    let left = rows_of(tx.journal_extent()?);
    finish(tx, Progress { open, next: last + 1, ended: true, last_timestamp, left }, events)
}

/// Ingests what a migration did, as one group, with the timestamps that are given: right behind what it was made from.
///
/// # Errors
/// When the database fails.
pub fn carried(tx: &mut Tx<'_>, changes: Vec<(Change, Timestamp)>) -> Result<Ingested, Error> {
    debug_assert!(tx.durable.open_group.is_none(), "a group is ingested whole before another begins");
    if changes.is_empty() {
        return Ok(Ingested::default());
    }
    let first = tx.durable.next;
    let last = first + changes.len() as Sequence - 1;
    let mut writer = Writer::begin(tx, first, last)?;
    for (change, timestamp) in changes {
        writer.tx.durable.clock.merge(timestamp);
        writer.store_at(change, timestamp)?;
    }
    let events = writer.events;
    let last_timestamp = tx.durable.clock.last();
    let open = OpenGroup { until: 0, first, last, next: first };
    let left = rows_of(tx.journal_extent()?);
    finish(tx, Progress { open, next: last + 1, ended: true, last_timestamp, left }, events)
}

/// Stores changes as events, one number after the other.
struct Writer<'t, 'a> {
    tx: &'t mut Tx<'a>,
    next: Sequence,
    group_last: Sequence,
    events: Vec<Event>,
}

impl<'t, 'a> Writer<'t, 'a> {
    fn begin(tx: &'t mut Tx<'a>, first: Sequence, group_last: Sequence) -> Result<Self, Error> {
        let node = tx.durable.node;
        let context = if tx.durable.loaded { tx.durable.vector.without(node) } else { Default::default() };
        if context != tx.durable.context {
            tx.save_context(node, first, &context)?;
            tx.durable.context = context;
        }
        Ok(Self { tx, next: first, group_last, events: Vec::new() })
    }

    fn store(&mut self, change: Change, now: Timestamp) -> Result<(), Error> {
        let timestamp = match change.at {
            Some(at) => self.tx.durable.clock.stamp(at, now),
            // From before this node was complete: the lowest stamps there are, in the order of the numbers.
            None => Timestamp(i64::try_from(self.next).unwrap_or(i64::MAX)),
        };
        self.store_at(change, timestamp)
    }

    fn store_at(&mut self, mut change: Change, timestamp: Timestamp) -> Result<(), Error> {
        let large = change.data.as_ref().map(String::len).filter(|bytes| limits::ROW_BYTES_MAX < *bytes);
        if let Some(bytes) = large {
            change.data = Some(event::left_out(bytes));
        }
        let event = Event {
            table: change.table,
            operation: change.operation,
            record_id: change.record_id,
            data: change.data,
            timestamp,
            layout: change.layout,
            changed: change.changed,
        };
        let id = EventId { origin: self.tx.durable.node, sequence: self.next };
        match self.tx.tables().journaled(&event.table) {
            Some(table) => {
                let place = Place { id, group_last: self.group_last, table, processed: true };
                assert!(
                    self.tx.insert_event(&place, &event)?,
                    "bug: sequence number {} was given out before",
                    self.next
                );
                // What the service wrote supersedes what waits of the record, and may make room for others.
                let (timestamp, origin, sequence) = (event.timestamp, id.origin, id.sequence);
                let version = Version { timestamp, origin, sequence };
                self.tx.settle_parked(table, &event.record_id, version, large.is_some())?;
                if large.is_some() {
                    self.park_large(id, &event)?;
                }
            }
            // It is gone since, in the middle of a long group.
            None => self.tx.insert_stray(id, self.group_last, &event)?,
        }
        self.next += 1;
        self.events.push(event);
        Ok(())
    }
}

impl Writer<'_, '_> {
    /// A row that is too large to travel stays here, and everybody knows of it.
    fn park_large(&mut self, id: EventId, event: &Event) -> Result<(), Error> {
        let tables = self.tx.tables();
        let Some(table) = tables.journaled(&event.table) else { return Ok(()) };
        let Some(layout) = self.tx.layout(event.layout)? else { return Ok(()) };
        let detail = event.left_out(&layout).unwrap_or_default();
        tracing::warn!(event = %id, table = table.name, record = event.record_id, "{detail}");
        let place = Place { id, group_last: self.group_last, table, processed: false };
        let now = self.tx.durable.clock.last();
        self.tx.park(&place, event, Why { reason: ParkReason::Size, detail: &detail, holder: None }, now).map(drop)
    }
}

/// Whether the journal is too long to be ingested from within another transaction.
///
/// # Errors
/// When the database fails.
pub fn is_long(tx: &Tx<'_>) -> Result<bool, Error> {
    Ok(tx.durable.open_group.is_some() || limits::DRAIN_ROWS_MAX < rows_of(tx.journal_extent()?))
}

fn rows_of(extent: Option<(i64, usize)>) -> usize {
    extent.map_or(0, |(_, rows)| rows)
}

/// Ingests what waits in the journal from within another transaction, all of it. The journal is short: a long one was
/// ingested before.
///
/// # Errors
/// When the database fails.
pub fn drain(tx: &mut Tx<'_>, now: Timestamp) -> Result<Vec<Ingested>, Error> {
    let mut done = Vec::new();
    while tx.journal_extent()?.is_some() {
        done.push(journal(tx, now, limits::DRAIN_ROWS_MAX)?);
    }
    Ok(done)
}
