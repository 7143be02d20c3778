//! Loads everything from another node: the definitions of the tables, then table by table the events that records
//! come from.
//!
//! The position that the node has when all is loaded is the donor's vector from BEFORE the first page; what came since is
//! fetched like any gap. The node is complete when it has what the donor had at its LAST page. With another donor, or the
//! same one started again, it begins anew: two nodes may hold two histories of one author that was set back, and half of
//! each is the history of nobody.
//!
//! Pure: it says what to ask next and takes what was answered; the replica asks and stores.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::edge::store::SnapshotPage;
use crate::flow::fetch::{AskId, Request};
use crate::limits;
use crate::position::{NodeId, Vector};

/// A page that has come, and how much of the work on it is done.
#[derive(Debug)]
pub struct Arrived {
    /// The table that it belongs to.
    pub table: String,
    /// The record that it begins after.
    pub after: Option<String>,
    /// The page.
    pub page: SnapshotPage,
    /// Its events are stored, and the records up to this one are rid of what the donor has no more.
    pub forgotten: Option<Option<String>>,
}

/// A load under way.
#[derive(Debug)]
pub struct Joiner {
    donor: NodeId,
    /// The run of its sidecar.
    session: Uuid,
    under_way: Option<AskId>,
    start: Option<Vector>,
    target: Vector,
    tables: VecDeque<String>,
    /// Tables with events that this donor did not bring.
    held: Vec<String>,
    after: Option<String>,
    needs_definitions: bool,
    arrived: VecDeque<Arrived>,
    /// Events loaded.
    pub done: u64,
    /// Events that there are, roughly, of the tables looked at so far.
    pub total: u64,
    counted: bool,
}

impl Joiner {
    /// Begins to load the `tables` from `donor`, in that run of its sidecar. In the tables that are `held` others brought events before.
    pub fn new((donor, session): (NodeId, Uuid), tables: impl IntoIterator<Item = String>, held: Vec<String>) -> Self {
        let tables: VecDeque<String> = tables.into_iter().collect();
        Self {
            donor,
            session,
            under_way: None,
            start: None,
            target: Vector::default(),
            held,
            tables,
            after: None,
            needs_definitions: true,
            arrived: VecDeque::new(),
            done: 0,
            total: 0,
            counted: false,
        }
    }

    /// Whom it loads from.
    pub fn donor(&self) -> NodeId {
        self.donor
    }

    /// The same, with the run of its sidecar: a donor that was started again may have lost, or exchanged, what it had.
    pub fn whence(&self) -> (NodeId, Uuid) {
        (self.donor, self.session)
    }

    /// What to ask now, for about so many bytes at a time; none while something is under way, while enough has come, or at the end.
    pub fn next_request(&mut self, bytes: usize, next_ask: impl FnOnce() -> AskId) -> Option<(AskId, NodeId, Request)> {
        if self.under_way.is_some() || limits::LOAD_AHEAD_MAX <= self.arrived.len() {
            return None;
        }
        let request = if self.needs_definitions {
            Request::Definitions
        } else {
            Request::Snapshot { table: self.tables.front()?.clone(), after: self.after.clone(), bytes }
        };
        let ask = next_ask();
        self.under_way = Some(ask);
        Some((ask, self.donor, request))
    }

    /// Whether the answer is to the request that is under way.
    pub fn is_waiting_for(&self, ask: AskId) -> bool {
        self.under_way == Some(ask)
    }

    /// The request brought nothing.
    pub fn failed(&mut self) {
        self.under_way = None;
    }

    /// The donor's vector from before its first page is here, and the names of all tables of which it has events: those
    /// that are not declared here are loaded, too. The position covers them, and nobody would bring them later.
    pub fn took_definitions<'t>(&mut self, vector: &Vector, tables: impl IntoIterator<Item = &'t str>) {
        self.under_way = None;
        self.needs_definitions = false;
        for table in tables {
            if !self.tables.iter().any(|known| known.eq_ignore_ascii_case(table)) {
                self.tables.push_back(table.to_owned());
            }
        }
        self.start = Some(vector.clone());
        self.target.join(vector);
    }

    /// The table that is being asked for.
    pub fn table(&self) -> Option<&str> {
        self.tables.front().map(String::as_str)
    }

    /// A page is here, and waits to be stored. Answers whether it is one of the donor that began: its vector never goes back.
    pub fn took_page(&mut self, page: SnapshotPage) -> bool {
        let Some(table) = self.tables.front().cloned() else { return true };
        if !page.vector.covers(&self.target) {
            return false;
        }
        self.under_way = None;
        self.target.join(&page.vector);
        if !self.counted {
            self.total += page.total;
        }
        self.counted = page.next.is_some();
        let after = std::mem::replace(&mut self.after, page.next.clone());
        if self.after.is_none() {
            self.tables.pop_front();
        }
        self.arrived.push_back(Arrived { table, after, page, forgotten: None });
        true
    }

    /// The page to work on, and the tables in which something may stand that another donor brought.
    pub fn arrived(&mut self) -> Option<(&mut Arrived, &[String])> {
        Some((self.arrived.front_mut()?, &self.held))
    }

    /// The work on that page is done.
    pub fn stored(&mut self) {
        if let Some(stored) = self.arrived.pop_front() {
            self.done += stored.page.rows.len() as u64;
        }
    }

    /// When everything is loaded: the position to begin at, and the target to reach.
    pub fn finished(&self) -> Option<(Vector, Vector)> {
        let all =
            !self.needs_definitions && self.tables.is_empty() && self.under_way.is_none() && self.arrived.is_empty();
        self.start.clone().filter(|_| all).map(|start| (start, self.target.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(positions: &[(u128, u64)]) -> Vector {
        positions.iter().map(|&(id, at)| (NodeId(Uuid::from_u128(id)), at)).collect()
    }

    fn page(positions: &[(u128, u64)], total: u64, next: Option<&str>) -> SnapshotPage {
        SnapshotPage { vector: vector(positions), total, next: next.map(str::to_owned), ..SnapshotPage::default() }
    }

    #[test]
    fn the_position_is_from_before_the_first_page_and_the_target_from_the_last() {
        let donor = (NodeId(Uuid::from_u128(1)), Uuid::from_u128(9));
        let mut joiner = Joiner::new(donor, ["t".to_owned(), "u".to_owned()], vec!["t".to_owned()]);
        assert_eq!(joiner.next_request(9, || 1).unwrap().2, Request::Definitions);
        assert!(joiner.next_request(9, || 2).is_none(), "one at a time");
        joiner.took_definitions(&vector(&[(1, 10), (2, 5)]), ["T", "old"]);
        joiner.next_request(9, || 2).unwrap();
        assert!(joiner.took_page(page(&[(1, 12), (2, 5)], 9, Some("k"))));
        let (_, asked, request) = joiner.next_request(9, || 4).unwrap();
        let wanted = Request::Snapshot { table: "t".into(), after: Some("k".into()), bytes: 9 };
        assert_eq!((asked, request), (donor.0, wanted));
        assert!(joiner.took_page(page(&[(1, 12), (2, 7)], 9, None)));
        assert!(joiner.next_request(9, || 5).is_none(), "what has come is stored first");
        assert_eq!(joiner.arrived().unwrap().0.after, None);
        joiner.stored();
        let (arrived, held) = joiner.arrived().unwrap();
        assert_eq!(held, ["t"]);
        assert_eq!((arrived.table.as_str(), arrived.after.as_deref()), ("t", Some("k")));
        joiner.stored();
        joiner.next_request(9, || 5).unwrap();
        assert!(joiner.took_page(page(&[(1, 13), (2, 8)], 0, None)));
        joiner.stored();
        let (_, _, request) = joiner.next_request(9, || 6).unwrap();
        assert_eq!(
            request,
            Request::Snapshot { table: "old".into(), after: None, bytes: 9 },
            "not declared, and covered"
        );
        assert!(joiner.took_page(page(&[(1, 13), (2, 8)], 0, None)));
        assert!(joiner.finished().is_none(), "it is not stored");
        joiner.stored();
        let (start, target) = joiner.finished().unwrap();
        assert_eq!((start, target), (vector(&[(1, 10), (2, 5)]), vector(&[(1, 13), (2, 8)])));
        assert_eq!(joiner.total, 9);
    }

    #[test]
    fn a_donor_that_was_set_back_is_not_believed() {
        let donor = (NodeId(Uuid::from_u128(1)), Uuid::from_u128(9));
        let mut joiner = Joiner::new(donor, ["t".to_owned()], Vec::new());
        joiner.next_request(9, || 1).unwrap();
        joiner.took_definitions(&vector(&[(1, 10)]), []);
        joiner.next_request(9, || 2).unwrap();
        assert!(joiner.took_page(page(&[(1, 12)], 9, Some("k"))));
        assert!(!joiner.took_page(page(&[(1, 11)], 9, None)), "it was set back");
    }
}
