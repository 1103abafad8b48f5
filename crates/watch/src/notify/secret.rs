//! Secrets are read when they are needed, from where the configuration says they lie, and kept nowhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use api::roles::SecretPlace;

/// Longest secret, in bytes.
const MAX_BYTES: u64 = 4096;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the secret in {path} cannot be read: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The variable is not set, or is no text.
    #[error("the environment variable {0}, which holds a secret, is not set")]
    Unset(String),
    /// Nothing, or too much.
    #[error("{0} holds no secret: it must be from 1 to {MAX_BYTES} bytes of text")]
    Unusable(String),
}

/// Reads one.
pub fn read(place: &SecretPlace) -> Result<String, SecretError> {
    let (name, text) = match place {
        SecretPlace::File(path) => {
            let unreadable = |error| SecretError::Unreadable { path: path.clone(), error };
            // A pipe would be waited on for ever.
            if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
                return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
            }
            let mut text = String::new();
            let file = File::open(path).map_err(unreadable)?;
            file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
            (path.display().to_string(), text)
        }
        SecretPlace::Environment(name) => {
            let text = std::env::var(name).map_err(|_| SecretError::Unset(name.clone()))?;
            (format!("the environment variable {name}"), text)
        }
    };
    let secret = text.trim();
    if secret.is_empty() || text.len() as u64 > MAX_BYTES {
        return Err(SecretError::Unusable(name));
    }
    Ok(secret.to_owned())
}
