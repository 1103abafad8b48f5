//! A child process whose output is kept, that can be waited for by what it says, and that dies with its guard.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::PATIENCE;

/// Lines kept per stream; older ones are forgotten.
const MAX_LINES: usize = 20_000;

/// Lines of one output stream.
#[derive(Debug, Default)]
pub struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn follow(stream: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let writer = lines.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                let mut state = writer.state.lock().unwrap();
                if state.lines.len() == MAX_LINES {
                    state.lines.drain(..MAX_LINES / 2);
                }
                state.lines.push(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
                writer.changed.notify_all();
                line.clear();
            }
            writer.state.lock().unwrap().ended = true;
            writer.changed.notify_all();
        });
        lines
    }

    /// The first line that passes, past and future; `None` when the stream ends or patience does.
    pub fn wait_for(&self, passes: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(line) = state.lines.iter().find(|line| passes(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.state.lock().unwrap().lines.join("\n")
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<String> {
        self.state.lock().unwrap().lines.clone()
    }
}

/// A running child. Killed and reaped when dropped, with every process it started and that still belongs to it; what it
/// said on stderr is shown if the test is failing.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    /// What it wrote to standard output.
    pub stdout: Arc<Lines>,
    /// What it wrote to standard error.
    pub stderr: Arc<Lines>,
}

impl Process {
    /// Starts a command with both outputs kept and no input.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        Self { name: name.to_owned(), child, ended: None, stdout, stderr }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_none()
    }

    /// Waits for its end; fails the test when that does not come.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.name, self.stderr.text());
            thread::sleep(Duration::from_millis(5));
        }
        self.ended.unwrap()
    }

    /// Kills it without a chance to tidy up, and everything it started.
    pub fn kill(&mut self) {
        if self.is_running() {
            // It stands still first, so that it starts nothing while its family is counted.
            self.signal(Signal::STOP);
            let family = descendants(self.id());
            self.kill_alone();
            family.into_iter().for_each(end);
        }
    }

    /// Kills this process and leaves alive what it started.
    pub fn kill_alone(&mut self) {
        if self.is_running() {
            let _gone_already = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Waits for a line on stdout or fails the test showing what the process said.
    pub fn expect_line(&self, passes: impl Fn(&str) -> bool) -> String {
        self.stdout.wait_for(passes).unwrap_or_else(|| {
            panic!(
                "{} never said it is ready.\nstdout:\n{}\nstderr:\n{}",
                self.name,
                self.stdout.text(),
                self.stderr.text()
            )
        })
    }
}

/// Whether a process exists and has not ended (a zombie has).
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until a process that is not a child of this one has ended.
pub fn await_end(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    while lives(pid) {
        assert!(Instant::now() < deadline, "process {pid} does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Kills a process that may be gone already.
pub fn end(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _gone_already = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Children of a process, their children, and so on (proc(5), `/proc/PID/stat`, fourth field).
pub fn descendants(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pairs: Vec<(u32, u32)> = entries
        .filter_map(|entry| {
            let child = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            Some((child, rest.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(pairs.iter().filter(|(_, of)| *of == parent).map(|(child, _)| child));
        next += 1;
    }
    family.split_off(1)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {} ended with {:?}; stderr:\n{}", self.name, self.ended, self.stderr.text());
        }
    }
}
