//! Random histories of writes, cuts, restarts, restores and copies. No key that any database held after the last restore
//! may be missing anywhere in the end, and all nodes are equal.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::cluster::Cluster;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

struct History {
    cluster: Cluster,
    random: Random,
    snapshots: Vec<PathBuf>,
    written: u32,
    story: Vec<String>,
}

const NODES_MAX: usize = 5;

impl History {
    fn step(&mut self) {
        let node = self.random.below(self.cluster.nodes.len());
        let told = match self.random.below(100) {
            0..40 => {
                self.written += 1;
                let key = format!("k{:04}", self.written);
                self.cluster.sql(
                    node,
                    &format!("INSERT INTO t VALUES ('{key}', 1); UPDATE t SET a = {} WHERE id = 'both'", self.written),
                );
                format!("n{node} writes {key}")
            }
            40..50 => {
                self.written += 1;
                let n = self.written;
                self.cluster
                    .sql(node, &format!("INSERT INTO u VALUES ('u{}', {n}) ON CONFLICT DO UPDATE SET a = {n}", n % 7));
                format!("n{node} writes u{}", n % 7)
            }
            50..80 => {
                let turns = 1 + self.random.below(80);
                (0..turns).for_each(|_| self.cluster.turn());
                format!("{turns} turns")
            }
            80..86 => {
                let network = u32::try_from(self.random.below(2)).unwrap();
                self.cluster.cut(node, network);
                format!("n{node} goes to network {network}")
            }
            86..88 => {
                self.cluster.meet();
                "all meet".to_owned()
            }
            88..92 => {
                self.cluster.kill(node);
                self.cluster.boot(node, false);
                format!("n{node} is killed and starts")
            }
            92..96 => {
                let place = self.cluster.place(&format!("copy{}", self.snapshots.len()));
                self.cluster.copy(&self.cluster.folder(node), &place, true);
                self.snapshots.push(place);
                format!("n{node} is copied")
            }
            96..98 if !self.snapshots.is_empty() => {
                let at = self.random.below(self.snapshots.len());
                let with_the_file = self.random.below(3) > 0;
                self.cluster.restore(node, &self.snapshots[at].clone(), with_the_file);
                self.cluster.boot(node, false);
                format!("n{node} is restored from copy {at}, with the file: {with_the_file}")
            }
            98.. if !self.snapshots.is_empty() && self.cluster.nodes.len() < NODES_MAX => {
                let at = self.random.below(self.snapshots.len());
                let twin = self.cluster.add(&format!("n{}", self.cluster.nodes.len()));
                self.cluster.copy(&self.snapshots[at].clone(), &self.cluster.folder(twin), true);
                self.cluster.boot(twin, false);
                format!("n{twin} is a copy of copy {at}")
            }
            _ => return,
        };
        self.story.push(told);
    }

    /// What any of the databases holds.
    fn keys(&mut self) -> BTreeSet<String> {
        let all = (0..self.cluster.nodes.len()).flat_map(|node| {
            let text = self.cluster.text(node, "SELECT id AS v FROM t");
            text.split(' ').map(str::to_owned).collect::<Vec<_>>()
        });
        all.filter(|key| !key.is_empty()).collect()
    }
}

fn history(seed: u64) {
    let mut cluster = Cluster::start(3);
    cluster.sql(0, "INSERT INTO t VALUES ('both', 0)");
    cluster.run(2);
    let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut history = History { cluster, random, snapshots: Vec::new(), written: 0, story: Vec::new() };
    for _ in 0..120 {
        history.step();
    }
    let wanted = history.keys();
    let cluster = &mut history.cluster;
    if history.random.below(2) == 0 {
        cluster.meet();
    } else {
        (0..cluster.nodes.len()).for_each(|node| cluster.cut(node, 0));
    }
    cluster.run(90);
    let story = history.story.join("\n");
    let rows = "SELECT id || '=' || a AS v FROM (SELECT id, a FROM t UNION ALL SELECT id, a FROM u ORDER BY id)";
    for node in 0..history.cluster.nodes.len() {
        let at = history.cluster.moment(node);
        let reasons = history.cluster.replica(node).status(at).reasons;
        assert!(reasons.is_empty(), "seed {seed}: n{node}: {reasons:?}\n{story}");
        let (first, own) = (history.cluster.text(0, rows), history.cluster.text(node, rows));
        assert_eq!(own, first, "seed {seed}: n{node} against n0\n{story}");
    }
    let missing: Vec<String> = wanted.difference(&history.keys()).cloned().collect();
    assert!(missing.is_empty(), "seed {seed}: {missing:?}\n{story}");
    println!("seed {seed}\n{story}");
    history.cluster.assert_equal();
}

/// `ROWCAST_IDENTITY_SEEDS=first..last` runs others.
#[test]
fn no_random_history_of_restores_and_copies_loses_or_parts_anything() {
    #[expect(clippy::disallowed_methods, reason = "a test may be told what to run")]
    let given = std::env::var("ROWCAST_IDENTITY_SEEDS").ok();
    let seeds = given
        .as_deref()
        .and_then(|given| given.split_once(".."))
        .map(|(first, last)| first.parse().unwrap()..last.parse().unwrap());
    for seed in seeds.unwrap_or(0..30) {
        history(seed);
    }
}
