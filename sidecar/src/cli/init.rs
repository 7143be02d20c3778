//! `rowcast init`: a schema TOML from an existing database.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use rowcast_schema::declaration::{Description, describe, service_fault};

use super::{Error, outside, print, print_error};

/// Write a schema TOML from an existing database, and say what was left out and why.
///
/// Every table that can be replicated is declared; the text is a start, for the service's developer to edit and to ship
/// with the service. The database is switched to WAL mode, which Rowcast needs; nothing else in it is changed.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The service's SQLite file
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
    /// The service's name: letters, digits, `-`, `_`; the same on all nodes
    #[arg(long, value_name = "NAME")]
    service: String,
    /// The file to write; standard output when not given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over the file when it is there already
    #[arg(long)]
    force: bool,
}

pub(super) async fn init(arguments: Arguments) -> Result<(), Error> {
    let Arguments { database, service, output, force } = arguments;
    if let Some(fault) = service_fault(&service) {
        return Err(Error::ServiceName { name: service, fault });
    }
    if let Some(file) = output.as_ref().filter(|file| !force && file.exists()) {
        return Err(Error::Exists { file: file.clone() });
    }
    let tables = outside::tables(&database).await?;
    let description = describe(&service, &tables);
    let switched = outside::ensure_wal(&database).await?;
    match &output {
        Some(file) => write(file, &description.toml, force)?,
        None => print(&description.toml)?,
    }
    print_error(&report(&database, &description, switched, output.as_deref()));
    Ok(())
}

fn write(file: &Path, text: &str, force: bool) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    // Without --force the file must be new, whoever else may have made one meanwhile.
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.write(true).open(file).and_then(|mut opened| opened.write_all(text.as_bytes()));
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { file: file.to_owned() },
        _ => Error::Write { file: file.to_owned(), source },
    })
}

/// What people should know beside the text.
fn report(database: &Path, description: &Description, switched: bool, output: Option<&Path>) -> String {
    let Description { included, left_out, parts, warnings, .. } = description;
    let mut lines = Vec::new();
    if switched {
        lines.push(format!("switched {} to WAL mode, which Rowcast needs; it stays so", database.display()));
    }
    lines.push(match included.len() {
        0 => "no table can be replicated yet".to_owned(),
        count => format!("declared {count} {}: {}", plural(count, "table"), included.join(", ")),
    });
    lines.extend(
        left_out.iter().map(|(table, refusal)| format!("left out {table}: {}\n  fix: {}", refusal.reason, refusal.fix)),
    );
    if !parts.is_empty() {
        lines.push(format!("left out, as parts of virtual tables: {}", parts.join(", ")));
    }
    lines.extend(
        warnings
            .iter()
            .map(|finding| format!("warning: table {}: {}\n  fix: {}", finding.table, finding.reason, finding.fix)),
    );
    if let Some(file) = output {
        lines.push(format!("wrote {}; next: rowcast check --schema {0} …", file.display()));
    }
    lines.join("\n")
}

/// `1 table`, `2 tables`.
pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

#[cfg(test)]
mod tests {
    use rowcast_schema::declaration::Severity;
    use rowcast_schema::table::{Kind, example};

    use super::*;

    #[test]
    fn what_was_left_out_is_said_with_the_reason_and_the_fix() {
        let mut view = example("AllTracks", &["id"], &[]);
        view.kind = Kind::View;
        let tables = [
            example("Album", &["id"], &["id"]),
            view,
            example("Log", &["line"], &[]),
            example("Track", &["id"], &["id"]),
        ];
        let description = describe("music", &tables);
        assert!(description.warnings.iter().all(|finding| finding.severity == Severity::Warning));
        insta::assert_snapshot!(report(Path::new("app.db"), &description, true, Some(Path::new("schema.toml"))));
    }

    #[test]
    fn a_file_is_written_over_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("schema.toml");
        write(&file, "first, and longer", false).unwrap();
        assert!(matches!(write(&file, "second", false), Err(Error::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "first, and longer");
        write(&file, "second", true).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "second");
        assert!(matches!(write(folder.path(), "", true), Err(Error::Write { .. })));
    }
}
