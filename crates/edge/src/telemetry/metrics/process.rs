//! Facts about this process from `/proc`, read when somebody asks. What cannot be read is left out.

use std::fs;

/// Clock ticks per second in `/proc`: the kernel's USER_HZ, 100 on every architecture Rempart is built for.
const TICKS_PER_SECOND: f64 = 100.0;
/// Entries of `/proc/self/fd` counted at most: the kernel's default ceiling for one process.
const MAX_DESCRIPTORS: usize = 1 << 20;

/// Resident memory, in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

/// Open file descriptors, without the one that counts them.
pub(super) fn open_descriptors() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.take(MAX_DESCRIPTORS).count().saturating_sub(1))
}

/// The soft limit of open file descriptors; `None` also when there is none.
pub(super) fn max_descriptors() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of all threads, in seconds.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold spaces and parentheses; the fields after it are numbers.
    let (_, fields) = stat.rsplit_once(')')?;
    // utime and stime are fields 14 and 15 of proc_pid_stat(5); the state, field 3, comes first here.
    let mut times = fields.split_whitespace().skip(14 - 3);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_those_of_this_process() {
        assert!(resident_bytes().unwrap() > 100_000);
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= held.len());
        assert!(max_descriptors().is_none_or(|max| max as usize >= held.len()));
        let before = cpu_seconds().unwrap();
        let mut random = base::random::Random::seeded(1);
        while cpu_seconds().unwrap() <= before {
            std::hint::black_box((0..1_000_000).map(|_| random.next_u64()).fold(0, u64::wrapping_add));
        }
    }
}
