//! Contexts while many events are read: each is looked up once, not for each event that it holds for.

use std::collections::BTreeMap;

use rowcast_schema::bookkeeping;
use rusqlite::Connection;

use super::error::{Doing as _, Error, damaged};
use super::tx::{signed, unsigned};
use crate::event::EventId;
use crate::position::{NodeId, Sequence, Vector};

/// The contexts that were looked up, by origin and the first sequence number that they hold for; 0 where none is stored.
#[derive(Default)]
pub(super) struct Contexts(BTreeMap<(NodeId, Sequence), Span>);

struct Span {
    /// The sequence number from which on another one holds.
    until: Sequence,
    /// None is stored: it is empty.
    vector: Option<Vector>,
}

impl Contexts {
    /// What the author of an event had seen. All that is asked of one value is of one moment: within a read transaction.
    pub(super) fn of(&mut self, connection: &Connection, id: EventId) -> Result<Vector, Error> {
        let before = self.0.range(..=(id.origin, id.sequence)).next_back();
        if let Some(((origin, _), span)) = before
            && *origin == id.origin
            && id.sequence < span.until
        {
            return Ok(span.vector.clone().unwrap_or_default());
        }
        let (first, span) = look_up(connection, id)?;
        let vector = span.vector.clone().unwrap_or_default();
        self.0.insert((id.origin, first), span);
        Ok(vector)
    }

    /// Those that are stored: origin, first sequence number, vector.
    pub(super) fn found(self) -> Vec<(NodeId, Sequence, Vector)> {
        let found = self.0.into_iter();
        found.filter_map(|((origin, first), span)| span.vector.map(|vector| (origin, first, vector))).collect()
    }
}

fn look_up(connection: &Connection, id: EventId) -> Result<(Sequence, Span), Error> {
    let (first, until): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT (SELECT max(first) FROM _rowcast_contexts WHERE origin = ?1 AND first <= ?2),
                    (SELECT min(first) FROM _rowcast_contexts WHERE origin = ?1 AND ?2 < first)",
        )
        .and_then(|mut statement| {
            statement.query_row((id.origin.to_string(), signed(id.sequence)), |row| Ok((row.get(0)?, row.get(1)?)))
        })
        .doing("look for a context")?;
    let until = until.map_or(Sequence::MAX, unsigned);
    let Some(first) = first else { return Ok((0, Span { until, vector: None })) };
    let text: String = connection
        .prepare_cached("SELECT vector FROM _rowcast_contexts WHERE origin = ?1 AND first = ?2")
        .and_then(|mut statement| statement.query_row((id.origin.to_string(), first), |row| row.get(0)))
        .doing("read a context")?;
    let vector = serde_json::from_str(&text).map_err(|error| damaged(bookkeeping::CONTEXTS, error))?;
    Ok((unsigned(first), Span { until, vector: Some(vector) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::store::serve;

    #[test]
    fn each_event_gets_the_context_that_a_look_of_its_own_finds() {
        let connection = Connection::open_in_memory().unwrap();
        bookkeeping::CREATE.iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        let nodes: Vec<NodeId> = (1..4).map(|id| NodeId(uuid::Uuid::from_u128(id))).collect();
        for (node, first) in [(0, 3), (0, 7), (0, 8), (2, 1), (2, 20)] {
            let vector: Vector = [(nodes[1], first)].into_iter().collect();
            let text = serde_json::to_string(&vector).unwrap();
            let sql = "INSERT INTO _rowcast_contexts (origin, first, vector) VALUES (?1, ?2, ?3)";
            connection.execute(sql, (nodes[node].to_string(), signed(first), text)).unwrap();
        }
        let mut contexts = Contexts::default();
        for sequence in [9, 2, 8, 1, 7, 6, 3, 5, 25, 20, 19] {
            for &origin in &nodes {
                let id = EventId { origin, sequence };
                let alone = serve::context(&connection, id).unwrap().map(|(_, vector)| vector).unwrap_or_default();
                assert_eq!(contexts.of(&connection, id).unwrap(), alone, "{id}");
            }
        }
        assert_eq!(contexts.found().len(), 5);
    }
}
