//! `cargo xtask bench`: Rempart and its peers doing the same job, interleaved in one run: CPU per request, latency, memory.

mod bars;
mod cases;
mod cpu;
mod floor;
mod idle;
mod latency;
mod load;
mod output;
mod statistics;
mod table;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::peers::{self, Name, Origin, Place, Server};
use crate::report;
use crate::setup;
use crate::shell::{Workspace, today};
use cases::{CASES, Case};
pub use floor::Floor;

/// Runs of each case and server; the median's 95 % bounds need at least six.
const RUNS: usize = 11;
/// Runs with `--quick`, where the range stands in for the bounds.
const QUICK_RUNS: usize = 3;

/// Core of the server under test.
const SERVER_CORE: &str = "0";
/// Core of everything else.
const LOAD_CORE: &str = "1";

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// 3 runs of each case instead of 11
    #[arg(long)]
    quick: bool,
    /// Measure only these servers, and write nothing
    #[arg(long, value_name = "SERVER")]
    only: Vec<Name>,
    /// Measure only the cases whose name contains this (`latency` for that one), and write nothing
    #[arg(long, value_name = "TEXT", conflicts_with = "idle")]
    case: Option<String>,
    /// Measure only the memory of idle connections, and write nothing
    #[arg(long)]
    idle: bool,
}

impl Options {
    /// Whether everything is measured, so that the page may be replaced.
    fn all(&self) -> bool {
        self.only.is_empty() && self.case.is_none() && !self.idle
    }

    fn wants(&self, case: &str) -> bool {
        !self.idle && self.case.as_ref().is_none_or(|text| case.contains(text.as_str()))
    }
}

/// One run of one case against one server.
#[derive(Clone, Debug)]
pub struct Sample {
    pub case: &'static str,
    pub server: Name,
    /// All servers had their turn in it, one after the other.
    pub round: usize,
    /// Answers with status 200, all of them through the origin.
    pub requests: u64,
    pub seconds: f64,
    /// User and system time of the server's processes.
    pub cpu_seconds: f64,
}

impl Sample {
    /// Microseconds of CPU one request cost the server.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.requests as f64
    }

    /// Requests per second that came back.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// Everything measured.
pub struct Figures {
    pub samples: Vec<Sample>,
    pub delays: Vec<latency::Delay>,
    pub idle: Vec<idle::Idle>,
}

/// Measures, checks each run's premise, prints the tables, and writes the page and the raw figures.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::debian(setup::BENCH)?;
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("the benchmark needs two processor cores: one for the server, one for load and origin");
    }
    let names: Vec<Name> =
        if options.only.is_empty() { Name::value_variants().to_vec() } else { options.only.clone() };
    if names.contains(&Name::Rempart) {
        workspace.build_release()?;
    }
    let cases: Vec<&Case> = CASES.iter().filter(|case| options.wants(case.name)).collect();
    let place =
        Place { workspace, folder: workspace.target.join("bench"), cores: Some((SERVER_CORE, LOAD_CORE)) };
    peers::prepare(workspace, &place.folder)?;
    let origin = Origin::start(&place)?;
    let facts = table::facts(workspace, &names)?;
    let runs = if options.quick { QUICK_RUNS } else { RUNS };
    let (samples, delays) = under_load(&place, options, &names, &cases, &origin, runs)?;
    let idle = if options.all() || options.idle { idle::run(&place, &names, &origin)? } else { Vec::new() };
    let figures = Figures { samples, delays, idle };
    let section = table::markdown(&today()?, &facts, &cases, &names, &figures);
    println!("\n{section}");
    if options.all() {
        write(workspace, &section, &table::json(&today()?, &facts, &figures))?;
    }
    Ok(())
}

/// CPU per request and latency, with all servers running side by side.
fn under_load(
    place: &Place,
    options: &Options,
    names: &[Name],
    cases: &[&Case],
    origin: &Origin,
    runs: usize,
) -> Result<(Vec<Sample>, Vec<latency::Delay>)> {
    let mut delays = Vec::new();
    if cases.is_empty() && !options.wants("latency") {
        return Ok((Vec::new(), delays));
    }
    let mut servers = Vec::new();
    for name in names {
        servers.push(Server::start(place, *name, origin.port)?);
    }
    let samples = measure(place, cases, &mut servers, origin, runs)?;
    if options.wants("latency") {
        for round in 0..runs {
            servers.rotate_left(1);
            delays.extend(latency::round(round, &servers, origin)?);
            println!("{:<34} {:>2}/{runs}", "latency", round + 1);
        }
    }
    drop(servers);
    logs_written(&place.folder, names)?;
    Ok((samples, delays))
}

/// Interleaved, and beginning with another server each time, so that a slow minute of the machine hits all alike.
fn measure(
    place: &Place,
    cases: &[&Case],
    servers: &mut [Server],
    origin: &Origin,
    runs: usize,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let workspace = place.workspace;
    for case in cases {
        let able = |server: &&Server| case.has(server.name);
        for server in servers.iter().filter(able) {
            load::probe(workspace, &place.folder, case, server)?;
            if server.name == Name::Ruled {
                load::probe_rules(workspace, case, server)?;
            }
            load::warm_up(workspace, case, server)?;
        }
        for round in 0..runs {
            servers.rotate_left(1);
            for server in servers.iter().filter(able) {
                let sample = load::sample(workspace, case, server, origin, round)?;
                println!(
                    "{:<34} {:>2}/{runs} {:<8} {:>8.1} µs {:>9.0} requests/s",
                    case.name,
                    round + 1,
                    server.name.shown(),
                    sample.cpu_micros(),
                    sample.rate()
                );
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// The access log was on: a server that wrote none had less to do than the others. And no session was resumed: nginx's
/// log says so of each request, and all servers had the same clients.
fn logs_written(folder: &Path, names: &[Name]) -> Result<()> {
    for name in names.iter().filter(|name| **name != Name::Floor) {
        let log = folder.join(format!("{}.access.log", name.shown().to_lowercase()));
        if fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
            bail!("{} wrote no access log: {} is empty or missing", name.shown(), log.display());
        }
        if *name == Name::Nginx && resumed(BufReader::new(File::open(&log)?))? {
            bail!("clients resumed TLS sessions, as {} says: handshakes were not full ones", log.display());
        }
    }
    Ok(())
}

/// Whether nginx's log, as `nginx.conf` has it, names a resumed session.
fn resumed(log: impl BufRead) -> Result<bool> {
    for line in log.split(b'\n') {
        if line?.ends_with(b"\" r") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn write(workspace: &Workspace, section: &str, raw: &str) -> Result<()> {
    let file = Path::new("docs/benchmarks").join(format!("{}.json", today()?));
    fs::create_dir_all(workspace.root.join("docs/benchmarks"))?;
    fs::write(workspace.root.join(&file), raw)?;
    println!("wrote {}", file.display());
    report::write_section(&workspace.root.join("docs/benchmarks.md"), section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumed_sessions_are_seen_in_the_log() {
        let line =
            |mark: &str| format!("127.0.0.1 - - [x] \"GET /1k HTTP/1.1\" 200 1024 \"-\" \"-\" {mark}\n");
        let full = [line("-"), line("."), line(".")].concat();
        assert!(!resumed(full.as_bytes()).unwrap());
        assert!(resumed(format!("{full}{}", line("r")).as_bytes()).unwrap());
    }
}
