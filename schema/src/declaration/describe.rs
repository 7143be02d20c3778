//! Writes the schema TOML of an existing database, for people: every table that can be replicated, and for every other
//! the reason and the fix as a comment.

use super::check::refusals;
use super::{Capture, Conflict, Declaration, Finding, History, TableDeclaration};
use super::{is_event_table, migrations, one_line, reserved, shown, toml_key, toml_string};
use crate::table::{Kind, Refusal, Table};

/// The widest comment line.
const WIDTH: usize = 100;

/// The schema TOML of a database, and what its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The text of the file. It reads back as a declaration of `included` with the defaults.
    pub toml: String,
    /// The tables that the text declares, in the order of their names.
    pub included: Vec<String>,
    /// The tables that cannot be replicated: one entry for each reason, in the order of their names.
    pub left_out: Vec<(String, Refusal)>,
    /// The tables in which virtual tables keep their data. They are left out with the virtual table.
    pub parts: Vec<String>,
    /// What is worth knowing about the included tables.
    pub warnings: Vec<Finding>,
}

/// Describes a database that has these tables. SQLite's and Rowcast's own are passed over.
///
/// `service` must be without [`service_fault`](super::service_fault), or the text will not read back.
pub fn describe(service: &str, tables: &[Table]) -> Description {
    let mut candidates: Vec<&Table> =
        tables.iter().filter(|table| reserved(&table.name).is_none() && !is_event_table(table)).collect();
    candidates.sort_by_key(|table| (table.name.to_ascii_lowercase(), &table.name));

    let mut body = String::new();
    let (mut included, mut left_out, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for table in candidates {
        if table.kind == Kind::Shadow {
            parts.push(table.name.clone());
            continue;
        }
        let mut refusals = refusals(table, &[], tables);
        if refusals.is_empty() {
            refusals.extend(migrations::stays(table));
        }
        if refusals.is_empty() {
            body.push_str(&format!("\n[tables.{}]\n", toml_key(&table.name)));
            included.push(table.name.clone());
        } else {
            write_left_out(&mut body, &table.name, &refusals);
            left_out.extend(refusals.into_iter().map(|refusal| (table.name.clone(), refusal)));
        }
    }
    if !parts.is_empty() {
        let names: Vec<_> = parts.iter().map(|name| shown(name)).collect();
        body.push_str(&format!("\n# Left out as parts of virtual tables: {}\n", names.join(", ")));
    }
    if included.is_empty() {
        body.push_str("\n# There is no table here that can be replicated yet.\n");
    }
    let warnings = warnings(service, &included, tables);
    let mut toml = head(service);
    write_warnings(&mut toml, &warnings);
    toml.push_str(&body);
    Description { toml, included, left_out, parts, warnings }
}

fn head(service: &str) -> String {
    let service = toml_string(service);
    let (capture, conflict) = (Capture::default().word(), Conflict::default().word());
    let history = History::default();
    format!(
        "# What Rowcast replicates of this service. Ship it with the service: it is the same on every node.
# A table is replicated when it is named here; all others are left alone.
# Every key, with its default and meaning: docs/schema-toml.md

service = {service}

# What holds for each table that does not say otherwise.
[defaults]
capture = \"{capture}\"
conflict = \"{conflict}\"
history = \"{history}\"
"
    )
}

fn warnings(service: &str, included: &[String], tables: &[Table]) -> Vec<Finding> {
    let declared = included.iter().map(|name| TableDeclaration::of(name)).collect();
    let declaration = Declaration { service: service.to_owned(), tables: declared };
    declaration.check(tables)
}

/// Says what several tables have in common once.
fn write_warnings(toml: &mut String, warnings: &[Finding]) {
    let mut groups: Vec<(&Finding, Vec<String>)> = Vec::new();
    for warning in warnings {
        match groups.iter_mut().find(|(first, _)| first.reason == warning.reason && first.fix == warning.fix) {
            Some((_, names)) => names.push(shown(&warning.table)),
            None => groups.push((warning, vec![shown(&warning.table)])),
        }
    }
    if !groups.is_empty() {
        toml.push_str("\n# To know before more than one node writes:\n");
    }
    for (Finding { reason, fix, .. }, names) in groups {
        toml.push_str("#\n");
        write_comment(toml, "", &format!("{}:", names.join(", ")));
        write_comment(toml, "  ", &format!("{reason}."));
        write_comment(toml, "  ", &format!("Fix: {fix}."));
    }
}

fn write_left_out(toml: &mut String, name: &str, refusals: &[Refusal]) {
    toml.push_str(&format!("\n# Left out: {}\n", shown(&toml_key(name))));
    for Refusal { reason, fix } in refusals {
        write_comment(toml, "  ", &format!("{reason}."));
        write_comment(toml, "  ", &format!("Fix: {fix}."));
    }
}

/// Writes `text` as comment lines, broken at spaces.
fn write_comment(toml: &mut String, indent: &str, text: &str) {
    let mut line = format!("# {indent}");
    let mut has_word = false;
    for word in one_line(text).split(' ') {
        if has_word && line.chars().count() + 1 + word.chars().count() > WIDTH {
            toml.push_str(&line);
            toml.push('\n');
            line = format!("# {indent}");
            has_word = false;
        }
        if has_word {
            line.push(' ');
        }
        line.push_str(word);
        has_word = true;
    }
    toml.push_str(line.trim_end());
    toml.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event_table;
    use crate::table::example;

    fn plain(name: &str) -> Table {
        example(name, &["id", "a"], &["id"])
    }

    fn of_kind(name: &str, kind: Kind) -> Table {
        Table { kind, ..plain(name) }
    }

    #[test]
    fn the_schema_toml_of_a_database() {
        let integer_key = |name: &str| {
            let mut table = plain(name);
            table.columns[0].declared_type = "INTEGER".to_owned();
            table
        };
        let tables = [
            integer_key("Track"),
            integer_key("Album"),
            Table { key: Vec::new(), ..plain("audit") },
            Table { sql: "CREATE TABLE \"order lines\" (id, a REFERENCES audit)".to_owned(), ..plain("order lines") },
            plain("Größe \"x\""),
            of_kind("search", Kind::Virtual),
            of_kind("search_data", Kind::Shadow),
            of_kind("search_idx", Kind::Shadow),
            of_kind("newest", Kind::View),
            integer_key("django_migrations"),
            Table { key: Vec::new(), ..plain("evil\n[tables.hidden]\n#") },
            plain("Order"),
            plain("Order_Events"),
            plain("sqlite_sequence"),
            plain("_rowcast_state"),
            example("Track_Events", &event_table::REQUIRED_COLUMNS, &["id"]),
        ];
        let description = describe("music", &tables);
        insta::assert_snapshot!(description.toml);
        assert_eq!(description.included, ["Album", "Größe \"x\"", "order lines", "Order_Events", "Track"]);
        let left_out: Vec<_> = description.left_out.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left_out, ["audit", "django_migrations", "evil\n[tables.hidden]\n#", "newest", "Order", "search"]);
        assert_eq!(description.parts, ["search_data", "search_idx"]);
        let warned: Vec<_> = description.warnings.iter().map(|warning| warning.table.as_str()).collect();
        assert_eq!(warned, ["Album", "order lines", "Track"]);
    }

    #[test]
    fn the_schema_toml_of_an_empty_database() {
        insta::assert_snapshot!(describe("music", &[]).toml);
    }

    /// Names that SQLite allows and that TOML, comments or our own rules could stumble over.
    fn any_name() -> impl Strategy<Value = String> {
        let awkward = [
            "",
            " ",
            "a.b",
            "a b",
            "\"",
            "'",
            "\\",
            "a\nb",
            "\r",
            "\t",
            "\u{0}",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "#",
            "]",
            "[a]",
            "größe",
            "表",
            "service",
            "tables",
            "select",
            "Track",
            "Track_Events",
            "Track_Events_Events",
            "_events",
            "1",
            "-",
            "1.5",
            "true",
            "inf",
            "1979-05-27",
            "\u{feff}",
            "e\u{301}",
            "\u{e9}",
            "🙂",
            "sqlite_stat1",
            "_rowcast_x",
            "\\u0041",
            "\u{10ffff}",
        ];
        prop_oneof![
            prop::sample::select(awkward.to_vec()).prop_map(str::to_owned),
            any::<String>(),
            "[a-z\"'.\\\\ \n]{1,6}"
        ]
    }

    fn any_table() -> impl Strategy<Value = Table> {
        let kind = prop_oneof![
            6 => Just(Kind::Table), 1 => Just(Kind::View), 1 => Just(Kind::Virtual), 1 => Just(Kind::Shadow),
        ];
        let columns = prop_oneof![
            6 => Just(vec!["id".to_owned(), "a".to_owned()]),
            1 => Just(event_table::REQUIRED_COLUMNS.map(str::to_owned).to_vec()),
        ];
        (any_name(), kind, columns, prop::bool::weighted(0.8), any_name()).prop_map(
            |(name, kind, columns, has_key, other)| {
                let columns: Vec<_> = columns.iter().map(String::as_str).collect();
                let mut table = example(&name, &columns, if has_key { &["id"] } else { &[] });
                table.kind = kind;
                table.triggers = vec![other.clone()];
                table.columns[0].collation = if other.len() == 1 { other } else { "BINARY".to_owned() };
                table
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn a_description_reads_back_to_the_same_tables(mut tables in prop::collection::vec(any_table(), 0..8)) {
            let mut seen = std::collections::HashSet::new();
            tables.retain(|table| seen.insert(table.name.to_ascii_lowercase()));
            let description = describe("music", &tables);
            let toml = &description.toml;
            let declaration = Declaration::parse("schema.toml", toml)
                .map_err(|problems| TestCaseError::fail(format!("{problems}\n{toml}")))?;

            let names: Vec<_> = declaration.enabled().map(|table| table.name.clone()).collect();
            prop_assert_eq!(&names, &description.included);
            prop_assert_eq!(declaration.tables.len(), names.len());
            for table in &declaration.tables {
                prop_assert_eq!(table.history, History::default());
            }
            prop_assert_eq!(declaration.check(&tables), description.warnings);
            for table in &tables {
                let told = [
                    names.contains(&table.name),
                    description.left_out.iter().any(|(name, _)| *name == table.name),
                    description.parts.contains(&table.name),
                    reserved(&table.name).is_some() || is_event_table(table),
                ];
                prop_assert_eq!(told.iter().filter(|&&told| told).count(), 1, "{:?} {:?}", &table.name, told);
            }
        }
    }
}
