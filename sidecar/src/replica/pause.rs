//! What keeps the node from working for a while: a migration under `rowcast migrate`, until it has ended; a database that
//! refuses, until it is tried again.

use std::time::Duration;

use super::{Moment, Replica, Trouble};
use crate::edge::store::{Error, Remedy};
use crate::observe::status::{Code, Reason};

/// How often it is looked whether the migration has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a migration may run before the node, which meanwhile applies nothing, is in doubt.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A migration under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    since: Duration,
    /// When it is looked again whether it has ended.
    look_at: Duration,
    /// For how long it is under way, as of the last look.
    lasts: Duration,
}

impl Replica {
    /// A transaction was refused: nothing of it is kept, and it is tried again.
    pub(super) fn take_trouble(&mut self, error: &Error, at: Moment) {
        if matches!(error, Error::Migrating { .. }) {
            return self.pause(at);
        }
        let text = error.chain();
        let (code, pause) = match error.remedy() {
            Remedy::TryAgain => {
                tracing::debug!(error = text, "the database is busy; the same again");
                self.dirty = true;
                self.order.clear();
                return;
            }
            Remedy::MendStorage => {
                self.room.refused(at.uptime);
                (Code::Storage, Duration::from_secs(1))
            }
            Remedy::AskOperator if matches!(error, Error::Table { .. }) => (Code::Schema, Duration::from_secs(2)),
            Remedy::AskOperator => (Code::Storage, Duration::from_secs(5)),
        };
        if self.trouble.as_ref().is_none_or(|trouble| trouble.reason.text != text) {
            tracing::error!(
                error = text,
                hint = code.hint(),
                "the database refuses; nothing is lost, it is tried again"
            );
        }
        self.dirty = true;
        // What was on its way is not known to be kept: it is fetched again.
        self.order.clear();
        self.trouble = Some(Trouble { reason: Reason::new(code, text), again_at: at.uptime + pause });
    }

    /// A migration is under way: what was to be done is done after it.
    pub(super) fn pause(&mut self, at: Moment) {
        if self.pause.is_none() {
            tracing::info!("a migration is under way: nothing is captured or applied until it has ended");
        }
        // What was on its way is not kept; it is fetched again.
        self.order.clear();
        self.dirty = true;
        let since = self.pause.map_or(at.uptime, |pause| pause.since);
        let lasts = at.uptime.saturating_sub(since);
        self.pause = Some(Pause { since, look_at: at.uptime + LOOK_INTERVAL, lasts });
    }

    /// Whether a migration is under way still.
    pub(super) fn is_paused(&mut self, at: Moment) -> bool {
        let Some(pause) = &mut self.pause else { return false };
        if at.uptime < pause.look_at {
            return true;
        }
        pause.look_at = at.uptime + LOOK_INTERVAL;
        pause.lasts = at.uptime.saturating_sub(pause.since);
        // When it cannot be looked at, the next transaction tells.
        if self.store.migrates().unwrap_or(false) {
            return true;
        }
        tracing::info!("the migration has ended");
        self.pause = None;
        self.dirty = true;
        false
    }

    /// What is to be known of a migration that is under way.
    pub(super) fn shown_pause(&self) -> Option<String> {
        let seconds = self.pause?.lasts.as_secs();
        Some(format!("a migration has been running for {seconds} s; nothing is captured or applied until it has ended"))
    }

    /// Why the node is in doubt, if the migration takes long.
    pub(super) fn paused_long(&self) -> Option<Reason> {
        self.pause.filter(|pause| PAUSE_MAX <= pause.lasts)?;
        self.shown_pause().map(|text| Reason::new(Code::Capture, text))
    }
}
