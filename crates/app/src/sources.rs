//! From disk to values: the configuration and every file it refers to, with the reason where one cannot be read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use api::certificates::{AcmeChallenge, AcmeSettings};
use api::diagnostic::Diagnostic;
use api::process::{Fingerprint, Watched};
use api::roles::{FeedSettings, FeedSource, NotifyWay, SecretPlace, WatchSettings};
use snapshot::generation::Acme;
use snapshot::source::{CONFIG_BYTES, PEM_BYTES, SourceTree, Unreadable};

use crate::package::Sources;

/// Beginning of the name under which a certificate had from an authority stands in a source tree.
const ISSUED: &str = "acme:";
/// The file of such a certificate in its folder: chain and key.
const CURRENT: &str = "current.pem";
/// Certificates had on demand that are looked at.
const MAX_DEMANDED: usize = 10_000;

/// Reads a file of at most `limit` bytes. Never blocks on a pipe or device put in its place.
fn read(path: &Path, limit: usize) -> Result<Arc<[u8]>, Unreadable> {
    let file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| reason(&error))?;
    let metadata = file.metadata().map_err(|error| reason(&error))?;
    if metadata.is_dir() {
        return Err(Unreadable::Directory);
    }
    if !metadata.is_file() {
        return Err(Unreadable::NotRegular);
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() > limit {
        return Err(Unreadable::TooLarge { limit });
    }
    Ok(bytes.into())
}

fn reason(error: &io::Error) -> Unreadable {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unreadable::NotFound,
        io::ErrorKind::PermissionDenied => Unreadable::Permission,
        io::ErrorKind::IsADirectory => Unreadable::Directory,
        _ => Unreadable::Other(error.to_string()),
    }
}

/// Reads the configuration file itself.
pub fn read_config(path: &Path) -> Result<Arc<[u8]>, Unreadable> {
    read(path, CONFIG_BYTES)
}

/// A configuration file and everything it refers to.
pub fn read_file(path: &Path, certificates: &Path) -> Result<Sources, Vec<Diagnostic>> {
    let name = path.display().to_string();
    match read_config(path) {
        Ok(text) => Ok(gather(&name, text, certificates)),
        Err(reason) => Err(vec![snapshot::unreadable(&name, &reason)]),
    }
}

/// Reads everything a configuration text refers to. Relative paths start at the configuration file's folder; certificates
/// had from an authority lie in a folder of their own.
pub fn gather(file: &str, text: Arc<[u8]>, certificates: &Path) -> Sources {
    let mut tree = SourceTree::default();
    for reference in snapshot::references(file, &text) {
        let path = resolve(file, &reference.path, certificates);
        tree.insert(reference.path.clone(), read(&path, reference.limit));
    }
    for (name, path) in demanded(&tree, certificates) {
        tree.insert(name, read(&path, PEM_BYTES));
    }
    Sources { file: file.to_owned(), text, tree }
}

/// Certificates that are there although no configuration names them: those had on demand.
fn demanded(tree: &SourceTree, certificates: &Path) -> Vec<(String, PathBuf)> {
    let Ok(folder) = std::fs::read_dir(certificates) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in folder.flatten().take(MAX_DEMANDED) {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let key = format!("{ISSUED}{}", name.replacen("_.", "*.", 1));
        if entry.path().is_dir() && !tree.contains(&key) {
            found.push((key, entry.path().join(CURRENT)));
        }
    }
    found
}

fn resolve(file: &str, path: &str, certificates: &Path) -> PathBuf {
    match path.strip_prefix(ISSUED) {
        Some(name) => certificates.join(name.replacen("*.", "_.", 1)).join(CURRENT),
        None => Path::new(file).parent().unwrap_or(Path::new("")).join(path),
    }
}

/// Where certificates had from an authority lie.
pub fn certificates(state: &Path) -> PathBuf {
    state.join("certificates")
}

/// Files whose change means that the configuration must be read again, itself not among them, as they look now.
pub fn watched(sources: &Sources, certificates: &Path) -> Vec<Watched> {
    let references = snapshot::references(&sources.file, &sources.text);
    let named = references.iter().map(|reference| resolve(&sources.file, &reference.path, certificates));
    // The folder changes when a certificate is had for a new name, and the file in it when it is there.
    let demanded = demanded(&SourceTree::default(), certificates).into_iter().map(|(_, path)| path);
    let mut paths: Vec<PathBuf> = named.chain(demanded).chain([certificates.to_owned()]).collect();
    paths.sort_unstable();
    paths.dedup();
    let look = |path: PathBuf| Watched { seen: fingerprint(&path), path };
    paths.into_iter().map(look).collect()
}

/// What the feeder and the supervisor are told of a feed; paths become such that any process can open them.
pub fn feed_settings(feed: &FeedSettings, file: &str) -> FeedSettings {
    let mut feed = feed.clone();
    if let FeedSource::File { path } | FeedSource::Folder { path } = &mut feed.source {
        let found = path.to_str().map_or_else(|| path.clone(), |name| resolve(file, name, Path::new("")));
        *path = std::path::absolute(&found).unwrap_or(found);
    }
    feed
}

/// What watch is told; paths become such that any process can open them.
pub fn watch_settings(watch: &WatchSettings, file: &str) -> WatchSettings {
    let mut watch = watch.clone();
    for channel in &mut watch.channels {
        let secret = match &mut channel.way {
            NotifyWay::Webhook { secret, .. } => secret.as_mut(),
            NotifyWay::Smtp { login, .. } => login.as_mut().map(|(_, password)| password),
        };
        if let Some(SecretPlace::File(path)) = secret {
            let found = path.to_str().map_or_else(|| path.clone(), |name| resolve(file, name, Path::new("")));
            *path = std::path::absolute(&found).unwrap_or(found);
        }
    }
    watch
}

/// What the keeper of certificates is told; paths become such that any process can open them.
pub fn acme_settings(acme: &Acme, file: &str) -> AcmeSettings {
    let path = |name: &String| {
        let path = resolve(file, name, Path::new(""));
        std::path::absolute(&path).unwrap_or(path)
    };
    AcmeSettings {
        contact: acme.contact.clone(),
        authorities: acme
            .authorities
            .iter()
            .map(|authority| api::certificates::AcmeAuthority {
                directory: authority.directory.clone(),
                roots: authority.roots.as_ref().map(path),
                eab_kid: authority.eab.as_ref().map(|(kid, _)| kid.clone()),
                eab_key: authority.eab.as_ref().map(|(_, key)| path(key)),
            })
            .collect(),
        challenge: match &acme.challenge {
            snapshot::generation::AcmeChallenge::Http01 => AcmeChallenge::Http01,
            snapshot::generation::AcmeChallenge::TlsAlpn01 => AcmeChallenge::TlsAlpn01,
            snapshot::generation::AcmeChallenge::Dns01(command) => {
                AcmeChallenge::Dns01 { command: command.clone() }
            }
        },
        names: acme.names.iter().map(ToString::to_string).collect(),
        on_demand: acme.on_demand.iter().map(ToString::to_string).collect(),
    }
}

/// What a file looks like from outside; `None` when it is not there.
pub fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let metadata = std::fs::metadata(path).ok()?;
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let modified = u64::try_from(modified.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    Some(Fingerprint { inode: metadata.ino(), length: metadata.len(), modified })
}
