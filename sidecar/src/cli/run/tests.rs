//! Node and service held together: real processes as services, a future in the place of the node.

use std::path::Path;

use super::*;

/// A conductor at work, and what the test holds of it.
struct Stage {
    signals: mpsc::Sender<Signal>,
    status: watch::Sender<Arc<Status>>,
    stop: CancellationToken,
    folder: tempfile::TempDir,
    conducting: JoinSet<Result<u8, Error>>,
}

/// What the node of a test does once it is told to stop.
#[derive(Clone, Copy)]
enum Node {
    Stops,
    Hangs,
    FailsBesideTheService,
}

impl Stage {
    /// `script` is the service; it finds a folder of its own in `$FOLDER`. No script, no service.
    fn set(script: Option<&str>, node: Node) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let launch = script.map(|script| Launch {
            command: ["sh", "-c", script].map(OsString::from).to_vec(),
            variables: vec![("FOLDER", folder.path().display().to_string())],
            through: None,
            in_terminal: false,
        });
        Self::with(launch, folder, node)
    }

    fn with(launch: Option<Launch>, folder: tempfile::TempDir, node: Node) -> Self {
        let (signals, taken) = mpsc::channel(8);
        let (status, seen) = watch::channel(Arc::new(Status::starting("a", "music")));
        let stop = CancellationToken::new();
        let signals_of_test = Signals { taken, _listener: JoinSet::new() };
        let conductor = Conductor {
            signals: signals_of_test,
            seen,
            stop: stop.clone(),
            launch,
            service: None,
            deadline: None,
            outcome: None,
        };
        let (told, ended) = (stop.clone(), folder.path().join("node-ended"));
        let mut conducting = JoinSet::new();
        conducting.spawn(conductor.run(async move {
            match node {
                Node::FailsBesideTheService => {
                    wait_for(&ended.with_file_name("runs")).await;
                    return Err("no room".into());
                }
                Node::Hangs => std::future::pending().await,
                Node::Stops => told.cancelled().await,
            }
            std::fs::write(ended, "")?;
            Ok(())
        }));
        Self { signals, status, stop, folder, conducting }
    }

    fn become_ready(&self) {
        self.status.send_modify(|status| Arc::make_mut(status).set_reasons(Vec::new()));
    }

    async fn signal(&self, signal: Signal) {
        self.signals.send(signal).await.unwrap();
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn until_there(&self, name: &str) {
        wait_for(&self.file(name)).await;
    }

    async fn ended(&mut self) -> Result<u8, Error> {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.conducting.join_next()).await;
        ended.expect("it ends within a minute").unwrap().unwrap()
    }
}

async fn wait_for(file: &Path) {
    for _ in 0..6000 {
        if file.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} did not appear within a minute", file.display());
}

/// Says that it runs, then takes signals until it ends.
const WAITS: &str = ": > $FOLDER/runs; while :; do sleep 0.02; done";

#[tokio::test]
async fn the_service_starts_once_the_node_is_ready_and_not_before() {
    let mut stage = Stage::set(Some(": > $FOLDER/runs; exit 7"), Node::Stops);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stage.file("runs").exists());
    stage.become_ready();
    assert_eq!(stage.ended().await.unwrap(), 7, "its exit code is ours");
    assert!(stage.file("runs").exists());
    assert!(stage.file("node-ended").exists(), "the node was stopped in good order");
}

#[tokio::test]
async fn a_stop_before_the_node_is_ready_starts_no_service() {
    let mut stage = Stage::set(Some(WAITS), Node::Stops);
    stage.signal(Signal::TERM).await;
    assert_eq!(stage.ended().await.unwrap(), 0);
    assert!(!stage.file("runs").exists());
}

#[tokio::test]
async fn a_stop_goes_to_the_service_first() {
    let script = format!("trap '[ -e $FOLDER/node-ended ] && exit 9; exit 5' TERM; {WAITS}");
    let mut stage = Stage::set(Some(&script), Node::Stops);
    stage.become_ready();
    stage.until_there("runs").await;
    stage.signal(Signal::TERM).await;
    assert_eq!(stage.ended().await.unwrap(), 5);
    assert!(stage.file("node-ended").exists());
}

#[tokio::test]
async fn a_hangup_is_passed_on_and_stops_nothing() {
    let script = format!("trap ': > $FOLDER/reloaded' HUP; trap 'exit 0' INT; {WAITS}");
    let mut stage = Stage::set(Some(&script), Node::Stops);
    stage.become_ready();
    stage.until_there("runs").await;
    stage.signal(Signal::HUP).await;
    stage.until_there("reloaded").await;
    assert!(!stage.stop.is_cancelled());
    stage.signal(Signal::INT).await;
    assert_eq!(stage.ended().await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_signal_kills_a_service_that_does_not_listen() {
    let script = format!("trap '' TERM; {WAITS}");
    let mut stage = Stage::set(Some(&script), Node::Stops);
    stage.become_ready();
    stage.until_there("runs").await;
    stage.signal(Signal::TERM).await;
    stage.signal(Signal::TERM).await;
    assert_eq!(stage.ended().await.unwrap(), 137);
}

#[tokio::test]
async fn a_node_that_fails_takes_the_service_with_it() {
    let script = format!("trap ': > $FOLDER/asked; exit 0' TERM; {WAITS}");
    let mut stage = Stage::set(Some(&script), Node::FailsBesideTheService);
    stage.become_ready();
    let error = stage.ended().await.unwrap_err();
    assert_eq!(error.report(), "error: the node has failed: no room");
    assert_eq!(error.exit_code(), crate::cli::FAULT);
    assert!(stage.file("asked").exists(), "it was asked, not killed");
}

#[tokio::test]
async fn without_a_service_a_signal_stops_the_node() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut stage = Stage::set(None, Node::Stops);
        stage.signal(signal).await;
        assert_eq!(stage.ended().await.unwrap(), 0);
        assert!(stage.file("node-ended").exists());
    }
}

#[tokio::test]
async fn a_second_signal_cuts_off_a_node_that_hangs() {
    let mut stage = Stage::set(None, Node::Hangs);
    stage.signal(Signal::INT).await;
    stage.signal(Signal::INT).await;
    assert_eq!(stage.ended().await.unwrap(), 130);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_named() {
    let launch = Launch { command: vec!["/no/such/program".into()], ..Launch::default() };
    let mut stage = Stage::with(Some(launch), tempfile::tempdir().unwrap(), Node::Stops);
    stage.become_ready();
    let error = stage.ended().await.unwrap_err();
    assert!(
        error.report().starts_with("error: failed to start `/no/such/program`: No such file"),
        "{}",
        error.report()
    );
}
