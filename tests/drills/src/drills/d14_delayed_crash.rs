//! Drill 14: a configuration whose deferred work crashes later, and an operator who looks for a way around the taster.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::{HOPELESS, QUIET, codes, edge_of};
use crate::{Control, Drill, DrillError, Need, Stage};

/// The planted fault crashes two seconds after the configuration was loaded; by then it would have.
const LATER: Duration = Duration::from_secs(5);
/// The site that has the fault.
const FAULT: &str = "fault-crash-in-deferred";
/// Number under which a forged generation is put on disk: newer than any.
const FORGED: &str = "000000000900.generation";
/// A start from disk that tries the forged one first.
const BOOT: Duration = Duration::from_secs(30);

/// Drill 14.
pub const DRILL: Drill = Drill {
    number: 14,
    name: "delayed-crash",
    title: "Delayed crash, poisoned last-known-good",
    outage: "Azure Front Door, 29 October 2025",
    story: "A configuration is good to read and to load; the work it leaves for later ends the process two seconds \
            afterwards. It is offered by reload, then by signal, then placed on disk as the newest last good generation, \
            after which every process is killed and started again.",
    needs: &[Need::Faults],
    controls: &[Control { without: "taster", fails: "edge-untouched" }],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let before = stage.cluster.start_and_wait()?;
    let (edge, stored) = (edge_of(&before)?, stage.cluster.stored());
    stage.begin_traffic()?;
    stage.pass(QUIET);
    stage.inject("a configuration with a delayed crash is offered by reload");
    let bad = stage.cluster.config_with(&[FAULT]);
    let outcome = stage.cluster.configure(&bad)?;
    let died = !outcome.active && outcome.diagnostics.iter().any(|found| found.code == "taster-died");
    stage.expect(
        "refused",
        "It is refused, and says that the taster died",
        "taster-died",
        codes(&outcome),
        died,
    );
    stage.pass(LATER);
    stage.inject("the same by SIGHUP");
    stage.cluster.signal_supervisor(Signal::HUP);
    let second = stage.cluster.await_status(HOPELESS, |status| status.supervision.tastes_refused >= 2);
    let refusals = second.map_or(0, |status| status.supervision.tastes_refused);
    stage.expect(
        "signal-no-bypass",
        "A signal is no way around the taster",
        "2 refused",
        refusals,
        refusals == 2,
    );
    stage.pass(QUIET);
    let after = stage.cluster.status().ok_or_else(|| stage.late("the status"))?;
    let same = edge_of(&after).ok() == Some(edge) && after.supervision.crashes == 0;
    let measured = format!("{} crashes, generation {}", after.supervision.crashes, after.number);
    let (limit, kept) =
        (format!("0 crashes, generation {}", before.number), after.generation == before.generation);
    stage.expect("edge-untouched", "The edge was not touched", &limit, measured, same && kept);
    let newest = stage.cluster.stored();
    let unchanged = newest == stored;
    let (limit, measured) = (format!("{stored:?}"), format!("{newest:?}"));
    stage.expect("last-good-stays", "The last good generation has not moved on", &limit, measured, unchanged);
    stage.end_traffic();
    poison_the_disk(stage)
}

/// A Rempart without a taster puts the bad generation on its disk; that file is placed on the other's.
fn poison_the_disk(stage: &mut Stage) -> Result<(), DrillError> {
    let mut forge = stage.another_cluster()?;
    forge.set_variable(crate::stage::WITHOUT, "taster");
    forge.start_and_wait()?;
    let bad = forge.config_with(&[FAULT]);
    forge.configure(&bad)?;
    let newest = forge.stored().first().copied().unwrap_or(0);
    let from = forge.state().join("generations").join(format!("{newest:012}.generation"));
    let to = stage.cluster.state().join("generations").join(FORGED);
    fs::copy(from, to).map_err(DrillError::system("the generation could not be forged"))?;
    drop(forge);
    stage.inject("the bad generation lies on disk as the newest good one, and everything is started again");
    stage.cluster.kill_all_but(&[]);
    stage.cluster.start()?;
    let took = stage.cluster.await_serving(BOOT);
    stage.within("disk-no-bypass", "A start from disk passes it over and serves the one before", BOOT, took);
    Ok(())
}
