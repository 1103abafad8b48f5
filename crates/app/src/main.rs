//! The rempart binary: parse the command line, set up the program's own log, do what was asked.

mod admin;
mod builder;
mod cli;
mod control;
mod demo;
mod reference;
mod report;
mod run;
mod sources;
mod state;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use api::admin::{Answer, Request};
use clap::{CommandFactory as _, Parser as _};
use cli::{CheckArguments, Cli, Command, DemoArguments, Place};
use edge::telemetry::access_log::LogCounts;
use edge::telemetry::metrics::Metrics;
use report::Terminal;
use serde_json::json;
use snapshot::Mode;

/// Memory is taken and given back on every request; mimalloc does that without a lock per thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Done.
const EXIT_OK: u8 = 0;
/// A configuration was refused, or something failed.
const EXIT_REFUSED: u8 = 1;
/// No running Rempart was reached.
const EXIT_UNREACHED: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let terminal = Terminal::new(cli.json, cli.colour);
    start_log(&terminal);
    let done = match cli.command {
        None => {
            terminal.complain("no command given: this is the demo. `rempart --help` shows the rest.\n");
            run::run_demo(&DemoArguments::default(), &terminal)
        }
        Some(Command::Run(arguments)) => run::run(&arguments, &terminal),
        Some(Command::Demo(arguments)) => run::run_demo(&arguments, &terminal),
        Some(Command::Check(arguments)) => check(&arguments, &terminal),
        Some(Command::Reload(place)) => reload(&place, &terminal),
        Some(Command::Status(place)) => status(&place, &terminal),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "rempart", &mut std::io::stdout());
            Ok(EXIT_OK)
        }
        Some(Command::Man) => reference::man().map(|()| EXIT_OK),
        Some(Command::Reference { what }) => {
            terminal.print(&reference::document(what));
            Ok(EXIT_OK)
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal.complain(&format!("rempart: {error:#}"));
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

/// The program's own log, on standard error so that standard output stays for results and the access log.
fn start_log(terminal: &Terminal) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("REMPART_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal.error_colour)
        .with_target(false);
    if terminal.json {
        builder.json().init();
    } else {
        builder.init();
    }
}

/// Asks the Rempart that is meant: the one named, else the usual one, else the demo.
fn ask(place: &Place, request: &Request) -> Result<Answer, anyhow::Error> {
    let (_, socket) = run::places(place, false);
    let (_, demo) = run::places(place, true);
    let socket: PathBuf = if socket.exists() || !demo.exists() { socket } else { demo };
    admin::ask(&socket, request)
}

fn unreached(terminal: &Terminal, error: &anyhow::Error) -> u8 {
    terminal.complain(&format!("rempart: {error:#}"));
    EXIT_UNREACHED
}

fn reload(place: &Place, terminal: &Terminal) -> anyhow::Result<u8> {
    let outcome = match ask(place, &Request::Reload) {
        Err(error) => return Ok(unreached(terminal, &error)),
        Ok(Answer::Reload(outcome)) => outcome,
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    };
    if terminal.json {
        terminal.print_json(&outcome);
    } else {
        terminal.reloaded(&outcome);
    }
    Ok(if outcome.active { EXIT_OK } else { EXIT_REFUSED })
}

fn status(place: &Place, terminal: &Terminal) -> anyhow::Result<u8> {
    match ask(place, &Request::Status) {
        Err(error) => return Ok(unreached(terminal, &error)),
        Ok(Answer::Status(status)) if terminal.json => terminal.print_json(&status),
        Ok(Answer::Status(status)) => terminal.status(&status),
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    }
    Ok(EXIT_OK)
}

/// Compiles and loads like a reload would, without putting anything in force.
fn check(arguments: &CheckArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let path = arguments.config.clone().unwrap_or_else(run::default_config);
    let built = control::read_file(Path::new(&path)).and_then(|sources| {
        let metrics = Arc::new(Metrics::new(1, Arc::new(LogCounts::default())));
        let builder =
            builder::Builder::new(metrics, None).map_err(|error| vec![builder::cannot_start(&error)])?;
        builder.build(&sources, 0, Mode::Fresh)
    });
    let running = match ask(&arguments.place, &Request::Outline) {
        Ok(Answer::Outline { lines, .. }) => Some(lines),
        _ => None,
    };
    let (ok, diagnostics, changes) = match built {
        Err(diagnostics) => (false, diagnostics, None),
        Ok(built) => {
            let wanted = snapshot::outline::outline(&built.generation.snapshot);
            let changes = running.map(|running| snapshot::outline::difference(&running, &wanted));
            (true, built.warnings, changes)
        }
    };
    if terminal.json {
        terminal.print_json(&json!({ "ok": ok, "diagnostics": diagnostics, "changes": changes }));
    } else {
        terminal.checked(ok, &diagnostics, changes.as_deref());
    }
    Ok(if ok { EXIT_OK } else { EXIT_REFUSED })
}
