//! Drill 15: a policy with blank fields, and then every process starts at once.

use std::time::Duration;

use super::{QUIET, counted, edge_of};
use crate::cluster::wait_for;
use crate::{Control, Drill, DrillError, Stage};

/// All serve again.
const RESTART: Duration = Duration::from_secs(30);
/// Remparts beside the first that start at the same time.
const OTHERS: usize = 2;
/// Fields as they stand in the configuration, and what is left of them.
const BLANKS: [(&str, &str); 9] = [
    ("hosts = [\"shop.test\"]", "hosts = [\"\"]"),
    ("hosts = [\"shop.test\"]", "hosts = []"),
    ("hosts = [\"shop.test\"]", ""),
    ("weight = 3", "weight = \"\""),
    ("weight = 3", "weight ="),
    ("url = \"http://", "url = \"\" # \"http://"),
    ("tls = true", "tls = \"\""),
    ("idle = \"2s\"", "idle = \"\""),
    ("name = \"shop\"", "name = \"\""),
];

/// Drill 15.
pub const DRILL: Drill = Drill {
    number: 15,
    name: "null-policy",
    title: "Null policy, restart herd",
    outage: "Google Cloud, 12 June 2025",
    story: "A configuration arrives nine times, each time with another field left blank. The last one stays on disk; then \
            every process of three Remparts is killed, and all start at the same moment.",
    needs: &[],
    controls: &[Control { without: "last-good", fails: "all-serve" }],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        let mut other = stage.another_cluster()?;
        other.start_and_wait()?;
        others.push(other);
    }
    let before = stage.cluster.start_and_wait()?;
    stage.begin_traffic()?;
    stage.pass(QUIET);
    let good = stage.cluster.config();
    stage.inject("blank fields, one after the other");
    let (mut taken, mut unplaced) = (Vec::new(), Vec::new());
    for (field, blank) in BLANKS {
        let text = good.replacen(field, blank, 1);
        let outcome = stage.cluster.configure(&text)?;
        if outcome.active {
            taken.push(blank);
        } else if !outcome.diagnostics.iter().any(|found| found.location.is_some()) {
            unplaced.push(blank);
        }
    }
    let measured = counted(&taken, &format!("of {} taken", BLANKS.len()));
    stage.expect("refused", "Blank fields are refused", "0 taken", measured, taken.is_empty());
    let measured = counted(&unplaced, "without a place");
    stage.expect("placed", "Each refusal names the line", "0 without a place", measured, unplaced.is_empty());
    let after = stage.cluster.status().ok_or_else(|| stage.late("the status"))?;
    let same = after.generation == before.generation && edge_of(&after).ok() == edge_of(&before).ok();
    let measured = format!("generation {}, {} crashes", after.number, after.supervision.crashes);
    let limit = format!("generation {}, 0 crashes", before.number);
    stage.expect("untouched", "What was in force stays", &limit, measured, same);
    stage.pass(QUIET);
    stage.end_traffic();
    stage.inject("every process of three Remparts is killed; all start at once, with a blank field on disk");
    let blank = |config: String| config.replacen("hosts = [\"shop.test\"]", "hosts = [\"\"]", 1);
    stage.cluster.kill_all_but(&[]);
    stage.cluster.write("rempart.toml", &blank(stage.cluster.config()))?;
    for other in &mut others {
        other.kill_all_but(&[]);
        other.write("rempart.toml", &blank(other.config()))?;
    }
    stage.cluster.start()?;
    for other in &mut others {
        other.start()?;
    }
    let mut all: Vec<&crate::cluster::Cluster> = others.iter().chain([&stage.cluster]).collect();
    // Each is looked at until it has served once.
    let took = wait_for(RESTART, || {
        all.retain(|cluster| !cluster.look(crate::cluster::FIRST_HOST).is_ok_and(|seen| seen.of_origin));
        all.is_empty()
    });
    stage.within("all-serve", "All serve again", RESTART, took);
    Ok(())
}
