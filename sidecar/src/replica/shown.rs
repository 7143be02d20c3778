//! What the node shows of itself: readiness and the status page.

use std::collections::BTreeMap;
use std::time::Duration;

use super::time::COMPARE_CLOCKS;
use super::{Moment, Replica};
use crate::bootstrap::gate::Phase;
use crate::edge::store::Replicated;
use crate::limits;
use crate::observe::status::{Bus, Code, Database, Member, Parked, Position, Reason, State, Status, Table};
use crate::position::NodeId;

/// How often the facts that need a look at the database are renewed.
const FACTS_INTERVAL: Duration = Duration::from_secs(1);

/// A member whose clock differs by more than this is worth a warning.
const SKEW_MAX_MILLIS: i64 = 5_000;

impl Replica {
    /// Whether the local service may be used.
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }

    /// Whether this process has what there was to have when it started. It may be NOT READY all the same, for another reason.
    pub fn has_caught_up(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    fn reasons(&self) -> Vec<Reason> {
        let durable = self.store.durable();
        let mut reasons: Vec<Reason> = Vec::new();
        reasons.extend(self.alarm.as_ref().map(|(reason, _)| reason.clone()));
        reasons.extend(self.identity_reason());
        reasons.extend(self.given_up_reason());
        reasons.extend(self.trouble.as_ref().map(|trouble| trouble.reason.clone()));
        let bus = self.bus_trouble();
        if let Some(text) = bus.filter(|_| !matches!(self.phase, Phase::Ready) && !durable.complete) {
            reasons.push(Reason::new(Code::Bus, format!("{text}; this node needs the others")));
        }
        let phase = || self.phase.reason(&durable.vector, &self.members, self.answered_at.is_some());
        let catching_up = matches!(self.phase, Phase::CatchingUp { .. });
        reasons.extend(self.waiting.unheard.clone().filter(|_| catching_up).or_else(phase));
        reasons.extend(self.paused_long());
        if self.has_caught_up() {
            reasons.extend(self.clock_off.clone().or_else(|| self.clock_in_doubt()));
            reasons.extend(self.missing_tables());
            reasons.extend(self.diverged().map(|text| Reason::new(Code::Diverged, text)));
            if self.waiting.behind {
                reasons.push(self.lagging());
            }
        }
        reasons
    }

    /// Events wait because their timestamps lie in the future of the clock here. Most members' clocks say whose is wrong.
    fn clock_in_doubt(&self) -> Option<Reason> {
        if self.store.durable().doubtful == 0 {
            return None;
        }
        let drift = i64::try_from(limits::DRIFT_MAX.as_millis()).unwrap_or(i64::MAX);
        let agrees = |member: &&crate::members::Member| member.skew_millis.abs() <= drift;
        let heard = self.members.iter().count();
        let differing = heard - self.members.iter().filter(agrees).count();
        let text = format!(
            "{} events wait because their timestamps lie more than {} s ahead of the clock here",
            self.store.durable().doubtful,
            limits::DRIFT_MAX.as_secs()
        );
        // This clock counts, too. Who hears nobody cannot know.
        let (doubtful, outvoted) = (heard == 0 || heard < 2 * differing, heard + 1 < 2 * differing);
        let reason = Reason::new(Code::Clock, text);
        doubtful.then(|| if outvoted { reason } else { reason.with_hint(COMPARE_CLOCKS) })
    }

    fn missing_tables(&self) -> Option<Reason> {
        let absent = self.store.tables().iter().filter(|table| table.shape.is_none());
        let (refused, missing): (Vec<_>, Vec<_>) = absent.partition(|table| table.refused.is_some());
        let mut texts: Vec<String> = refused.iter().filter_map(|table| table.refused.clone()).collect();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|table| table.name.as_str()).collect();
            texts.push(format!("declared tables are not in this database: {}", names.join(", ")));
        }
        (!texts.is_empty()).then(|| Reason::new(Code::Schema, texts.join("; ")))
    }

    fn lagging(&self) -> Reason {
        let gaps = self.gaps();
        let text = match gaps.first() {
            Some(gap) => format!(
                "events {} to {} of node {} are known to exist, and nobody has handed them over",
                gap.first,
                gap.last,
                self.name_of(gap.origin)
            ),
            None => "this node has been behind the others for more than 15 seconds".to_owned(),
        };
        Reason::new(if gaps.is_empty() { Code::Behind } else { Code::Gap }, text)
    }

    pub(super) fn name_of(&self, node: NodeId) -> String {
        self.members.name(node).map_or_else(|| node.to_string(), str::to_owned)
    }

    /// Everything worth knowing about the node.
    pub fn status(&mut self, at: Moment) -> Status {
        self.renew_facts(at);
        let durable = self.store.durable();
        let mut status = Status {
            node: self.options.name.clone(),
            node_id: Some(durable.node.0),
            service: self.store.declaration().service.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            warnings: self.warnings(at),
            progress: self.phase.progress(&self.members),
            bus: Bus {
                connected: self.connected,
                server: Some(self.options.servers.clone()),
                reconnects: self.reconnects,
            },
            database: Database {
                path: self.store.path().to_owned(),
                bytes: self.store.bytes(),
                wal_bytes: self.store.wal_bytes(),
                journal_rows: self.facts.journal_rows,
            },
            head: durable.vector.of(durable.node),
            positions: self.positions(),
            members: self.shown_members(at),
            tables: self.shown_tables(),
            counters: self.counters,
            verification: self.verification(),
            parked_by_reason: self.parked_by_reason(),
            parked: self
                .facts
                .parked
                .iter()
                .map(|[event, table, record, reason, detail]| Parked {
                    event: event.clone(),
                    table: table.clone(),
                    record: record.clone(),
                    reason: format!("{reason}: {detail}"),
                })
                .collect(),
            ..Status::default()
        };
        status.set_reasons(self.reasons());
        status
    }

    fn renew_facts(&mut self, at: Moment) {
        if at.uptime < self.facts_at + FACTS_INTERVAL {
            return;
        }
        self.facts_at = at.uptime;
        match self.reader.facts() {
            Ok(facts) => self.facts = facts,
            Err(error) => tracing::debug!(error = error.chain(), "the facts for the status page could not be read"),
        }
    }

    /// What is wrong with the way to the others: there is none, or the server refuses some of what goes there.
    fn bus_trouble(&self) -> Option<&str> {
        let none = (!self.connected).then_some("there is no connection to NATS");
        self.bus_trouble.as_deref().or(none)
    }

    fn warnings(&self, at: Moment) -> Vec<String> {
        let mut warnings: Vec<String> = self.shown_pause().into_iter().collect();
        for pending in self.store.pending() {
            let (table, round) = (&pending.table, pending.want.round);
            let cursor = self.sweeps.iter().find(|cursor| cursor.table == *table && cursor.round == round);
            let seen = cursor.map_or(0, |cursor| cursor.seen);
            warnings.push(format!(
                "table {table} is being compared with its events after a change of its schema: {seen} looked at so far"
            ));
        }
        if let Some(text) = self.bus_trouble() {
            let then = if self.connected {
                "check the permissions of this user"
            } else {
                "local writes are kept and go out when it is back"
            };
            warnings.push(format!("{text}; {then}"));
        }
        self.identity_warnings(&mut warnings);
        let schema = self.schema();
        for member in self.members.live(at.uptime) {
            let name = &member.presence.name;
            if member.presence.schema != schema {
                warnings.push(format!("node {name} declares another schema: ship the same schema TOML to all nodes"));
            }
            if member.skew_millis.abs() > SKEW_MAX_MILLIS {
                let seconds = member.skew_millis / 1000;
                warnings.push(format!(
                    "the clock of node {name} differs from the one here by about {seconds} s: check NTP"
                ));
            }
        }
        for table in self.store.tables().iter() {
            let columns = self.missing_columns(table);
            if !columns.is_empty() {
                let text = format!(
                    "table {} lacks columns that others have: {}; run the migration here, and what they wrote is filled in",
                    table.name,
                    columns.join(", ")
                );
                warnings.push(text);
            }
        }
        warnings.extend(self.compaction_held());
        warnings.extend(self.dangling_warnings());
        if self.store.durable().parked > 0 {
            let reasons = self.parked_by_reason();
            let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            warnings.push(format!(
                "{} events are parked ({}): they are kept, and tried again; `rowcast parked list` shows them",
                self.store.durable().parked,
                reasons.join(", ")
            ));
        }
        warnings
    }

    fn positions(&self) -> Vec<Position> {
        let durable = self.store.durable();
        let mut known = durable.vector.clone();
        known.join(&self.order.heads());
        let position = |(origin, known): (NodeId, u64)| Position {
            node: if origin == durable.node {
                Some(self.options.name.clone())
            } else {
                self.members.name(origin).map(str::to_owned)
            },
            origin: origin.0,
            position: durable.vector.of(origin),
            known,
        };
        known.iter().map(position).collect()
    }

    fn shown_members(&self, at: Moment) -> Vec<Member> {
        let schema = self.schema();
        let member = |member: &crate::members::Member| Member {
            name: member.presence.name.clone(),
            id: member.presence.node.0,
            state: if member.presence.ready { State::Ready } else { State::NotReady },
            seen_seconds_ago: at.uptime.saturating_sub(member.seen).as_secs_f64(),
            position: member.presence.vector.iter().map(|(origin, position)| (origin.0, position)).collect(),
            schema_matches: member.presence.schema == schema,
        };
        self.members.iter().map(member).collect()
    }

    fn parked_by_reason(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for (_, reason, count) in &self.facts.parked_counts {
            *reasons.entry(reason.clone()).or_default() += count;
        }
        reasons
    }

    fn shown_tables(&self) -> Vec<Table> {
        let events =
            |name: &str| self.facts.events.iter().find(|(table, _)| table == name).map_or(0, |(_, count)| *count);
        let parked = |name: &str| {
            let counts = self.facts.parked_counts.iter().filter(|(table, ..)| table.eq_ignore_ascii_case(name));
            counts.map(|(.., count)| *count).sum()
        };
        let table = |table: &std::sync::Arc<Replicated>| Table {
            name: table.name.clone(),
            capture: table.declared.capture.word().to_owned(),
            events: events(&table.name),
            parked: parked(&table.name),
            dangling: self.dangling(&table.name),
            missing_columns: self.missing_columns(table),
            layouts: self.shown_layouts(table),
        };
        self.store.tables().iter().map(table).collect()
    }
}
