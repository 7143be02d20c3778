//! Ends what a test process leaves behind when it is killed itself, and so drops nothing.
//!
//! A small shell process holds the other end of a pipe and is told of every process that starts and ends. When the pipe
//! closes, for whatever reason, it kills those that are left, by their ids.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Reads `+id` and `-id`, until there is nothing more to read. An id is the number of a process, or of a group with a
/// minus before it.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
left=
while read -r sign id; do
  rest=
  for one in $left; do [ "$one" = "$id" ] || rest="$rest $one"; done
  left=$rest
  [ "$sign" = + ] && left="$left $id"
done
for one in $left; do kill -9 "$one" 2>/dev/null; done
"#;

static SHELL: Mutex<Option<Child>> = Mutex::new(None);

/// A process, or with a negative number a group, has started.
pub(crate) fn started(id: i64) {
    tell('+', id);
}

/// It has been waited for: its number may be another's from now on.
pub(crate) fn ended(id: i64) {
    tell('-', id);
}

fn tell(sign: char, id: i64) {
    let mut shell = SHELL.lock().unwrap_or_else(PoisonError::into_inner);
    let shell = shell.get_or_insert_with(|| {
        let mut shell = Command::new("sh");
        // In a group of its own: what ends the tests from outside must not end it first.
        shell.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        shell.spawn().expect("failed to start sh")
    });
    let pipe = shell.stdin.as_mut().expect("bug: its standard input was asked for");
    writeln!(pipe, "{sign} {id}").expect("the reaper listens for as long as we live");
}
