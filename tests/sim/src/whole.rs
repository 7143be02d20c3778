//! A node whose disk is gone goes on with a new one: it has no database, speaks under a new id, and takes another node's
//! database whole.
//!
//! Whom to ask and when, the copy, the checks and the file's way to its place are Rowcast's own. The conversation between the
//! two is not: here all of a copy travels at once, a donor that refuses may be asked again, and a copy is made while it is asked
//! for. The disk takes a file that came into its place for synced, so a sync that is missing there is not noticed.

use std::time::Duration;

use bytes::Bytes;
use rowcast::bootstrap::whole::settle::Settling;
use rowcast::bootstrap::whole::{self, Chunk, Offer, Seeking};
use rowcast::edge::store::Claim;
use rowcast::edge::store::whole::{Arriving, Copied, Placed, Refusal, Wanted, arriving_path, copy, copy_path};
use rowcast::limits;
use rowcast::position::NodeId;
use rowcast::replica::{Input, Moment};
use uuid::Uuid;

use crate::chance::Chance;
use crate::disk::{self, Failing};
use crate::faults::Fault;
use crate::net::Fate;
use crate::node::Node;
use crate::world::World;

/// A node without a database.
#[derive(Debug)]
pub struct Seeker {
    claim: Claim,
    /// The id under which it speaks.
    pub id: NodeId,
    seeking: Seeking,
    /// Since when, in microseconds.
    pub started: u64,
    /// Until when an answer to what was asked last may come.
    waits_until: Option<u64>,
    /// What was asked last: a late answer is told from the one that is waited for.
    tries: u64,
    failures: u32,
    put_off_since: Option<u64>,
    not_before: u64,
}

/// A copy that a node has made for another one.
#[derive(Debug)]
pub struct Shipped {
    copied: Copied,
    offer: Offer,
    joiner: NodeId,
    at: u64,
}

/// What the two tell each other.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// A node wants a copy.
    Wanted { joiner: usize, id: NodeId, tries: u64 },
    /// There is none.
    Refused { tries: u64, later: bool, why: String },
    /// There is one.
    Offered { donor: usize, offer: Offer, tries: u64 },
    /// All of it is asked for.
    Fetched { joiner: usize, copy: Uuid, tries: u64 },
    /// All of it, and the hash over it.
    Came { offer: Offer, chunks: Vec<Chunk>, hash: [u8; 32], tries: u64 },
}

/// An answer that does not come within this time is not waited for, in microseconds.
const WAIT: u64 = 5_000_000;

/// After so many failures everything is loaded event by event.
const FAILURES_MAX: u32 = 3;

/// How long donors may put it off, in microseconds.
const PUT_OFF_MAX: u64 = 15_000_000;

/// The pause after a failure, in microseconds.
const PAUSE: u64 = 200_000;

impl Node {
    /// The disk is gone, and all that was on it; there is a new one. Nothing may run.
    pub fn lose_disk(&mut self) {
        assert!(self.service.is_none() && self.sidecar.is_none() && self.seeker.is_none(), "nothing runs");
        disk::forget(self.folder());
        std::fs::remove_dir_all(self.folder()).expect("a folder of the simulation can be removed");
        std::fs::create_dir_all(self.folder()).expect("a folder of the simulation can be made");
        self.unsynced_from = None;
        self.was_ready = false;
        self.backup = None;
        self.failing = None;
        // Who founds a cluster does it once.
        self.first = false;
        self.disk_lost = true;
    }

    /// Begins to look for a database, as there is none.
    fn begin_to_seek(&mut self, now: u64, chance: &mut Chance) -> Result<(), String> {
        self.life += 1;
        let reserved = self.file("-rowcast-id");
        if !reserved.exists() {
            // Rowcast would ask the system for it, which gives another one each time.
            let id = uuid::Builder::from_random_bytes(sixteen(chance)).into_uuid();
            std::fs::write(&reserved, format!("{id}\n")).expect("a file of the simulation can be written");
        }
        let mut claim = Claim::take(&self.file("")).map_err(|error| error.chain())?;
        let id = claim.node().map_err(|error| error.chain())?;
        let schema = format!("{:016x}", self.declaration().hash());
        let mut at = self.moment(now);
        at.uptime = Duration::from_secs(1);
        let session = Uuid::from_u64_pair(chance.number(), chance.number());
        let seeking = Seeking::new(id, session, &format!("n{}", self.number), schema, Duration::from_secs(1), at);
        self.seeker = Some(Seeker {
            claim,
            id,
            seeking,
            started: now,
            waits_until: None,
            tries: 0,
            failures: 0,
            put_off_since: None,
            not_before: now,
        });
        Ok(())
    }
}

fn sixteen(chance: &mut Chance) -> [u8; 16] {
    Uuid::from_u64_pair(chance.number(), chance.number()).into_bytes()
}

impl Seeker {
    /// What a node says of itself has come.
    pub fn heard(&mut self, frame: &Bytes, at: Moment) {
        self.seeking.heard(frame, at);
    }

    fn failed(&mut self, now: u64) {
        self.waits_until = None;
        self.failures += 1;
        self.not_before = now + PAUSE;
    }
}

impl World {
    /// A node without a database begins to look for one.
    pub fn seek(&mut self, node: usize) {
        if self.nodes[node].seeker.is_some() {
            return;
        }
        if let Err(error) = self.nodes[node].begin_to_seek(self.now, &mut self.chance) {
            return self.judge.wrong.push(format!("node {node} cannot look for a database: {error}"));
        }
        let id = self.nodes[node].seeker.as_ref().map(|seeker| seeker.id);
        self.story.tell(self.now, format_args!("n{node} has no database, and looks for one as {id:?}"));
        self.note_what_others_have(node);
        self.turn_regularly(node);
    }

    /// A turn of a node that looks for a database.
    pub fn seek_on(&mut self, node: usize) {
        let (now, moment) = (self.now, self.nodes[node].moment(self.now));
        let Some(seeker) = &mut self.nodes[node].seeker else { return };
        if !seeker.claim.is_vacant() {
            return self.go_on(node, "a file has come");
        }
        if let Some(frame) = seeker.seeking.presence(moment) {
            let frame = Bytes::from(frame);
            self.everybody_gets(node, |_| Input::Presence(frame.clone()));
        }
        let Some(seeker) = &mut self.nodes[node].seeker else { return };
        if seeker.waits_until.is_some_and(|until| until < now) {
            seeker.failed(now);
        }
        if FAILURES_MAX <= seeker.failures {
            return self.go_on(node, "no copy could be had");
        }
        let donors = seeker.seeking.donors(moment);
        if seeker.waits_until.is_some() || now < seeker.not_before || donors.is_empty() {
            return;
        }
        let donor = donors[seeker.tries as usize % donors.len()];
        seeker.tries += 1;
        seeker.waits_until = Some(now + WAIT);
        let (tries, id) = (seeker.tries, seeker.id);
        self.story.tell(now, format_args!("n{node} asks {donor:?} for all of its database"));
        if let Some(donor) = self.nodes.iter().position(|other| other.id() == Some(donor) && other.hears()) {
            self.say(node, donor, Said::Wanted { joiner: node, id, tries });
        }
    }

    fn say(&mut self, from: usize, to: usize, said: Said) {
        match self.net.fate(from, to) {
            Fate::Comes(times) => self.hear(self.now + times[0], to, said),
            _ if matches!(said, Said::Wanted { .. } | Said::Fetched { .. }) => self.story.count("requests lost"),
            _ => self.story.count("answers lost"),
        }
    }

    /// Something about a whole database has come to a node.
    pub(crate) fn told(&mut self, node: usize, said: Said) {
        match said {
            Said::Wanted { joiner, id, tries } => self.wanted(node, joiner, id, tries),
            Said::Fetched { joiner, copy, tries } => self.fetched(node, joiner, copy, tries),
            Said::Refused { tries, .. } | Said::Offered { tries, .. } | Said::Came { tries, .. } => {
                let waits = |seeker: &Seeker| seeker.tries == tries && seeker.waits_until.is_some();
                if self.nodes[node].seeker.as_ref().is_some_and(waits) {
                    self.answered(node, said);
                }
            }
        }
    }

    fn answered(&mut self, node: usize, said: Said) {
        let now = self.now;
        let Some(seeker) = &mut self.nodes[node].seeker else { return };
        match said {
            Said::Refused { later, why, .. } => {
                seeker.failed(now);
                let since = *seeker.put_off_since.get_or_insert(now);
                seeker.failures -= u32::from(later && now < since + PUT_OFF_MAX);
                self.story.tell(now, format_args!("n{node} is refused a copy: {why}"));
                self.story.count("copies refused");
            }
            Said::Offered { donor, offer, tries } => match offer.check() {
                Ok(()) => self.say(node, donor, Said::Fetched { joiner: node, copy: offer.copy, tries }),
                Err(why) => self.judge.wrong.push(format!("node {node}: {why}")),
            },
            Said::Came { offer, chunks, hash, .. } => self.came(node, &offer, &chunks, hash),
            Said::Wanted { .. } | Said::Fetched { .. } => {}
        }
    }

    /// The donor makes a copy, and offers it.
    fn wanted(&mut self, donor: usize, joiner: usize, id: NodeId, tries: u64) {
        self.nodes[donor].moment(self.now);
        let Some(sidecar) = self.nodes[donor].sidecar.as_ref().filter(|sidecar| sidecar.connected) else { return };
        let idle = limits::WHOLE_IDLE_MAX.as_micros() as u64;
        if sidecar.copy.as_ref().is_some_and(|made| made.joiner != id && self.now < made.at + idle) {
            let why = "another node is taking a copy".to_owned();
            return self.say(donor, joiner, Said::Refused { tries, later: true, why });
        }
        let name = uuid::Builder::from_random_bytes(sixteen(&mut self.chance)).into_uuid();
        let declaration = self.nodes[donor].declaration();
        let wanted = Wanted { database: self.nodes[donor].file(""), declaration, joiner: id, copy: name };
        // One that was made before goes first: both would have the same place.
        if let Some(sidecar) = &mut self.nodes[donor].sidecar {
            sidecar.copy = None;
        }
        self.arm(donor);
        let copied = copy(&wanted, || false);
        let fired = self.disarm(donor);
        if fired == Some(Failing::Dead) {
            return self.sidecar_dies(donor);
        }
        self.note_synced(donor);
        match copied {
            Ok(copied) => {
                let offer = Offer { copy: name, bytes: copied.bytes, vector: copied.vector.clone() };
                self.story.tell(self.now, format_args!("n{donor} makes a copy of its database: {:?}", offer.vector));
                let Some(sidecar) = &mut self.nodes[donor].sidecar else { return };
                sidecar.copy = Some(Shipped { copied, offer: offer.clone(), joiner: id, at: self.now });
                let path = copy_path(&self.nodes[donor].file(""));
                self.judge.copied(&path).expect("a copy can be read");
                self.say(donor, joiner, Said::Offered { donor, offer, tries });
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Store(_)) && fired.is_none() && self.nodes[donor].failing.is_none() {
                    self.judge.wrong.push(format!("node {donor} makes no copy: {refusal}"));
                }
                let later = matches!(refusal, Refusal::Later(_));
                self.say(donor, joiner, Said::Refused { tries, later, why: refusal.to_string() });
            }
        }
    }

    /// The donor hands over its copy, and removes it.
    fn fetched(&mut self, donor: usize, joiner: usize, copy: Uuid, tries: u64) {
        let sidecar = self.nodes[donor].sidecar.as_mut().filter(|sidecar| sidecar.connected);
        let Some(sidecar) = sidecar else { return };
        let Some(Shipped { copied, offer, .. }) = sidecar.copy.take_if(|made| made.offer.copy == copy) else { return };
        let bytes_of = |at: u64| {
            let (from, length) = offer.place(at).expect("a chunk that there is");
            copied.read(from, length).expect("a copy can be read")
        };
        let all: Vec<Vec<u8>> = (0..offer.chunks()).map(bytes_of).collect();
        let hash = whole::hash_over(&all.iter().map(|bytes| whole::hash_of(bytes)).collect::<Vec<_>>());
        let pack = |(at, bytes): (u64, &Vec<u8>)| Chunk::pack(copy, at, bytes).expect("a chunk can be packed");
        let chunks = (0..).zip(&all).map(pack).collect();
        self.say(donor, joiner, Said::Came { offer, chunks, hash, tries });
    }

    /// Everything is here: it becomes this node's database.
    fn came(&mut self, node: usize, offer: &Offer, chunks: &[Chunk], hash: [u8; 32]) {
        let (now, moment) = (self.now, self.nodes[node].moment(self.now));
        let (database, declaration) = (self.nodes[node].file(""), self.nodes[node].declaration());
        let arriving = match Arriving::begin(&database, offer.bytes) {
            Ok(arriving) => arriving,
            Err(refusal) => return self.judge.wrong.push(format!("node {node} has no room: {refusal}")),
        };
        let mut hashes = Vec::new();
        for (at, chunk) in (0..).zip(chunks) {
            let (from, bytes) = offer.unpack(chunk, at).expect("the bus changes nothing");
            arriving.write(from, &bytes).expect("a file of the simulation can be written");
            hashes.push(whole::hash_of(&bytes));
        }
        if whole::hash_over(&hashes) != hash {
            return self.judge.wrong.push(format!("node {node}: the copy is another one than the donor's"));
        }
        let Some(seeker) = self.nodes[node].seeker.take() else { return };
        let Seeker { claim, id, seeking, started, tries, failures, put_off_since, .. } = seeker;
        let members = seeking.members();
        let settling = Settling { arriving, claim, copy: offer.copy, joiner: id, declaration, members };
        self.arm(node);
        let (claim, placed) = settling.settle(moment.wall, || false);
        let fired = self.disarm(node);
        if placed.as_ref().is_ok_and(|placed| *placed == Placed::Done) {
            ["", "-wal"].iter().for_each(|suffix| disk::adopt(&self.nodes[node].file(suffix)));
        }
        if fired == Some(Failing::Dead) {
            self.story.tell(now, format_args!("n{node} is killed with a database that has come: {placed:?}"));
            self.story.count("killed with a database that has come");
            // Whoever is killed leaves what there was; the next start is to clear it away.
            std::fs::write(arriving_path(&database), "half of it").expect("a file of the simulation can be written");
            drop(claim);
            return self.sidecar_dies(node);
        }
        match (placed, claim) {
            (Ok(Placed::Done), Ok(claim)) => {
                drop(claim);
                self.story.tell(now, format_args!("n{node} has a database, with {:?}", offer.vector));
                self.story.count("databases taken whole");
                self.start_service(node);
                self.start_sidecar_with(node, seeking.into_inputs(true, moment));
            }
            (placed, Ok(claim)) => {
                self.story.tell(now, format_args!("n{node} does not take the database: {placed:?}"));
                self.story.count("copies not taken");
                if matches!(placed, Err(Refusal::Store(_))) && fired.is_none() && self.nodes[node].failing.is_none() {
                    self.judge.wrong.push(format!("node {node} fails with a database that has come: {placed:?}"));
                }
                let mut seeker = Seeker {
                    claim,
                    id,
                    seeking,
                    started,
                    waits_until: None,
                    tries,
                    failures,
                    put_off_since,
                    not_before: now,
                };
                seeker.failed(now);
                self.nodes[node].seeker = Some(seeker);
            }
            (_, Err(error)) => self.judge.wrong.push(format!("node {node} lost its right: {error}")),
        }
    }

    /// It goes on as any other node does, and loads event by event.
    fn go_on(&mut self, node: usize, why: &str) {
        let moment = self.nodes[node].moment(self.now);
        let Some(seeker) = self.nodes[node].seeker.take() else { return };
        self.story.tell(self.now, format_args!("n{node} takes no database whole: {why}"));
        self.story.count("databases not taken whole");
        let Seeker { claim, seeking, .. } = seeker;
        drop(claim);
        self.start_service(node);
        self.start_sidecar_with(node, seeking.into_inputs(false, moment));
    }

    /// A node loses its disk, unless nobody else is READY: what a service wrote is then nowhere.
    pub fn lose_disk(&mut self, node: usize, until: u64) {
        let ready = |other: &Node| other.number != node && other.sidecar.as_ref().is_some_and(|it| it.ready);
        if !self.nodes.iter().any(ready) {
            return;
        }
        self.nodes[node].die();
        self.nodes[node].lose_disk();
        // What was only there is gone.
        self.judge.void(node, 0);
        let before = self.nodes[node].seen.0;
        self.judge.ended(before);
        self.forget_what_it_had(node);
        self.story.tell(self.now, format_args!("n{node} loses its disk, and gets a new one"));
        self.story.count("disk lost");
        if self.chance.one_in(3) {
            let failing = if self.chance.one_in(2) { Failing::Dead } else { Failing::Once };
            self.nodes[node].failing = Some((self.chance.below(400), failing));
        }
        self.plan(until, Fault::Start { node });
    }
}
