//! The second look at what seems to diverge, the verdict, and the mending.

use std::collections::VecDeque;

use super::{LATER, Resume, Scan, Stage, TableScan, Waiting};
use crate::edge::store::SnapshotPage;
use crate::flow::fetch::Request;
use crate::flow::receive;
use crate::limits;
use crate::observe::status::{Divergence, FOUND_LISTED_MAX};
use crate::position::NodeId;
use crate::replica::{Failure, Moment, Replica};
use crate::steady::digest::{self, Entry, Verdict, Witness};
use crate::steady::repair::{self, Looked};
use crate::wire::Message;

/// Findings that the others are asked about.
#[derive(Debug)]
pub(super) struct Looking {
    mine: Looked,
    resume: Resume,
}

/// Records whose events are taken from other nodes, one after the other.
#[derive(Debug)]
pub(super) struct Take {
    left: VecDeque<(Entry, Witness)>,
    resume: Resume,
}

impl Replica {
    /// Takes some findings, looks at them here, and asks members about them. `None` when the table is done.
    pub(super) fn look_again(
        &mut self,
        scan: &Scan,
        table: &mut TableScan,
        resume: Resume,
        at: Moment,
    ) -> Result<Option<Stage>, Failure> {
        let batch: Vec<String> = table.findings.iter().take(limits::DIGEST_LOOK_MAX).cloned().collect();
        if batch.is_empty() {
            table.overflow &= !(scan.asked && scan.report.repair);
            return Ok(resume.map(|stage| *stage));
        }
        let Some(mut mine) = self.store.write(|tx| repair::look(tx, &table.name, &batch, at.wall))? else {
            self.verify.not_before = at.uptime + LATER;
            return Ok(Some(Stage::Look(resume)));
        };
        self.publish(std::mem::take(&mut mine.ingested))?;
        batch.iter().for_each(|record| {
            table.findings.remove(record);
        });
        let nodes = self.witnesses(&scan.partners, &mine.entries, at);
        let waiting = self.ask_all(&nodes, &Request::Entries { table: table.name.clone(), records: batch }, at);
        Ok(Some(Stage::Looked(Box::new(Looking { mine, resume }), waiting)))
    }

    /// Who is asked about findings: who was compared, who made the events in question, and of the others as many as are
    /// asked at once.
    fn witnesses(&self, partners: &[NodeId], entries: &[Entry], at: Moment) -> Vec<NodeId> {
        let made = |node: &NodeId| entries.iter().flat_map(|entry| &entry.sources).any(|(origin, _)| origin == node);
        let concerned = |node: &NodeId| partners.contains(node) || made(node);
        let (mut asked, others): (Vec<_>, Vec<_>) = self.comparable(at).into_iter().partition(concerned);
        let room = limits::DIGEST_MEMBERS_MAX.saturating_sub(asked.len());
        asked.extend(others.into_iter().take(room));
        asked
    }

    /// Judges findings by what the others say of them, and mends the rows that are damaged here.
    pub(super) fn judge_findings(
        &mut self,
        scan: &mut Scan,
        table: &mut TableScan,
        looking: Looking,
        waiting: Waiting,
        at: Moment,
    ) -> Result<Stage, Failure> {
        let Looking { mine, resume } = looking;
        if !mine.entries.is_empty() && waiting.answers.is_empty() && !table.partners.is_empty() {
            scan.report.complete = false;
            let asked = "nobody answered in time what it has of the records that differ";
            scan.report.notes.push(format!("table {}: {asked}; compare again", table.name));
        }
        let me = self.node();
        let layout = self.store.tables().get(&table.name).and_then(|table| Some(table.shape.as_ref()?.layout.id.0));
        let answers: Vec<_> = waiting
            .answers
            .into_iter()
            .filter_map(|(node, message)| match message {
                Message::Compared(answer) if Some(answer.layout) == layout => Some((node, answer)),
                _ => None,
            })
            .collect();
        let mut left = VecDeque::new();
        for entry in &mine.entries {
            let witnesses: Vec<Witness> = answers
                .iter()
                .filter_map(|(node, answer)| {
                    let theirs = answer.entries.iter().find(|theirs| theirs.record == entry.record)?;
                    Some(Witness { node: *node, entry: theirs.clone(), vector: answer.vector.clone() })
                })
                .collect();
            let witness = |node: NodeId| witnesses.iter().find(|witness| witness.node == node);
            match digest::judge(me, (entry, &mine.vector), &witnesses) {
                Verdict::Fine => {}
                Verdict::MendRow => self.mend_row(scan, table, entry, at)?,
                Verdict::TakeFrom(node) if may_mend(scan, table) => {
                    left.extend(witness(node).map(|witness| (entry.clone(), witness.clone())));
                }
                Verdict::TakeFrom(node) => {
                    self.found(scan, table, (entry, witness(node)), Outcome::Open(NOT_ASKED.into()));
                }
                Verdict::TheirsAtFault(node) => {
                    let text = format!("node {} mends itself at its own next comparison", self.name_of(node));
                    self.found(scan, table, (entry, witness(node)), Outcome::Theirs(text));
                }
                Verdict::Undecided(node) => {
                    let text = "nobody can tell which of the two is right; write the record anew on one node";
                    self.found(scan, table, (entry, witness(node)), Outcome::Open(text.into()));
                }
            }
        }
        self.next_take(table, left, resume, at)
    }

    fn next_take(
        &mut self,
        table: &TableScan,
        left: VecDeque<(Entry, Witness)>,
        resume: Resume,
        at: Moment,
    ) -> Result<Stage, Failure> {
        let Some((entry, witness)) = left.front() else { return Ok(Stage::Look(resume)) };
        let request = Request::Records { table: table.name.clone(), records: vec![entry.record.clone()] };
        let waiting = self.ask_all(&[witness.node], &request, at);
        Ok(Stage::Take(Box::new(Take { left, resume }), waiting))
    }

    /// Takes the events of a record as the other node has them.
    pub(super) fn take_from(
        &mut self,
        scan: &mut Scan,
        table: &mut TableScan,
        mut take: Take,
        mut waiting: Waiting,
        at: Moment,
    ) -> Result<Stage, Failure> {
        let answer = waiting.answers.pop();
        let Some((entry, witness)) = take.left.front().cloned() else { return Ok(Stage::Look(take.resume)) };
        let outcome = match checked(answer.map(|(_, message)| message)) {
            Err(reason) => Outcome::Open(format!("node {} did not hand it over: {reason}", self.name_of(witness.node))),
            Ok(page) => {
                let name = table.name.clone();
                let Some(mended) = self.store.write(|tx| repair::take(tx, &name, &entry.record, &page, at.wall))?
                else {
                    self.verify.not_before = at.uptime + LATER;
                    return self.next_take(table, take.left, take.resume, at);
                };
                self.publish(mended.ingested)?;
                match mended.refused {
                    None => {
                        Outcome::Repaired(format!("its events are as node {} has them", self.name_of(witness.node)))
                    }
                    Some(reason) => Outcome::Open(reason),
                }
            }
        };
        take.left.pop_front();
        self.found(scan, table, (&entry, Some(&witness)), outcome);
        self.next_take(table, take.left, take.resume, at)
    }

    fn mend_row(&mut self, scan: &mut Scan, table: &mut TableScan, entry: &Entry, at: Moment) -> Result<(), Failure> {
        if !may_mend(scan, table) {
            self.found(scan, table, (entry, None), Outcome::Open(NOT_ASKED.into()));
            return Ok(());
        }
        let name = table.name.clone();
        let mended = self.store.write(|tx| repair::mend_row(tx, &name, &entry.record, at.wall))?;
        let Some(mended) = mended else {
            table.findings.insert(entry.record.clone()); // Looked at again, a little later.
            self.verify.not_before = at.uptime + LATER;
            return Ok(());
        };
        self.publish(mended.ingested)?;
        let outcome = match mended.refused {
            None => Outcome::Repaired("the row is what its events say again".to_owned()),
            Some(reason) => Outcome::Open(reason),
        };
        self.found(scan, table, (entry, None), outcome);
        Ok(())
    }

    /// Says everywhere that a record diverges, and what became of it.
    fn found(
        &mut self,
        scan: &mut Scan,
        table: &mut TableScan,
        (entry, witness): (&Entry, Option<&Witness>),
        outcome: Outcome,
    ) {
        let (repaired, text) = match &outcome {
            Outcome::Repaired(text) => (true, text.clone()),
            Outcome::Open(text) | Outcome::Theirs(text) => (false, text.clone()),
        };
        let divergence = Divergence {
            table: table.name.clone(),
            record: entry.record.clone(),
            what: what(entry, witness, &outcome).to_owned(),
            member: witness.map(|witness| self.name_of(witness.node)),
            here: self.version(entry),
            there: witness.map(|witness| self.version(&witness.entry)),
            repaired,
            outcome: text,
        };
        let is_new = !self.verify.open.contains_key(&(divergence.table.clone(), divergence.record.clone()));
        table.verified.found += 1;
        table.verified.repaired += u64::from(repaired);
        self.counters.diverged += u64::from(is_new);
        self.counters.repaired += u64::from(repaired);
        if is_new {
            tracing::error!(
                table = divergence.table,
                record = divergence.record,
                member = divergence.member,
                here = divergence.here,
                there = divergence.there,
                repaired,
                outcome = divergence.outcome,
                "a record diverges: {}",
                divergence.what
            );
        }
        if matches!(outcome, Outcome::Open(_)) {
            table.open.push(divergence.clone());
        }
        if scan.report.found.len() < FOUND_LISTED_MAX {
            scan.report.found.push(divergence);
        }
    }

    fn version(&self, entry: &Entry) -> String {
        match entry.version() {
            None => "no event".to_owned(),
            Some(version) => {
                let gone = if entry.deleted { ", deleted" } else { "" };
                let origin = if version.origin == self.node() {
                    self.options.name.clone()
                } else {
                    self.name_of(version.origin)
                };
                format!("{} {origin} #{}{gone}", version.timestamp, version.sequence)
            }
        }
    }
}

/// What became of a divergence.
enum Outcome {
    Repaired(String),
    Open(String),
    Theirs(String),
}

const NOT_ASKED: &str = "it was not to be mended; `rowcast verify --repair` does that";

/// Whether what is found may be mended: more than chance explains only when somebody says so.
fn may_mend(scan: &Scan, table: &TableScan) -> bool {
    scan.report.repair && (scan.asked || !table.overflow)
}

fn what(entry: &Entry, witness: Option<&Witness>, outcome: &Outcome) -> &'static str {
    match (witness, outcome) {
        (None, _) if entry.sources.is_empty() => "a row that no event knows",
        (None, _) if entry.row == 0 => "the row is missing, its events say what it is",
        (None, _) => "the row is not what its events say",
        (Some(witness), _) if witness.entry.sources == entry.sources && witness.entry.events != entry.events => {
            "the same event has other content there"
        }
        (Some(_), Outcome::Theirs(_)) => "events are missing there, or the row there is not what they say",
        (Some(_), _) => "an event that should be here is missing",
    }
}

/// The page of a record, if everything in it is sound.
fn checked(message: Option<Message>) -> Result<SnapshotPage, String> {
    let page = match message {
        Some(Message::Snapshot(page)) => page,
        Some(Message::Refused(reason)) => return Err(reason),
        Some(_) => return Err("it answered something else".to_owned()),
        None => return Err("no answer in time".to_owned()),
    };
    let known = receive::sound(&page.layouts).map_err(|error| error.to_string())?;
    for row in &page.rows {
        receive::check_event(&row.event, &known).map_err(|error| error.to_string())?;
    }
    Ok(page)
}
