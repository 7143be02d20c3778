//! The program as an operator meets it: its real binary, real databases, real processes. What needs a running node and a
//! NATS server is in the stories.

#![expect(clippy::disallowed_methods, reason = "a test stands outside of the borders")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const ROWCAST: &str = env!("CARGO_BIN_EXE_rowcast");

/// `rowcast` in a folder of its own, without the variables of whoever runs the tests.
fn rowcast(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(ROWCAST);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROWCAST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ended(output: Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run(folder: &Path, arguments: &[&str]) -> Ended {
    ended(rowcast(folder, arguments).output().unwrap())
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A database in rollback-journal mode, with tables that can be replicated and some that cannot.
fn database(folder: &Path) -> PathBuf {
    let path = folder.join("app.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE Album (id TEXT PRIMARY KEY NOT NULL, title TEXT);
             CREATE TABLE Track (id TEXT PRIMARY KEY NOT NULL, name TEXT);
             CREATE TABLE Log (line TEXT);
             CREATE VIEW Titles AS SELECT title FROM Album;
             INSERT INTO Album VALUES ('a', 'Blue Train');",
        )
        .unwrap();
    path
}

fn schema(folder: &Path) {
    fs::write(folder.join("schema.toml"), "service = \"music\"\n[tables.Album]\n").unwrap();
}

const RUN: [&str; 9] =
    ["run", "--node", "a", "--database", "app.db", "--schema", "schema.toml", "--nats", "nats://127.0.0.1:9"];

#[test]
fn version_and_help_are_well() {
    let folder = folder();
    let version = run(folder.path(), &["--version"]);
    assert_eq!(
        (version.code, version.stdout.as_str()),
        (Some(0), concat!("rowcast ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let help = run(folder.path(), &["run", "--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("--first"));
}

#[test]
fn a_wrong_command_line_or_config_is_code_2_on_standard_error() {
    let folder = folder();
    for arguments in [&["run", "--databse", "x"][..], &[], &["init", "--service", "a b", "--database", "x"]] {
        let refused = run(folder.path(), arguments);
        assert_eq!(refused.code, Some(2), "{arguments:?}");
        assert_eq!(refused.stdout, "");
        assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    }
    fs::write(folder.path().join("rowcast.toml"), "databse = 'x'\nhttp = 'y'\n").unwrap();
    let refused = run(folder.path(), &["run", "--config", "rowcast.toml", "--node", "a.b"]);
    assert_eq!(refused.code, Some(2));
    insta::assert_snapshot!(refused.stderr);
}

#[test]
fn init_writes_what_can_be_replicated_and_says_what_was_left_out() {
    let folder = folder();
    let database = database(folder.path());
    let init = ["init", "--database", "app.db", "--service", "music"];
    let shown = run(folder.path(), &init);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("[tables.Album]"), "{}", shown.stdout);
    insta::assert_snapshot!(shown.stderr);
    let mode: String =
        rusqlite::Connection::open(&database).unwrap().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");

    let to_file = [&init[..], &["--output", "schema.toml"]].concat();
    let first = run(folder.path(), &to_file);
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(folder.path().join("schema.toml")).unwrap(), shown.stdout);
    let second = run(folder.path(), &to_file);
    assert_eq!(second.code, Some(2));
    assert!(second.stderr.starts_with("error: schema.toml is there already\nhint: --force"), "{}", second.stderr);
    assert_eq!(run(folder.path(), &[&to_file[..], &["--force"]].concat()).code, Some(0));
}

#[test]
fn a_database_that_is_none_is_a_clear_error() {
    let folder = folder();
    fs::write(
        folder.path().join("text.db"),
        "this is not a database, but it is long enough to be looked at".repeat(20),
    )
    .unwrap();
    for name in ["none.db", "text.db"] {
        let refused = run(folder.path(), &["init", "--database", name, "--service", "music"]);
        assert_eq!(refused.code, Some(1));
        assert_eq!(refused.stdout, "");
        assert!(refused.stderr.starts_with("error: failed to read the tables of the database: "), "{}", refused.stderr);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
        assert!(!folder.path().join("none.db").exists(), "looking makes no file");
    }
}

#[test]
fn check_looks_at_everything_and_changes_nothing() {
    let folder = folder();
    let database = database(folder.path());
    fs::write(folder.path().join("schema.toml"), "service = \"music\"\n[tables.Album]\n[tables.Log]\n[tables.Gone]\n")
        .unwrap();
    let before = fs::read(&database).unwrap();
    let arguments = [&["check"], &RUN[1..], &["--http", "127.0.0.1:0"]].concat();
    let checked = run(folder.path(), &arguments);
    assert_eq!(checked.code, Some(2), "{}", checked.stderr);
    assert_eq!(checked.stderr, "");
    let said = |line: &str| assert!(checked.stdout.contains(line), "no {line:?} in:\n{}", checked.stdout);
    said("ok       config    node a");
    said("ok       schema    service music, 3 tables to replicate");
    said("problem  table     Log: it has no primary key");
    said("problem  table     Gone: ");
    said("problem  nats      ");
    said("ok       http      ");
    assert_eq!(fs::read(&database).unwrap(), before);
}

#[test]
fn uninstall_removes_what_a_sidecar_made_and_nothing_else() {
    let folder = folder();
    let database = database(folder.path());
    schema(folder.path());
    let dump = || -> Vec<(String, String)> {
        let connection = rusqlite::Connection::open(&database).unwrap();
        let mut statement = connection.prepare("SELECT type, name FROM sqlite_schema ORDER BY 1, 2").unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let uninstall = || run(folder.path(), &["uninstall", "--database", "app.db"]);
    let before = dump();
    // The sidecar itself: it opens the database before it looks for NATS, which is not there.
    let arguments = [&RUN[..], &["--http", "127.0.0.1:0", "--log-level", "off"]].concat();
    let mut sidecar = rowcast(folder.path(), &arguments).spawn().unwrap();
    until(|| dump().iter().any(|(_, name)| name == "Album_Events"));
    let refused = uninstall();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("another sidecar is running on this database"), "{}", refused.stderr);
    terminate(&sidecar);
    assert_eq!(code_of(&mut sidecar), Some(0));
    assert!(dump().len() > before.len());

    let removed = uninstall();
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    for line in ["removed table Album_Events\n", "removed table _rowcast_journal\n", "removed file app.db-rowcast\n"] {
        assert!(removed.stdout.contains(line), "no {line:?} in:\n{}", removed.stdout);
    }
    assert_eq!(dump(), before);
    assert!(!folder.path().join("app.db-rowcast").exists());
    let again = uninstall();
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "app.db: nothing of Rowcast was there\n"));
}

/// The triggers of ours that a database has.
fn triggers(database: &Path) -> usize {
    let connection = rusqlite::Connection::open(database).unwrap();
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, 9) = '_rowcast_'";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn migrate_runs_a_command_without_triggers_and_ends_with_its_code_and_a_killed_one_is_put_right() {
    let folder = folder();
    let database = database(folder.path());
    schema(folder.path());
    let arguments = [&RUN[..], &["--http", "127.0.0.1:0", "--log-level", "off"]].concat();
    let mut sidecar = rowcast(folder.path(), &arguments).spawn().unwrap();
    until(|| triggers(&database) == 3);
    terminate(&sidecar);
    assert_eq!(code_of(&mut sidecar), Some(0));

    let file = |name: &str| folder.path().join(name);
    let migrate = |script: &str| {
        let arguments = ["migrate", "--database", "app.db", "--schema", "schema.toml", "--", "sh", "-c", script];
        rowcast(folder.path(), &arguments).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut migration = migrate("echo $$ > began; while [ ! -e go ]; do sleep 0.05; done; exit 7");
    until(|| file("began").exists());
    assert_eq!(triggers(&database), 1, "the one for deletes");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("DROP VIEW Titles; ALTER TABLE Album DROP COLUMN title").unwrap();
    let second = ended(migrate("true").wait_with_output().unwrap());
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("a migration is running"), "{}", second.stderr);
    // A sidecar that starts meanwhile waits, and ends when it is told to.
    let waits = [&RUN[..], &["--http", "127.0.0.1:0"]].concat();
    let mut sidecar = rowcast(folder.path(), &waits).stderr(fs::File::create(file("said")).unwrap()).spawn().unwrap();
    until(|| fs::read_to_string(file("said")).unwrap().contains("a migration is under way"));
    terminate(&sidecar);
    assert_eq!(code_of(&mut sidecar), Some(0));
    fs::write(file("go"), "").unwrap();
    assert_eq!(code_of(&mut migration), Some(7));
    assert_eq!(triggers(&database), 3);

    fs::remove_file(file("began")).unwrap();
    let mut migration = migrate("echo $$ > new; mv new began; while [ -e began ]; do sleep 0.05; done");
    until(|| file("began").exists());
    migration.kill().unwrap();
    migration.wait().unwrap();
    assert_eq!(triggers(&database), 1);
    if cfg!(target_os = "linux") {
        let process = format!("/proc/{}/cmdline", fs::read_to_string(file("began")).unwrap().trim());
        until(|| fs::read(&process).map_or(true, |line| line.is_empty()));
    }
    // The command before the start has the same calm, and what was killed is put right by the way.
    let before = "echo > ran; false";
    let failed = run(folder.path(), &[&arguments[..], &["--before", before]].concat());
    assert_eq!(failed.code, Some(1));
    assert!(file("ran").exists());
    assert_eq!(triggers(&database), 3, "also when it fails");
}

/// Beside the file itself, as SQLite has its own: whoever comes by a link and whoever comes by the file see each other.
#[test]
fn what_lies_beside_a_database_lies_beside_the_file_that_a_link_leads_to() {
    let folder = folder();
    let database = database(folder.path());
    schema(folder.path());
    let link = folder.path().join("current/db.sqlite3");
    fs::create_dir(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("../app.db", &link).unwrap();
    let linked: Vec<&str> =
        RUN.iter().map(|&word| if word == "app.db" { "current/db.sqlite3" } else { word }).collect();
    let arguments = [&linked[..], &["--http", "127.0.0.1:0", "--log-level", "off"]].concat();
    let mut sidecar = rowcast(folder.path(), &arguments).spawn().unwrap();
    until(|| triggers(&database) == 3);
    let second = run(folder.path(), &[&RUN[..], &["--http", "127.0.0.1:0"]].concat());
    assert!(second.stderr.contains("another sidecar is running on this database"), "{}", second.stderr);
    terminate(&sidecar);
    assert_eq!(code_of(&mut sidecar), Some(0));
    assert!(folder.path().join("app.db-rowcast").exists());
    assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 1, "only the link");
    let removed = run(folder.path(), &["uninstall", "--database", "current/db.sqlite3"]);
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    assert!(!folder.path().join("app.db-rowcast").exists());

    // Where it leads to nothing yet, there is no place beside it on which all would agree.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../later.db", &link).unwrap();
    let refused = run(folder.path(), &arguments);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("it is a link that leads nowhere"), "{}", refused.stderr);
    assert!(!folder.path().join("later.db").exists());
}

/// A migration may ask questions; and what does not heed one signal is killed at the second.
#[test]
fn migrate_shares_the_terminal_with_its_command() {
    let folder = folder();
    database(folder.path());
    schema(folder.path());
    let in_terminal = |script: &str, typed: &[&str]| {
        // The answers are typed when the command has asked for them.
        let python = "import os, pty, sys
rowcast, script, typed = sys.argv[1], sys.argv[2], [text.encode().decode('unicode_escape').encode() for text in sys.argv[3:]]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(rowcast, [rowcast, 'migrate', '--database', 'app.db', '--schema', 'schema.toml', '--', 'sh', '-c', script])
while True:
    try:
        said = os.read(terminal, 1024)
    except OSError:
        break
    if b'sure?' in said and typed:
        os.write(terminal, typed.pop(0))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)";
        let mut command = Command::new("python3");
        command.args(["-c", python, ROWCAST, script]).args(typed).current_dir(folder.path()).spawn().unwrap()
    };
    let mut answered = in_terminal("echo sure?; read answer; exit $answer", &["7\\n"]);
    assert_eq!(code_of(&mut answered), Some(7));
    let stubborn = "trap '' INT; echo sure?; sleep 1; echo sure?; while :; do sleep 0.05; done";
    let mut killed = in_terminal(stubborn, &["\\x03", "\\x03"]);
    assert_eq!(code_of(&mut killed), Some(128 + 9));
}

/// The columns tell what an event table is. `Track` has none, and whoever declares it next to such a table is refused.
#[test]
fn uninstall_leaves_a_table_of_the_service_whose_name_looks_like_an_event_table() {
    let folder = folder();
    let database = database(folder.path());
    schema(folder.path());
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection
        .execute_batch("CREATE TABLE Album_events(id PRIMARY KEY, what); INSERT INTO Album_events VALUES (1, 'x')")
        .unwrap();
    let uninstalled = run(folder.path(), &["uninstall", "--database", "app.db"]);
    assert_eq!(uninstalled.code, Some(0), "{}", uninstalled.stderr);
    let rows: i64 = connection.query_row("SELECT count(*) FROM Album_events", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn status_of_a_sidecar_that_is_not_there_is_a_clear_error() {
    let folder = folder();
    // Nobody listens at port 1.
    let refused = run(folder.path(), &["status", "--http", "127.0.0.1:1"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(refused.stderr);
}

#[test]
fn run_says_which_address_is_taken() {
    let folder = folder();
    schema(folder.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(folder.path(), &[&RUN[..], &["--http", &address, "--log", "text"]].concat());
    assert_eq!(refused.code, Some(1));
    let error = format!("error: the HTTP address {address} is taken by another process\nhint: ");
    assert!(refused.stderr.contains(&error), "{}", refused.stderr);
}

#[test]
fn the_command_before_the_start_must_succeed() {
    let folder = folder();
    schema(folder.path());
    let failing = [&RUN[..], &["--http", "127.0.0.1:0", "--before", "echo made > made; exit 3"]].concat();
    let refused = run(folder.path(), &failing);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("`echo made > made; exit 3`, ended with exit code 3"), "{}", refused.stderr);
    assert!(folder.path().join("made").exists());
    assert!(!folder.path().join("app.db").exists(), "nothing was started");
}

#[test]
fn probes_are_answered_and_a_stop_is_heard_while_the_command_before_the_start_runs() {
    let folder = folder();
    schema(folder.path());
    let before = ": > begun; exec sleep 600";
    let arguments = [&RUN[..], &["--http", "127.0.0.1:0", "--before", before, "--log", "json"]].concat();
    let mut child = rowcast(folder.path(), &arguments).stderr(Stdio::piped()).spawn().unwrap();
    until(|| folder.path().join("begun").exists());
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    log.read_line(&mut first).unwrap();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    let address = first["http"].as_str().unwrap().to_owned();

    let status = run(folder.path(), &["status", "--http", &address]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    assert!(status.stdout.starts_with("NOT READY  node a of service music\n  starting: "), "{}", status.stdout);
    let json = run(folder.path(), &["status", "--http", &address, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["reasons"][0]["code"], "starting");

    terminate(&child);
    assert_eq!(code_of(&mut child), Some(0));
    for line in log.lines() {
        let line = line.unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert!(line["message"].is_string());
    }
}

#[test]
fn becoming_the_service_is_told_as_env_does() {
    let folder = folder();
    let parent = format!("--parent={}", std::process::id());
    let service = |command: &[&str]| run(folder.path(), &[&["__service", &parent, "--"], command].concat());
    assert_eq!(service(&["sh", "-c", "exit 9"]).code, Some(9));
    let missing = service(&["no-such-program"]);
    assert_eq!(missing.code, Some(127));
    assert!(missing.stderr.starts_with("error: failed to start `no-such-program`: "), "{}", missing.stderr);
    fs::write(folder.path().join("text"), "").unwrap();
    assert_eq!(service(&["./text"]).code, Some(126));
}

/// What stands in for the sidecar here is a shell: it starts the service as the sidecar does, and is killed.
#[cfg(target_os = "linux")]
#[test]
fn the_service_ends_with_a_sidecar_that_was_killed() {
    let folder = folder();
    let script = r#""$ROWCAST" __service --parent=$$ -- sh -c 'echo $$ > pid; mv pid running; exec sleep 600' & wait"#;
    let mut sidecar =
        Command::new("sh").args(["-c", script]).env("ROWCAST", ROWCAST).current_dir(folder.path()).spawn().unwrap();
    until(|| folder.path().join("running").exists());
    let pid = fs::read_to_string(folder.path().join("running")).unwrap();
    let running = || {
        // A process that ended and was not awaited by anybody has no command line.
        fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| line.starts_with(b"sleep"))
    };
    until(running);
    sidecar.kill().unwrap();
    sidecar.wait().unwrap();
    until(|| !running());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = folder();
    database(folder.path());
    let mut child = rowcast(folder.path(), &["init", "--database", "app.db", "--service", "music"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

fn terminate(child: &Child) {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

fn code_of(child: &mut Child) -> Option<i32> {
    let mut status = None;
    until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.and_then(|status| status.code())
}

fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen within a minute");
}
