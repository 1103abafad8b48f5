//! Drills: the binary plays them against itself; a missing safeguard makes one fail, and no ordinary binary can leave one out.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::PATIENCE;
use harness::process::{await_end, descendants};
use harness::rempart::{Ended, binary, faulty};
use serde_json::Value;

use crate::heavy;

/// Visitors per second: the machine of a test has other things to do.
const RATE: &str = "40";

fn drill(program: &Path, words: &[&str]) -> Ended {
    let mut command = Command::new(program);
    command.arg("drill").args(words).args(["--rate", RATE, "--json"]);
    command.env_remove("REMPART_DRILL_FACTOR").output().unwrap().into()
}

/// The claims of a run that failed.
fn failed(run: &Value) -> Vec<&str> {
    let claims = run["assertions"].as_array().unwrap();
    assert!(claims.len() > 10, "{run:#}");
    claims
        .iter()
        .filter(|claim| claim["passed"] == false)
        .map(|claim| claim["key"].as_str().unwrap())
        .collect()
}

#[test]
fn two_quick_drills_pass_with_the_ordinary_binary() {
    let _alone = heavy();
    let ended = drill(binary(), &["null-policy", "18"]);
    let runs: Value = ended.json();
    for run in runs.as_array().unwrap() {
        assert_eq!(failed(run), Vec::<&str>::new(), "{run:#}");
    }
    assert_eq!((ended.code, runs.as_array().unwrap().len()), (Some(0), 2), "{ended:?}");
}

#[test]
fn without_its_safeguard_a_drill_fails_on_the_claim_that_names_it() {
    let _alone = heavy();
    let ended = drill(faulty(), &["18", "--without", "previous-stays"]);
    let runs: Value = ended.json();
    let run = &runs[0];
    assert_eq!(run["without"][0], "previous-stays");
    assert!(failed(run).contains(&"full-configuration"), "{run:#}");
    // A run that fails as it must is a success.
    assert_eq!(ended.code, Some(0));
}

#[test]
fn the_ordinary_binary_leaves_no_safeguard_out_and_plants_no_fault() {
    for (words, said) in [
        (&["18", "--without", "previous-stays"][..], "cannot leave out a safeguard"),
        (&["14"], "plants faults"),
        (&["no-such-drill"], "--list"),
    ] {
        let ended = drill(binary(), words);
        assert_eq!(ended.code, Some(1), "{words:?}: {ended:?}");
        assert!(ended.stderr.contains(said) && ended.stdout.is_empty(), "{words:?}: {ended:?}");
    }
}

/// Edges outlive their supervisor on purpose, and so they would outlive a drill.
#[test]
fn a_drill_that_is_killed_leaves_no_process_behind() {
    let mut command = Command::new(binary());
    command.args(["drill", "18", "--rate", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut drill = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    // Guard, supervisor, edge, standby.
    let family = loop {
        let family = descendants(drill.id());
        if family.len() >= 4 {
            break family;
        }
        assert!(Instant::now() < deadline, "it starts no processes: {family:?}");
        // Processes announce themselves to nobody here.
        thread::sleep(Duration::from_millis(20));
    };
    drill.kill().unwrap();
    drill.wait().unwrap();
    family.into_iter().for_each(await_end);
}
