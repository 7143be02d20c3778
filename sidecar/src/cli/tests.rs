//! The command line as text: each help page, and what is refused.

use clap::CommandFactory as _;

use super::*;

fn help(command: &str) -> String {
    let mut line = CommandLine::command().term_width(100);
    line.build();
    let page = match command {
        "" => line.render_long_help(),
        name => line.find_subcommand_mut(name).unwrap().render_long_help(),
    };
    page.to_string()
}

#[test]
fn the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_command_has_a_help_page() {
    insta::assert_snapshot!("help", help(""));
    for command in ["init", "check", "run", "status", "parked", "conflicts", "migrate", "uninstall"] {
        insta::assert_snapshot!(format!("help_{command}"), help(command));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |line: &str| CommandLine::try_parse_from(line.split(' ')).unwrap_err().to_string();
    assert!(refused("rowcast run --exec").contains("CMD"), "{}", refused("rowcast run --exec"));
    assert!(refused("rowcast run -- true").contains("--exec"));
    assert!(refused("rowcast init --database a").contains("--service"));
    assert!(refused("rowcast run --databse a").contains("'--database'"));
    assert!(refused("rowcast runn").contains("'run'"));
}
