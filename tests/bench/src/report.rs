//! The table for people, `summary.json` and `run.json` for programs, and the table in docs/performance.md.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::figures::{FIGURES, Figure, Goal, Measured};
use crate::groups::GROUPS;
use crate::machine::Machine;

/// The lines of docs/performance.md between which the table stands.
const BEGIN: &str = "<!-- bench: begin, written by `just bench --write-docs` -->";
const END: &str = "<!-- bench: end -->";

/// What a run found.
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// The figures, in the order in which they were measured.
    pub measured: Vec<Measured>,
    /// What was said on the way.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// The table, as Markdown.
    pub fn table(&self) -> String {
        let measured: Vec<Figure> = self.measured.iter().map(|one| *one.figure).collect();
        self.table_of(&measured)
    }

    /// A table of these figures, measured or not.
    fn table_of(&self, figures: &[Figure]) -> String {
        let head = ["figure", "median", "min to max", "floor", "ratio", "goal", ""];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(figures.iter().map(|figure| {
            let measured = self.measured.iter().find(|one| one.figure.name == figure.name);
            measured.map_or_else(|| unmeasured(figure), cells)
        }));
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        rows.insert(1, std::array::from_fn(|at| "-".repeat(widths[at].max(3))));
        let mut text = format!("{}.\n\n", self.machine);
        for row in &rows {
            let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(text, "| {} |", padded.join(" | ")).unwrap();
        }
        text
    }

    /// Writes summary.json, run.json and table.md into a folder.
    pub fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let put = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        put("summary.json", pretty(&self.summary()));
        put("run.json", pretty(&self.run()));
        put("table.md", self.table());
        eprintln!(
            "written: {0}/summary.json, {0}/run.json, {0}/table.md ({1:.0} s)",
            folder.display(),
            self.took.as_secs_f64()
        );
    }

    /// Figure name to number, flat.
    fn summary(&self) -> Json {
        Json::Object(self.measured.iter().map(|one| (one.figure.name.to_owned(), json!(one.value.value))).collect())
    }

    /// Everything: the machine, each figure with its rounds and floor, the notes.
    fn run(&self) -> Json {
        let figures: Map<String, Json> = self.measured.iter().map(|one| {
            let goal = match one.figure.goal {
                Goal::AtMost(goal) => json!({"at_most": goal}),
                Goal::AtLeast(goal) => json!({"at_least": goal}),
                Goal::None => Json::Null,
            };
            let floor = one.floor.as_ref().map(|floor| json!({"value": floor.value, "rounds": floor.rounds}));
            let met = one.figure.goal.met(one.value.value);
            let json = json!({"value": one.value.value, "rounds": one.value.rounds, "floor": floor, "goal": goal, "met": met});
            (one.figure.name.to_owned(), json)
        }).collect();
        json!({"machine": self.machine.json(), "seconds": self.took.as_secs(), "figures": figures, "notes": self.notes})
    }

    /// Puts the table into the document, between its two marks.
    pub fn write_docs(&self, file: &Path) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{} has no line {BEGIN}", file.display()));
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{} has no line {END}", file.display()));
        let (table, meanings) = (self.table_of(FIGURES), meanings());
        std::fs::write(file, format!("{before}{BEGIN}\n\n{table}\n{meanings}\n{END}{after}")).unwrap();
        eprintln!("written: {}", file.display());
    }
}

/// What the figures are, as Markdown.
fn meanings() -> String {
    let line = |figure: &Figure| format!("- `{}`: {}.\n", figure.name, figure.what);
    FIGURES.iter().map(line).collect()
}

/// The figures that a page names between its two marks: the first cells of its table.
///
/// # Errors
/// When the marks are not there.
pub fn documented(page: &str) -> Result<Vec<&str>, String> {
    let table = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (table, _) = table.ok_or_else(|| format!("there is nothing between {BEGIN} and {END}"))?;
    Ok(table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect())
}

fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).expect("bug: values can be written") + "\n"
}

fn unmeasured(figure: &Figure) -> [String; 7] {
    let mut cells: [String; 7] = Default::default();
    cells[0] = format!("`{}`", figure.name);
    cells[1] = "not measured".to_owned();
    cells
}

fn cells(one: &Measured) -> [String; 7] {
    let value = &one.value;
    let goal = match one.figure.goal {
        Goal::AtMost(goal) => format!("≤ {}", number(goal)),
        Goal::AtLeast(goal) => format!("≥ {}", number(goal)),
        Goal::None => String::new(),
    };
    let met = match one.figure.goal {
        Goal::None => "",
        goal if goal.met(value.value) => "met",
        _ => "not met",
    };
    let spread = if value.rounds.len() > 1 {
        format!("{} to {}", number(value.low()), number(value.high()))
    } else {
        String::new()
    };
    let floor = one.floor.as_ref().map_or_else(String::new, |floor| number(floor.value));
    let ratio = one.floor.as_ref().map_or_else(String::new, |floor| number(value.value / floor.value));
    [format!("`{}`", one.figure.name), number(value.value), spread, floor, ratio, goal, met.to_owned()]
}

/// A number with three digits that count; large ones whole, in groups of three.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The groups and their figures.
pub fn list() -> String {
    let mut text = String::new();
    for group in GROUPS {
        let of_group = FIGURES.iter().filter(|figure| figure.group == group.name);
        writeln!(text, "{}: {}\n{}", group.name, group.about, of_group.map(line).collect::<String>()).unwrap();
    }
    text + &FIGURES.iter().filter(|figure| figure.group.is_empty()).map(line).collect::<String>()
}

fn line(figure: &Figure) -> String {
    format!("  {:<38} {}\n", figure.name, figure.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_what_counts() {
        let shown = [0.001_23, 0.5, 1.0, 1.234, 12.34, 123.4, 25_000.0, 1_234_567.8].map(number);
        assert_eq!(shown, ["0.0012", "0.50", "1", "1.23", "12.3", "123", "25,000", "1,234,568"]);
    }

    #[test]
    fn every_figure_has_a_group_that_is_there() {
        for figure in FIGURES.iter().filter(|figure| !figure.group.is_empty()) {
            assert!(GROUPS.iter().any(|group| group.name == figure.group), "{}", figure.name);
        }
        assert!(GROUPS.iter().all(|group| FIGURES.iter().any(|figure| figure.group == group.name)));
    }
}
