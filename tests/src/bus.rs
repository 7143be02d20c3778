//! A plain NATS client for stories: what a service, a stranger or an attacker would send.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value as Json;
use tokio::runtime::{Builder, Runtime};

use crate::NatsServer;

/// A connection to a nats-server, used without `async`.
pub struct Bus {
    runtime: Runtime,
    client: async_nats::Client,
}

/// What came on a subscription.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// Where the sender waits for an answer.
    pub reply: Option<String>,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// An open subscription.
pub struct Subscription<'a> {
    bus: &'a Bus,
    subscriber: async_nats::Subscriber,
    /// The subject of a message of its own, which the server gave back when it knew of the subscription.
    own: String,
}

impl Bus {
    /// Connects to `nats`.
    pub fn connect(nats: &NatsServer) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async_nats::connect(nats.url())).expect("failed to connect to nats-server");
        Self { runtime, client }
    }

    /// Publishes bytes and waits until they are sent.
    pub fn publish(&self, subject: &str, payload: impl Into<Vec<u8>>) {
        self.runtime.block_on(async {
            self.client.publish(subject.to_owned(), payload.into().into()).await.expect("failed to publish");
            self.client.flush().await.expect("failed to publish");
        });
    }

    /// Publishes bytes that ask for an answer on `reply`.
    pub fn publish_with_reply(&self, subject: &str, reply: &str, payload: impl Into<Vec<u8>>) {
        self.runtime.block_on(async {
            let payload: Vec<u8> = payload.into();
            let sent = self.client.publish_with_reply(subject.to_owned(), reply.to_owned(), payload.into());
            sent.await.expect("failed to publish");
            self.client.flush().await.expect("failed to publish");
        });
    }

    /// Sends a request and gives the answer, or what went wrong.
    ///
    /// # Errors
    /// When nobody answers within ten seconds, or nobody listens.
    pub fn request(&self, subject: &str, payload: impl Into<Vec<u8>>) -> Result<Vec<u8>, String> {
        let payload: Vec<u8> = payload.into();
        self.runtime.block_on(async {
            match self.client.request(subject.to_owned(), payload.into()).await {
                Ok(answer) => Ok(answer.payload.to_vec()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// Sends a request whose answer is JSON.
    ///
    /// # Panics
    /// When nobody answers, or not with JSON.
    pub fn ask(&self, subject: &str, payload: impl Into<Vec<u8>>) -> Json {
        let answer = self.request(subject, payload).unwrap_or_else(|error| panic!("no answer on {subject}: {error}"));
        serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("the answer on {subject} is no JSON: {error}"))
    }

    /// Subscribes, and waits until the server knows.
    pub fn subscribe(&self, subject: &str) -> Subscription<'_> {
        let own = self.client.new_inbox();
        let subscriber = self.runtime.block_on(async {
            let subscriber = self.client.subscribe(subject.to_owned()).await.expect("failed to subscribe");
            // A flush tells that it was sent. What comes back over this connection was read after it.
            let mut back = self.client.subscribe(own.clone()).await.expect("failed to subscribe");
            self.client.publish(own.clone(), "".into()).await.expect("failed to publish");
            back.next().await.expect("the server answers");
            subscriber
        });
        Subscription { bus: self, subscriber, own }
    }
}

impl Subscription<'_> {
    /// The next message, if one comes within `bound`.
    pub fn next(&mut self, bound: Duration) -> Option<Message> {
        let foreign = async {
            loop {
                let message = self.subscriber.next().await;
                if message.as_ref().is_none_or(|message| *message.subject != *self.own) {
                    break message;
                }
            }
        };
        let next = async { tokio::time::timeout(bound, foreign).await.ok().flatten() };
        let message = self.bus.runtime.block_on(next)?;
        Some(Message {
            subject: message.subject.to_string(),
            reply: message.reply.map(|reply| reply.to_string()),
            payload: message.payload.to_vec(),
        })
    }
}
