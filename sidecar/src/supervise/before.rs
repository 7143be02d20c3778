//! The command before the start: a migration, or whatever must have happened before the sidecar looks at the database.

use std::ffi::OsString;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Ended, Error, Launch, Service};

/// How long it may take to end when it is told to stop half-way, before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Runs `command` with `sh -c` to its end, on the sidecar's own standard streams. True when it succeeded, false when it
/// was told to stop meanwhile; then it and what it started have ended, too.
///
/// # Errors
/// It cannot be started, or ends in any other way than with exit code 0.
pub async fn before(command: &str, stop: &CancellationToken) -> Result<bool, Error> {
    tracing::info!(command, "running the command before the start");
    // Like a service, it has a process group of its own: a shell that is killed would leave behind what it runs.
    let words = ["sh", "-c", command].map(OsString::from).to_vec();
    let mut running = Service::start(&Launch { command: words, ..Launch::default() })?;
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => {
            running.stop(GRACE).await?;
            return Ok(false);
        }
        ended = running.ended() => ended?,
    };
    match ended {
        Ended::Code(0) => Ok(true),
        ended => Err(Error::Before { command: command.to_owned(), ended }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_succeeds_has_happened_before_it_returns() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made");
        let command = format!("sleep 0.05 && echo made > '{}'", file.display());
        assert!(before(&command, &CancellationToken::new()).await.unwrap());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "made\n");
    }

    #[tokio::test]
    async fn what_fails_is_named_with_its_code() {
        let stop = CancellationToken::new();
        let error = before("exit 3", &stop).await.unwrap_err();
        assert_eq!(error.to_string(), "the command before the start, `exit 3`, ended with exit code 3");
        let error = before("kill -9 $$", &stop).await.unwrap_err();
        assert!(error.to_string().ends_with("was killed by signal 9"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_stop_ends_it_and_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        // The shell stays, and what it started is another process.
        let command = format!("sleep 600 & echo $! > '{0}.new'; mv '{0}.new' '{0}'; wait; true", file.display());
        let stop = CancellationToken::new();
        let (ran, ()) = tokio::join!(before(&command, &stop), async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        });
        assert!(!ran.unwrap());
        let pid = std::fs::read_to_string(&file).unwrap();
        // One that ended and was not awaited by anybody has no command line.
        let process = format!("/proc/{}/cmdline", pid.trim());
        let running = || std::fs::read(&process).is_ok_and(|line| !line.is_empty());
        for _ in 0..3000 {
            if !running() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("what it started still runs after 30 s");
    }
}
