//! CPU time of a process and its descendants, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::output;

/// Clock ticks of user and system time that the process and all its living descendants have used.
///
/// Waited-for children are counted by the kernel in their parent's fields and are included too.
pub fn ticks(root: u32) -> Result<u64> {
    let mut processes: HashMap<u32, Stat> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may be gone by now.
        if let Some(stat) = fs::read_to_string(format!("/proc/{id}/stat")).ok().as_deref().and_then(parse) {
            processes.insert(id, stat);
        }
    }
    processes.get(&root).with_context(|| format!("process {root} is gone"))?;
    Ok(processes.iter().filter(|(id, _)| descends(**id, root, &processes)).map(|(_, stat)| stat.ticks).sum())
}

/// Ticks in a second.
pub fn ticks_per_second() -> Result<f64> {
    Ok(output(Command::new("getconf").arg("CLK_TCK"))?.trim().parse()?)
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
        let family: Vec<bool> = [10, 11, 12, 20, 1].iter().map(|&id| descends(id, 10, &processes)).collect();
        assert_eq!(family, [true, true, true, false, false]);
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(ticks(std::process::id()).is_ok());
        assert!(ticks(u32::MAX).is_err());
    }
}
