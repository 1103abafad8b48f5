//! Http11Probe's cases, one at a time, with an origin behind that records every request: what got through decides.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Score, rempart};
use crate::peers::{Name, Place, Server};
use crate::ports;
use crate::shell::{Background, output};

/// Seconds a case waits for an answer.
const TIMEOUT: &str = "2";

/// Runs the cases against Rempart, against nginx, and straight against the origin, which is as lax as can be.
pub fn run(place: &Place, suites: &Path) -> Result<Vec<Score>> {
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(suites.join("http11/cases.json"))?)?;
    let (_origin, origin_port, log) = recording_origin(place, suites)?;
    let replay = Replay { place, suites, log: &log, cases: &cases };
    let server = rempart(place, origin_port)?;
    let mut scores = vec![replay.score(server.name.shown(), server.plain_port)?];
    drop(server);
    let nginx = Server::start(place, Name::Nginx, origin_port)?;
    scores.push(replay.score(nginx.name.shown(), nginx.plain_port)?);
    drop(nginx);
    let control = replay.score("control: the origin itself", origin_port)?;
    scores.push(Score { control: true, ..control });
    Ok(scores)
}

/// The suite's own origin: it answers everything it can parse, and writes a line for each request.
fn recording_origin(place: &Place, suites: &Path) -> Result<(Background, u16, std::path::PathBuf)> {
    let port = ports::free()?;
    let log = place.folder.join("origin.jsonl");
    fs::write(&log, "")?;
    let mut python = place.workspace.command("python3");
    python.arg(suites.join("bin/raw-origin.py")).arg(port.to_string()).arg(&log).stderr(Stdio::null());
    let mut origin = Background::start("the recording origin", &mut python)?;
    ports::wait_for(&mut origin, port)?;
    Ok((origin, port, log))
}

struct Replay<'a> {
    place: &'a Place<'a>,
    suites: &'a Path,
    log: &'a Path,
    cases: &'a [Value],
}

/// What became of one case.
struct Seen {
    id: String,
    scored: bool,
    /// `Pass`, `Warn`, `Fail` or `Unjudged`, as the suite's runner says.
    verdict: String,
    expected: String,
    statuses: Vec<u64>,
    /// Requests that the origin recorded while the case ran.
    reached: usize,
}

impl Seen {
    /// More requests at the origin than answers to the client: somebody was talked into a request that was not sent.
    fn smuggled(&self) -> bool {
        self.reached > self.statuses.iter().filter(|status| **status >= 200).count()
    }

    /// The client was told 400, yet a request got through.
    fn refused_but_passed_on(&self) -> bool {
        self.statuses.first() == Some(&400) && self.reached > 0
    }

    fn line(&self) -> String {
        let statuses: Vec<String> = self.statuses.iter().map(u64::to_string).collect();
        let answered = if statuses.is_empty() { "no answer".to_owned() } else { statuses.join(", ") };
        let smuggled = if self.smuggled() { "; more requests at the origin than answers" } else { "" };
        let passed_on = if self.refused_but_passed_on() { "; refused, yet passed on" } else { "" };
        format!(
            "{} ({}): expected {}; came: {answered}; {} reached the origin{smuggled}{passed_on}",
            self.id, self.verdict, self.expected, self.reached
        )
    }
}

impl Replay<'_> {
    fn score(&self, target: &str, port: u16) -> Result<Score> {
        println!("http11 against {target}: {} cases", self.cases.len());
        let mut seen = Vec::new();
        for case in self.cases {
            seen.push(self.one(case, port)?);
        }
        let scored =
            |verdict: &str| seen.iter().filter(|case| case.scored && case.verdict == verdict).count();
        let missed = seen.iter().filter(|case| {
            (case.scored && case.verdict != "Pass") || case.smuggled() || case.refused_but_passed_on()
        });
        Ok(Score {
            target: target.to_owned(),
            counts: vec![
                ("pass", scored("Pass")),
                ("warn", scored("Warn")),
                ("fail", scored("Fail")),
                ("unjudged", scored("Unjudged")),
                ("not scored", seen.iter().filter(|case| !case.scored).count()),
                ("smuggled", seen.iter().filter(|case| case.smuggled()).count()),
                ("refused, yet passed on", seen.iter().filter(|case| case.refused_but_passed_on()).count()),
            ],
            misses: missed.map(Seen::line).collect(),
            control: false,
            defects: seen.iter().filter(|case| case.smuggled() || case.refused_but_passed_on()).count(),
        })
    }

    /// Replays a single case, so that what the origin records meanwhile belongs to it.
    fn one(&self, case: &Value, port: u16) -> Result<Seen> {
        let id = case["id"].as_str().context("a case without an id")?;
        let (input, report) = (self.place.folder.join("case.json"), self.place.folder.join("verdict.json"));
        fs::write(&input, serde_json::to_string(&[case])?)?;
        let before = self.recorded()?;
        let mut python = self.place.workspace.command("python3");
        python
            .arg(self.suites.join("bin/h1-replay.py"))
            .arg(&input)
            .arg(port.to_string())
            .arg(&report)
            .arg(TIMEOUT);
        output(&mut python).with_context(|| format!("case {id}"))?;
        let reached = self.recorded()? - before;
        let verdicts: Value = serde_json::from_str(&fs::read_to_string(&report)?)?;
        parse(id, &verdicts, reached)
    }

    /// Complete requests in the origin's log; a line with only `partial` is one that never became a request.
    fn recorded(&self) -> Result<usize> {
        let log = fs::read_to_string(self.log)?;
        Ok(log.lines().filter(|line| line.contains("\"head\"")).count())
    }
}

fn parse(id: &str, verdicts: &Value, reached: usize) -> Result<Seen> {
    let Some(one) = verdicts.get(id) else { bail!("the runner says nothing about {id}") };
    let text = |key: &str| one[key].as_str().unwrap_or("?").to_owned();
    let statuses = one["status"].as_array().context("no list of statuses")?;
    Ok(Seen {
        id: id.to_owned(),
        scored: one["scored"].as_bool().context("no `scored`")?,
        verdict: text("v"),
        expected: text("exp"),
        statuses: statuses.iter().filter_map(Value::as_u64).collect(),
        reached,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(statuses: &[u64], reached: usize) -> Seen {
        let verdicts =
            serde_json::json!({ "X": { "v": "Fail", "scored": true, "exp": "400", "status": statuses } });
        parse("X", &verdicts, reached).unwrap()
    }

    #[test]
    fn what_reached_the_origin_decides() {
        assert!(!seen(&[200], 1).smuggled());
        assert!(!seen(&[100, 200], 1).smuggled());
        assert!(seen(&[200], 2).smuggled());
        assert!(seen(&[100], 1).smuggled());
        assert!(seen(&[400], 1).refused_but_passed_on());
        assert!(!seen(&[400], 0).refused_but_passed_on());
        assert!(!seen(&[200, 400], 1).refused_but_passed_on());
    }

    #[test]
    fn a_runner_that_says_nothing_is_an_error() {
        assert!(parse("Y", &serde_json::json!({}), 0).is_err());
    }
}
