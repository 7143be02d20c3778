//! `rowcast check`: everything that can be known to be wrong before a sidecar runs, and what to do about it.

use std::path::Path;

use clap::Args;
use rowcast_schema::declaration::{Declaration, Finding, Severity};

use super::arguments::NodeConfig;
use super::init::plural;
use super::{Error, WRONG, error, outside, print, schema};
use crate::config::{self, Config, Environment, Secret};
use crate::edge::http;

/// Check config, schema TOML, database and NATS: what is wrong, and what to do.
///
/// Nothing is changed. Exit code 2 when there is a problem; warnings alone are no problem.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: NodeConfig,
}

/// How much a line of the report matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Ok,
    Warning,
    Problem,
}

/// One line of the report.
#[derive(Debug)]
struct Line {
    weight: Weight,
    /// What was looked at.
    what: &'static str,
    text: String,
    fix: Option<String>,
}

/// The report, as it grows.
#[derive(Debug, Default)]
struct Report(Vec<Line>);

impl Report {
    fn add(&mut self, weight: Weight, what: &'static str, text: impl Into<String>) {
        self.0.push(Line { weight, what, text: text.into(), fix: None });
    }

    fn add_with_fix(&mut self, weight: Weight, what: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Line { weight, what, text: text.into(), fix: Some(fix.into()) });
    }

    /// A failure whose own words may run over several lines, as a list of problems does.
    fn fail(&mut self, what: &'static str, failure: &Error) {
        let text = error::chain(failure);
        match failure.hint() {
            Some(hint) => self.add_with_fix(Weight::Problem, what, text, hint),
            None => self.add(Weight::Problem, what, text),
        }
    }

    fn count(&self, weight: Weight) -> usize {
        self.0.iter().filter(|line| line.weight == weight).count()
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for Line { weight, what, text: found, fix } in &self.0 {
            let weight = match weight {
                Weight::Ok => "ok",
                Weight::Warning => "warning",
                Weight::Problem => "problem",
            };
            text.push_str(&format!("{weight:<9}{what:<10}{found}\n"));
            text.extend(fix.iter().map(|fix| format!("{:<19}-> {fix}\n", "")));
        }
        let (problems, warnings) = (self.count(Weight::Problem), self.count(Weight::Warning));
        let (some, more) = (plural(problems, "problem"), plural(warnings, "warning"));
        text.push_str(&format!("\n{problems} {some}, {warnings} {more}\n"));
        text
    }
}

pub(super) async fn check(arguments: Arguments, environment: Environment) -> Result<u8, Error> {
    let mut report = Report::default();
    match arguments.config.sources(environment).load() {
        Ok(config) => everything(&config, &mut report).await,
        Err(error) => refuse_config(error, &mut report),
    }
    print(&report.to_text())?;
    Ok(if report.count(Weight::Problem) == 0 { 0 } else { WRONG })
}

fn refuse_config(error: config::Error, report: &mut Report) {
    if error.problems().is_empty() {
        report.fail("config", &Error::Config(error));
    } else {
        error.problems().iter().for_each(|problem| report.add(Weight::Problem, "config", problem.to_string()));
    }
    report.add_with_fix(
        Weight::Warning,
        "the rest",
        "schema, database and NATS were not looked at",
        "mend the config, then check again",
    );
}

async fn everything(config: &Config, report: &mut Report) {
    report.add(Weight::Ok, "config", format!("node {}, HTTP at {}", config.node, config.http));
    config.warnings.iter().for_each(|warning| report.add(Weight::Warning, "config", warning));
    for file in config.nats.login.files() {
        if let Err(error) = Secret::read(file) {
            report.add(Weight::Problem, "config", error::chain(&error));
        }
    }
    match schema::load(&config.schema) {
        Ok(declaration) => {
            let tables = declaration.enabled().count();
            let text = format!("service {}, {tables} {} to replicate", declaration.service, plural(tables, "table"));
            report.add(Weight::Ok, "schema", text);
            database(&config.database, Some(&declaration), report).await;
        }
        Err(error) => {
            report.fail("schema", &error);
            database(&config.database, None, report).await;
        }
    }
    match outside::probe(config).await {
        Ok(()) => report.add(Weight::Ok, "nats", config.nats.servers.join(", ")),
        Err(error) => nats(config, &*error, report),
    }
    listener(config, report).await;
}

async fn database(path: &Path, declaration: Option<&Declaration>, report: &mut Report) {
    let name = path.display();
    if !path.exists() {
        let text = format!("there is no file {name} yet: right for a new node, which gets it from the others");
        report.add_with_fix(Weight::Warning, "database", text, "if there should be one, check the path");
        return;
    }
    let tables = match outside::tables(path).await {
        Ok(tables) => tables,
        Err(error) => return report.fail("database", &error),
    };
    report.add(Weight::Ok, "database", format!("{name} can be read"));
    let Some(declaration) = declaration else { return };
    // A database that has none of them is that of a node that is about to get everything from another.
    let begun = tables.iter().any(|table| declaration.table(&table.name).is_some());
    for Finding { table, severity, reason, fix } in declaration.check(&tables) {
        let weight = match severity {
            Severity::Refused => Weight::Problem,
            Severity::Missing if begun => Weight::Problem,
            Severity::Missing | Severity::Warning => Weight::Warning,
        };
        report.add_with_fix(weight, "table", format!("{}: {reason}", table.escape_debug()), fix);
    }
}

fn nats(config: &Config, failure: &(dyn std::error::Error + 'static), report: &mut Report) {
    let text = error::chain(failure);
    let fix = if config.nats.tls_required {
        "TLS is asked for; if the server offers none, and the network between is trusted, set allow_plaintext = true"
    } else {
        "check that nats-server runs there, and the address and the login; docs/operations.md has the keys"
    };
    report.add_with_fix(Weight::Problem, "nats", text, fix);
}

async fn listener(config: &Config, report: &mut Report) {
    match http::Server::bind(config.http).await {
        Ok(_) => report.add(Weight::Ok, "http", format!("{} is free", config.http)),
        Err(http::Error::Taken { address }) => {
            let text = format!("{address} is taken: by this node's sidecar, if it is running now");
            report.add_with_fix(
                Weight::Warning,
                "http",
                text,
                "if it is not running, choose another address with --http",
            );
        }
        Err(error) => report.fail("http", &Error::Http(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_to_do_and_counts() {
        let mut report = Report::default();
        report.add(Weight::Ok, "config", "node a, HTTP at 127.0.0.1:7200");
        report.add_with_fix(Weight::Warning, "table", "Track: its key is an INTEGER", "use a UUID");
        report.add_with_fix(Weight::Problem, "nats", "connection refused", "start nats-server");
        insta::assert_snapshot!(report.to_text());
    }

    #[test]
    fn a_broken_config_is_told_line_by_line_and_the_rest_is_not_guessed_at() {
        let error = config::Sources::default().load().unwrap_err();
        let mut report = Report::default();
        refuse_config(error, &mut report);
        insta::assert_snapshot!(report.to_text());
    }
}
