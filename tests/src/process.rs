//! A process that ends when its value is dropped. Nothing outlives the story that started it.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::reaper;

/// A running process, with what it says appended to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    group: bool,
}

impl Process {
    /// Starts `command`; `what` names it in messages. Standard output and error go to `log`, one after the other.
    pub fn spawn(what: &str, command: Command, log: &Path) -> Self {
        Self::begin(what, command, log, false)
    }

    fn begin(what: &str, mut command: Command, log: &Path, group: bool) -> Self {
        if group {
            command.process_group(0);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(appended(log))
            .stderr(appended(log))
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {what} ({command:?}): {error}"));
        let process = Self { child, what: what.to_owned(), group };
        reaper::started(process.reaped_as());
        process
    }

    /// As [`Process::spawn`], in a process group of its own, which is ended whole: for what starts others.
    pub fn spawn_group(what: &str, command: Command, log: &Path) -> Self {
        Self::begin(what, command, log, true)
    }

    fn reaped_as(&self) -> i64 {
        let id = i64::from(self.child.id());
        if self.group { -id } else { id }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process, and to no other.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .unwrap_or_else(|error| panic!("failed to send {signal:?} to {}: {error}", self.what));
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("failed to look after {}: {error}", self.what))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it has not ended after `bound`.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < bound, "{} is still running after {bound:?}", self.what);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        // Until it is waited for, its id is nobody else's. That it has ended by itself meanwhile is no fault.
        let pid = Pid::from_child(&self.child);
        let kill = if self.group { kill_process_group } else { kill_process };
        kill(pid, Signal::KILL).ok();
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.group || matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
        reaper::ended(self.reaped_as());
    }
}

fn appended(log: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap_or_else(|error| panic!("failed to open the log {}: {error}", log.display()))
}

/// What `log` holds; empty when there is none. At most the last `max` bytes.
pub fn tail(log: &Path, max: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(max);
    let cut = if start > 0 { format!("… ({start} bytes before)\n") } else { String::new() };
    cut + &String::from_utf8_lossy(&bytes[start..])
}
