//! `cargo xtask bench`: CPU per request of Rempart, nginx and HAProxy doing the same job, interleaved in one run.

mod cases;
mod cpu;
mod load;
mod statistics;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::peers::{self, Name, Origin, Place, Server};
use crate::report;
use crate::setup;
use crate::shell::{Workspace, today};
use cases::{CASES, Case};

/// Runs of each case and server; the median's 95 % bounds need at least six.
const RUNS: usize = 9;
/// Runs with `--quick`, where the range stands in for the bounds.
const QUICK_RUNS: usize = 3;

/// Core of the server under test.
const SERVER_CORE: &str = "0";
/// Core of everything else.
const LOAD_CORE: &str = "1";

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// 3 runs of each case instead of 9
    #[arg(long)]
    quick: bool,
    /// Measure only these servers, and write nothing
    #[arg(long, value_name = "SERVER")]
    only: Vec<Name>,
    /// Measure only the cases whose name contains this, and write nothing
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
}

/// One run of one case against one server.
#[derive(Clone, Debug)]
pub struct Sample {
    pub case: &'static str,
    pub server: Name,
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

/// Measures, checks each run's premise, prints the table, and writes the page and the raw figures.
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
    let wanted = |case: &&Case| options.case.as_ref().is_none_or(|text| case.name.contains(text.as_str()));
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    let place =
        Place { workspace, folder: workspace.target.join("bench"), cores: Some((SERVER_CORE, LOAD_CORE)) };
    peers::prepare(workspace, &place.folder)?;
    let origin = Origin::start(&place)?;
    let mut running = Vec::new();
    for name in &names {
        running.push(Server::start(&place, *name, origin.port)?);
    }
    let facts = table::facts(workspace, &names)?;
    let runs = if options.quick { QUICK_RUNS } else { RUNS };
    let samples = measure(&cases, &mut running, &origin, runs)?;
    drop(running);
    logs_written(&place.folder, &names)?;
    let section = table::markdown(&today()?, &facts, &cases, &names, &samples, runs);
    println!("{section}");
    if options.only.is_empty() && options.case.is_none() {
        write(workspace, &section, &table::json(&today()?, &facts, &samples))?;
    }
    Ok(())
}

/// Interleaved, and beginning with another server each time, so that a slow minute of the machine hits all alike.
fn measure(cases: &[&Case], servers: &mut [Server], origin: &Origin, runs: usize) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for case in cases {
        for server in servers.iter_mut() {
            load::probe(case, server)?;
            load::warm_up(case, server)?;
        }
        for run in 0..runs {
            servers.rotate_left(1);
            for server in servers.iter_mut() {
                let sample = load::sample(case, server, origin)?;
                println!(
                    "{:<28} {:>2}/{runs} {:<8} {:>8.1} µs {:>9.0} requests/s",
                    case.name,
                    run + 1,
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

/// The access log was on: a server that wrote none had less to do than the others.
fn logs_written(folder: &Path, names: &[Name]) -> Result<()> {
    for name in names {
        let log = folder.join(format!("{}.access.log", name.shown().to_lowercase()));
        if fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
            bail!("{} wrote no access log: {} is empty or missing", name.shown(), log.display());
        }
    }
    Ok(())
}

fn write(workspace: &Workspace, section: &str, raw: &str) -> Result<()> {
    let file = Path::new("docs/benchmarks").join(format!("{}.json", today()?));
    fs::create_dir_all(workspace.root.join("docs/benchmarks"))?;
    fs::write(workspace.root.join(&file), raw)?;
    println!("wrote {}", file.display());
    report::write_section(&workspace.root.join("docs/benchmarks.md"), section)
}
