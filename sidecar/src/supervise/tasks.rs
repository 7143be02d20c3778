//! Named tasks, each with one policy: either its failure stops everything, or it is started again after a pause.

use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{BoxError, Error, Retry};

/// What the failure of a task means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The node cannot work without it: stop everything.
    Stop,
    /// It mends itself: start it again, after a pause that grows from the first to the second and starts anew when
    /// the task ran for longer than the second.
    Restart(Duration, Duration),
}

/// Tasks that live and end together. A task that returns without an error is done; nothing else stops for it.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<Result<(), BoxError>>,
    names: Vec<(Id, &'static str)>,
    stop: CancellationToken,
}

impl Tasks {
    /// None yet. Each is handed `stop`; [`Tasks::run`] cancels it when one of them fails.
    pub fn new(stop: CancellationToken) -> Self {
        Self { running: JoinSet::new(), names: Vec::new(), stop }
    }

    /// Starts a task. `make` gives a new future for each time it is started.
    pub fn spawn<Make, Run>(&mut self, name: &'static str, on_error: OnError, make: Make)
    where
        Make: Fn(CancellationToken) -> Run + Send + 'static,
        Run: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let span = tracing::info_span!("task", name);
        let task = supervised(name, on_error, make, self.stop.clone()).instrument(span);
        let id = self.running.spawn(task).id();
        self.names.push((id, name));
    }

    /// Waits until all are done or one fails for good, then stops the rest and gives them `grace` to finish.
    ///
    /// # Errors
    /// The first failure.
    pub async fn run(mut self, grace: Duration) -> Result<(), Error> {
        let mut first = Ok(());
        while first.is_ok() && !self.stop.is_cancelled() {
            let ended = tokio::select! {
                ended = self.running.join_next_with_id() => ended,
                () = self.stop.cancelled() => break,
            };
            let Some(ended) = ended else { return Ok(()) };
            first = self.verdict(ended);
        }
        self.stop.cancel();
        let rest = async {
            while let Some(ended) = self.running.join_next_with_id().await {
                let verdict = verdict(&self.names, ended);
                first = std::mem::replace(&mut first, Ok(())).and(verdict);
            }
        };
        if tokio::time::timeout(grace, rest).await.is_err() {
            tracing::warn!(left = self.running.len(), "tasks did not finish in time and were cut off");
        }
        first
    }

    fn verdict(&self, ended: Result<(Id, Result<(), BoxError>), JoinError>) -> Result<(), Error> {
        verdict(&self.names, ended)
    }
}

fn verdict(names: &[(Id, &'static str)], ended: Result<(Id, Result<(), BoxError>), JoinError>) -> Result<(), Error> {
    let name = |id| names.iter().find(|(known, _)| *known == id).map_or("a task", |(_, name)| *name);
    match ended {
        Ok((_, Ok(()))) => Ok(()),
        Ok((id, Err(source))) => Err(Error::Task { task: name(id), source }),
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(Error::Panicked { task: name(error.id()) }),
    }
}

/// The one place where a task is started again.
async fn supervised<Make, Run>(
    name: &'static str,
    on_error: OnError,
    make: Make,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    Make: Fn(CancellationToken) -> Run,
    Run: Future<Output = Result<(), BoxError>>,
{
    let (min, max) = match on_error {
        OnError::Stop => return make(stop).await,
        OnError::Restart(min, max) => (min, max),
    };
    let mut retry = Retry::between(min, max);
    loop {
        let started = tokio::time::Instant::now();
        let Err(error) = make(stop.clone()).await else { return Ok(()) };
        if started.elapsed() > max {
            retry.reset();
        }
        let pause = retry.pause();
        tracing::warn!(task = name, %error, ?pause, "a task failed and starts again after a pause");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);
    const SHORT: OnError = OnError::Restart(Duration::from_millis(1), Duration::from_millis(5));

    async fn until_stopped(stop: CancellationToken) -> Result<(), BoxError> {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_failure_that_matters_stops_the_others_and_is_named() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("the waiting", OnError::Stop, until_stopped);
        tasks.spawn("the failing", OnError::Stop, async |_| Err("no room".into()));
        let error = tasks.run(GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "the failing has failed");
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_is_named_too() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("the waiting", OnError::Stop, until_stopped);
        tasks.spawn("the panicking", SHORT, async |_| panic!("on purpose"));
        let error = tasks.run(GRACE).await.unwrap_err();
        assert!(matches!(error, Error::Panicked { task: "the panicking" }), "{error}");
    }

    #[tokio::test]
    async fn what_mends_itself_is_started_again() {
        let tries = Arc::new(AtomicU32::new(0));
        let mut tasks = Tasks::new(CancellationToken::new());
        let counted = tries.clone();
        tasks.spawn("the stumbling", SHORT, move |_| {
            let tries = counted.clone();
            async move {
                match tries.fetch_add(1, Ordering::SeqCst) {
                    0..3 => Err("not yet".into()),
                    _ => Ok(()),
                }
            }
        });
        tasks.run(GRACE).await.unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_stop_ends_all_and_cuts_off_what_does_not_listen() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("the waiting", OnError::Stop, until_stopped);
        tasks.spawn("the deaf", OnError::Stop, async |_| std::future::pending().await);
        stop.cancel();
        tasks.run(Duration::from_millis(20)).await.unwrap();
    }
}
