//! The admin socket: a unix socket that answers one JSON line per connection, to this user and root only.
//!
//! Threads and blocking calls on purpose: it must answer while the edge threads are at their limit.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use api::admin::{Answer, MAX_REQUEST_BYTES, Request};

use crate::control::Controller;
use crate::run::Event;

/// Time for one request line to come, and for its answer to be taken.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Time a client waits for an answer; a reload reads files and compiles.
const ANSWER: Duration = Duration::from_secs(60);
/// Connections served at once.
const MAX_CONNECTIONS: usize = 16;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest answer read, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Opens the socket and serves it from a thread of its own.
pub fn serve(
    path: &Path,
    controller: Arc<Controller>,
    events: mpsc::SyncSender<Event>,
) -> anyhow::Result<()> {
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
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let open = Arc::new(AtomicUsize::new(0));
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Most likely for want of file descriptors; trying on at once would take a whole core.
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
                continue;
            }
            let guard = Counted::new(open.clone());
            let (controller, events) = (controller.clone(), events.clone());
            let spawned = std::thread::Builder::new().name("admin-request".to_owned()).spawn(move || {
                if let Err(error) = exchange(stream, &controller, &events) {
                    tracing::debug!(%error, "an admin request was not completed");
                }
                drop(guard);
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "an admin request could not be served");
            }
        }
    })?;
    Ok(())
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

fn exchange(stream: UnixStream, controller: &Controller, events: &mpsc::SyncSender<Event>) -> io::Result<()> {
    stream.set_read_timeout(Some(EXCHANGE))?;
    stream.set_write_timeout(Some(EXCHANGE))?;
    let answer = if is_allowed(&stream)? {
        let mut line = String::new();
        BufReader::new((&stream).take(MAX_REQUEST_BYTES)).read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(request) => answer(request, controller, events),
            Err(error) => Answer::Refused { message: format!("not a request: {error}") },
        }
    } else {
        Answer::Refused { message: "only root and the user that runs Rempart may ask".to_owned() }
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    (&stream).write_all(&line)
}

/// The peer is root or the user of this process, whatever the permissions of the socket file have become.
fn is_allowed(stream: &UnixStream) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

fn answer(request: Request, controller: &Controller, events: &mpsc::SyncSender<Event>) -> Answer {
    let ending = || Answer::Refused { message: "Rempart is ending".to_owned() };
    match request {
        Request::Status => controller.status().map_or_else(ending, |status| Answer::Status(Box::new(status))),
        Request::Reload => Answer::Reload(controller.reload()),
        Request::Outline => match controller.outline() {
            Some((generation, lines)) => Answer::Outline { generation, lines },
            None => ending(),
        },
        Request::Stop => match events.try_send(Event::Stop) {
            Ok(()) | Err(mpsc::TrySendError::Full(_)) => Answer::Stopping,
            Err(mpsc::TrySendError::Disconnected(_)) => ending(),
        },
    }
}

/// Asks the running Rempart.
pub fn ask(path: &Path, request: &Request) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(path)
        .with_context(|| format!("no Rempart answers at {}; is it running?", path.display()))?;
    stream.set_read_timeout(Some(ANSWER))?;
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
