//! Where certificates, accounts and histories are kept; the trait, and files in the state folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::history::History;
use crate::name::Name;

/// Chain and key in force.
pub const CURRENT_FILE: &str = "current.pem";
/// Chain and key in force before that.
pub const PREVIOUS_FILE: &str = "previous.pem";
/// What happened to the name.
pub const HISTORY_FILE: &str = "history.json";
const LOCK_FILE: &str = ".lock";
/// Larger files are not what this module wrote.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Names a store may hold; above every bound on what is wanted.
const MAX_NAMES: usize = 100_000;

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another keeper works with this store.
    #[error("{0}: another process keeps these certificates; two at once would order everything twice")]
    Locked(PathBuf),
    /// A file holds something else.
    #[error("{path} is not what was written: {reason}; remove it and it will be made anew")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What a keeper needs to keep. Calls block, for the time a local disk takes; whoever implements it over a network keeps a copy
/// at hand. One keeper writes at a time: an implementation sees to that when it is opened.
pub trait Store {
    /// Chain and key in force for a name, one PEM text; `None` when there is none yet.
    fn current(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError>;
    /// Puts a new chain and key in force, all or nothing; the one before is kept beside it.
    fn put(&self, name: &Name, pem: &str) -> Result<(), StoreError>;
    /// What happened to a name; `None` when nothing is known.
    fn history(&self, name: &Name) -> Result<Option<History>, StoreError>;
    /// Writes down what happened.
    fn put_history(&self, name: &Name, history: &History) -> Result<(), StoreError>;
    /// Removes a name that has no certificate; one that has stays.
    fn forget(&self, name: &Name) -> Result<(), StoreError>;
    /// Every name something is known of.
    fn names(&self) -> Result<Vec<Name>, StoreError>;
    /// What was written down for the account at an authority, by its directory URL.
    fn account(&self, directory: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Writes an account down.
    fn put_account(&self, directory: &str, account: &[u8]) -> Result<(), StoreError>;
}

/// The folder of certificates in a state folder; for each name a folder of its own.
pub fn certificates_folder(state_folder: &Path) -> PathBuf {
    state_folder.join("certificates")
}

/// Where chain and key of a name are; the file need not exist. `None` for what is no name.
pub fn certificate_path(state_folder: &Path, name: &str) -> Option<PathBuf> {
    let name = Name::parse(name).ok()?;
    Some(certificates_folder(state_folder).join(name.folder()).join(CURRENT_FILE))
}

/// Files in the state folder, readable by their owner only.
#[derive(Debug)]
pub struct FileStore {
    certificates: PathBuf,
    accounts: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl FileStore {
    /// Opens the store in a state folder, making what is missing. Fails when another process has it open.
    pub fn open(state_folder: &Path) -> Result<Self, StoreError> {
        let certificates = certificates_folder(state_folder);
        let accounts = state_folder.join("accounts");
        private_folder(&certificates)?;
        private_folder(&accounts)?;
        let path = certificates.join(LOCK_FILE);
        let lock = private_file(&path)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { certificates, accounts, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(path)),
            Err(error) => Err(StoreError::File { path, source: error.into() }),
        }
    }

    fn folder(&self, name: &Name) -> PathBuf {
        self.certificates.join(name.folder())
    }

    fn account_path(&self, directory: &str) -> PathBuf {
        self.accounts.join(format!("{}.json", blake3::hash(directory.as_bytes()).to_hex()))
    }
}

impl Store for FileStore {
    fn current(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        read(&self.folder(name).join(CURRENT_FILE))
    }

    fn put(&self, name: &Name, pem: &str) -> Result<(), StoreError> {
        let folder = self.folder(name);
        private_folder(&folder)?;
        if let Some(before) = read(&folder.join(CURRENT_FILE))? {
            replace(&folder, PREVIOUS_FILE, &before)?;
        }
        replace(&folder, CURRENT_FILE, pem.as_bytes())
    }

    fn history(&self, name: &Name) -> Result<Option<History>, StoreError> {
        let path = self.folder(name).join(HISTORY_FILE);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(history) => Ok(Some(history)),
            Err(error) => Err(StoreError::Damaged { path, reason: error.to_string() }),
        }
    }

    fn put_history(&self, name: &Name, history: &History) -> Result<(), StoreError> {
        let folder = self.folder(name);
        private_folder(&folder)?;
        let bytes = serde_json::to_vec_pretty(history).map_err(|error| StoreError::Damaged {
            path: folder.join(HISTORY_FILE),
            reason: error.to_string(),
        })?;
        // Not made durable: a power cut costs at most the memory of some attempts, and a write per name must stay cheap.
        write_beside(&folder, HISTORY_FILE, &bytes, false)
    }

    fn forget(&self, name: &Name) -> Result<(), StoreError> {
        let folder = self.folder(name);
        if folder.join(CURRENT_FILE).exists() {
            return Ok(());
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::File { path: folder, source: error })
            }
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<Vec<Name>, StoreError> {
        let failed = |source| StoreError::File { path: self.certificates.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.certificates).map_err(failed)?.take(MAX_NAMES) {
            let entry = entry.map_err(failed)?;
            names.extend(entry.file_name().to_str().and_then(Name::from_folder));
        }
        names.sort();
        Ok(names)
    }

    fn account(&self, directory: &str) -> Result<Option<Vec<u8>>, StoreError> {
        read(&self.account_path(directory))
    }

    fn put_account(&self, directory: &str, account: &[u8]) -> Result<(), StoreError> {
        let path = self.account_path(directory);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        replace(&self.accounts, name, account)
    }
}

/// Makes a folder with mode 0700, or gives it that mode; its parent may have any.
fn private_folder(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o7777 == 0o700 => Ok(()),
        Ok(_) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed),
        Err(_) => {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            // Without this a power cut could take the folder away from under what is written into it.
            path.parent().map_or(Ok(()), sync_folder)
        }
    }
}

/// Opens a file for writing with mode 0600, whatever mode it had.
fn private_file(path: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::File { path: path.to_owned(), source };
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(file)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = |source| StoreError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(StoreError::Damaged { path: path.to_owned(), reason: "it is far too large".to_owned() });
    }
    Ok(Some(bytes))
}

/// Writes a file beside the old one, makes it durable, and puts it in the old one's place.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    write_beside(folder, name, bytes, true)?;
    sync_folder(folder)
}

/// Puts a file in the old one's place, so that a reader sees one or the other.
fn write_beside(folder: &Path, name: &str, bytes: &[u8], durable: bool) -> Result<(), StoreError> {
    let beside = folder.join(format!(".{name}.new"));
    let failed = |source| StoreError::File { path: beside.clone(), source };
    let mut file = private_file(&beside)?;
    file.write_all(bytes).map_err(failed)?;
    if durable {
        file.sync_all().map_err(failed)?;
    }
    fs::rename(&beside, folder.join(name)).map_err(failed)
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|source| StoreError::File { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_certificate_replaces_the_one_before_which_is_kept_and_only_the_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        let name = Name::parse("*.example.org").unwrap();
        assert_eq!(store.current(&name).unwrap(), None);
        store.put(&name, "one").unwrap();
        // What an attempt that was cut off left behind, readable by others, is no obstacle and not taken over.
        let place = folder.path().join("certificates/_.example.org");
        fs::write(place.join(".current.pem.new"), "half").unwrap();
        fs::set_permissions(place.join(".current.pem.new"), fs::Permissions::from_mode(0o644)).unwrap();
        store.put(&name, "two").unwrap();
        store.put_history(&name, &History::default()).unwrap();
        store.put_account("https://ca.example/dir", b"{}").unwrap();
        assert_eq!(store.current(&name).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::read(place.join(PREVIOUS_FILE)).unwrap(), b"one");
        assert_eq!(store.account("https://ca.example/dir").unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(store.account("https://ca.example/other").unwrap(), None);
        for file in [CURRENT_FILE, PREVIOUS_FILE, HISTORY_FILE] {
            assert_eq!(mode(&place.join(file)), 0o600, "{file}");
        }
        for entry in fs::read_dir(folder.path().join("accounts")).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        for path in [&place, &folder.path().join("accounts"), &folder.path().join("certificates")] {
            assert_eq!(mode(path), 0o700, "{}", path.display());
        }
        assert_eq!(store.names().unwrap(), std::slice::from_ref(&name));
        assert_eq!(certificate_path(folder.path(), "*.example.org"), Some(place.join(CURRENT_FILE)));
        assert_eq!(certificate_path(folder.path(), "../x"), None);
    }

    #[test]
    fn only_one_keeper_has_a_store_open() {
        let folder = tempfile::tempdir().unwrap();
        let first = FileStore::open(folder.path()).unwrap();
        assert!(matches!(FileStore::open(folder.path()), Err(StoreError::Locked(_))));
        drop(first);
        FileStore::open(folder.path()).unwrap();
    }

    #[test]
    fn a_damaged_history_is_told_and_forgetting_spares_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        let [kept, gone] = ["kept.example", "gone.example"].map(|name| Name::parse(name).unwrap());
        store.put(&kept, "pem").unwrap();
        store.put_history(&gone, &History::default()).unwrap();
        fs::write(folder.path().join("certificates/kept.example/history.json"), "{").unwrap();
        assert!(matches!(store.history(&kept), Err(StoreError::Damaged { .. })));
        store.forget(&kept).unwrap();
        store.forget(&gone).unwrap();
        store.forget(&gone).unwrap();
        assert_eq!(store.names().unwrap(), [kept]);
    }
}
