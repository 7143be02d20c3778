//! The phases on the way to READY. A node goes through them in order; back go only one that takes a new id, and one that loads
//! everything once more. What else can take a READY node's readiness away again is a trouble, not a phase.

use std::time::Duration;

use super::joiner::Joiner;
use crate::members::Members;
use crate::observe::status::{Code, Progress, Reason};
use crate::position::{NodeId, Vector};

/// Where the node is on its way to READY.
#[derive(Debug)]
pub enum Phase {
    /// Asks who is there.
    Asking {
        /// Since when, in the process's time.
        since: Duration,
    },
    /// Is the first node: what is in its tables becomes events.
    Founding,
    /// Loads everything from another node.
    Joining(Box<Joiner>),
    /// Everything is loaded; its own rows are compared with it.
    Settling {
        /// The position to begin at.
        start: Vector,
        /// What to reach.
        target: Vector,
    },
    /// Follows the live feed until it has what the others had.
    CatchingUp {
        /// What to reach.
        target: Vector,
    },
    /// Has everything.
    Ready,
}

impl Phase {
    /// Whether events may be ingested and applied as usual: the position is settled.
    pub fn flows(&self, loaded: bool) -> bool {
        match self {
            Self::Asking { .. } => loaded,
            Self::Founding | Self::Joining(_) | Self::Settling { .. } => false,
            Self::CatchingUp { .. } | Self::Ready => true,
        }
    }

    /// Why the node is not READY; none when it is, as far as the way there goes.
    pub fn reason(&self, applied: &Vector, members: &Members, answered: bool) -> Option<Reason> {
        let name = |node: NodeId| members.name(node).map_or_else(|| format!("{node}"), str::to_owned);
        match self {
            Self::Asking { .. } if members.iter().any(|member| member.presence.ready) => Some(Reason::new(
                Code::Starting,
                "other nodes have answered, and this node begins in a moment to fetch what it lacks",
            )),
            Self::Asking { .. } if answered => Some(
                Reason::new(
                    Code::NoPeerAnswered,
                    "other nodes answered, but none of them is READY and can be loaded from",
                )
                .with_hint("wait for one of them, or read why they are not READY"),
            ),
            Self::Asking { .. } => Some(Reason::new(
                Code::NoPeerAnswered,
                "no other node has answered, so it is not known whether there is data elsewhere",
            )),
            Self::Founding => {
                Some(Reason::new(Code::Starting, "this is the first node: its rows are being made into events"))
            }
            Self::Joining(joiner) => {
                Some(Reason::new(Code::Joining, format!("loading from node {}", name(joiner.donor()))))
            }
            Self::Settling { .. } => {
                Some(Reason::new(Code::Joining, "everything is loaded and is compared with the rows that were here"))
            }
            Self::CatchingUp { target } => {
                let lacks: u64 = applied.lacks(target).map(|(origin, to)| to - applied.of(origin)).sum();
                if lacks == 0 {
                    let text = "what is heard of is here; that it is all is confirmed with a node that has everything";
                    let hint = "if it stays so, start a node that was READY before; if there is none any more, start this one once \
                                with --first";
                    return Some(Reason::new(Code::Behind, text).with_hint(hint));
                }
                Some(Reason::new(Code::Behind, format!("{lacks} events that the others have are still to come")))
            }
            Self::Ready => None,
        }
    }

    /// How far it has come.
    pub fn progress(&self, members: &Members) -> Option<Progress> {
        match self {
            Self::Joining(joiner) => {
                let donor = members.name(joiner.donor()).unwrap_or("another node");
                let what = format!("events from node {donor}, table {}", joiner.table().unwrap_or("-"));
                let total = (joiner.total > 0).then_some(joiner.total.max(joiner.done));
                Some(Progress { what, done: joiner.done, total, eta_seconds: None })
            }
            _ => None,
        }
    }
}
