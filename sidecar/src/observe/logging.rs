//! The log: lines for people on a terminal, JSON lines for machines elsewhere, always on standard error.
//!
//! Standard output stays free for what a command was asked for, and for the service that the sidecar runs.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::edge::bus;

/// The filter when nothing else was said.
pub const LEVEL_DEFAULT: &str = "info";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One readable line an entry.
    Text,
    /// One JSON object an entry.
    Json,
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// Whether `level` is a level (`info`) or a filter (`info,rowcast::flow=debug`).
///
/// # Errors
/// What is wrong with it.
pub fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    // Taken alone, an unknown word is read as the name of a module: `inof` would silence everything.
    let is_word = level.chars().all(|c| c.is_ascii_alphabetic());
    if is_word && tracing::level_filters::LevelFilter::from_str(level).is_err() {
        return Err("the levels are `off`, `error`, `warn`, `info`, `debug` and `trace`".to_owned());
    }
    // The client library says each failed attempt to connect several times over; we say it once, with the address.
    let quiet = if level.contains(bus::CLIENT_TARGET) {
        level.to_owned()
    } else {
        format!("{level},{}=off", bus::CLIENT_TARGET)
    };
    EnvFilter::builder().parse(quiet).map_err(|error| error.to_string())
}

/// Starts the log of this process. Only the first call counts.
///
/// # Errors
/// The level is not one, see [`check_level`].
pub fn start(format: Format, level: &str, no_color: bool) -> Result<(), String> {
    let terminal = std::io::stderr().is_terminal();
    let subscriber = subscriber(format, level, terminal, terminal && !no_color, std::io::stderr)?;
    // It fails when a log was started before, which is what tests in one process do.
    tracing::subscriber::set_global_default(subscriber).unwrap_or(());
    Ok(())
}

type Boxed = Box<dyn Subscriber + Send + Sync>;

fn subscriber<W>(format: Format, level: &str, terminal: bool, color: bool, writer: W) -> Result<Boxed, String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(writer);
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    Ok(if json {
        // The fields stand at the top, where log stores look for them; spans give the names of tasks.
        Box::new(builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
    } else {
        Box::new(builder.compact().with_target(false).with_ansi(color).finish())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What the log says of two entries.
    fn lines(format: Format, level: &str, terminal: bool) -> Vec<String> {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(format, level, terminal, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(table = "Track", rows = 3, "applied a group");
            tracing::debug!("only for those who ask");
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn elsewhere_than_on_a_terminal_each_line_is_json_with_the_fields_at_the_top() {
        let lines = lines(Format::Auto, "info", false);
        assert_eq!(lines.len(), 1);
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["message"], "applied a group");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["table"], "Track");
        assert_eq!(line["rows"], 3);
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn on_a_terminal_it_is_a_line_for_people() {
        let lines = lines(Format::Auto, "info", true);
        assert!(lines[0].ends_with("INFO applied a group table=\"Track\" rows=3"), "{}", lines[0]);
        assert_eq!(self::lines(Format::Json, "info", true)[0].chars().next(), Some('{'));
        assert_ne!(self::lines(Format::Text, "info", false)[0].chars().next(), Some('{'));
    }

    #[test]
    fn a_filter_chooses_by_module() {
        assert_eq!(lines(Format::Text, "debug", true).len(), 2);
        assert_eq!(lines(Format::Text, "warn", true).len(), 0);
        assert_eq!(lines(Format::Text, "warn,rowcast::observe=debug", true).len(), 2);
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for level in ["inof", "verbose", "rowcast=loud"] {
            assert!(check_level(level).is_err(), "{level}");
        }
        for level in ["info", "WARN", "off", "info,rowcast::flow=debug"] {
            assert!(check_level(level).is_ok(), "{level}");
        }
    }
}
