//! The watch process, and the commands that ask it: `rempart incidents` and `rempart watch test`.

use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use ::watch::incident::Incident;
use ::watch::page::time;
use ::watch::service::{self, Answer, Command, GRACE, Question, Start};
use ::watch::words::Language;
use anyhow::{Context as _, bail};
use api::process::{Order, Task};
use api::roles::RoleSettings;
use base::happening::{Happening, Severity};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::builder::now;
use crate::channel::Channel;
use crate::cli::Place;
use crate::report::Terminal;
use crate::{EXIT_OK, EXIT_REFUSED, EXIT_UNREACHED, role, run, state};

/// Orders waiting for the service.
const COMMANDS: usize = 64;

/// What was found out and waits for the supervisor to read it.
const FINDS: usize = 64;

/// Arguments of `incidents`.
#[derive(Args, Debug)]
pub struct IncidentsArguments {
    /// Those of the last 90 days that are over as well.
    #[arg(long)]
    all: bool,
    /// Where the running Rempart is found.
    #[command(flatten)]
    place: Place,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub struct WatchArguments {
    /// What to do.
    #[command(subcommand)]
    command: WatchCommand,
    /// Where the running Rempart is found.
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum WatchCommand {
    /// Send a test message through every channel, and say what came of it.
    Test,
}

/// Runs until the supervisor ends it, another watch takes over, or there is nothing left to watch.
pub fn run_child(state: &Path, stream: UnixStream) -> anyhow::Result<u8> {
    let (channel, seed) = role::begin(stream)?;
    let channel = Arc::new(channel);
    let (commands, received) = mpsc::channel(COMMANDS);
    let (found, finds) = sync_channel::<Happening>(FINDS);
    // A supervisor that does not read must not hold up watch: what finds no room is in the journal of incidents.
    let tell = Box::new(move |happening: &Happening| crate::ignore(found.try_send(happening.clone())));
    let told = channel.clone();
    std::thread::Builder::new()
        .name("finds".to_owned())
        .spawn(move || finds.iter().for_each(|happening| role::happened(&told, happening)))?;
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || obey(&channel, &commands))?;
    let folder = state::watch(state);
    service::run(Start { folder: &folder, seed, now, grace: GRACE, tell }, received)
        .with_context(|| format!("{} cannot be used", folder.display()))?;
    Ok(EXIT_OK)
}

/// Reads orders. When there are no more, the service goes on without.
fn obey(channel: &Channel, commands: &mpsc::Sender<Command>) {
    loop {
        let order = match channel.receive::<Order>() {
            Ok(Some((order, _))) => order,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "an order could not be read");
                break;
            }
        };
        let (answer, answered) = oneshot::channel();
        let command = match order.task {
            Task::Happened { happenings } => {
                if commands.blocking_send(Command::Happened(happenings)).is_err() {
                    return;
                }
                continue;
            }
            Task::Settings { settings: RoleSettings::Watch(settings) } => Command::Settings(settings, answer),
            Task::End => Command::End(answer),
            _ => {
                role::answer(channel, order.id, "watch", Err("watch does nothing of that".to_owned()));
                continue;
            }
        };
        if commands.blocking_send(command).is_err() {
            return;
        }
        let outcome = answered.blocking_recv().unwrap_or_else(|_| Err("it was given up".to_owned()));
        role::answer(channel, order.id, "watch", outcome);
    }
    // The service may have ended by itself.
    crate::ignore(commands.blocking_send(Command::Gone));
}

/// Asks the watch of the Rempart that is meant: the one named, else the usual one, else the demo. `None`: there is none.
fn ask(place: &Place, question: Question, terminal: &Terminal) -> anyhow::Result<Option<Answer>> {
    let socket = |demo: bool| -> PathBuf { service::socket(&state::watch(&run::places(place, demo).0)) };
    let (usual, demo) = (socket(false), socket(true));
    let socket = if usual.exists() || !demo.exists() { usual } else { demo };
    match service::ask(&socket, question) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(error.into()),
        Err(error) => {
            let socket = socket.display();
            terminal.complain(&format!("rempart: nothing watches at {socket}: {error}; is [watch] enabled?"));
            Ok(None)
        }
    }
}

/// `rempart incidents`.
pub fn incidents(arguments: &IncidentsArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    match ask(&arguments.place, Question::Incidents { all: arguments.all }, terminal)? {
        None => return Ok(EXIT_UNREACHED),
        Some(Answer::Incidents { supervised, page, incidents }) if terminal.json => {
            let list = json!({ "supervised": supervised, "page": page, "incidents": incidents });
            terminal.print_json(&list);
        }
        Some(Answer::Incidents { supervised, page, incidents }) => {
            terminal.print(list(&incidents, supervised, page.as_deref(), arguments.all).trim_end());
        }
        Some(other) => bail!("unexpected answer {other:?}"),
    }
    Ok(EXIT_OK)
}

fn list(incidents: &[Incident], supervised: bool, page: Option<&str>, all: bool) -> String {
    let mut text = String::new();
    if !supervised {
        line(&mut text, "the supervisor is gone: what happens inside Rempart is not told any more");
    }
    for incident in incidents {
        let mark = match (incident.is_open(), incident.severity) {
            (false, _) => "over",
            (true, Severity::Critical) => "outage",
            (true, _) => "problem",
        };
        line(&mut text, &format!("{mark:<8} {}", one_line(&Language::English.title(incident))));
        line(&mut text, &format!("         {}", one_line(&incident.message)));
        let until = incident.resolved.map(|end| format!(" until {}", time(end))).unwrap_or_default();
        let times =
            if incident.count > 1 { format!(", told {} times", incident.count) } else { String::new() };
        line(&mut text, &format!("         since {}{until}{times}", time(incident.began)));
        for suspect in incident.suspects.iter().filter(|_| incident.is_open()) {
            let by = suspect.by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default();
            let change = one_line(&format!("{}{by}", suspect.text));
            line(&mut text, &format!("         changed before it: {} {change}", time(suspect.at)));
        }
    }
    match (incidents.is_empty(), all) {
        (true, true) => line(&mut text, "no incident in the last 90 days"),
        (true, false) => line(&mut text, "no incident lasts; --all shows those that are over"),
        (false, _) => {}
    }
    if let Some(page) = page {
        line(&mut text, &format!("status page: {page}"));
    }
    text
}

fn line(text: &mut String, line: &str) {
    // Writing to a `String` cannot fail.
    crate::ignore(writeln!(text, "{line}"));
}

/// Free of anything a terminal would obey.
fn one_line(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// `rempart watch`.
pub fn watch(arguments: &WatchArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let WatchCommand::Test = arguments.command;
    let channels = match ask(&arguments.place, Question::Test, terminal)? {
        None => return Ok(EXIT_UNREACHED),
        Some(Answer::Tested { channels }) => channels,
        Some(other) => bail!("unexpected answer {other:?}"),
    };
    if terminal.json {
        terminal.print_json(&json!({ "channels": channels }));
    } else if channels.is_empty() {
        terminal.print("nobody is told of incidents: there is no [[watch.notify]]");
    } else {
        for tested in &channels {
            let outcome = tested.error.as_deref().unwrap_or("sent");
            terminal.print(&one_line(&format!("{}: {outcome}", tested.channel)));
        }
    }
    let failed = channels.iter().any(|tested| tested.error.is_some());
    Ok(if failed || channels.is_empty() { EXIT_REFUSED } else { EXIT_OK })
}
