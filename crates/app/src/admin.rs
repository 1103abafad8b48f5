//! The admin socket: a unix socket that answers one JSON line per connection, to this user and root only.
//!
//! Threads and blocking calls on purpose: it must answer while the edge threads are at their limit.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::admin::{Answer, MAX_REQUEST_BYTES, Request};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::supervisor::{Event, Supervisor};

/// Time for one request line to come, and for its answer to be taken.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Time a client waits for an answer; a reload tries the new generation first, and may wait for another one.
const ANSWER: Duration = Duration::from_secs(600);
/// Time an upgrade may take beyond the time the new binary is watched.
const UPGRADE: Duration = Duration::from_secs(600);
/// Connections served at once.
const MAX_CONNECTIONS: usize = 16;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a request is waited for before is looked whether there shall be more.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);
/// How often is looked whether requests have ended.
const LOOK: Duration = Duration::from_millis(5);
/// Largest answer read, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Opens the socket.
pub fn open(path: &Path) -> anyhow::Result<UnixListener> {
    // The state folder's lock is held, so a socket that is still there was left by a process that is gone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace the admin socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| {
        format!(
            "cannot open the admin socket {}; choose a shorter or writable path with --admin",
            path.display()
        )
    })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The admin socket as it is served.
pub struct Admin {
    listener: UnixListener,
    resting: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Takes no further requests and waits for those begun; answers with the socket, whose queue is kept.
    pub fn rest(self, limit: Duration) -> UnixListener {
        self.resting.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the admin socket had panicked");
        }
        let deadline = Instant::now() + limit;
        while self.open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        self.listener
    }
}

/// Serves it from a thread of its own.
pub fn serve(listener: UnixListener, supervisor: Arc<Supervisor>) -> anyhow::Result<Admin> {
    listener.set_nonblocking(true)?;
    let (kept, resting, open) = (listener.try_clone()?, Arc::<AtomicBool>::default(), Arc::default());
    let thread = std::thread::Builder::new().name("admin".to_owned()).spawn({
        let (resting, open) = (resting.clone(), Arc::clone(&open));
        move || {
            while !resting.load(Ordering::Acquire) {
                accept(&listener, &supervisor, &open);
            }
        }
    })?;
    Ok(Admin { listener: kept, resting, open, thread })
}

/// Waits a moment for a request, and has it served.
fn accept(listener: &UnixListener, supervisor: &Arc<Supervisor>, open: &Arc<AtomicUsize>) {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let span = Timespec { tv_sec: 0, tv_nsec: i64::from(ACCEPT_WAIT.subsec_nanos()) };
    match rustix::event::poll(&mut fds, Some(&span)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return,
        Ok(_) => {}
        Err(_) => std::thread::sleep(ACCEPT_PAUSE),
    }
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        // Most likely for want of file descriptors; trying on at once would take a whole core.
        Err(_) => return std::thread::sleep(ACCEPT_PAUSE),
    };
    if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
        return;
    }
    let guard = Counted::new(open.clone());
    let supervisor = supervisor.clone();
    let spawned = std::thread::Builder::new().name("admin-request".to_owned()).spawn(move || {
        if let Err(error) = exchange(stream, &supervisor) {
            tracing::debug!(%error, "an admin request was not completed");
        }
        drop(guard);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "an admin request could not be served");
    }
}

/// Counts a connection for as long as it is served.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn exchange(stream: UnixStream, supervisor: &Supervisor) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(EXCHANGE))?;
    stream.set_write_timeout(Some(EXCHANGE))?;
    let answer = if is_allowed(&stream)? {
        let mut line = String::new();
        BufReader::new((&stream).take(MAX_REQUEST_BYTES)).read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(request) => answer(request, supervisor, &who(&stream)?),
            Err(error) => Answer::Refused { message: format!("not a request: {error}") },
        }
    } else {
        Answer::Refused { message: "only root and the user that runs Rempart may ask".to_owned() }
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    let told = (&stream).write_all(&line);
    // Only now: becoming another binary ends this thread.
    if matches!(&answer, Answer::Upgrade(outcome) if outcome.upgraded) {
        supervisor.become_new();
    }
    told
}

/// The peer is root or the user of this process, whatever the permissions of the socket file have become.
pub fn is_allowed(stream: &UnixStream) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Who asks, for the record.
fn who(stream: &UnixStream) -> io::Result<String> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(if peer.uid.is_root() { "root".to_owned() } else { format!("user {}", peer.uid.as_raw()) })
}

fn answer(request: Request, supervisor: &Supervisor, who: &str) -> Answer {
    match request {
        Request::Status => Answer::Status(Box::new(supervisor.status())),
        Request::Reload { force } => Answer::Reload(supervisor.reload(who, force)),
        Request::Signal { sealed } => match supervisor.signal(&sealed, who) {
            Ok(message) => Answer::Signalled { message },
            Err(message) => Answer::Refused { message },
        },
        Request::Enable { module, site } => match supervisor.switch_on(&module, site.as_deref(), who) {
            Ok(message) => Answer::Signalled { message },
            Err(message) => Answer::Refused { message },
        },
        Request::Feeds => Answer::Feeds { feeds: supervisor.feeds() },
        Request::Feed { name, thaw, force } => {
            let done = supervisor.order_feed(name, thaw, force);
            done.map_or_else(|message| Answer::Refused { message }, |()| Answer::Done)
        }
        Request::Confirm { feed } => {
            let done = match feed {
                None => supervisor.confirm(),
                Some(name) => supervisor.confirm_artefact(&name),
            };
            done.map_or_else(|message| Answer::Refused { message }, |()| Answer::Done)
        }
        Request::Outline => match supervisor.outline() {
            Some((generation, lines)) => Answer::Outline { generation, lines },
            None => Answer::Refused { message: "no edge answers at the moment".to_owned() },
        },
        Request::Stop if supervisor.post(Event::Stop { impatient: false }) => Answer::Stopping,
        Request::Stop => Answer::Refused { message: "Rempart is ending".to_owned() },
        Request::Upgrade { binary, bake_seconds } => {
            Answer::Upgrade(supervisor.upgrade(binary, bake_seconds.map(Duration::from_secs)))
        }
        Request::Certificates => match supervisor.certificates() {
            Ok(certificates) => Answer::Certificates { certificates },
            Err(message) => Answer::Refused { message },
        },
        Request::Certificate { revoke, names } => match supervisor.change_certificates(revoke, names) {
            Ok(()) => Answer::Done,
            Err(message) => Answer::Refused { message },
        },
    }
}

/// Asks the running Rempart.
pub fn ask(path: &Path, request: &Request) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(path)
        .with_context(|| format!("no Rempart answers at {}; is it running?", path.display()))?;
    let wait = match request {
        Request::Upgrade { bake_seconds, .. } => UPGRADE + Duration::from_secs(bake_seconds.unwrap_or(0)),
        _ => ANSWER,
    };
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(EXCHANGE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&stream).write_all(&line)?;
    let mut answer = String::new();
    BufReader::new((&stream).take(MAX_ANSWER_BYTES)).read_line(&mut answer)?;
    serde_json::from_str(&answer)
        .context("the running Rempart answered something unexpected; is it another version?")
}

/// Where the socket of a state folder lies.
pub fn socket_in(state: &Path) -> PathBuf {
    state.join("admin.sock")
}
