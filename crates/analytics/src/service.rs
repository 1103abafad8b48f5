//! The running whole: a socket that edges write to, a socket that answers questions, a clock that closes windows, a database.

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use api::analytics::Filter;
use api::roles::AnalyticsSettings;
use base::event::wire::Head;
use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;

use crate::anomaly::Turn;
use crate::collector::{Collector, Complete};
use crate::query;
use crate::store::{self, Entry, Store};

/// Edges that write at the same time: serving, draining, standing by, and some more.
const MAX_EDGES: usize = 16;
/// Questions answered at the same time.
const MAX_QUESTIONS: usize = 32;
/// How often windows are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Operational events of the time before that are remembered.
const REMEMBERED: Duration = Duration::from_secs(30 * 60);
const MAX_REMEMBERED: u32 = 1024;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where it is found.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// Where edges write.
    pub events: PathBuf,
    /// Where questions are answered.
    pub questions: PathBuf,
    /// The database.
    pub database: PathBuf,
}

/// It could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be opened.
    #[error("cannot open the socket {0}: {1}")]
    Socket(PathBuf, #[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// Nor could that of the database.
    #[error(transparent)]
    Store(#[from] store::StartError),
}

/// What threads share.
pub(crate) struct Shared {
    collector: Mutex<Collector>,
    pub(crate) store: Store,
}

impl Shared {
    pub(crate) fn collector(&self) -> MutexGuard<'_, Collector> {
        self.collector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running whole; ends with the process.
pub struct Service(Arc<Shared>);

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

impl Service {
    /// Opens the sockets and starts the threads. `notice` is called with each anomaly that begins or ends.
    pub fn start(
        sockets: &Sockets,
        seed: u64,
        notice: impl Fn(Happening) + Send + 'static,
    ) -> Result<Self, StartError> {
        let store = Store::start(&sockets.database)?;
        let mut collector = Collector::new(seed, now());
        remember(&store, &mut collector);
        let shared = Arc::new(Shared { collector: Mutex::new(collector), store });
        let (edges, questions) = (open(&sockets.events)?, open(&sockets.questions)?);
        accept(edges, MAX_EDGES, "edge-events", shared.clone(), read)?;
        accept(questions, MAX_QUESTIONS, "question", shared.clone(), query::answer)?;
        let ticking = shared.clone();
        spawn("clock", move || {
            loop {
                std::thread::sleep(TICK);
                let complete = ticking.collector().tick(now());
                hand_over(&ticking.store, complete, &notice);
            }
        })?;
        Ok(Self(shared))
    }

    /// How long to keep, and how much; false when that could not be taken in now.
    #[must_use]
    pub fn set(&self, settings: AnalyticsSettings) -> bool {
        self.0.store.set(settings)
    }

    /// Takes operational events in.
    pub fn happened(&self, happenings: Vec<Happening>) {
        let entries = happenings.iter().cloned().map(|happening| Entry::Happening(Box::new(happening)));
        self.0.store.keep(entries.collect());
        let mut collector = self.0.collector();
        happenings.into_iter().for_each(|happening| collector.happened(happening));
    }

    /// Writes down what is held in memory; false when that took longer than `wait`.
    pub fn finish(&self, wait: Duration) -> bool {
        let complete = self.0.collector().finish(now());
        hand_over(&self.0.store, complete, &|_| ());
        self.0.store.flush(wait)
    }
}

/// What happened before this process began is beside anomalies as well.
fn remember(store: &Store, collector: &mut Collector) {
    let since = Some(Timestamp(now().0.saturating_sub(REMEMBERED.as_micros() as u64)));
    let filter = Filter { since, ..Filter::default() };
    // A first start has no database yet.
    let found = store.reader().and_then(|database| database.happenings(&filter, MAX_REMEMBERED));
    found.unwrap_or_default().into_iter().for_each(|happening| collector.happened(happening));
}

fn hand_over(store: &Store, complete: Complete, notice: &impl Fn(Happening)) {
    let Complete { minutes, samples, lost, turns } = complete;
    let minutes = minutes.into_iter().map(|minute| Entry::Minute(Box::new(minute)));
    let samples = samples.into_iter().map(|request| Entry::Sample(Box::new(request)));
    let lost = lost.map(|(at, requests)| Entry::Lost(at, requests));
    let entries: Vec<Entry> = minutes.chain(samples).chain(lost).collect();
    if !entries.is_empty() {
        store.keep(entries);
    }
    turns.into_iter().map(happening_of).for_each(notice);
}

/// An anomaly as an operational event.
fn happening_of(turn: Turn) -> Happening {
    let (what, severity, anomaly, begin) = match turn {
        Turn::Began(anomaly) => (What::AnomalyBegan, Severity::Warning, anomaly, ""),
        Turn::Ended(anomaly) => (What::AnomalyEnded, Severity::Info, anomaly, "as usual again; it was: "),
    };
    let message = format!("{begin}{}", anomaly.sentence);
    let happening = Happening::new(now(), what, severity, Component::Delivery, &anomaly.signal, message);
    match anomaly.site {
        Some(site) => happening.of_site(site),
        None => happening,
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(StartError::Thread)
}

/// A socket for this user only. One that is there was left by a process before, which gets no new connections from now on.
fn open(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |error| StartError::Socket(path.to_owned(), error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves each connection on a thread of its own, at most so many at a time.
fn accept(
    listener: UnixListener,
    limit: usize,
    name: &'static str,
    shared: Arc<Shared>,
    serve: impl Fn(UnixStream, &Shared) + Copy + Send + 'static,
) -> Result<(), StartError> {
    let open = Arc::new(AtomicUsize::new(0));
    spawn(name, move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Most likely for want of descriptors; trying on at once would take a whole core.
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            if !is_ours(&stream) || open.load(Ordering::Acquire) >= limit {
                continue;
            }
            let counted = Counted::new(open.clone());
            let shared = shared.clone();
            let serving = spawn(name, move || {
                serve(stream, &shared);
                drop(counted);
            });
            if let Err(error) = serving {
                tracing::warn!(%error, "a connection to analytics is not served");
            }
        }
    })
}

/// A connection that is open.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether the other side is this user or root.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid() || peer.uid.is_root())
}

/// Takes the frames of one edge in, until it closes.
fn read(mut stream: UnixStream, shared: &Shared) {
    let mut head = [0; Head::BYTES];
    while stream.read_exact(&mut head).is_ok() {
        let head = match Head::parse(&head) {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(%error, "an edge sends what cannot be read; its events are lost");
                return;
            }
        };
        // At most `MAX_FRAME`.
        let mut frame = vec![0; head.length as usize];
        if stream.read_exact(&mut frame).is_err() {
            return;
        }
        shared.collector().take(&head, frame.into(), now());
    }
}

#[cfg(test)]
mod tests;
