//! A Rempart of real processes with a folder, ports and sites of its own, controlled as an operator would.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use api::admin::{Answer, ProcessRole, ReloadOutcome, Request, Status};
use rustix::process::Signal;

use crate::error::DrillError;
use crate::exchange::SIGNATURE;
use crate::plan::{HOSTS, get};
use crate::{Options, guard, origin, pids};

/// Host of the first site.
pub const FIRST_HOST: &str = HOSTS[0];

/// How long a start, a standby or an answer of the admin socket may take before the drill gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The request as a script would send it, without anything optional.
const RELOAD: &str = "{\"do\":\"reload\"}";
/// Between two questions while something is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// How long one look from outside may take.
const GLANCE: Duration = Duration::from_secs(2);
/// Largest answer read from outside, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// The end of the log that is shown when something did not come, in bytes.
const LOG_TAIL: usize = 2000;
/// Where Debian and its relatives have the library that steps clocks.
const FAKE_TIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The library that steps the wall clock of a process, when it is installed.
pub fn fake_time_library() -> Option<&'static Path> {
    FAKE_TIME.iter().map(Path::new).find(|path| path.exists())
}

/// What one look at a site from outside found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Status.
    pub status: u16,
    /// Whether an origin made the answer.
    pub of_origin: bool,
}

/// One Rempart; its processes end and its folder goes when this is dropped, or when the drill ends in any other way.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    program: PathBuf,
    environment: Vec<(String, String)>,
    /// Where it listens without TLS.
    pub plain: SocketAddr,
    /// Where it listens with TLS.
    pub tls: SocketAddr,
    origins: [SocketAddr; origin::COUNT],
    supervisor: Option<Child>,
    guard: Child,
    leash: Option<ChildStdin>,
}

impl Cluster {
    /// A folder with a configuration, ports, and a guard that looks after what will be started.
    pub fn new(
        options: &Options,
        origins: [SocketAddr; origin::COUNT],
        environment: &[(&str, String)],
    ) -> Result<Self, DrillError> {
        let folder = tempfile::Builder::new().prefix(guard::PREFIX).tempdir();
        let folder = folder.map_err(DrillError::system("no folder for the drill could be made"))?.keep();
        let mut guard = Command::new(&options.program);
        guard.args(["child", "drill-guard", "--state-dir"]).arg(&folder).stdin(Stdio::piped());
        guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut guard = guard.spawn().map_err(DrillError::system("the guard could not be started"))?;
        let leash = guard.stdin.take();
        let [plain, tls] = free_addresses()?;
        let cluster = Self {
            program: options.program.clone(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            plain,
            tls,
            origins,
            supervisor: None,
            guard,
            leash,
            folder,
        };
        cluster.write("rempart.toml", &cluster.config())?;
        Ok(cluster)
    }

    /// The configuration every drill begins with: two sites, both origins, plain and TLS.
    pub fn config(&self) -> String {
        let Self { plain, tls, origins: [first, second], .. } = self;
        let [shop, news] = HOSTS;
        format!(
            "[metrics]\nlisten = \"off\"\n\n[log.access]\nto = {{ file = \"access.log\" }}\nclient_ip = \"none\"\n\n\
             # All visitors of a drill come from one address.\n[limits]\nconnections_per_address = 1_000_000\n\
             connection_rate_per_address = 1_000_000\nhandshakes_per_address = 1_000_000\n\n\
             [drain]\nidle = \"2s\"\nrequests = \"10s\"\ntunnels = \"10s\"\n\n\
             [[listen]]\naddress = \"{plain}\"\ntls = false\n\n[[listen]]\naddress = \"{tls}\"\ntls = true\n\n\
             [[site]]\nname = \"shop\"\nhosts = [\"{shop}\"]\n\n\
             [[site.origin]]\nurl = \"http://{first}\"\nweight = 3\n\n\
             [[site.origin]]\nurl = \"http://{second}\"\nweight = 1\n\n\
             [[site]]\nname = \"news\"\nhosts = [\"{news}\"]\n\n\
             [[site.origin]]\nurl = \"http://{first}\"\n\n[[site.origin]]\nurl = \"http://{second}\"\n"
        )
    }

    /// That configuration with further sites of these names, which have the first origin.
    pub fn config_with(&self, names: &[&str]) -> String {
        let [first, _] = self.origins;
        let site = |name: &&str| {
            format!(
                "\n[[site]]\nname = \"{name}\"\nhosts = [\"{name}.test\"]\n\n\
                 [[site.origin]]\nurl = \"http://{first}\"\n"
            )
        };
        self.config() + &names.iter().map(site).collect::<String>()
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Replaces a file of its folder in one step.
    pub fn write(&self, name: &str, text: &str) -> Result<(), DrillError> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(DrillError::system(format!("{name} could not be written")))
    }

    /// Sets a variable for processes started from now on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A command of the program that knows nothing of this machine's settings.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--json").arg("--state-dir").arg(self.state());
        command.current_dir(&self.folder).env("HOME", &self.folder).stdin(Stdio::null());
        for variable in
            ["RUST_LOG", "REMPART_LOG", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "XDG_STATE_HOME"]
        {
            command.env_remove(variable);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts `rempart run`, and does not wait for it.
    pub fn start(&mut self) -> Result<(), DrillError> {
        let failed = || DrillError::system("Rempart could not be started");
        let log = File::options().create(true).append(true).open(self.path("log.txt")).map_err(failed())?;
        let mut command = self.command(&["run"]);
        command
            .arg("--config")
            .arg(self.path("rempart.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        self.supervisor = Some(command.spawn().map_err(failed())?);
        Ok(())
    }

    /// Starts it and waits until it serves and a standby waits.
    pub fn start_and_wait(&mut self) -> Result<Status, DrillError> {
        self.start()?;
        self.await_serving(PATIENCE).ok_or_else(|| self.late("the first answer", PATIENCE))?;
        self.await_standby()
    }

    /// Waits for a standby.
    pub fn await_standby(&self) -> Result<Status, DrillError> {
        self.await_status(PATIENCE, |status| {
            status.supervision.standby && pid_of(status, ProcessRole::Edge).is_some()
        })
        .ok_or_else(|| self.late("a standby", PATIENCE))
    }

    /// The error for what did not come, with the end of the log.
    pub fn late(&self, what: &str, limit: Duration) -> DrillError {
        let said = format!("; the log ends with:\n{}", self.log_tail());
        DrillError::Late { what: what.to_owned(), seconds: limit.as_secs(), said }
    }

    /// How long it took until an origin's page came through; `None` when that was longer than `limit`.
    pub fn await_serving(&self, limit: Duration) -> Option<Duration> {
        let serves = |seen: Seen| seen.status == 200 && seen.of_origin;
        wait_for(limit, || look(self.plain, HOSTS[0]).is_ok_and(serves))
    }

    /// One look from outside at a site.
    pub fn look(&self, host: &str) -> io::Result<Seen> {
        look(self.plain, host)
    }

    /// Sends a request with this further field, and answers once its connection is over, however that came about.
    pub fn provoke(&self, field: &str) -> io::Result<Seen> {
        look_with(self.plain, HOSTS[0], field)
    }

    /// What it says about itself; `None` when nobody answers.
    pub fn status(&self) -> Option<Status> {
        match self.ask(&Request::Status) {
            Ok(Answer::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// The first status that passes, unless none does within `limit`.
    pub fn await_status(&self, limit: Duration, passes: impl Fn(&Status) -> bool) -> Option<Status> {
        let mut found = None;
        wait_for(limit, || {
            found = self.status().filter(&passes);
            found.is_some()
        });
        found
    }

    /// Asks over the admin socket, as the command line does.
    pub fn ask(&self, request: &Request) -> io::Result<Answer> {
        self.ask_in_words(&serde_json::to_string(request)?)
    }

    fn ask_in_words(&self, request: &str) -> io::Result<Answer> {
        let mut socket = UnixStream::connect(self.state().join("admin.sock"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Has it read its configuration again.
    pub fn reload(&self) -> Result<ReloadOutcome, DrillError> {
        match self.ask_in_words(RELOAD) {
            Ok(Answer::Reload(outcome)) => Ok(outcome),
            Ok(other) => Err(DrillError::Unexpected(format!("a reload was answered with {other:?}"))),
            Err(error) => Err(DrillError::system("a reload could not be asked for")(error)),
        }
    }

    /// Writes a configuration and has it read.
    pub fn configure(&self, text: &str) -> Result<ReloadOutcome, DrillError> {
        self.write("rempart.toml", text)?;
        self.reload()
    }

    /// Sends the supervisor a signal.
    pub fn signal_supervisor(&self, signal: Signal) {
        if let Some(supervisor) = &self.supervisor {
            pids::signal(supervisor.id(), signal);
        }
    }

    /// Every process of it that lives, the guard not among them.
    pub fn pids(&self) -> Vec<u32> {
        let found = pids::naming(&self.folder).into_iter();
        found.filter(|pid| *pid != self.guard.id() && pids::lives(*pid)).collect()
    }

    /// Kills all of its processes except these.
    pub fn kill_all_but(&mut self, spared: &[u32]) {
        // The supervisor first: it must not put anything in the place of what dies.
        self.signal_supervisor(Signal::KILL);
        for pid in self.pids().into_iter().filter(|pid| !spared.contains(pid)) {
            pids::signal(pid, Signal::KILL);
        }
        self.collect();
        let deadline = Instant::now() + PATIENCE;
        while self.pids().iter().any(|pid| !spared.contains(pid)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }

    /// Takes note of the end of the supervisor.
    fn collect(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // It was killed; what it says about that is of no interest.
            drop(supervisor.wait());
        }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(LOG_TAIL);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log.get(from..).unwrap_or_default().to_owned()
    }

    /// Numbers of the generations kept on disk, newest first.
    pub fn stored(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.state().join("generations")).into_iter().flatten().flatten();
        let number = |name: &str| name.strip_suffix(".generation")?.parse().ok();
        let mut numbers: Vec<u64> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The guard ends everything once the other end of its leash is gone.
        drop(self.leash.take());
        drop(self.guard.wait());
        self.collect();
    }
}

/// Process id of the first process in this role.
pub fn pid_of(status: &Status, role: ProcessRole) -> Option<u32> {
    status.processes.iter().find(|process| process.role == role).map(|process| process.pid)
}

/// Looks until it is so; answers how long that took, or `None` when it took longer than `limit`.
pub fn wait_for(limit: Duration, mut is_so: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    loop {
        if is_so() {
            return Some(began.elapsed()).filter(|took| *took <= limit);
        }
        if began.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

fn look(address: SocketAddr, host: &str) -> io::Result<Seen> {
    look_with(address, host, "Accept: */*")
}

fn look_with(address: SocketAddr, host: &str, field: &str) -> io::Result<Seen> {
    let mut stream = TcpStream::connect_timeout(&address, GLANCE)?;
    stream.set_read_timeout(Some(GLANCE))?;
    stream.set_write_timeout(Some(GLANCE))?;
    let mut request = get(host, "/page/1");
    // Before the empty line that ends the head.
    request.truncate(request.len().saturating_sub(2));
    request.extend_from_slice(format!("{field}\r\nConnection: close\r\n\r\n").as_bytes());
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
    let (head, _) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok(Seen { status, of_origin: head.to_ascii_lowercase().contains(SIGNATURE) })
}

/// Loopback addresses whose ports are free now, all different, and stay the same over restarts.
pub(crate) fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT], DrillError> {
    let failed = || DrillError::system("no port of the loopback interface is free");
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    // Held until all are known, or one could be given twice.
    let mut held = Vec::with_capacity(COUNT);
    for address in &mut addresses {
        let listener = TcpListener::bind(*address).map_err(failed())?;
        *address = listener.local_addr().map_err(failed())?;
        held.push(listener);
    }
    Ok(addresses)
}
