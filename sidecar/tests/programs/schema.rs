//! Random schemas: one to three tables with the keys, constraints, generated columns, foreign keys and triggers that
//! services have.

use super::kinds::Kinds;
use super::random::Random;
use super::values;

/// A name as SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What the statements need to know of a column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Unquoted.
    pub(crate) name: String,
    /// The declared type.
    pub(crate) declared: String,
    /// Never written.
    pub(crate) generated: bool,
}

/// What the statements need to know of a table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Unquoted.
    pub(crate) name: String,
    /// All of them; the key's come first.
    pub(crate) columns: Vec<Column>,
    /// How many of them are the key.
    pub(crate) key: usize,
    /// Declared so: then SQLite may go over the rows in the order of any index.
    pub(crate) without_rowid: bool,
    /// What is unique, as the text of an upsert's target.
    pub(crate) targets: Vec<String>,
}

impl Table {
    /// The columns that can be written.
    pub(crate) fn written(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated)
    }

    /// The columns of the key, quoted.
    pub(crate) fn key_names(&self) -> Vec<String> {
        self.columns[..self.key].iter().map(|column| quoted(&column.name)).collect()
    }
}

/// A schema: the statements that make it, and what is in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    /// In order.
    pub(crate) sql: Vec<String>,
    /// What the program writes to. The tables that only triggers write to are not among them.
    pub(crate) tables: Vec<Table>,
    /// All tables, to be declared.
    pub(crate) names: Vec<String>,
    /// Triggers that do nothing, for the database without Rowcast.
    pub(crate) inert: Vec<String>,
    /// What may be made while the program runs.
    pub(crate) later: Vec<(&'static str, String)>,
}

const TABLE_NAMES: &[&str] =
    &["Order", "select", "naïve", "two words", "a\"b", "T.dot", "[br]", "it's", "Ärger", "x-y", "values", "t%_"];

const COLUMN_NAMES: &[&str] = &[
    "group",
    "rowid",
    "held",
    "now",
    "new",
    "old",
    "naïve",
    "two words",
    "q\"q",
    "n",
    "layout",
    "c0",
    "a.b",
    "it's",
    "%s",
    "$k",
];

/// A random schema.
pub(crate) fn generate(random: &mut Random, kinds: &mut Kinds) -> Schema {
    let mut schema = Schema::default();
    for at in 0..1 + random.below(3) {
        let name = if random.chance(1, 3) {
            kinds.hit("table: odd name");
            let name = TABLE_NAMES[(random.below(TABLE_NAMES.len() / 3) * 3 + at) % TABLE_NAMES.len()];
            name.to_owned()
        } else {
            format!("t{at}")
        };
        Maker { random, kinds, schema: &mut schema }.table(name);
    }
    let tables = schema.tables.clone();
    for table in &tables {
        Maker { random, kinds, schema: &mut schema }.triggers(table);
    }
    schema
}

struct Maker<'a> {
    random: &'a mut Random,
    kinds: &'a mut Kinds,
    schema: &'a mut Schema,
}

impl Maker<'_> {
    fn chance(&mut self, part: usize, whole: usize) -> bool {
        self.random.chance(part, whole)
    }

    fn hit(&mut self, kind: &str) {
        self.kinds.hit(kind);
    }

    fn column_name(&mut self, plain: String) -> String {
        if self.chance(1, 5) {
            self.hit("column: odd name");
            let odd = *self.random.pick(COLUMN_NAMES);
            return odd.to_owned();
        }
        plain
    }

    fn table(&mut self, name: String) {
        let strict = self.chance(1, 5);
        let without_rowid = self.chance(1, 4);
        let mut table = Table { name: name.clone(), columns: Vec::new(), key: 0, without_rowid, targets: Vec::new() };
        let mut lines = Vec::new();
        let mut after = Vec::new();
        self.key(&mut table, &mut lines, &mut after, (strict, without_rowid));
        for at in 0..self.random.below(5) {
            self.column(at, &mut table, &mut lines, strict);
        }
        self.composite_unique(&table, &mut after);
        self.foreign_key(&table, &mut after);
        lines.append(&mut after);
        let mut options = Vec::new();
        if without_rowid {
            self.hit("table: WITHOUT ROWID");
            options.push("WITHOUT ROWID");
        }
        if strict {
            self.hit("table: STRICT");
            options.push("STRICT");
        }
        self.schema.sql.push(format!("CREATE TABLE {}({}) {}", quoted(&name), lines.join(", "), options.join(", ")));
        self.indexes(&mut table);
        self.schema.names.push(name);
        self.schema.tables.push(table);
    }

    fn key(
        &mut self,
        table: &mut Table,
        lines: &mut Vec<String>,
        after: &mut Vec<String>,
        (strict, without_rowid): (bool, bool),
    ) {
        let conflict = if self.chance(1, 10) {
            self.hit("key: ON CONFLICT REPLACE");
            " ON CONFLICT REPLACE"
        } else {
            ""
        };
        if self.chance(1, 3) {
            let name = self.column_name("id".into());
            let column = Column { name: name.clone(), declared: "INTEGER".into(), generated: false };
            let words = if without_rowid {
                "PRIMARY KEY"
            } else if conflict.is_empty() && self.chance(1, 4) {
                self.hit("key: INTEGER AUTOINCREMENT");
                "PRIMARY KEY AUTOINCREMENT"
            } else if self.chance(1, 6) {
                self.hit("key: INTEGER DESC, not the rowid");
                "NOT NULL PRIMARY KEY DESC"
            } else {
                self.hit("key: INTEGER, the rowid");
                "PRIMARY KEY"
            };
            lines.push(format!("{} INTEGER {words}{conflict}", quoted(&name)));
            table.columns.push(column);
            table.key = 1;
            return;
        }
        let count = if self.chance(1, 3) { 2 + self.random.below(4) } else { 1 };
        if count > 1 {
            self.hit("key: composite");
        }
        if count == 5 {
            self.hit("key: five columns");
        }
        for at in 0..count {
            let name = if count == 1 { self.column_name("id".into()) } else { format!("k{at}") };
            let types: &[&str] = if strict {
                &["TEXT", "INT", "BLOB", "REAL", "ANY"]
            } else {
                &["TEXT", "INT", "BLOB", "REAL", "", "NUMERIC", "VARCHAR(9)"]
            };
            let declared = *self.random.pick(types);
            if count == 1 {
                self.hit(match declared {
                    "TEXT" | "VARCHAR(9)" => "key: TEXT",
                    "INT" => "key: INT",
                    "BLOB" => "key: BLOB",
                    "REAL" => "key: REAL",
                    "NUMERIC" => "key: NUMERIC",
                    _ => "key: typeless",
                });
            }
            let collate = self.collate("key: NOCASE", "key: RTRIM");
            lines.push(format!("{} {declared} NOT NULL{collate}", quoted(&name)));
            table.columns.push(Column { name, declared: declared.to_owned(), generated: false });
        }
        table.key = count;
        // The order of the key is not always that of the table.
        let mut names = table.key_names();
        if self.chance(1, 2) {
            names.reverse();
        }
        after.push(format!("PRIMARY KEY ({}){conflict}", names.join(", ")));
    }

    fn collate(&mut self, nocase: &str, rtrim: &str) -> &'static str {
        match self.random.below(8) {
            0 => {
                self.hit(nocase);
                " COLLATE NOCASE"
            }
            1 => {
                self.hit(rtrim);
                " COLLATE RTRIM"
            }
            _ => "",
        }
    }

    fn column(&mut self, at: usize, table: &mut Table, lines: &mut Vec<String>, strict: bool) {
        let mut name = self.column_name(format!("c{}", at + 1));
        if table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(&name)) {
            name = format!("c{}", at + 1);
        }
        if self.chance(1, 6) {
            self.generated(name, table, lines, strict);
            return;
        }
        let types: &[&str] = if strict {
            &["TEXT", "INTEGER", "BLOB", "REAL", "ANY"]
        } else {
            &["TEXT", "INTEGER", "BLOB", "REAL", "", "NUMERIC", "BOOLEAN", "DOUBLE"]
        };
        let declared = *self.random.pick(types);
        let mut line = format!("{} {declared}", quoted(&name));
        let default = self.chance(1, 4);
        if self.chance(1, 6) {
            if default && self.chance(1, 2) {
                self.hit("column: NOT NULL ON CONFLICT REPLACE");
                line.push_str(" NOT NULL ON CONFLICT REPLACE");
            } else {
                self.hit("column: NOT NULL");
                line.push_str(" NOT NULL");
            }
        }
        if default {
            self.hit("column: DEFAULT");
            line.push_str(match declared {
                "TEXT" if self.chance(1, 3) => " DEFAULT (lower('D'))",
                "TEXT" => " DEFAULT 'd'",
                "BLOB" => " DEFAULT x'64'",
                _ => " DEFAULT (1 + 1)",
            });
        }
        line.push_str(self.collate("column: NOCASE or RTRIM", "column: NOCASE or RTRIM"));
        if self.chance(1, 10) {
            self.hit("column: CHECK");
            line.push_str(&format!(" CHECK ({} IS NOT 4)", quoted(&name)));
        }
        if self.chance(1, 4) {
            line.push_str(" UNIQUE");
            table.targets.push(quoted(&name));
            match self.random.below(6) {
                0 | 1 => {
                    self.hit("unique: column ON CONFLICT REPLACE");
                    line.push_str(" ON CONFLICT REPLACE");
                }
                2 => {
                    self.hit("unique: column ON CONFLICT, another word");
                    line.push_str(self.random.pick::<&str>(&[
                        " ON CONFLICT IGNORE",
                        " ON CONFLICT FAIL",
                        " ON CONFLICT ROLLBACK",
                    ]));
                }
                _ => self.hit("unique: column"),
            }
        }
        lines.push(line);
        table.columns.push(Column { name, declared: declared.to_owned(), generated: false });
    }

    fn generated(&mut self, name: String, table: &mut Table, lines: &mut Vec<String>, strict: bool) {
        let base = quoted(&self.random.pick(&table.columns).name.clone());
        let (declared, expression) = match self.random.below(if strict { 2 } else { 4 }) {
            0 => ("TEXT", format!("typeof({base})")),
            1 => ("INTEGER", format!("{base} IS NULL")),
            2 => ("", base),
            _ => ("TEXT", format!("{base} || 'g'")),
        };
        let mut line = format!("{} {declared} AS ({expression})", quoted(&name));
        if self.chance(1, 2) {
            self.hit("column: generated, stored");
            line.push_str(" STORED");
        } else {
            self.hit("column: generated, virtual");
        }
        if self.chance(1, 4) {
            self.hit("unique: of a generated column");
            line.push_str(if self.chance(1, 3) { " UNIQUE ON CONFLICT REPLACE" } else { " UNIQUE" });
            table.targets.push(quoted(&name));
        }
        lines.push(line);
        table.columns.push(Column { name, declared: declared.to_owned(), generated: true });
    }

    fn composite_unique(&mut self, table: &Table, after: &mut Vec<String>) {
        if table.columns.len() > table.key + 1 && self.chance(1, 5) {
            self.hit("unique: composite");
            let last = table.columns.len();
            let names = [quoted(&table.columns[last - 1].name), quoted(&table.columns[last - 2].name)];
            let conflict = if self.chance(1, 3) { " ON CONFLICT REPLACE" } else { "" };
            after.push(format!("UNIQUE ({}){conflict}", names.join(", ")));
        }
    }

    fn foreign_key(&mut self, table: &Table, after: &mut Vec<String>) {
        let data: Vec<String> = table.columns[table.key..]
            .iter()
            .filter(|column| !column.generated)
            .map(|column| quoted(&column.name))
            .collect();
        if data.is_empty() || !self.chance(1, 3) {
            return;
        }
        let parents: Vec<Table> =
            self.schema.tables.iter().filter(|parent| parent.key <= data.len()).cloned().collect();
        let to_itself = table.key <= data.len() && self.chance(1, 4);
        let parent = if to_itself {
            self.hit("foreign key: to itself");
            // SQLite (3.40 to 3.53) lets some violations pass in a table that refers to itself, unless it has any trigger.
            for (at, event) in ["BEFORE UPDATE", "AFTER INSERT", "AFTER UPDATE", "AFTER DELETE"].into_iter().enumerate()
            {
                let name = quoted(&format!("inert {} {at}", table.name));
                let on = quoted(&table.name);
                self.schema.inert.push(format!("CREATE TRIGGER {name} {event} ON {on} BEGIN SELECT 1; END"));
            }
            table.clone()
        } else if parents.is_empty() {
            return;
        } else {
            self.random.pick(&parents).clone()
        };
        let (kind, action) = match self.random.below(4) {
            0 => ("foreign key: CASCADE", "ON DELETE CASCADE ON UPDATE CASCADE"),
            1 => ("foreign key: SET NULL", "ON DELETE SET NULL ON UPDATE CASCADE"),
            2 => ("foreign key: SET NULL", "ON DELETE SET NULL ON UPDATE SET NULL"),
            _ => (
                "foreign key: other",
                *self.random.pick(&["ON DELETE SET DEFAULT ON UPDATE CASCADE", "ON DELETE RESTRICT", ""]),
            ),
        };
        self.hit(kind);
        let deferred = if self.chance(1, 3) {
            self.hit("foreign key: deferred");
            " DEFERRABLE INITIALLY DEFERRED"
        } else {
            ""
        };
        after.push(format!(
            "FOREIGN KEY ({}) REFERENCES {}({}) {action}{deferred}",
            data[..parent.key].join(", "),
            quoted(&parent.name),
            parent.key_names().join(", ")
        ));
    }

    fn indexes(&mut self, table: &mut Table) {
        for number in 0..self.random.below(3) {
            let Some((on, target)) = self.index(table) else { continue };
            let sql = format!("CREATE UNIQUE INDEX {} ON {on}", quoted(&format!("{} u{number}", table.name)));
            if self.chance(1, 8) {
                self.schema.later.push(("statement: CREATE UNIQUE INDEX while running", sql));
            } else {
                self.schema.sql.push(sql);
                table.targets.push(target);
            }
        }
    }

    /// What a unique index is on, and the target that an upsert would name.
    fn index(&mut self, table: &Table) -> Option<(String, String)> {
        let data = &table.columns[table.key..];
        if data.is_empty() {
            return None;
        }
        let one = quoted(&self.random.pick(data).name);
        let other = quoted(&self.random.pick(&table.columns).name);
        let name = quoted(&table.name);
        let expressions = [
            format!("lower({one})"),
            format!("abs({one})"),
            format!("{one} || {other}"),
            format!("coalesce({one}, {other})"),
            format!("length({one})"),
            format!("{one} + 0"),
            format!("{other} % 3"),
        ];
        Some(match self.random.below(6) {
            0 => {
                self.hit("unique: partial");
                let with = (*self.random.pick(&["IS NOT NULL", "> 1", "<> 'a'"])).to_owned();
                (format!("{name} ({one}) WHERE {other} {with}"), format!("{one}) WHERE ({other} {with}"))
            }
            1 => {
                self.hit("unique: expression");
                let expression = self.random.pick(&expressions).clone();
                (format!("{name} ({expression})"), expression)
            }
            2 => {
                self.hit("unique: expression");
                let expression = self.random.pick(&expressions).clone();
                (format!("{name} ({other} DESC, {expression})"), format!("{other}, {expression}"))
            }
            3 => {
                self.hit("unique: partial expression");
                let (expression, with) = if self.chance(1, 2) {
                    (format!("json_extract({one}, '$.k')"), format!("json_valid({one})"))
                } else {
                    (format!("abs({one})"), format!("{one} > 0"))
                };
                (format!("{name} ({expression}) WHERE {with}"), format!("{expression}) WHERE ({with}"))
            }
            4 => {
                self.hit("unique: collated");
                let collation = *self.random.pick(&["NOCASE", "RTRIM"]);
                (format!("{name} ({one} COLLATE {collation})"), format!("{one} COLLATE {collation}"))
            }
            _ => {
                self.hit("unique: composite");
                (format!("{name} ({one}, {other})"), format!("{one}, {other}"))
            }
        })
    }

    fn triggers(&mut self, table: &Table) {
        for number in 0..self.random.below(3) {
            if !self.chance(1, 2) {
                continue;
            }
            let (kind, sql) = self.trigger(table, number);
            let Some(sql) = sql else { continue };
            self.hit(kind);
            if self.chance(1, 8) {
                self.schema.later.push(("statement: CREATE TRIGGER while running", sql));
            } else {
                self.schema.sql.push(sql);
            }
        }
    }

    fn side_table(&mut self, name: &str, sql: &str) {
        if !self.schema.names.iter().any(|other| other == name) {
            self.schema.names.push(name.to_owned());
            self.schema.sql.push(sql.to_owned());
        }
    }

    fn trigger(&mut self, table: &Table, number: usize) -> (&'static str, Option<String>) {
        let on = quoted(&table.name);
        let name = quoted(&format!("own {} {number}", table.name));
        let key = quoted(&table.columns[0].name);
        let same: Vec<String> = table.key_names().iter().map(|key| format!("{key} IS NEW.{key}")).collect();
        let same = same.join(" AND ");
        let data: Vec<Column> = table.columns[table.key..].iter().filter(|column| !column.generated).cloned().collect();
        match self.random.below(7) {
            0 => {
                self.side_table("audit", "CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, value)");
                let event = *self.random.pick(&["INSERT", "UPDATE", "DELETE"]);
                let row = if event == "DELETE" { "OLD" } else { "NEW" };
                let body = format!("INSERT INTO audit(what, value) VALUES ('{event}', {row}.{key});");
                ("trigger: audit", Some(format!("CREATE TRIGGER {name} AFTER {event} ON {on} BEGIN {body} END")))
            }
            1 => {
                self.side_table("counter", "CREATE TABLE counter(name TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL)");
                let event = *self.random.pick(&["AFTER INSERT", "AFTER DELETE", "BEFORE DELETE", "BEFORE UPDATE"]);
                let body =
                    "INSERT INTO counter VALUES ('n', 1) ON CONFLICT (name) DO UPDATE SET n = n + 1 WHERE n < 100;";
                ("trigger: counter", Some(format!("CREATE TRIGGER {name} {event} ON {on} BEGIN {body} END")))
            }
            2 => {
                let Some(column) = data.first() else { return ("trigger: touches the row", None) };
                let set = quoted(&column.name);
                let event = *self.random.pick(&["INSERT", "UPDATE"]);
                let value = values::literal(self.random, &column.declared);
                let body = format!("UPDATE {on} SET {set} = {value} WHERE {same};");
                (
                    "trigger: touches the row",
                    Some(format!(
                        "CREATE TRIGGER {name} AFTER {event} ON {on} WHEN NEW.{set} IS NOT {value} BEGIN {body} END"
                    )),
                )
            }
            3 => {
                let value = values::key_literal(self.random, &table.columns[0].declared);
                let body = format!("DELETE FROM {on} WHERE {key} = {value};");
                (
                    "trigger: deletes another row",
                    Some(format!("CREATE TRIGGER {name} AFTER INSERT ON {on} BEGIN {body} END")),
                )
            }
            4 | 5 => self.raising(table, &on, &name),
            _ => {
                self.side_table("seen", "CREATE TABLE seen(a NOT NULL PRIMARY KEY, n INTEGER DEFAULT 0) WITHOUT ROWID");
                let body = format!("INSERT OR IGNORE INTO seen(a) VALUES (typeof(NEW.{key}));");
                (
                    "trigger: BEFORE INSERT writes",
                    Some(format!("CREATE TRIGGER {name} BEFORE INSERT ON {on} BEGIN {body} END")),
                )
            }
        }
    }

    /// A trigger that refuses rows of one key.
    fn raising(&mut self, table: &Table, on: &str, name: &str) -> (&'static str, Option<String>) {
        let key = quoted(&table.columns[0].name);
        let value = values::key_literal(self.random, &table.columns[0].declared);
        let (kind, when, raise) = if self.chance(1, 2) {
            let when = *self.random.pick(&["BEFORE INSERT", "BEFORE UPDATE"]);
            ("trigger: RAISE(IGNORE)", when, "IGNORE".to_owned())
        } else {
            let raise = *self.random.pick(&["ABORT", "FAIL", "ROLLBACK"]);
            ("trigger: RAISE(ABORT)", "AFTER INSERT", format!("{raise}, 'no'"))
        };
        let body = format!("SELECT RAISE({raise});");
        (kind, Some(format!("CREATE TRIGGER {name} {when} ON {on} WHEN NEW.{key} = {value} BEGIN {body} END")))
    }
}
