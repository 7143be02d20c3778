//! The programs that stories run: `rowcast` as the sources are now, and nats-server as the machine has it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The `rowcast` program, built once per test process from the sources as they are. `ROWCAST_BIN` replaces it.
pub fn rowcast() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(path) = std::env::var_os("ROWCAST_BIN") {
            return path.into();
        }
        let profile = profile_dir();
        let mut build = cargo();
        build.args(["build", "--quiet", "--locked", "--package", "rowcast", "--bin", "rowcast", "--target-dir"]);
        build.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        succeeded(&build.current_dir(root()).output().expect("failed to start cargo"), "cargo build");
        profile.join("rowcast")
    })
}

/// Runs `rowcast` with arguments to its end.
pub fn run<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Output {
    command().args(arguments).output().expect("failed to start rowcast")
}

/// `rowcast`, ready for arguments, with nothing of this process's environment that could configure it.
pub fn command() -> Command {
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

/// Where cargo put this test: `…/target/debug` or another profile's folder.
pub fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its own file");
    test.parent().and_then(Path::parent).expect("a test lies in <target>/<profile>/deps").to_owned()
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

/// The standard output of a program that must have succeeded.
///
/// # Panics
/// When it has not: with all it said.
pub fn succeeded(output: &Output, what: &str) -> String {
    assert!(output.status.success(), "{what} ended with {}\n{}", output.status, said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All that a program said, standard output first.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
