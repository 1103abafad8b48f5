//! The state folder: one process at a time, the last good generations, the development authority, the admin socket.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use snapshot::source::SourceTree;

/// Generations kept.
const KEPT: usize = 5;
/// Largest stored generation read back, in bytes.
const MAX_STORED: u64 = 64 << 20;
/// First bytes of a stored generation; the digit is the version of the format.
const MAGIC: &[u8; 16] = b"rempart gen 01\r\n";
/// Bytes of a BLAKE3 hash.
const HASH: usize = 32;

/// The state folder of a running Rempart.
pub struct StateFolder {
    path: PathBuf,
    /// Held for as long as the process lives.
    _lock: File,
}

/// Where state lies when nothing else is said.
pub fn default_folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/rempart");
    }
    let base = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    base.or_else(home).unwrap_or_else(|| PathBuf::from(".")).join("rempart")
}

/// What was compiled, kept so that it can be compiled again without the files it came from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The configuration file as the operator named it.
    pub file: String,
    /// Its text.
    pub text: Arc<[u8]>,
    /// The files it refers to.
    pub tree: SourceTree,
}

/// A generation on disk.
#[derive(Debug)]
pub struct Stored {
    /// Its number.
    pub number: u64,
    /// What it was compiled from.
    pub sources: Sources,
}

#[derive(Serialize, Deserialize)]
struct Header {
    number: u64,
    file: String,
    text: usize,
    files: Vec<(String, usize)>,
}

impl StateFolder {
    /// Opens or makes the folder, readable by this user only, and claims it.
    pub fn claim(path: &Path) -> anyhow::Result<Self> {
        let generations = path.join("generations");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&generations).with_context(|| {
            format!("cannot make the state folder {}; choose another with --state-dir", path.display())
        })?;
        let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path.join("lock"));
        let lock = lock.with_context(|| format!("cannot write in the state folder {}", path.display()))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                "another Rempart uses the state folder {}; stop it, or give this one its own with --state-dir",
                path.display()
            ),
            Err(error) => Err(error).context("cannot lock the state folder"),
        }
    }

    /// Where the development authority lies.
    pub fn authority(&self) -> PathBuf {
        self.path.join("ca")
    }

    fn generations(&self) -> PathBuf {
        self.path.join("generations")
    }

    /// Numbers of the stored generations, newest first.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(self.generations())? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".generation")?.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// The highest number ever stored here, 0 when there is none.
    pub fn highest(&self) -> u64 {
        self.numbers().ok().and_then(|numbers| numbers.first().copied()).unwrap_or(0)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.generations().join(format!("{number:012}.generation"))
    }

    /// Keeps a generation: complete on disk, or not there at all. Older ones beyond five go.
    pub fn keep(&self, number: u64, sources: &Sources) -> io::Result<()> {
        let mut body = Vec::new();
        let files: Vec<_> = sources.tree.files().collect();
        let header = Header {
            number,
            file: sources.file.clone(),
            text: sources.text.len(),
            files: files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.len())).collect(),
        };
        let header = serde_json::to_vec(&header)?;
        body.extend_from_slice(&(header.len() as u64).to_be_bytes());
        body.extend_from_slice(&header);
        body.extend_from_slice(&sources.text);
        files.iter().for_each(|(_, bytes)| body.extend_from_slice(bytes));

        let target = self.file(number);
        let temporary = target.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(MAGIC)?;
        file.write_all(blake3::hash(&body).as_bytes())?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&temporary, &target)?;
        File::open(self.generations())?.sync_all()?;
        for old in self.numbers()?.into_iter().skip(KEPT) {
            fs::remove_file(self.file(old))?;
        }
        Ok(())
    }

    /// The stored generations that are intact, newest first; damaged ones are told in the log and passed over.
    pub fn stored(&self) -> Vec<Stored> {
        let numbers = self.numbers().unwrap_or_else(|error| {
            tracing::warn!(%error, "the stored generations cannot be listed");
            Vec::new()
        });
        let read = |number: u64| match read_stored(&self.file(number)) {
            Ok(stored) => Some(stored),
            Err(error) => {
                tracing::warn!(number, %error, "a stored generation is damaged and passed over");
                None
            }
        };
        numbers.into_iter().take(KEPT).filter_map(read).collect()
    }
}

fn read_stored(path: &Path) -> io::Result<Stored> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_STORED).read_to_end(&mut bytes)?;
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("not a stored generation of this version"))?;
    let (hash, body) = rest.split_at_checked(HASH).ok_or_else(|| damaged("cut off"))?;
    if blake3::hash(body).as_bytes() != hash {
        return Err(damaged("the content does not match its hash"));
    }
    let (length, body) = body.split_first_chunk::<8>().ok_or_else(|| damaged("cut off"))?;
    let length = usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (header, mut body) = body.split_at_checked(length).ok_or_else(|| damaged("cut off"))?;
    let header: Header = serde_json::from_slice(header)?;
    let mut next = |length: usize| -> io::Result<Arc<[u8]>> {
        let (piece, rest) = body.split_at_checked(length).ok_or_else(|| damaged("cut off"))?;
        body = rest;
        Ok(Arc::from(piece))
    };
    let text = next(header.text)?;
    let mut tree = SourceTree::default();
    for (path, length) in header.files {
        tree.insert(path, Ok(next(length)?));
    }
    Ok(Stored { number: header.number, sources: Sources { file: header.file, text, tree } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Sources {
        let mut tree = SourceTree::default();
        tree.insert("key.pem", Ok(Arc::from(&b"secret"[..])));
        Sources { file: "rempart.toml".into(), text: Arc::from(text.as_bytes()), tree }
    }

    #[test]
    fn keeps_five_and_reads_them_back_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::claim(folder.path()).unwrap();
        for number in 1..=7 {
            state.keep(number, &sources(&format!("# {number}"))).unwrap();
        }
        let stored = state.stored();
        assert_eq!(stored.iter().map(|stored| stored.number).collect::<Vec<_>>(), [7, 6, 5, 4, 3]);
        assert_eq!(&*stored[0].sources.text, b"# 7");
        assert_eq!(&*stored[0].sources.tree.get("key.pem").unwrap(), b"secret");
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::claim(folder.path()).unwrap();
        state.keep(1, &sources("[[site]]")).unwrap();
        let good = fs::read(state.file(1)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(state.file(1), &bad).unwrap();
            assert!(state.stored().is_empty(), "byte {at}");
            fs::write(state.file(1), &good[..at]).unwrap();
            assert!(state.stored().is_empty(), "cut at {at}");
        }
    }

    #[test]
    fn a_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let _first = StateFolder::claim(folder.path()).unwrap();
        let error = StateFolder::claim(folder.path()).err().unwrap().to_string();
        assert!(error.contains("--state-dir"), "{error}");
    }
}
