//! Rows of the service, within a transaction: read, written, deleted; and who holds a UNIQUE value.

use rowcast_schema::value::Value;
use rusqlite::{ErrorCode, OptionalExtension as _, Row, ffi, params_from_iter};

use super::cell::{self, Bound};
use super::error::{Doing as _, Error};
use super::replicated::{Firing, Holders, Shape};
use super::tx::Tx;
use crate::limits;

/// What became of an upsert.
#[derive(Debug)]
pub enum Written {
    /// The row stands.
    Done,
    /// Other rows hold what it claims of a UNIQUE index: their keys.
    Claimed(Vec<Vec<Value>>),
    /// The table's own rules forbid it: SQLite's words.
    Refused(String),
}

/// What a value takes of memory, beside its place.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
    }
}

impl Tx<'_> {
    /// The row with that key, in the order of the layout.
    pub fn row(&self, shape: &Shape, key: &[Value]) -> Result<Option<Vec<Value>>, Error> {
        self.connection
            .prepare_cached(&shape.row)
            .and_then(|mut statement| {
                statement.query_row(params_from_iter(key.iter().map(Bound)), |row| cells(row, shape)).optional()
            })
            .doing_with(|| format!("read a row of `{}`", shape.table.name))
    }

    /// Rows after `key` in key order, `None` begins at the start: at most `limit`, and no more than fit into memory. Answers also
    /// whether there may be more.
    pub fn rows_after(
        &self,
        shape: &Shape,
        key: Option<&[Value]>,
        limit: usize,
    ) -> Result<(Vec<Vec<Value>>, bool), Error> {
        let doing = || format!("read the rows of `{}`", shape.table.name);
        let sql = if key.is_some() { &shape.scan_after } else { &shape.scan };
        let mut statement = self.connection.prepare_cached(sql).doing_with(doing)?;
        let mut rows =
            statement.query(params_from_iter(key.unwrap_or_default().iter().map(Bound))).doing_with(doing)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < limit && bytes < limits::READ_BYTES_MAX {
            let Some(row) = rows.next().doing_with(doing)? else { return Ok((found, false)) };
            let row = cells(row, shape).doing_with(doing)?;
            bytes += row.iter().map(bytes_of).sum::<usize>();
            found.push(row);
        }
        Ok((found, true))
    }

    /// Makes the row what `cells` say, under the table's own layout.
    pub fn upsert(&self, shape: &Shape, cells: &[Value]) -> Result<Written, Error> {
        self.put(shape, &shape.upsert, cells.iter(), cells)
    }

    /// Makes the columns that are given what they say, and leaves the others. A row that is new gets their defaults.
    pub fn upsert_some(&self, shape: &Shape, cells: &[Option<Value>]) -> Result<Written, Error> {
        let key: Option<Vec<Value>> = shape.layout.key.iter().map(|&at| cells[at].clone()).collect();
        let held = key.map(|key| self.row(shape, &key)).transpose()?.flatten();
        let others = held.as_ref().unwrap_or(&shape.defaults);
        let whole: Vec<Value> =
            cells.iter().zip(others).map(|(cell, other)| cell.as_ref().unwrap_or(other).clone()).collect();
        if held.is_some() {
            // As a whole: a column that may not be NULL and has no default fails even where the row is only updated.
            return self.upsert(shape, &whole);
        }
        let given = || shape.layout.columns.iter().zip(cells).filter_map(|(name, cell)| Some((name, cell.as_ref()?)));
        let columns: Vec<String> = given().map(|(name, _)| name.clone()).collect();
        self.put(shape, &shape.upsert_of(&columns), given().map(|(_, cell)| cell), &whole)
    }

    /// Makes the columns that `told` says nothing of their defaults, where these are the same at any time. Answers whether the
    /// row has them now.
    pub fn empty_untold(&self, shape: &Shape, key: &[Value], told: &[Option<Value>]) -> Result<Written, Error> {
        let Some(row) = self.row(shape, key)? else { return Ok(Written::Done) };
        let stale =
            |at: usize| told[at].is_none() && row[at] != shape.defaults[at] && !shape.has_default_of_its_moment(at);
        if !(0..row.len()).any(stale) {
            return Ok(Written::Done);
        }
        let whole: Vec<Value> = row
            .iter()
            .enumerate()
            .map(|(at, held)| if stale(at) { &shape.defaults[at] } else { held }.clone())
            .collect();
        self.upsert(shape, &whole)
    }

    fn put<'v>(
        &self,
        shape: &Shape,
        sql: &str,
        bound: impl Iterator<Item = &'v Value>,
        whole: &[Value],
    ) -> Result<Written, Error> {
        let result = shape
            .triggers
            .set(self.connection)
            .and_then(|()| self.statement(sql))
            .and_then(|mut statement| statement.execute(params_from_iter(bound.map(Bound))));
        match result {
            Ok(_) => Ok(Written::Done),
            Err(rusqlite::Error::SqliteFailure(failure, message)) if failure.code == ErrorCode::ConstraintViolation => {
                let words = message.unwrap_or_else(|| failure.to_string());
                if failure.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE {
                    let holders = self.holders(shape, whole)?;
                    if !holders.is_empty() {
                        return Ok(Written::Claimed(holders));
                    }
                }
                Ok(Written::Refused(words))
            }
            Err(error) if is_about_the_row(&error) => Ok(Written::Refused(error.to_string())),
            Err(source) => Err(Error::Sqlite { doing: format!("write a row of `{}`", shape.table.name), source }),
        }
    }

    /// The keys of other rows that hold what `cells` claim of any UNIQUE index.
    fn holders(&self, shape: &Shape, cells: &[Value]) -> Result<Vec<Vec<Value>>, Error> {
        let own = shape.record_id(cells);
        let mut holders: Vec<Vec<Value>> = Vec::new();
        for unique in &shape.holders {
            let found = match unique {
                Holders::Query(sql) => self.keys(shape, sql, cells),
                Holders::Probe(sql) => self.probe(shape, sql, cells),
            };
            for key in found.doing_with(|| format!("find who holds a UNIQUE value of `{}`", shape.table.name))? {
                if shape.record_id_of_key(&key) != own && !holders.contains(&key) {
                    holders.push(key);
                }
            }
        }
        Ok(holders)
    }

    fn keys(&self, shape: &Shape, sql: &str, cells: &[Value]) -> rusqlite::Result<Vec<Vec<Value>>> {
        let width = shape.layout.key.len();
        let mut statement = self.connection.prepare_cached(sql)?;
        let bound = cells.iter().take(statement.parameter_count()).map(Bound);
        let mut rows = statement.query(params_from_iter(bound))?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push((0..width).map(|at| row.get_ref(at).map(cell::read)).collect::<rusqlite::Result<_>>()?);
        }
        Ok(keys)
    }

    /// Runs a statement that writes, for what it answers alone. What another constraint is in the way of answers
    /// nothing: the one that holds that is found by its own statement, and then it is asked again.
    fn probe(&self, shape: &Shape, sql: &str, cells: &[Value]) -> rusqlite::Result<Vec<Vec<Value>>> {
        if shape.triggers == Firing::On {
            Firing::Off.set(self.connection)?; // What is rolled back is nobody's business.
        }
        self.connection.execute_batch("SAVEPOINT _rowcast_probe")?;
        let own = shape.key_of(cells);
        let found = self
            .connection
            .prepare_cached(&shape.delete)
            .and_then(|mut statement| statement.execute(params_from_iter(own.iter().map(Bound))))
            .and_then(|_| self.keys(shape, sql, cells));
        self.connection.execute_batch("ROLLBACK TO _rowcast_probe; RELEASE _rowcast_probe")?;
        match found {
            // What cannot be computed for this row is refused when it is written, or is not in the index.
            Err(error)
                if is_about_the_row(&error) || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
            {
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// Deletes the row with that key, if there is one.
    pub fn delete(&self, shape: &Shape, key: &[Value]) -> Result<(), Error> {
        shape
            .triggers
            .set(self.connection)
            .and_then(|()| self.connection.prepare_cached(&shape.delete))
            .and_then(|mut statement| statement.execute(params_from_iter(key.iter().map(Bound))))
            .doing_with(|| format!("delete a row of `{}`", shape.table.name))
            .map(drop)
    }
}

/// A generated column, a CHECK or an index that cannot be computed for this row is SQLITE_ERROR: about the row, since the
/// statement itself was proved when the table was looked at.
fn is_about_the_row(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::Unknown))
}

fn cells(row: &Row<'_>, shape: &Shape) -> rusqlite::Result<Vec<Value>> {
    (0..shape.layout.columns.len()).map(|at| row.get_ref(at).map(cell::read)).collect()
}
