//! From disk to values: the configuration and every file it refers to, with the reason where one cannot be read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use snapshot::source::{CONFIG_BYTES, SourceTree, Unreadable};

use crate::state::Sources;

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

/// Reads everything a configuration text refers to. Relative paths start at the configuration file's folder.
pub fn gather(file: &str, text: Arc<[u8]>) -> Sources {
    let mut tree = SourceTree::default();
    for reference in snapshot::references(file, &text) {
        tree.insert(reference.path.clone(), read(&resolve(file, &reference.path), reference.limit));
    }
    Sources { file: file.to_owned(), text, tree }
}

fn resolve(file: &str, path: &str) -> PathBuf {
    Path::new(file).parent().unwrap_or(Path::new("")).join(path)
}

/// What a file looks like from outside; changes whenever its content may have.
pub type Fingerprint = Option<(u64, u64, Option<SystemTime>)>;

/// Fingerprint of a file; `None` when it is not there.
pub fn fingerprint(path: &Path) -> Fingerprint {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
}

/// Fingerprints of everything a configuration refers to.
pub fn fingerprints(sources: &Sources) -> Vec<Fingerprint> {
    let references = snapshot::references(&sources.file, &sources.text);
    references.iter().map(|reference| fingerprint(&resolve(&sources.file, &reference.path))).collect()
}
