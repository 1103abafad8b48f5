//! `rempart run` and `rempart demo`, top to bottom: claim the state, start the edge, open the admin socket, then wait
//! for signals, reload requests and changed certificate files.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use api::admin::{GenerationSource, Status};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::{DemoArguments, Place, RunArguments};
use crate::control::{Controller, Origin, StartError};
use crate::report::Terminal;
use crate::state::{self, StateFolder};
use crate::{EXIT_OK, EXIT_REFUSED, admin, demo};

/// How often certificate files are looked at. A change is taken when it has not moved on between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Time for requests to finish when the process is asked to end.
const DRAIN: Duration = Duration::from_secs(30);
/// Events waiting for the main thread.
const EVENTS: usize = 64;
/// Where the demo listens unless told otherwise, or unless these are taken.
const DEMO_LISTEN: [&str; 2] = ["http://127.0.0.1:8080", "https://127.0.0.1:8443"];
const DEMO_LISTEN_FREE: [&str; 2] = ["http://127.0.0.1:0", "https://127.0.0.1:0"];
/// Where one site given by its origin is served unless told otherwise.
const LISTEN: [&str; 2] = ["http://[::]:8080", "https://[::]:8443"];

/// What the main thread reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Read the configuration again.
    Reload,
    /// Finish requests and end.
    Stop,
}

/// Where state, lock and admin socket lie.
pub fn places(place: &Place, demo: bool) -> (PathBuf, PathBuf) {
    let state = place.state_dir.clone().unwrap_or_else(|| {
        let folder = state::default_folder();
        if demo { folder.join("demo") } else { folder }
    });
    let socket = place.admin.clone().unwrap_or_else(|| admin::socket_in(&state));
    (state, socket)
}

/// The configuration file meant when none is named.
pub fn default_config() -> PathBuf {
    let here = Path::new("rempart.toml");
    if here.exists() { here.to_owned() } else { PathBuf::from("/etc/rempart/rempart.toml") }
}

/// `rempart run`.
pub fn run(arguments: &RunArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let origin = if arguments.origin.is_empty() {
        Origin::File(arguments.config.clone().unwrap_or_else(default_config))
    } else {
        let listen = or_default(&arguments.listen, &LISTEN);
        let log = arguments.access_log.as_deref().unwrap_or(if terminal.json { "off" } else { "stdout" });
        let text = command_line(&arguments.origin, &listen, arguments.metrics.as_deref(), log);
        Origin::Text { text: text.into_bytes().into(), source: GenerationSource::CommandLine }
    };
    let (state, socket) = places(&arguments.place, false);
    serve(origin, &state, &socket, terminal, |status| terminal.serving(status, &state))
}

fn or_default(given: &[String], default: &[&str]) -> Vec<String> {
    if given.is_empty() { default.iter().map(|&url| url.to_owned()).collect() } else { given.to_vec() }
}

/// The configuration that stands for the options.
fn command_line(origins: &[String], listen: &[String], metrics: Option<&str>, log: &str) -> String {
    let mut text = String::new();
    if let Some(metrics) = metrics {
        text += &format!("[metrics]\nlisten = {}\n", toml::Value::from(metrics));
    }
    let target = match log {
        "stdout" | "off" => toml::Value::from(log).to_string(),
        file => format!("{{ file = {} }}", toml::Value::from(file)),
    };
    text += &format!("[log.access]\nto = {target}\n");
    text + &snapshot::command_line_config(origins, listen)
}

/// `rempart demo`.
pub fn run_demo(arguments: &DemoArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").context("the demo site found no free port")?;
    let address = listener.local_addr()?;
    start_demo_site(listener)?;
    let usual = DEMO_LISTEN.iter().all(|url| is_free(url));
    let default = if usual { DEMO_LISTEN } else { DEMO_LISTEN_FREE };
    let listen = or_default(&arguments.listen, &default);
    let metrics = arguments.metrics.as_deref().unwrap_or("127.0.0.1:0");
    let text = command_line(&[format!("http://{address}")], &listen, Some(metrics), "off");
    let origin = Origin::Text { text: text.into_bytes().into(), source: GenerationSource::Demo };
    let (state, socket) = places(&arguments.place, true);
    serve(origin, &state, &socket, terminal, |status| {
        let base = |tls: bool| {
            let scheme = if tls { "https" } else { "http" };
            let listener = status.listeners.iter().find(|listener| listener.tls == tls);
            listener.map(|listener| format!("{scheme}://{}", listener.address.replace("127.0.0.1", "localhost")))
        };
        let http = base(false).unwrap_or_default();
        terminal.serving(status, &state);
        terminal.print(&demo::tour(&base(true).unwrap_or_else(|| http.clone()), &http));
    })
}

fn is_free(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, address)| TcpListener::bind(address).is_ok())
}

/// The demo site runs on a thread and a runtime of its own, like any origin would in a process of its own.
fn start_demo_site(listener: TcpListener) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("demo-site".to_owned()).spawn(move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            demo::serve(listener, std::future::pending()).await
        });
        if let Err(error) = served {
            tracing::error!(%error, "the demo site has ended");
        }
    })?;
    Ok(())
}

/// Serves until a signal or the admin socket ends it.
fn serve(
    origin: Origin,
    state: &Path,
    socket: &Path,
    terminal: &Terminal,
    announce: impl Fn(&Status),
) -> anyhow::Result<u8> {
    let claimed = StateFolder::claim(state)?;
    let controller = match Controller::start(origin, claimed)? {
        Ok(controller) => Arc::new(controller),
        Err(StartError(diagnostics)) => {
            terminal.refused("nothing is served", &diagnostics);
            return Ok(EXIT_REFUSED);
        }
    };
    let (events, received) = mpsc::sync_channel(EVENTS);
    admin::serve(socket, controller.clone(), events.clone())?;
    listen_to_signals(events)?;
    if let Some(status) = controller.status() {
        if let Some(refusal) = &status.refused {
            terminal.refused("the configuration was refused: the LAST GOOD generation is served", &refusal.diagnostics);
        }
        if terminal.json {
            print_ready(&status, socket)?;
        } else {
            announce(&status);
        }
    }
    watch(&controller, &received);
    tracing::info!("ending: requests in flight are finished first");
    controller.drain(DRAIN);
    // Best effort: the next start replaces a socket that was left behind.
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::debug!(%error, "the admin socket could not be removed");
    }
    Ok(EXIT_OK)
}

fn print_ready(status: &Status, socket: &Path) -> anyhow::Result<()> {
    let line = json!({
        "event": "ready",
        "listeners": status.listeners,
        "metrics": status.metrics,
        "admin": socket,
        "number": status.number,
        "source": status.source,
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn listen_to_signals(events: mpsc::SyncSender<Event>) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            let event = if signal == SIGHUP { Event::Reload } else { Event::Stop };
            if stopping && event == Event::Stop {
                tracing::warn!("asked to end a second time: ending at once");
                std::process::exit(EXIT_OK.into());
            }
            stopping |= event == Event::Stop;
            if events.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Reacts to events, and to certificate files that have changed, until it is time to end.
fn watch(controller: &Controller, events: &mpsc::Receiver<Event>) {
    let mut taken = controller.watched();
    let mut seen = taken.clone();
    loop {
        match events.recv_timeout(LOOK) {
            Ok(Event::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Ok(Event::Reload) => {
                controller.reload();
                taken = controller.watched();
                seen.clone_from(&taken);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let now = controller.watched();
                // Files are often replaced one after the other: wait until they have come to rest.
                if now != taken && now == seen {
                    let outcome = controller.refresh_files();
                    if outcome.active && outcome.changed {
                        tracing::info!(number = outcome.number, "changed certificate files are in force");
                    }
                    taken.clone_from(&now);
                }
                seen = now;
            }
        }
    }
}
