//! Starting the attackers, on one core and behind everybody else, and reading what they say they did.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::runs::{Attack, Attacker};
use super::servers::{Place, Server};

/// The core attackers are held to where there are two.
const CORE: &str = "1";
/// What they leave to others.
const NICENESS: &str = "10";
/// Time an attacker may take to end beyond the time of its attack.
const GRACE: Duration = Duration::from_secs(20);
/// Addresses between the first ones of two processes of the same attack.
const SOURCES_APART: usize = 12_000;

/// Running attackers; killed when this value goes away.
pub struct Attackers {
    children: Vec<Child>,
    slow: bool,
    deadline: Instant,
}

/// What was done and met, in the attacker's words; counts of several processes are added up.
pub type Met = BTreeMap<String, f64>;

impl Attackers {
    /// Starts all processes of an attack.
    pub fn start(place: &Place, attack: &Attack, server: &Server, lasts: Duration) -> Result<Self> {
        let deadline = Instant::now() + lasts + GRACE;
        let (commands, slow) = match attack.attacker {
            Attacker::SlowHttpTest { arguments, tls } => {
                (vec![slowhttptest(place, arguments, tls, server, lasts)?], true)
            }
            Attacker::Script { processes } => {
                let scripts = (0..processes).map(|number| script(place, attack.name, server, lasts, number));
                (scripts.collect(), false)
            }
        };
        let mut attackers = Self { children: Vec::new(), slow, deadline };
        for mut command in commands {
            let log = File::options().create(true).append(true).open(place.folder.join("attacker.log"))?;
            let child = command.stdout(Stdio::piped()).stderr(log).spawn();
            attackers.children.push(child.context("cannot start an attacker")?);
        }
        Ok(attackers)
    }

    /// Waits for their ends; one that does not come in time is an error, as is one that says nothing.
    pub fn finish(mut self) -> Result<Met> {
        let mut met = Met::new();
        while let Some(mut child) = self.children.pop() {
            let said = read_until(&mut child, self.deadline)?;
            let one = if self.slow { slow_words(&said) } else { script_words(&said) };
            for (name, count) in
                one.with_context(|| format!("an attacker gave no figures, see attacker.log: {said}"))?
            {
                *met.entry(name).or_default() += count;
            }
        }
        Ok(met)
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself, which is no error; waiting leaves no zombie.
            let killed = child.kill().and_then(|()| child.wait());
            drop(killed);
        }
    }
}

fn read_until(child: &mut Child, deadline: Instant) -> Result<String> {
    let stream = child.stdout.take().context("no piped output")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(stream));
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("an attacker did not end in time");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    match reader.join() {
        Ok(said) => Ok(said?),
        Err(_) => bail!("the reading thread panicked"),
    }
}

/// A program behind everybody else.
fn behind(place: &Place, program: &Path) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = place.workspace.command("nice");
    command.args(["-n", NICENESS]);
    if cores > 1 {
        command.args(["taskset", "--cpu-list", CORE]);
    }
    command.arg(program);
    command
}

fn slowhttptest(
    place: &Place,
    arguments: &[&str],
    tls: bool,
    server: &Server,
    lasts: Duration,
) -> Result<Command> {
    let mut command = behind(place, Path::new("slowhttptest"));
    // The file that is asked for matters to the slow reader only; bodies go where they are read.
    let path = if arguments.contains(&"-X") { "1m" } else { "upload" };
    let url = match (tls, server.tls_port) {
        (true, Some(port)) => format!("https://127.0.0.1:{port}/{path}"),
        (true, None) => bail!("{} has no TLS", server.target.shown()),
        (false, _) => format!("http://127.0.0.1:{}/{path}", server.plain_port),
    };
    command.args(arguments).args(["-l", &lasts.as_secs().to_string(), "-u", &url]);
    Ok(command)
}

fn script(place: &Place, name: &str, server: &Server, lasts: Duration, number: usize) -> Command {
    let mut command = behind(place, &place.workspace.tools.join("python/bin/python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(place.attacks("attack.py")).arg(name);
    command.args(["--port", &server.plain_port.to_string()]);
    command.args(["--tls-port", &server.tls_port.unwrap_or_default().to_string()]);
    command.args(["--seconds", &lasts.as_secs().to_string()]);
    command.args(["--first-source", &(number * SOURCES_APART).to_string()]);
    command
}

/// The last complete block of slowhttptest's status lines (`connected:  12`), between colours.
fn slow_words(said: &str) -> Option<Met> {
    let mut met = Met::new();
    for line in said.lines() {
        let line = without_colours(line);
        let Some((name, value)) = line.split_once(':') else { continue };
        let name = name.trim();
        if !["initializing", "pending", "connected", "error", "closed", "service available"].contains(&name) {
            continue;
        }
        let value = match value.trim() {
            "YES" => 1.0,
            "NO" => 0.0,
            number => number.parse().ok()?,
        };
        // What was connected at the end says less than the most that ever was.
        let most = met.get(name).copied().unwrap_or(0.0);
        met.insert(name.to_owned(), if name == "connected" { f64::max(most, value) } else { value });
    }
    let connected = met.remove("connected")?;
    met.insert("connected at most".to_owned(), connected);
    Some(met)
}

fn without_colours(line: &str) -> String {
    let mut text = String::new();
    let mut pieces = line.split('\u{1b}');
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        text.push_str(piece.split_once('m').map_or("", |(_, rest)| rest));
    }
    text
}

/// The one line of JSON of `attack.py`.
fn script_words(said: &str) -> Option<Met> {
    let figures: Value = serde_json::from_str(said.trim()).ok()?;
    figures.as_object()?.iter().map(|(name, count)| Some((name.clone(), count.as_f64()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_of_slow_connections_and_the_last_of_the_rest_are_read() {
        let block = |connected: u32, closed: u32, there: &str| {
            format!(
                "\u{1b}[1;32mslow HTTP test status on \u{1b}[1;36m5th second:\u{1b}[0m\n\ninitializing:        0\n\
                 pending:             \u{1b}[1;32m7\u{1b}[0m\nconnected:           {connected}\nerror:               0\n\
                 closed:              {closed}\nservice available:   \u{1b}[1;32m{there}\u{1b}[0m\n"
            )
        };
        let met = slow_words(&format!("{}{}", block(900, 0, "YES"), block(10, 890, "NO"))).unwrap();
        assert_eq!(met["connected at most"], 900.0);
        assert_eq!((met["closed"], met["pending"], met["service available"]), (890.0, 7.0, 0.0));
        assert!(slow_words("no such host").is_none());
    }

    #[test]
    fn a_script_that_failed_is_noticed() {
        let met = script_words("{\"frames sent\": 12, \"GOAWAY ENHANCE_YOUR_CALM\": 3}\n").unwrap();
        assert_eq!(met["frames sent"], 12.0);
        assert!(script_words("").is_none());
        assert!(script_words("Traceback").is_none());
    }
}
