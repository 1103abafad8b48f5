//! CPU time of a process and its descendants, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::output;

/// CPU time since each process began, by two clocks of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// User and system time, in clock ticks; waited-for children and ended threads are in it.
    ticks: u64,
    /// Time on a processor of the living threads, in nanoseconds; `None` on a kernel that does not say.
    nanos: Option<u64>,
    processes: u64,
}

/// What the process and all its living descendants have used.
pub fn spent(root: u32) -> Result<Spent> {
    let processes = processes()?;
    let family = family_in(root, &processes)?;
    let mut nanos = Some(0);
    let mut ticks = 0;
    for id in &family {
        nanos = nanos.zip(on_processor(*id)).map(|(sum, more)| sum + more);
        ticks += processes.get(id).map_or(0, |stat| stat.ticks);
    }
    Ok(Spent { ticks, nanos, processes: family.len() as u64 })
}

/// Ids of the process and its living descendants.
pub fn family(root: u32) -> Result<Vec<u32>> {
    family_in(root, &processes()?)
}

/// Seconds of CPU between two looks.
///
/// The fine clock decides, unless it is off the coarse one by more than that one's grain: then a thread has ended and
/// taken its figure along, or a new kernel counts otherwise.
pub fn seconds(before: Spent, after: Spent, ticks_per_second: f64) -> f64 {
    let coarse = (after.ticks.saturating_sub(before.ticks)) as f64 / ticks_per_second;
    // User and system time are rounded on their own, in each process.
    let grain = 2.0 * before.processes.max(after.processes) as f64 / ticks_per_second;
    let fine = after.nanos.zip(before.nanos).and_then(|(after, before)| after.checked_sub(before));
    match fine.map(|nanos| nanos as f64 / 1e9) {
        Some(fine) if (fine - coarse).abs() <= grain + coarse * 0.01 => fine,
        _ => coarse,
    }
}

/// Ticks in a second.
pub fn ticks_per_second() -> Result<f64> {
    Ok(output(Command::new("getconf").arg("CLK_TCK"))?.trim().parse()?)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn processes() -> Result<HashMap<u32, Stat>> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may be gone by now.
        if let Some(stat) = fs::read_to_string(format!("/proc/{id}/stat")).ok().as_deref().and_then(parse) {
            processes.insert(id, stat);
        }
    }
    Ok(processes)
}

fn family_in(root: u32, processes: &HashMap<u32, Stat>) -> Result<Vec<u32>> {
    processes.get(&root).with_context(|| format!("process {root} is gone"))?;
    let mut family: Vec<u32> =
        processes.keys().copied().filter(|id| descends(*id, root, processes)).collect();
    family.sort_unstable();
    Ok(family)
}

/// First field of each thread's `schedstat`: nanoseconds on a processor.
fn on_processor(id: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{id}/task")).ok()? {
        // A thread may be gone by now; the coarse clock notices.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        sum += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

/// The fields of proc(5) `stat`, counted after the name, which may itself hold spaces and parentheses.
fn parse(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |position: usize| fields.get(position)?.parse::<u64>().ok();
    let (user, system, children_user, children_system) = (number(11)?, number(12)?, number(13)?, number(14)?);
    let parent = u32::try_from(number(1)?).ok()?;
    Some(Stat { parent, ticks: user + system + children_user + children_system })
}

fn descends(id: u32, root: u32, processes: &HashMap<u32, Stat>) -> bool {
    let mut at = id;
    // A chain of parents is never longer than the list of processes.
    for _ in 0..=processes.len() {
        if at == root {
            return true;
        }
        match processes.get(&at) {
            Some(stat) => at = stat.parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_strange_name() {
        let stat = parse("12 (a ) b) S 7 12 12 0 -1 0 1 2 3 4 100 20 3 1 20 0 1 0 5").unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 124));
        assert!(parse("12 (a) S 7").is_none());
    }

    #[test]
    fn descendants_are_told_from_strangers() {
        let stat = |parent| Stat { parent, ticks: 1 };
        let processes =
            HashMap::from([(1, stat(0)), (10, stat(1)), (11, stat(10)), (12, stat(11)), (20, stat(1))]);
        assert_eq!(family_in(10, &processes).unwrap(), [10, 11, 12]);
        assert!(family_in(30, &processes).is_err());
    }

    #[test]
    fn the_fine_clock_decides_unless_it_lost_a_thread() {
        let look = |ticks, nanos| Spent { ticks, nanos, processes: 1 };
        let before = look(100, Some(5_000_000_000));
        assert_eq!(seconds(before, look(200, Some(6_004_000_000)), 100.0), 1.004);
        assert_eq!(seconds(before, look(200, Some(5_500_000_000)), 100.0), 1.0);
        assert_eq!(seconds(before, look(200, Some(4_000_000_000)), 100.0), 1.0);
        assert_eq!(seconds(before, look(200, None), 100.0), 1.0);
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(spent(std::process::id()).is_ok());
        assert!(family(std::process::id()).unwrap().contains(&std::process::id()));
        assert!(spent(u32::MAX).is_err());
    }
}
