//! Memory of a process as the kernel counts it (`/proc/PID/status`).

use std::fs;

/// Resident set size now, in bytes.
pub fn resident(pid: u32) -> u64 {
    field(pid, "VmRSS:")
}

/// Proportional set size now, in bytes: what several processes have in memory once (the program itself, libraries) counts
/// as their share of it (proc(5), `smaps_rollup`).
pub fn proportional(pid: u32) -> u64 {
    read(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Largest resident set size since start or the last `reset_peak`, in bytes.
pub fn peak(pid: u32) -> u64 {
    field(pid, "VmHWM:")
}

/// Makes the kernel count the peak anew from the present size (proc(5), `clear_refs`).
pub fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

fn field(pid: u32, name: &str) -> u64 {
    read(&format!("/proc/{pid}/status"), name)
}

fn read(path: &str, name: &str) -> u64 {
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
