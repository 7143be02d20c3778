//! The subjects: one place for their form. Every token was checked where it came in.

use crate::position::NodeId;

/// The subjects of one service.
#[derive(Clone, Debug)]
pub struct Subjects {
    root: String,
}

impl Subjects {
    /// Of that service.
    pub fn of(service: &str) -> Self {
        Self { root: format!("rowcast.{service}") }
    }

    /// Change events of the service beside the node of that name.
    pub fn changes(&self, name: &str) -> String {
        format!("{}.changes.{name}", self.root)
    }

    /// The feed of a node.
    pub fn events(&self, origin: NodeId) -> String {
        format!("{}.events.{origin}", self.root)
    }

    /// All feeds.
    pub fn all_events(&self) -> String {
        format!("{}.events.*", self.root)
    }

    /// Presence of all nodes.
    pub fn presence(&self) -> String {
        format!("{}.presence", self.root)
    }

    /// Requests to one node.
    pub fn rpc(&self, node: NodeId, verb: &str) -> String {
        format!("{}.rpc.{node}.{verb}", self.root)
    }

    /// All requests to one node.
    pub fn all_rpc(&self, node: NodeId) -> String {
        format!("{}.rpc.{node}.*", self.root)
    }

    /// Whether a node is READY, and why not, for anybody.
    pub fn state(&self, name: &str) -> String {
        format!("{}.state.{name}", self.root)
    }
}

/// The last token of a subject.
pub fn last_token(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or(subject)
}
