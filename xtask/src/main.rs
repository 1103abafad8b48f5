//! `cargo xtask`: everything a developer or CI runs that is not the product itself.

mod attack;
mod bench;
mod ci;
mod conformance;
mod docs;
mod fuzz;
mod licences;
mod peers;
mod ports;
mod report;
mod setup;
mod shell;
mod walls;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::shell::Workspace;

/// Development commands of the Rempart workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must be green before a change lands, stage by stage
    Ci(ci::Options),
    /// Install what the tests need and does not come with Rust
    Setup,
    /// Check which crate may use which, and what every file must look like
    Walls,
    /// Check licences, banned crates and registries against deny.toml
    Licences,
    /// Write docs/reference/ from the binary's own types
    Docs(docs::Options),
    /// Run foreign protocol suites through the release binary; writes docs/conformance.md
    Conformance(conformance::Options),
    /// Attack the release binary while golden requests must all be served; writes docs/hardening.md
    Attack(attack::Options),
    /// Measure CPU per request, latency and idle memory beside nginx, HAProxy and Envoy; writes docs/benchmarks.md
    Bench(bench::Options),
    /// The floor of the benchmark, which starts it
    #[command(hide = true)]
    BenchFloor(bench::Floor),
    /// Look for inputs that make a parser panic, hang, or read what another reader would not
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    match cli.command {
        Command::Ci(options) => ci::run(&workspace, &options),
        Command::Setup => setup::run(&workspace),
        Command::Walls => walls::run(&workspace),
        Command::Licences => licences::run(&workspace),
        Command::Docs(options) => docs::run(&workspace, &options),
        Command::Conformance(options) => conformance::run(&workspace, &options),
        Command::Attack(options) => attack::run(&workspace, &options),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::BenchFloor(floor) => floor.serve(),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
    }
}
