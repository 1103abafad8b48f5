//! The program under test: built once, started in a folder of its own, asked and stopped over its command line.

use std::ffi::OsStr;
use std::fs;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Arc, LazyLock};

use api::admin::{ListenerStatus, ReloadOutcome, Status};
use api::diagnostic::Diagnostic;
use rustix::process::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::client::{Client, tls_config};
use crate::config::Config;
use crate::http2::Http2;
use crate::memory;
use crate::process::{Lines, Process};

/// The binary: `REMPART_BIN`, or what `cargo build -p app` makes in the profile of this test.
static BINARY: LazyLock<PathBuf> = LazyLock::new(|| match std::env::var_os("REMPART_BIN") {
    Some(path) => fs::canonicalize(&path).unwrap_or_else(|error| panic!("REMPART_BIN {path:?}: {error}")),
    None => build(),
});

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "app", "--message-format", "json-render-diagnostics"]);
    command.args(["--manifest-path", manifest]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().expect("cargo can be run");
    assert!(output.status.success(), "cargo build -p app: {}", String::from_utf8_lossy(&output.stderr));
    let executable = output.stdout.lines().map_while(Result::ok).find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(&line).ok()?;
        message["executable"].as_str().filter(|path| path.ends_with("rempart")).map(PathBuf::from)
    });
    executable.expect("package app builds a binary named rempart")
}

/// What `rempart check --json` prints.
#[derive(Clone, Debug, Deserialize)]
pub struct CheckReport {
    /// Whether the configuration could be put in force.
    pub ok: bool,
    /// Errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// What it would change in the running Rempart; absent when it is refused or nothing runs.
    pub changes: Option<Vec<serde_json::Value>>,
}

/// Exit code and output of a command that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Standard output as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not the promised JSON ({error}): {self:?}"))
    }
}

/// A folder with a configuration file, certificates and a state folder; several runs can follow in it.
#[derive(Clone, Debug)]
pub struct Place(Arc<TempDir>);

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// A new, empty folder; removed with the last copy of this value.
    pub fn new() -> Self {
        Self(Arc::new(tempfile::Builder::new().prefix("rempart-").tempdir().unwrap()))
    }

    /// A new folder with this configuration in it.
    pub fn with(config: &Config) -> Self {
        let place = Self::new();
        place.write("rempart.toml", config.text());
        place
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where the state is kept.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("rempart.toml")
    }

    /// Writes a file of the folder, replacing it in one step as an editor or a certificate client does.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        fs::write(&new, content).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// A command of the binary that knows nothing of this machine's settings.
    pub fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&*BINARY);
        command.args(arguments).current_dir(self.0.path());
        for variable in ["RUST_LOG", "REMPART_LOG", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        command.env("HOME", self.0.path()).env("LANG", "C.UTF-8");
        for variable in ["XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a subcommand to its end: the words as given, then `--json --state-dir STATE`.
    pub fn ask(&self, words: &[&str]) -> Ended {
        let mut arguments: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let state = self.state();
        arguments.extend([OsStr::new("--json"), OsStr::new("--state-dir"), state.as_os_str()]);
        self.command(&arguments).output().unwrap().into()
    }

    /// `rempart check` of a file in this folder.
    pub fn check(&self, name: &str) -> (Option<i32>, CheckReport) {
        let ended = self.ask(&["check", name]);
        (ended.code, ended.json())
    }

    /// Starts `rempart run` on the configuration file and waits until it serves.
    pub fn run(&self) -> Rempart {
        self.start(&["run", "--config", "rempart.toml"])
    }

    /// Starts a serving subcommand and waits until it serves.
    pub fn start(&self, words: &[&str]) -> Rempart {
        let state = self.state();
        let mut arguments: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        arguments.extend([OsStr::new("--json"), OsStr::new("--state-dir"), state.as_os_str()]);
        let process = Process::start("rempart", &mut self.command(&arguments));
        let line = process.expect_line(|line| line.contains("\"ready\""));
        let ready: Ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(ready.event, "ready");
        Rempart { process, place: self.clone(), ready }
    }
}

#[derive(Debug, Deserialize)]
struct Ready {
    event: String,
    listeners: Vec<ListenerStatus>,
    metrics: Option<String>,
    admin: PathBuf,
}

/// A running Rempart; killed when dropped.
#[derive(Debug)]
pub struct Rempart {
    process: Process,
    place: Place,
    ready: Ready,
}

impl Rempart {
    /// Starts it with this configuration in a folder of its own.
    pub fn with(config: &Config) -> Self {
        Place::with(config).run()
    }

    /// The folder it runs in.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its own log.
    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    /// Its standard output, where the access log may go.
    pub fn output(&self) -> &Lines {
        &self.process.stdout
    }

    /// The first listener without TLS.
    pub fn plain(&self) -> SocketAddr {
        self.listener(false)
    }

    /// The first listener with TLS.
    pub fn tls(&self) -> SocketAddr {
        self.listener(true)
    }

    fn listener(&self, tls: bool) -> SocketAddr {
        let found = self.ready.listeners.iter().find(|listener| listener.tls == tls);
        found.unwrap_or_else(|| panic!("no listener with tls = {tls}")).address.parse().unwrap()
    }

    /// The listener for metrics and health.
    pub fn metrics(&self) -> SocketAddr {
        self.ready.metrics.as_deref().expect("metrics are on").parse().unwrap()
    }

    /// The admin socket.
    pub fn admin(&self) -> &Path {
        &self.ready.admin
    }

    /// The certificate of the development authority, PEM.
    pub fn authority(&self) -> String {
        fs::read_to_string(self.authority_path()).unwrap()
    }

    /// The file with the certificate of the development authority.
    pub fn authority_path(&self) -> PathBuf {
        self.place.state().join("ca/development-ca.pem")
    }

    /// A connection to the listener without TLS.
    pub fn client(&self) -> Client {
        Client::plain(self.plain()).unwrap()
    }

    /// A TLS connection that speaks HTTP/1.1.
    pub fn tls_client(&self, host: &str) -> Client {
        Client::tls(self.tls(), host, tls_config(&self.authority(), &["http/1.1"])).unwrap()
    }

    /// A TLS connection that speaks HTTP/2.
    pub fn http2(&self, host: &str) -> Http2 {
        Http2::connect(self.tls(), host, tls_config(&self.authority(), &["h2"])).unwrap()
    }

    /// Replaces the configuration file and reloads, which must succeed.
    pub fn configure(&self, config: &Config) -> ReloadOutcome {
        self.place.write("rempart.toml", config.text());
        let (code, outcome) = self.reload();
        assert_eq!(code, Some(0), "{outcome:?}");
        assert!(outcome.active, "{outcome:?}");
        outcome
    }

    /// `rempart reload`: exit code and outcome.
    pub fn reload(&self) -> (Option<i32>, ReloadOutcome) {
        let ended = self.place.ask(&["reload"]);
        (ended.code, ended.json())
    }

    /// `rempart status`.
    pub fn status(&self) -> Status {
        let ended = self.place.ask(&["status"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.json()
    }

    /// Memory it occupies now, in bytes.
    pub fn resident(&self) -> u64 {
        memory::resident(self.pid())
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) -> Place {
        self.process.kill();
        self.place.clone()
    }

    /// SIGTERM, then waits for its end; it must end with 0.
    pub fn stop(mut self) -> Place {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        assert!(status.success(), "{status}: {}", self.process.stderr.text());
        self.place.clone()
    }
}
