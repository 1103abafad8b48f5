//! Processes found by the folder that stands in their command line: whoever started them, they belong to one drill.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// Microseconds of processor time in one tick of /proc; Linux has 100 ticks a second for user space everywhere.
const TICK: Duration = Duration::from_millis(10);

/// Processes whose command line names this folder, itself or something in it. Threads and zombies are not among them.
pub fn naming(folder: &Path) -> Vec<u32> {
    let Some(folder) = folder.to_str() else { return Vec::new() };
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| {
                std::str::from_utf8(word).is_ok_and(|word| word.split('=').any(|part| is_in(part, folder)))
            })
        })
        .collect()
}

fn is_in(word: &str, folder: &str) -> bool {
    word.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Sends a signal to a process that may be gone already.
pub fn signal(pid: u32, signal: Signal) {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(target) = target {
        // Gone already: what was wanted has come about.
        rustix::process::kill_process(target, signal).unwrap_or_default();
    }
}

/// Whether a process exists and has not ended.
pub fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| !fields.first().is_some_and(|state| state == "Z" || state == "X"))
}

/// Processor time a process has used; `None` when it is gone.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let fields = stat(pid)?;
    // proc_pid_stat(5): utime and stime are fields 14 and 15, the state is 3.
    let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(TICK.saturating_mul(ticks(11)?.saturating_add(ticks(12)?)))
}

/// Fields of /proc/PID/stat from the state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_no_other_that_begins_like_it() {
        assert!(is_in("/tmp/drill-a/state", "/tmp/drill-a"));
        assert!(is_in("/tmp/drill-a", "/tmp/drill-a"));
        assert!(!is_in("/tmp/drill-ab", "/tmp/drill-a"));
        assert!(!is_in("/tmp", "/tmp/drill-a"));
    }

    #[test]
    fn this_process_lives_and_uses_time() {
        assert!(lives(std::process::id()));
        assert!(processor_time(std::process::id()).is_some());
        assert!(!lives(u32::MAX >> 2));
    }
}
