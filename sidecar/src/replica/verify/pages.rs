//! The walks of a comparison: over the rows, over the records, and what the others answer to a page of digests.

use std::collections::BTreeMap;

use rowcast_schema::declaration::Capture;
use rowcast_schema::value::Value;

use super::{LATER, Scan, Stage, TableScan, Waiting};
use crate::edge::store::Survey;
use crate::flow::fetch::Request;
use crate::limits;
use crate::position::NodeId;
use crate::replica::{Failure, Moment, Replica};
use crate::steady::digest::{self, Compared, Entry, Range, Relation, State};
use crate::steady::repair;
use crate::wire::Message;

/// Records that the others compare with theirs.
#[derive(Debug)]
pub(super) struct Page {
    survey: Survey,
    after: Option<String>,
    ranges: Vec<Range>,
}

impl Page {
    fn of(survey: Survey, after: Option<String>) -> Self {
        let mut ranges: Vec<Range> = survey
            .entries
            .chunks(limits::DIGEST_RANGE)
            .map(|entries| Range {
                until: entries.last().map(|entry| entry.record.clone()),
                sum: entries.iter().fold(0, |sum, entry| sum.wrapping_add(entry.part())),
            })
            .collect();
        if survey.next.is_none() {
            // To the end of the table: the others may have records that come after all of ours.
            match ranges.last_mut() {
                Some(last) => last.until = None,
                None => ranges.push(Range { until: None, sum: 0 }),
            }
        }
        Self { survey, after, ranges }
    }

    /// The range that a record lies in.
    fn place(&self, record: &str) -> u32 {
        let before = self.ranges.iter().take_while(|range| range.until.as_deref().is_some_and(|until| until < record));
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }
}

impl Replica {
    /// Goes through some rows, for those that no event knows and those that refer to nothing.
    pub(super) fn verify_rows(
        &mut self,
        scan: &Scan,
        table: &mut TableScan,
        after: Option<Vec<Value>>,
        at: Moment,
    ) -> Result<Stage, Failure> {
        let triggers =
            self.store.tables().get(&table.name).map(|table| table.declared.capture) == Some(Capture::Triggers);
        let found = self.reader.unknown(&table.name, after.as_deref(), 2 * limits::DIGEST_PAGE)?;
        let Some(unknown) = found else { return Ok(Stage::Records(None)) };
        if triggers && !self.note_suspects(table, &unknown.records, at)? {
            self.verify.not_before = at.uptime + LATER;
            return Ok(Stage::Rows(after));
        }
        table.dangling.rows += unknown.dangling.len() as u64;
        if let Some(last) = unknown.dangling.into_iter().next_back() {
            table.dangling.example = last;
        }
        self.verify.not_before = at.uptime + scan.pause();
        let next = unknown.next.map_or(Stage::Records(None), |key| Stage::Rows(Some(key)));
        Ok(go_on(scan, table, Some(next)))
    }

    /// Reads some records, compares each with its own events, and asks the others about them.
    pub(super) fn verify_records(
        &mut self,
        scan: &Scan,
        table: &mut TableScan,
        after: Option<String>,
        at: Moment,
    ) -> Result<Stage, Failure> {
        let Some(survey) = self.reader.survey(&table.name, after.as_deref(), limits::DIGEST_PAGE)? else {
            return Ok(Stage::Look(None));
        };
        let looks_wrong = |entry: &&Entry| entry.state != State::Agrees && !entry.parked;
        let suspects: Vec<String> =
            survey.entries.iter().filter(looks_wrong).map(|entry| entry.record.clone()).collect();
        if !self.note_suspects(table, &suspects, at)? {
            self.verify.not_before = at.uptime + LATER;
            return Ok(Stage::Records(after));
        }
        let page = Page::of(survey, after.clone());
        let request = Request::Digest {
            table: table.name.clone(),
            layout: page.survey.layout,
            after,
            ranges: page.ranges.clone(),
        };
        let waiting = self.ask_all(&table.partners.clone(), &request, at);
        self.verify.not_before = at.uptime + scan.pause();
        Ok(Stage::Page(Box::new(page), waiting))
    }

    /// Looks at records again, with nothing under way: what still differs is a finding, unless it became an event.
    /// Answers false when it is not the time for it.
    fn note_suspects(&mut self, table: &mut TableScan, records: &[String], at: Moment) -> Result<bool, Failure> {
        for batch in records.chunks(limits::DIGEST_LOOK_MAX) {
            let looked = self.store.write(|tx| repair::look(tx, &table.name, batch, at.wall))?;
            let Some(looked) = looked else { return Ok(false) };
            self.publish(looked.ingested)?;
            for entry in looked.entries {
                if entry.state == State::Differs && !entry.parked {
                    table.note(entry.record);
                }
            }
        }
        Ok(true)
    }

    /// Takes in what the others say of a page.
    pub(super) fn verify_page(
        &mut self,
        scan: &mut Scan,
        table: &mut TableScan,
        page: Page,
        waiting: Waiting,
    ) -> Stage {
        let mut reached: Option<String> = None;
        let silent = |node: &NodeId| !waiting.answers.iter().any(|(answered, _)| answered == node);
        let silent: Vec<_> =
            table.partners.iter().copied().filter(silent).map(|node| (node, Err(SILENT.to_owned()))).collect();
        let answers = waiting.answers.into_iter().map(|(node, message)| (node, self.usable(&page, message)));
        for (node, answer) in answers.chain(silent).collect::<Vec<_>>() {
            match answer {
                Ok(answer) => {
                    note_relations(table, &page, &answer);
                    reached = match (reached, answer.reached) {
                        (Some(one), Some(other)) => Some(one.min(other)),
                        (one, other) => one.or(other),
                    };
                }
                Err(reason) => {
                    table.partners.retain(|partner| *partner != node);
                    table.verified.members = table.partners.len() as u64;
                    scan.report.complete = false;
                    scan.report.notes.push(format!("table {} of node {}: {reason}", table.name, self.name_of(node)));
                }
            }
        }
        let done = |entry: &&Entry| reached.as_ref().is_none_or(|reached| entry.record <= *reached);
        let records = page.survey.entries.iter().filter(done).count() as u64;
        table.verified.records += records;
        self.counters.verified += records;
        let next = reached.or(page.survey.next);
        go_on(scan, table, next.map(|record| Stage::Records(Some(record))))
    }

    /// The answer, if it can be compared with what is here.
    fn usable(&self, page: &Page, message: Message) -> Result<Compared, String> {
        let answer = match message {
            Message::Compared(answer) => answer,
            Message::Refused(reason) => return Err(reason),
            _ => return Err("it answered something else".to_owned()),
        };
        if answer.layout != page.survey.layout.0 {
            return Err("it has other columns there; it is compared when both are the same".to_owned());
        }
        if 2 * limits::DIGEST_RECORDS_MAX < answer.entries.len()
            || answer.reached.as_ref().is_some_and(|reached| page.after.as_ref().is_some_and(|after| reached <= after))
        {
            return Err("its answer makes no sense".to_owned());
        }
        Ok(answer)
    }
}

/// Why a node was not compared.
const SILENT: &str = "it did not answer in time; look at its log, and at the connection";

/// The next stage of a walk, unless more was found than is kept.
fn go_on(scan: &Scan, table: &TableScan, next: Option<Stage>) -> Stage {
    match next {
        Some(next) if !table.overflow => next,
        // An operator wants it all mended: what was found first, then on.
        Some(next) if scan.asked && scan.report.repair => Stage::Look(Some(Box::new(next))),
        // Enough to say so.
        _ => Stage::Look(None),
    }
}

/// Compares the records of the ranges that differ, one by one.
fn note_relations(table: &mut TableScan, page: &Page, answer: &Compared) {
    let within = |record: &str| {
        answer.reached.as_deref().is_none_or(|reached| record <= reached)
            && page.after.as_deref().is_none_or(|after| after < record)
            && answer.differ.contains(&page.place(record))
    };
    let mine: BTreeMap<&str, &Entry> =
        page.survey.entries.iter().map(|entry| (entry.record.as_str(), entry)).filter(|(id, _)| within(id)).collect();
    let theirs: BTreeMap<&str, &Entry> =
        answer.entries.iter().map(|entry| (entry.record.as_str(), entry)).filter(|(id, _)| within(id)).collect();
    let all: std::collections::BTreeSet<&str> = mine.keys().chain(theirs.keys()).copied().collect();
    for record in all {
        let absent = Entry::absent(record);
        let mine = (*mine.get(record).unwrap_or(&&absent), &page.survey.vector);
        let theirs = (*theirs.get(record).unwrap_or(&&absent), &answer.vector);
        match digest::compare(mine, theirs) {
            // A row here that differs from its events was looked at already.
            Relation::Alike | Relation::Lag | Relation::MineDamaged => {}
            Relation::MineLacks | Relation::TheirsLacks | Relation::EventsDiffer | Relation::TheirsDamaged => {
                table.note(record.to_owned());
            }
        }
    }
}

impl TableScan {
    /// Keeps a record to be looked at again.
    pub(super) fn note(&mut self, record: String) {
        // One page more than is mended by itself: the walk ends there, or waits until these are dealt with.
        if self.findings.len() < limits::REPAIRS_MAX + 2 * limits::DIGEST_RECORDS_MAX {
            self.findings.insert(record);
        }
        self.overflow = limits::REPAIRS_MAX < self.findings.len();
    }
}
