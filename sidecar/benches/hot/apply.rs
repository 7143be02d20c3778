//! Groups of another node are applied: from the bytes to the commit.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use rowcast::position::{NodeId, Sequence};
use rowcast::replica::Input;
use rowcast::wire::{self, Feed, Message};
use uuid::Uuid;

use crate::node::Node;
use crate::rows;

/// Rows that are there before, so that keys in random order meet a table that is not tiny.
const BEFORE: u64 = 20_000;

const ORIGIN: NodeId = NodeId(Uuid::from_u128(1));

/// A node that takes what an author says.
pub(crate) struct Receiver {
    pub(crate) node: Node,
    next: Sequence,
}

/// All of the frames come before what they bring is applied, a turn of the node's thread at a time.
pub(crate) fn flood_in(receiver: &mut Receiver, frames: &[Bytes]) {
    for part in frames.chunks(64) {
        let at = receiver.node.at();
        for frame in part {
            receiver.node.replica.handle(Input::Feed { subject: ORIGIN, frame: frame.clone() }, at);
        }
        receiver.node.work();
    }
}

impl Receiver {
    pub(crate) fn new(before: u64) -> Self {
        let mut receiver = Self { node: Node::new(true), next: 1 };
        for first in (0..before).step_by(500) {
            let frame = receiver.frame(first..first + 500, 0);
            receiver.take(frame);
        }
        receiver
    }

    pub(crate) fn frame(&mut self, rows: impl IntoIterator<Item = u64>, round: u64) -> Bytes {
        let piece = rows::group(self.next, rows, round);
        self.next = piece.last() + 1;
        let layouts = vec![rows::layout()];
        wire::encode(&Message::Feed(Feed { origin: ORIGIN, pieces: vec![piece], layouts, before: None })).into()
    }

    pub(crate) fn take(&mut self, frame: Bytes) {
        let at = self.node.at();
        self.node.replica.handle(Input::Feed { subject: ORIGIN, frame }, at);
        self.node.work();
    }
}

#[divan::bench(args = [1, 100, 1000], sample_count = 100, sample_size = 1)]
fn insert(bencher: Bencher<'_, '_>, count: u64) {
    let receiver = RefCell::new(Receiver::new(BEFORE));
    let next = Cell::new(BEFORE);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let first = next.replace(next.get() + count);
            receiver.borrow_mut().frame(first..first + count, 0)
        })
        .bench_local_values(|frame| receiver.borrow_mut().take(frame));
}

/// Rows that are there, in random key order.
#[divan::bench(args = [1, 100, 1000], sample_count = 100, sample_size = 1)]
fn update(bencher: Bencher<'_, '_>, count: u64) {
    let receiver = RefCell::new(Receiver::new(BEFORE));
    let next = Cell::new(0);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let first = next.replace(next.get() + count);
            let rows = (first..first + count).map(|at| rows::mixed(at) % BEFORE);
            receiver.borrow_mut().frame(rows, 1 + first / BEFORE)
        })
        .bench_local_values(|frame| receiver.borrow_mut().take(frame));
}

/// A flood: so many rows in transactions of 100, of which all have come before the first is applied.
#[divan::bench(args = [50_000], sample_count = 3, sample_size = 1)]
fn flood(bencher: Bencher<'_, '_>, count: u64) {
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let mut receiver = Receiver::new(0);
            let frames: Vec<Bytes> =
                (0..count).step_by(100).map(|first| receiver.frame(first..first + 100, 0)).collect();
            (receiver, frames)
        })
        .bench_local_refs(|(receiver, frames)| {
            flood_in(receiver, frames);
            assert_eq!(receiver.node.count(), count);
        });
}
