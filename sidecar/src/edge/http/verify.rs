//! `POST /verify`: the one thing that can be asked for over HTTP. It begins a comparison; the status tells how it ends.
//!
//! Only a program on this machine may ask: the connection and the Host are of this machine, there is a header that a
//! web page cannot send to another origin unasked, and none that says a web page sends it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Extension;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Json, Response};
use tokio::sync::mpsc;

use super::Sources;
use super::routes::{is_loopback, refuse};
use crate::replica::Asked;

/// Comparisons that were asked for and that the node has not heard of yet.
const ASKED_MAX: usize = 4;

/// The header that every request that changes something has to have.
pub(super) const OURS: &str = "x-rowcast";

/// The way from a request to the node.
#[derive(Clone, Debug)]
pub struct Operator {
    wants: mpsc::Sender<Asked>,
    next: Arc<AtomicU64>,
}

impl Operator {
    /// The two ends of it.
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (wants, asked) = mpsc::channel(ASKED_MAX);
        (Self { wants, next: Arc::new(AtomicU64::new(1)) }, asked)
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

pub(super) async fn verify(
    Extract(sources): Extract<Sources>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    if !peer.0.is_some_and(|peer| peer.is_loopback()) || !is_ours(request.headers()) {
        return refuse(
            StatusCode::FORBIDDEN,
            "only `rowcast verify` on the same machine may ask for that",
            "run it beside the sidecar; web pages and other machines are not let in",
        );
    }
    let Some((repair, table)) = read(request.uri().query().unwrap_or_default()) else {
        return refuse(StatusCode::BAD_REQUEST, "the question does not read", "?repair=true&table=…, both as you like");
    };
    let id = sources.operator.next.fetch_add(1, Ordering::Relaxed);
    match sources.operator.wants.try_send(Asked { id, repair, table }) {
        Ok(()) => (StatusCode::ACCEPTED, Json(serde_json::json!({ "id": id }))).into_response(),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the node does not take it now", "ask again a little later"),
    }
}

fn is_ours(headers: &HeaderMap) -> bool {
    let from_page = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    let host = headers.get(header::HOST).map(HeaderValue::to_str);
    !from_page && headers.contains_key(OURS) && matches!(host, Some(Ok(host)) if is_loopback(host))
}

/// What is asked for.
fn read(query: &str) -> Option<(bool, Option<String>)> {
    let (mut repair, mut table) = (false, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=')? {
            ("repair", word) => repair = word.parse().ok()?,
            ("table", name) => table = Some(unescaped(name)?),
            _ => return None,
        }
    }
    Some((repair, table))
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_reads_whatever_the_table_is_called() {
        assert_eq!(read(""), Some((false, None)));
        assert_eq!(read("repair=true&table=a%20%22b%22"), Some((true, Some("a \"b\"".to_owned()))));
        for wrong in ["repair=yes", "table=%", "table=%zz", "table=%ff", "delete=all", "repair"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
