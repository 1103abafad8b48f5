//! Drill 4: a rule with a catastrophic regular expression goes live, and bodies are made for it; it cannot take the processors.

use std::time::Duration;

use api::analytics::Item;

use super::{HOPELESS, QUIET, codes, edge_of};
use crate::cluster::wait_for;
use crate::uploads::Uploads;
use crate::{Control, Drill, DrillError, Stage, pids};

/// The bodies: as long as rules look, and nothing in them that ends a search early.
const BODY: usize = 128 << 10;
/// Uploads in flight and the pause of each client while processor time is compared: about four a second.
const CLIENTS: usize = 2;
const PAUSE: Duration = Duration::from_millis(500);
/// Clients without a pause, for as much as the data plane can do.
const CROWD: usize = 6;
/// Stretches of time in which the processor time of the edge is measured.
const STRETCHES: usize = 5;
const STRETCH: Duration = Duration::from_secs(2);
/// What the rules may add, in per mille of one processor.
const PER_MILLE: u128 = 50;
/// How soon a kill switch has its effect while the data plane is as busy as it can be.
const REACHED: Duration = Duration::from_secs(2);
/// Request events that are looked at.
const LOOKED_AT: &str = "20000";
/// The expression of that day, one that costs more than its steps, and one whose effect shows that rules are asked at all.
const RULES: &str = r#"
[site.limits]
inspect_body = "128KiB"

[[site.rules]]
id = "catastrophic"
phase = "http_request_firewall_custom"
expression = '''http.request.body.raw matches ".*(?:.*=.*)"'''
action = "block"
mode = "log"

[[site.rules]]
id = "costly"
phase = "http_request_firewall_custom"
expression = '''http.request.body.raw matches "(x{100}){100}z"'''
action = "block"
mode = "log"

[[site.rules]]
id = "seen"
phase = "http_request_firewall_custom"
expression = '''any(http.request.headers["x-drill"][*] eq "seen")'''
action = "block"
"#;

/// Drill 4.
pub const DRILL: Drill = Drill {
    number: 4,
    name: "catastrophic-regex",
    title: "Catastrophic regular expression",
    outage: "Cloudflare, 2 July 2019",
    story: "A log-only rule holds the expression .*(?:.*=.*), another one that costs seconds for each body, and clients send \
            bodies of 128 KiB that are made for them. Then so many come that the data plane can do no more, and the rules are \
            switched off.",
    needs: &[],
    controls: &[Control { without: "rule-budget", fails: "processor" }],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let plain = stage.cluster.config().replacen(
        "\n\n[[site.origin]]",
        "\n\n[site.limits]\ninspect_body = \"128KiB\"\n\n[[site.origin]]",
        1,
    );
    stage.cluster.write("rempart.toml", &plain)?;
    let edge = edge_of(&stage.cluster.start_and_wait()?)?;
    stage.begin_traffic()?;
    let body = vec![b'x'; BODY];
    let uploads = Uploads::start(stage.cluster.plain, CLIENTS, &body, PAUSE)?;
    stage.pass(QUIET);
    let before = busy(stage, edge);
    stage.inject("rules with catastrophic regular expressions");
    let config =
        stage.cluster.config().replacen("\n\n[[site.origin]]", &format!("\n{RULES}\n[[site.origin]]"), 1);
    let outcome = stage.cluster.configure(&config)?;
    let measured = codes(&outcome);
    stage.expect(
        "taken",
        "No check refuses them: premise of what follows",
        "in force",
        measured,
        outcome.active,
    );
    let blocks = || stage.cluster.provoke("X-Drill: seen").is_ok_and(|seen| seen.status == 403);
    let asked = wait_for(HOPELESS, blocks).is_some();
    stage.expect(
        "asked",
        "Rules are asked: premise of what follows",
        "yes",
        if asked { "yes" } else { "no" },
        asked,
    );
    let after = busy(stage, edge);
    cheap(stage, &before, &after);
    let (served, failed) = uploads.counted();
    stage.expect(
        "uploads",
        "Uploads that failed",
        "0",
        format!("{failed} of {}", served + failed),
        failed == 0 && served > 0,
    );
    drop(uploads);
    named(stage);
    kill(stage, edge, &body)?;
    stage.pass(QUIET);
    stage.end_traffic();
    let same = stage.cluster.status().is_some_and(|status| edge_of(&status).is_ok_and(|pid| pid == edge));
    let measured = if same { "serves still" } else { "was replaced" };
    stage.expect("same-edge", "The edge that met the rules", "serves still", measured, same);
    Ok(())
}

/// Processor time of the edge in a few stretches of time, the least first; fewer when it is gone.
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

fn cheap(stage: &mut Stage, before: &[Duration], after: &[Duration]) {
    let claim = "Processor time of the edge beyond the busiest stretch before, in per mille of one processor";
    let (Some(most), Some(median)) = (before.last(), after.get(after.len() / 2)) else {
        return stage.expect("processor", claim, "<= 50", "the edge is gone", false);
    };
    let rise = median.saturating_sub(*most).as_micros() * 1000 / STRETCH.as_micros();
    stage.expect("processor", claim, "<= 50", rise, after.len() == STRETCHES && rise <= PER_MILLE);
}

/// The rule that used up its steps is named in the events of the requests it concerned.
fn named(stage: &mut Stage) {
    let words = ["events", "--kind", "requests", "--since", "1h", "--limit", LOOKED_AT];
    let mut of_costly = String::new();
    let looked = || {
        let output = stage.cluster.command(&words).output().map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&output).into_owned();
        let mut items = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        of_costly = items
            .find_map(|item| {
                let Item::Request(request) = item else { return None };
                request
                    .verdicts
                    .into_iter()
                    .find(|verdict| verdict.reason == "costly")
                    .map(|verdict| verdict.outcome)
            })
            .unwrap_or_default();
        !of_costly.is_empty()
    };
    let found = wait_for(HOPELESS, looked).is_some();
    let right = found && of_costly == "over_budget";
    stage.expect(
        "named",
        "What events say of the rule that used up its steps",
        "over_budget",
        of_costly,
        right,
    );
}

/// A kill switch reaches a data plane that can do no more.
fn kill(stage: &mut Stage, edge: u32, body: &[u8]) -> Result<(), DrillError> {
    let crowd = Uploads::start(stage.cluster.plain, CROWD, body, Duration::ZERO)?;
    stage.inject("as many bodies as the data plane can take");
    stage.pass(QUIET);
    let from = pids::processor_time(edge);
    stage.pass(STRETCH);
    let to = pids::processor_time(edge);
    if let (Some(from), Some(to)) = (from, to) {
        let share = to.saturating_sub(from).as_micros() * 100 / STRETCH.as_micros();
        stage.figure("processor time of the edge meanwhile, in per cent of one processor", share);
    }
    stage.inject("the rules are switched off");
    let began = stage.clock.now();
    let mut refused = String::new();
    for rule in ["rule/seen", "rule/catastrophic", "rule/costly"] {
        let done = stage.cluster.command(&["disable", rule, "--reason", "drill"]).output();
        let done = done.map_err(DrillError::system("`rempart disable` could not be run"))?;
        if !done.status.success() {
            refused = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).trim().to_owned();
        }
    }
    let taken = refused.is_empty();
    stage.expect("switches-taken", "Kill switches that were refused", "none", refused, taken);
    let serves = || stage.cluster.provoke("X-Drill: seen").is_ok_and(|seen| seen.status == 200);
    let took = wait_for(HOPELESS, serves).map(|_| stage.clock.now().saturating_sub(began));
    stage.within("switched-off", "The kill switches have their effect", REACHED, took);
    drop(crowd);
    Ok(())
}
