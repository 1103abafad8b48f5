//! What came of one feed, on disk: the last five packages, which of them is in force, and which is the one to go back to.
//!
//! Files are replaced in one step and synced, so that a crash at any moment leaves either the state before or the state after. A
//! package that does not match its own hashes is set aside, and the one before it is used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snapshot::package::{self, MAX_BYTES};

/// Packages kept, beside the one in force and the one to go back to.
const KEPT: usize = 5;
/// Damaged ones kept for a look.
const DAMAGED: usize = 5;
/// Largest file of marks, in bytes.
const MAX_MARKS: u64 = 64 << 10;
/// Generations that are remembered as given up.
const GIVEN_UP: usize = 64;
/// Longest reason that is kept with one, in characters.
const REASON: usize = 200;

/// What is known of the packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Marks {
    /// Generation in force.
    active: Option<u64>,
    /// Generation to go back to.
    good: Option<u64>,
    /// The highest that ever came; never goes back.
    #[serde(default)]
    highest: u64,
    /// Generation that was forced, and must be confirmed.
    #[serde(default)]
    unconfirmed: Option<u64>,
    /// Generations that are not tried again, newest last, and why.
    #[serde(default)]
    given_up: Vec<(u64, String)>,
}

impl Marks {
    fn give_up(&mut self, generation: u64, reason: &str) {
        self.given_up.retain(|(number, _)| *number != generation);
        self.given_up.push((generation, reason.chars().take(REASON).collect()));
        let needless = self.given_up.len().saturating_sub(GIVEN_UP);
        self.given_up.drain(..needless);
        self.good = self.good.filter(|good| *good != generation);
    }
}

/// The store of one feed.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens or makes the store of a feed below the folder of all feeds, readable by this user only.
    pub fn open(folder: &Path, name: &str) -> io::Result<Self> {
        if !package::is_name(name) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is no name for a feed"),
            ));
        }
        let folder = folder.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    fn file(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("{generation:020}.package"))
    }

    fn marks_file(&self) -> PathBuf {
        self.folder.join("marks.json")
    }

    fn marks(&self) -> io::Result<Marks> {
        let mut text = Vec::new();
        match File::open(self.marks_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Marks::default()),
            file => file?.take(MAX_MARKS).read_to_end(&mut text)?,
        };
        serde_json::from_slice(&text).map_err(|error| {
            let message = format!("{} is damaged ({error}); remove it", self.marks_file().display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }

    fn change(&self, change: impl FnOnce(&mut Marks)) -> io::Result<()> {
        // Threads of the supervisor come here at the same time. The lock ends with its file, so no crash leaves it behind.
        let path = self.folder.join("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
        lock.lock()?;
        // Damaged marks lose which one is in force, and no package.
        let mut marks = self.marks().unwrap_or_else(|error| {
            tracing::error!(%error, "what is in force of a feed was forgotten");
            Marks::default()
        });
        change(&mut marks);
        let text = serde_json::to_vec(&marks)?;
        replace(&self.marks_file(), &text)
    }

    /// Generations on disk, newest first.
    fn generations(&self) -> io::Result<Vec<u64>> {
        let mut generations = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".package")?.parse::<u64>().ok());
            generations.extend(number);
        }
        generations.sort_unstable_by(|a, b| b.cmp(a));
        Ok(generations)
    }

    /// Keeps a package: complete on disk, or not there at all. The oldest beyond five go. Fails with `AlreadyExists` when the
    /// number belongs to other bytes.
    pub fn put(&self, bytes: &[u8], generation: u64) -> io::Result<()> {
        self.write(bytes, generation)?;
        self.change(|marks| marks.highest = marks.highest.max(generation))?;
        self.tidy()
    }

    /// Keeps a package and marks it as in force in one step, so that no crash leaves a number that is used and not in force.
    /// A forced one is unconfirmed until `mark_confirmed`.
    pub fn put_in_force(&self, bytes: &[u8], generation: u64, forced: bool) -> io::Result<()> {
        self.write(bytes, generation)?;
        self.change(|marks| {
            marks.highest = marks.highest.max(generation);
            marks.active = Some(generation);
            marks.unconfirmed = forced.then_some(generation);
        })?;
        self.tidy()
    }

    /// Whether this number belongs to a whole package of other bytes.
    pub fn is_taken(&self, bytes: &[u8], generation: u64) -> bool {
        self.read(generation).is_some_and(|stored| stored != bytes)
    }

    fn write(&self, bytes: &[u8], generation: u64) -> io::Result<()> {
        if self.is_taken(bytes, generation) {
            let message = format!("generation {generation} is another package already; give it a new number");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        replace(&self.file(generation), bytes)
    }

    fn tidy(&self) -> io::Result<()> {
        let marks = self.marks()?;
        let needless = self.generations()?.into_iter().skip(KEPT);
        for old in needless.filter(|old| ![marks.active, marks.good].contains(&Some(*old))) {
            fs::remove_file(self.file(old))?;
        }
        Ok(())
    }

    /// This generation is in force.
    pub fn mark_active(&self, generation: u64) -> io::Result<()> {
        self.change(|marks| {
            marks.active = Some(generation);
            marks.highest = marks.highest.max(generation);
        })
    }

    /// Somebody has confirmed what was forced.
    pub fn mark_confirmed(&self, generation: u64) -> io::Result<()> {
        self.change(|marks| marks.unconfirmed = marks.unconfirmed.filter(|forced| *forced != generation))
    }

    /// This generation is taken back and not tried again; `instead` is in force now, or nothing.
    pub fn take_back(&self, generation: u64, instead: Option<u64>, reason: &str) -> io::Result<()> {
        self.change(|marks| {
            marks.give_up(generation, reason);
            (marks.active, marks.unconfirmed) = (instead, None);
        })
    }

    /// This generation is not tried again.
    pub fn give_up(&self, generation: u64, reason: &str) -> io::Result<()> {
        self.change(|marks| marks.give_up(generation, reason))
    }

    /// Why this generation is not tried again; `None` when it may be.
    pub fn given_up(&self, generation: u64) -> io::Result<Option<String>> {
        let marks = self.marks()?;
        let found = marks.given_up.into_iter().find(|(number, _)| *number == generation);
        Ok(found.map(|(_, reason)| reason))
    }

    /// The generation that was forced and is not confirmed yet, as last marked.
    pub fn unconfirmed(&self) -> Option<u64> {
        self.marks().ok()?.unconfirmed
    }

    /// This generation is the one to go back to.
    pub fn mark_good(&self, generation: u64) -> io::Result<()> {
        self.change(|marks| marks.good = Some(generation))
    }

    /// The generation in force, as last marked.
    pub fn active(&self) -> Option<u64> {
        self.marks().ok()?.active
    }

    /// The generation to go back to.
    pub fn good(&self) -> Option<u64> {
        self.marks().ok()?.good
    }

    /// The highest generation that ever was kept here, 0 when there was none.
    pub fn highest_ever(&self) -> u64 {
        // A package without a mark was written by somebody who died before it was in force: its number may come again.
        if let Ok(marks) = self.marks()
            && marks.highest > 0
        {
            return marks.highest;
        }
        self.generations().ok().and_then(|all| all.first().copied()).unwrap_or(0)
    }

    /// What can be put in force, best first: the one in force, the one to go back to, then the others, newest first. What was
    /// given up is left out; what does not match its hashes is set aside as well.
    pub fn candidates(&self) -> Vec<(u64, Vec<u8>)> {
        let marks = self.marks().unwrap_or_default();
        let mut all = self.generations().unwrap_or_else(|error| {
            tracing::warn!(folder = %self.folder.display(), %error, "what is stored of a feed cannot be listed");
            Vec::new()
        });
        all.retain(|generation| !marks.given_up.iter().any(|(number, _)| number == generation));
        all.sort_by_key(|generation| (Some(*generation) != marks.active, Some(*generation) != marks.good));
        all.into_iter().filter_map(|generation| Some((generation, self.read(generation)?))).collect()
    }

    /// A package that is whole; trusting it is another matter.
    fn read(&self, generation: u64) -> Option<Vec<u8>> {
        let path = self.file(generation);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        if let Err(error) = read {
            tracing::warn!(path = %path.display(), %error, "a stored package cannot be read");
            return None;
        }
        if package::is_whole(&bytes) {
            return Some(bytes);
        }
        tracing::error!(path = %path.display(), "a stored package is damaged and set aside");
        self.set_aside(&path);
        None
    }

    fn set_aside(&self, path: &Path) {
        let aside = path.with_extension("damaged");
        if let Err(error) = fs::rename(path, &aside) {
            tracing::warn!(path = %path.display(), %error, "it could not be set aside");
        }
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut damaged: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "damaged"))
            .collect();
        damaged.sort_unstable();
        let needless = damaged.len().saturating_sub(DAMAGED);
        for path in damaged.iter().take(needless) {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "it stays");
            }
        }
    }
}

/// Replaces a file in one step: whoever reads it, after a crash too, sees the old one or the whole new one.
pub(crate) fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = target.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, target)?;
    target.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests;
