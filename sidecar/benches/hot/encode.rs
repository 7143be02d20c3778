//! The wire: a group into bytes and back, and the checks behind.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rowcast::flow::receive;
use rowcast::position::NodeId;
use rowcast::wire::{self, Feed, Message};
use rowcast_schema::record;
use uuid::Uuid;

use crate::rows;

fn feed(count: u64) -> Message {
    let origin = NodeId(Uuid::from_u128(1));
    Message::Feed(Feed {
        origin,
        pieces: vec![rows::group(1, 0..count, 0)],
        layouts: vec![rows::layout()],
        before: None,
    })
}

#[divan::bench(args = [1, 100, 800])]
fn encode(bencher: Bencher<'_, '_>, count: u64) {
    let message = feed(count);
    bencher.counter(ItemsCount::new(count)).bench(|| wire::encode(black_box(&message)));
}

#[divan::bench(args = [1, 100, 800])]
fn decode(bencher: Bencher<'_, '_>, count: u64) {
    let frame = wire::encode(&feed(count));
    bencher.counter(ItemsCount::new(count)).bench(|| wire::decode(black_box(&frame)));
}

/// Decodes, and checks every row.
#[divan::bench(args = [1, 100, 800])]
fn receive(bencher: Bencher<'_, '_>, count: u64) {
    let frame = wire::encode(&feed(count));
    let origin = NodeId(Uuid::from_u128(1));
    bencher.counter(ItemsCount::new(count)).bench(|| receive::feed(black_box(&frame), origin));
}

/// The cells of a row as JSON.
#[divan::bench]
fn row_to_json(bencher: Bencher<'_, '_>) {
    let (layout, cells) = (rows::layout(), rows::cells(7, 0));
    bencher.bench(|| record::row_to_json(&layout.columns, black_box(&cells)));
}

/// And back.
#[divan::bench]
fn row_from_json(bencher: Bencher<'_, '_>) {
    let layout = rows::layout();
    let json = record::row_to_json(&layout.columns, &rows::cells(7, 0));
    bencher.bench(|| record::row_from_json(&layout.columns, black_box(&json)));
}
