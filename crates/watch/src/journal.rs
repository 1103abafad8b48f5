//! Incidents on disk: one file of lines of JSON that grows by appending, and is written anew when it has become long.
//!
//! A line counts once its end is there. What a crash left half written at the end is cut off, what cannot be read elsewhere
//! is passed over and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::incident::Entry;
use crate::notify::Told;

/// The file is written anew when it is longer than this, in bytes, and twice as long as it has to be.
const LONG: u64 = 4 << 20;
/// What is read of a file, at most, in bytes: its end. Longer ones are not ours.
const MAX_BYTES: u64 = 64 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Of incidents and changes.
    Entry(Entry),
    /// Who has been told what.
    Told(Told),
}

/// What a file held.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order in which it was written.
    pub lines: Vec<Line>,
    /// Lines that could not be read.
    pub damaged: usize,
}

/// The open file.
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Length after it was last written anew.
    least: u64,
}

impl Journal {
    /// Opens the file, creates it when there is none, and reads it.
    pub fn open(path: &Path) -> io::Result<(Self, Found)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        if length > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than any journal"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            bytes.truncate(whole);
            file.set_len(whole as u64)?;
            file.sync_all()?;
        }
        let mut found = Found::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => found.lines.push(line),
                Err(_) => found.damaged += 1,
            }
        }
        Ok((Self { path: path.to_owned(), file, length: whole as u64, least: 0 }, found))
    }

    /// Appends, and is done when the disk has it.
    ///
    /// What could not be written whole is taken back, so that the next line does not go on where this one broke off.
    pub fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            write_line(&mut bytes, line)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Whether it is worth writing anew.
    pub fn is_long(&self) -> bool {
        self.length > LONG && self.length > self.least.saturating_mul(2)
    }

    /// Writes a new file that holds this only, and goes on with it. The old one stays whole until then.
    pub fn rewrite(&mut self, lines: impl Iterator<Item = Line>) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let mut bytes = Vec::new();
        for line in lines {
            write_line(&mut bytes, &line)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.length = self.file.seek(SeekFrom::End(0))?;
        self.least = self.length;
        Ok(())
    }
}

fn write_line(bytes: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use base::happening::{Component, Happening, Severity, What};
    use base::time::Timestamp;

    use super::*;
    use crate::incident::Incidents;

    fn script(journal: &mut Journal, incidents: &mut Incidents, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let (at, what) = (Timestamp(number), What::ArtefactRefused);
            let message = format!("refused {number}: «é»");
            let happening = Happening::new(at, what, Severity::Warning, Component::Feeds, "cause", message)
                .about(number.to_string());
            let lines: Vec<_> = incidents.happened(&happening).into_iter().map(Line::Entry).collect();
            journal.append(&lines).unwrap();
        }
    }

    fn entries(found: Found) -> Vec<Entry> {
        let entry = |line| if let Line::Entry(entry) = line { Some(entry) } else { None };
        found.lines.into_iter().filter_map(entry).collect()
    }

    #[test]
    fn torn_at_any_byte_everything_before_is_there_and_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert!(found.lines.is_empty());
        let mut incidents = Incidents::default();
        script(&mut journal, &mut incidents, 0..4);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut journal, found) = Journal::open(&path).unwrap();
            assert_eq!(found.damaged, 0);
            let complete = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            let mut restored = Incidents::restored(entries(found));
            assert_eq!(restored.all(), &incidents.all()[..complete]);
            script(&mut journal, &mut restored, 9..10);
            let (_, found) = Journal::open(&path).unwrap();
            assert_eq!(Incidents::restored(entries(found)), restored);
        }
    }

    #[test]
    fn a_damaged_line_costs_that_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        script(&mut journal, &mut Incidents::default(), 0..3);
        let mut bytes = std::fs::read(&path).unwrap();
        let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        bytes[second] = 0;
        std::fs::write(&path, &bytes).unwrap();
        let (_, found) = Journal::open(&path).unwrap();
        assert_eq!((found.damaged, entries(found).len()), (1, 2));
    }

    #[test]
    fn written_anew_it_holds_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let mut incidents = Incidents::default();
        script(&mut journal, &mut incidents, 0..20);
        journal.rewrite(incidents.entries().map(Line::Entry)).unwrap();
        script(&mut journal, &mut incidents, 20..25);
        let (_, found) = Journal::open(&path).unwrap();
        assert_eq!(Incidents::restored(entries(found)), incidents);
        assert!(!path.with_extension("next").exists());
    }
}
