//! What a run was made on: figures without it say nothing.

use std::fmt;
use std::process::Command;
use std::time::SystemTime;

use rowcast_tests::binary;
use serde_json::{Value as Json, json};

/// The machine, the commit and the programs.
pub struct Machine {
    processor: String,
    processors: usize,
    memory: String,
    disk: String,
    commit: String,
    date: String,
    sqlite: String,
    nats: String,
    profile: &'static str,
}

impl Machine {
    /// As it is now.
    pub fn look() -> Self {
        let proc = |file: &str, key: &str| {
            let text = std::fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("unknown");
            line.trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let kib: u64 = proc("meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let git = |arguments: &[&str]| said(Command::new("git").args(arguments).current_dir(binary::root()));
        let changed =
            if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { " with changes" };
        Self {
            processor: proc("cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory: format!("{:.0} GiB", crate::stats::count(kib) / 1024.0 / 1024.0),
            disk: said(Command::new("df").arg("--output=fstype").arg(std::env::temp_dir())).replace("Type\n", ""),
            commit: git(&["rev-parse", "--short=12", "HEAD"]) + changed,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string().chars().take(10).collect(),
            sqlite: rusqlite::version().to_owned(),
            nats: said(Command::new(binary::nats_server()).arg("--version")).replace("nats-server: v", ""),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

    /// As JSON.
    pub fn json(&self) -> Json {
        json!({
            "processor": self.processor, "processors": self.processors, "memory": self.memory, "disk": self.disk,
            "commit": self.commit, "date": self.date, "sqlite": self.sqlite, "nats_server": self.nats,
            "build": self.profile,
        })
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, memory, disk, commit, date, sqlite, nats, profile } = self;
        write!(
            f,
            "{processors} processors ({processor}), {memory}, {disk}; SQLite {sqlite}, nats-server {nats}; \
             commit {commit}, {profile} build, {date}"
        )
    }
}
