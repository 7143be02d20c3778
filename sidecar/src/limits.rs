//! Every limit in one place, each with its reason, so that worst-case memory can be added up.

use std::time::Duration;

/// Rows that one ingest transaction takes from the journal: about 5 ms of write lock on a small machine.
pub const INGEST_ROWS_MAX: usize = 500;

/// The same where the journal has been too long for a while: about 30 ms. With half of that the journal of a service that wrote
/// 100 rows in each transaction, without a pause, stayed what it was.
pub const INGEST_ROWS_OVERRUN: usize = 4_000;

/// Rows of a group that is made of several transactions, where it is known where those end: other nodes apply it in one transaction,
/// and a service there waits for the write lock meanwhile.
pub const GROUP_ROWS_AIM: usize = 200;

/// Bytes of such a page, and of what is in memory for it: the rows of most services are shorter than 1 KiB.
pub const INGEST_BYTES_OVERRUN: usize = 4 * 1024 * 1024;

/// Rows that one applying transaction takes at most when many small groups wait, and the service writes: about 5 ms of write lock.
/// Where they take longer it takes fewer.
pub const APPLY_ROWS_MAX: usize = 500;

/// The same where the service has not written for ten seconds: about 20 ms. Keys in random order meet one page of an index
/// several times in so many rows, and it is written once.
pub const APPLY_ROWS_QUIET_MAX: usize = 2_000;

/// The same while the node is not READY: about 300 ms. Where they take longer it takes fewer. It is far behind, and each page of an index
/// that keys in random order meet is written once in so many rows.
pub const APPLY_ROWS_BEHIND_MAX: usize = 16_000;

/// How long a transaction that applies is to hold the write lock while the service writes: SQLite's busy handler looks again after
/// 1, 3 and 8 ms.
pub const APPLY_TIME: Duration = Duration::from_millis(4);

/// The same while the node is not READY and its service is quiet: one that begins to write has a busy timeout of 1 s or more.
pub const APPLY_TIME_BEHIND: Duration = Duration::from_millis(300);

/// Bytes of events of one transaction of a node that is not READY, while the service is quiet.
pub const LOT_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The fewest, while the service writes and they take long: what a transaction costs in any case would be most of its time.
pub const APPLY_ROWS_MIN: usize = 200;

/// Conflicts that are kept to be looked at; the oldest beyond it go.
pub const CONFLICTS_KEPT: i64 = 10_000;

/// Parked events that one transaction tries again: about 5 ms of write lock.
pub const PARKED_TRIED_MAX: usize = 200;

/// Rows of a group that are applied as one. A longer group is applied in pieces of this many: it bounds the time the
/// write lock is held for one group. Some 12 µs of a processor a row, measured in a debug build; the guarantees say so.
pub const GROUP_ROWS_MAX: u64 = 200_000;

/// Bytes of rows or events that are read into memory at a time, and one more of them.
pub const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows of the journal that an applying transaction ingests itself, all that there are. Where there are more it ingests a page
/// and applies nothing.
pub const DRAIN_ROWS_MAX: usize = 2_000;

/// Bytes of events in one piece on the wire, before compression.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;

/// Events in one piece.
pub const PIECE_EVENTS_MAX: usize = 2_000;

/// Bytes of events that a node asks for with one fetch or snapshot request, before compression, and applies in one transaction.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// The same of a snapshot request while the node is not READY and its service is quiet; nobody is given more.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same of both where there is little room. A row may be larger: it travels alone.
pub const PAGE_BYTES_SMALL: usize = 256 * 1024;

/// Bytes of one of several fetches at the same time, while the node is not READY and its service is quiet. Who is asked has
/// a few times as much in memory for each that it answers.
pub const FETCH_BYTES_BEHIND: usize = 1536 * 1024;

/// Fetches at the same time then, all origins together, unless more have one each: what the next transaction applies arrives while this
/// one goes on.
pub const FETCHES_AT_ONCE: usize = 4;

/// Less room than this beside the database, and little is taken at a time: four times the log as the node's own thread lets it grow.
pub const ROOM_SMALL: u64 = 64 * 1024 * 1024;

/// Less room than this, and no more than usual is taken at a time, and a log that grows fast is not copied all along: more than the log
/// as a node that is not READY lets it grow, with what one more transaction adds where each row meets two pages of its own. Under a
/// service that writes without a pause it has had 200 MB.
pub const ROOM_USUAL: u64 = 256 * 1024 * 1024;

/// Ids that a database had before, and that are remembered: of most of them numbers may have been given out twice.
pub const FORMER_IDS_MAX: usize = 16;

/// Ends of transactions that are known in a long journal: at some 5 ms from one to the next, a backlog of twenty seconds. Of more
/// those are forgotten that lie within one group.
pub const JOURNAL_ENDS_MAX: usize = 4_096;

/// Numbers of events whose fingerprints are asked for at once: some 10 ms to read them.
pub const FINGERPRINTS_MAX: u64 = 1_024;

/// Bytes of cells that one ingest transaction takes from the journal.
pub const INGEST_BYTES_MAX: usize = 1024 * 1024;

/// A message, whole and uncompressed: larger than SQLite's largest sensible row, small enough to refuse a bomb.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// A row, as JSON. A larger one stays on its node: with everything that may travel beside it, it would not fit a message.
pub const ROW_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 8 * 1024 * 1024;

/// Memory that one message may take when it is read, by a careful estimate: the largest row, and lists of many small things
/// far beyond what a page has.
pub const DECODED_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// A message is compressed past this size: below it zstd gains less than it costs.
pub const COMPRESS_BYTES_MIN: usize = 1024;

/// Pieces held in memory because something before them is missing, all origins together: what one origin was asked
/// for when all but a byte of [`AHEAD_BYTES_MAX`] was held fits, but for what small pieces cost beside their events.
pub const HELD_BYTES_MAX: usize = 13 * 1024 * 1024;

/// While less is held, what comes behind it is asked for: the next page travels while this one is applied.
pub const AHEAD_BYTES: usize = 3 * 1024 * 1024;

/// The same while the node is not READY and its service is quiet: less than one transaction.
pub const AHEAD_BYTES_MAX: usize = LOT_BYTES_MAX;

const _: () = assert!(AHEAD_BYTES_MAX + FETCHES_AT_ONCE * FETCH_BYTES_BEHIND <= HELD_BYTES_MAX);

/// Messages on their way from the bus to the node's own thread.
pub const INBOX_LEN: usize = 1024;

/// Bytes of such messages.
pub const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The same with one more of a feed, unless that is alone. What does not fit is fetched again, later than it came; a node that is busy
/// for seconds with one long group would have to keep all of it in memory else.
pub const INBOX_FEED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Messages on their way from the node's own thread to the bus.
pub const OUTBOX_LEN: usize = 1024;

/// Bytes of parts of messages that are still incomplete, of one subscription, all senders together.
pub const PARTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 16 * 1024 * 1024;

/// Requests of other nodes that are answered at the same time.
pub const SERVING_MAX: usize = 2;

/// Events that one compacting transaction looks at: a few milliseconds of write lock.
pub const COMPACT_EVENTS_MAX: usize = 200;

/// How often it is looked whether events can go.
pub const COMPACT_INTERVAL: Duration = Duration::from_secs(5);

/// How often everything is looked at anew: what could not go with its turn goes then.
pub const COMPACT_ANEW_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Members that are remembered. A hostile bus cannot grow the list beyond it.
pub const MEMBERS_MAX: usize = 1024;

/// Expelled nodes that are remembered beside them, for good. A node whose disk does not outlive it leaves one behind with
/// each start; they are told in each presence, 17 bytes each.
pub const EXPELLED_MAX: usize = 8 * MEMBERS_MAX;

/// Pages of a load that have come and are not stored yet: one is on its way while another one is stored.
pub const LOAD_AHEAD_MAX: usize = 2;

/// Tables that a donor may name: more than any service has, and few enough to compare each with each.
pub const TABLES_MAX: usize = 4_096;

/// Events that one transaction of a load looks at for what the donor has no more: a few milliseconds of write lock.
pub const FORGET_EVENTS_MAX: usize = 1_000;

/// Origins that are followed: every node that ever wrote, also those that are gone.
pub const ORIGINS_MAX: usize = 4096;

/// The longest request of another node: all of them are small JSON.
pub const CONTROL_BYTES_MAX: usize = 1024 * 1024;

/// The longest change event of a service. A larger row needs `capture = "triggers"`.
pub const CHANGE_BYTES_MAX: usize = 8 * 1024 * 1024;

const _: () = assert!(INBOX_FEED_BYTES_MAX + CHANGE_BYTES_MAX <= INBOX_BYTES_MAX);

/// How long a request to another node may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause before a failed fetch is tried again; it doubles, with jitter.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);

/// The longest such pause.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// How long the sidecar waits for the write lock before it gives up on a transaction and tries again later.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the journal is looked at when no file event said so: the net under the file watch. Of a quiet node less often,
/// [`QUIET_POLL_INTERVAL`].
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The same of a READY node that has had nothing to do for a while, and whose write-ahead log is watched. With 100 ms an idle node
/// took 0.45 % of a processor, with 200 ms 0.35 %.
pub const QUIET_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A member that was silent for this long is not asked for anything and is shown as gone.
pub const MEMBER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages that the writer keeps in memory, in KiB: with SQLite's 2 MiB, keys in random order read most pages of an index anew
/// for each row.
pub const CACHE_KIB: i64 = 8 * 1024;

/// The same while the service is quiet: only what it writes makes SQLite forget them. With 20 MiB a node with a backlog of a
/// million rows took 65.5 MB, more than the 64 that it may.
pub const CACHE_QUIET_KIB: i64 = 16 * 1024;

/// Frames in the `-wal` at which the node's own thread stops and copies them itself, when nobody did it before: else it would
/// grow for as long as there is always something to write. SQLite's own 1,000 copies the pages of an index that is written in
/// random order nearly once a row.
pub const WAL_FRAMES_USUAL: i64 = 4_000;

/// The same while the node is not READY and its service is quiet: 64 MiB. And the frames at which a commit of the sidecar copies.
pub const WAL_FRAMES_MAX: i64 = 16_000;

/// The same where there is little room; then the file is cut, too.
pub const WAL_FRAMES_SMALL: i64 = 64;

/// Bytes of the `-wal` file that stay when the log begins anew: as much as one has when it is left to whoever commits. To write
/// over what is there takes less than to append.
pub const WAL_BYTES_KEPT: i64 = 34 * 1024 * 1024;

/// The same while the node is not READY and its service is quiet: as long as one is when it is copied. With less, a catch-up cut
/// and made anew half of it all the time.
pub const WAL_BYTES_KEPT_BEHIND: i64 = 66 * 1024 * 1024;

const _: () = assert!(WAL_FRAMES_MAX * (4096 + 24) + 32 <= WAL_BYTES_KEPT_BEHIND);
const _: () = assert!((WAL_FRAMES_MAX as u64 + 2 * APPLY_ROWS_BEHIND_MAX as u64) * (4096 + 24) < ROOM_USUAL);

/// Frames that are not in the database yet from which on they are copied beside the work, while the node is not READY and its
/// service is quiet.
pub const WAL_FRAMES_LATE: i64 = 6_000;

/// Frames that are not in the database yet from which on they are copied while the service writes, or when there is nothing else to
/// do: before the 1,000 in the log from which on SQLite has the service do it in its own commit.
pub const WAL_FRAMES_LEFT: i64 = 600;

/// Frames a second from which on they are copied along with what is written: some 2,000 transactions of one row. At less the gaps
/// between the writes are long enough for a copy.
pub const WAL_FRAMES_SECOND_FAST: u64 = 6_000;

/// Frames of a log that is copied all along at which it is left to whoever commits: a service that writes all the time is the
/// only one that finds a moment to copy it to its end.
pub const WAL_FRAMES_ALONG_MAX: i64 = 8_000;

/// Rows that the reconciliation compares in one short transaction.
pub const RECONCILE_ROWS_MAX: usize = 500;

/// How far a timestamp may lie ahead of the clock here before it is doubted.
pub const DRIFT_MAX: Duration = Duration::from_secs(60);

/// Statements that the writer keeps prepared.
pub const STATEMENTS_MAX: usize = 512;

/// Records that a node compares with those of another one at a time: some two milliseconds of reading, without a lock, in
/// which the node's thread does nothing else.
pub const DIGEST_PAGE: usize = 64;

/// Records that are summed up in one digest. Where it differs, this many are looked at one by one.
pub const DIGEST_RANGE: usize = 16;

/// Records that a node reads to answer one request of another that compares.
pub const DIGEST_RECORDS_MAX: usize = 1_024;

/// Ranges in such a request.
pub const DIGEST_RANGES_MAX: usize = 64;

/// Events that the content of one record is followed to: more layouts than any table ever had.
pub const DIGEST_SOURCES_MAX: usize = 32;

/// Records that are looked at a second time, or mended, at once.
pub const DIGEST_LOOK_MAX: usize = 32;

/// The pause between two pages of a comparison: with [`DIGEST_PAGE`], at most 3,200 records a second.
pub const DIGEST_PAUSE: Duration = Duration::from_millis(20);

/// The same of one that somebody asked for, and waits for: at most 12,800.
pub const DIGEST_PAUSE_ASKED: Duration = Duration::from_millis(5);

/// Other nodes that one comparison asks: where there are more, the next one asks others.
pub const DIGEST_MEMBERS_MAX: usize = 16;

/// Records of one table that a comparison mends by itself. More of them are no damage by chance: an operator looks first.
pub const REPAIRS_MAX: usize = 1_000;

/// Between two answers of a node to "who is there?", for each other node that is heard.
pub const ANSWER_GAP: Duration = Duration::from_millis(20);

/// Bytes of one chunk of a database that travels whole, before compression.
pub const WHOLE_CHUNK_BYTES: usize = 1024 * 1024;

/// Chunks that are asked for at the same time: what a joiner holds of a database in memory.
pub const WHOLE_CHUNKS_AT_ONCE: usize = 4;

/// How long the copy of a database may take: for as long its write-ahead log cannot be reset. A larger database is
/// handed over event by event.
pub const WHOLE_COPY_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a joiner asks whether its copy is there: the copying, and taking out of it what is the donor's own.
pub const WHOLE_MAKING_MAX: Duration = Duration::from_secs(120);

/// A copy that nobody asks for any more is removed after this time.
pub const WHOLE_IDLE_MAX: Duration = Duration::from_secs(15);

/// Changes that may wait in the journal when a database is copied. The joiner takes them back in one transaction.
pub const WHOLE_JOURNAL_ROWS_MAX: i64 = 100_000;

/// Disk space that is left free where a copy is written.
pub const WHOLE_SPARE_BYTES: u64 = 64 * 1024 * 1024;
