//! Drill 2: a module panics on every request, everywhere at once; nobody is blocked for it, and reporting it stays cheap.

use std::collections::BTreeMap;
use std::time::Duration;

use api::analytics::Item;
use base::happening::What;
use base::time::Timestamp;

use super::{HOPELESS, QUIET, edge_of};
use crate::cluster::{Cluster, wait_for};
use crate::comms::{Comms, Known};
use crate::feeds::{Fate, Feed, happenings};
use crate::plan::HOSTS;
use crate::stage::shown;
use crate::{Control, Drill, DrillError, Need, Stage, pids};

/// How soon the module is passed over.
const OPENS: Duration = Duration::from_secs(1);
/// Reports of failing modules in a second, and processor time they may take, in per mille of one processor.
const REPORTS: usize = 10;
const PER_MILLE: u128 = 20;
/// Sites beside those with visitors, so that the module fails in many places at once, and requests to each.
const MORE: usize = 40;
const EACH: usize = 8;
/// The scores, and the row for visitors; what the module does not survive is one row more.
const SCORES: &str = "#columns name:text score:number\nvisitor\t80\nrobot\t5\n";
const SURPRISE: &str = "panic\t50\n";
/// Stretches of time in which the processor time of the edge is measured.
const STRETCHES: usize = 5;
const STRETCH: Duration = Duration::from_secs(2);
/// A module that was passed over is tried again within this.
const AGAIN: Duration = Duration::from_secs(60);
/// Request events that are looked at.
const LOOKED_AT: &str = "20000";

/// Drill 2.
pub const DRILL: Drill = Drill {
    number: 2,
    name: "module-panic",
    title: "Module panic and diagnostics storm",
    outage: "Cloudflare, 18 November 2025",
    story: "A module scores every request of 42 sites by a data file, and requests with a low score are refused. The next data \
            file passes every check and has a row that makes the module panic, so that it panics on every request of every site \
            at once. Later the file is put right.",
    needs: &[Need::Faults],
    controls: &[
        Control { without: "breaker", fails: "breaker" },
        Control { without: "module-catch", fails: "resets" },
        Control { without: "unknown-is-no-score", fails: "wrong-answers" },
        Control { without: "diagnostics-budget", fails: "reports" },
    ],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let more: Vec<String> = (1..=MORE).map(|number| format!("more-{number}")).collect();
    let scores = Feed::new(&stage.cluster, "scores", "")?;
    let names: Vec<&str> = more.iter().map(String::as_str).collect();
    let comms = Comms::start()?;
    let config = stage.cluster.config_with(&names) + &scores.config(&stage.cluster) + &comms.config();
    stage.cluster.write("rempart.toml", &with_scores(&config))?;
    scores.put(&stage.cluster, &scores.sign(1, SCORES)?)?;
    let status = stage.cluster.start_and_wait()?;
    let edge = edge_of(&status)?;
    let there = wait_for(HOPELESS, || scores.held(&stage.cluster).is_some());
    there.ok_or_else(|| stage.late("the scores"))?;
    stage.begin_traffic()?;
    stage.pass(QUIET);
    let before = busy(stage, edge);
    let outcomes = outcomes(&stage.cluster, Timestamp(0));
    let scored = outcomes.get("score").copied().unwrap_or(0);
    stage.expect("scored", "Requests that had a score: premise", "> 0", scored, scored > 0);
    let since = stage.clock.now();
    let struck = strike(stage, &scores, &more)?;
    let known = Known { words: &["trial (shop)", "passed over, panicked"], works: &["delivery"], since };
    // What is not passed over is nothing to wait for.
    if stage.cluster.status().is_some_and(|status| !status.modules.breakers.is_empty()) {
        comms.on_page(stage, "on-page", &known);
    }
    let after = busy(stage, edge);
    cheap(stage, &before, &after);
    unknown(stage, struck);
    put_right(stage, &scores)?;
    stage.pass(QUIET);
    stage.end_traffic();
    let now = stage.cluster.status();
    let same = now.as_ref().is_some_and(|status| edge_of(status).is_ok_and(|pid| pid == edge));
    let measured = if same { "serves still" } else { "was replaced" };
    stage.expect("same-edge", "The edge that met the file", "serves still", measured, same);
    Ok(())
}

/// Every site is scored by the table.
fn with_scores(config: &str) -> String {
    let policy = "[site.policy]\nforbid = [{ name = \"Rempart-Trial\", value = \"table scores visitor\" }]\n";
    let lines = config.lines().map(|line| {
        let more = if line.starts_with("hosts = ") { policy } else { "" };
        format!("{line}\n{more}")
    });
    lines.collect()
}

/// The file comes into force, and all sites are visited. When that was.
fn strike(stage: &mut Stage, scores: &Feed, more: &[String]) -> Result<Timestamp, DrillError> {
    stage.inject("a data file that makes the module panic on every request of every site");
    let judged = scores.offer(&stage.cluster, &scores.sign(2, &format!("{SCORES}{SURPRISE}"))?)?;
    let taken = judged.fate == Fate::InForce;
    stage.expect("taken", "No check can see it: premise of what follows", "taken", judged.fate, taken);
    let mut refused = 0;
    for _ in 0..EACH {
        for site in more {
            let seen = stage.cluster.look(&format!("{site}.test"));
            refused += usize::from(!seen.is_ok_and(|seen| seen.status == 200 && seen.of_origin));
        }
    }
    let measured = format!("{refused} of {}", EACH * more.len());
    stage.expect("others", "Looks at the other sites that were not served", "0", measured, refused == 0);
    let activated = || {
        let of_scores = |one: &&base::happening::Happening| one.generation == Some(2);
        scores.events(&stage.cluster, What::ArtefactActivated).iter().find(of_scores).map(|one| one.at)
    };
    wait_for(HOPELESS, || activated().is_some());
    let struck = activated().ok_or_else(|| stage.late("the event of the new scores"))?;
    let opened = || {
        let opened = happenings(&stage.cluster).into_iter().filter(|one| one.what == What::BreakerOpened);
        let sites: BTreeMap<String, Timestamp> = opened.filter_map(|one| Some((one.site?, one.at))).collect();
        sites
    };
    let visited = |sites: &BTreeMap<String, Timestamp>| {
        HOSTS.iter().all(|host| sites.contains_key(host.trim_end_matches(".test")))
    };
    wait_for(HOPELESS, || visited(&opened()));
    let sites = opened();
    let last = sites.iter().filter(|(site, _)| !site.starts_with("more-")).map(|(_, at)| at.0).max();
    let took =
        last.filter(|_| visited(&sites)).map(|last| Duration::from_micros(last.saturating_sub(struck.0)));
    stage.within("breaker", "The module is passed over at both sites with visitors", OPENS, took);
    stage.figure("sites at which the module was passed over", sites.len());
    Ok(struck)
}

/// Processor time of the edge in a few stretches of time.
fn busy(stage: &Stage, edge: u32) -> Vec<Duration> {
    let stretch = |_| {
        let before = pids::processor_time(edge)?;
        stage.pass(STRETCH);
        Some(pids::processor_time(edge)?.saturating_sub(before))
    };
    let mut stretches: Vec<Duration> = (0..STRETCHES).filter_map(stretch).collect();
    stretches.sort_unstable();
    stretches
}

/// Reports are few, and cost little: the median against the busiest stretch before.
fn cheap(stage: &mut Stage, before: &[Duration], after: &[Duration]) {
    let most = reports(&stage.cluster.log());
    let (second, count) = most.unwrap_or_default();
    let measured = format!("{count}{}", if count > 0 { format!(" at {second}") } else { String::new() });
    let right = (1..=REPORTS).contains(&count);
    stage.expect(
        "reports",
        "Reports in the log about modules, in the worst second",
        "1 to 10",
        measured,
        right,
    );
    let (Some(most), Some(median)) = (before.last(), after.get(after.len() / 2)) else {
        return stage.expect(
            "processor",
            "Processor time of the edge",
            "measured",
            "the edge is gone",
            false,
        );
    };
    let (usual, now) = (before.get(before.len() / 2).copied().unwrap_or_default(), *median);
    let rise = now.saturating_sub(*most).as_micros() * 1000 / STRETCH.as_micros();
    let claim = "Processor time of the edge beyond the busiest stretch before, in per mille of one processor";
    let measured = format!("{rise} (median {} after {} in 2 s)", shown(now), shown(usual));
    let all = after.len() == STRETCHES;
    stage.expect("processor", claim, "<= 20", measured, all && rise <= PER_MILLE);
}

/// The second with the most lines about modules, and how many they are.
fn reports(log: &str) -> Option<(String, usize)> {
    let mut seconds: BTreeMap<&str, usize> = BTreeMap::new();
    let about = |line: &&str| line.contains("module");
    for line in log.lines().filter(about) {
        // An RFC 3339 time as far as its seconds, wherever the line has it.
        let at = line.find("T").filter(|at| *at >= 10);
        if let Some(second) = at.and_then(|at| line.get(at - 10..at + 9)) {
            *seconds.entry(second).or_default() += 1;
        }
    }
    seconds.into_iter().max_by_key(|(_, count)| *count).map(|(second, count)| (second.to_owned(), count))
}

/// What the module has said of requests since a moment, by outcome.
fn outcomes(cluster: &Cluster, since: Timestamp) -> BTreeMap<String, u64> {
    let words = ["events", "--kind", "requests", "--since", "1h", "--limit", LOOKED_AT];
    let output = cluster.command(&words).output().map(|output| output.stdout).unwrap_or_default();
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output).lines() {
        let Ok(Item::Request(request)) = serde_json::from_str(line) else { continue };
        for verdict in
            request.verdicts.iter().filter(|verdict| request.at >= since && verdict.module == "trial")
        {
            *outcomes.entry(verdict.outcome.clone()).or_default() += u64::from(request.weight);
        }
    }
    outcomes
}

/// No score is no score: never 0, and no rule on it fires.
fn unknown(stage: &mut Stage, struck: Timestamp) {
    let outcomes = outcomes(&stage.cluster, struck);
    let count = |name: &str| outcomes.get(name).copied().unwrap_or(0);
    let others: u64 = outcomes.iter().filter(|(name, _)| *name != "unknown").map(|(_, count)| count).sum();
    let measured = format!("{} unknown, {others} other", count("unknown"));
    let right = count("unknown") > 0 && others == 0;
    stage.expect("unknown", "What requests have instead of a score", "unknown, 0 other", measured, right);
}

fn put_right(stage: &mut Stage, scores: &Feed) -> Result<(), DrillError> {
    stage.inject("the data file is put right");
    let judged = scores.offer(&stage.cluster, &scores.sign(3, SCORES)?)?;
    let closed = || {
        let open = stage.cluster.status().map_or(usize::MAX, |status| {
            let visited = |site: &str| HOSTS.iter().any(|host| host.trim_end_matches(".test") == site);
            status.modules.breakers.iter().filter(|breaker| visited(&breaker.site)).count()
        });
        open == 0
    };
    let took = if judged.fate == Fate::InForce { wait_for(AGAIN, closed) } else { None };
    stage.within("asked-again", "The module is asked again, with no human", AGAIN, took);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_second_is_found() {
        let line =
            |second: u32| format!("2026-11-23T04:00:{second:02}.123456Z ERROR edge: a module panicked\n");
        let log: String = [1, 2, 2, 2, 3].map(line).concat() + "2026-11-23T04:00:03.1Z INFO app: other\n";
        assert_eq!(reports(&log), Some(("2026-11-23T04:00:02".to_owned(), 3)));
        assert_eq!(reports(""), None);
    }
}
