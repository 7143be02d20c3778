//! Two nodes, and a plain file beside them with the same rows: for what a write costs its service.

use std::sync::Arc;

use rowcast_tests::{Cluster, Node};
use tempfile::TempDir;

use crate::bench::Bench;
use crate::floors;
use crate::replica::{self, Watch};
use crate::service::Service;

/// The services that write the same, one on a plain file and one on node `a`, and who looks at node `b`.
pub struct Beside {
    /// On a plain file.
    pub plain: Service,
    /// On node `a`.
    pub service: Service,
    /// On node `b`.
    pub watch: Watch,
    /// The node that is written on.
    pub a: Arc<Node>,
    /// The other one.
    pub b: Arc<Node>,
    _cluster: Cluster,
    _folder: TempDir,
}

impl Beside {
    /// Starts both nodes, on `filled` rows.
    pub fn start(bench: &Bench, filled: u64) -> Self {
        let folder = bench.folder();
        let cluster = replica::cluster(&bench.nats, filled, ["a", "b"]);
        let [a, b] = cluster.nodes();
        let plain = floors::plain(folder.path(), "plain.db", filled);
        let (service, watch) = (Service::of(&a), Watch::on(&b));
        Self { plain, service, watch, a, b, _cluster: cluster, _folder: folder }
    }
}
