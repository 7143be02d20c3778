//! Comparing rows with their own events, and records with those of other nodes, while everything else goes on.
//!
//! One comparison at a time, table by table: first the rows are gone through for those that no event knows, then the
//! records, page by page, each compared with its own events here and by digests with the nodes that are asked. What looks
//! wrong is looked at a second time, with the write lock held and the journal empty, beside what all members say of it;
//! only what stays wrong then is a divergence. Reading takes no lock and is paced; what is found is bounded.
//!
//! `steady/digest.rs` decides what diverges and who is right, `steady/repair.rs` mends.

mod mend;
mod pages;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Failure, Moment, Replica};
use crate::bootstrap::gate::Phase;
use crate::flow::fetch::{AskId, Request};
use crate::limits;
use crate::members::Member;
use crate::observe::status::{Divergence, FOUND_LISTED_MAX, Report, Verification, Verified};
use crate::position::NodeId;
use crate::wire::{self, Message};

use mend::Take;
use pages::Page;

/// How long the comparison waits for its turn behind everything else before it takes it.
const OVERDUE: Duration = Duration::from_secs(1);

/// How long an answer may take; the bus gives up earlier.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The pause before something that found no time is tried again.
const LATER: Duration = Duration::from_millis(100);

/// Comparisons that were asked for and wait for their turn.
const ASKED_MAX: usize = 4;

/// All that the replica knows of comparing.
#[derive(Debug, Default)]
pub(super) struct Verify {
    /// When the next one by the interval is due; not before the node is READY.
    due: Option<Duration>,
    /// How many nodes were asked: the next comparison begins behind them.
    turns: usize,
    asked: VecDeque<Asked>,
    scan: Option<Scan>,
    /// Not before then is the next page looked at.
    not_before: Duration,
    last: Option<Report>,
    answered: Option<Report>,
    /// The version of the schema when the sweep under way began.
    pub(super) swept_since: i64,
    /// Records that are known to be damaged here and are not mended, by table and record.
    open: BTreeMap<(String, String), Divergence>,
    /// The tables with rows that refer to nothing, as they were found last.
    dangling: BTreeMap<String, Dangling>,
}

/// Rows whose foreign key refers to nothing.
#[derive(Clone, Debug, Default)]
struct Dangling {
    rows: u64,
    /// One of them.
    example: String,
}

/// A comparison that an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its number: greater than those before it.
    pub id: u64,
    /// Whether what is found is mended, however much it is.
    pub repair: bool,
    /// One table only.
    pub table: Option<String>,
}

/// A comparison under way.
#[derive(Debug)]
struct Scan {
    /// It was asked for, and is not one by the interval.
    asked: bool,
    began: Duration,
    partners: Vec<NodeId>,
    tables: VecDeque<String>,
    table: Option<TableScan>,
    report: Report,
}

impl Scan {
    /// Between two pages.
    fn pause(&self) -> Duration {
        if self.asked { limits::DIGEST_PAUSE_ASKED } else { limits::DIGEST_PAUSE }
    }
}

/// The table that is compared now.
#[derive(Debug)]
struct TableScan {
    name: String,
    /// The version of the schema when it began.
    schema: i64,
    /// Whom to compare it with.
    partners: Vec<NodeId>,
    stage: Stage,
    /// Records that look wrong.
    findings: BTreeSet<String>,
    /// There are more of them than are kept.
    overflow: bool,
    verified: Verified,
    /// What stays open here after it.
    open: Vec<Divergence>,
    /// Rows that refer to nothing.
    dangling: Dangling,
}

/// How far the table is.
#[derive(Debug)]
enum Stage {
    /// Going through the rows, after this key.
    Rows(Option<Vec<rowcast_schema::value::Value>>),
    /// Going through the records, after this one.
    Records(Option<String>),
    /// A page of records is compared by the others.
    Page(Box<Page>, Waiting),
    /// The findings are looked at again; after that it goes on here, unless the table is at its end.
    Look(Resume),
    /// The others say what they have of some findings.
    Looked(Box<mend::Looking>, Waiting),
    /// The events of a record are taken from another node.
    Take(Box<Take>, Waiting),
}

/// Where a walk goes on after the findings so far are dealt with.
type Resume = Option<Box<Stage>>;

/// Requests under way, and what came of them.
#[derive(Debug, Default)]
struct Waiting {
    asks: BTreeMap<AskId, NodeId>,
    since: Duration,
    answers: Vec<(NodeId, Message)>,
}

impl Waiting {
    fn is_over(&self, at: Moment) -> bool {
        self.asks.is_empty() || self.since + ANSWER_WAIT <= at.uptime
    }
}

impl Replica {
    /// An operator wants a comparison.
    pub(super) fn take_verify(&mut self, asked: Asked) {
        if self.verify.asked.len() < ASKED_MAX {
            self.verify.asked.push_back(asked);
        } else {
            tracing::warn!("a comparison was asked for while several wait already; it is dropped");
        }
    }

    /// Takes the answer to a request of a comparison. Answers whether it was one.
    pub(super) fn take_verify_answer(&mut self, ask: AskId, frame: Option<&[u8]>) -> bool {
        let table = self.verify.scan.as_mut().and_then(|scan| scan.table.as_mut());
        let Some(Stage::Page(_, waiting) | Stage::Looked(_, waiting) | Stage::Take(_, waiting)) =
            table.map(|table| &mut table.stage)
        else {
            return false;
        };
        let Some(node) = waiting.asks.remove(&ask) else { return false };
        match frame.map(wire::decode) {
            Some(Ok(message)) => waiting.answers.push((node, message)),
            Some(Err(error)) => tracing::warn!(%node, %error, "refused an answer"),
            None => tracing::debug!(%node, "a node that was asked to compare did not answer in time"),
        }
        true
    }

    /// Whether the comparison has waited for long behind everything else.
    pub(super) fn verify_is_overdue(&self, at: Moment) -> bool {
        self.verify.scan.is_some() && self.verify.not_before + OVERDUE <= at.uptime
    }

    /// How long until the next page of a comparison may be looked at; none when there is none, or it waits for something else.
    pub fn compares_in(&self, uptime: Duration) -> Option<Duration> {
        let left = self.verify.not_before.checked_sub(uptime).filter(|left| !left.is_zero());
        left.filter(|_| self.verify.scan.is_some())
    }

    /// Does one bounded piece of a comparison. Answers whether it did anything.
    pub(super) fn verify_once(&mut self, at: Moment) -> Result<bool, Failure> {
        if !matches!(self.phase, Phase::Ready) || !self.store.durable().loaded || at.uptime < self.verify.not_before {
            return Ok(false);
        }
        if self.verify.scan.is_none() && !self.begin_verify(at) {
            return Ok(false);
        }
        let Some(mut scan) = self.verify.scan.take() else { return Ok(false) };
        let worked = match scan.table.take() {
            Some(table) => self.verify_table(&mut scan, table, at),
            None => self.next_table(&mut scan, at),
        };
        match worked {
            Ok(worked) => {
                match scan.table {
                    None if scan.tables.is_empty() => self.end_verify(scan, at),
                    _ => self.verify.scan = Some(scan),
                }
                Ok(worked)
            }
            Err(failure) => {
                // What it was at is not known any more: it is begun again.
                self.verify.due = self.verify.due.map(|_| at.uptime + LATER * 10);
                let note = "the database refused while it was compared; the log says why".to_owned();
                scan.report.notes.push(note);
                scan.report.complete = false;
                self.end_verify(scan, at);
                Err(failure)
            }
        }
    }

    fn begin_verify(&mut self, at: Moment) -> bool {
        let interval = self.options.verify_interval;
        let due = *self.verify.due.get_or_insert(at.uptime);
        let asked = self.verify.asked.pop_front();
        if asked.is_none() && (interval.is_zero() || at.uptime < due) {
            return false;
        }
        if asked.is_none() {
            self.verify.due = Some(at.uptime + interval);
        }
        let mut partners = self.comparable(at);
        let comparable = partners.len();
        // Each time others, and not those that all others ask at the same time.
        let rank = partners.iter().filter(|&&node| node < self.node()).count();
        partners.rotate_left(rank.wrapping_add(self.verify.turns) % comparable.max(1));
        partners.truncate(if asked.is_some() { limits::DIGEST_MEMBERS_MAX } else { 1 });
        self.verify.turns = self.verify.turns.wrapping_add(partners.len());
        let wanted = |name: &str| {
            asked.as_ref().and_then(|asked| asked.table.as_deref()).is_none_or(|table| table.eq_ignore_ascii_case(name))
        };
        let tables: VecDeque<String> =
            self.store.tables().iter().map(|table| table.name.clone()).filter(|name| wanted(name)).collect();
        let mut members: Vec<String> = partners.iter().map(|&node| self.name_of(node)).collect();
        members.sort();
        let mut report =
            Report { members, repair: asked.as_ref().is_none_or(|asked| asked.repair), ..Report::default() };
        report.id = asked.as_ref().map_or(0, |asked| asked.id);
        report.complete = true;
        if tables.is_empty() {
            report.complete = false;
            report.notes.push("no table of that name is replicated here".to_owned());
        }
        let asked = asked.is_some();
        if asked && partners.len() < comparable {
            let some = partners.len();
            report.notes.push(format!("{some} of {comparable} members are asked at once; the next run asks others"));
        }
        self.verify.scan = Some(Scan { asked, began: at.uptime, partners, tables, table: None, report });
        true
    }

    /// The members that records can be compared with. Not only the READY ones: one that is in doubt, because it lags or
    /// because it diverges, can still say what it has. One that still loads says no position.
    fn comparable(&self, at: Moment) -> Vec<NodeId> {
        let schema = self.schema();
        let fits = |member: &&Member| {
            let presence = &member.presence;
            presence.complete && !presence.vector.is_empty() && presence.schema == schema
        };
        let nodes = self.members.live(at.uptime).filter(fits).map(|member| member.presence.node);
        if self.connected { nodes.collect() } else { Vec::new() }
    }

    fn next_table(&mut self, scan: &mut Scan, at: Moment) -> Result<bool, Failure> {
        let Some(name) = scan.tables.pop_front() else { return Ok(true) };
        let Some(found) = self.store.tables().get(&name).filter(|table| table.shape.is_some()) else {
            scan.report.notes.push(format!("table {name} is not in this database"));
            scan.report.complete = false;
            return Ok(true);
        };
        let name = found.name.clone();
        let schema = self.store.write(|tx| tx.schema_version())?;
        let verified = Verified { table: name.clone(), members: scan.partners.len() as u64, ..Verified::default() };
        scan.table = Some(TableScan {
            name,
            schema,
            partners: scan.partners.clone(),
            stage: Stage::Rows(None),
            findings: BTreeSet::new(),
            overflow: false,
            verified,
            open: Vec::new(),
            dangling: Dangling::default(),
        });
        self.verify.not_before = at.uptime;
        Ok(true)
    }

    fn verify_table(&mut self, scan: &mut Scan, mut table: TableScan, at: Moment) -> Result<bool, Failure> {
        if let Stage::Page(_, waiting) | Stage::Looked(_, waiting) | Stage::Take(_, waiting) = &table.stage
            && !waiting.is_over(at)
        {
            scan.table = Some(table);
            return Ok(false);
        }
        let next = match std::mem::replace(&mut table.stage, Stage::Records(None)) {
            Stage::Rows(after) => Some(self.verify_rows(scan, &mut table, after, at)?),
            Stage::Records(after) => Some(self.verify_records(scan, &mut table, after, at)?),
            Stage::Page(page, waiting) => Some(self.verify_page(scan, &mut table, *page, waiting)),
            Stage::Look(resume) => self.look_again(scan, &mut table, resume, at)?,
            Stage::Looked(looking, waiting) => Some(self.judge_findings(scan, &mut table, *looking, waiting, at)?),
            Stage::Take(take, waiting) => Some(self.take_from(scan, &mut table, *take, waiting, at)?),
        };
        match next {
            Some(stage) => {
                table.stage = stage;
                scan.table = Some(table);
            }
            None => self.end_table(scan, table)?,
        }
        Ok(true)
    }

    /// Everything of the table is compared.
    fn end_table(&mut self, scan: &mut Scan, mut table: TableScan) -> Result<(), Failure> {
        if table.overflow {
            let text = format!(
                "table {}: more than {} records diverge; that many are not mended by themselves",
                table.name,
                limits::REPAIRS_MAX
            );
            tracing::error!(table = table.name, "{text}");
            scan.report.notes.push(text);
        }
        if table.dangling.rows == 0 {
            self.verify.dangling.remove(&table.name);
        } else {
            scan.report.notes.push(table.dangling.words(&table.name));
            self.verify.dangling.insert(table.name.clone(), std::mem::take(&mut table.dangling));
        }
        self.verify.open.retain(|(name, _), _| *name != table.name);
        if table.open.is_empty() && !table.overflow {
            let (name, schema) = (table.name.clone(), table.schema);
            self.store.write(|tx| tx.prove(&name, schema))?;
        }
        for divergence in table.open.drain(..).take(FOUND_LISTED_MAX) {
            self.verify.open.insert((divergence.table.clone(), divergence.record.clone()), divergence);
        }
        scan.report.tables.push(table.verified);
        Ok(())
    }

    fn end_verify(&mut self, mut scan: Scan, at: Moment) {
        scan.report.seconds = at.uptime.saturating_sub(scan.began).as_secs_f64();
        scan.report.ended_at = at.wall.millis();
        let (found, records): (u64, u64) =
            scan.report.tables.iter().fold((0, 0), |sum, table| (sum.0 + table.found, sum.1 + table.records));
        tracing::debug!(found, records, seconds = scan.report.seconds, "compared rows, events and nodes");
        let ended = if scan.asked { &mut self.verify.answered } else { &mut self.verify.last };
        *ended = Some(scan.report);
    }

    /// Asks some nodes the same.
    fn ask_all(&mut self, nodes: &[NodeId], request: &Request, at: Moment) -> Waiting {
        let mut waiting = Waiting { since: at.uptime, ..Waiting::default() };
        for &node in nodes {
            self.next_ask += 1;
            waiting.asks.insert(self.next_ask, node);
            self.ask(node, self.next_ask, request.clone());
        }
        waiting
    }

    /// What the status shows of it.
    pub(super) fn verification(&self) -> Verification {
        let table = self.verify.scan.as_ref().and_then(|scan| scan.table.as_ref());
        Verification {
            running: table.map(|table| (table.name.clone(), table.verified.records)),
            last: self.verify.last.clone(),
            asked: self.verify.answered.clone(),
            open: self.verify.open.values().take(FOUND_LISTED_MAX).cloned().collect(),
        }
    }

    /// How many rows of a table refer to nothing.
    pub(super) fn dangling(&self, table: &str) -> u64 {
        self.verify.dangling.get(table).map_or(0, |dangling| dangling.rows)
    }

    /// A warning for each table with such rows.
    pub(super) fn dangling_warnings(&self) -> impl Iterator<Item = String> {
        self.verify.dangling.iter().map(|(table, dangling)| dangling.words(table))
    }

    /// Why the rows here may not be used, if that is so.
    pub(super) fn diverged(&self) -> Option<String> {
        let first = self.verify.open.values().next()?;
        Some(format!(
            "{} records are damaged and not mended, such as record {} of table {}: {}",
            self.verify.open.len(),
            first.record.escape_debug(),
            first.table,
            first.outcome
        ))
    }
}

impl Dangling {
    fn words(&self, table: &str) -> String {
        format!(
            "table {table}: {} rows refer by a foreign key to a row that is not here, such as record {}; mend or delete \
             them through the service",
            self.rows,
            self.example.escape_debug()
        )
    }
}
