//! What the service writes becomes events: the write with its triggers, and the ingest behind it.

use std::cell::{Cell, RefCell};

use divan::Bencher;
use divan::counter::ItemsCount;

use crate::node::Node;
use crate::rows;

/// One ingest of a transaction of so many rows, up to the encoded message, the sync included.
#[divan::bench(args = [1, 100, 500], sample_count = 200, sample_size = 1)]
fn ingest(bencher: Bencher<'_, '_>, count: u64) {
    let node = RefCell::new(Node::new(true));
    let next = Cell::new(0);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let first = next.replace(next.get() + count);
            rows::write(&node.borrow().service, first..first + count, 0);
        })
        .bench_local_values(|()| node.borrow_mut().ingest());
}

/// The service's own transaction, with the triggers of Rowcast.
#[divan::bench(args = [1, 100], sample_count = 400, sample_size = 1)]
fn write_with_triggers(bencher: Bencher<'_, '_>, count: u64) {
    let node = RefCell::new(Node::new(true));
    let next = Cell::new(0);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            node.borrow_mut().ingest();
            let first = next.replace(next.get() + count);
            (first..first + count).map(|at| rows::cells(at, 0)).collect::<Vec<_>>()
        })
        .bench_local_values(|cells| crate::floor::transaction(&node.borrow().service, &cells));
}
