//! Some nodes of one service, in one temporary folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::eventually::eventually;
use crate::rows::{self, Dump};
use crate::{NatsServer, Node, binary};

/// The service's name on the bus, in every story.
pub const SERVICE: &str = "story";

/// The nodes of one service. The first one has the data; the others begin with no database file at all.
pub struct Cluster {
    // Dropped first: the sidecars end before their folder goes.
    nodes: Vec<Arc<Node>>,
    nats: String,
    schema: PathBuf,
    ignored: Vec<String>,
    init_said: String,
    folder: TempDir,
}

impl Cluster {
    /// Nodes that all are READY. The first one is made with `sql`, declared by `rowcast init` alone; the others
    /// start with no database file.
    pub fn start<const N: usize>(nats: &NatsServer, sql: &str, names: [&str; N]) -> Self {
        Self::prepare(nats, sql, names).started()
    }

    /// As [`Cluster::start`], declared by `toml`.
    pub fn declared<const N: usize>(nats: &NatsServer, sql: &str, toml: &str, names: [&str; N]) -> Self {
        Self::prepare_declared(nats, sql, toml, names).started()
    }

    /// As [`Cluster::start`], but nothing runs yet.
    pub fn prepare<const N: usize>(nats: &NatsServer, sql: &str, names: [&str; N]) -> Self {
        let mut cluster = Self::empty(nats, names);
        cluster.nodes[0].create(sql);
        cluster.init();
        cluster
    }

    /// As [`Cluster::declared`], but nothing runs yet.
    pub fn prepare_declared<const N: usize>(nats: &NatsServer, sql: &str, toml: &str, names: [&str; N]) -> Self {
        let cluster = Self::empty(nats, names);
        cluster.nodes[0].create(sql);
        std::fs::write(&cluster.schema, toml).unwrap();
        cluster
    }

    /// Nothing runs yet; the first node has a copy of the database `from` as it is, declared by `rowcast init` alone.
    pub fn prepare_copy<const N: usize>(nats: &NatsServer, from: &Path, names: [&str; N]) -> Self {
        let mut cluster = Self::empty(nats, names);
        std::fs::copy(from, cluster.nodes[0].database()).unwrap();
        cluster.init();
        cluster
    }

    fn empty<const N: usize>(nats: &NatsServer, names: [&str; N]) -> Self {
        let folder = TempDir::with_prefix("rowcast-story-").unwrap();
        let schema = folder.path().join("schema.toml");
        let mut cluster =
            Self { nodes: Vec::new(), nats: nats.url(), schema, ignored: Vec::new(), init_said: String::new(), folder };
        for name in names {
            cluster.add(name);
        }
        cluster
    }

    fn init(&mut self) {
        let mut command = binary::command();
        command.args(["init", "--service", SERVICE, "--database"]).arg(self.nodes[0].database());
        command.arg("--output").arg(&self.schema);
        self.init_said = binary::outcome("rowcast init", command).well();
    }

    /// Comparisons leave out these columns (`Table.column`). To be said before nodes start.
    pub fn ignoring(mut self, columns: &[&str]) -> Self {
        self.ignored = columns.iter().map(|&column| column.to_owned()).collect();
        let names: Vec<String> = self.nodes.drain(..).map(|node| node.name().to_owned()).collect();
        for name in names {
            self.add(&name);
        }
        self
    }

    /// Starts all nodes, the first with `--first`, and waits until they are READY.
    pub fn started(self) -> Self {
        self.nodes[0].start_with(&["--first"]);
        self.nodes[0].ready();
        for node in &self.nodes[1..] {
            node.start();
        }
        for node in &self.nodes[1..] {
            node.ready();
        }
        self
    }

    /// One node more, not started, with no database file.
    pub fn add(&mut self, name: &str) -> Arc<Node> {
        let node = Node::new(name, &self.folder.path().join(name), &self.schema, &self.nats, &self.ignored);
        let node = Arc::new(node);
        self.nodes.push(Arc::clone(&node));
        node
    }

    /// As [`Cluster::add`], with its database file at another place.
    pub fn add_with_database(&mut self, name: &str, database: &Path) -> Arc<Node> {
        drop(self.add(name));
        let node = self.nodes.pop().and_then(Arc::into_inner).expect("bug: nobody else has the new node");
        let node = Arc::new(node.with_database(database));
        self.nodes.push(Arc::clone(&node));
        node
    }

    /// The nodes, in the order of their names at the start.
    pub fn nodes<const N: usize>(&self) -> [Arc<Node>; N] {
        self.nodes.clone().try_into().unwrap_or_else(|nodes: Vec<_>| panic!("the cluster has {} nodes", nodes.len()))
    }

    /// The schema TOML that all nodes share.
    pub fn schema(&self) -> &Path {
        &self.schema
    }

    /// What `rowcast init` said.
    pub fn init_said(&self) -> &str {
        &self.init_said
    }

    /// A place for files of the story.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until all nodes hold the same rows, type for type and bit for bit, and no journal holds a change.
    /// Gives the rows.
    ///
    /// # Panics
    /// When they do not by the bound: with what differs.
    pub fn converged(&self) -> Dump {
        eventually("all nodes hold the same rows", || {
            for node in &self.nodes {
                let waiting = node.journal().map_err(|error| format!("{}: {error}", node.name()))?;
                if waiting > 0 {
                    return Err(format!("{} changes wait in the journal of {}", waiting, node.name()));
                }
            }
            let dump = |node: &Node| node.dump().map_err(|error| format!("{}: {error}", node.name()));
            let first = dump(&self.nodes[0])?;
            for node in &self.nodes[1..] {
                if let Some(difference) = rows::difference(&first, &dump(node)?) {
                    return Err(format!("{} and {} differ\n{difference}", self.nodes[0].name(), node.name()));
                }
            }
            Ok(first)
        })
    }

    /// Checks that every node's file is whole, by SQLite's own check.
    pub fn sound(&self) {
        for node in &self.nodes {
            assert_eq!(node.rows("PRAGMA integrity_check"), ["'ok'"], "{}", node.name());
        }
    }

    /// The same, and that no row refers to nothing: where several nodes write to parents and children at once, some may.
    pub fn sound_with_references(&self) {
        self.sound();
        for node in &self.nodes {
            assert_eq!(node.rows("PRAGMA foreign_key_check"), [""; 0], "{}", node.name());
        }
    }
}
