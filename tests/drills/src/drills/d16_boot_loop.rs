//! Drill 16: a generation that crashes on the first real request, forced past the taster: the boot-loop guard.

use std::time::Duration;

use api::admin::GenerationSource;

use super::{HOPELESS, QUIET, codes};
use crate::cluster::wait_for;
use crate::{Control, Drill, DrillError, Need, Stage};

/// Crashes before a generation is given up, and the time in which they count.
const CRASHES: u64 = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Refused at once by who builds it: the first look shows it.
const FOUND_BY_TASTE: &str = "fault-crash-on-load";
/// Not seen by golden requests; one with this field ends the process.
const FORCED: &str = "fault-crash-on-field";
const FIELD: &str = "Field-21: yes";
/// Between two such requests.
const PAUSE: Duration = Duration::from_millis(300);

/// Drill 16.
pub const DRILL: Drill = Drill {
    number: 16,
    name: "boot-loop",
    title: "Arity and boot loop",
    outage: "CrowdStrike, 19 July 2024",
    story: "A generation whose content ends the process that reads it is offered: refused. Another, which passes every \
            golden request and ends the process at a request with a twenty-first field, is forced onto the edge under \
            load, and such requests come. At last a Rempart has nothing else than such a generation.",
    needs: &[Need::Faults],
    controls: &[Control { without: "boot-loop-guard", fails: "crashes" }],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let before = stage.cluster.start_and_wait()?;
    stage.begin_traffic()?;
    stage.pass(QUIET);
    stage.inject("a generation that ends whoever loads it");
    let bad = stage.cluster.config_with(&[FOUND_BY_TASTE]);
    let outcome = stage.cluster.configure(&bad)?;
    stage.expect("refused", "It is refused", "refused", codes(&outcome), !outcome.active);
    stage.pass(QUIET);
    let forced = stage.clock.now();
    stage.inject("a generation that ends the edge at a request with field 21, and such requests");
    let bad = stage.cluster.config_with(&[FORCED]);
    let outcome = stage.cluster.configure(&bad)?;
    stage.expect(
        "forced",
        "The taster cannot see it: premise of what follows",
        "taken",
        codes(&outcome),
        outcome.active,
    );
    let mut back = false;
    while !back && stage.clock.now() < forced + HOPELESS {
        stage.provoke(FIELD);
        stage.pass(PAUSE);
        back = stage.cluster.status().is_some_and(|status| {
            status.source == GenerationSource::LastGood && status.generation == before.generation
        });
    }
    let serving = stage.cluster.await_serving(HOPELESS).filter(|_| back);
    let took = serving.map(|_| stage.clock.now().saturating_sub(forced));
    stage.observed(if back { "the generation before serves again" } else { "it was not given up" });
    let crashes = stage.cluster.status().map_or(u64::MAX, |status| status.supervision.crashes);
    let limit = format!("1 to {CRASHES}");
    stage.expect(
        "crashes",
        "Crashes before it is given up",
        &limit,
        crashes,
        (1..=CRASHES).contains(&crashes),
    );
    stage.within("one-before", "The generation before serves again, with no human", WINDOW, took);
    stage.pass(QUIET);
    stage.end_traffic();
    nothing_else(stage)
}

/// Where there is no generation before, the compiled-in defaults answer.
fn nothing_else(stage: &mut Stage) -> Result<(), DrillError> {
    let mut other = stage.another_cluster()?;
    let good = other.config();
    other.write("rempart.toml", &other.config_with(&[FORCED]))?;
    stage.inject("a Rempart that has nothing else than such a generation, and visitors");
    other.start()?;
    let ready = other.await_status(crate::cluster::PATIENCE, |_| true);
    ready.ok_or_else(|| other.late("a status", crate::cluster::PATIENCE))?;
    let took =
        wait_for(HOPELESS, || other.provoke(FIELD).is_ok_and(|seen| seen.status == 503 && !seen.of_origin));
    stage.within("defaults", "The built-in defaults answer with 503, with no human", WINDOW, took);
    let source = other.status().map(|status| status.source);
    let said = source == Some(GenerationSource::Defaults);
    stage.expect("says-defaults", "The status says so", "Defaults", format!("{source:?}"), said);
    if source.is_some() {
        let outcome = other.configure(&good)?;
        let serves = outcome.active && other.await_serving(HOPELESS).is_some();
        let measured = if serves { "serves" } else { "does not serve" };
        stage.expect("mended", "A mended configuration is taken at once", "serves", measured, serves);
    }
    Ok(())
}
