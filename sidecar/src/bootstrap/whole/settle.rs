//! What is done with a database that has come whole, until it is in its place: it is checked, made this node's own, and
//! put right where its rows are ahead of its events.

use rowcast_schema::declaration::Declaration;
use uuid::Uuid;

use super::level::level;
use crate::clock::Timestamp;
use crate::edge::store::whole::{Arriving, Expected, Placed, Refusal};
use crate::edge::store::{Claim, Error};
use crate::position::NodeId;

/// A database that has come, and for whom.
#[derive(Debug)]
pub struct Settling {
    /// The file.
    pub arriving: Arriving,
    /// The right to the place where it belongs.
    pub claim: Claim,
    /// The copy that was asked for.
    pub copy: Uuid,
    /// This node.
    pub joiner: NodeId,
    /// Its declaration.
    pub declaration: Declaration,
    /// Whom it has heard: id and name.
    pub members: Vec<(NodeId, String)>,
}

impl Settling {
    /// Puts the file in its place, or throws it away. `stopped` is asked now and then whether to give up. The claim comes
    /// back in any case, unless it cannot be had again.
    pub fn settle(self, now: Timestamp, stopped: impl Fn() -> bool) -> (Result<Claim, Error>, Result<Placed, Refusal>) {
        let Self { arriving, claim, copy, joiner, declaration, members } = self;
        let expected = Expected { copy, joiner, declaration: &declaration };
        if let Err(refusal) = arriving.admit(&expected, &members, now) {
            return (Ok(claim), Err(refusal));
        }
        let database = claim.database().to_owned();
        let worked = arriving.open(claim, declaration).and_then(|mut store| {
            let named = level(&mut store, now, &stopped)?;
            if named > 0 {
                tracing::info!(records = named, "rows that were ahead of their events wait for them");
            }
            store.finish()
        });
        let claim = match worked {
            Ok(claim) => claim,
            // The right to the database went with it.
            Err(error) => return (Claim::take(&database), Err(error.into())),
        };
        if stopped() {
            return (Ok(claim), Err(Refusal::Later("the node is told to stop".into())));
        }
        let placed = arriving.put_in_place(&claim).map_err(Refusal::from);
        (Ok(claim), placed)
    }
}
