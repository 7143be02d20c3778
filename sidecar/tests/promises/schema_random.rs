//! Random migrations, in a random order on each node, between random writes, with random losses: in the end all nodes
//! have the same rows, and those are what the events say.

use std::collections::BTreeMap;

use super::Node;
use super::cluster::{Cells, Cluster};
use super::random::Random;
use super::toml;

const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, n TEXT, old TEXT, gone TEXT, gap TEXT);
     CREATE TABLE other(id TEXT PRIMARY KEY NOT NULL, a TEXT);";

/// What a migration does. Every node does all of them, each in its own order.
#[derive(Clone, Copy, Debug)]
enum Step {
    AddPlain,
    AddWithDefault,
    /// As Django adds one: the default stands in the copying statement alone.
    AddConstant,
    Rename,
    Drop,
    Retype,
    /// As Django makes a column NOT NULL: the copying statement fills it.
    Tighten,
}

const STEPS: [Step; 7] =
    [Step::AddPlain, Step::AddWithDefault, Step::AddConstant, Step::Rename, Step::Drop, Step::Retype, Step::Tighten];

/// The migration as statements, by ALTER TABLE where SQLite can and chance says so, else by rebuilding.
fn migration(step: Step, node: &Node, random: &mut Random) -> String {
    let alter = random.chance(1, 2);
    // As Alembic copies a column of another type; the others copy it as it is.
    let retyped = if alter { "CAST(t.n AS INTEGER)" } else { "n" };
    match step {
        Step::AddPlain if alter => "ALTER TABLE t ADD COLUMN plain TEXT;".into(),
        Step::AddPlain => rebuild(node, |columns| columns.push(("plain TEXT".into(), None))),
        Step::AddWithDefault if alter => "ALTER TABLE t ADD COLUMN def TEXT NOT NULL DEFAULT 'd';".into(),
        Step::AddWithDefault => rebuild(node, |columns| columns.push(("def TEXT NOT NULL DEFAULT 'd'".into(), None))),
        Step::AddConstant => rebuild(node, |columns| columns.push(("con TEXT NOT NULL".into(), Some("'k'".into())))),
        Step::Rename if alter => "ALTER TABLE t RENAME COLUMN old TO new;".into(),
        Step::Rename => rebuild(node, |columns| {
            for (definition, source) in columns.iter_mut().filter(|(definition, _)| definition.starts_with("old ")) {
                *source = Some("old".into());
                *definition = "new TEXT".into();
            }
        }),
        Step::Drop => rebuild(node, |columns| columns.retain(|(definition, _)| !definition.starts_with("gone "))),
        Step::Retype => rebuild(node, |columns| {
            for (definition, source) in columns.iter_mut().filter(|(definition, _)| definition.starts_with("n ")) {
                *source = Some(retyped.into());
                *definition = "n INTEGER".into();
            }
        }),
        Step::Tighten => rebuild(node, |columns| {
            for (definition, source) in columns.iter_mut().filter(|(definition, _)| definition.starts_with("gap ")) {
                *source = Some("coalesce(gap, 'none')".into());
                *definition = "gap TEXT NOT NULL".into();
            }
        }),
    }
}

/// Create, copy, drop, rename: definitions of the new columns, and what each is copied from when not from its own name.
fn rebuild(node: &Node, change: impl FnOnce(&mut Vec<(String, Option<String>)>)) -> String {
    let mut statement =
        node.service.prepare("SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('t')").unwrap();
    let mut columns: Vec<(String, Option<String>)> = statement
        .query_map([], |row| {
            let name: String = row.get(0)?;
            let mut definition = format!("{name} {}", row.get::<_, String>(1)?);
            if row.get(2)? {
                definition.push_str(" NOT NULL");
            }
            if let Some(default) = row.get::<_, Option<String>>(3)? {
                definition.push_str(&format!(" DEFAULT {default}"));
            }
            if row.get(4)? {
                definition.push_str(" PRIMARY KEY");
            }
            Ok((definition, Some(name)))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    change(&mut columns);
    let definitions: Vec<&str> = columns.iter().map(|(definition, _)| definition.as_str()).collect();
    let copied: Vec<(&str, &str)> = columns
        .iter()
        .filter_map(|(definition, source)| Some((definition.split(' ').next().unwrap(), source.as_deref()?)))
        .collect();
    let (into, from): (Vec<&str>, Vec<&str>) = copied.into_iter().unzip();
    format!(
        "CREATE TABLE t_new({}); INSERT INTO t_new({}) SELECT {} FROM t; DROP TABLE t; ALTER TABLE t_new RENAME TO t;",
        definitions.join(", "),
        into.join(", "),
        from.join(", ")
    )
}

/// A write of the service, under the columns that its node has now.
fn write(node: &Node, random: &mut Random) -> String {
    let key = format!("k{}", random.below(8));
    let columns: Vec<String> = node.columns("t").into_iter().filter(|name| name != "id").collect();
    let tight = "SELECT \"notnull\" FROM pragma_table_info('t') WHERE name = 'gap'";
    let tight: bool = node.service.query_row(tight, [], |row| row.get(0)).unwrap();
    let value = |column: &str, random: &mut Random| match column {
        "gap" if !tight && random.chance(1, 2) => "NULL".to_owned(),
        "n" => format!("'{}'", random.below(1000)),
        _ => format!("'v{}'", random.below(1_000_000)),
    };
    match random.below(10) {
        0 => format!("DELETE FROM t WHERE id = '{key}';"),
        1..4 => {
            let values: Vec<String> = columns.iter().map(|column| value(column, random)).collect();
            format!(
                "INSERT INTO t(id, {}) VALUES ('{key}', {}) ON CONFLICT DO NOTHING;",
                columns.join(", "),
                values.join(", ")
            )
        }
        4 => format!(
            "INSERT INTO other VALUES ('{key}', {0}) ON CONFLICT(id) DO UPDATE SET a = {0};",
            value("a", random)
        ),
        _ => {
            let column = random.pick(&columns).clone();
            format!("UPDATE t SET \"{column}\" = {} WHERE id = '{key}';", value(&column, random))
        }
    }
}

fn history(seed: u64) {
    let mut random = Random::seeded(seed);
    let count = 2 + random.below(2);
    let mut cluster = Cluster::ready(count, &toml(&["t", "other"]), TABLE);
    let mut left: Vec<Vec<Step>> = (0..count)
        .map(|_| {
            let mut steps = STEPS.to_vec();
            random.shuffle(&mut steps);
            steps
        })
        .collect();
    for round in 0.. {
        let at = random.below(count);
        let node = &cluster.nodes[at];
        let mut sql = String::new();
        if round > 15
            && random.chance(1, 4)
            && let Some(step) = left[at].pop()
        {
            // Within one transaction with writes before and behind it, or by itself.
            if random.chance(1, 2) {
                sql.push_str(&write(node, &mut random));
            }
            sql.push_str(&migration(step, node, &mut random));
            node.sql(&format!("BEGIN; {sql} COMMIT;"));
            sql.clear();
            for _ in 0..random.below(3) {
                node.sql(&write(node, &mut random));
            }
        }
        node.sql(&write(&cluster.nodes[at], &mut random));
        if random.chance(2, 3) {
            let at = random.below(count);
            let lost = random.below(3);
            cluster.turn(at, || !random.chance(lost, 4));
        }
        if random.chance(1, 12) {
            cluster.nodes[at].start(false); // As after a kill.
        }
        if round > 60 && left.iter().all(Vec::is_empty) {
            break;
        }
    }
    cluster.settle();
    let expected = cluster.nodes[0].rows("t");
    for at in 0..count {
        for table in ["t", "other"] {
            assert_eq!(
                cluster.nodes[at].rows(table),
                cluster.nodes[0].rows(table),
                "seed {seed}, node {at}, `{table}`"
            );
        }
        let fold = folded(cluster.nodes[at].fold("t"));
        if let Some((id, _)) = fold.iter().find(|(id, cells)| expected.get(*id) != Some(cells)) {
            let events = cluster.nodes[at].story("t", id);
            panic!(
                "seed {seed}, node {at}, {id}: the row is {:?}\nthe events say {:?}\n{events}",
                expected.get(id),
                fold[id]
            );
        }
        assert_eq!(fold.len(), expected.len(), "seed {seed}, node {at}: rows that no event knows");
    }
}

/// What the events say, as the last layout keeps it.
fn folded(fold: BTreeMap<String, Cells>) -> BTreeMap<String, Cells> {
    let kept = |mut cells: Cells| {
        let mut kept = Cells::new();
        for (column, default) in [
            ("id", "null"),
            ("a", "null"),
            ("n", "null"),
            ("new", "null"),
            ("plain", "null"),
            ("def", "\"d\""),
            ("con", "null"),
            ("gap", "\"none\""),
        ] {
            let mut cell = cells.remove(column).unwrap_or_else(|| default.to_owned());
            if column == "n" {
                cell = cell.trim_matches('"').to_owned();
            }
            kept.insert(column.to_owned(), cell);
        }
        kept
    };
    fold.into_iter().map(|(id, cells)| (id, kept(cells))).collect()
}

/// I4, over every order of migrations.
#[test]
fn migrations_in_any_order_on_each_node_end_with_the_same_rows_and_those_are_what_the_events_say() {
    let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let first = number("ROWCAST_SEED", 1);
    let seeds = number("ROWCAST_SEEDS", 6);
    for seed in first..first + seeds {
        history(seed);
    }
}
