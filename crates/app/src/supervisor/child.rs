//! One child process as the supervisor sees it: started or adopted, asked, watched, ended.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::certificates::Challenge;
use api::diagnostic::Diagnostic;
use api::process::{Adopted, Beat, Order, Reply, Task, Word};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::journal::Journal;
use crate::channel::Channel;

/// Time for a child to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// How often a watched answer is looked for, and the watcher asked.
const LOOK: Duration = Duration::from_millis(20);
/// Looks without a sign of life (about 20 ms each) after which a child hangs.
const SILENT_LOOKS: u32 = 100;
/// Signs of life (about 100 ms each) in which a thread has not moved on, after which it hangs.
const STUCK_BEATS: u32 = 40;
/// Names visitors asked for that wait to be passed on; who is left out asks again.
const MAX_WANTED: usize = 1024;
/// Words of a keeper or a feeder waiting to be dealt with.
pub const WORDS: usize = 16;

/// How children are started.
#[derive(Clone)]
pub struct Launch {
    /// The program; this one's own, even when its file has been replaced meanwhile.
    pub program: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// Options that every process of this Rempart gets.
    pub options: Vec<String>,
    /// Where they tell what happened.
    pub journal: Arc<Journal>,
}

impl Launch {
    /// The command that starts a child in this role.
    pub fn command(&self, role: &str) -> Command {
        let mut command = Command::new(&self.program);
        if self.program == own_program() {
            // What lists of processes show.
            command.arg0("rempart");
        }
        command.args(&self.options).arg("child").arg(role).arg("--state-dir").arg(&self.state);
        // A group of its own: what is typed at a terminal is for the supervisor, which then orders.
        command.process_group(0);
        for variable in
            ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
        {
            command.env_remove(variable);
        }
        command
    }
}

/// Why a child did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It has ended, or cannot be reached any more.
    #[error("it has ended")]
    Gone,
    /// It did not answer in time.
    #[error("it did not answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// It answered, and refuses.
    #[error("it refused: {}", first(.0))]
    Refused(Vec<Diagnostic>),
    /// Whoever watched it put an end to it.
    #[error("{0}")]
    Stopped(String),
}

fn first(diagnostics: &[Diagnostic]) -> &str {
    diagnostics.first().map_or("no reason given", |found| &found.message)
}

/// What a look at a child found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It lives and moves.
    Fine,
    /// It has ended by itself, or was ended by somebody.
    Ended(Ending),
    /// It was stopped by a signal (or by a debugger).
    Stopped,
    /// It gives no sign of life.
    Silent,
    /// One of its threads no longer moves on.
    Stuck,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody told: it is not a child of this process.
    Unknown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it ended with exit code {code}"),
            Self::Signal(signal) => match signal_hook::low_level::signal_name(*signal) {
                Some(name) => write!(f, "it was ended by {name}"),
                None => write!(f, "it was ended by signal {signal}"),
            },
            Self::Unknown => f.write_str("it ended"),
        }
    }
}

/// What a keeper of certificates or a feeder says without being asked, and what is waited for before the next one.
#[derive(Debug)]
pub enum ChildWord {
    /// The keeper: this is pending.
    Challenges {
        /// Repeated in the confirmation.
        serial: u64,
        /// All of it.
        challenges: Vec<Challenge>,
    },
    /// The feeder: a package that passed all its checks.
    Offer {
        /// Repeated in the answer.
        serial: u64,
        /// The feed.
        name: String,
        /// Generation of the package.
        generation: u64,
        /// It differs more than it may, and was forced.
        forced: bool,
        /// The package.
        package: OwnedFd,
    },
}

/// A child process.
pub struct Child {
    /// Process id.
    pub pid: u32,
    /// Version of its binary.
    pub version: String,
    /// What it calls itself in `/.rempart/trace`.
    pub instance: String,
    /// When it was started or adopted.
    pub started: Instant,
    channel: Arc<Channel>,
    pidfd: OwnedFd,
    ending: Mutex<Option<Ending>>,
    next: AtomicU64,
    inbox: Arc<Inbox>,
    watch: Mutex<Watch>,
}

type Answer = (Reply, Vec<OwnedFd>);

/// Who hears what a child says without being asked.
struct Ears {
    words: Option<SyncSender<ChildWord>>,
    journal: Arc<Journal>,
}

/// What the reading thread leaves for others.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<HashMap<u64, SyncSender<Answer>>>,
    beat: Mutex<(u64, Beat)>,
    /// Names visitors asked for, of all beats since they were last taken.
    wanted: Mutex<BTreeSet<String>>,
    closed: AtomicBool,
}

/// What was seen at the last look.
#[derive(Default)]
struct Watch {
    beat: u64,
    silent: u32,
    threads: Vec<(u64, u32)>,
}

enum First {
    Hello { pid: u32, version: String, instance: String },
    Adopt(Box<Adopted>, Vec<OwnedFd>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Child {
    /// Starts a child and waits until it has said who it is. `words` gets what a keeper or a feeder says.
    pub fn start(launch: &Launch, role: &str, words: Option<SyncSender<ChildWord>>) -> io::Result<Arc<Self>> {
        let (channel, theirs) = Channel::pair()?;
        let spawned = launch.command(role).stdin(Stdio::from(theirs)).spawn()?;
        let pid = spawned.id();
        let ears = Ears { words, journal: launch.journal.clone() };
        let child = Self::meet(channel, Some(pid), ears).map(|(child, _)| child);
        if child.is_err() {
            end_unmet(pid);
        }
        child
    }

    /// Takes over an edge that runs without a supervisor. The descriptors are those of `Word::Adopt`.
    pub fn adopt(
        stream: UnixStream,
        journal: &Arc<Journal>,
    ) -> io::Result<(Arc<Self>, Adopted, Vec<OwnedFd>)> {
        let ears = Ears { words: None, journal: journal.clone() };
        let (child, adopted) = Self::meet(Channel::new(stream)?, None, ears)?;
        let (adopted, descriptors) = adopted
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the edge did not hand itself over"))?;
        Ok((child, *adopted, descriptors))
    }

    #[expect(clippy::type_complexity, reason = "what an adopted edge hands over, once")]
    fn meet(
        channel: Channel,
        pid: Option<u32>,
        ears: Ears,
    ) -> io::Result<(Arc<Self>, Option<(Box<Adopted>, Vec<OwnedFd>)>)> {
        let (channel, inbox) = (Arc::new(channel), Arc::new(Inbox::default()));
        let (first, firsts) = mpsc::sync_channel(2);
        std::thread::Builder::new().name("child".to_owned()).spawn({
            let (channel, inbox) = (channel.clone(), inbox.clone());
            move || read(&channel, &inbox, &first, &ears)
        })?;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it did not say who it is");
        let First::Hello { pid: said, version, instance } = firsts.recv_timeout(HELLO).map_err(late)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not say who it is"));
        };
        let adopted = match pid {
            Some(_) => None,
            None => match firsts.recv_timeout(HELLO).map_err(late)? {
                First::Adopt(adopted, descriptors) => Some((adopted, descriptors)),
                First::Hello { .. } => None,
            },
        };
        let pid = pid.unwrap_or(said);
        let child = Self {
            pid,
            version,
            instance,
            started: Instant::now(),
            channel,
            pidfd: rustix::process::pidfd_open(process(pid)?, PidfdFlags::empty())?,
            ending: Mutex::default(),
            next: AtomicU64::new(1),
            inbox,
            watch: Mutex::default(),
        };
        Ok((Arc::new(child), adopted))
    }

    /// Asks, and waits for the answer.
    pub fn ask(
        &self,
        task: Task,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Answer, AskError> {
        self.ask_watched(task, descriptors, limit, |_| Ok(()))
    }

    /// Asks and waits; `watch` is called again and again meanwhile, and can put an end to it.
    pub fn ask_watched(
        &self,
        task: Task,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
        mut watch: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<Answer, AskError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::sync_channel(1);
        lock(&self.inbox.waiting).insert(id, sender);
        let sent = self.channel.send(&Order { id, task }, descriptors);
        if sent.is_err() || self.inbox.closed.load(Ordering::Acquire) {
            lock(&self.inbox.waiting).remove(&id);
            return Err(AskError::Gone);
        }
        let deadline = Instant::now() + limit;
        let answer = loop {
            match answers.recv_timeout(LOOK) {
                Ok((Reply::Refused { diagnostics }, _)) => break Err(AskError::Refused(diagnostics)),
                Ok(answer) => break Ok(answer),
                Err(RecvTimeoutError::Disconnected) => break Err(AskError::Gone),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    break Err(AskError::Late(limit));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(reason) = watch(self) {
                        break Err(AskError::Stopped(reason));
                    }
                }
            }
        };
        lock(&self.inbox.waiting).remove(&id);
        answer
    }

    /// Tells something whose answer nobody needs.
    pub fn tell(&self, task: Task) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        // Who cannot be reached is found by the next look at it.
        if let Err(error) = self.channel.send(&Order { id, task }, &[]) {
            tracing::debug!(pid = self.pid, %error, "a child could not be told something");
        }
    }

    /// The last sign of life.
    pub fn beat(&self) -> Beat {
        lock(&self.inbox.beat).1.clone()
    }

    /// Names visitors asked for since this was last called.
    pub fn take_wanted(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.inbox.wanted)).into_iter().collect()
    }

    /// Looks how it is. To be called about every 20 ms: how long a child may be silent is counted in looks, so that
    /// a supervisor that was held up itself does not blame its child.
    pub fn look(&self) -> Condition {
        if let Some(ending) = self.ended() {
            return Condition::Ended(ending);
        }
        if is_stopped(self.pid) {
            return Condition::Stopped;
        }
        let mut watch = lock(&self.watch);
        let beat = lock(&self.inbox.beat);
        if beat.0 == watch.beat {
            watch.silent += 1;
            return if watch.silent >= SILENT_LOOKS { Condition::Silent } else { Condition::Fine };
        }
        (watch.beat, watch.silent) = (beat.0, 0);
        watch.threads.resize(beat.1.threads.len(), (0, 0));
        let mut stuck = false;
        for (now, (before, same)) in beat.1.threads.iter().zip(&mut watch.threads) {
            *same = if now == before { *same + 1 } else { 0 };
            *before = *now;
            stuck |= *same >= STUCK_BEATS;
        }
        if stuck { Condition::Stuck } else { Condition::Fine }
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<Ending> {
        let mut ending = lock(&self.ending);
        if ending.is_none() {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0);
            *ending = ready.then(|| reap(self.pid));
        }
        *ending
    }

    /// Waits a moment for the end of a process whose channel has closed.
    pub fn wait_for_end(&self) -> Option<Ending> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let span = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        // Whatever came of waiting, the next line tells.
        crate::ignore(rustix::event::poll(&mut fds, Some(&span)));
        self.ended()
    }

    /// Ends it at once.
    pub fn kill(&self) {
        if self.ended().is_none()
            && let Err(error) = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL)
        {
            tracing::warn!(pid = self.pid, %error, "a child could not be ended");
        }
        self.channel.close();
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.pid)
    }

    /// Processor time used so far.
    pub fn processor_time(&self) -> Duration {
        let Some(stat) = stat(self.pid) else { return Duration::ZERO };
        // Fields 14 and 15 of proc(5), counted behind the name: user and system time in clock ticks.
        let ticks: u64 = stat.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
    }
}

impl AsFd for Child {
    /// Becomes readable when the process ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Ends the reading thread. A child that serves and is not told to end goes on, as an orphan.
        self.channel.close();
        if self.ended().is_none()
            && let Ok(pid) = process(self.pid)
        {
            lock(&UNWATCHED).push(pid);
        }
    }
}

/// Processes nobody looks at any more, most of them ended a moment ago: their exit status is still to be collected. As
/// many as the kernel lets this process have.
static UNWATCHED: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Collects the exit status of processes nobody looks at any more, so that no zombie stays.
pub fn collect_unwatched() {
    lock(&UNWATCHED).retain(|pid| !collect(*pid));
}

/// Reads what a child says until it has nothing more to say.
fn read(channel: &Channel, inbox: &Inbox, first: &SyncSender<First>, ears: &Ears) {
    // Who says more than can be heard waits for an answer, and says it again.
    let hear = |word: ChildWord| drop(ears.words.as_ref().map(|words| words.try_send(word)));
    loop {
        let (word, descriptors) = match channel.receive::<Word>() {
            Ok(Some(received)) => received,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "a child's words cannot be read any more");
                break;
            }
        };
        match word {
            Word::Answer { id, reply } => {
                let waiting = lock(&inbox.waiting).remove(&id);
                // Who asked may have given up waiting.
                drop(waiting.map(|sender| sender.try_send((reply, descriptors))));
            }
            Word::Beat(mut beat) => {
                let names = std::mem::take(&mut beat.wanted);
                if !names.is_empty() {
                    let mut wanted = lock(&inbox.wanted);
                    let room = MAX_WANTED.saturating_sub(wanted.len());
                    wanted.extend(names.into_iter().take(room));
                }
                let mut last = lock(&inbox.beat);
                *last = (last.0 + 1, beat);
            }
            Word::Hello { pid, version, instance } => {
                drop(first.try_send(First::Hello { pid, version, instance }));
            }
            Word::Adopt(adopted) => drop(first.try_send(First::Adopt(adopted, descriptors))),
            Word::Challenges { serial, challenges } => hear(ChildWord::Challenges { serial, challenges }),
            Word::Offer { serial, name, generation, forced } => {
                if let Some(package) = descriptors.into_iter().next() {
                    hear(ChildWord::Offer { serial, name, generation, forced, package });
                }
            }
            Word::Happened { happening } => ears.journal.tell(happening),
        }
    }
    inbox.closed.store(true, Ordering::Release);
    lock(&inbox.waiting).clear();
}

fn process(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Ends a process that never said who it is.
fn end_unmet(pid: u32) {
    if let Ok(pid) = process(pid) {
        crate::ignore(rustix::process::kill_process(pid, Signal::KILL));
        crate::ignore(rustix::process::waitpid(Some(pid), WaitOptions::empty()));
    }
}

/// Collects the exit status, so that no zombie stays.
fn reap(pid: u32) -> Ending {
    let Ok(pid) = process(pid) else { return Ending::Unknown };
    match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ending::Code(code),
            (None, Some(signal)) => Ending::Signal(signal),
            (None, None) => Ending::Unknown,
        },
        // Not a child of this process: adopted.
        Ok(None) | Err(_) => Ending::Unknown,
    }
}

/// What `/proc/PID/stat` says behind the name of the program, which may hold anything (proc(5)).
fn stat(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}

fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.starts_with(['T', 't']))
}

/// Resident memory of a process in bytes; 0 when it is gone.
pub fn resident(pid: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Whether the kernel has ended processes for want of memory: a counter that only grows.
pub fn out_of_memory_kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

/// Children of this process as the kernel knows them, those of a program it was before an upgrade included.
pub fn all() -> Vec<Pid> {
    let mut found = Vec::new();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| process(pid.parse().ok()?).ok()));
    }
    found
}

/// Ends every child of this process, for an end that does not wait.
pub fn end_all() {
    for pid in all() {
        // Gone already is as good.
        crate::ignore(rustix::process::kill_process(pid, Signal::KILL));
    }
}

/// Collects the exit status of a child nobody watches; true once it has ended.
pub fn collect(pid: Pid) -> bool {
    !matches!(rustix::process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(None))
}

/// The program of this process, whatever has become of its file.
pub fn own_program() -> PathBuf {
    PathBuf::from(OsStr::new("/proc/self/exe"))
}
