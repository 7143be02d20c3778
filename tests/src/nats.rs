//! A real nats-server, that can be stopped, killed and started again on its port.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::eventually::within;
use crate::process::{Process, Signal, tail};
use crate::{binary, port};

/// A nats-server on a port of its own.
#[derive(Debug)]
pub struct NatsServer {
    dir: TempDir,
    port: u16,
    process: Mutex<Option<Process>>,
}

impl NatsServer {
    /// A server that lets everybody in, with the defaults of nats-server.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// A server with `config` in its configuration file, for example `authorization { user: u, password: p }`.
    pub fn with_config(config: &str) -> Self {
        let dir = TempDir::with_prefix("rowcast-nats-").unwrap();
        let port = port::free();
        let mut text = format!("listen: 127.0.0.1:{port}\n");
        writeln!(text, "{config}").unwrap();
        std::fs::write(dir.path().join("nats.conf"), text).unwrap();
        let server = Self { dir, port, process: Mutex::new(None) };
        server.restart();
        server
    }

    /// `nats://127.0.0.1:…`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port it listens on, also while it is down.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, again on its port, and waits until it speaks.
    pub fn restart(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(process.is_none(), "nats-server is already running");
        let mut command = Command::new(binary::nats_server());
        command.arg("-c").arg(self.dir.path().join("nats.conf"));
        let log = self.dir.path().join("log");
        let mut started = Process::spawn("nats-server", command, &log);
        within(Duration::from_secs(20), "nats-server accepts connections", || {
            if let Some(status) = started.ended() {
                panic!("nats-server ended with {status}\n{}", tail(&log, 4_000));
            }
            self.greets()
        });
        *process = Some(started);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// Ends it with SIGTERM, as a person would.
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Sends it a signal that does not end it: STOP, CONT, HUP.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().expect("nats-server is not running").signal(signal);
    }

    /// The process id of the running server.
    pub fn id(&self) -> u32 {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().expect("nats-server is not running").id()
    }

    /// What it said, in all its lives: the last MiB.
    pub fn log(&self) -> String {
        tail(&self.dir.path().join("log"), 1 << 20)
    }

    fn end(&self, signal: Signal) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let process = process.as_mut().expect("nats-server is not running");
        process.signal(signal);
        process.wait(Duration::from_secs(20));
    }

    fn greets(&self) -> Result<(), String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).map_err(|error| error.to_string())?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).map_err(|error| error.to_string())?;
        if &greeting == b"INFO" { Ok(()) } else { Err(format!("it said {greeting:?}")) }
    }
}
