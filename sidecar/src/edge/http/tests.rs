//! The server as a client sees it, over a real connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::observe::status::State;
use crate::observe::status::tests::troubled;

struct Running {
    address: SocketAddr,
    status: watch::Sender<Arc<Status>>,
    stop: CancellationToken,
    served: JoinSet<()>,
    asked: tokio::sync::mpsc::Receiver<crate::replica::Asked>,
}

async fn running() -> Running {
    running_with(Heartbeat::new()).await
}

async fn running_with(heartbeat: Heartbeat) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address();
    let (status, receiver) = watch::channel(Arc::new(troubled()));
    let stop = CancellationToken::new();
    let (operator, asked) = Operator::new();
    let sources = Sources { status: receiver, heartbeat, metrics: Metrics::install(), operator };
    let mut served = JoinSet::new();
    served.spawn(server.serve(sources, stop.clone()));
    Running { address, status, stop, served, asked }
}

/// Sends `request` as it is and returns all that comes back.
async fn say(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A server that refuses early may reset the connection after its answer.
    stream.read_to_string(&mut answer).await.unwrap_or_default();
    answer
}

async fn say_get(address: SocketAddr, path: &str, headers: &str) -> String {
    say(address, &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn each_path_answers() {
    let running = running().await;
    let get = async |path: &str| {
        let answer = get(running.address, path).await.unwrap();
        (answer.code, String::from_utf8(answer.body).unwrap())
    };
    assert_eq!(get("/livez").await.0, 200);
    let (code, body) = get("/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains(r#""code":"joining""#), "{body}");
    let (code, body) = get("/status").await;
    assert_eq!(code, 200);
    assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), troubled());
    assert_eq!(get("/metrics").await.0, 200);
    let (code, body) = get("/").await;
    assert_eq!(code, 200);
    assert!(body.contains("NOT READY  node c of service music"), "{body}");
    let (code, body) = get("/etc/passwd").await;
    assert_eq!(code, 404);
    assert!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"].is_string());
}

#[tokio::test]
async fn readiness_follows_the_status() {
    let running = running().await;
    running.status.send_modify(|status| Arc::make_mut(status).set_reasons(Vec::new()));
    assert_eq!(get(running.address, "/readyz").await.unwrap().code, 200);
    running.status.send_modify(|status| Arc::make_mut(status).state = State::NotReady);
    assert_eq!(get(running.address, "/readyz").await.unwrap().code, 503);
}

/// A node that stands still is NOT READY wherever one looks.
#[tokio::test]
async fn what_a_node_that_stands_still_said_last_is_not_believed() {
    let running = running_with(Heartbeat::that_stopped(Duration::from_secs(31))).await;
    running.status.send_modify(|status| Arc::make_mut(status).set_reasons(Vec::new()));
    let get = async |path: &str| String::from_utf8(get(running.address, path).await.unwrap().body).unwrap();
    for path in ["/readyz", "/status"] {
        assert!(get(path).await.contains(r#""code":"stuck""#), "{path}");
    }
    assert!(get("/").await.contains("NOT READY"));
}

#[tokio::test]
async fn only_a_name_of_this_machine_is_answered() {
    let running = running().await;
    let ours = format!("Host: localhost:{}\r\n", running.address.port());
    assert!(say_get(running.address, "/livez", &ours).await.starts_with("HTTP/1.1 200 "));
    for headers in ["Host: evil.example\r\n", "", "Host: localhost\r\nHost: evil.example\r\n"] {
        let answer = say_get(running.address, "/status", headers).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{headers:?}: {answer}");
        assert!(!answer.contains("music"), "{headers:?}: {answer}");
    }
}

#[tokio::test]
async fn nothing_is_written_and_no_other_origin_is_allowed() {
    let running = running().await;
    let answer = say(
        running.address,
        "POST /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains(r#"{"error":"#), "{answer}");
    let body = "Host: localhost\r\nContent-Length: 1000000000\r\n";
    assert!(say_get(running.address, "/status", body).await.starts_with("HTTP/1.1 413 "));
    let answer = say_get(running.address, "/status", "Host: localhost\r\nOrigin: http://evil.example\r\n").await;
    assert!(!answer.to_ascii_lowercase().contains("access-control"), "{answer}");
    assert!(answer.contains("cache-control: no-store"), "{answer}");
}

#[tokio::test]
async fn only_a_program_on_this_machine_can_ask_for_a_comparison() {
    let mut running = running().await;
    let answer = post(running.address, "/verify?repair=true&table=a%20b").await.unwrap();
    assert_eq!((answer.code, answer.body.as_slice()), (202, br#"{"id":1}"#.as_slice()));
    let asked = running.asked.recv().await.unwrap();
    assert_eq!((asked.id, asked.repair, asked.table.as_deref()), (1, true, Some("a b")));
    assert_eq!(post(running.address, "/verify?repair=perhaps").await.unwrap().code, 400);
    let ask = async |headers: &str| {
        let request = format!("POST /verify HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n");
        say(running.address, &request).await
    };
    for headers in [
        "Host: localhost\r\n",
        "Host: localhost\r\nX-Rowcast: 1\r\nOrigin: http://localhost:7200\r\n",
        "Host: localhost\r\nX-Rowcast: 1\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: evil.example\r\nX-Rowcast: 1\r\n",
    ] {
        let answer = ask(headers).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{headers:?}: {answer}");
    }
    assert!(
        say_get(running.address, "/verify", "Host: localhost\r\nX-Rowcast: 1\r\n").await.starts_with("HTTP/1.1 405 ")
    );
    assert!(running.asked.try_recv().is_err(), "nothing of it reached the node");
}

#[tokio::test]
async fn headers_have_a_limit() {
    let running = running().await;
    let long = format!("Host: localhost\r\nX: {}\r\n", "x".repeat(2 * HEADER_BYTES_MAX));
    let many = "Host: localhost\r\n".to_owned() + &"X: x\r\n".repeat(2 * HEADERS_MAX);
    for headers in [long, many] {
        let answer = say_get(running.address, "/livez", &headers).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(get(running.address, "/livez").await.unwrap().code, 200, "it goes on");
}

#[tokio::test]
async fn a_taken_address_is_told_with_what_to_do() {
    let running = running().await;
    let error = Server::bind(running.address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the HTTP address {} is taken by another process", running.address));
    assert!(error.hint().contains("--http"));
    let elsewhere = Server::bind("192.0.2.1:7200".parse().unwrap()).await.unwrap_err();
    assert!(matches!(elsewhere, Error::Bind { .. }));
}

#[tokio::test]
async fn it_stops_when_told_even_with_a_connection_that_says_nothing() {
    let mut running = running().await;
    let silent = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(get(running.address, "/livez").await.unwrap().code, 200);
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running.served.join_next()).await.unwrap().unwrap().unwrap();
    drop(silent);
    assert!(get(running.address, "/livez").await.is_err());
}
