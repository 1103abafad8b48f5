//! Drill 18: a formatting error in a load-balancing directive; the full previous configuration stays, not a minimal one.

use std::time::Duration;

use api::admin::{Answer, ProcessRole, Request};

use super::{HOPELESS, QUIET, counted, edge_of};
use crate::cluster::PATIENCE;
use crate::cluster::pid_of;
use crate::plan::HOSTS;
use crate::{Control, Drill, DrillError, Stage};

/// A start with the broken file on disk.
const RESTART: Duration = Duration::from_secs(30);
/// Share of the first origin's requests, in per cent: its weight is three of four.
const SHARE: std::ops::RangeInclusive<u64> = 60..=90;
/// What becomes of `weight = 3`.
const BROKEN: [&str; 9] = [
    "weight = \"3\"",
    "weight = 3 1",
    "weight == 3",
    "weight = 0",
    "weight = -3",
    "weight = 3.5",
    "wieght = 3",
    "weight = 3\nweight = 1",
    "[[site.origin]\nweight = 3",
];

/// Drill 18.
pub const DRILL: Drill = Drill {
    number: 18,
    name: "minimal-fallback",
    title: "The safe minimal fallback",
    outage: "Akamai, 22 July 2021",
    story: "The weight of an origin is written wrongly in nine ways, and each is offered by reload. The edge is killed, and \
            then every process, with the last of them on disk.",
    needs: &[],
    controls: &[Control { without: "previous-stays", fails: "full-configuration" }],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let before = stage.cluster.start_and_wait()?;
    let full = outline(stage)?;
    stage.begin_traffic()?;
    stage.pass(QUIET);
    stage.inject("formatting errors in the weight of an origin");
    let good = stage.cluster.config();
    let mut taken = Vec::new();
    for broken in BROKEN {
        let outcome = stage.cluster.configure(&good.replacen("weight = 3", broken, 1))?;
        if outcome.active {
            taken.push(broken);
        }
    }
    let measured = counted(&taken, &format!("of {} taken", BROKEN.len()));
    stage.expect("refused", "None of them is taken", "0 taken", measured, taken.is_empty());
    // A minimal fallback would show by now.
    stage.pass(QUIET);
    let now = outline(stage)?;
    let measured =
        format!("{} of {} settings", now.iter().filter(|line| full.contains(line)).count(), full.len());
    let limit = format!("all {} settings", full.len());
    stage.expect("full-configuration", "The full configuration before stays", &limit, measured, now == full);
    replace_edge(stage, edge_of(&before)?, &full)?;
    let counts = stage.origins.seen.of(HOSTS[0]);
    stage.pass(QUIET);
    let [first, second] = stage.origins.seen.of(HOSTS[0]);
    let (first, second) = (first.saturating_sub(counts[0]), second.saturating_sub(counts[1]));
    let share = (first * 100).checked_div(first + second).unwrap_or(0);
    let limit = format!("{} to {} %", SHARE.start(), SHARE.end());
    stage.expect(
        "balanced",
        "Requests of the first origin, by weight",
        &limit,
        format!("{share} %"),
        SHARE.contains(&share),
    );
    stage.end_traffic();
    stage.inject("every process is killed and started with the broken file on disk");
    stage.cluster.kill_all_but(&[]);
    stage.cluster.start()?;
    let took = stage.cluster.await_serving(RESTART);
    stage.within("restart-serves", "It serves again", RESTART, took);
    let now = if took.is_some() { outline(stage)? } else { Vec::new() };
    let measured =
        format!("{} of {} settings", now.iter().filter(|line| full.contains(line)).count(), full.len());
    stage.expect(
        "restart-full",
        "With the full configuration before",
        &limit_of(&full),
        measured,
        now == full,
    );
    Ok(())
}

fn limit_of(full: &[String]) -> String {
    format!("all {} settings", full.len())
}

fn replace_edge(stage: &mut Stage, edge: u32, full: &[String]) -> Result<(), DrillError> {
    stage.kill("the edge is killed", &[edge]);
    let next = stage
        .cluster
        .await_status(HOPELESS, |status| pid_of(status, ProcessRole::Edge).is_some_and(|pid| pid != edge));
    let same = next.is_some() && outline(stage)? == full;
    let measured = if same { "the full one" } else { "another one, or none" };
    stage.expect(
        "successor-full",
        "Its successor has the full configuration",
        "the full one",
        measured,
        same,
    );
    Ok(())
}

/// Every setting in force, as lines.
fn outline(stage: &Stage) -> Result<Vec<String>, DrillError> {
    // Visitors may be served before a supervisor that has just started listens for questions.
    if stage.cluster.await_status(PATIENCE, |_| true).is_none() {
        return Err(stage.late("an answer of the admin socket"));
    }
    match stage.cluster.ask(&Request::Outline) {
        Ok(Answer::Outline { lines, .. }) => Ok(lines),
        Ok(other) => Err(DrillError::Unexpected(format!("an outline was answered with {other:?}"))),
        Err(error) => Err(DrillError::system("an outline could not be asked for")(error)),
    }
}
