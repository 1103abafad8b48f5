//! How short this process is of memory and file descriptors, looked at several times a second by a thread of its own. What an
//! edge thread asks of it is one relaxed load.

mod machine;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use snapshot::generation::MemoryLimit;

use crate::worker::Shared;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Shares of the memory limit, in per cent, at which a level begins; it ends `RELIEF` per cent below.
const MEMORY_PRESSING: u64 = 100;
const MEMORY_CRITICAL: u64 = 115;
const RELIEF: u64 = 5;
/// Descriptors kept for the admin socket, log files, certificates and the like: a sixteenth within these bounds.
const RESERVE_SHARE: u64 = 16;
const RESERVE_LEAST: u64 = 64;
const RESERVE_MOST: u64 = 1_024;
/// Connections a process takes however short it is: with fewer there is nothing left to shed, and refusing would help nobody.
const ALWAYS: usize = 16;

/// How short it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Not at all.
    #[default]
    Normal,
    /// No further connections; idle ones end.
    Pressing,
    /// No further requests either; the newest connections end first.
    Critical,
}

impl Level {
    /// The name used in logs and in `rempart status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pressing => "pressing",
            Self::Critical => "critical",
        }
    }

    fn of(number: u8) -> Self {
        match number {
            0 => Self::Normal,
            1 => Self::Pressing,
            _ => Self::Critical,
        }
    }
}

/// What is used of a resource, and how much of it there is; `None` where that is not known or not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In bytes, or descriptors.
    pub used: Option<u64>,
    /// The limit, in the same.
    pub limit: Option<u64>,
}

/// What was found at the last look.
#[derive(Debug)]
pub struct Pressure {
    level: AtomicU8,
    /// Connections this process can have open, as far as descriptors go.
    room: AtomicUsize,
    /// Memory should be guarded and cannot be.
    blind: AtomicBool,
    memory: Figures,
    descriptors: Figures,
}

#[derive(Debug)]
struct Figures {
    level: AtomicU8,
    used: AtomicU64,
    limit: AtomicU64,
}

/// Stands for what is not known.
const UNKNOWN: u64 = u64::MAX;

impl Default for Figures {
    fn default() -> Self {
        Self { level: 0.into(), used: UNKNOWN.into(), limit: UNKNOWN.into() }
    }
}

impl Figures {
    fn set(&self, level: Level, usage: Usage) {
        self.level.store(level as u8, Relaxed);
        self.used.store(usage.used.unwrap_or(UNKNOWN), Relaxed);
        self.limit.store(usage.limit.unwrap_or(UNKNOWN), Relaxed);
    }

    fn get(&self) -> (Level, Usage) {
        let known = |value: &AtomicU64| Some(value.load(Relaxed)).filter(|value| *value != UNKNOWN);
        let usage = Usage { used: known(&self.used), limit: known(&self.limit) };
        (Level::of(self.level.load(Relaxed)), usage)
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            level: 0.into(),
            room: usize::MAX.into(),
            blind: false.into(),
            memory: Figures::default(),
            descriptors: Figures::default(),
        }
    }
}

impl Pressure {
    /// The worse of the two levels.
    pub fn level(&self) -> Level {
        Level::of(self.level.load(Relaxed))
    }

    /// Whether one more connection fits beside so many.
    pub fn has_room(&self, open: usize) -> bool {
        open < self.room.load(Relaxed)
    }

    /// Of memory: level, bytes used, limit.
    pub fn memory(&self) -> (Level, Usage) {
        self.memory.get()
    }

    /// Of file descriptors: level, open ones, limit.
    pub fn descriptors(&self) -> (Level, Usage) {
        self.descriptors.get()
    }

    /// What an operator should know of it, in sentences; nothing when all is well.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, (level, usage)) in [("memory", self.memory()), ("file descriptors", self.descriptors())] {
            if level > Level::Normal {
                let (used, limit) = (usage.used.unwrap_or_default(), usage.limit.unwrap_or_default());
                let found =
                    format!("{name}: {} ({used} of {limit}); new connections are refused", level.name());
                warnings.push(found);
            }
        }
        if self.blind.load(Relaxed) {
            warnings.push("memory is not guarded, because what there is of it cannot be read".to_owned());
        }
        warnings
    }

    /// Takes in what was found; answers the level of memory and of descriptors when one of them has changed.
    fn look(&self, memory: Usage, descriptors: Usage, connections: usize) -> Option<(Level, Level)> {
        let ((memory_before, _), (descriptors_before, _)) = (self.memory(), self.descriptors());
        let unless_few = |level: Level| if connections <= ALWAYS { Level::Normal } else { level };
        let memory_now = unless_few(of_memory(memory_before, memory));
        let descriptors_now = unless_few(of_descriptors(descriptors_before, descriptors));
        self.memory.set(memory_now, memory);
        self.descriptors.set(descriptors_now, descriptors);
        self.room.store(room(descriptors, connections), Relaxed);
        self.level.store(memory_now.max(descriptors_now) as u8, Relaxed);
        let changed = (memory_now, descriptors_now) != (memory_before, descriptors_before);
        changed.then_some((memory_now, descriptors_now))
    }
}

/// The level of memory. One that was reached holds until the use is some per cent below where it began.
fn of_memory(before: Level, Usage { used, limit }: Usage) -> Level {
    let (Some(used), Some(limit)) = (used, limit) else { return Level::Normal };
    let share = used.saturating_mul(100) / limit.max(1);
    let begins = |level: Level, at: u64| share >= if before >= level { at - RELIEF } else { at };
    if begins(Level::Critical, MEMORY_CRITICAL) {
        Level::Critical
    } else if begins(Level::Pressing, MEMORY_PRESSING) {
        Level::Pressing
    } else {
        Level::Normal
    }
}

/// The level of descriptors: pressing once the reserve is reached, critical once half of it is used.
fn of_descriptors(before: Level, Usage { used, limit }: Usage) -> Level {
    let (Some(used), Some(limit)) = (used, limit) else { return Level::Normal };
    let (left, reserve) = (limit.saturating_sub(used), reserve(limit));
    let begins = |level: Level, at: u64| left <= if before >= level { at + reserve / 4 } else { at };
    if begins(Level::Critical, reserve / 2) {
        Level::Critical
    } else if begins(Level::Pressing, reserve) {
        Level::Pressing
    } else {
        Level::Normal
    }
}

/// Descriptors that connections do not get.
fn reserve(limit: u64) -> u64 {
    (limit / RESERVE_SHARE).clamp(RESERVE_LEAST, RESERVE_MOST).min(limit / 2)
}

/// Connections that fit. Of what is free now, each may need a second descriptor, towards its origin, and nothing is given out
/// twice. Of them all, idle ones need one only, and most are idle: they get three quarters of what is not in reserve.
fn room(Usage { used, limit }: Usage, connections: usize) -> usize {
    let Some(limit) = limit else { return usize::MAX };
    let (usable, used) = (limit - reserve(limit), used.unwrap_or_default());
    let number = |descriptors: u64| usize::try_from(descriptors).unwrap_or(usize::MAX);
    let (most, more) = (usable - usable / 4, usable.saturating_sub(used) / 2);
    number(most).min(connections.saturating_add(number(more))).max(ALWAYS)
}

/// Starts the thread that looks; it ends with the edge.
pub(crate) fn watch(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = Arc::downgrade(shared);
    let machine = machine::memory();
    // The first look comes before the first connection.
    look(&shared, machine);
    std::thread::Builder::new().name("pressure".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            if !look(&shared, machine) {
                break;
            }
        }
    })?;
    Ok(())
}

/// Bytes of memory this process may use; `None` is whatever there is, or nobody knows.
pub fn memory_limit(wanted: MemoryLimit) -> Option<u64> {
    limit_of(wanted, machine::memory())
}

fn limit_of(wanted: MemoryLimit, machine: Option<u64>) -> Option<u64> {
    match wanted {
        MemoryLimit::Half => machine.map(|bytes| bytes / 2),
        MemoryLimit::Bytes(bytes) => Some(bytes),
        MemoryLimit::None => None,
    }
}

/// One look; false when the edge is gone.
fn look(shared: &Weak<Shared>, machine: Option<u64>) -> bool {
    let Some(shared) = shared.upgrade() else { return false };
    let wanted = shared.current.load().snapshot.limits.memory;
    let memory = Usage { used: machine::resident(), limit: limit_of(wanted, machine) };
    let descriptors = Usage { used: machine::descriptors(), limit: machine::max_descriptors() };
    let connections = shared.connections.load(Relaxed);
    let pressure = shared.metrics.pressure();
    let guarded = wanted != MemoryLimit::None;
    pressure.blind.store(guarded && (memory.used.is_none() || memory.limit.is_none()), Relaxed);
    if let Some((of_memory, of_descriptors)) = pressure.look(memory, descriptors, connections) {
        let (memory_level, descriptor_level) = (of_memory.name(), of_descriptors.name());
        let (used, limit, open) = (memory.used, memory.limit, descriptors.used);
        if pressure.level() > Level::Normal {
            tracing::warn!(
                memory_level,
                descriptor_level,
                used,
                limit,
                open,
                connections,
                "short of resources"
            );
        } else {
            tracing::info!(
                memory_level,
                descriptor_level,
                used,
                limit,
                open,
                connections,
                "resources suffice again"
            );
        }
    }
    true
}

#[cfg(test)]
mod tests;
