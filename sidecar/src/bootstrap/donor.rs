//! Answers other nodes: events, records, definitions. Only reads, each time in one short read transaction.

use crate::edge::store::{Answer, Error, Reader};
use crate::flow::fetch::Request;
use crate::limits;
use crate::wire::Message;

/// The answer to a request. What cannot be served is said so, with the reason.
///
/// # Errors
/// When the database cannot be read.
pub fn answer(reader: &Reader, request: &Request) -> Result<Message, Error> {
    Ok(match request {
        Request::Fetch { origin, first, last, bytes } => {
            if *first == 0 || last < first {
                return Ok(Message::Refused("a range of events begins at 1 and does not end before it begins".into()));
            }
            Message::Fetched(reader.fetch(*origin, (*first, *last), *bytes)?)
        }
        Request::Fingerprints { origin, first, last } => {
            if *first == 0 || last.checked_sub(*first).is_none_or(|more| limits::FINGERPRINTS_MAX <= more) {
                return Ok(Message::Refused("a range of numbers begins at 1 and has 1,024 of them at most".into()));
            }
            Message::Fetched(Answer::Fingerprints(reader.fingerprints(*origin, (*first, *last))?))
        }
        Request::Snapshot { table, after, bytes } => {
            Message::Snapshot(reader.snapshot(table, after.as_deref(), *bytes)?)
        }
        Request::Definitions => Message::Definitions(reader.definitions()?),
        Request::Digest { table, layout, after, ranges } => {
            if limits::DIGEST_RANGES_MAX < ranges.len() {
                return Ok(Message::Refused(format!("{} ranges at once", ranges.len())));
            }
            let compared = reader.compare(table, *layout, after.as_deref(), ranges)?;
            compared.map_or_else(|| not_here(table), Message::Compared)
        }
        Request::Entries { table, records } => {
            reader.entries(table, records)?.map_or_else(|| not_here(table), Message::Compared)
        }
        Request::Whole { .. } | Request::Chunk { .. } | Request::Ended { .. } => {
            Message::Refused("this node hands its database over event by event only".into())
        }
        Request::Records { table, records } => {
            reader.records(table, records)?.map_or_else(|| not_here(table), Message::Snapshot)
        }
    })
}

fn not_here(table: &str) -> Message {
    Message::Refused(format!("table `{table}` is not here, or cannot be compared"))
}
