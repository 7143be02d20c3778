//! The routes and what each answers, and the checks that every request passes first.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{get, post};
use serde::Serialize;

use super::{Sources, verify};
use crate::observe::health::{Liveness, Readiness};
use crate::observe::status::Status;

/// The paths that are answered, for the page and the tests.
pub(super) const PATHS: [&str; 5] = ["/", "/livez", "/readyz", "/metrics", "/status"];

/// All routes. `address` is where the server is bound.
pub(super) fn router(sources: Sources, address: SocketAddr) -> Router {
    let checks = middleware::from_fn(move |request: Request, next: Next| check(address, request, next));
    Router::new()
        .route("/", get(page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/verify", post(verify::verify))
        .fallback(nothing_here)
        .method_not_allowed_fallback(only_reading)
        .layer(checks)
        .with_state(sources)
}

/// The JSON of every refusal.
#[derive(Serialize)]
struct Refusal {
    error: &'static str,
    hint: &'static str,
}

pub(super) fn refuse(status: StatusCode, error: &'static str, hint: &'static str) -> Response {
    (status, Json(Refusal { error, hint })).into_response()
}

async fn check(address: SocketAddr, request: Request, next: Next) -> Response {
    let mut response = if !host_is_allowed(address, &request) {
        refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host header does not name this machine",
            "ask for localhost or the loopback address; a sidecar bound to it answers to no other name",
        )
    } else if has_body(&request) {
        refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request has a body", "nothing here takes one")
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether the request names a host that the server answers to. A server that the network reaches has names that it
/// cannot know, and no secret that the network could not ask for itself.
fn host_is_allowed(address: SocketAddr, request: &Request) -> bool {
    if !address.ip().is_loopback() {
        return true;
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) => is_loopback(host),
        _ => false,
    }
}

/// `localhost`, `127.0.0.1:7200`, `[::1]:7200`: with any port, since ports are forwarded.
pub(super) fn is_loopback(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = without_port.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(without_port);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn has_body(request: &Request) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    length || headers.contains_key(header::TRANSFER_ENCODING)
}

async fn livez(Extract(sources): Extract<Sources>) -> Response {
    let liveness = Liveness::of(sources.heartbeat.age());
    let status = if liveness.alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(liveness)).into_response()
}

/// What the node says of itself, unless it stands still.
fn seen(sources: &Sources) -> Status {
    let status = Status::clone(&sources.status.borrow());
    status.doubted(sources.heartbeat.age())
}

async fn readyz(Extract(sources): Extract<Sources>) -> Response {
    let readiness = Readiness::of(&seen(&sources));
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(Extract(sources): Extract<Sources>) -> Response {
    let page = sources.metrics.render(&seen(&sources));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn status(Extract(sources): Extract<Sources>) -> Response {
    Json(seen(&sources)).into_response()
}

async fn page(Extract(sources): Extract<Sources>) -> String {
    let status = seen(&sources);
    format!("Rowcast {}\n\n{}\nMore: {}\n", status.version, status.to_text(), PATHS[1..].join("  "))
}

async fn nothing_here() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing at this path", "the paths are /livez, /readyz, /metrics, /status")
}

async fn only_reading() -> Response {
    refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        "this method is not allowed here",
        "everything here is read with GET; `rowcast verify` asks for the one thing that is not",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_told_from_others() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:7200", "127.8.8.8", "[::1]:7200", "[::1]", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7200",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:7200",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
