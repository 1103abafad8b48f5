//! What a tree of processes uses, from `/proc`: resident memory, descriptors, processor time; and its peaks over a while.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail};

/// Time between two samples.
const EVERY: Duration = Duration::from_millis(200);

/// What a tree of processes has at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident set sizes added up, in bytes; pages that two processes share count twice.
    pub resident: u64,
    /// Open descriptors of all of them.
    pub descriptors: u64,
    /// Clock ticks of user and system time.
    pub ticks: u64,
}

impl Usage {
    /// Of a process and its descendants that live now.
    pub fn of(root: u32) -> Result<Self> {
        let mut sum = Self::default();
        for id in family(root) {
            // A process may end while it is looked at.
            let Some(one) = Self::of_one(id) else { continue };
            sum.resident += one.resident;
            sum.descriptors += one.descriptors;
            sum.ticks += one.ticks;
        }
        if sum.resident == 0 {
            bail!("process {root} is gone");
        }
        Ok(sum)
    }

    fn of_one(id: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Some(Self {
            resident: resident(&status)?,
            descriptors: fs::read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64,
            ticks: parse(&stat)?.ticks,
        })
    }

    /// The larger of each.
    fn most(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            descriptors: self.descriptors.max(other.descriptors),
            ticks: self.ticks.max(other.ticks),
        }
    }
}

/// Samples two trees until it is asked for the peaks.
pub struct Watch {
    stop: Arc<AtomicBool>,
    peaks: Arc<Mutex<[Usage; 2]>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to sample these two trees.
    pub fn start(roots: [u32; 2]) -> Self {
        let (stop, peaks) = (Arc::<AtomicBool>::default(), Arc::<Mutex<[Usage; 2]>>::default());
        let (stopped, written) = (stop.clone(), peaks.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                for (position, root) in roots.iter().enumerate() {
                    // A tree that is gone has no usage; the narrator notices that by itself.
                    let Ok(now) = Usage::of(*root) else { continue };
                    let mut peaks = written.lock().unwrap_or_else(PoisonError::into_inner);
                    peaks[position] = peaks[position].most(now);
                }
                thread::sleep(EVERY);
            }
        });
        Self { stop, peaks, thread: Some(thread) }
    }

    /// Ends; answers the peaks of both trees.
    pub fn peaks(mut self) -> Result<[Usage; 2]> {
        self.stop.store(true, Ordering::SeqCst);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            bail!("the sampling thread panicked");
        }
        Ok(*self.peaks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// The process and its living descendants.
fn family(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((id, parse(&stat)?.parent))
        })
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    family
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// The fields of proc(5) `stat`, counted after the name, which may itself hold spaces and parentheses.
fn parse(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |position: usize| fields.get(position)?.parse::<u64>().ok();
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks: number(11)? + number(12)? })
}

/// `VmRSS` of proc(5) `status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_strange_name() {
        let stat = parse("12 (a ) b) S 7 12 12 0 -1 0 1 2 3 4 100 20 3 1 20 0 1 0 5").unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 120));
        assert!(parse("12 (a) S 7").is_none());
        assert_eq!(resident("Name:\tx\nVmRSS:\t     120 kB\n"), Some(120 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_is_seen_and_one_that_is_gone_is_not() {
        let own = Usage::of(std::process::id()).unwrap();
        assert!(own.resident > 0 && own.descriptors > 0, "{own:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn peaks_are_the_largest_of_each() {
        let a = Usage { resident: 1, descriptors: 5, ticks: 0 };
        let b = Usage { resident: 2, descriptors: 4, ticks: 3 };
        assert_eq!(a.most(b), Usage { resident: 2, descriptors: 5, ticks: 3 });
    }
}
