//! NATS: the only place that names async-nats.
//!
//! Core NATS carries hints: everything that matters is in the event tables and is fetched again when it did not come.
//! So nothing here waits for a slow receiver, and nothing is queued while the connection is away.

mod connect;
mod login;
mod parts;
pub mod subject;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::timeout;

pub use connect::{Link, connect, probe};
use parts::Assembler;

use crate::limits;

/// The name under which the client library writes to the log.
pub const CLIENT_TARGET: &str = "async_nats";

/// What went wrong at the bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret could not be read, or makes no sense.
    #[error("cannot log in to NATS")]
    Login(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server cannot be reached, or refuses.
    #[error("cannot connect to NATS at {servers}")]
    Connect {
        /// The addresses that were tried.
        servers: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A subscription was refused.
    #[error("cannot subscribe to {subject}")]
    Subscribe {
        /// The subject.
        subject: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A message could not be handed to the connection.
    #[error("cannot send on {subject}")]
    Send {
        /// The subject.
        subject: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody answered, or not in time.
    #[error("no answer on {subject}")]
    NoAnswer {
        /// The subject.
        subject: String,
    },
}

/// A message that came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// On which subject.
    pub subject: String,
    /// Where to answer, if an answer is wanted.
    pub reply: Option<String>,
    /// The bytes, whole.
    pub payload: Bytes,
}

/// A connection. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Bus {
    client: async_nats::Client,
}

/// Messages on one subject, put together from their parts.
#[derive(Debug)]
pub struct Subscription {
    messages: async_nats::Subscriber,
    assembler: Assembler,
}

impl Bus {
    /// Subscribes. The subscription lives through reconnects.
    ///
    /// # Errors
    /// When the connection is closed for good.
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, Error> {
        let messages = self.client.subscribe(subject.clone()).await;
        let messages = messages.map_err(|source| Error::Subscribe { subject, source: source.into() })?;
        Ok(Subscription { messages, assembler: Assembler::default() })
    }

    /// Sends, in parts where the server's limit asks for it.
    ///
    /// # Errors
    /// When the connection is closed for good.
    pub async fn publish(&self, subject: String, payload: Bytes) -> Result<(), Error> {
        for part in parts::split(payload, self.client.server_info().max_payload) {
            let sent = self.client.publish(subject.clone(), part).await;
            sent.map_err(|source| Error::Send { subject: subject.clone(), source: source.into() })?;
        }
        Ok(())
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When nobody answered within the time that [`limits::REQUEST_TIMEOUT`] gives, or the connection is closed.
    pub async fn ask(&self, subject: String, payload: Bytes) -> Result<Bytes, Error> {
        let inbox = self.client.new_inbox();
        let mut answers = self.subscribe(inbox.clone()).await?;
        let sent = self.client.publish_with_reply(subject.clone(), inbox, payload).await;
        sent.map_err(|source| Error::Send { subject: subject.clone(), source: source.into() })?;
        match timeout(limits::REQUEST_TIMEOUT, answers.next()).await {
            // "No responders" is an empty message with a status.
            Ok(Some(delivery)) if !delivery.payload.is_empty() => Ok(delivery.payload),
            _ => Err(Error::NoAnswer { subject }),
        }
    }

    /// Hands everything sent so far to the server, as far as that can be done in `limit`.
    pub async fn flush(&self, limit: Duration) {
        if timeout(limit, self.client.flush()).await.is_err() {
            tracing::debug!("the last messages were not handed over in time; the others fetch them");
        }
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }
}

impl Subscription {
    /// The next whole message; none when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let message = self.messages.next().await?;
            let subject = message.subject.to_string();
            match self.assembler.take(&subject, message.payload) {
                Ok(Some(payload)) => {
                    return Some(Delivery { subject, reply: message.reply.map(|reply| reply.to_string()), payload });
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(subject, %error, "refused a part of a message"),
            }
        }
    }
}
