//! A mixed random workload on whatever tables a database has: inserts, updates, deletes, upserts, replaces, changed
//! keys, many rows at once, transactions, and savepoints that are rolled back.
//!
//! Writers divide the rows between them: each touches only rows that are its own at the start, and rows that it made.
//! Texts are its own too, so that two writers never claim one unique value. Or they quarrel: all of them write the same
//! rows, make rows with the same keys, and claim the same values.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, params_from_iter};

use crate::random::Random;
use crate::rows::quoted;

/// One writer of several.
pub struct Writer {
    number: usize,
    random: Random,
    counter: usize,
    tables: Vec<Table>,
    own: BTreeMap<String, Vec<Key>>,
    done: usize,
    quarrels: bool,
}

type Key = Vec<Value>;

#[derive(Debug)]
struct Table {
    name: String,
    key: Vec<Column>,
    others: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    name: String,
    declared: String,
    not_null: bool,
}

impl Writer {
    /// The writer `number` of `writers`, on the tables that `connection` has now.
    ///
    /// # Panics
    /// When the database cannot be read.
    pub fn new(seed: u64, number: usize, writers: usize, connection: &Connection, tables: &[String]) -> Self {
        let tables: Vec<Table> = tables.iter().map(|name| Table::read(connection, name)).collect();
        let share = |table: &Table| {
            let keys = table.keys(connection).into_iter().enumerate();
            keys.filter(|(at, _)| at % writers == number).map(|(_, key)| key).collect()
        };
        let own = tables.iter().map(|table| (table.name.clone(), share(table))).collect();
        let random = Random::seeded(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { number, random, counter: 0, tables, own, done: 0, quarrels: false }
    }

    /// The writer `number` of some who all write the same rows, keys and values.
    ///
    /// # Panics
    /// When the database cannot be read.
    pub fn quarrelling(seed: u64, number: usize, connection: &Connection, tables: &[String]) -> Self {
        let mut writer = Self::new(seed, 0, 1, connection, tables);
        writer.random = Random::seeded(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        writer.quarrels = true;
        writer
    }

    /// Counts on; a quarrelling writer takes one of a few numbers, which the others take, too.
    fn count(&mut self) -> usize {
        self.counter += 1;
        if self.quarrels { self.random.below(8) } else { self.counter }
    }

    /// How many statements went through so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// One transaction of one to six statements. What breaks a constraint is left out, as a service would.
    ///
    /// # Panics
    /// When SQLite says no to anything else.
    pub fn transact(&mut self, connection: &Connection) {
        connection.execute_batch("BEGIN IMMEDIATE").expect("a service's BEGIN IMMEDIATE waits, then works");
        for _ in 0..=self.random.below(5) {
            if self.random.chance(1, 8) {
                let before = self.own.clone();
                connection.execute_batch("SAVEPOINT part").unwrap();
                self.statement(connection);
                self.statement(connection);
                connection.execute_batch("ROLLBACK TO part; RELEASE part").unwrap();
                self.own = before;
            } else {
                self.statement(connection);
            }
        }
        connection.execute_batch("COMMIT").expect("a service's COMMIT works");
    }

    fn statement(&mut self, connection: &Connection) {
        let at = self.random.below(self.tables.len());
        // Taken out while the statement is made: it needs the generator, too.
        let table = std::mem::replace(&mut self.tables[at], Table::none());
        match self.random.below(20) {
            0..6 => self.insert(connection, &table, "INSERT"),
            6..13 => self.update(connection, &table),
            13..15 => self.delete(connection, &table),
            15..17 => self.upsert(connection, &table),
            17 => self.replace(connection, &table),
            18 => self.change_key(connection, &table),
            _ => self.update_many(connection, &table),
        }
        self.tables[at] = table;
    }

    fn insert(&mut self, connection: &Connection, table: &Table, verb: &str) {
        let key = self.new_key(table);
        if self.put(connection, table, verb, "", &key) {
            self.own_rows(table).push(key);
        }
    }

    fn upsert(&mut self, connection: &Connection, table: &Table) {
        let (Some(key), Some(column)) = (self.own_key(table), table.others.first()) else { return };
        let name = quoted(&column.name);
        let target: Vec<String> = table.key.iter().map(|column| quoted(&column.name)).collect();
        let end = format!("ON CONFLICT({}) DO UPDATE SET {name} = excluded.{name}", target.join(", "));
        self.put(connection, table, "INSERT", &end, &key);
    }

    fn replace(&mut self, connection: &Connection, table: &Table) {
        if let Some(key) = self.own_key(table) {
            self.put(connection, table, "INSERT OR REPLACE", "", &key);
        }
    }

    fn put(&mut self, connection: &Connection, table: &Table, verb: &str, end: &str, key: &Key) -> bool {
        let columns: Vec<String> = table.key.iter().chain(&table.others).map(|column| quoted(&column.name)).collect();
        let mut cells = key.clone();
        let mut places: Vec<String> = (1..=key.len()).map(|at| format!("?{at}")).collect();
        for column in &table.others {
            let (place, cell) = self.new_cell(column, cells.len() + 1);
            places.push(place);
            cells.push(cell);
        }
        let (name, columns, places) = (quoted(&table.name), columns.join(", "), places.join(", "));
        self.run(connection, &format!("{verb} INTO {name}({columns}) VALUES ({places}) {end}"), cells)
    }

    fn update(&mut self, connection: &Connection, table: &Table) {
        if table.others.is_empty() {
            return;
        }
        let Some(mut cells) = self.own_key(table) else { return };
        let at = self.random.below(table.others.len());
        let (place, cell) = self.new_cell(&table.others[at], cells.len() + 1);
        cells.push(cell);
        let set = format!("SET {} = {place}", quoted(&table.others[at].name));
        self.run(connection, &format!("UPDATE {} {set} WHERE {}", quoted(&table.name), table.where_key(1)), cells);
    }

    fn update_many(&mut self, connection: &Connection, table: &Table) {
        let keys: Vec<Key> = self.own_rows(table).iter().take(10).cloned().collect();
        let Some(column) = table.others.last() else { return };
        // A unique value cannot be set in many rows: that is left out as a broken constraint, whole.
        let (place, cell) = self.new_cell(column, 1);
        let mut cells = vec![cell];
        let mut rows = Vec::new();
        for key in keys {
            rows.push(format!("({})", table.where_key(cells.len() + 1)));
            cells.extend(key);
        }
        if !rows.is_empty() {
            let set = format!("SET {} = {place}", quoted(&column.name));
            self.run(connection, &format!("UPDATE {} {set} WHERE {}", quoted(&table.name), rows.join(" OR ")), cells);
        }
    }

    fn delete(&mut self, connection: &Connection, table: &Table) {
        let Some(key) = self.own_key(table) else { return };
        let sql = format!("DELETE FROM {} WHERE {}", quoted(&table.name), table.where_key(1));
        if self.run(connection, &sql, key.clone()) {
            self.own_rows(table).retain(|own| *own != key);
        }
    }

    fn change_key(&mut self, connection: &Connection, table: &Table) {
        let Some(old) = self.own_key(table) else { return };
        let new = self.new_key(table);
        let set: Vec<String> = table
            .key
            .iter()
            .enumerate()
            .map(|(at, c)| format!("{} = ?{}", quoted(&c.name), old.len() + at + 1))
            .collect();
        let sql = format!("UPDATE {} SET {} WHERE {}", quoted(&table.name), set.join(", "), table.where_key(1));
        if self.run(connection, &sql, old.iter().chain(&new).cloned().collect()) {
            let own = self.own_rows(table);
            own.retain(|key| *key != old);
            own.push(new);
        }
    }

    /// Whether it went through; what breaks a constraint does not.
    fn run(&mut self, connection: &Connection, sql: &str, cells: Vec<Value>) -> bool {
        match connection.execute(sql, params_from_iter(cells)) {
            Ok(_) => {
                self.done += 1;
                true
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => false,
            Err(error) => panic!("writer {}: {error} in: {sql}", self.number),
        }
    }

    fn own_rows(&mut self, table: &Table) -> &mut Vec<Key> {
        self.own.entry(table.name.clone()).or_default()
    }

    fn own_key(&mut self, table: &Table) -> Option<Key> {
        let own = self.own.get(&table.name).filter(|keys| !keys.is_empty())?;
        Some(self.random.pick(own).clone())
    }

    fn new_key(&mut self, table: &Table) -> Key {
        let columns = table.key.iter();
        columns
            .map(|column| {
                let counter = self.count();
                let number = i64::try_from((self.number + 1) * 1_000_000 + counter).unwrap();
                match column.kind() {
                    Kind::Integer => Value::Integer(number),
                    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                    Kind::Real => Value::Real(number as f64 + 0.5),
                    Kind::Blob => Value::Blob(number.to_be_bytes().to_vec()),
                    Kind::Text | Kind::Any => Value::Text(format!("w{}-{counter}", self.number)),
                }
            })
            .collect()
    }

    /// A new cell, and its place in the statement: a parameter, or a cast of one.
    fn new_cell(&mut self, column: &Column, at: usize) -> (String, Value) {
        let place = format!("?{at}");
        if !column.not_null && self.random.chance(1, 10) {
            return (place, Value::Null);
        }
        let (number, counter) = (self.number, self.count());
        let text = format!("w{number}-{counter}");
        match column.kind() {
            Kind::Integer => (place, self.new_integer()),
            Kind::Real => (place, self.new_real()),
            Kind::Blob => (place, Value::Blob([text.as_bytes(), &self.random.bytes(9)].concat())),
            Kind::Text if self.quarrels => (place, Value::Text(text)),
            Kind::Text => {
                let end = ["", "", "\0nul", "'quoted\"", " 🦀 ünï", "\u{301}", "  "];
                if self.random.chance(1, 12) {
                    // Text that is not UTF-8.
                    return (format!("CAST(?{at} AS TEXT)"), Value::Blob([text.as_bytes(), b"\xff\xc3(\0"].concat()));
                }
                (place, Value::Text(text + self.random.pick::<&str>(&end)))
            }
            Kind::Any => {
                let cell = match self.random.below(6) {
                    0 => self.new_integer(),
                    1 => self.new_real(),
                    2 => Value::Blob(text.into_bytes()),
                    3 => Value::Text(format!("00{number}{counter}")),
                    4 => Value::Text(format!("2024-01-{:02} 0{number}:00:{counter}", counter % 28 + 1)),
                    _ => Value::Text(text),
                };
                (place, cell)
            }
        }
    }

    fn new_integer(&mut self) -> Value {
        let odd = [i64::MAX, i64::MIN, (1 << 53) + 1, 0, -1];
        Value::Integer(match self.random.below(8) {
            0 => *self.random.pick(&odd),
            _ => i64::try_from(self.number * 1_000_000 + self.random.below(1_000_000)).unwrap(),
        })
    }

    fn new_real(&mut self) -> Value {
        let odd = [-0.0, 0.1 + 0.2, f64::INFINITY, f64::NEG_INFINITY, 5e-324, f64::MAX, 1.0];
        Value::Real(match self.random.below(4) {
            0 => *self.random.pick(&odd),
            #[expect(clippy::cast_precision_loss, reason = "any double will do")]
            _ => self.random.bits() as f64 / 1e9,
        })
    }
}

impl Table {
    fn none() -> Self {
        Self { name: String::new(), key: Vec::new(), others: Vec::new() }
    }

    fn read(connection: &Connection, name: &str) -> Self {
        // Hidden: 0 for ordinary columns, more for generated ones.
        let sql = "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY pk, cid";
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.query_map([name], |row| {
            let column = Column { name: row.get(0)?, declared: row.get(1)?, not_null: row.get(2)? };
            Ok((row.get::<_, i64>(3)?, column))
        });
        let mut table = Self { name: name.to_owned(), ..Self::none() };
        for column in columns.unwrap() {
            let (place_in_key, column) = column.unwrap();
            if place_in_key > 0 { table.key.push(column) } else { table.others.push(column) }
        }
        assert!(!table.key.is_empty(), "{name} has no key");
        table
    }

    /// The keys of all rows, in an order that is the same on every node. Keys that are not UTF-8 are left alone:
    /// they cannot be bound as text.
    fn keys(&self, connection: &Connection) -> Vec<Key> {
        let columns: Vec<String> = self.key.iter().map(|column| quoted(&column.name)).collect();
        let list = columns.join(", ");
        let mut statement =
            connection.prepare(&format!("SELECT {list} FROM {} ORDER BY {list}", quoted(&self.name))).unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut keys = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            if let Ok(key) = (0..columns.len()).map(|at| row.get(at)).collect() {
                keys.push(key);
            }
        }
        keys
    }

    fn where_key(&self, first: usize) -> String {
        let parts = self.key.iter().enumerate();
        parts
            .map(|(at, column)| format!("{} = ?{}", quoted(&column.name), first + at))
            .collect::<Vec<_>>()
            .join(" AND ")
    }
}

/// What a column is meant to hold.
enum Kind {
    Integer,
    Real,
    Text,
    Blob,
    Any,
}

impl Column {
    fn kind(&self) -> Kind {
        let declared = self.declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        match () {
            () if has("INT") && !has("POINT") => Kind::Integer,
            () if has("CHAR") || has("TEXT") => Kind::Text,
            () if has("REAL") || has("FLOA") || has("DOUB") => Kind::Real,
            () if has("BLOB") => Kind::Blob,
            () => Kind::Any,
        }
    }
}
