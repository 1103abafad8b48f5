//! A configuration with every file it refers to.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::diagnostic::{Diagnostic, Severity};
use base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Class, Content, Kind, OnFailure, Value, error};
use crate::compile::{Input, Mode, compile};
use crate::generation::Snapshot;
use crate::package::Caps;
use crate::source::SourceTree;

/// What is compiled: a configuration and everything it refers to.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The configuration file as the operator named it.
    pub file: String,
    /// Its text.
    pub text: Arc<[u8]>,
    /// The files it refers to.
    pub tree: SourceTree,
}

#[derive(Serialize, Deserialize)]
struct Header {
    number: u64,
    file: String,
    text: usize,
    files: Vec<(String, usize)>,
}

/// Puts sources and the number of their generation into one piece: a header in JSON, its length in front, and the files.
pub fn encode(number: u64, sources: &Sources) -> Result<Vec<u8>, serde_json::Error> {
    let files: Vec<_> = sources.tree.files().collect();
    let header = serde_json::to_vec(&Header {
        number,
        file: sources.file.clone(),
        text: sources.text.len(),
        files: files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.len())).collect(),
    })?;
    let mut body = (header.len() as u64).to_be_bytes().to_vec();
    body.extend_from_slice(&header);
    body.extend_from_slice(&sources.text);
    files.iter().for_each(|(_, bytes)| body.extend_from_slice(bytes));
    Ok(body)
}

/// Takes it apart again; `None` when a piece is missing or left over.
pub fn decode(body: &[u8]) -> Option<(u64, Sources)> {
    let (length, body) = body.split_first_chunk::<8>()?;
    let (header, mut body) = body.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let mut next = |length: usize| -> Option<Arc<[u8]>> {
        let (piece, rest) = body.split_at_checked(length)?;
        body = rest;
        Some(Arc::from(piece))
    };
    let text = next(header.text)?;
    let mut tree = SourceTree::default();
    for (path, length) in header.files {
        tree.insert(path, Ok(next(length)?));
    }
    body.is_empty().then_some((header.number, Sources { file: header.file, text, tree }))
}

/// What a change of configuration may not take away by accident.
pub fn classes(snapshot: &Snapshot) -> Vec<Class> {
    let of = |name, keys: BTreeSet<String>| Class { name, keys, needed: true };
    let sites = || snapshot.sites.iter();
    let hosts = sites().flat_map(|site| site.hosts.iter().map(ToString::to_string));
    let origin = |site: &str, label: &str| format!("{label} of {site}");
    let origins = sites().flat_map(|site| site.origins.iter().map(|one| origin(&site.name, &one.label)));
    vec![of("hosts", hosts.collect()), of("origins", origins.collect())]
}

/// The kind.
pub struct SiteConfig;

impl Kind for SiteConfig {
    fn name(&self) -> &'static str {
        "site-config"
    }

    fn schema(&self) -> u32 {
        1
    }

    fn consumers(&self) -> (u32, u32) {
        (1, 1)
    }

    fn caps(&self) -> Caps {
        Caps { bytes: 64 << 20, entries: 1_000_000, memory: 1 << 30 }
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::LastGood
    }

    fn read(&self, payload: &[u8], now: Timestamp) -> Result<Content, Vec<Diagnostic>> {
        let Some((_, Sources { file, text, tree })) = decode(payload) else {
            let message = "it is not a configuration with its files".to_owned();
            return Err(vec![error("not-sources", message, "have the package made again")]);
        };
        let compiled = compile(Input { file: &file, text: &text, tree: &tree }, now, Mode::Stored);
        match compiled.snapshot {
            Some(snapshot) => Ok(Content {
                classes: classes(&snapshot),
                spreads: Vec::new(),
                memory: 4 * payload.len() as u64,
                value: Value::SiteConfig,
            }),
            None => {
                let is_error = |found: &Diagnostic| found.severity == Severity::Error;
                Err(compiled.diagnostics.into_iter().filter(is_error).collect())
            }
        }
    }

    fn exercise(&self, _content: &Content) -> Result<(), Vec<Diagnostic>> {
        // The taster does far more with it: it loads it and answers golden requests.
        Ok(())
    }
}
