//! Many nodes lose the bus, write on, and return at the same moment.

use std::time::Duration;

use rowcast::replica::Input;

use super::{Cluster, TABLE, toml};

const NODES: usize = 50;
const WRITERS: usize = 10;
const STEP: Duration = Duration::from_millis(20);

impl Cluster {
    fn connect(&mut self, connected: bool) {
        let moment = self.moment();
        for at in 0..self.nodes.len() {
            self.replica(at).handle(Input::Connected(connected), moment);
        }
    }

    fn all_ready(&mut self) -> bool {
        (0..self.nodes.len()).all(|at| self.replica(at).is_ready())
    }

    /// What went over the bus in a second, of which every 20 ms everybody did what there was to do.
    fn second(&mut self) -> super::Traffic {
        let before = self.traffic;
        for _ in 0..50 {
            self.step(STEP);
        }
        self.traffic - before
    }

    fn write(&mut self, round: usize) {
        for at in 0..WRITERS {
            self.sql(at, &format!("INSERT INTO t VALUES ('{at} {round}', 'x') ON CONFLICT DO UPDATE SET a = 'y'"));
        }
    }
}

/// Nothing melts: that they are there they say in a second at most three times as often as when all is well; in bytes that
/// second has at most eight times as much, with everything that they missed; nobody asks for what it has asked for already, and
/// all are READY and equal within a minute.
#[test]
fn fifty_nodes_that_return_together_do_not_talk_one_another_down() {
    let mut cluster = Cluster::new(&toml("forever"), 1);
    for _ in 1..NODES {
        let at = cluster.add(TABLE);
        cluster.start(at, false);
    }
    cluster.run(40);
    assert!(cluster.all_ready());
    cluster.write(0);
    let steady = cluster.second();
    cluster.connect(false);
    let all: Vec<usize> = (0..NODES).collect();
    cluster.split(&all, &all);
    for minute in 0..10 {
        cluster.write(1 + minute);
        cluster.step(Duration::from_secs(60));
    }
    cluster.heal();
    cluster.connect(true);
    let mut seconds = 0;
    let (mut peak, mut asked) = (super::Traffic::default(), 0);
    let rows = loop {
        let now = cluster.second();
        seconds += 1;
        (peak.presences, peak.bytes) = (peak.presences.max(now.presences), peak.bytes.max(now.bytes));
        asked += now.asks;
        let rows = cluster.rows(0);
        if cluster.all_ready() && all.iter().all(|&at| cluster.rows(at) == rows) {
            break rows;
        }
        assert!(seconds < 60, "not READY and equal after a minute");
    };
    println!("steady {steady:?}; at the return {peak:?} at most, {asked} requests, {seconds} s");
    assert_eq!(rows.len(), WRITERS * 11);
    assert!(peak.presences <= 3 * steady.presences, "{peak:?}, steady {steady:?}");
    // About half of it is what was missed. If each of the fifty answered each, it would be fifty times as much.
    assert!(peak.bytes <= 8 * steady.bytes, "{peak:?}, steady {steady:?}");
    // Everybody lacks what each writer wrote, and gets it at one go.
    assert!(asked <= NODES * WRITERS, "{asked} requests");
}
