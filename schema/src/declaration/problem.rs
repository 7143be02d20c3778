//! What is wrong with a schema TOML: all of it together, each with its place in the file.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The path of the key as TOML writes it, `tables.Track.conflict`; empty where the file is not TOML.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// All that is wrong with a file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    problems: Vec<Problem>,
}

impl Problems {
    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }
}

impl std::error::Error for Problems {}

/// One line a problem: `schema.toml:7: tables.Track.conflct: unknown key; did you mean …`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Problem { line, column, path, message }) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            let file = &self.file;
            if path.is_empty() {
                write!(f, "{file}:{line}:{column}: {message}")?;
            } else {
                write!(f, "{file}:{line}: {path}: {message}")?;
            }
        }
        Ok(())
    }
}

/// Gathers problems by their place in the text.
pub(super) struct Collector<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
}

impl<'t> Collector<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        Self { text, line_starts: std::iter::once(0).chain(after_breaks).collect(), problems: Vec::new() }
    }

    pub(super) fn add(&mut self, offset: usize, path: String, message: String) {
        let (line, column) = self.place(offset);
        self.problems.push(Problem { line, column, path, message });
    }

    /// The line of a byte of the text, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// `Err` with everything gathered, if anything was.
    pub(super) fn finish(&mut self, file: &str) -> Result<(), Problems> {
        let mut problems = std::mem::take(&mut self.problems);
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(Problems { file: file.to_owned(), problems })
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = self.text.get(self.line_starts[line - 1]..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}
