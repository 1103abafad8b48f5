//! `rempart run` and `rempart demo`: from options to a supervisor, and what is said once it serves.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use api::admin::{GenerationSource, Status};
use serde_json::json;

use crate::cli::{ChildArguments, DemoArguments, Place, Role, RunArguments};
use crate::report::Terminal;
use crate::supervisor::{self, End, Launch, Origin, Settings, StartError, TasteLimits, own_program};
use crate::{EXIT_OK, EXIT_REFUSED, admin, analytics, demo, edge_process, feeder, keeper, state, watch};

/// Where the demo listens unless told otherwise, or unless these are taken.
const DEMO_LISTEN: [&str; 2] = ["http://127.0.0.1:8080", "https://127.0.0.1:8443"];
const DEMO_LISTEN_FREE: [&str; 2] = ["http://127.0.0.1:0", "https://127.0.0.1:0"];
/// Where one site given by its origin is served unless told otherwise.
const LISTEN: [&str; 2] = ["http://[::]:8080", "https://[::]:8443"];
/// What a taster may use in the demo.
const DEMO_TASTE: TasteLimits = TasteLimits { memory: 1 << 30, time: Duration::from_secs(60) };

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
        Origin::Text { text, source: GenerationSource::CommandLine }
    };
    let (state, socket) = places(&arguments.place, false);
    let time = Duration::from_secs(arguments.taste_time);
    let taste = TasteLimits { memory: arguments.taste_memory, time };
    let settings = Settings { origin, launch: launch(&state, terminal), state: state.clone(), socket, taste };
    serve(settings, terminal, |status| terminal.serving(status, &state))
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
    let (state, socket) = places(&arguments.place, true);
    let launch = launch(&state, terminal);
    let listener = TcpListener::bind("127.0.0.1:0").context("the demo site found no free port")?;
    let address = listener.local_addr()?;
    let stdin = Stdio::from(OwnedFd::from(listener));
    launch.command("demo-site").stdin(stdin).spawn().context("the demo site could not be started")?;
    let usual = DEMO_LISTEN.iter().all(|url| is_free(url));
    let default = if usual { DEMO_LISTEN } else { DEMO_LISTEN_FREE };
    let listen = or_default(&arguments.listen, &default);
    let metrics = arguments.metrics.as_deref().unwrap_or("127.0.0.1:0");
    let text = command_line(&[format!("http://{address}")], &listen, Some(metrics), "off");
    let origin = Origin::Text { text, source: GenerationSource::Demo };
    let settings = Settings { origin, launch, state: state.clone(), socket, taste: DEMO_TASTE };
    serve(settings, terminal, |status| {
        let base = |tls: bool| {
            let scheme = if tls { "https" } else { "http" };
            let listener = status.listeners.iter().find(|listener| listener.tls == tls);
            listener
                .map(|listener| format!("{scheme}://{}", listener.address.replace("127.0.0.1", "localhost")))
        };
        let http = base(false).unwrap_or_default();
        terminal.serving(status, &state);
        terminal.print(&demo::tour(&base(true).unwrap_or_else(|| http.clone()), &http));
    })
}

fn is_free(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, address)| TcpListener::bind(address).is_ok())
}

/// The demo site runs in a process of its own, like any origin; it ends with the one that started it.
fn demo_site() -> anyhow::Result<u8> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        demo::serve(listener, std::future::pending()).await
    })?;
    Ok(EXIT_OK)
}

/// How the other processes are started.
fn launch(state: &Path, terminal: &Terminal) -> Launch {
    let mut options = vec![format!("--colour={}", if terminal.error_colour { "always" } else { "never" })];
    options.extend(terminal.json.then(|| "--json".to_owned()));
    Launch { program: own_program(), state: state.to_owned(), options, journal: std::sync::Arc::default() }
}

/// One of the processes that a supervisor starts; its orders come over standard input.
pub fn run_child(arguments: &ChildArguments) -> anyhow::Result<u8> {
    // Under this name it shows in lists of processes, which would otherwise say `exe`.
    let name = match arguments.role {
        Role::Edge => c"rempart-edge",
        Role::Keeper => c"rempart-keeper",
        // Names have 15 characters.
        Role::Analytics => c"rempart-analyst",
        Role::Feeder => c"rempart-feeder",
        Role::Watch => c"rempart-watch",
        Role::DemoSite => c"rempart-demo",
        Role::DrillGuard => c"rempart-guard",
    };
    rustix::thread::set_name(name)?;
    let stdin = || std::io::stdin().as_fd().try_clone_to_owned();
    match arguments.role {
        Role::Edge => {
            let settings = edge_process::Settings { state: arguments.state_dir.clone() };
            edge_process::run(&settings, stdin()?.into())
        }
        Role::Keeper => keeper::run(&arguments.state_dir, stdin()?.into()),
        Role::Analytics => analytics::run(&arguments.state_dir, stdin()?.into()),
        Role::Feeder => feeder::run(&arguments.state_dir, stdin()?.into()),
        Role::Watch => watch::run_child(&arguments.state_dir, stdin()?.into()),
        Role::DemoSite => demo_site(),
        Role::DrillGuard if drills::guard::watch(&arguments.state_dir) => Ok(EXIT_OK),
        Role::DrillGuard => anyhow::bail!("{} is not the folder of a drill", arguments.state_dir.display()),
    }
}

/// Serves until a signal or the admin socket ends it.
fn serve(settings: Settings, terminal: &Terminal, announce: impl Fn(&Status)) -> anyhow::Result<u8> {
    let socket = settings.socket.clone();
    let end = supervisor::run(settings, |status| {
        if let Some(refusal) = &status.refused {
            let consequence = match status.source {
                GenerationSource::Defaults => "NO generation can be used: every request is answered with 503",
                _ => "the configuration was refused: the LAST GOOD generation is served",
            };
            terminal.refused(consequence, &refusal.diagnostics);
        }
        if terminal.json {
            print_ready(status, &socket)?;
        } else {
            announce(status);
        }
        Ok(())
    })?;
    match end {
        Ok(End::Done) => Ok(EXIT_OK),
        Ok(End::Upgraded { program }) => {
            let error = become_program(&program);
            tracing::error!("{error:#}; the old one goes on");
            Err(become_program(&own_program()))
        }
        Err(StartError(diagnostics)) => {
            terminal.refused("nothing is served", &diagnostics);
            Ok(EXIT_REFUSED)
        }
    }
}

/// This process goes on as another program. The edge serves on meanwhile, and is adopted by it. Answers only when that
/// could not be done.
fn become_program(program: &Path) -> anyhow::Error {
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1));
    // The sockets of systemd come back with the edge.
    for variable in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    anyhow::Error::new(command.exec()).context("the supervisor could not become the new binary")
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
