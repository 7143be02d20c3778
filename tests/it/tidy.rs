//! House rules that a machine can check, as a test, so that nobody can forget to run them.

use std::fs;
use std::path::{Path, PathBuf};

use rowcast_tests::binary::root;

/// The longest file without a reason.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// What may be named where: a crate, and the only place under `sidecar/src` that names it.
const BORDERS: &[(&str, &str)] = &[("rusqlite", "edge/store"), ("async_nats", "edge/bus"), ("axum", "edge/http")];

/// What the pure crate never names.
const OUTSIDE: &[&str] = &[
    "rusqlite",
    "async_nats",
    "axum",
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "SystemTime",
    "Instant::now",
];

/// A source file: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Its lines without comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in ["schema", "sidecar", "tests", "examples"] {
        walk(&root().join(folder), &mut sources);
    }
    assert!(sources.len() > 20, "only {} source files were found", sources.len());
    sources
}

fn walk(folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("target") {
            walk(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path, text });
        }
    }
}

fn none(problems: &[String], rule: &str) {
    assert!(problems.is_empty(), "{rule}:\n{}", problems.join("\n"));
}

#[test]
fn every_source_file_opens_by_saying_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! ")).map(|source| source.path);
    none(&silent.collect::<Vec<_>>(), "a source file opens with `//! ` and says what it owns");
}

#[test]
fn files_can_be_read_in_one_go() {
    let mut problems = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let excused = LONG.iter().any(|(path, _)| *path == source.path);
        if lines > LINES_MAX && !excused {
            problems.push(format!("{} has {lines} lines", source.path));
        } else if excused && lines <= LINES_MAX {
            problems.push(format!("{} needs no excuse any more", source.path));
        }
    }
    none(&problems, "a file has at most 600 lines, or a reason in this test");
}

#[test]
fn only_the_edge_names_the_outside() {
    let mut problems = Vec::new();
    for source in sources() {
        let Some(path) = source.path.strip_prefix("sidecar/src/") else { continue };
        for (name, place) in BORDERS {
            if path.starts_with(place) {
                continue;
            }
            for (number, line) in source.code() {
                if line.contains(name) {
                    problems.push(format!("{}:{number} names {name}, which only {place} may", source.path));
                }
            }
        }
    }
    none(&problems, "borders are folders");
}

#[test]
fn the_schema_crate_is_pure() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("schema/src/")) {
        for (number, line) in source.code() {
            for name in OUTSIDE.iter().filter(|name| line.contains(**name)) {
                problems.push(format!("{}:{number} names {name}", source.path));
            }
        }
    }
    none(&problems, "schema/ knows no clock, disk, network or runtime");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let ignored = format!("#[{}", "ignore");
    let mut problems = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            if marks.iter().chain([&ignored]).any(|mark| line.contains(mark.as_str())) {
                problems.push(format!("{}:{number} {}", source.path, line.trim()));
            }
        }
    }
    none(&problems, "no stub, no test that does not run");
}

/// Folders of which the architecture page says nothing: what a folder within has, the one around it says.
const UNTOLD: &[&str] = &["docs"];

#[test]
fn the_architecture_page_names_every_folder() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let folders = |of: &str| {
        let entries = fs::read_dir(root().join(of)).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.') && !["target", "snapshots"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    };
    let mut problems = Vec::new();
    for around in ["", "sidecar/", "sidecar/src/", "tests/", "examples/"] {
        for name in folders(around) {
            let path = format!("{around}{name}/");
            let short = path.strip_prefix("sidecar/src/").unwrap_or(&path);
            let is_named = named.iter().any(|word| word.starts_with(short) || word.starts_with(&path));
            if !is_named && !UNTOLD.contains(&path.trim_end_matches('/')) {
                problems.push(path);
            }
        }
    }
    none(&problems, "ARCHITECTURE.md says what is in a folder");
}

#[test]
fn the_paths_in_the_architecture_page_exist() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut problems = Vec::new();
    // Every word between backticks that has a slash and no blank is a path, from the root or from sidecar/src.
    for word in page.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/')
            && !word.contains([' ', '<', '*', '{', ':', '\n', '|', '…', '$'])
            && !word.starts_with('/');
        let places = [root().to_owned(), root().join("sidecar/src"), root().join("schema/src")];
        if is_path && !places.iter().any(|place| place.join(word.trim_end_matches('/')).exists()) {
            problems.push(word.to_owned());
        }
    }
    none(&problems, "ARCHITECTURE.md names paths that are not there");
}
