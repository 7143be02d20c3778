//! What is missing travels in pages: events to a node that was away, records to one that is new. Both sides run in one
//! thread here, so what they could do at the same time adds up.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rowcast::flow::fetch::Request;

use crate::node::Node;
use crate::rows;
use crate::stage::answer;

/// A node whose service wrote `count` rows in transactions of 100.
fn author(count: u64) -> Node {
    let mut author = Node::new(true);
    for first in (0..count).step_by(100) {
        rows::write(&author.service, first..first + 100, 0);
        author.ingest();
    }
    author
}

/// One page of events, encoded.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn fetch_page(bencher: Bencher<'_, '_>) {
    let author = author(20_000);
    let (reader, origin) = (author.reader(), author.replica.node());
    let request = Request::Fetch { origin, first: 5_000, last: 20_000, bytes: usize::MAX };
    bencher.bench_local(|| answer(&reader, black_box(&request)));
}

/// One page of records, encoded.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn snapshot_page(bencher: Bencher<'_, '_>) {
    let author = author(20_000);
    let reader = author.reader();
    let request = Request::Snapshot { table: "items".into(), after: Some("8".into()), bytes: usize::MAX };
    bencher.bench_local(|| answer(&reader, black_box(&request)));
}

/// A node that was away gets all events.
#[divan::bench(args = [50_000], sample_count = 3, sample_size = 1)]
fn catch_up(bencher: Bencher<'_, '_>, count: u64) {
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let mut author = Node::new(true);
            let mut away = Node::new(false);
            away.follow(&mut author, |away| away.replica.is_ready());
            for first in (0..count).step_by(100) {
                rows::write(&author.service, first..first + 100, 0);
                author.ingest();
            }
            (author, away)
        })
        .bench_local_refs(|(author, away)| {
            let origin = author.replica.node();
            away.follow(author, |away| away.replica.store().durable().vector.of(origin) >= count);
            assert_eq!(away.count(), count);
        });
}

/// A node that is new gets all records.
#[divan::bench(args = [50_000], sample_count = 3, sample_size = 1)]
fn bootstrap(bencher: Bencher<'_, '_>, count: u64) {
    bencher.counter(ItemsCount::new(count)).with_inputs(|| (author(count), Node::new(false))).bench_local_refs(
        |(author, new)| {
            new.follow(author, |new| new.replica.is_ready());
            assert_eq!(new.count(), count);
        },
    );
}
