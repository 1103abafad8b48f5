//! Files as values: what the configuration refers to, read by whoever may touch a disk.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest configuration file accepted, in bytes.
pub const CONFIG_BYTES: usize = 4 << 20;
/// Largest PEM file accepted, in bytes: some 500 certificates.
pub const PEM_BYTES: usize = 1 << 20;

/// Front of the virtual paths of issued certificates: `acme:example.org`, `acme:*.example.org`. Each is PEM text, the
/// chain and the private key in one. No file an operator names begins like this.
pub const ISSUED: &str = "acme:";

/// Why a file could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No such file.
    #[error("there is no such file")]
    NotFound,
    /// The file is there, but this user may not read it.
    #[error("permission to read it is denied")]
    Permission,
    /// A directory.
    #[error("it is a directory")]
    Directory,
    /// A device, socket or pipe.
    #[error("it is not a regular file")]
    NotRegular,
    /// More bytes than the limit.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit it broke, in bytes.
        limit: usize,
    },
    /// Anything else, in the words of the operating system.
    #[error("{0}")]
    Other(String),
}

/// Every file a configuration refers to, by its path as written there, and issued certificates by their virtual path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceTree(BTreeMap<String, Result<Arc<[u8]>, Unreadable>>);

impl SourceTree {
    /// Enters a file, or the reason why there is none.
    pub fn insert(&mut self, path: impl Into<String>, content: Result<Arc<[u8]>, Unreadable>) {
        self.0.insert(path.into(), content);
    }

    /// The file at a path; a path nobody read is a file that is not there.
    pub fn get(&self, path: &str) -> Result<Arc<[u8]>, Unreadable> {
        self.0.get(path).cloned().unwrap_or(Err(Unreadable::NotFound))
    }

    /// Whether anything is known of the file at a path.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The files that could be read, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.0.iter().filter_map(|(path, content)| Some((path.as_str(), content.as_ref().ok()?)))
    }
}

/// A file the configuration refers to, or a certificate it wants issued (see `ISSUED`), which need not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReference {
    /// The path as written: absolute, or relative to the configuration file.
    pub path: String,
    /// Pointer to the place it is written: `site[0].tls.key`.
    pub place: String,
    /// Largest size to read, in bytes; a larger file is `Unreadable::TooLarge`.
    pub limit: usize,
    /// Whether the content must not be shown to anybody.
    pub secret: bool,
}
