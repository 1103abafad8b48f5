//! The guard of a drill: a process that ends everything the drill has started, however the drill itself ended.
//!
//! It waits for the other end of its standard input to close, which happens even after a `kill -9`, then ends every
//! process that names the drill's folder and removes that folder.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::pids;

/// How long processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// In the name of every folder that may be removed, so that a wrong path does no harm.
pub const PREFIX: &str = "rempart-drill-";

/// Waits until standard input closes, then sweeps. False when the folder is not one of a drill: then nothing is done.
pub fn watch(folder: &Path) -> bool {
    let is_drill =
        folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
    if !is_drill {
        return false;
    }
    let mut buffer = [0; 64];
    let mut input = std::io::stdin().lock();
    while input.read(&mut buffer).is_ok_and(|count| count > 0) {}
    sweep(folder);
    // What could not be removed lies in a folder for temporary files, where it disturbs nobody.
    drop(fs::remove_dir_all(folder));
    true
}

/// Ends every process that names this folder. New ones may be started by those that have not ended yet, so it looks
/// until there are none.
pub fn sweep(folder: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<u32> = pids::naming(folder).into_iter().filter(|pid| pids::lives(*pid)).collect();
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        left.iter().for_each(|pid| pids::signal(*pid, Signal::KILL));
        std::thread::sleep(LOOK);
    }
}
