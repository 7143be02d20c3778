//! A link to nats-server that a story can cut, heal, hold in one direction, or make lose chosen messages.
//!
//! It understands just enough of the NATS protocol to tell one message from the next: a line, and for the verbs that
//! carry a payload, as many bytes as the line's last field says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::{NatsServer, port};

type Rule = Box<dyn Fn(Way, &str) -> bool + Send + Sync>;

/// A direction of a link, as the node at its end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the node to nats-server.
    Out,
    /// From nats-server to the node.
    In,
}

/// A link to a server, at an address of its own.
pub struct Proxy {
    port: u16,
    link: Arc<Link>,
}

/// What the threads of a proxy share.
struct Link {
    server: u16,
    cut: AtomicBool,
    ended: AtomicBool,
    held: [AtomicBool; 2],
    connections: Mutex<Vec<TcpStream>>,
    lose: Mutex<Option<Rule>>,
    lost: AtomicUsize,
}

impl Proxy {
    /// A link to `nats`, whole.
    pub fn to(nats: &NatsServer) -> Self {
        let port = port::free();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let link = Arc::new(Link {
            server: nats.port(),
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            held: Default::default(),
            connections: Mutex::default(),
            lose: Mutex::default(),
            lost: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&link);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    accepting.connect(client);
                }
            }
        });
        Self { port, link }
    }

    /// A link that is cut from the start.
    pub fn cut_off(nats: &NatsServer) -> Self {
        let proxy = Self::to(nats);
        proxy.cut();
        proxy
    }

    /// The address that leads through this link.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends all connections and refuses new ones.
    pub fn cut(&self) {
        self.link.cut.store(true, Ordering::SeqCst);
        self.link.end_connections();
    }

    /// Lets connections through again.
    pub fn heal(&self) {
        self.link.cut.store(false, Ordering::SeqCst);
    }

    /// From now on loses every message, either way, whose subject `rule` is true of.
    pub fn lose(&self, rule: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.set_rule(move |_, subject| rule(subject));
    }

    /// From now on loses every message of one direction. The connection does not notice.
    pub fn lose_all(&self, way: Way) {
        self.set_rule(move |other, _| other == way);
    }

    fn set_rule(&self, rule: impl Fn(Way, &str) -> bool + Send + Sync + 'static) {
        *self.link.lose.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(rule));
    }

    /// Loses nothing any more.
    pub fn lose_nothing(&self) {
        *self.link.lose.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// From now on nothing arrives of what goes one way, as on a network that is cut in one direction.
    pub fn hold(&self, way: Way) {
        self.link.held[way as usize].store(true, Ordering::SeqCst);
    }

    /// What was held arrives, late, on the connections that are still there.
    pub fn release(&self) {
        for held in &self.link.held {
            held.store(false, Ordering::SeqCst);
        }
    }

    /// How many messages were lost so far.
    pub fn lost(&self) -> usize {
        self.link.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.ended.store(true, Ordering::SeqCst);
        self.link.end_connections();
        // Wakes the accepting thread, so that it sees the end.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Link {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        // A client that is dropped here sees its connection closed.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server)) else { return };
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if self.cut.load(Ordering::SeqCst) {
            return;
        }
        for (way, from, to) in [(Way::Out, &client, &server), (Way::In, &server, &client)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            to.set_nodelay(true).unwrap();
            let link = Arc::clone(self);
            thread::spawn(move || {
                let reader = from.try_clone().unwrap();
                drop(link.carry(way, reader, &to));
                drop(from.shutdown(Shutdown::Both));
                drop(to.shutdown(Shutdown::Both));
            });
        }
        connections.push(client);
        connections.push(server);
    }

    /// Carries messages from one side to the other until one of them closes.
    fn carry(&self, way: Way, from: TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
        let mut from = BufReader::with_capacity(1 << 16, from);
        let mut message = Vec::new();
        loop {
            message.clear();
            if from.read_until(b'\n', &mut message)? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&message).trim_end().to_owned();
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            if let ["MSG" | "HMSG" | "PUB" | "HPUB", subject, .., length] = fields[..] {
                let length: u64 = length.parse().map_err(std::io::Error::other)?;
                from.by_ref().take(length + 2).read_to_end(&mut message)?;
                let lose = self.lose.lock().unwrap_or_else(PoisonError::into_inner);
                if lose.as_ref().is_some_and(|rule| rule(way, subject)) {
                    self.lost.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
            }
            while self.held[way as usize].load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            to.write_all(&message)?;
        }
    }

    fn end_connections(&self) {
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}
