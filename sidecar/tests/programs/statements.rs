//! Random statements over a schema: every way in which SQLite lets a service write.

use super::kinds::Kinds;
use super::random::Random;
use super::schema::{Column, Schema, Table, quoted};
use super::values;

/// What a program does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The service runs a statement.
    Sql(String),
    /// The sidecar works: at most so many pieces of work, or until there is nothing to do.
    Ingest(Option<usize>),
}

/// The steps of a program. Rowcast comes in where the second list begins: what is before it was there already.
pub(crate) fn generate(random: &mut Random, kinds: &mut Kinds, schema: &Schema) -> (Vec<Step>, Vec<Step>) {
    let mut before = Vec::new();
    for _ in 0..random.below(4) {
        let statement = Writer { random, kinds, schema }.insert();
        before.push(Step::Sql(statement));
    }
    let mut steps = Vec::new();
    for (pragma, kind) in
        [("recursive_triggers", "pragma: recursive_triggers on"), ("foreign_keys", "pragma: foreign_keys on")]
    {
        if random.chance(1, 2) {
            kinds.hit(kind);
            steps.push(Step::Sql(format!("PRAGMA {pragma} = on")));
        }
    }
    let mut later = schema.later.clone();
    for _ in 0..4 + random.below(12) {
        if random.chance(1, 4) {
            let bits = random.chance(1, 3).then(|| 1 + random.below(3));
            kinds.hit(if bits.is_some() { "run: ingested in bits" } else { "run: ingested in the middle" });
            steps.push(Step::Ingest(bits));
        }
        if random.chance(1, 3) {
            transaction(random, kinds, schema, &mut steps);
        } else if random.chance(1, 30) {
            kinds.hit("statement: VACUUM");
            steps.push(Step::Sql("VACUUM".into()));
        } else if !later.is_empty() && random.chance(1, 3) {
            let (kind, sql) = later.remove(0);
            kinds.hit(kind);
            steps.push(Step::Sql(sql));
        } else {
            steps.extend(Writer { random, kinds, schema }.statements().into_iter().map(Step::Sql));
        }
    }
    (before, steps)
}

fn transaction(random: &mut Random, kinds: &mut Kinds, schema: &Schema, steps: &mut Vec<Step>) {
    let mut sql = |text: &str| steps.push(Step::Sql(text.to_owned()));
    sql(random.pick::<&str>(&["BEGIN IMMEDIATE", "BEGIN", "BEGIN EXCLUSIVE"]));
    let mut open = 0;
    for _ in 0..1 + random.below(5) {
        match random.below(8) {
            0 => {
                open += 1;
                sql(&format!("SAVEPOINT s{open}"));
            }
            1 if open > 0 => {
                kinds.hit("statement: ROLLBACK TO");
                sql(&format!("ROLLBACK TO s{}", 1 + random.below(open)));
            }
            2 if open > 0 => {
                kinds.hit("statement: RELEASE");
                sql(&format!("RELEASE s{open}"));
                open -= 1;
            }
            _ => Writer { random, kinds, schema }.statements().iter().for_each(|text| sql(text)),
        }
    }
    if random.chance(1, 4) {
        kinds.hit("statement: ROLLBACK");
        sql("ROLLBACK");
    } else {
        kinds.hit("statement: COMMIT");
        sql("COMMIT");
        // A deferred foreign key may have refused it.
        sql("ROLLBACK");
    }
}

struct Writer<'a> {
    random: &'a mut Random,
    kinds: &'a mut Kinds,
    schema: &'a Schema,
}

impl Writer<'_> {
    fn hit(&mut self, kind: &str) {
        self.kinds.hit(kind);
    }

    fn table(&mut self) -> Table {
        self.random.pick(&self.schema.tables).clone()
    }

    fn statements(&mut self) -> Vec<String> {
        match self.random.below(20) {
            0..=8 => vec![self.insert()],
            9..=14 => vec![self.update()],
            15..=17 => vec![self.delete()],
            18 => self.key_swap(),
            _ => vec![self.insert(), self.delete(), self.insert()],
        }
    }

    fn or(&mut self) -> String {
        if self.random.chance(1, 2) {
            return String::new();
        }
        let word =
            *self.random.pick(&["REPLACE", "REPLACE", "REPLACE", "IGNORE", "IGNORE", "FAIL", "ABORT", "ROLLBACK"]);
        self.hit(&format!("statement: OR {word}"));
        format!(" OR {word}")
    }

    fn value(&mut self, column: &Column) -> String {
        values::literal(self.random, &column.declared)
    }

    fn row(&mut self, table: &Table, columns: &[Column]) -> String {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| {
                let in_key = table.columns[..table.key].iter().any(|key| key.name == column.name);
                if in_key { values::key_literal(self.random, &column.declared) } else { self.value(column) }
            })
            .collect();
        format!("({})", cells.join(", "))
    }

    fn insert(&mut self) -> String {
        let table = self.table();
        let into = quoted(&table.name);
        let mut columns: Vec<Column> = table.written().cloned().collect();
        if columns.len() > 1 && self.random.chance(1, 6) {
            let at = self.random.below(columns.len());
            columns.remove(at);
        }
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let names = names.join(", ");
        if self.random.chance(1, 40) {
            self.hit("statement: INSERT DEFAULT VALUES");
            return format!("INSERT{} INTO {into} DEFAULT VALUES", self.or());
        }
        let rows = if self.random.chance(1, 3) { 2 + self.random.below(4) } else { 1 };
        let rows: Vec<String> = (0..rows).map(|_| self.row(&table, &columns)).collect();
        let rows = rows.join(", ");
        let mut sql = match self.random.below(10) {
            0 => {
                self.hit("statement: REPLACE");
                format!("REPLACE INTO {into} ({names}) VALUES {rows}")
            }
            1 => {
                self.hit("statement: INSERT SELECT");
                let or = self.or();
                let select = self.select(&columns);
                format!("INSERT{or} INTO {into} ({names}) {select}")
            }
            2 => {
                self.hit("statement: INSERT with CTE");
                format!(
                    "WITH given AS (VALUES {rows}) INSERT{} INTO {into} ({names}) SELECT * FROM given WHERE 1",
                    self.or()
                )
            }
            3 | 4 => {
                let upsert = self.upsert(&table);
                format!("INSERT INTO {into} ({names}) VALUES {rows} {upsert}")
            }
            _ => {
                self.hit(if rows.contains("), (") { "statement: INSERT of several rows" } else { "statement: INSERT" });
                format!("INSERT{} INTO {into} ({names}) VALUES {rows}", self.or())
            }
        };
        self.returning(&table, &mut sql);
        sql
    }

    /// As many columns as are to be filled, from any table, in an order that both databases have.
    fn select(&mut self, columns: &[Column]) -> String {
        let from = self.table();
        let cells: Vec<String> = columns
            .iter()
            .map(|column| {
                if self.random.chance(1, 2) {
                    self.value(column)
                } else {
                    quoted(&self.random.pick(&from.columns).name)
                }
            })
            .collect();
        format!(
            "SELECT {} FROM {} ORDER BY {} LIMIT 4",
            cells.join(", "),
            quoted(&from.name),
            from.key_names().join(", ")
        )
    }

    fn upsert(&mut self, table: &Table) -> String {
        let mut targets = vec![table.key_names().join(", ")];
        targets.extend(table.targets.iter().cloned());
        let target = self.random.pick(&targets).clone();
        // A partial index is named with its condition, which stands behind the parenthesis.
        let target = match target.split_once(") WHERE (") {
            Some((terms, with)) => format!("({terms}) WHERE {with}"),
            None => format!("({target})"),
        };
        if self.random.chance(1, 3) {
            self.hit("statement: UPSERT DO NOTHING");
            let target = if self.random.chance(1, 2) { target } else { String::new() };
            return format!("ON CONFLICT {target} DO NOTHING");
        }
        self.hit("statement: UPSERT DO UPDATE");
        let assignments = self.assignments(table, true);
        let condition = if self.random.chance(1, 4) {
            let column = quoted(&self.random.pick(&table.columns).name);
            format!(" WHERE excluded.{column} IS NOT NULL")
        } else {
            String::new()
        };
        format!("ON CONFLICT {target} DO UPDATE SET {assignments}{condition}")
    }

    fn assignments(&mut self, table: &Table, upsert: bool) -> String {
        let columns: Vec<Column> = table.written().cloned().collect();
        let count = 1 + self.random.below(columns.len().min(3));
        let first = self.random.below(columns.len());
        let chosen: Vec<Column> = columns.iter().cycle().skip(first).take(count).cloned().collect();
        let mut set = Vec::new();
        for column in &chosen {
            if table.columns[..table.key].iter().any(|key| key.name == column.name) {
                self.hit("statement: UPDATE of the key");
            }
            let value = if upsert && self.random.chance(1, 2) {
                format!("excluded.{}", quoted(&self.random.pick(&table.columns).name))
            } else {
                self.expression(table, column)
            };
            set.push(format!("{} = {value}", quoted(&column.name)));
        }
        set.join(", ")
    }

    fn expression(&mut self, table: &Table, column: &Column) -> String {
        let own = quoted(&column.name);
        match self.random.below(10) {
            0 => {
                self.hit("statement: UPDATE to the same");
                own
            }
            1 => format!("{own} + 1"),
            2 => format!("substr({own} || 'x', -4)"),
            3 => format!("-{own}"),
            4 => format!("upper({own})"),
            5 => quoted(&self.random.pick(&table.columns).name),
            6 => format!("(SELECT max({own}) FROM {})", quoted(&table.name)),
            _ => self.value(column),
        }
    }

    fn condition(&mut self, table: &Table) -> String {
        let column = self.random.pick(&table.columns).clone();
        let name = quoted(&column.name);
        match self.random.below(6) {
            0 => format!("{name} IS NOT NULL"),
            1 => format!("typeof({name}) = 'text'"),
            2 => {
                let value = self.value(&column);
                format!("{name} > {value}")
            }
            3 => format!("length({name}) < 2"),
            _ => {
                let key = table.columns[0].clone();
                let value = values::key_literal(self.random, &key.declared);
                format!("{} = {value}", quoted(&key.name))
            }
        }
    }

    fn update(&mut self) -> String {
        let table = self.table();
        let or = self.or();
        let set = self.assignments(&table, false);
        let name = quoted(&table.name);
        let mut sql = match self.random.below(8) {
            _ if table.without_rowid && !or.is_empty() => {
                self.hit("statement: UPDATE");
                let keys = table.key_names().join(", ");
                format!(
                    "UPDATE{or} {name} SET {set} WHERE ({keys}) = (SELECT {keys} FROM {name} ORDER BY {keys} LIMIT 1)"
                )
            }
            0 | 1 => {
                self.hit("statement: UPDATE of all rows");
                format!("UPDATE{or} {name} NOT INDEXED SET {set}")
            }
            2 => {
                self.hit("statement: UPDATE FROM");
                let column = table.written().last().cloned().unwrap_or_else(|| table.columns[0].clone());
                let key = values::key_literal(self.random, &table.columns[0].declared);
                let value = self.value(&column);
                format!(
                    "UPDATE{or} {name} NOT INDEXED SET {} = given.column2 FROM (VALUES ({key}, {value})) AS given WHERE {name}.{} = given.column1",
                    quoted(&column.name),
                    quoted(&table.columns[0].name)
                )
            }
            _ => {
                self.hit("statement: UPDATE");
                let condition = self.condition(&table);
                // The order of the rows decides who is in whose way, and SQLite takes another where there are triggers.
                format!("UPDATE{or} {name} NOT INDEXED SET {set} WHERE {condition}")
            }
        };
        self.returning(&table, &mut sql);
        sql
    }

    fn delete(&mut self) -> String {
        let table = self.table();
        let name = quoted(&table.name);
        let mut sql = match self.random.below(6) {
            0 => {
                self.hit("statement: DELETE of everything");
                format!("DELETE FROM {name}")
            }
            1 => {
                self.hit("statement: DELETE with CTE");
                let keys = table.key_names().join(", ");
                format!(
                    "WITH gone AS (SELECT {keys} FROM {name} ORDER BY {keys} LIMIT 2) DELETE FROM {name} WHERE ({keys}) IN gone"
                )
            }
            _ => {
                self.hit("statement: DELETE");
                let condition = self.condition(&table);
                format!("DELETE FROM {name} NOT INDEXED WHERE {condition}")
            }
        };
        self.returning(&table, &mut sql);
        sql
    }

    /// Two keys change places by way of a third.
    fn key_swap(&mut self) -> Vec<String> {
        self.hit("statement: key swap");
        let table = self.table();
        let (name, key) = (quoted(&table.name), table.columns[0].clone());
        let column = quoted(&key.name);
        let [one, other] = [0, 1].map(|_| values::key_literal(self.random, &key.declared));
        let third = if key.declared.starts_with("INT") { "777" } else { "'third'" };
        [(one.as_str(), third), (other.as_str(), one.as_str()), (third, other.as_str())]
            .map(|(from, to)| format!("UPDATE {name} SET {column} = {to} WHERE {column} = {from}"))
            .to_vec()
    }

    fn returning(&mut self, table: &Table, sql: &mut String) {
        if self.random.chance(1, 8) {
            self.hit("statement: RETURNING");
            let column = quoted(&self.random.pick(&table.columns).name);
            sql.push_str(&format!(" RETURNING *, typeof({column})"));
        }
    }
}
