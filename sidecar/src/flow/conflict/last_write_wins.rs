//! The greater version wins: by timestamp, then by node id. Versions are unique, so there are no ties.

use super::Verdict;
use crate::event::Version;

/// Takes the event when the record has no content, or content of a lesser version.
pub fn decide(held: Option<Version>, arriving: Version) -> Verdict {
    match held {
        Some(held) if arriving <= held => Verdict::Keep,
        _ => Verdict::Take,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::clock::Timestamp;
    use crate::position::NodeId;

    fn any_version() -> impl Strategy<Value = Version> {
        (0..4_i64, 0..3_u128, 1..4_u64).prop_map(|(timestamp, origin, sequence)| Version {
            timestamp: Timestamp(timestamp),
            origin: NodeId(Uuid::from_u128(origin)),
            sequence,
        })
    }

    proptest! {
        #[test]
        fn the_content_does_not_depend_on_the_order_of_arrival(
            versions in prop::collection::vec(any_version(), 1..8).prop_shuffle(),
        ) {
            let fold = |versions: &[Version]| {
                versions.iter().fold(None, |held, &next| match decide(held, next) {
                    Verdict::Take => Some(next),
                    Verdict::Keep => held,
                })
            };
            let mut sorted = versions.clone();
            sorted.sort();
            prop_assert_eq!(fold(&versions), fold(&sorted));
            prop_assert_eq!(fold(&versions), sorted.last().copied());
        }
    }
}
