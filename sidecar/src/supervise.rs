//! What the sidecar runs beside itself: the operator's command before the start, the service, and named tasks.
//!
//! - [`mod@before`]: a migration or the like, which must succeed before anything else;
//! - [`Service`]: the service itself, for `rowcast run --exec`;
//! - [`Tasks`]: the sidecar's own tasks, each with a name and one policy;
//! - [`Retry`]: growing, jittered pauses.
//!
//! Knows nothing of databases and buses.

mod before;
mod retry;
mod service;
mod tasks;

pub use before::before;
pub use retry::Retry;
pub use service::{Ended, Launch, Service, become_service};
pub use tasks::{OnError, Tasks};

/// An error of any kind, with its sources.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with a process or task that is run beside the sidecar.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program cannot be started.
    #[error("failed to start `{program}`")]
    Start {
        /// What was to be run.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The end of a process cannot be awaited, or it cannot be signalled.
    #[error("failed to look after the process of `{program}`")]
    Watch {
        /// What runs.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command before the start did not succeed.
    #[error("the command before the start, `{command}`, {ended}")]
    Before {
        /// The command.
        command: String,
        /// How it ended.
        ended: Ended,
    },
    /// A task that everything depends on has failed.
    #[error("{task} has failed")]
    Task {
        /// The task.
        task: &'static str,
        /// Why.
        source: BoxError,
    },
    /// A task has panicked, which is a bug.
    #[error("{task} has panicked: please report this as a bug, with the log")]
    Panicked {
        /// The task.
        task: &'static str,
    },
}
