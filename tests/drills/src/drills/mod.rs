//! The drills, one file each. A new one is a file here and a line in `ALL`.

mod d01_feature_file_doubles;
mod d02_module_panic;
mod d04_catastrophic_regex;
mod d05_kill_switch;
mod d09_control_plane_lost;
mod d12_valid_setting;
mod d14_delayed_crash;
mod d15_null_policy;
mod d16_boot_loop;
mod d18_minimal_fallback;
mod d26_time;

use std::time::Duration;

use api::admin::{ProcessRole, ReloadOutcome, Status};

use crate::cluster::pid_of;
use crate::{Drill, DrillError};

/// Every drill, by number.
pub const ALL: &[&Drill] = &[
    &d01_feature_file_doubles::DRILL,
    &d02_module_panic::DRILL,
    &d04_catastrophic_regex::DRILL,
    &d05_kill_switch::DRILL,
    &d09_control_plane_lost::DRILL,
    &d12_valid_setting::DRILL,
    &d14_delayed_crash::DRILL,
    &d15_null_policy::DRILL,
    &d16_boot_loop::DRILL,
    &d18_minimal_fallback::DRILL,
    &d26_time::DRILL,
];

/// Visitors come for so long before anything is done to Rempart, and after the last thing.
const QUIET: Duration = Duration::from_secs(3);
/// How long something that a missing safeguard prevents is waited for.
const HOPELESS: Duration = Duration::from_secs(20);

/// Process id of the edge that serves.
fn edge_of(status: &Status) -> Result<u32, DrillError> {
    pid_of(status, ProcessRole::Edge).ok_or_else(|| DrillError::Unexpected("no process serves".to_owned()))
}

/// How many of something, and which, when there are any.
fn counted(found: &[impl std::fmt::Display], what: &str) -> String {
    let listed: Vec<String> = found.iter().map(ToString::to_string).collect();
    let which = if listed.is_empty() { String::new() } else { format!(": {}", listed.join("; ")) };
    format!("{} {what}{which}", found.len())
}

/// The codes of everything a reload found wrong, for a person.
fn codes(outcome: &ReloadOutcome) -> String {
    let codes: Vec<&str> = outcome.diagnostics.iter().map(|found| found.code.as_str()).collect();
    if codes.is_empty() { "nothing was found wrong".to_owned() } else { codes.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_drill_has_a_number_a_name_and_a_way_to_fail() {
        let numbers: Vec<u8> = ALL.iter().map(|drill| drill.number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        let names: HashSet<_> = ALL.iter().map(|drill| drill.name).collect();
        assert_eq!(names.len(), ALL.len());
        for drill in ALL {
            assert!(!drill.controls.is_empty(), "{}: a drill that cannot fail proves nothing", drill.name);
            assert!(drill.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", drill.name);
            assert!(drill.name.parse::<u8>().is_err());
        }
    }
}
