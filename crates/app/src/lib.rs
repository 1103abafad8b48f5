//! The program: parse the command line, set up the program's own log, do what was asked.

mod admin;
mod analytics;
mod builder;
mod channel;
mod cli;
mod demo;
mod drill;
mod edge_process;
mod events;
mod feeder;
mod feeds;
mod geo;
mod keeper;
mod package;
mod reference;
mod report;
mod role;
mod rules;
mod run;
mod signals;
mod sources;
mod state;
mod supervisor;
mod top;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use api::admin::{Answer, Request};
use clap::{CommandFactory as _, Parser as _};
use cli::{
    CertsArguments, CertsCommand, CheckArguments, Cli, Command, ConfirmArguments, DemoArguments, Place,
    ReloadArguments, UpgradeArguments,
};
use edge::telemetry::access_log::LogCounts;
use edge::telemetry::metrics::Metrics;
use report::Terminal;
use serde_json::json;
use snapshot::Mode;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lets a result go on purpose; a comment at the call says why.
pub(crate) fn ignore<T>(_: T) {}

/// Memory is taken and given back on every request; mimalloc does that without a lock per thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Done.
const EXIT_OK: u8 = 0;
/// A configuration was refused, or something failed.
const EXIT_REFUSED: u8 = 1;
/// No running Rempart was reached.
const EXIT_UNREACHED: u8 = 3;

/// The whole program, from command line to exit code.
pub fn main() -> ExitCode {
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
        Some(Command::Reload(arguments)) => reload(&arguments, &terminal),
        Some(Command::Confirm(arguments)) => confirm(&arguments, &terminal),
        Some(Command::Ban(arguments)) => signals::ban(&arguments, &terminal),
        Some(Command::Revert(arguments)) => signals::revert(&arguments, &terminal),
        Some(Command::Disable(arguments)) => signals::disable(&arguments, &terminal),
        Some(Command::Enable(arguments)) => signals::enable(&arguments, &terminal),
        Some(Command::Status(place)) => status(&place, &terminal),
        Some(Command::Upgrade(arguments)) => upgrade(&arguments, &terminal),
        Some(Command::Certs(arguments)) => certificates(&arguments, &terminal),
        Some(Command::Feed(arguments)) => feeds::run(arguments, &terminal),
        Some(Command::Geo(arguments)) => geo::run(&arguments, &terminal),
        Some(Command::Rules(arguments)) => rules::run(&arguments, &terminal),
        Some(Command::Events(arguments)) => events::events(&arguments, &terminal),
        Some(Command::Top(arguments)) => top::top(&arguments, &terminal),
        Some(Command::Incidents(arguments)) => watch::incidents(&arguments, &terminal),
        Some(Command::Watch(arguments)) => watch::watch(&arguments, &terminal),
        Some(Command::Drill(arguments)) => drill::drill(&arguments, &terminal),
        Some(Command::Child(arguments)) => run::run_child(&arguments),
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
    // `Targets` knows levels and modules; what `EnvFilter` knows beyond that costs a regex engine in every process.
    let wanted = std::env::var("REMPART_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    // `h2` warns of what peers send, frame by frame: whoever floods a connection would flood the log with it.
    let usual = || Targets::new().with_default(LevelFilter::INFO).with_target("h2", LevelFilter::ERROR);
    let filter = wanted.unwrap_or_else(usual);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal.error_colour)
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    if terminal.json {
        registry.with(layer.json()).init();
    } else {
        registry.with(layer).init();
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

fn confirm(arguments: &ConfirmArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    match ask(&arguments.place, &Request::Confirm { feed: arguments.feed.clone() }) {
        Err(error) => return Ok(unreached(terminal, &error)),
        Ok(Answer::Done) if terminal.json => terminal.print_json(&json!({ "confirmed": true })),
        Ok(Answer::Done) => terminal.print("confirmed: it stays in force"),
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    }
    Ok(EXIT_OK)
}

fn reload(arguments: &ReloadArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let outcome = match ask(&arguments.place, &Request::Reload { force: arguments.force }) {
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

fn upgrade(arguments: &UpgradeArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    // The running Rempart may have another working folder.
    let binary = arguments.binary.as_deref().map(std::path::absolute).transpose()?;
    let request = Request::Upgrade { binary, bake_seconds: Some(arguments.bake) };
    let outcome = match ask(&arguments.place, &request) {
        Err(error) => return Ok(unreached(terminal, &error)),
        Ok(Answer::Upgrade(outcome)) => outcome,
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    };
    if terminal.json {
        terminal.print_json(&outcome);
    } else {
        terminal.upgraded(&outcome);
    }
    Ok(if outcome.upgraded { EXIT_OK } else { EXIT_REFUSED })
}

fn certificates(arguments: &CertsArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let request = match arguments.command.clone() {
        None => Request::Certificates,
        Some(CertsCommand::Renew { names }) => Request::Certificate { revoke: false, names },
        Some(CertsCommand::Revoke { names }) => Request::Certificate { revoke: true, names },
    };
    match ask(&arguments.place, &request) {
        Err(error) => return Ok(unreached(terminal, &error)),
        Ok(Answer::Certificates { certificates }) if terminal.json => terminal.print_json(&certificates),
        Ok(Answer::Certificates { certificates }) => terminal.certificates(&certificates),
        Ok(Answer::Done) if terminal.json => terminal.print_json(&json!({ "begun": true })),
        Ok(Answer::Done) => terminal.print("begun; `rempart certs` shows what comes of it"),
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    }
    Ok(EXIT_OK)
}

/// Compiles and loads like a reload would, without putting anything in force.
fn check(arguments: &CheckArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let path = arguments.config.clone().unwrap_or_else(run::default_config);
    let (state, _) = run::places(&arguments.place, false);
    let certificates = sources::certificates(&state);
    let built = sources::read_file(Path::new(&path), &certificates).and_then(|sources| {
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
