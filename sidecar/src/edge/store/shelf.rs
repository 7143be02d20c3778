//! Prepared statements at hand within one transaction.
//!
//! rusqlite's own cache keeps statements over transactions, and asks for each use about as much as SQLite asks for a small
//! statement. What is needed for nearly every row is taken from it once a transaction.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use rusqlite::{CachedStatement, Connection, Statement};

/// Statements at hand: a handful for each of some tables. Few: they are compared one by one.
const AT_HAND_MAX: usize = 16;

/// The statements that were used in a transaction. They go back into the cache when it ends.
#[derive(Default)]
pub(super) struct Shelf<'a>(RefCell<Vec<(String, CachedStatement<'a>)>>);

impl<'a> Shelf<'a> {
    /// The statement of that text, for one use.
    pub(super) fn take(&self, connection: &'a Connection, sql: &str) -> rusqlite::Result<AtHand<'_, 'a>> {
        let mut statements = self.0.borrow_mut();
        let known = statements.iter().position(|(text, _)| text == sql);
        let statement = match known {
            Some(at) => statements.swap_remove(at),
            None => (sql.to_owned(), connection.prepare_cached(sql)?),
        };
        Ok(AtHand { shelf: self, statement: Some(statement) })
    }
}

/// A statement in use.
pub(super) struct AtHand<'s, 'a> {
    shelf: &'s Shelf<'a>,
    statement: Option<(String, CachedStatement<'a>)>,
}

impl<'a> Deref for AtHand<'_, 'a> {
    type Target = Statement<'a>;

    fn deref(&self) -> &Statement<'a> {
        &self.statement.as_ref().expect("bug: it goes only when this is dropped").1
    }
}

impl<'a> DerefMut for AtHand<'_, 'a> {
    fn deref_mut(&mut self) -> &mut Statement<'a> {
        &mut self.statement.as_mut().expect("bug: it goes only when this is dropped").1
    }
}

impl Drop for AtHand<'_, '_> {
    fn drop(&mut self) {
        let mut statements = self.shelf.0.borrow_mut();
        if statements.len() < AT_HAND_MAX {
            statements.extend(self.statement.take());
        }
    }
}
