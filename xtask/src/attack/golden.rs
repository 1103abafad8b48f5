//! Golden traffic: the harness's generator as a process of its own, and what became of its requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::servers::{Place, Server};
use crate::shell::{output, succeed};

/// Requests a second, on a timetable that no answer delays.
const PER_SECOND: u32 = 500;
/// Requests answered before an attack begins.
const WARM: usize = 500;
/// Address of the golden visitors. slowhttptest cannot choose its own and comes from 127.0.0.1, so these must not.
const SOURCE: &str = "127.9.9.9";
/// Priority of the generator where we may ask for it, so that late answers are the server's doing.
const NICENESS: &str = "-5";

/// Golden traffic under way; killed when this value goes away.
pub struct Golden {
    child: Child,
    said: BufReader<ChildStdout>,
}

/// What became of it. Latencies are of answered requests, from the moment they were due, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub sent: u64,
    pub served: u64,
    /// Served, but only on a second connection.
    pub retried: u64,
    pub median: f64,
    pub p99: f64,
    pub most: f64,
    /// Why requests failed, and how many.
    pub reasons: Vec<(&'static str, u64)>,
    /// The first failures in words.
    pub failures: Vec<String>,
}

impl Golden {
    /// Builds the generator.
    pub fn build(place: &Place) -> Result<()> {
        let arguments = ["build", "--locked", "--quiet", "--package", "harness", "--bin", "golden"];
        succeed(&mut place.workspace.cargo(&arguments))
    }

    /// Starts it; returns once enough requests are over.
    pub fn start(place: &Place, server: &Server) -> Result<Self> {
        let program = place.workspace.target.join("debug/golden");
        let mut command = if privileged()? {
            let mut nice = place.workspace.command("nice");
            nice.args(["-n", NICENESS]).arg(program);
            nice
        } else {
            place.workspace.command(program)
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(place.folder.join("golden.log"))?)
            .spawn()
            .context("cannot start the golden traffic")?;
        let said = BufReader::new(child.stdout.take().context("no piped output")?);
        let mut golden = Self { child, said };
        let order = order(server, &place.folder.join("chain.pem"), &place.golden_file());
        let input = golden.child.stdin.as_mut().context("no piped input")?;
        writeln!(input, "{order}")?;
        let mut line = String::new();
        golden.said.read_line(&mut line)?;
        if line.trim() != "warm" {
            bail!("the golden traffic does not begin; see {}", place.folder.join("golden.log").display());
        }
        Ok(golden)
    }

    /// Ends it; every request under way is waited for.
    pub fn stop(mut self) -> Result<Tally> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.said.read_to_string(&mut said)?;
        let figures = serde_json::from_str(&said).context("the golden traffic ended without figures")?;
        tally(&figures).context("figures are missing from the golden traffic")
    }
}

impl Drop for Golden {
    fn drop(&mut self) {
        // It may have ended by itself, which is no error; waiting leaves no zombie.
        let killed = self.child.kill().and_then(|()| self.child.wait());
        drop(killed);
    }
}

/// Whether a process may be put before others.
pub fn privileged() -> Result<bool> {
    Ok(output(std::process::Command::new("id").arg("-u"))?.trim() == "0")
}

fn order(server: &Server, roots: &Path, expect: &Path) -> Value {
    let tls = server.tls_port.map(|port| format!("127.0.0.1:{port}"));
    json!({
        "plain": format!("127.0.0.1:{}", server.plain_port),
        "tls": tls,
        "roots": roots,
        "source": SOURCE,
        "host": "localhost",
        "path": "/golden",
        "expect": expect,
        "per_second": PER_SECOND,
        "warm": WARM,
    })
}

fn tally(figures: &Value) -> Option<Tally> {
    let number = |name: &str| figures[name].as_u64();
    let mut reasons = Vec::new();
    for name in ["refused", "dropped", "wrong", "timeouts", "unasked"] {
        reasons.push((name, number(name)?));
    }
    reasons.retain(|(_, count)| *count > 0);
    let words = figures["failures"].as_array()?;
    Some(Tally {
        sent: number("sent")?,
        served: number("served")?,
        retried: number("retried")?,
        median: figures["median_ms"].as_f64()?,
        p99: figures["p99_ms"].as_f64()?,
        most: figures["max_ms"].as_f64()?,
        reasons,
        failures: words.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_a_missing_one_is_noticed() {
        let mut figures = json!({
            "sent": 10, "served": 7, "retried": 1, "refused": 0, "dropped": 2, "wrong": 1, "timeouts": 0, "unasked": 0,
            "failures": ["Kept: why"], "median_ms": 1.5, "p99_ms": 2.0, "max_ms": 3.0,
        });
        let read = tally(&figures).unwrap();
        assert_eq!((read.sent, read.served, read.most), (10, 7, 3.0));
        assert_eq!(read.reasons, [("dropped", 2), ("wrong", 1)]);
        figures["wrong"] = Value::Null;
        assert_eq!(tally(&figures), None);
    }
}
