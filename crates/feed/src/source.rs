//! Where packages come from: a file, a folder or a URL. Bounded in size and time; whatever cannot be read whole is not read.

pub(crate) mod web;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::process::Fingerprint;
use api::roles::FeedSource;
use snapshot::package;

use web::Web;

/// A file that has not changed for so long is complete.
const REST: Duration = Duration::from_millis(250);
/// Packages of a folder.
const MAX_FILES: usize = 64;
/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 4096;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file or folder cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Larger than any package of this feed can be.
    #[error("{place} has more than {limit} bytes, which no package of this feed has")]
    TooLarge {
        /// Which file or URL.
        place: String,
        /// How many.
        limit: u64,
    },
    /// No file `*.package`.
    #[error("{0} has no file *.package")]
    Empty(PathBuf),
    /// So many that it is not a folder of a feed.
    #[error("{0} has more than {MAX_FILES} files *.package; take the old ones away")]
    TooMany(PathBuf),
    /// A URL that is not asked.
    #[error("{0} is not asked: it takes https, or http to a loopback address")]
    NotSecure(String),
    /// The server did not give it.
    #[error("{url}: {reason}")]
    NotGiven {
        /// Which.
        url: String,
        /// Why.
        reason: String,
    },
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// What was read before, or something that is still being written.
    Unchanged,
    /// All of it.
    Found(Vec<u8>),
}

/// The source of one feed.
pub struct Source {
    from: From,
    /// Largest package, in bytes.
    limit: u64,
}

enum From {
    File {
        path: PathBuf,
        seen: Option<Fingerprint>,
    },
    Folder {
        path: PathBuf,
        seen: Option<(PathBuf, Fingerprint)>,
        known: BTreeMap<PathBuf, (Fingerprint, Option<u64>)>,
    },
    Url(Box<Web>),
}

impl Source {
    /// Of settings. A URL that may not be asked is an error at once.
    pub fn new(settings: &FeedSource, limit: u64) -> Result<Self, SourceError> {
        let from = match settings {
            FeedSource::File { path } => From::File { path: path.clone(), seen: None },
            FeedSource::Folder { path } => {
                From::Folder { path: path.clone(), seen: None, known: BTreeMap::new() }
            }
            FeedSource::Url { url } => From::Url(Box::new(Web::new(url)?)),
        };
        Ok(Self { from, limit })
    }

    /// Looks once. With `all`, what has not changed is read again.
    pub async fn look(&mut self, all: bool) -> Result<Looked, SourceError> {
        let limit = self.limit;
        match &mut self.from {
            From::File { path, seen } => {
                let Some(found) = at_rest(path).await? else { return Ok(Looked::Unchanged) };
                if *seen == Some(found) && !all {
                    return Ok(Looked::Unchanged);
                }
                let read = read(path, found, limit)?;
                *seen = read.as_ref().map(|_| found);
                Ok(read.map_or(Looked::Unchanged, Looked::Found))
            }
            From::Folder { path, seen, known } => {
                let Some((newest, found)) = newest(path, known, limit).await? else {
                    return Ok(Looked::Unchanged);
                };
                if seen.as_ref() == Some(&(newest.clone(), found)) && !all {
                    return Ok(Looked::Unchanged);
                }
                let read = read(&newest, found, limit)?;
                *seen = read.as_ref().map(|_| (newest, found));
                Ok(read.map_or(Looked::Unchanged, Looked::Found))
            }
            From::Url(web) => web.look(all, limit).await,
        }
    }
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> SourceError {
    let path = path.to_owned();
    move |error| SourceError::Unreadable { path: path.clone(), error }
}

fn fingerprint(metadata: &std::fs::Metadata) -> Fingerprint {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    let modified = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    Fingerprint {
        inode: metadata.ino(),
        length: metadata.len(),
        modified: u64::try_from(modified.max(0)).unwrap_or(u64::MAX),
    }
}

fn look_at(path: &Path) -> Result<Fingerprint, SourceError> {
    let metadata = std::fs::metadata(path).map_err(unreadable(path))?;
    if metadata.is_file() {
        return Ok(fingerprint(&metadata));
    }
    // A pipe would be waited on for ever.
    Err(unreadable(path)(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")))
}

/// What a file looks like once nobody writes it; `None` while somebody does.
async fn at_rest(path: &Path) -> Result<Option<Fingerprint>, SourceError> {
    let before = look_at(path)?;
    tokio::time::sleep(REST).await;
    Ok(Some(look_at(path)?).filter(|after| *after == before))
}

/// All of a file; `None` when it changed meanwhile.
fn read(path: &Path, found: Fingerprint, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
    let mut file = std::fs::File::open(path).map_err(unreadable(path))?;
    let mut bytes = Vec::new();
    file.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(unreadable(path))?;
    if bytes.len() as u64 > limit {
        return Err(SourceError::TooLarge { place: path.display().to_string(), limit });
    }
    let after = fingerprint(&file.metadata().map_err(unreadable(path))?);
    Ok((after == found).then_some(bytes))
}

/// The file with the highest generation, by what each says of itself: a lie is found out when it is verified. Each is read
/// once for that. A folder of files that are no packages yields the last of them, to be refused.
async fn newest(
    folder: &Path,
    known: &mut BTreeMap<PathBuf, (Fingerprint, Option<u64>)>,
    limit: u64,
) -> Result<Option<(PathBuf, Fingerprint)>, SourceError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder))?.take(MAX_ENTRIES) {
        let path = entry.map_err(unreadable(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "package") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(SourceError::TooMany(folder.to_owned()));
    }
    if paths.is_empty() {
        return Err(SourceError::Empty(folder.to_owned()));
    }
    known.retain(|path, _| paths.contains(path));
    let is_new = |path: &PathBuf, known: &BTreeMap<PathBuf, (Fingerprint, Option<u64>)>| {
        look_at(path).is_ok_and(|found| known.get(path).is_none_or(|(seen, _)| *seen != found))
    };
    let new: Vec<PathBuf> = paths.into_iter().filter(|path| is_new(path, known)).collect();
    let before: Vec<_> = new.iter().map(|path| look_at(path).ok()).collect();
    if !new.is_empty() {
        tokio::time::sleep(REST).await;
    }
    for (path, before) in new.into_iter().zip(before) {
        // One that is still written is looked at the next time.
        let Some(found) = before.filter(|before| look_at(&path).is_ok_and(|after| after == *before)) else {
            continue;
        };
        let generation = match read(&path, found, limit) {
            Ok(Some(bytes)) => package::peek(&bytes).ok().map(|manifest| manifest.generation),
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "a package is passed over");
                None
            }
        };
        known.insert(path, (found, generation));
    }
    let best = known.iter().max_by_key(|(path, (_, generation))| (*generation, (*path).clone()));
    Ok(best.map(|(path, (found, _))| (path.clone(), *found)))
}

#[cfg(test)]
mod tests;
