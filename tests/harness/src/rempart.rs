//! The program under test: built once, started in a folder of its own, asked and stopped over its command line.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use api::admin::{Answer, ListenerStatus, ProcessRole, ReloadOutcome, Request, Status, UpgradeOutcome};
use api::diagnostic::Diagnostic;
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::client::{Client, tls_config};
use crate::config::Config;
use crate::http2::Http2;
use crate::process::{self, Lines, Process};
use crate::{PATIENCE, memory};

/// Between two questions to the admin socket while something is waited for.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);

/// The binary: `REMPART_BIN`, or what `cargo build -p app` makes in the profile of this test.
static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let release = if cfg!(debug_assertions) { &[][..] } else { &["--release"] };
    named_or_built("REMPART_BIN", "rempart", release)
});

/// The binary with faults that configurations and its own name call up: `REMPART_FAULTY_BIN`, or built for debugging.
static FAULTY: LazyLock<PathBuf> = LazyLock::new(|| {
    named_or_built(
        "REMPART_FAULTY_BIN",
        "rempart-faulty",
        &["--features", "faults", "--bin", "rempart-faulty"],
    )
});

/// The program under test.
pub fn binary() -> &'static Path {
    &BINARY
}

/// The program with faults.
pub fn faulty() -> &'static Path {
    &FAULTY
}

fn named_or_built(variable: &str, name: &str, options: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return fs::canonicalize(&path).unwrap_or_else(|error| panic!("{variable} {path:?}: {error}"));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "app", "--message-format", "json-render-diagnostics"]);
    command.arg("--manifest-path").arg(crate::tools::root().join("Cargo.toml")).args(options);
    let output = command.output().expect("cargo can be run");
    assert!(output.status.success(), "cargo build -p app: {}", String::from_utf8_lossy(&output.stderr));
    let executable = output.stdout.lines().map_while(Result::ok).find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(&line).ok()?;
        let path = Path::new(message["executable"].as_str()?);
        path.file_name().is_some_and(|file| file == name).then(|| path.to_owned())
    });
    executable.unwrap_or_else(|| panic!("package app builds a binary named {name}"))
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
pub struct Place {
    folder: Arc<TempDir>,
    binary: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// A new, empty folder; removed with the last copy of this value.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("rempart-").tempdir().unwrap();
        Self { folder: Arc::new(folder), binary: BINARY.clone() }
    }

    /// A new folder with this configuration in it.
    pub fn with(config: &Config) -> Self {
        let place = Self::new();
        place.write("rempart.toml", config.text());
        place
    }

    /// The same folder for another binary.
    pub fn using(&self, binary: &Path) -> Self {
        Self { folder: self.folder.clone(), binary: binary.to_owned() }
    }

    /// A copy of a binary in the folder, under a name of its own.
    pub fn copy_of(&self, binary: &Path, name: &str) -> PathBuf {
        let copy = self.path(name);
        // A link is as good as a copy and costs nothing; it cannot cross file systems.
        if fs::hard_link(binary, &copy).is_err() {
            fs::copy(binary, &copy).unwrap();
        }
        copy
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
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
        let mut command = self.clean(&self.binary);
        command.args(arguments);
        command
    }

    fn clean(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path());
        for variable in ["RUST_LOG", "REMPART_LOG", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        command.env("HOME", self.folder.path()).env("LANG", "C.UTF-8");
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
        self.follow(&mut self.command(&arguments))
    }

    /// Starts it as systemd does for a socket unit: listening sockets from descriptor 3 on, `LISTEN_FDS` and
    /// `LISTEN_PID` in the environment (sd_listen_fds(3)).
    pub fn run_with_sockets(&self, sockets: &[&TcpListener]) -> Rempart {
        let state = self.state();
        // The shell becomes the program, which so has the process id that was written down.
        let script = "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";
        let mut shell = self.clean(Path::new("sh"));
        shell.args(["-c", script, "sh"]).arg(&self.binary).args([
            "run",
            "--config",
            "rempart.toml",
            "--json",
        ]);
        shell.arg("--state-dir").arg(state).env("LISTEN_FDS", sockets.len().to_string());
        let mappings = sockets.iter().zip(3..).map(|(socket, child_fd)| {
            let parent_fd = OwnedFd::from(socket.try_clone().unwrap());
            FdMapping { parent_fd, child_fd }
        });
        shell.fd_mappings(mappings.collect()).expect("every descriptor is mapped once");
        self.follow(&mut shell)
    }

    fn follow(&self, command: &mut Command) -> Rempart {
        let process = Process::start("rempart", command);
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

/// Processes whose supervisor was killed; killed when dropped.
#[derive(Debug)]
pub struct Orphans(Vec<u32>);

impl Drop for Orphans {
    fn drop(&mut self) {
        self.0.iter().copied().for_each(process::end);
    }
}

/// A running Rempart; killed when dropped, with all its processes.
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

    /// Process id of the supervisor.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Process id of the one that serves. Fails the test when there is none.
    pub fn edge_pid(&self) -> u32 {
        let status = self.ask_status();
        let edge = process_of(&status, ProcessRole::Edge);
        edge.unwrap_or_else(|| panic!("no process serves: {status:#?}"))
    }

    /// Process id of the one that waits to take over.
    pub fn standby_pid(&self) -> Option<u32> {
        process_of(&self.ask_status(), ProcessRole::Standby)
    }

    /// Waits until a standby is ready; answers what runs then.
    pub fn await_standby(&self) -> Status {
        self.await_status("a standby", |status| {
            status.supervision.standby
                && process_of(status, ProcessRole::Edge).is_some()
                && process_of(status, ProcessRole::Standby).is_some()
        })
    }

    /// Waits until the status passes; fails the test when that does not come.
    pub fn await_status(&self, what: &str, passes: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.try_ask(&Request::Status);
            if let Ok(Answer::Status(status)) = &answer
                && passes(status)
            {
                return (**status).clone();
            }
            assert!(Instant::now() < deadline, "{what} does not come: {answer:#?}\n{}", self.log().text());
            // The admin socket answers questions and announces nothing.
            thread::sleep(BETWEEN_QUESTIONS);
        }
    }

    /// Status straight from the admin socket, for questions asked often.
    pub fn ask_status(&self) -> Status {
        match self.ask(&Request::Status) {
            Answer::Status(status) => *status,
            other => panic!("not a status: {other:?}"),
        }
    }

    /// Asks over the admin socket, as the command line does.
    pub fn ask(&self, request: &Request) -> Answer {
        self.try_ask(request).unwrap_or_else(|error| panic!("{request:?}: {error}\n{}", self.log().text()))
    }

    /// The same, where it may be that nobody answers: a supervisor that becomes another binary has a moment of its own.
    pub fn try_ask(&self, request: &Request) -> io::Result<Answer> {
        let mut socket = UnixStream::connect(self.admin())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all((serde_json::to_string(request)? + "\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// `rempart upgrade`: exit code and outcome.
    pub fn upgrade(&self, binary: Option<&Path>, bake_seconds: u32) -> (Option<i32>, UpgradeOutcome) {
        let bake = bake_seconds.to_string();
        let path = binary.map(|path| path.to_str().unwrap().to_owned());
        let mut words = vec!["upgrade", "--bake", &bake];
        if let Some(path) = &path {
            words.extend(["--binary", path]);
        }
        let ended = self.place.ask(&words);
        (ended.code, ended.json())
    }

    /// Kills the supervisor and leaves the rest alive.
    pub fn kill_supervisor(mut self) -> Orphans {
        let family = process::descendants(self.pid());
        self.process.kill_alone();
        Orphans(family)
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

    /// Memory the process that serves occupies now, in bytes.
    pub fn resident(&self) -> u64 {
        memory::resident(self.edge_pid())
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

/// Process id of the process with this role.
pub fn process_of(status: &Status, role: ProcessRole) -> Option<u32> {
    status.processes.iter().find(|process| process.role == role).map(|process| process.pid)
}
