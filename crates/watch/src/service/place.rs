//! The folder of watch: one process at a time has it, and the one that comes asks the one that is there to leave.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::roles::WatchSettings;
use rustix::fs::FlockOperation;

use super::questions::{Answer, Question, ask};

/// How often is looked whether the one that was asked to leave has left, and how often at most.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 200;
/// Longest file of settings, in bytes.
const MAX_SETTINGS: u64 = 16 << 20;

/// Where watch answers questions.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("watch.sock")
}

/// The folder, held.
pub struct Place {
    folder: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes the folder if there is none, and takes it, from another watch if need be.
    pub fn take(folder: &Path) -> io::Result<(Self, UnixListener)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
        let mut looks = 0;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if looks < LOOKS => {
                    // One that is only just beginning has no socket yet: it is asked again.
                    match ask(&socket(folder), Question::Leave) {
                        Ok(Answer::Leaving) | Err(_) => {}
                        Ok(_) => return Err(io::Error::other("another watch answers something else")),
                    }
                    looks += 1;
                    std::thread::sleep(LOOK);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let text = "another watch has the folder and does not leave";
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Whoever had the lock before is gone, and its socket answers nobody.
        match fs::remove_file(socket(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket(folder))?;
        fs::set_permissions(socket(folder), fs::Permissions::from_mode(0o600))?;
        Ok((Self { folder: folder.to_owned(), _lock: lock }, listener))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether somebody has removed it: there is nothing to watch any more.
    pub fn is_gone(&self) -> bool {
        fs::metadata(&self.folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// What was to be done when it was last told; `None`: it never was, or that cannot be read.
    pub fn settings(&self) -> Option<WatchSettings> {
        let mut text = Vec::new();
        let file = File::open(self.folder.join("settings.json")).ok()?;
        file.take(MAX_SETTINGS).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text)
            .map_err(|error| tracing::warn!(%error, "the settings kept of watch are damaged"))
            .ok()
    }

    /// Keeps what shall be done, for when nobody tells it.
    pub fn keep(&self, settings: &WatchSettings) -> io::Result<()> {
        let text = serde_json::to_vec(settings)?;
        let (path, next) = (self.folder.join("settings.json"), self.folder.join("settings.next"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(next, path)?;
        File::open(&self.folder)?.sync_all()
    }
}
