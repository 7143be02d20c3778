//! The config at its border: files, variables and flags in, a config or all problems out.

use super::*;

const EXAMPLE: &str = include_str!("../../../examples/rowcast.toml");

/// What a run without a file needs at least.
fn flags() -> Vec<(&'static str, String)> {
    [("node", "a"), ("database", "app.db"), ("schema", "schema.toml"), ("nats", "nats://127.0.0.1:4222")]
        .map(|(key, value)| (key, value.to_owned()))
        .to_vec()
}

fn with_flags(more: &[(&'static str, &str)]) -> Result<Config, Error> {
    let mut flags = flags();
    flags.retain(|(key, _)| !more.iter().any(|(other, _)| key == other));
    flags.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    Sources { flags, ..Sources::default() }.load()
}

/// Loads `text` from a file `rowcast.toml` in a folder of its own; texts of problems name the bare file.
fn from_file(text: &str, environment: Environment) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rowcast.toml");
    std::fs::write(&file, text).unwrap();
    let loaded = Sources { file: Some(file), environment, ..Sources::default() }.load();
    loaded.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn the_example_states_the_defaults() {
    let example = from_file(EXAMPLE, Environment::default()).unwrap();
    let mut bare = with_flags(&[]).unwrap();
    bare.database = "/var/lib/music/app.db".into();
    bare.schema = "/etc/rowcast/schema.toml".into();
    assert_eq!(example, bare);
}

#[test]
fn the_example_names_every_key_once_and_in_order() {
    let keys = EXAMPLE.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
        settings::key(name).map(|key| key.name)
    });
    let all: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(keys.collect::<Vec<_>>(), all);
}

#[test]
fn the_example_is_toml_with_every_key_set() {
    // The lines that only show a key, such as `# user = "rowcast"`.
    let shown = |line: &str| {
        line.strip_prefix("# ")
            .is_some_and(|rest| rest.split_once(" = ").is_some_and(|(name, _)| settings::key(name).is_some()))
    };
    let text: Vec<&str> = EXAMPLE.lines().map(|line| if shown(line) { &line[2..] } else { line }).collect();
    let error = from_file(&text.join("\n"), Environment::default()).unwrap_err();
    // All that is wrong with it is that it logs in in four ways, with files that are not there.
    assert!(error.contains("a node logs in to NATS in one way"), "{error}");
    for line in error.lines().skip(1) {
        assert!(line.contains("there is no file") || line.contains("in one way"), "{line}");
    }
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file_and_that_before_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rowcast.toml");
    std::fs::write(&file, "node = 'file'\nhttp = '127.0.0.1:1'\npresence_interval = '2s'").unwrap();
    let mut flags = flags();
    flags.retain(|(key, _)| *key != "node");
    let environment = Environment::of([
        ("ROWCAST_NODE", "environment"),
        ("ROWCAST_HTTP", "127.0.0.1:2"),
        ("ROWCAST_CONTEXT_TIMEOUT", ""),
    ]);
    let mut sources = Sources { file: Some(file), flags, environment };
    let config = sources.load().unwrap();
    assert_eq!(config.node, "environment");
    assert_eq!(config.http.port(), 2);
    assert_eq!(config.presence_interval, Duration::from_secs(2));
    assert_eq!(config.context_timeout, Duration::from_secs(30), "an empty variable counts as not set");
    sources.flags.push(("node", "flag".to_owned()));
    sources.flags.push(("http", "localhost:3".to_owned()));
    let config = sources.load().unwrap();
    assert_eq!(config.node, "flag");
    assert_eq!(config.http, "127.0.0.1:3".parse().unwrap());
    assert_eq!(sources.http().unwrap(), config.http);
}

#[test]
fn every_key_is_read_from_the_environment() {
    for key in KEYS {
        let environment = Environment::of([(&*variable(key.name), "\u{1}wrong")]);
        let sources = Sources { environment, ..Sources::default() };
        let mut read = Settings::read(&sources).unwrap();
        let noted = read.problems.iter().any(|problem| problem.place == Place::Variable(variable(key.name)));
        assert!(read.take(key.name).is_some() || noted, "{} is not read", variable(key.name));
    }
}

#[test]
fn paths_in_a_file_start_from_its_folder_and_others_from_here() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rowcast.toml");
    std::fs::write(&file, "database = 'data/app.db'\nschema = '/etc/schema.toml'").unwrap();
    let mut flags = flags();
    flags.retain(|(key, _)| *key != "database" && *key != "schema");
    let config = Sources { file: Some(file), flags, ..Sources::default() }.load().unwrap();
    assert_eq!(config.database, folder.path().join("data/app.db"));
    assert_eq!(config.schema, PathBuf::from("/etc/schema.toml"));
    assert_eq!(with_flags(&[]).unwrap().database, PathBuf::from("app.db"));
}

#[test]
fn all_problems_of_all_places_are_told_together() {
    let text = "\
node = 'a b'
databse = 'app.db'
nats = ['nats://me:hunter2@db', 'http://x', 'nats://h:4222/path']
password = 'hunter2'
colour = 'red'
http = '7200'
presence_interval = 5
presence_wait = '5 parsecs'
context_timeout = '9h'
user = 'me'
tls_cert = 'none.pem'
log = 'loud'
";
    let environment = Environment::of([("ROWCAST_LOG_LEVEL", "inof"), ("ROWCAST_TLS_REQUIRED", "maybe")]);
    let error = from_file(text, environment).unwrap_err();
    assert!(!error.contains("hunter2"), "a secret is shown: {error}");
    insta::assert_snapshot!(error);
}

#[test]
fn what_is_missing_is_told_with_every_way_to_set_it() {
    let error = Sources::default().load().unwrap_err();
    insta::assert_snapshot!(error.to_string());
}

#[test]
fn broken_toml_is_told_with_its_line() {
    insta::assert_snapshot!(
        from_file("node = 'a'\nhttp = \nnode = 'b'\n[nats]\n", Environment::default()).unwrap_err()
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let file = Some(PathBuf::from("no/rowcast.toml"));
    let error = Sources { file, ..Sources::default() }.load().unwrap_err();
    assert_eq!(error.to_string(), "failed to read the config file no/rowcast.toml");
    assert!(error.problems().is_empty());
}

#[test]
fn addresses_of_nats_are_completed() {
    let of = |written| with_flags(&[("nats", written)]).unwrap().nats.servers;
    assert_eq!(of("127.0.0.1"), ["nats://127.0.0.1:4222"]);
    assert_eq!(of("localhost:1"), ["nats://localhost:1"]);
    assert_eq!(of("nats://[::1]:1/, tls://n1"), ["nats://[::1]:1", "tls://n1:4222"]);
}

#[test]
fn a_server_elsewhere_needs_tls_unless_plaintext_is_allowed() {
    let nats = |more: &[(&'static str, &str)]| with_flags(more).map(|config| config.nats.tls_required);
    assert!(!nats(&[]).unwrap());
    assert!(nats(&[("tls_required", "true")]).unwrap());
    assert!(nats(&[("nats", "nats://db.example")]).unwrap());
    assert!(nats(&[("nats", "127.0.0.1,10.0.0.7")]).unwrap());
    assert!(!nats(&[("nats", "nats://db.example"), ("allow_plaintext", "true")]).unwrap());
    let refused = nats(&[("nats", "nats://db.example"), ("tls_required", "no")]).unwrap_err();
    assert!(refused.to_string().contains("`db.example` is not on this machine"), "{refused}");
    let both = nats(&[("allow_plaintext", "yes"), ("tls_required", "yes")]).unwrap_err();
    assert!(both.to_string().contains("drop one of them"), "{both}");
}

#[test]
fn names_of_nodes_fit_into_subjects() {
    for name in ["a", "node-1_B", &"n".repeat(64)] {
        assert_eq!(with_flags(&[("node", name)]).unwrap().node, name);
    }
    for name in ["", "a.b", "a b", "ä", "*", ">", "a\n", &"n".repeat(65)] {
        assert!(with_flags(&[("node", name)]).is_err(), "{name:?}");
    }
}

#[test]
fn a_login_is_one_of_its_kinds_and_its_files_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "hunter2").unwrap();
    let path = file.to_str().unwrap();
    let login = |more: &[(&'static str, &str)]| with_flags(more).map(|config| config.nats.login);
    assert_eq!(login(&[("credentials", path)]).unwrap(), Login::Credentials(file.clone()));
    assert_eq!(login(&[("token_file", path)]).unwrap(), Login::Token(file.clone()));
    assert_eq!(login(&[("nkey_file", path)]).unwrap(), Login::Nkey(file.clone()));
    let user = Login::User { user: "me".to_owned(), password_file: file.clone() };
    assert_eq!(login(&[("user", "me"), ("password_file", path)]).unwrap(), user);
    for wrong in [
        &[("user", "me")][..],
        &[("password_file", path)],
        &[("token_file", path), ("nkey_file", path)],
        &[("token_file", "/no/such/file")],
        &[("tls_key", path)],
    ] {
        assert!(login(wrong).is_err(), "{wrong:?}");
    }
    let config = with_flags(&[("user", "me"), ("password_file", path)]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_is_unwise_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2").unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, readable).unwrap();
    let mut flags = flags();
    flags.retain(|(key, _)| *key != "nats");
    for (key, value) in [
        ("http", "0.0.0.0:7200"),
        ("nats", "nats://db.example:4222"),
        ("allow_plaintext", "true"),
        ("token_file", file.to_str().unwrap()),
    ] {
        flags.push((key, value.to_owned()));
    }
    // Kubernetes makes the last one for a Service named `rowcast`.
    let environment = Environment::of([("ROWCAST_DATABSE", "x"), ("ROWCAST_SERVICE_HOST", "10.0.0.1")]);
    let config = Sources { flags, environment, ..Sources::default() }.load().unwrap();
    let warnings = config.warnings.join("\n").replace(&format!("{}/", folder.path().display()), "");
    insta::assert_snapshot!(warnings);
    assert_eq!(with_flags(&[]).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn the_operations_page_lists_every_variable() {
    let page = include_str!("../../../docs/operations.md");
    for key in KEYS {
        assert!(
            page.contains(&format!("| `{}` |", variable(key.name))),
            "docs/operations.md lacks {}",
            variable(key.name)
        );
    }
}
