//! What the machine allows this process and what it uses, from `/proc` and `/sys`. What cannot be read is unknown.

use std::fs;
use std::path::{Path, PathBuf};

/// Entries of `/proc/self/fd` counted at most, where the kernel does not tell their number.
const MAX_COUNTED: usize = 1 << 20;
/// What the first control group interface says for "no limit", rounded down to pages: anything near it is none.
const NO_LIMIT: u64 = 1 << 60;

/// Memory this process can hope for: the machine's, or less where a control group allows less.
pub(super) fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let read = |path: &Path| fs::read_to_string(path).ok();
    total(&meminfo).into_iter().chain(group_limit(&groups, read)).min()
}

/// `MemTotal`, in bytes (proc_meminfo(5)).
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The smallest limit of the control groups this process is in, in bytes (cgroups(7), `/proc/PID/cgroup`).
fn group_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut smallest: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // A limit further up holds too. In a container the path may be the one outside of it: then only the top is there.
        let own = PathBuf::from(path.trim_start_matches('/'));
        for folder in own.ancestors() {
            let limit = read(&Path::new(mount).join(folder).join(file));
            let limit =
                limit.and_then(|text| text.trim().parse::<u64>().ok()).filter(|bytes| *bytes < NO_LIMIT);
            smallest = smallest.into_iter().chain(limit).min();
        }
    }
    smallest
}

/// Resident memory, in bytes (proc_pid_statm(5)).
pub(super) fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// Open file descriptors. Since Linux 6.2 their number is the size of the folder that lists them.
pub(super) fn descriptors() -> Option<u64> {
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told);
    }
    let counted = fs::read_dir("/proc/self/fd").ok()?.take(MAX_COUNTED).count();
    Some(counted.saturating_sub(1) as u64)
}

/// File descriptors this process may have; `None` is as many as it likes.
pub(super) fn max_descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_up_holds() {
        let files = |path: &Path| {
            Some(match path.to_str()? {
                "/sys/fs/cgroup/memory.max" => "max\n".to_owned(),
                "/sys/fs/cgroup/a/memory.max" => "1000000\n".to_owned(),
                "/sys/fs/cgroup/a/b/memory.max" => "2000000\n".to_owned(),
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes" => "3000000\n".to_owned(),
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "9223372036854771712\n".to_owned(),
                _ => return None,
            })
        };
        for (groups, expected) in [
            ("0::/a/b\n", Some(1_000_000)),
            ("0::/\n", None),
            ("0::/../../elsewhere\n", None),
            ("12:cpu,cpuacct:/a\n4:memory:/docker\n0::/\n", Some(3_000_000)),
            ("4:memory:/system\n", None),
            ("", None),
            ("nonsense", None),
        ] {
            assert_eq!(group_limit(groups, files), expected, "{groups:?}");
        }
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16_384 * 1_024));
        assert_eq!(total(""), None);
    }

    #[test]
    fn this_process_uses_some_of_what_there_is() {
        assert!(resident().unwrap() > 100_000);
        assert!(resident().unwrap() < memory().unwrap());
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(descriptors().unwrap() >= held.len() as u64);
        assert!(max_descriptors().is_none_or(|max| max >= held.len() as u64));
    }
}
