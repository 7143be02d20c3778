//! Nodes, sequence numbers, and the position vector: how far everything is known, per origin.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A node, for ever: a UUID made once and stored in its database. Ordered as its text is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub Uuid);

#[cfg(test)]
impl NodeId {
    /// A new node.
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell nodes apart in a log.
        f.write_str(&self.0.simple().to_string()[..8])
    }
}

impl FromStr for NodeId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A sequence number: 1, 2, 3 … per origin, without a hole. 0 stands before the first.
pub type Sequence = u64;

/// Per origin, the sequence number up to which nothing is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vector(BTreeMap<NodeId, Sequence>);

impl Vector {
    /// The position for `origin`; 0 where nothing is known.
    pub fn of(&self, origin: NodeId) -> Sequence {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    /// Sets the position for `origin`.
    pub fn set(&mut self, origin: NodeId, position: Sequence) {
        if position == 0 {
            self.0.remove(&origin);
        } else {
            self.0.insert(origin, position);
        }
    }

    /// Raises the position for `origin`, if that is a raise.
    pub fn raise(&mut self, origin: NodeId, position: Sequence) {
        if self.of(origin) < position {
            self.set(origin, position);
        }
    }

    /// Takes the greater position of each origin.
    pub fn join(&mut self, other: &Self) {
        for (origin, position) in other.iter() {
            self.raise(origin, position);
        }
    }

    /// Takes the lesser position of each origin.
    pub fn meet(&mut self, other: &Self) {
        self.0.retain(|origin, position| {
            *position = other.of(*origin).min(*position);
            *position != 0
        });
    }

    /// Whether every position of `other` is reached here.
    pub fn covers(&self, other: &Self) -> bool {
        self.lacks(other).next().is_none()
    }

    /// The origins, with the wanted position, that `other` knows further than this vector.
    pub fn lacks<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (NodeId, Sequence)> + 'a {
        other.iter().filter(|&(origin, position)| self.of(origin) < position)
    }

    /// Of what this vector asks for, the part that `others` have.
    #[must_use]
    pub fn within(&self, others: &Self) -> Self {
        self.iter().map(|(origin, position)| (origin, position.min(others.of(origin)))).collect()
    }

    /// Origins and positions, in the order of the origins.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Sequence)> + '_ {
        self.0.iter().map(|(&origin, &position)| (origin, position))
    }

    /// Without one origin.
    #[must_use]
    pub fn without(&self, origin: NodeId) -> Self {
        let mut rest = self.clone();
        rest.0.remove(&origin);
        rest
    }

    /// The number of origins.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known of any origin.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum of all positions: the number of events known.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, position| sum.saturating_add(*position))
    }
}

impl FromIterator<(NodeId, Sequence)> for Vector {
    fn from_iter<I: IntoIterator<Item = (NodeId, Sequence)>>(positions: I) -> Self {
        let mut vector = Self::default();
        for (origin, position) in positions {
            vector.set(origin, position);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_vector() -> impl Strategy<Value = Vector> {
        prop::collection::btree_map(0..5_u128, 0..9_u64, 0..5)
            .prop_map(|map| map.into_iter().map(|(id, at)| (NodeId(Uuid::from_u128(id)), at)).collect())
    }

    proptest! {
        #[test]
        fn join_is_the_least_vector_that_covers_both_and_meet_the_greatest_covered_by_both(
            a in any_vector(), b in any_vector()
        ) {
            let (mut join, mut meet) = (a.clone(), a.clone());
            join.join(&b);
            meet.meet(&b);
            prop_assert!(join.covers(&a) && join.covers(&b) && a.covers(&meet) && b.covers(&meet));
            prop_assert_eq!(join.total() + meet.total(), a.total() + b.total());
            prop_assert_eq!(a.covers(&b) && b.covers(&a), a == b);
        }
    }

    #[test]
    fn the_order_of_nodes_is_the_order_of_their_text() {
        let mut nodes: Vec<NodeId> = (0..50).map(|_| NodeId::random()).collect();
        nodes.sort();
        assert!(nodes.is_sorted_by_key(ToString::to_string));
    }
}
