//! Drill 9: everything that controls is gone for an hour; what serves goes on, and boots from disk.

use std::fs;
use std::time::Duration;

use api::admin::GenerationSource;

use super::{HOPELESS, QUIET, edge_of};
use crate::{Control, Drill, DrillError, Stage, pids};

/// How long the outage lasts, before the clock of the drill.
const OUTAGE: Duration = Duration::from_secs(3600);
/// A new supervisor has adopted the edge and made the change that waited.
const RETURN: Duration = Duration::from_secs(20);
/// A cold boot from disk.
const BOOT: Duration = Duration::from_secs(5);
/// Exit code of the command line when no Rempart was reached.
const UNREACHED: i32 = 3;

/// Drill 9.
pub const DRILL: Drill = Drill {
    number: 9,
    name: "control-plane-lost",
    title: "Control plane lost",
    outage: "Cloudflare, 2 November 2023",
    story: "Supervisor, keeper and standby are killed; one edge is left. The configuration changes meanwhile, and somebody \
            asks for a reload. After an hour, compressed by the clock of the drill, a supervisor comes back. Then every \
            process is killed and the configuration file is gone: the edge boots cold from disk. At last the store cannot \
            be written.",
    needs: &[],
    controls: &[
        Control { without: "orphan", fails: "resets" },
        Control { without: "last-good", fails: "cold-boot" },
    ],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let before = stage.cluster.start_and_wait()?;
    let edge = edge_of(&before)?;
    stage.begin_traffic()?;
    stage.pass(QUIET);
    lose_control(stage, edge)?;
    come_back(stage, edge, before.number)?;
    stage.pass(QUIET);
    stage.end_traffic();
    boot_cold(stage)?;
    lose_store(stage)
}

fn lose_control(stage: &mut Stage, edge: u32) -> Result<(), DrillError> {
    stage.inject("supervisor, keeper and standby are killed");
    stage.cluster.kill_all_but(&[edge]);
    let changed = stage.cluster.config_with(&["later"]);
    stage.cluster.write("rempart.toml", &changed)?;
    stage.inject("the configuration is changed, and a reload asked for");
    let asked = stage.cluster.command(&["reload"]).output();
    let asked = asked.map_err(DrillError::system("`rempart reload` could not be run"))?;
    let folder = stage.cluster.path("").display().to_string();
    let said = String::from_utf8_lossy(&asked.stderr).trim().replace(&folder, "");
    let refused = asked.status.code() == Some(UNREACHED) && !said.is_empty();
    let measured = format!("exit code {}: {said}", asked.status.code().unwrap_or(-1));
    stage.expect("reload-refused", "A reload is refused with a reason", "exit code 3", measured, refused);
    let span = stage.options.compressed(OUTAGE);
    stage.pass(span);
    let serves = pids::lives(edge);
    let measured = format!("process {edge} {}", if serves { "serves" } else { "has ended" });
    stage.expect(
        "edge-serves-on",
        "The edge serves on without a supervisor",
        "the same process",
        measured,
        serves,
    );
    // No site has this host yet, which is what 421 says (RFC 9110 section 15.5.20).
    let status = stage.cluster.look("later.test").map_or(0, |seen| seen.status);
    stage.expect("change-waits", "The change is not in force meanwhile", "421", status, status == 421);
    Ok(())
}

fn come_back(stage: &mut Stage, edge: u32, number: u64) -> Result<(), DrillError> {
    stage.inject("a supervisor is started again");
    let began = stage.clock.now();
    stage.cluster.start()?;
    let status = stage.cluster.await_status(HOPELESS, |status| {
        status.number > number && stage.cluster.look("later.test").is_ok_and(|seen| seen.of_origin)
    });
    let took = status.as_ref().map(|_| stage.clock.now().saturating_sub(began));
    stage.within("change-made", "The change that waited is in force, unasked", RETURN, took);
    let serving = stage.cluster.status().and_then(|status| edge_of(&status).ok());
    let measured = serving.map_or_else(|| "none".to_owned(), |pid| format!("process {pid}"));
    let limit = format!("process {edge}");
    stage.expect("adopted", "The new supervisor adopts the edge", &limit, measured, serving == Some(edge));
    Ok(())
}

fn boot_cold(stage: &mut Stage) -> Result<(), DrillError> {
    stage.inject("every process is killed, and the configuration file is gone");
    stage.cluster.kill_all_but(&[]);
    let gone = fs::remove_file(stage.cluster.path("rempart.toml"));
    gone.map_err(DrillError::system("the configuration could not be removed"))?;
    stage.cluster.start()?;
    let took = stage.cluster.await_serving(HOPELESS);
    stage.within("cold-boot", "An edge boots cold from disk and serves", BOOT, took);
    let status = stage.cluster.await_status(Duration::from_secs(5), |_| true);
    let told = status.as_ref().is_some_and(|s| s.source == GenerationSource::LastGood && s.refused.is_some());
    let measured = status.map_or_else(|| "no answer".to_owned(), |s| format!("{:?}", s.source));
    stage.expect("says-last-good", "The status says that the last good one runs", "LastGood", measured, told);
    Ok(())
}

fn lose_store(stage: &mut Stage) -> Result<(), DrillError> {
    let folder = stage.cluster.state().join("generations");
    stage.inject("the folder of generations can no longer be written");
    let lost = fs::rename(&folder, stage.cluster.path("away")).and_then(|()| fs::write(&folder, ""));
    lost.map_err(DrillError::system("the store could not be taken away"))?;
    let text = stage.cluster.config_with(&["later", "unkept"]);
    if stage.cluster.status().is_none() {
        stage.expect(
            "store-lost-said",
            "A change without the store says so",
            "not-kept",
            "nobody runs",
            false,
        );
        return Ok(());
    }
    let outcome = stage.cluster.configure(&text)?;
    let said = outcome.diagnostics.iter().any(|found| found.code == "not-kept") || !outcome.active;
    let measured = super::codes(&outcome);
    stage.expect(
        "store-lost-said",
        "A change without the store is refused, or says that it is not kept",
        "said",
        measured,
        said,
    );
    let serves = stage.cluster.look(crate::cluster::FIRST_HOST).is_ok_and(|seen| seen.of_origin);
    stage.expect("store-lost-serves", "Visitors are served all the same", "yes", yes(serves), serves);
    Ok(())
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}
