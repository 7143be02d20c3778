//! Which event a record's content comes from, and whether two events met without knowing of each other.
//!
//! Policies are declared per table; each has a file. Last-write-wins is the one there is; merging by column and asking a
//! resolver have their place beside it.

pub mod last_write_wins;

use rowcast_schema::declaration::Conflict;

use crate::event::{EventId, Version};
use crate::position::Vector;

/// What to do with an event for a record that has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The record takes the event's content.
    Take,
    /// The record keeps what it has; the event is superseded on arrival.
    Keep,
}

/// Decides by the policy of the table. A total function of the versions: every node decides alike, in any order.
pub fn decide(policy: Conflict, held: Option<Version>, arriving: Version) -> Verdict {
    match policy {
        Conflict::LastWriteWins => last_write_wins::decide(held, arriving),
    }
}

/// Whether neither author had seen the other's event. `context_of_held` is asked only when the first half is true.
///
/// # Errors
/// What `context_of_held` fails with.
pub fn are_concurrent<E>(
    held: EventId,
    arriving: EventId,
    context: &Vector,
    context_of_held: impl FnOnce() -> Result<Vector, E>,
) -> Result<bool, E> {
    let knew_held = held.origin == arriving.origin || held.sequence <= context.of(held.origin);
    Ok(!knew_held && context_of_held()?.of(arriving.origin) < arriving.sequence)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::position::{NodeId, Sequence};

    fn id(node: u128, sequence: Sequence) -> EventId {
        EventId { origin: NodeId(Uuid::from_u128(node)), sequence }
    }

    fn vector(node: u128, position: Sequence) -> Vector {
        [(NodeId(Uuid::from_u128(node)), position)].into_iter().collect()
    }

    #[test]
    fn events_are_concurrent_when_neither_author_had_seen_the_others() {
        let concurrent = |context: Vector, context_of_held: Vector| {
            are_concurrent(id(1, 5), id(2, 7), &context, || Ok::<_, ()>(context_of_held)).unwrap()
        };
        assert!(concurrent(vector(1, 4), vector(2, 6)), "each had seen what came before the other's");
        assert!(!concurrent(vector(1, 5), Vector::default()), "the arriving one's author had seen the held one");
        assert!(!concurrent(Vector::default(), vector(2, 7)), "the held one's author had seen the arriving one");
    }

    #[test]
    fn events_of_one_author_are_never_concurrent() {
        let asked = || -> Result<Vector, ()> { panic!("the context of the held one is not needed") };
        assert!(!are_concurrent(id(1, 5), id(1, 7), &Vector::default(), asked).unwrap());
    }
}
