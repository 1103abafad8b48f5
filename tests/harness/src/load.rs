//! Load that does not wait for the server: requests begin on a timetable whatever became of those before, and each
//! failure is held against the moments at which the test ended or stopped a serving process.

mod lines;
mod report;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustls::ClientConfig;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::PATIENCE;
use crate::client::tls_config;
use crate::rempart::Rempart;
use lines::Lines;
pub use report::{HaltReport, Report};

/// Requests under way at once; beyond this the generator says that it cannot keep its timetable.
const MAX_OUTSTANDING: u64 = 10_000;
/// Requests remembered; a run that makes more fails, so that the record is always whole.
const MAX_RECORDS: usize = 5_000_000;
/// How long one attempt may take.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(15);
/// Kept-alive HTTP/1.1 connections that take turns.
const KEPT_CONNECTIONS: usize = 16;
/// HTTP/2 connections.
const HTTP2_CONNECTIONS: usize = 4;
/// Twenty requests of the timetable: what each of them is.
const MIX: [Kind; 20] = {
    use Kind::{Fresh as F, FreshTls as T, Http2 as H, Kept as K};
    [F, K, H, F, K, F, H, K, F, T, K, F, H, K, F, K, F, H, K, F]
};

/// What visitors of a site that is under attack ask: almost half over HTTP/2, almost half on kept connections of HTTP/1.1
/// with and without TLS, and a tenth on new connections.
pub const VISITORS: &[Kind] = {
    use Kind::{Fresh as F, FreshTls as T, Http2 as H, Kept as K, KeptTls as S};
    &[H, K, H, S, H, K, H, S, F, H, K, H, S, H, K, H, S, T, H, K]
};
/// The same towards a server that speaks plain HTTP/1.1 only.
pub const PLAIN_VISITORS: &[Kind] = &[Kind::Kept, Kind::Kept, Kind::Kept, Kind::Fresh];

/// How a request reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1 on a connection of its own.
    Fresh,
    /// The same inside TLS, with a full handshake.
    FreshTls,
    /// HTTP/1.1 on a connection that is kept.
    Kept,
    /// The same inside TLS.
    KeptTls,
    /// A stream of one of a few HTTP/2 connections.
    Http2,
}

/// When requests begin.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// That many a second, of every kind.
    Open {
        /// Requests a second.
        per_second: u32,
    },
    /// That many a second, of these kinds in turn.
    Mixed {
        /// Requests a second.
        per_second: u32,
        /// What each request is; not empty.
        mix: &'static [Kind],
    },
    /// So many visitors at once, each again and again with a new connection, held for a while before its request.
    Crowd {
        /// Visitors.
        workers: u32,
        /// Between connecting and the request.
        hold: Duration,
    },
}

/// Where requests go and what must come back.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address without TLS.
    pub plain: SocketAddr,
    /// Address with TLS.
    pub tls: SocketAddr,
    /// Trust for HTTP/1.1 over TLS.
    pub http1: Arc<ClientConfig>,
    /// Trust for HTTP/2.
    pub http2: Arc<ClientConfig>,
    /// Address the connections come from; `None` leaves it to the system.
    pub source: Option<IpAddr>,
    /// Host of every request.
    pub host: String,
    /// Path of every request; must be safe to repeat.
    pub path: String,
    /// The body that must come back with status 200.
    pub expect: String,
}

impl Target {
    /// `GET /ok` of a host behind this Rempart, whose certificates come from its development authority.
    pub fn of(rempart: &Rempart, host: &str) -> Self {
        let authority = rempart.authority();
        Self {
            plain: rempart.plain(),
            tls: rempart.tls(),
            http1: tls_config(&authority, &["http/1.1"]),
            http2: tls_config(&authority, &["h2"]),
            source: None,
            host: host.into(),
            path: "/ok".into(),
            expect: "ok".into(),
        }
    }
}

/// Why an attempt did not bring the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection was refused.
    Refused,
    /// The connection ended before any byte of the answer.
    Closed(String),
    /// The connection ended within the answer.
    Cut(String),
    /// The server said that it has not looked at the request (GOAWAY, REFUSED_STREAM).
    Unprocessed(String),
    /// An answer, but not the right one.
    Wrong(String),
    /// No answer in time.
    Timeout,
    /// The generator could not do its part.
    Generator(String),
}

/// One try at one request.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// When its connection began to be opened.
    pub opened: Instant,
    /// When the attempt began.
    pub began: Instant,
    /// When its outcome was known.
    pub ended: Instant,
    /// Whether the connection had carried an answer before.
    pub reused: bool,
    /// Why it failed.
    pub trouble: Option<Trouble>,
}

impl Attempt {
    /// RFC 9112 section 9.3.1 and RFC 9113 section 8.7: whether a browser would try again without asking.
    fn may_be_repeated(&self) -> bool {
        match self.trouble {
            Some(Trouble::Closed(_)) => self.reused,
            Some(Trouble::Unprocessed(_)) => true,
            _ => false,
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub kind: Kind,
    pub scheduled: Instant,
    pub first: Attempt,
    pub second: Option<Attempt>,
}

impl Record {
    pub(crate) fn last(&self) -> &Attempt {
        self.second.as_ref().unwrap_or(&self.first)
    }
}

/// A process was ended or stopped: between the two moments it still may have done something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Halt {
    pub from: Instant,
    pub until: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    outstanding: AtomicU64,
    records: Mutex<Vec<Record>>,
    changed: Condvar,
}

/// Running load; ends when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    halts: Mutex<Vec<Halt>>,
    started: Instant,
}

impl Load {
    /// Begins, on one thread of its own.
    pub fn start(target: &Target, pace: Pace) -> Self {
        raise_descriptor_limit();
        let shared = Arc::new(Shared::default());
        let (theirs, target) = (shared.clone(), target.clone());
        let thread = thread::spawn(move || drive(&theirs, target, pace));
        Self { shared, thread: Some(thread), halts: Mutex::default(), started: Instant::now() }
    }

    /// Waits until that many further requests are over, well or not.
    pub fn wait_for(&self, further: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut records = self.shared.records.lock().unwrap();
        let goal = records.len() + further;
        while records.len() < goal {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the load stands still after {} requests", records.len());
            records = self.shared.changed.wait_timeout(records, left).unwrap().0;
        }
    }

    /// Kills or stops a process that serves, and notes when. Returns once none of its threads runs.
    pub fn halt(&self, pid: u32, signal: Signal) {
        let from = Instant::now();
        let process = Pid::from_raw(pid as i32).expect("a process id");
        rustix::process::kill_process(process, signal).unwrap_or_else(|error| panic!("{pid}: {error}"));
        while runs(pid) {
            assert!(from.elapsed() < PATIENCE, "process {pid} does not obey {signal:?}");
            thread::yield_now();
        }
        self.halts.lock().unwrap().push(Halt { from, until: Instant::now() });
    }

    /// Ends the load; every request under way is waited for.
    pub fn stop(mut self) -> Report {
        let took = self.started.elapsed();
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        let records = std::mem::take(&mut *self.shared.records.lock().unwrap());
        Report::of(&records, &self.halts.lock().unwrap(), took)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// Whether a thread of the process is neither stopped nor dead (proc(5), `/proc/PID/stat`, third field).
fn runs(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !"TtZX".contains(state))
    })
}

/// Hundreds of connections at once need more descriptors than many a shell allows.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("a soft limit may be raised to the hard one");
}

fn drive(shared: &Arc<Shared>, target: Target, pace: Pace) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let lines = Rc::new(Lines::new(target));
        match pace {
            Pace::Open { per_second } => timetable(shared, &lines, per_second, &MIX).await,
            Pace::Mixed { per_second, mix } => timetable(shared, &lines, per_second, mix).await,
            Pace::Crowd { workers, hold } => crowd(shared, &lines, workers, hold).await,
        }
        while shared.outstanding.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

async fn timetable(shared: &Arc<Shared>, lines: &Rc<Lines>, per_second: u32, mix: &[Kind]) {
    let (begin, interval) = (Instant::now(), Duration::from_secs(1) / per_second);
    let mut due = begin;
    for kind in mix.iter().copied().cycle() {
        tokio::time::sleep_until(due.into()).await;
        tokio::task::yield_now().await;
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let (shared, lines) = (shared.clone(), lines.clone());
        let scheduled = due;
        due += interval;
        if shared.outstanding.load(Ordering::SeqCst) >= MAX_OUTSTANDING {
            shared.keep(unstarted(kind, scheduled));
            continue;
        }
        shared.outstanding.fetch_add(1, Ordering::SeqCst);
        tokio::task::spawn_local(async move {
            let record = request(&lines, kind, scheduled).await;
            shared.keep(record);
            shared.outstanding.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn crowd(shared: &Arc<Shared>, lines: &Rc<Lines>, workers: u32, hold: Duration) {
    let mut crowd = VecDeque::new();
    for worker in 0..workers {
        let (shared, lines) = (shared.clone(), lines.clone());
        crowd.push_back(tokio::task::spawn_local(async move {
            // They arrive one after another, not in step.
            tokio::time::sleep(hold * worker / workers).await;
            while !shared.stop.load(Ordering::SeqCst) {
                let scheduled = Instant::now();
                let first = lines.attempt_fresh(hold, ATTEMPT_PATIENCE).await;
                shared.keep(Record { kind: Kind::Fresh, scheduled, first, second: None });
            }
        }));
    }
    for visitor in crowd {
        visitor.await.expect("a visitor of the crowd");
    }
}

/// One request, tried a second time on a new connection where a browser would.
async fn request(lines: &Lines, kind: Kind, scheduled: Instant) -> Record {
    let slot = lines.next_slot();
    let first = lines.attempt(kind, slot, false, ATTEMPT_PATIENCE).await;
    let mut second = None;
    if first.may_be_repeated() {
        second = Some(lines.attempt(kind, slot, true, ATTEMPT_PATIENCE).await);
    }
    Record { kind, scheduled, first, second }
}

fn unstarted(kind: Kind, at: Instant) -> Record {
    let trouble = Some(Trouble::Generator(format!("{MAX_OUTSTANDING} requests are under way already")));
    let first = Attempt { opened: at, began: at, ended: at, reused: false, trouble };
    Record { kind, scheduled: at, first, second: None }
}

impl Shared {
    fn keep(&self, record: Record) {
        let mut records = self.records.lock().unwrap();
        assert!(records.len() < MAX_RECORDS, "the record is full");
        records.push(record);
        self.changed.notify_all();
    }
}
