//! The sidecar's HTTP server, the only place that names axum: `/livez`, `/readyz`, `/metrics`, `/status` and a short
//! page at `/`. It only reads: the latest [`Status`] from a `watch` channel, the node's [`Heartbeat`], the metrics. One
//! thing can be asked for, a comparison, by a program on the same machine: `verify`.
//!
//! It answers while the node is busy, stuck or not yet there; that is what it is for. It is bounded in every direction:
//! connections, headers, bodies (none), time. Bound to this machine it answers only requests that name this machine
//! (a web page elsewhere could otherwise reach it through a DNS name of its own). It allows no other origin.

mod client;
mod routes;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::observe::health::Heartbeat;
use crate::observe::metrics::Metrics;
use crate::observe::status::Status;

pub use client::{Answer, get, post};
pub use verify::Operator;

/// Connections at the same time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 128;

/// How long a client may take to send a request, and how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request's line and headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// The longest a connection lives, so that a client that does not read its answer is let go.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);

/// How long answers under way may take when the sidecar stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What the server shows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The node's latest status.
    pub status: watch::Receiver<Arc<Status>>,
    /// The node loop's sign of life.
    pub heartbeat: Heartbeat,
    /// The metrics.
    pub metrics: Metrics,
    /// Where a comparison is asked for.
    pub operator: Operator,
}

/// A server that has its address and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address. Port 0 takes a free one, which [`Server::address`] tells.
    ///
    /// # Errors
    /// The address is taken, or not of this machine.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => Error::Taken { address },
            _ => Error::Bind { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub async fn serve(self, sources: Sources, stop: CancellationToken) {
        let router = routes::router(sources, self.address);
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, slot)) => {
                    let peer = verify::Peer(stream.peer_addr().ok().map(|peer| peer.ip()));
                    let service = TowerToHyperService::new(router.clone().layer(axum::Extension(peer)));
                    let stop = stop.clone();
                    connections.spawn(async move {
                        converse(stream, service, stop).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, or a client that left at once: neither is mended by haste.
                    tracing::debug!(%error, "an HTTP connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
            tracing::debug!("HTTP connections were cut at the stop");
        }
    }
}

/// The next connection, once there is a slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// One connection, from its first request to its end.
async fn converse(stream: TcpStream, service: TowerToHyperService<axum::Router>, stop: CancellationToken) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(CONNECTION_TIME_MAX) => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else listens there.
    #[error("the HTTP address {address} is taken by another process")]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error("failed to listen on the HTTP address {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "another sidecar may be running there; choose another address with --http",
            Self::Bind { .. } => "--http must be an address of this machine, such as 127.0.0.1:7200",
        }
    }
}

#[cfg(test)]
#[path = "http/tests.rs"]
mod tests;
