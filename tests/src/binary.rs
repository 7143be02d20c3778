//! The programs that stories run: `rowcast` as the sources are now, and nats-server as the machine has it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::eventually::bound;
use crate::process::{Process, tail};

/// The `rowcast` program, built once per test process from the sources as they are. `ROWCAST_BIN` replaces it.
pub fn rowcast() -> &'static Path {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os("ROWCAST_BIN") {
        Some(path) => Ok(path.into()),
        None => build(),
    });
    built.as_deref().unwrap_or_else(|error| panic!("{error}"))
}

fn build() -> Result<PathBuf, String> {
    let profile = profile_dir();
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--package", "rowcast", "--bin", "rowcast", "--target-dir"]);
    build.arg(profile.parent().expect("bug: a profile's folder lies in the target folder"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let status = build.current_dir(root()).status().map_err(|error| format!("failed to start cargo: {error}"))?;
    if status.success() { Ok(profile.join("rowcast")) } else { Err("rowcast does not build".to_owned()) }
}

/// How a program ended, and all it said, standard output and error together.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it said.
    pub said: String,
}

impl Outcome {
    /// What it said, when it went well.
    ///
    /// # Panics
    /// When it did not: with all it said.
    pub fn well(self) -> String {
        assert_eq!(self.code, Some(0), "rowcast failed:\n{}", self.said);
        self.said
    }
}

/// Runs `rowcast` with arguments to its end.
pub fn run<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Outcome {
    let mut command = command();
    command.args(arguments);
    outcome("rowcast", command)
}

/// Runs a program to its end.
///
/// # Panics
/// When it has not ended by the bound: with what it said so far.
pub fn outcome(what: &str, command: Command) -> Outcome {
    let folder = TempDir::with_prefix("rowcast-said-").unwrap();
    let log = folder.path().join("said");
    let mut process = Process::spawn(what, command, &log);
    let start = std::time::Instant::now();
    loop {
        let ended = process.ended();
        let said = tail(&log, 1 << 20);
        match ended {
            Some(status) => return Outcome { code: status.code(), said },
            None if start.elapsed() > bound() => panic!("{what} is still running; it said:\n{said}"),
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
}

/// `rowcast`, ready for arguments, as stories run it.
pub fn command() -> Command {
    let mut command = shipped();
    // Presence is told more often than an operator would want it, so that stories are short.
    command.env("ROWCAST_PRESENCE_INTERVAL", "200ms").env("ROWCAST_PRESENCE_WAIT", "1s").env("ROWCAST_LOG", "text");
    if let Ok(level) = std::env::var("ROWCAST_TEST_LOG_LEVEL") {
        command.env("ROWCAST_LOG_LEVEL", level);
    }
    command
}

/// `rowcast` with its own defaults: nothing of this process's environment could configure it.
pub fn shipped() -> Command {
    let mut command = Command::new(rowcast());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROWCAST_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// nats-server: `NATS_SERVER`, else the tool folder of the checkout, else the one on PATH.
pub fn nats_server() -> PathBuf {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return path.into();
    }
    let fetched = root().join(".tools/bin/nats-server");
    if fetched.exists() { fetched } else { "nats-server".into() }
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Where cargo put this test or program: `…/target/debug` or another profile's folder.
pub fn profile_dir() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its own file");
    let folder = own.parent().expect("a program lies in <target>/<profile>, a test in deps there");
    let of_tests = folder.ends_with("deps");
    if of_tests { folder.parent().expect("deps lies in <target>/<profile>").to_owned() } else { folder.to_owned() }
}

/// cargo, without the variables that `cargo test` sets for this process: build scripts that look at them would run
/// again each time.
pub fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let set_for_us = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if set_for_us.iter().any(|start| text.starts_with(start)) || text == "CARGO" || text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}
