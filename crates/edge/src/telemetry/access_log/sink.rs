//! The target of the log as the writer thread sees it: opened, rotated, tidied, and tried again with back-off when it fails.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base::time::Timestamp;
use snapshot::generation::{AccessLog, AccessLogTarget};

use super::{Chunk, LogCounts};
use crate::telemetry::calendar;

/// Mode of a new log file: it names visitors, so it is not for everybody.
const FILE_MODE: u32 = 0o640;
/// A file is rotated at this age even if small, so that retention also holds on a quiet site.
const MAX_FILE_AGE: Duration = Duration::from_secs(24 * 3_600);
/// Shortest age of rotation, should the retention be shorter still.
const MIN_FILE_AGE: Duration = Duration::from_secs(60);
/// First and longest time a failed target is left alone; doubles in between.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// How long a pipe or terminal that takes nothing is waited for, and between two looks at it.
const STALL_LIMIT: Duration = Duration::from_secs(1);
const STALL_STEP: Duration = Duration::from_millis(5);
/// Directory entries looked at for rotated files in one go.
const MAX_DIRECTORY_ENTRIES: usize = 100_000;

/// Both clocks, read once per step and handed down.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) steady: Instant,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { wall: wall(SystemTime::now()), steady: Instant::now() }
    }
}

/// Where lines go, and what is known about its health.
pub(super) struct Sink {
    config: AccessLog,
    counts: Arc<LogCounts>,
    output: Option<Output>,
    failing: Option<BackOff>,
    no_rotation_before: Option<Instant>,
    /// Causes already warned about and not yet over.
    warned: BTreeSet<(Step, Option<i32>)>,
}

struct Output {
    file: File,
    /// Device and inode of a regular file; `None` for what cannot be rotated.
    identity: Option<(u64, u64)>,
    begun: Timestamp,
    /// The last line is incomplete, so the next write begins with a line feed.
    torn: bool,
}

impl Output {
    /// Whether the path still names this file; false when it cannot be told.
    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|there| self.identity.is_some() && identity_of(&there) == self.identity)
    }
}

struct BackOff {
    until: Instant,
    next: Duration,
}

/// What was being done when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Open,
    Write,
    Rotate,
    Tidy,
}

impl Step {
    fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Write => "write",
            Self::Rotate => "rotate",
            Self::Tidy => "delete old files of",
        }
    }
}

impl Sink {
    pub(super) fn new(config: AccessLog, counts: Arc<LogCounts>) -> Self {
        counts.set_problem(None);
        let (output, failing, no_rotation_before) = (None, None, None);
        Self { config, counts, output, failing, no_rotation_before, warned: BTreeSet::new() }
    }

    /// Writes the lines, or counts those that could not be written.
    pub(super) fn write(&mut self, chunk: &Chunk, now: Now) {
        if self.config.to == AccessLogTarget::Off {
            return;
        }
        if self.failing.as_ref().is_some_and(|failing| now.steady < failing.until) {
            self.lose(chunk.lines);
            return;
        }
        let (written, outcome) = match self.prepare(chunk.bytes.len() as u64, now) {
            Ok(()) => match &mut self.output {
                Some(output) => deliver(&mut output.file, &mut output.torn, chunk),
                None => (0, Ok(())),
            },
            Err(error) => {
                self.lose(chunk.lines);
                return self.fail(Step::Open, &error, now);
            }
        };
        self.counts.written.fetch_add(written, Ordering::Relaxed);
        self.lose(chunk.lines.saturating_sub(written));
        match outcome {
            Ok(()) => self.recover(),
            Err(error) => self.fail(Step::Write, &error, now),
        }
    }

    /// Rotates a file that is old, and deletes rotated files whose retention is over. Works without traffic.
    pub(super) fn housekeep(&mut self, now: Now) {
        let AccessLogTarget::File(path) = &self.config.to else { return };
        let path = PathBuf::from(path);
        if self.failing.is_none()
            && let Err(error) = self.prepare(0, now)
        {
            self.fail(Step::Open, &error, now);
        }
        // Also while writing fails: on a full disk, deleting what is due is what helps.
        self.tidy(&path, now);
    }

    /// Sees to it that `output` is what the path names now, and has room for `bytes` more.
    fn prepare(&mut self, bytes: u64, now: Now) -> io::Result<()> {
        match &self.config.to {
            AccessLogTarget::Off => {}
            AccessLogTarget::Stdout => {
                if self.output.is_none() {
                    // Its own descriptor: a stalled reader must not hold the lock that `println!` takes.
                    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                    self.output = Some(Output { file, identity: None, begun: now.wall, torn: false });
                }
            }
            AccessLogTarget::File(path) => {
                let path = PathBuf::from(path);
                self.prepare_file(&path, bytes, now)?;
            }
        }
        Ok(())
    }

    fn prepare_file(&mut self, path: &Path, bytes: u64, now: Now) -> io::Result<()> {
        if self.output.as_ref().is_some_and(|output| output.identity.is_none()) {
            return Ok(());
        }
        // Moved, replaced or deleted by somebody else, which is how other tools and a second process rotate.
        if self.output.as_ref().is_some_and(|output| !output.is_at(path)) {
            self.output = None;
        }
        let output = match self.output.take() {
            Some(output) => output,
            None => open(path, now)?,
        };
        let due = output.identity.is_some()
            && self.rotation_is_due(output.file.metadata()?.len(), bytes, output.begun, now);
        self.output = Some(if due && self.rotate(&output, path, now) { open(path, now)? } else { output });
        Ok(())
    }

    fn rotation_is_due(&self, length: u64, bytes: u64, begun: Timestamp, now: Now) -> bool {
        let age = MAX_FILE_AGE.min(self.config.retention).max(MIN_FILE_AGE);
        let due = length.saturating_add(bytes) > self.config.rotate_bytes || now.wall >= begun.plus(age);
        length > 0 && due && self.no_rotation_before.is_none_or(|instant| now.steady >= instant)
    }

    /// Renames the file, unless another process does; on failure the log goes on in the same file and this is tried again
    /// later. Answers whether the path is to be opened anew.
    fn rotate(&mut self, output: &Output, path: &Path, now: Now) -> bool {
        // Held until our file is closed. Between the look below and the renaming, nobody else renames.
        if matches!(output.file.try_lock(), Err(TryLockError::WouldBlock)) {
            return false;
        }
        if !output.is_at(path) {
            return true;
        }
        let name = rotated_name(path, now.wall);
        let outcome = match name.symlink_metadata() {
            Ok(_) => Err(io::Error::from(ErrorKind::AlreadyExists)),
            Err(_) => fs::rename(path, &name),
        };
        match outcome {
            Ok(()) => {
                self.no_rotation_before = None;
                self.warned.retain(|(step, _)| *step != Step::Rotate);
                self.tidy(path, now);
                true
            }
            Err(error) => {
                // For whoever else may be able to; that we hold no lock is no error.
                crate::ignore(output.file.unlock());
                self.no_rotation_before = Some(now.steady + LONGEST_BACK_OFF);
                self.warn_once(Step::Rotate, &error);
                false
            }
        }
    }

    fn tidy(&mut self, path: &Path, now: Now) {
        match delete_old(path, &self.config, now.wall) {
            Ok(()) => self.warned.retain(|(step, _)| *step != Step::Tidy),
            // The directory is gone, which opening the file has told already.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.warn_once(Step::Tidy, &error),
        }
    }

    fn lose(&self, lines: u64) {
        self.counts.write_failed.fetch_add(lines, Ordering::Relaxed);
    }

    fn fail(&mut self, step: Step, error: &io::Error, now: Now) {
        // A file is opened afresh, for it may have been replaced; standard output there is only one of.
        if self.config.to != AccessLogTarget::Stdout {
            self.output = None;
        }
        let wait = self.failing.as_ref().map_or(FIRST_BACK_OFF, |failing| failing.next);
        self.failing = Some(BackOff { until: now.steady + wait, next: (wait * 2).min(LONGEST_BACK_OFF) });
        self.counts.set_problem(Some(format!("cannot {} {}: {error}", step.verb(), self.name())));
        self.warn_once(step, error);
    }

    fn recover(&mut self) {
        if self.failing.take().is_some() {
            self.counts.set_problem(None);
            self.warned.retain(|(step, _)| !matches!(step, Step::Open | Step::Write));
            tracing::info!(target = self.name(), "the access log is being written again");
        }
    }

    fn warn_once(&mut self, step: Step, error: &io::Error) {
        if self.warned.insert((step, error.raw_os_error())) {
            let what = step.verb();
            tracing::warn!(target = self.name(), %error, "cannot {what} the access log; requests are not affected");
        }
    }

    fn name(&self) -> &str {
        match &self.config.to {
            AccessLogTarget::Off => "off",
            AccessLogTarget::Stdout => "standard output",
            AccessLogTarget::File(path) => path,
        }
    }
}

/// Writes a chunk and says how many of its lines are there in full, also when it failed half-way.
fn deliver(out: &mut impl Write, torn: &mut bool, chunk: &Chunk) -> (u64, io::Result<()>) {
    if *torn {
        let (_, outcome) = write_counting(out, b"\n");
        if outcome.is_err() {
            return (0, outcome);
        }
        *torn = false;
    }
    let (count, outcome) = write_counting(out, &chunk.bytes);
    if outcome.is_ok() {
        return (chunk.lines, outcome);
    }
    let there = chunk.bytes.get(..count).unwrap_or_default();
    *torn = there.last().is_some_and(|&byte| byte != b'\n');
    (there.iter().filter(|&&byte| byte == b'\n').count() as u64, outcome)
}

/// Like `write_all`, and tells how far it came; waits a little for a pipe that is full.
fn write_counting(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut count = 0;
    let mut stalled = Duration::ZERO;
    while let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return (count, Err(ErrorKind::WriteZero.into())),
            Ok(written) => {
                count += written;
                stalled = Duration::ZERO;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && stalled < STALL_LIMIT => {
                thread::sleep(STALL_STEP);
                stalled += STALL_STEP;
            }
            Err(error) => return (count, Err(error)),
        }
    }
    (count, Ok(()))
}

fn open(path: &Path, now: Now) -> io::Result<Output> {
    // Not blocking: a named pipe without a reader is an error to report, not a reason to hang.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(flags).open(path)?;
    let there = file.metadata()?;
    let identity = identity_of(&there);
    let begun = match there.len() {
        0 => now.wall,
        _ => there.created().or_else(|_| there.modified()).map_or(now.wall, wall),
    };
    Ok(Output { file, identity, begun, torn: identity.is_some() && ends_mid_line(path, there.len()) })
}

/// A power cut can leave half a line at the end; the next one must not be glued to it.
fn ends_mid_line(path: &Path, length: u64) -> bool {
    let mut last = [b'\n'];
    let Some(offset) = length.checked_sub(1) else { return false };
    // Not readable means not known, and a whole line is by far the likelier.
    File::open(path).and_then(|file| file.read_exact_at(&mut last, offset)).is_ok() && last != [b'\n']
}

fn identity_of(there: &Metadata) -> Option<(u64, u64)> {
    there.is_file().then(|| (there.dev(), there.ino()))
}

fn rotated_name(path: &Path, at: Timestamp) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(calendar::basic(at));
    PathBuf::from(name)
}

/// Deletes the rotated files whose newest line is older than the retention, going by their names.
fn delete_old(path: &Path, config: &AccessLog, now: Timestamp) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(());
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let micros = u64::try_from(config.retention.as_micros()).unwrap_or(u64::MAX);
    let oldest_kept = calendar::basic(Timestamp(now.0.saturating_sub(micros)));
    let mut outcome = Ok(());
    for entry in fs::read_dir(directory)?.take(MAX_DIRECTORY_ENTRIES) {
        let entry = entry?;
        let file_name = entry.file_name();
        let rotated_at = file_name.to_str().and_then(|text| text.strip_prefix(name)?.strip_prefix('.'));
        let is_old = rotated_at.is_some_and(|at| calendar::is_basic(at) && at < oldest_kept.as_str());
        if is_old && entry.file_type()?.is_file() {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => outcome = Err(error),
                _ => {}
            }
        }
    }
    outcome
}

fn wall(time: SystemTime) -> Timestamp {
    Timestamp::from_unix(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
