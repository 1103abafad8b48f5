//! Drill 5: kill switches meet every action type, singly and in pairs, while the body buffer grows; a killed rule is as if absent.

use std::time::Duration;

use super::{HOPELESS, QUIET, codes, edge_of};
use crate::cluster::wait_for;
use crate::uploads::Uploads;
use crate::{Control, Drill, DrillError, Stage};

/// How soon a switch has its effect.
const EFFECT: Duration = Duration::from_secs(2);
/// Bodies between the old limit and the new one.
const BODY: usize = 600 << 10;
const CLIENTS: usize = 2;
const PAUSE: Duration = Duration::from_millis(100);
/// How switches are thrown and taken back.
const OFF: [&str; 3] = ["disable", "--reason", "drill"];
const ON: [&str; 1] = ["enable"];
/// The rule of each action type.
const KINDS: [&str; 4] = ["block", "log", "skip", "execute"];
/// What a request says of itself; the last is concerned by no rule but the one that executes, whose rules spare it.
const VISITS: [&str; 5] = ["block", "log", "skip", "execute", "nothing"];
/// `skip` spares a request what stands below it.
const RULES: &str = r#"
[site.limits]
inspect_body = "BODY"

[[site.rules]]
id = "log"
phase = "http_request_firewall_custom"
expression = '''any(http.request.headers["x-drill"][*] eq "log") or http.request.body.raw contains "never sent"'''
action = "log"

[[site.rules]]
id = "execute"
phase = "http_request_firewall_custom"
expression = "true"
action = "execute"
action_parameters.id = "more"

[[site.rules]]
id = "block"
phase = "http_request_firewall_custom"
expression = '''any(http.request.headers["x-drill"][*] eq "block")'''
action = "block"

[[site.rules]]
id = "skip"
phase = "http_request_firewall_custom"
expression = '''any(http.request.headers["x-drill"][*] eq "skip")'''
action = "skip"
action_parameters.ruleset = "current"

[[site.rules]]
id = "below"
phase = "http_request_firewall_custom"
expression = '''any(http.request.headers["x-drill"][*] eq "skip")'''
action = "block"
"#;
const RULESETS: &str = r#"
[[rulesets]]
id = "more"

[[rulesets.rules]]
id = "executed"
phase = "http_request_firewall_custom"
expression = '''any(http.request.headers["x-drill"][*] eq "execute")'''
action = "block"
"#;

/// Drill 5.
pub const DRILL: Drill = Drill {
    number: 5,
    name: "kill-switch",
    title: "The kill switch itself breaks",
    outage: "Cloudflare, 5 December 2025",
    story: "The part of bodies that rules look into grows from 128 KiB to 1 MiB under load, while kill switches hit a rule of each \
            action type, singly and in pairs. A buffer for which there is no memory is asked for, and a kill switch for a rule \
            that is not there.",
    needs: &[],
    controls: &[
        Control { without: "killed-rule-is-absent", fails: "as-if-absent" },
        Control { without: "switch-checks", fails: "unknown-refused" },
    ],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let config = config(stage, "128KiB");
    stage.cluster.write("rempart.toml", &config)?;
    let edge = edge_of(&stage.cluster.start_and_wait()?)?;
    let all = wait_for(HOPELESS, || wrong(stage, &[]).is_empty()).is_some();
    let measured = wrong(stage, &[]).join("; ");
    stage.expect(
        "rules",
        "Every rule does its work: premise of what follows",
        "none is wrong",
        measured,
        all,
    );
    stage.begin_traffic()?;
    let uploads = Uploads::start(stage.cluster.plain, CLIENTS, &vec![b'x'; BODY], PAUSE)?;
    stage.pass(QUIET);
    grow_and_kill(stage)?;
    overgrow(stage)?;
    kill_nobody(stage)?;
    stage.pass(QUIET);
    let (served, failed) = uploads.counted();
    drop(uploads);
    let measured = format!("{failed} of {}", served + failed);
    stage.expect("uploads", "Uploads that failed", "0", measured, failed == 0 && served > 0);
    stage.end_traffic();
    let same = stage.cluster.status().is_some_and(|status| edge_of(&status).is_ok_and(|pid| pid == edge));
    let measured = if same { "serves still" } else { "was replaced" };
    stage.expect("same-edge", "The edge that met all of it", "serves still", measured, same);
    Ok(())
}

fn config(stage: &Stage, body: &str) -> String {
    let rules = RULES.replace("BODY", body);
    let site =
        stage.cluster.config().replacen("\n\n[[site.origin]]", &format!("\n{rules}\n[[site.origin]]"), 1);
    site + RULESETS
}

/// What these visits must be answered with while some rules are switched off.
fn expected(visit: &str, killed: &[&str]) -> u16 {
    let works = |rule: &str| !killed.contains(&rule);
    let blocked = match visit {
        "block" => works("block"),
        "execute" => works("execute"),
        "skip" => !works("skip"),
        _ => false,
    };
    if blocked { 403 } else { 200 }
}

/// Visits that are answered with something else.
fn wrong(stage: &Stage, killed: &[&str]) -> Vec<String> {
    let differs = |visit: &&str| {
        let expected = expected(visit, killed);
        let status = stage.cluster.provoke(&format!("X-Drill: {visit}")).map_or(0, |seen| seen.status);
        (status != expected).then(|| format!("{visit} without {}: {status}", killed.join(" and ")))
    };
    VISITS.iter().filter_map(differs).collect()
}

/// Each action type alone, and each with each other.
fn sets() -> Vec<Vec<&'static str>> {
    let mut sets: Vec<Vec<&str>> = KINDS.iter().map(|kind| vec![*kind]).collect();
    for (at, first) in KINDS.iter().enumerate() {
        sets.extend(KINDS.iter().skip(at + 1).map(|second| vec![*first, *second]));
    }
    sets
}

/// Throws or takes back a switch for each rule.
fn switch(stage: &Stage, words: &[&str], rules: &[&str]) -> Result<(), DrillError> {
    for rule in rules {
        let done = stage.cluster.command(&[words, &[&format!("rule/{rule}")]].concat()).output();
        let done = done.map_err(DrillError::system("a kill switch could not be thrown"))?;
        if !done.status.success() {
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            return Err(DrillError::Unexpected(format!("a switch for rule/{rule} ended badly: {said}")));
        }
    }
    Ok(())
}

/// The kill switches one after the other, half of them before the buffer grows; the reload runs while one of them is thrown.
fn grow_and_kill(stage: &mut Stage) -> Result<(), DrillError> {
    let (mut wrongs, mut late, mut longest) = (Vec::new(), 0, Duration::ZERO);
    let sets = sets();
    let grown = config(stage, "1MiB");
    let mut grew = None;
    for (number, killed) in sets.iter().enumerate() {
        let now = number == sets.len() / 2;
        if now {
            stage.inject("the body buffer grows to 1 MiB");
        }
        let here = &*stage;
        let outcome = std::thread::scope(|scope| {
            let reload = now.then(|| scope.spawn(|| here.cluster.configure(&grown)));
            let thrown = switch(here, &OFF, killed);
            let outcome = reload.map(|reload| reload.join());
            thrown.map(|()| outcome)
        })?;
        if let Some(outcome) = outcome {
            let outcome = outcome.map_err(|_| DrillError::Unexpected("the reload panicked".to_owned()))??;
            grew = Some((outcome.active, codes(&outcome)));
        }
        match wait_for(EFFECT, || wrong(stage, killed).is_empty()) {
            Some(took) => longest = longest.max(took),
            None => late += 1,
        }
        wrongs.extend(wrong(stage, killed));
        switch(stage, &ON, killed)?;
        if wait_for(EFFECT, || wrong(stage, &[]).is_empty()).is_none() {
            wrongs.extend(wrong(stage, &[]));
        }
    }
    let (active, said) = grew.unwrap_or((false, "never asked for".to_owned()));
    stage.expect("grown", "The larger buffer", "in force", said, active);
    let measured = format!(
        "{} of {}{}",
        late,
        sets.len(),
        wrongs.first().map_or(String::new(), |first| format!("; {first}"))
    );
    let claim = "Sets of kill switches after which some visit is not answered as if the rules were absent";
    stage.expect("as-if-absent", claim, "0", measured, late == 0 && wrongs.is_empty());
    stage.figure("longest until all five visits were right", crate::stage::shown(longest));
    Ok(())
}

/// A buffer for which there is no memory.
fn overgrow(stage: &mut Stage) -> Result<(), DrillError> {
    stage.inject("a body buffer is asked for that there is no memory for");
    let text = config(stage, "1MiB").replacen("[limits]", "[limits]\nmemory = \"60MiB\"", 1);
    let outcome = stage.cluster.configure(&text)?;
    let refused = !outcome.active && outcome.diagnostics.iter().any(|found| found.code == "inspect-memory");
    let measured = codes(&outcome);
    stage.expect(
        "memory-preflight",
        "A buffer that there is no memory for",
        "inspect-memory",
        measured,
        refused,
    );
    let restored = config(stage, "1MiB");
    stage.cluster.configure(&restored)?;
    Ok(())
}

/// A kill switch goes through the same checks as everything else.
fn kill_nobody(stage: &mut Stage) -> Result<(), DrillError> {
    stage.inject("a kill switch for a rule that is not there");
    let done = stage.cluster.command(&["disable", "rule/blocks", "--reason", "drill"]).output();
    let done = done.map_err(DrillError::system("a kill switch could not be thrown"))?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().replace(['\n', '\r'], " ");
    let refused = !done.status.success() && said.contains("block");
    let claim = "A kill switch for a rule that is not there";
    stage.expect("unknown-refused", claim, "refused, and the rule it is like is named", said, refused);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_type_is_killed_alone_and_with_each_other() {
        let sets = sets();
        assert_eq!(sets.len(), 10);
        assert!(sets.contains(&vec!["block"]) && sets.contains(&vec!["skip", "execute"]));
        assert_eq!([expected("skip", &[]), expected("skip", &["skip"])], [200, 403]);
        assert_eq!([expected("execute", &[]), expected("execute", &["log", "execute"])], [403, 200]);
    }
}
