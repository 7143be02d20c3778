//! Connects, logs in, and tells when the connection comes and goes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Bus, Error, login};
use crate::config::{Config, Nats};

/// The connection came, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// There is one now.
    Up,
    /// There is none.
    Down,
    /// The client library dropped messages for us: what they brought must be fetched.
    Lossy,
    /// It does not come: what the system says.
    Trouble(String),
    /// It is there, or was, and the server does not let everything through: what it says.
    Refused(String),
}

/// How long a check waits for the server.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the server is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Connects, now or as soon as the server is there, and stays so. Tells `link` of each change.
///
/// # Errors
/// When the login cannot be read, or an address makes no sense. A server that is away is no error.
pub async fn connect(config: &Config, link: mpsc::Sender<Link>) -> Result<Bus, Error> {
    let options = options(&config.nats)?
        .name(format!("rowcast {}", config.node))
        .no_echo()
        .ping_interval(PING_INTERVAL)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(pause_before)
        .event_callback({
            let (servers, said) = (config.nats.servers.join(", "), Arc::new(Mutex::new(String::new())));
            move |event| {
                let (link, servers, said) = (link.clone(), servers.clone(), said.clone());
                async move { tell(event, &link, &servers, &said) }
            }
        });
    let client = options.connect(config.nats.servers.clone()).await;
    Ok(Bus { client: client.map_err(|source| failed(&config.nats, source))? })
}

/// Growing pauses with jitter, so that many nodes do not come back in the same moment.
fn pause_before(attempt: usize) -> Duration {
    let doubled = Duration::from_millis(25) * 2_u32.saturating_pow(u32::try_from(attempt.min(10)).unwrap_or(10));
    let base = doubled.min(RECONNECT_PAUSE_MAX);
    let jitter = uuid::Uuid::new_v4().as_bytes()[0];
    base / 2 + base * u32::from(jitter) / 512
}

/// `said` is the trouble that was logged last: a server that stays away is one line, not one each attempt.
fn tell(event: Event, link: &mpsc::Sender<Link>, servers: &str, said: &Mutex<String>) {
    let is_news = |text: &str| said.lock().is_ok_and(|mut said| std::mem::replace(&mut *said, text.to_owned()) != text);
    let change = match event {
        Event::Connected => {
            is_news("");
            Link::Up
        }
        Event::Disconnected | Event::Closed => Link::Down,
        Event::SlowConsumer(subscription) => {
            tracing::warn!(subscription, "messages came faster than they could be taken; they are fetched instead");
            Link::Lossy
        }
        Event::LameDuckMode => {
            tracing::info!("the NATS server is about to stop");
            return;
        }
        Event::ServerError(error) => {
            let text = format!("the NATS server at {servers} refuses: {error}");
            if is_news(&text) {
                tracing::error!(hint = "check the login and the permissions of this user", "{text}");
            }
            Link::Refused(text)
        }
        Event::ClientError(error) => {
            let text = format!("cannot connect to NATS at {servers}: {error}");
            if is_news(&text) {
                tracing::warn!("{text}; trying again");
            }
            Link::Trouble(text)
        }
        other => {
            tracing::debug!(event = %other, "NATS");
            return;
        }
    };
    match change {
        Link::Up => tracing::info!(servers, "NATS is connected"),
        Link::Down => tracing::warn!(servers, "NATS is disconnected; local writes are kept and go out when it is back"),
        Link::Lossy | Link::Trouble(_) | Link::Refused(_) => {}
    }
    if link.try_send(change).is_err() {
        tracing::debug!("a change of the connection was not taken; the node looks at the connection itself");
    }
}

fn options(nats: &Nats) -> Result<ConnectOptions, Error> {
    // What makes no sense now is an error now, and not one more attempt to connect.
    login::answer(&nats.login, &[])?;
    let (login, said) = (nats.login.clone(), Arc::<Mutex<String>>::default());
    let mut options =
        ConnectOptions::with_auth_callback(move |nonce| login::answer_aside(login.clone(), nonce, said.clone()));
    if let Some(authorities) = &nats.tls_ca {
        options = options.add_root_certificates(authorities.clone());
    }
    if let Some(identity) = &nats.tls_identity {
        options = options.add_client_certificate(identity.certificate.clone(), identity.key.clone());
    }
    // The addresses that a server tells of its cluster come before TLS, are spoken to without it, and are nobody's choice.
    Ok(options.ignore_discovered_servers().require_tls(nats.tls_required))
}

fn failed(nats: &Nats, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Connect { servers: nats.servers.join(", "), source: source.into() }
}

/// Connects once, to see whether that can be done.
///
/// # Errors
/// When it cannot: the server is away, refuses the login, or does not answer in time.
pub async fn probe(config: &Config) -> Result<(), Error> {
    let attempt = options(&config.nats)?.connection_timeout(PROBE_TIMEOUT).connect(config.nats.servers.clone());
    let client = match timeout(PROBE_TIMEOUT, attempt).await {
        Ok(connected) => connected.map_err(|source| failed(&config.nats, source))?,
        Err(elapsed) => return Err(failed(&config.nats, elapsed)),
    };
    client.flush().await.map_err(|source| failed(&config.nats, source))
}
