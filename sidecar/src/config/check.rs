//! What the settings mean, and whether they make sense together.
//!
//! Every function here notes what is wrong and goes on, so that one edit mends all of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::settings::{Given, Settings, Value};
use super::{
    Bootstrap, Config, Environment, HTTP_DEFAULT, Login, NODE_NAME_MAX, Nats, Place, TlsIdentity, flag, secret,
    variable,
};
use crate::observe::logging;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The config, or nothing when `settings.problems` has something.
pub(super) fn config(settings: &mut Settings, environment: &Environment) -> Option<Config> {
    if settings.broken_file {
        return None;
    }
    let node = node(settings);
    let database = required_path(settings, "database");
    let schema = required_path(settings, "schema");
    let nats = nats(settings);
    let http = http(settings);
    let before = text(settings, "before").map(|(command, _)| command);
    let bootstrap = bootstrap(settings);
    let presence_interval = duration(settings, "presence_interval", SECOND, Duration::from_millis(100)..=MINUTE);
    let presence_wait = duration(settings, "presence_wait", 3 * SECOND, Duration::from_millis(100)..=10 * MINUTE);
    let context_timeout = duration(settings, "context_timeout", 30 * SECOND, SECOND..=HOUR);
    let reconcile_interval = duration(settings, "reconcile_interval", 5 * MINUTE, SECOND..=7 * 24 * HOUR);
    let verify_interval = duration(settings, "verify_interval", 10 * MINUTE, Duration::ZERO..=7 * 24 * HOUR);
    let member_timeout = duration(settings, "member_timeout", 7 * DAY, MINUTE..=365 * DAY);
    if let (Some(interval), Some(wait)) = (presence_interval, presence_wait)
        && wait < interval
    {
        settings
            .problem(Place::None, "`presence_wait` is shorter than `presence_interval`: no other node could be heard");
    }
    let log = log(settings);
    let log_level = log_level(settings);
    if !settings.problems.is_empty() {
        return None;
    }
    let mut config = Config {
        node: node?,
        database: database?,
        schema: schema?,
        nats: nats?,
        http: http?,
        before,
        bootstrap: bootstrap?,
        presence_interval: presence_interval?,
        presence_wait: presence_wait?,
        context_timeout: context_timeout?,
        reconcile_interval: reconcile_interval?,
        verify_interval: verify_interval?,
        member_timeout: member_timeout?,
        log: log?,
        log_level: log_level?,
        warnings: Vec::new(),
    };
    config.warnings = warnings(&config, environment);
    Some(config)
}

fn bootstrap(settings: &mut Settings) -> Option<Bootstrap> {
    match text(settings, "bootstrap") {
        None => Some(Bootstrap::default()),
        Some((word, _)) if word == "file" => Some(Bootstrap::File),
        Some((word, _)) if word == "events" => Some(Bootstrap::Events),
        Some((word, place)) => {
            settings.problem(place, format!("`{word}` is no way to begin: \"file\" or \"events\""));
            None
        }
    }
}

fn node(settings: &mut Settings) -> Option<String> {
    let (name, place) = required_text(settings, "node")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > NODE_NAME_MAX || !name.chars().all(allowed) {
        let text = format!(
            "`{}` cannot be a node's name: it is part of NATS subjects, so 1 to {NODE_NAME_MAX} ASCII letters, \
             digits, `-` and `_`",
            name.escape_debug()
        );
        settings.problem(place, text);
        return None;
    }
    Some(name)
}

/// The HTTP address.
pub(super) fn database(settings: &mut Settings) -> Option<(PathBuf, PathBuf)> {
    let (database, schema) = (required_path(settings, "database"), required_path(settings, "schema"));
    database.zip(schema)
}

pub(super) fn http(settings: &mut Settings) -> Option<SocketAddr> {
    let (written, place) = text(settings, "http").unwrap_or((HTTP_DEFAULT.to_owned(), Place::None));
    let local = written.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let address = match local {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => written.parse().ok(),
    };
    if address.is_none() {
        settings.problem(place, format!("`{written}` is not an address with a port, such as {HTTP_DEFAULT}"));
    }
    address
}

fn nats(settings: &mut Settings) -> Option<Nats> {
    let login = login(settings);
    let tls_ca = optional_file(settings, "tls_ca");
    let tls_identity = tls_identity(settings);
    let (servers, mut remote) = servers(settings)?;
    let required = switch(settings, "tls_required");
    let plaintext = switch(settings, "allow_plaintext");
    let allowed = plaintext.as_ref().is_some_and(|(allowed, _)| *allowed);
    match &required {
        Some((true, place)) if allowed => {
            settings.problem(place.clone(), "`tls_required` and `allow_plaintext` are both true; drop one of them");
        }
        Some((false, place)) if !allowed && !remote.is_empty() => {
            let text = format!(
                "`tls_required` is false, but `{}` is not on this machine: say `allow_plaintext = true` if the \
                 network between is trusted",
                remote.remove(0)
            );
            settings.problem(place.clone(), text);
        }
        _ => {}
    }
    let tls_required = required.is_some_and(|(required, _)| required) || (!remote.is_empty() && !allowed);
    Some(Nats { servers, login: login?, tls_ca, tls_identity, tls_required })
}

/// The servers' addresses, and the hosts among them that are not on this machine.
fn servers(settings: &mut Settings) -> Option<(Vec<String>, Vec<String>)> {
    let Given { value: Value::List(written), place, .. } = required(settings, "nats")? else {
        unreachable!("bug: `nats` is a list");
    };
    if written.is_empty() {
        settings.problem(place, "`nats` is empty: give at least one address, such as nats://127.0.0.1:4222");
        return None;
    }
    let (mut servers, mut remote) = (Vec::new(), Vec::new());
    for server in written {
        match server_of(&server) {
            Ok(url) => {
                let host = url.host_str().unwrap_or_default().to_owned();
                // A `tls://` address asks for TLS by itself.
                if !is_loopback(&host) && url.scheme() != "tls" {
                    remote.push(host);
                }
                servers.push(url.to_string().trim_end_matches('/').to_owned());
            }
            Err(why) => settings.problem(place.clone(), why),
        }
    }
    Some((servers, remote))
}

/// One server's address with scheme and port.
fn server_of(written: &str) -> Result<Url, String> {
    let with_scheme = if written.contains("://") { written.to_owned() } else { format!("nats://{written}") };
    let mut url =
        Url::parse(&with_scheme).map_err(|why| format!("`{}` is not a NATS address: {why}", without_login(written)))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "`{}` was given with a user or token inside: secrets do not stand in settings; use `user` and \
             `password_file`, or `token_file`",
            without_login(written)
        ));
    }
    if !matches!(url.scheme(), "nats" | "tls") {
        return Err(format!("`{written}` is neither a nats:// nor a tls:// address"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("`{written}` names no host; a NATS address is such as nats://127.0.0.1:4222"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{written}` has something after the port; a NATS address is such as nats://host:4222"));
    }
    if url.port().is_none() {
        url.set_port(Some(4222)).map_err(|()| format!("`{written}` cannot have a port"))?;
    }
    Ok(url)
}

/// The address with what stands before the `@` left out, for messages.
fn without_login(written: &str) -> String {
    let (scheme, rest) = written.split_once("://").map_or(("nats", written), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn login(settings: &mut Settings) -> Option<Login> {
    let credentials = optional_file(settings, "credentials");
    let token = optional_file(settings, "token_file");
    let nkey = optional_file(settings, "nkey_file");
    let password_file = optional_file(settings, "password_file");
    let user = text(settings, "user");
    let mut logins = Vec::new();
    match (user, password_file) {
        (Some((user, _)), Some(password_file)) => logins.push(("user", Login::User { user, password_file })),
        (Some((_, place)), None) => settings.problem(place, "`user` needs `password_file`"),
        (None, Some(_)) => settings.problem(Place::None, "`password_file` needs `user`"),
        (None, None) => {}
    }
    logins.extend(credentials.map(|file| ("credentials", Login::Credentials(file))));
    logins.extend(token.map(|file| ("token_file", Login::Token(file))));
    logins.extend(nkey.map(|file| ("nkey_file", Login::Nkey(file))));
    if logins.len() > 1 {
        let names: Vec<String> = logins.iter().map(|(name, _)| format!("`{name}`")).collect();
        settings
            .problem(Place::None, format!("{} are set together: a node logs in to NATS in one way", names.join(", ")));
        return None;
    }
    Some(logins.pop().map_or(Login::None, |(_, login)| login))
}

fn tls_identity(settings: &mut Settings) -> Option<TlsIdentity> {
    match (optional_file(settings, "tls_cert"), optional_file(settings, "tls_key")) {
        (Some(certificate), Some(key)) => Some(TlsIdentity { certificate, key }),
        (Some(_), None) => {
            settings.problem(Place::None, "`tls_cert` needs `tls_key`");
            None
        }
        (None, Some(_)) => {
            settings.problem(Place::None, "`tls_key` needs `tls_cert`");
            None
        }
        (None, None) => None,
    }
}

fn log(settings: &mut Settings) -> Option<logging::Format> {
    let Some((written, place)) = text(settings, "log") else { return Some(logging::Format::Auto) };
    let format = written.parse().ok();
    if format.is_none() {
        settings.problem(place, format!("`{written}` is none of `auto`, `text` and `json`"));
    }
    format
}

fn log_level(settings: &mut Settings) -> Option<String> {
    let Some((written, place)) = text(settings, "log_level") else { return Some(logging::LEVEL_DEFAULT.to_owned()) };
    if let Err(why) = logging::check_level(&written) {
        settings.problem(place, format!("`{written}` is not a log level such as `info`, nor a filter: {why}"));
        return None;
    }
    Some(written)
}

/// What is allowed but unwise.
fn warnings(config: &Config, environment: &Environment) -> Vec<String> {
    let mut warnings = Vec::new();
    if !config.http.ip().is_loopback() {
        warnings.push(format!(
            "`http` is {}: anybody who reaches this machine can read the state of the node, though not its data",
            config.http
        ));
    }
    let remote = config.nats.servers.iter().find(|server| {
        let host = Url::parse(server).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        !server.starts_with("tls://") && !is_loopback(&host)
    });
    if let (Some(server), false) = (remote, config.nats.tls_required) {
        warnings.push(format!("rows travel to {server} in plaintext, because `allow_plaintext` is true"));
    }
    for file in config.nats.login.files() {
        if secret::is_open_to_all(file) {
            warnings.push(format!("everybody on this machine may read {}: chmod 600 it", file.display()));
        }
    }
    for (written, meant) in environment.misspelt() {
        warnings.push(format!("the environment variable {written} is not one of ours; did you mean {meant}?"));
    }
    warnings
}

// What follows takes one key out, whatever it means.

fn missing(settings: &mut Settings, name: &str) {
    let text =
        format!("`{name}` is not set: give {}, {} or `{name} = …` in the config file", flag(name), variable(name));
    // A key that was given and refused already has its problem.
    let refused = |problem: &super::Problem| {
        problem.text.contains(&format!("`{name}` must be"))
            || problem.text.ends_with(&format!("did you mean `{name}`?"))
    };
    if !settings.problems.iter().any(refused) {
        settings.problem(Place::None, text);
    }
}

fn required(settings: &mut Settings, name: &'static str) -> Option<Given> {
    let given = settings.take(name);
    if given.is_none() {
        missing(settings, name);
    }
    given
}

fn text_of(given: Given) -> (String, Place) {
    match given.value {
        Value::Text(text) => (text, given.place),
        Value::List(_) | Value::Switch(_) => unreachable!("bug: the key holds text"),
    }
}

fn text(settings: &mut Settings, name: &'static str) -> Option<(String, Place)> {
    settings.take(name).map(text_of)
}

fn required_text(settings: &mut Settings, name: &'static str) -> Option<(String, Place)> {
    required(settings, name).map(text_of)
}

fn switch(settings: &mut Settings, name: &'static str) -> Option<(bool, Place)> {
    settings.take(name).map(|given| match given.value {
        Value::Switch(switch) => (switch, given.place),
        Value::Text(_) | Value::List(_) => unreachable!("bug: the key holds a switch"),
    })
}

/// The path, and where it was given. One in a file starts from the file's folder.
fn path_of(given: Given) -> (PathBuf, Place) {
    let folder = given.folder.clone();
    let (written, place) = text_of(given);
    let path = match folder {
        Some(folder) => folder.join(written),
        None => PathBuf::from(written),
    };
    (path, place)
}

fn required_path(settings: &mut Settings, name: &'static str) -> Option<PathBuf> {
    let given = required(settings, name)?;
    let (path, place) = path_of(given);
    if path.as_os_str().is_empty() || path.is_dir() {
        settings.problem(place, format!("`{name}` is {}, which is a folder, not a file", path.display()));
        return None;
    }
    Some(path)
}

fn optional_file(settings: &mut Settings, name: &'static str) -> Option<PathBuf> {
    let (path, place) = path_of(settings.take(name)?);
    if !path.is_file() {
        settings.problem(place, format!("`{name}`: there is no file {}", path.display()));
    }
    Some(path)
}

fn duration(
    settings: &mut Settings,
    name: &'static str,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
) -> Option<Duration> {
    let Some((written, place)) = text(settings, name) else { return Some(default) };
    let Ok(duration) = humantime::parse_duration(&written) else {
        settings.problem(place, format!("`{written}` is not a span of time such as `250ms`, `5s` or `10m`"));
        return None;
    };
    if !range.contains(&duration) {
        let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        settings.problem(place, format!("`{name}` is {written}; it must be from {least} to {most}"));
        return None;
    }
    Some(duration)
}
