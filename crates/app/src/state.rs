//! The state folder: one supervisor at a time, the last good generations, ticket keys, certificates, the admin socket.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use api::process::{Switch, TicketKey, WantedListener};
use api::seal::{KEY_BYTES, SigningKey, hexadecimal};
use serde::de::DeserializeOwned;

use crate::package;

/// Generations kept.
const KEPT: usize = 5;
/// Largest file of ticket keys or addresses, in bytes.
const MAX_SMALL: u64 = 256 * 1024;

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

/// Where the development authority lies in a state folder.
pub fn authority(state: &Path) -> PathBuf {
    state.join("ca")
}

/// Where the sockets lie at which a new supervisor finds edges that run without one.
pub fn edges(state: &Path) -> PathBuf {
    state.join("edges")
}

/// Where the key lies with which this machine seals its signals.
pub fn machine_key_file(state: &Path) -> PathBuf {
    state.join("machine.key")
}

/// Where analytics takes events from edges.
pub fn events(state: &Path) -> PathBuf {
    state.join("events.sock")
}

/// Where the packages of all feeds are kept.
pub fn feeds(state: &Path) -> PathBuf {
    state.join("feeds")
}

/// Where watch keeps what it knows, and answers questions.
pub fn watch(state: &Path) -> PathBuf {
    state.join("watch")
}

/// Where analytics answers questions.
pub fn analytics(state: &Path) -> PathBuf {
    state.join("analytics.sock")
}

impl StateFolder {
    /// Opens or makes the folder, readable by this user only, and claims it.
    pub fn claim(path: &Path) -> anyhow::Result<Self> {
        for folder in [path.join("generations"), edges(path)] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(|| {
                format!("cannot make the state folder {}; choose another with --state-dir", path.display())
            })?;
        }
        let lock =
            OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path.join("lock"));
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

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key with which this machine seals its signals; made when there is none.
    pub fn machine_key(&self) -> anyhow::Result<SigningKey> {
        let path = machine_key_file(&self.path);
        match fs::read_to_string(&path) {
            Ok(text) => SigningKey::parse(&text)
                .with_context(|| format!("{} is damaged; remove it to have another made", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = [0; KEY_BYTES];
                getrandom::fill(&mut seed).context("this machine has no randomness")?;
                let text = hexadecimal(&seed);
                replace(&path, |file| file.write_all(text.as_bytes()))?;
                Ok(SigningKey::from_seed(&seed)?)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Where what came of feeds is kept.
    pub fn feeds(&self) -> PathBuf {
        feeds(&self.path)
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
    pub fn keep(&self, number: u64, package: &File) -> io::Result<()> {
        replace(&self.file(number), |file| package::copy(package, file))?;
        // The newest good one stays, however many came after it and did not last.
        let good: Vec<u64> = read_small(&self.good_file()).unwrap_or_default();
        let newest_good = good.iter().max().copied();
        for old in self.numbers()?.into_iter().skip(KEPT).filter(|old| Some(*old) != newest_good) {
            fs::remove_file(self.file(old))?;
        }
        Ok(())
    }

    fn good_file(&self) -> PathBuf {
        self.path.join("good.json")
    }

    /// Remembers that a generation has served for its whole bake: from now on it is one to go back to.
    pub fn mark_good(&self, number: u64) -> io::Result<()> {
        let mut good: Vec<u64> = read_small(&self.good_file()).unwrap_or_default();
        good.retain(|other| *other != number);
        good.push(number);
        let text = serde_json::to_vec(good.get(good.len().saturating_sub(KEPT)..).unwrap_or_default())?;
        replace(&self.good_file(), |file| file.write_all(&text))
    }

    /// The stored generations, opened but not looked into: those that have served for their whole bake, newest first, then
    /// the others, newest first.
    pub fn stored(&self) -> Vec<(u64, File)> {
        let good: Vec<u64> = read_small(&self.good_file()).unwrap_or_default();
        let mut numbers = self.numbers().unwrap_or_else(|error| {
            tracing::warn!(%error, "the stored generations cannot be listed");
            Vec::new()
        });
        let open = |number: u64| match File::open(self.file(number)) {
            Ok(file) => Some((number, file)),
            Err(error) => {
                tracing::warn!(number, %error, "a stored generation cannot be read");
                None
            }
        };
        numbers.sort_by_key(|number| !good.contains(number));
        numbers.into_iter().take(KEPT).filter_map(open).collect()
    }

    fn listeners_file(&self) -> PathBuf {
        self.path.join("listeners.json")
    }

    /// The addresses that were listened on last: where the compiled-in defaults answer.
    pub fn listeners(&self) -> Vec<WantedListener> {
        read_small(&self.listeners_file()).unwrap_or_default()
    }

    /// Keeps the addresses listened on.
    pub fn keep_listeners(&self, listeners: &[WantedListener]) -> io::Result<()> {
        let text = serde_json::to_vec(listeners)?;
        replace(&self.listeners_file(), |file| file.write_all(&text))
    }

    fn switches_file(&self) -> PathBuf {
        self.path.join("switches.json")
    }

    /// What was switched off. Fails when that is known to somebody and cannot be read: none is not the same as not known.
    pub fn switches(&self) -> io::Result<Vec<Switch>> {
        match File::open(self.switches_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(file) => Ok(serde_json::from_reader(file.take(MAX_SMALL))?),
        }
    }

    /// Keeps what is switched off.
    pub fn keep_switches(&self, switches: &[Switch]) -> io::Result<()> {
        let text = serde_json::to_vec(switches)?;
        replace(&self.switches_file(), |file| file.write_all(&text))
    }

    fn tickets_file(&self) -> PathBuf {
        self.path.join("tickets.json")
    }

    /// The ticket keys of the run before; empty when there are none that can be read.
    pub fn tickets(&self) -> Vec<TicketKey> {
        read_small(&self.tickets_file()).unwrap_or_default()
    }

    /// Keeps the ticket keys, so that sessions continue after a restart.
    pub fn keep_tickets(&self, keys: &[TicketKey]) -> io::Result<()> {
        let text = serde_json::to_vec(keys)?;
        replace(&self.tickets_file(), |file| file.write_all(&text))
    }
}

/// A small file of JSON; `None` when there is none that can be read.
fn read_small<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_SMALL).read_to_end(&mut text)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Replaces a file in one step: whoever reads it sees the old one or the whole new one.
fn replace(target: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = target.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&temporary, target)?;
    target.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use package::Sources;
    use snapshot::source::SourceTree;

    #[test]
    fn keeps_five_and_reads_them_back_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::claim(folder.path()).unwrap();
        for number in 1..=7 {
            let text = Arc::from(format!("# {number}").as_bytes());
            let sources = Sources { file: "rempart.toml".into(), text, tree: SourceTree::default() };
            state.keep(number, &package::make(number, &sources).unwrap()).unwrap();
        }
        let stored = state.stored();
        assert_eq!(stored.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [7, 6, 5, 4, 3]);
        assert_eq!(&*package::read(&stored[0].1).unwrap().1.text, b"# 7");
    }

    #[test]
    fn what_has_proved_itself_comes_first_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::claim(folder.path()).unwrap();
        let numbers = || state.stored().iter().map(|(number, _)| *number).collect::<Vec<_>>();
        for number in 1..=9 {
            let sources = Sources {
                file: "rempart.toml".into(),
                text: Arc::from(&b""[..]),
                tree: SourceTree::default(),
            };
            state.keep(number, &package::make(number, &sources).unwrap()).unwrap();
            if number == 2 {
                state.mark_good(2).unwrap();
            }
        }
        assert_eq!(numbers(), [2, 9, 8, 7, 6]);
        state.mark_good(7).unwrap();
        assert_eq!(numbers(), [7, 2, 9, 8, 6]);
        fs::write(state.good_file(), "nonsense").unwrap();
        assert_eq!(numbers(), [9, 8, 7, 6, 5]);
    }

    #[test]
    fn ticket_keys_come_back_and_damaged_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::claim(folder.path()).unwrap();
        assert!(state.tickets().is_empty());
        let key = TicketKey { name: "aa".into(), secret: "bb".into(), made: 1 };
        state.keep_tickets(std::slice::from_ref(&key)).unwrap();
        assert_eq!(state.tickets(), [key]);
        fs::write(state.tickets_file(), "{").unwrap();
        assert!(state.tickets().is_empty());
    }

    #[test]
    fn a_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let _first = StateFolder::claim(folder.path()).unwrap();
        let error = StateFolder::claim(folder.path()).err().unwrap().to_string();
        assert!(error.contains("--state-dir"), "{error}");
    }
}
