//! What a node says of itself to the server. Secrets are read anew for each connection: they may be renewed while the
//! sidecar runs.

use std::sync::{Arc, Mutex};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use super::Error;
use crate::config::{Login, Secret};

/// The answer to a server's nonce.
///
/// # Errors
/// When a secret cannot be read, or makes no sense.
pub(super) fn answer(login: &Login, nonce: &[u8]) -> Result<Auth, Error> {
    let mut auth = Auth::new();
    match login {
        Login::None => {}
        Login::Credentials(file) => {
            let secret = Secret::read(file).map_err(unfit)?;
            let (jwt, seed) = credentials(secret.reveal())
                .ok_or_else(|| unfit(format!("{} is no credentials file: it lacks a JWT or a seed", file.display())))?;
            auth.signature = Some(KeyPair::from_seed(seed).and_then(|key| key.sign(nonce)).map_err(unfit)?);
            auth.jwt = Some(jwt.to_owned());
        }
        Login::User { user, password_file } => {
            auth.username = Some(user.clone());
            auth.password = Some(Secret::read(password_file).map_err(unfit)?.reveal().to_owned());
        }
        Login::Token(file) => auth.token = Some(Secret::read(file).map_err(unfit)?.reveal().to_owned()),
        Login::Nkey(file) => {
            let key = KeyPair::from_seed(Secret::read(file).map_err(unfit)?.reveal()).map_err(unfit)?;
            auth.signature = Some(key.sign(nonce).map_err(unfit)?);
            auth.nkey = Some(key.public_key());
        }
    }
    Ok(auth)
}

/// The same off the threads that serve the bus. The client library keeps to itself why it failed: that is logged, once for each
/// text in `said`.
pub(super) async fn answer_aside(login: Login, nonce: Vec<u8>, said: Arc<Mutex<String>>) -> Result<Auth, AuthError> {
    let answered = tokio::task::spawn_blocking(move || answer(&login, &nonce)).await;
    if let (Ok(Ok(_)), Ok(mut said)) = (&answered, said.lock()) {
        said.clear();
    }
    let told = |error: Error| {
        let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {why}");
        if said.lock().is_ok_and(|mut said| std::mem::replace(&mut *said, text.clone()) != text) {
            tracing::error!("{text}; trying again");
        }
        AuthError::new(text)
    };
    answered.map_err(AuthError::new)?.map_err(told)
}

fn unfit(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Login(why.into())
}

/// The JWT and the seed of a `.creds` file.
fn credentials(text: &str) -> Option<(&str, &str)> {
    Some((block(text, "JWT")?, block(text, "SEED")?))
}

/// What stands in a block of that kind: on a line of its own, between lines of hyphens.
fn block<'t>(text: &'t str, kind: &str) -> Option<&'t str> {
    text.split("-----BEGIN ").skip(1).find_map(|block| {
        let mut lines = block.lines().map(str::trim).filter(|line| !line.is_empty());
        let (head, content) = (lines.next()?, lines.next()?);
        (head.contains(kind) && !content.starts_with('-')).then_some(content)
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn file(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("secret");
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_renewed_secret_is_what_the_next_connection_says() {
        let folder = tempfile::tempdir().unwrap();
        let login = Login::Token(file(folder.path(), "first\n"));
        assert_eq!(answer(&login, b"").unwrap().token.as_deref(), Some("first"));
        file(folder.path(), "second\n");
        assert_eq!(answer(&login, b"").unwrap().token.as_deref(), Some("second"));
        let login = Login::User { user: "u".into(), password_file: folder.path().join("secret") };
        let auth = answer(&login, b"").unwrap();
        assert_eq!((auth.username.as_deref(), auth.password.as_deref()), (Some("u"), Some("second")));
    }

    #[test]
    fn a_key_signs_what_the_server_sent() {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::new_user();
        let seed = key.seed().unwrap();
        let auth = answer(&Login::Nkey(file(folder.path(), &seed)), b"nonce").unwrap();
        assert_eq!(auth.nkey.as_deref(), Some(key.public_key().as_str()));
        assert!(key.verify(b"nonce", &auth.signature.unwrap()).is_ok());
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\r\nheader.claims.mark\r\n------END NATS USER JWT------\r\n\n\
             ************************* IMPORTANT *************************\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n****\n"
        );
        let auth = answer(&Login::Credentials(file(folder.path(), &creds)), b"nonce").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("header.claims.mark"));
        assert!(key.verify(b"nonce", &auth.signature.unwrap()).is_ok());
    }

    #[test]
    fn what_is_no_credentials_file_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["hunter2", "-----BEGIN NATS USER JWT-----\nhunter2\n", "-----BEGIN NATS USER JWT-----\n------END"]
        {
            let error = answer(&Login::Credentials(file(folder.path(), text)), b"").err().unwrap();
            let said = format!("{error:?}");
            assert!(said.contains("no credentials file") && !said.contains("hunter2"), "{said}");
        }
        let error = answer(&Login::Nkey(file(folder.path(), "hunter2")), b"").err().unwrap();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
