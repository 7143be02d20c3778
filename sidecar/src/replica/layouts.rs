//! Which columns the tables have on each node, for who looks at the status while nodes are migrated one after the other.
//! Nothing waits for what is found here: an event is applied as far as the table has its columns.

use std::collections::BTreeSet;

use rowcast_schema::layout::LayoutId;

use super::Replica;
use crate::edge::store::{KnownLayout, Replicated};
use crate::observe::status;

/// Layouts of one table that the status shows.
const SHOWN_MAX: usize = 50;

impl Replica {
    /// The layouts of the replicated tables, as they are here now.
    pub(super) fn layouts_here(&self) -> Vec<LayoutId> {
        self.store.tables().iter().filter_map(|table| Some(table.shape.as_ref()?.layout.id)).collect()
    }

    /// Columns that a table has elsewhere and here not yet: a migration has not reached this node.
    pub(super) fn missing_columns(&self, table: &Replicated) -> Vec<String> {
        let used = self.used_elsewhere(table);
        let missing = self.known(table).filter(|known| used.contains(&known.layout.id));
        let missing: BTreeSet<&String> = missing.flat_map(|known| self.lacking(table, known)).collect();
        missing.into_iter().cloned().collect()
    }

    /// The layouts of a table that are known.
    pub(super) fn shown_layouts(&self, table: &Replicated) -> Vec<status::Layout> {
        let own = table.shape.as_ref().map(|shape| shape.layout.id);
        let shown = |known: &KnownLayout| {
            let id = known.layout.id;
            let has = self.members.iter().filter(|member| member.presence.layouts.contains(&id));
            let here = (own == Some(id)).then(|| self.options.name.clone());
            status::Layout {
                layout: id.0.to_string(),
                nodes: here.into_iter().chain(has.map(|member| member.presence.name.clone())).collect(),
                missing_columns: self.lacking(table, known).into_iter().cloned().collect(),
            }
        };
        self.known(table).take(SHOWN_MAX).map(shown).collect()
    }

    fn known(&self, table: &Replicated) -> impl Iterator<Item = &KnownLayout> {
        self.facts.layouts.iter().filter(|known| known.layout.table.eq_ignore_ascii_case(&table.name))
    }

    /// The layouts that other nodes have now, as they say; those that were not heard, as far as the newest events tell.
    fn used_elsewhere(&self, table: &Replicated) -> BTreeSet<LayoutId> {
        let told = self.members.iter().flat_map(|member| member.presence.layouts.iter().copied());
        let at = self.facts.events.iter().position(|(name, _)| *name == table.name);
        let newest = at.and_then(|at| self.facts.newest.get(at)).map(Vec::as_slice).unwrap_or_default();
        let unheard = newest.iter().filter(|(origin, _)| self.members.presence(*origin).is_none());
        told.chain(unheard.map(|(_, layout)| *layout)).collect()
    }

    /// Columns of a layout that the table here does not have, and never had: what it had and has no more, a migration
    /// took away here first.
    fn lacking<'k>(&self, table: &Replicated, known: &'k KnownLayout) -> Vec<&'k String> {
        let Some(shape) = &table.shape else { return Vec::new() };
        let had = |column: &str| self.known(table).any(|known| known.here && known.layout.place(column).is_some());
        let columns = known.layout.columns.iter();
        columns.filter(|column| shape.table.column(column).is_none() && !had(column)).collect()
    }
}
