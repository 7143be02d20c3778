//! The command before the start: a migration, or whatever must have happened before the sidecar looks at the database.

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{Ended, Error};

/// Runs `command` with `sh -c` to its end, on the sidecar's own standard streams. Stopped half-way, it is killed.
///
/// # Errors
/// It cannot be started, or ends in any other way than with exit code 0.
pub async fn before(command: &str, stop: &CancellationToken) -> Result<(), Error> {
    tracing::info!(command, "running the command before the start");
    let started = Command::new("sh").args(["-c", command]).kill_on_drop(true).spawn();
    let mut child = started.map_err(|source| Error::Start { program: "sh".to_owned(), source })?;
    let status = tokio::select! {
        biased;
        () = stop.cancelled() => {
            let stopped = Ended::Signal(rustix::process::Signal::TERM.as_raw());
            return Err(Error::Before { command: command.to_owned(), ended: stopped });
        }
        status = child.wait() => status,
    };
    let status = status.map_err(|source| Error::Watch { program: command.to_owned(), source })?;
    match Ended::of(status) {
        Ended::Code(0) => Ok(()),
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
        before(&command, &CancellationToken::new()).await.unwrap();
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

    #[tokio::test]
    async fn a_stop_ends_it() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(before("sleep 600", &stop).await.is_err());
    }
}
