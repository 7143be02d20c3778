//! The service, run by the sidecar: started once the node is READY, asked to stop before the sidecar stops.
//!
//! It runs in a process group of its own, so that a signal reaches what a shell started for it, and Ctrl-C on a
//! terminal comes to it once, through the sidecar. On Linux it also gets SIGTERM when the sidecar is killed with -9: it
//! is started through this very program ([`become_service`]), which asks the kernel for that and then becomes the
//! service. Elsewhere, and when the service changes its user, the service outlives a killed sidecar.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::Error;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Ended {
    /// What the operating system says.
    pub fn of(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }

    /// The exit code that tells the same, as shells have it: 128 and the signal.
    pub fn exit_code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

/// What to start, and how.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Variables beside those of the sidecar.
    pub variables: Vec<(&'static str, String)>,
    /// The `rowcast` program and its arguments before the command, when the service is to end with the sidecar:
    /// `/proc/self/exe service --`.
    pub through: Option<(PathBuf, Vec<OsString>)>,
    /// Whether it shares the terminal: it may read from there, and has the signals that are typed there by itself. Else it has a
    /// process group of its own, and a signal reaches what it started, too.
    pub in_terminal: bool,
}

/// A running service. Its one owner waits for it and signals it, so that no signal goes to a process that took over
/// its number.
#[derive(Debug)]
pub struct Service {
    child: Child,
    program: String,
    in_terminal: bool,
}

impl Service {
    /// Starts it. On Linux the calling thread must live as long as the service should: call it from the main task,
    /// not from one that was spawned.
    ///
    /// # Errors
    /// There is no such program, or it may not be run. Through `rowcast` itself that shows as exit code 127 or 126.
    pub fn start(launch: &Launch) -> Result<Self, Error> {
        let Some((program, arguments)) = launch.command.split_first() else {
            let nothing = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no command was given");
            return Err(Error::Start { program: String::new(), source: nothing });
        };
        let name = program.to_string_lossy().into_owned();
        let mut command = match &launch.through {
            Some((rowcast, before)) => {
                let mut command = Command::new(rowcast);
                command.args(before).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).envs(launch.variables.iter().map(|(name, value)| (name, value)));
        if !launch.in_terminal {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|source| Error::Start { program: name.clone(), source })?;
        tracing::info!(program = name, pid = child.id(), "a process was started");
        Ok(Self { child, program: name, in_terminal: launch.in_terminal })
    }

    /// Waits for its end. Cancel safe.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub async fn ended(&mut self) -> Result<Ended, Error> {
        let status = self.child.wait().await;
        let status = status.map_err(|source| Error::Watch { program: self.program.clone(), source })?;
        Ok(Ended::of(status))
    }

    /// Sends a signal to it and, where it does not share the terminal, to what it started. Nothing happens when it has ended.
    ///
    /// # Errors
    /// It changed its user, and may no longer be signalled.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        // Until its end was awaited the number cannot belong to another process, and then `id` has none.
        let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
            return Ok(());
        };
        let send = if self.in_terminal { rustix::process::kill_process } else { rustix::process::kill_process_group };
        match send(id, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(source) => Err(Error::Watch { program: self.program.clone(), source: source.into() }),
        }
    }

    /// Asks it to stop with SIGTERM; kills it when it has not ended after `grace`.
    ///
    /// # Errors
    /// It cannot be signalled or awaited.
    pub async fn stop(&mut self, grace: Duration) -> Result<Ended, Error> {
        self.signal(Signal::TERM)?;
        if let Ok(ended) = tokio::time::timeout(grace, self.ended()).await {
            return ended;
        }
        tracing::warn!(program = self.program, ?grace, "a process did not stop when asked, and is killed");
        self.signal(Signal::KILL)?;
        self.ended().await
    }
}

impl Drop for Service {
    /// Dropped without having ended, it is not left behind, nor is what it started.
    fn drop(&mut self) {
        if let Err(error) = self.signal(Signal::KILL) {
            tracing::warn!(%error, program = self.program, "a process could not be killed and is left behind");
        }
    }
}

/// Becomes the service: asks the kernel for SIGTERM when the sidecar `parent` ends, then replaces this process by
/// `command`. Returns only when that cannot be done, with the exit code that `env` and shells use for it.
pub fn become_service(parent: u32, command: &[OsString]) -> (Error, u8) {
    use std::os::unix::process::CommandExt as _;
    let (program, arguments) = match command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (OsString::new(), command),
    };
    #[cfg(target_os = "linux")]
    if let Err(source) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return (Error::Start { program: program.to_string_lossy().into_owned(), source: source.into() }, 126);
    }
    // The sidecar may have ended before the kernel was asked.
    let still_there =
        rustix::process::getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    if cfg!(target_os = "linux") && !still_there {
        let gone = std::io::Error::other("the sidecar has ended meanwhile");
        return (Error::Start { program: program.to_string_lossy().into_owned(), source: gone }, 126);
    }
    let source = std::process::Command::new(&program).args(arguments).exec();
    let code = if source.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    (Error::Start { program: program.to_string_lossy().into_owned(), source }, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Launch {
        Launch { command: ["sh", "-c", script].map(OsString::from).to_vec(), ..Launch::default() }
    }

    /// A service that says so, by a file, when it is ready to take signals.
    async fn ready(script: &str) -> (Service, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready");
        let service = Service::start(&sh(&format!("{script}; : > '{}'; while :; do sleep 0.02; done", file.display())));
        for _ in 0..3000 {
            if file.exists() {
                return (service.unwrap(), folder);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the service did not start within 30 s");
    }

    #[tokio::test]
    async fn its_exit_code_is_told() {
        let mut launch = sh("exit $CODE");
        launch.variables.push(("CODE", "7".to_owned()));
        let mut service = Service::start(&launch).unwrap();
        assert_eq!(service.ended().await.unwrap(), Ended::Code(7));
        service.signal(Signal::TERM).unwrap();
        assert_eq!(service.ended().await.unwrap().exit_code(), 7, "it can be asked again");
    }

    #[tokio::test]
    async fn a_signal_that_killed_it_is_told_as_shells_do() {
        let mut service = Service::start(&sh("kill -9 $$")).unwrap();
        let ended = service.ended().await.unwrap();
        assert_eq!(ended, Ended::Signal(9));
        assert_eq!(ended.exit_code(), 137);
    }

    #[tokio::test]
    async fn a_signal_is_passed_on() {
        // One that nothing around the tests ignores: under nohup a shell could not even trap SIGHUP, and this would never end.
        let (mut service, _folder) = ready("trap 'exit 5' USR1").await;
        service.signal(Signal::USR1).unwrap();
        assert_eq!(service.ended().await.unwrap(), Ended::Code(5));
    }

    #[tokio::test]
    async fn it_is_asked_before_it_is_killed() {
        let (mut service, _folder) = ready("trap 'exit 6' TERM").await;
        assert_eq!(service.stop(Duration::from_secs(30)).await.unwrap(), Ended::Code(6));
        let (mut deaf, _folder) = ready("trap '' TERM").await;
        assert_eq!(deaf.stop(Duration::from_millis(50)).await.unwrap(), Ended::Signal(9));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let launch = Launch { command: vec!["/no/such/program".into()], ..Launch::default() };
        assert_eq!(Service::start(&launch).unwrap_err().to_string(), "failed to start `/no/such/program`");
        assert!(Service::start(&Launch::default()).is_err());
    }
}
