//! The packages of one feed on disk: which one is in force, which one to go back to, and never a torn one among them.
//!
//! Every change is one rename of a file that is complete on disk, so that a crash at any moment leaves the state before or the
//! state after. Whoever writes holds a lock; others may read meanwhile.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snapshot::package::{MAX_BYTES, is_name, is_whole, peek};

/// Packages kept, the one in force and the one to go back to among them.
const KEPT: usize = 5;
/// Damaged packages kept for whoever wants to look at them.
const MAX_DAMAGED: usize = 5;
/// Largest file of pointers, in bytes.
const MAX_POINTERS: u64 = 4096;
/// Ends the name of a package.
const PACKAGE: &str = ".package";
/// Ends the name of a damaged one.
const DAMAGED: &str = ".damaged";

/// Where the packages of one feed lie.
pub struct Store {
    folder: PathBuf,
    name: String,
}

/// What is known of the packages beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pointers {
    active: Option<u64>,
    good: Option<u64>,
    highest: u64,
}

impl Store {
    /// Opens the store of a feed, or makes one readable by this user only. `folder` is that of all feeds.
    pub fn open(folder: &Path, name: &str) -> io::Result<Self> {
        if !is_name(name) {
            return Err(invalid(format!("{name:?} is no name for a feed")));
        }
        let folder = folder.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder, name: name.to_owned() })
    }

    /// The packages that are whole: the one in force, the one to go back to, then the others, newest first. Damaged ones are
    /// set aside.
    pub fn candidates(&self) -> Vec<(u64, Vec<u8>)> {
        let Pointers { active, good, .. } = self.pointers();
        let mut numbers = self.numbers().unwrap_or_else(|error| {
            tracing::error!(feed = self.name, %error, "the stored packages cannot be listed");
            Vec::new()
        });
        numbers.sort_by_key(|number| (Some(*number) != active, Some(*number) != good));
        numbers.into_iter().filter_map(|number| Some((number, self.read(number)?))).collect()
    }

    /// The package with this number, if it is there and whole. A damaged one is set aside.
    pub fn read(&self, number: u64) -> Option<Vec<u8>> {
        match read_bounded(&self.file(number), MAX_BYTES) {
            Ok(bytes) if self.fits(&bytes, number) => Some(bytes),
            Ok(_) => {
                self.set_aside(number);
                None
            }
            // Whoever writes has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::error!(feed = self.name, number, %error, "a stored package cannot be read");
                None
            }
        }
    }

    /// Keeps a package: complete on disk, or not there at all. Others go when there are more than five, never the one in force
    /// or the one to go back to. The same package again changes nothing; another one with a number that was used is an error.
    pub fn put(&self, bytes: &[u8], generation: u64) -> io::Result<()> {
        let _one = self.lock()?;
        if !self.fits(bytes, generation) {
            return Err(invalid(format!("this is not a whole package {generation} of {}", self.name)));
        }
        let highest = self.highest_ever();
        match self.read(generation) {
            Some(known) if known == bytes => return Ok(()),
            _ => {}
        }
        let damaged = self.path(generation, DAMAGED).exists();
        if generation <= highest && !damaged {
            return Err(invalid(format!(
                "generation {generation} of {} was used; {highest} was the last",
                self.name
            )));
        }
        replace(&self.file(generation), bytes)?;
        let pointers = self.pointers();
        self.point(Pointers { highest: pointers.highest.max(highest).max(generation), ..pointers })?;
        self.remove_old(generation)
    }

    /// Remembers which one is in force. It must have been put here.
    pub fn mark_active(&self, generation: u64) -> io::Result<()> {
        let _one = self.lock()?;
        self.must_have(generation)?;
        self.point(Pointers { active: Some(generation), ..self.pointers() })
    }

    /// Remembers which one to go back to. It must have been put here.
    pub fn mark_good(&self, generation: u64) -> io::Result<()> {
        let _one = self.lock()?;
        self.must_have(generation)?;
        self.point(Pointers { good: Some(generation), ..self.pointers() })
    }

    /// The one in force when somebody last said so.
    pub fn active(&self) -> Option<u64> {
        self.pointers().active
    }

    /// The one to go back to.
    pub fn good(&self) -> Option<u64> {
        self.pointers().good
    }

    /// The highest number there ever was, 0 when there was none. Never goes back, whatever is removed.
    pub fn highest_ever(&self) -> u64 {
        let listed = |ending| self.listed(ending).unwrap_or_default().into_iter().max().unwrap_or(0);
        self.pointers().highest.max(listed(PACKAGE)).max(listed(DAMAGED))
    }

    /// Threads of the supervisor come here at the same time. Ends with the file, so no crash leaves it behind.
    fn lock(&self) -> io::Result<File> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn must_have(&self, generation: u64) -> io::Result<()> {
        match self.read(generation) {
            Some(_) => Ok(()),
            None => {
                let message = format!("generation {generation} of {} is not in its store", self.name);
                Err(io::Error::new(io::ErrorKind::NotFound, message))
            }
        }
    }

    /// Whether these bytes are a whole package of this feed with this number.
    fn fits(&self, bytes: &[u8], number: u64) -> bool {
        is_whole(bytes) && peek(bytes).is_ok_and(|said| said.name == self.name && said.generation == number)
    }

    fn path(&self, number: u64, ending: &str) -> PathBuf {
        self.folder.join(format!("{number:020}{ending}"))
    }

    fn file(&self, number: u64) -> PathBuf {
        self.path(number, PACKAGE)
    }

    /// Numbers of the stored packages, newest first.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        self.listed(PACKAGE)
    }

    fn listed(&self, ending: &str) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(ending)?.parse::<u64>().ok()));
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    fn remove_old(&self, newest: u64) -> io::Result<()> {
        let Pointers { active, good, .. } = self.pointers();
        let needed = |number: &u64| [active, good, Some(newest)].contains(&Some(*number));
        let mut numbers = self.numbers()?;
        numbers.sort_by_key(|number| !needed(number));
        for old in numbers.into_iter().skip(KEPT) {
            fs::remove_file(self.file(old))?;
        }
        Ok(())
    }

    fn set_aside(&self, number: u64) {
        let done = fs::rename(self.file(number), self.path(number, DAMAGED)).and_then(|()| {
            let damaged = self.listed(DAMAGED)?;
            damaged.into_iter().skip(MAX_DAMAGED).try_for_each(|old| fs::remove_file(self.path(old, DAMAGED)))
        });
        let feed = &self.name;
        match done {
            Ok(()) => tracing::error!(feed, number, "a stored package is damaged and was set aside"),
            Err(error) => {
                tracing::error!(feed, number, %error, "a stored package is damaged and stays where it is")
            }
        }
    }

    fn pointers_file(&self) -> PathBuf {
        self.folder.join("pointers")
    }

    /// What is pointed at; nothing when that cannot be read, so that the newest whole package comes first.
    fn pointers(&self) -> Pointers {
        let read = read_bounded(&self.pointers_file(), MAX_POINTERS).and_then(|bytes| pointers_of(&bytes));
        read.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(feed = self.name, %error, "which package is in force cannot be read");
            }
            Pointers::default()
        })
    }

    fn point(&self, pointers: Pointers) -> io::Result<()> {
        let text = serde_json::to_string(&pointers)?;
        replace(&self.pointers_file(), format!("{}\n{text}\n", blake3::hash(text.as_bytes())).as_bytes())
    }
}

fn pointers_of(bytes: &[u8]) -> io::Result<Pointers> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (hash, text) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if blake3::hash(text).to_string().as_bytes() != hash {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the pointers are damaged"));
    }
    Ok(serde_json::from_slice(text)?)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    let fits = bytes.len() as u64 <= limit;
    if fits { Ok(bytes) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large")) }
}

/// Replaces a file in one step: whoever reads it sees the old one or the whole new one, also after a power cut.
fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    // One name for all, so that crashes leave one behind at most.
    let temporary = target.with_file_name("writing");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, target)?;
    target.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests;
