//! Inventory: a small service on SQLite, as somebody would write it.
//!
//! ```text
//!  api ──► store ──► SQLite        the write, committed
//!   └────► announce ──► NATS       "this row changed", after the commit
//! ```
//!
//! It does not know how many nodes there are, and it works without NATS. What it does for Rowcast is in `announce`:
//! one message after each commit that touched `items`. The rows of `movements` are captured by triggers, for which it
//! does nothing at all.

mod announce;
mod api;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Keeps items and the movements of their stock, in SQLite.
#[derive(Debug, Parser)]
struct Arguments {
    /// The database file; it is made when it is missing.
    #[arg(long, env = "INVENTORY_DATABASE")]
    database: PathBuf,
    /// Where to serve HTTP.
    #[arg(long, env = "INVENTORY_HTTP", default_value = "127.0.0.1:8001")]
    http: SocketAddr,
    /// The NATS server to announce changes to. Without it nothing is announced.
    #[arg(long, env = "INVENTORY_NATS", requires = "node")]
    nats: Option<String>,
    /// The name of this node, as its sidecar has it.
    #[arg(long, env = "INVENTORY_NODE")]
    node: Option<String>,
    /// Make the database and its tables, and end.
    #[arg(long)]
    migrate: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let store = store::Store::open(&arguments.database)
        .await
        .with_context(|| format!("failed to open the database {}", arguments.database.display()))?;
    if arguments.migrate {
        store.close().await;
        return Ok(());
    }
    let (announcer, announcing) = match (arguments.nats, arguments.node) {
        (Some(nats), Some(node)) => announce::start(&nats, &node).await?,
        _ => announce::silent(),
    };
    let listener =
        TcpListener::bind(arguments.http).await.with_context(|| format!("failed to listen on {}", arguments.http))?;
    eprintln!("inventory: serving http://{}", arguments.http);
    axum::serve(listener, api::router(store.clone(), announcer))
        .with_graceful_shutdown(asked_to_stop())
        .await
        .context("failed to serve HTTP")?;
    // Every request is answered by now, and the announcer's last handle is gone: let it send what it holds.
    announcing.finish().await;
    store.close().await;
    Ok(())
}

async fn asked_to_stop() {
    let mut terminate = signal(SignalKind::terminate()).expect("the SIGTERM handler can be set");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
