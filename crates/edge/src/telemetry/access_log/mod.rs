//! The access log: edge threads write JSON lines into their own buffer, one writer thread takes the buffers over a bounded
//! queue. A full queue or a failing disk costs lines, which are counted, and never a request.

mod json;
mod line;
mod sink;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base::event::RequestEvent;
use snapshot::generation::{self, AccessLogTarget, ClientIpDetail};

use self::sink::{Now, Sink};
use super::calendar::Clock;
pub use line::{MAX_HEADER_BYTES, MAX_HOST_BYTES, MAX_METHOD_BYTES, MAX_TARGET_BYTES};

/// Bytes after which a thread hands its buffer over; a chunk is at most this and one line. Waking the writer costs as much as
/// writing a dozen lines, so it is done for many at a time.
pub const CHUNK_BYTES: usize = 64 * 1_024;
/// Chunks between the edge threads and the writer, 8 MiB of ordinary lines: seconds of a stalled disk at 5,000 requests/s.
pub const QUEUE_CHUNKS: usize = 128;
/// What a buffer is made with: room for the line that crosses the limit.
const BUFFER_BYTES: usize = CHUNK_BYTES + CHUNK_BYTES / 8;
/// Written buffers kept for the threads to fill again; memory that was just used is warm, and new memory has to be zeroed.
const SPARE_BUFFERS: usize = 8;
/// How often the edge is meant to call `LogHandle::flush_if_older`, and the age at which that hands lines over.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// How often the writer looks at rotation by age and at retention.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Appends an event as one line. The log does the same; this is a door for tests outside this crate.
#[doc(hidden)]
pub fn write_line(out: &mut Vec<u8>, client: ClientIpDetail, event: &RequestEvent) {
    line::write(out, &mut Clock::new(), client, event);
}

/// The writer thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the access log's writer thread: {0}")]
pub struct StartError(#[source] io::Error);

/// What became of the lines; shared by the writer, the threads and the metrics.
#[derive(Debug, Default)]
pub struct LogCounts {
    written: AtomicU64,
    queue_full: AtomicU64,
    write_failed: AtomicU64,
    stopped: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl LogCounts {
    /// Lines handed to the operating system.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines lost, by reason: `queue_full` (the writer could not keep up), `write_failed` (disk full, path gone),
    /// `stopped` (recorded after the log was shut down).
    pub fn dropped(&self) -> [(&'static str, u64); 3] {
        [
            ("queue_full", self.queue_full.load(Ordering::Relaxed)),
            ("write_failed", self.write_failed.load(Ordering::Relaxed)),
            ("stopped", self.stopped.load(Ordering::Relaxed)),
        ]
    }

    /// What is wrong with the log now, for a person; `None` while lines are being written.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// Lines of one thread on their way to the writer.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    lines: u64,
}

enum Message {
    Chunk(Chunk),
    /// Look at `Control`. Not sent when the queue is full: the writer looks after every message anyway.
    Wake,
}

/// What reload and shutdown tell the writer and the threads.
struct Control {
    enabled: AtomicBool,
    client_ip: AtomicU8,
    stopping: AtomicBool,
    pending: Mutex<Option<generation::AccessLog>>,
    /// Empty buffers; locked once per chunk.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Control {
    fn new(config: &generation::AccessLog) -> Self {
        let control = Self {
            enabled: AtomicBool::new(false),
            client_ip: AtomicU8::new(0),
            stopping: AtomicBool::new(false),
            pending: Mutex::new(None),
            spare: Mutex::default(),
        };
        control.apply(config);
        control
    }

    fn apply(&self, config: &generation::AccessLog) {
        let client_ip = match config.client_ip {
            ClientIpDetail::Truncated => 0,
            ClientIpDetail::Full => 1,
            ClientIpDetail::None => 2,
        };
        self.client_ip.store(client_ip, Ordering::Relaxed);
        self.enabled.store(config.to != AccessLogTarget::Off, Ordering::Relaxed);
    }

    /// A buffer to fill.
    fn buffer(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back whose lines are written. One that a very long line has made larger goes.
    fn give_back(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS && buffer.capacity() <= BUFFER_BYTES {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// Frees what nobody has needed for a while.
    fn free_spare(&self) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }

    fn client_ip(&self) -> ClientIpDetail {
        match self.client_ip.load(Ordering::Relaxed) {
            1 => ClientIpDetail::Full,
            2 => ClientIpDetail::None,
            _ => ClientIpDetail::Truncated,
        }
    }
}

/// The running log. Dropping it without `shutdown` lets the writer end once the last `LogHandle` is gone.
pub struct AccessLog {
    sender: SyncSender<Message>,
    control: Arc<Control>,
    counts: Arc<LogCounts>,
    /// Closed when the writer has ended; nothing is ever sent.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Starts the writer thread. A target that cannot be opened is no error: it is warned about, counted and tried again,
    /// because a site must not stay down for its log.
    pub fn start(config: &generation::AccessLog, counts: Arc<LogCounts>) -> Result<Self, StartError> {
        let (sender, receiver) = mpsc::sync_channel(QUEUE_CHUNKS);
        let (alive, ended) = mpsc::sync_channel(0);
        let control = Arc::new(Control::new(config));
        let writer = Writer {
            receiver,
            control: control.clone(),
            sink: Sink::new(config.clone(), counts.clone()),
            counts: counts.clone(),
            _alive: alive,
        };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())
            .map_err(StartError)?;
        Ok(Self { sender, control, counts, ended: Mutex::new(ended) })
    }

    /// A buffer for one edge thread.
    pub fn handle(&self) -> LogHandle {
        LogHandle::new(self.sender.clone(), self.control.clone(), self.counts.clone())
    }

    /// Takes the settings of a new generation, and opens the file again even when its name is the same. Returns at once;
    /// lines already queued still go to the old target.
    pub fn reconfigure(&self, config: &generation::AccessLog) {
        self.control.apply(config);
        *self.control.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(config.clone());
        self.wake();
    }

    /// What became of the lines so far.
    pub fn counts(&self) -> &Arc<LogCounts> {
        &self.counts
    }

    /// Writes out what is queued and ends the writer; answers false when that took longer than `wait`. To be called once
    /// the edge threads have dropped their handles; lines that come later are counted as dropped.
    pub fn shutdown(&self, wait: Duration) -> bool {
        self.control.stopping.store(true, Ordering::Release);
        self.wake();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout)
    }

    fn wake(&self) {
        match self.sender.try_send(Message::Wake) {
            // Full: the writer is about to look. Disconnected: nobody is left to be woken.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// One thread's end of the log. `record` never waits: it formats into memory, and hands over with a `try_send`.
pub struct LogHandle {
    sender: SyncSender<Message>,
    control: Arc<Control>,
    counts: Arc<LogCounts>,
    buffer: Vec<u8>,
    lines: u64,
    clock: Clock,
    looked: Instant,
}

impl LogHandle {
    fn new(sender: SyncSender<Message>, control: Arc<Control>, counts: Arc<LogCounts>) -> Self {
        Self {
            sender,
            control,
            counts,
            buffer: Vec::new(),
            lines: 0,
            clock: Clock::new(),
            looked: Instant::now(),
        }
    }

    /// Takes one finished request. Nothing happens while the log is off.
    pub fn record(&mut self, event: &RequestEvent) {
        if !self.control.enabled.load(Ordering::Relaxed) {
            return;
        }
        if self.buffer.capacity() == 0 {
            // Only now: an idle thread holds no buffer at all.
            self.buffer = self.control.buffer();
        }
        line::write(&mut self.buffer, &mut self.clock, self.control.client_ip(), event);
        self.lines += 1;
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// Hands over what has been waiting for `FLUSH_INTERVAL`; the edge's timer calls this that often.
    pub fn flush_if_older(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) >= FLUSH_INTERVAL {
            self.looked = now;
            self.flush();
        }
    }

    /// Hands over everything recorded so far; if the queue is full the lines are counted as dropped.
    pub fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let chunk = Chunk { bytes: std::mem::take(&mut self.buffer), lines };
        let (counter, returned) = match self.sender.try_send(Message::Chunk(chunk)) {
            Ok(()) => return,
            Err(TrySendError::Full(message)) => (&self.counts.queue_full, message),
            Err(TrySendError::Disconnected(message)) => (&self.counts.stopped, message),
        };
        counter.fetch_add(lines, Ordering::Relaxed);
        if let Message::Chunk(chunk) = returned {
            self.buffer = chunk.bytes;
            self.buffer.clear();
        }
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The thread that owns the target.
struct Writer {
    receiver: Receiver<Message>,
    control: Arc<Control>,
    sink: Sink,
    counts: Arc<LogCounts>,
    _alive: SyncSender<()>,
}

impl Writer {
    fn run(mut self) {
        self.sink.housekeep(Now::read());
        let mut tidied = Instant::now();
        loop {
            match self.receiver.recv_timeout(HOUSEKEEPING) {
                Ok(Message::Chunk(chunk)) => self.write(chunk),
                Ok(Message::Wake) => {}
                Err(RecvTimeoutError::Timeout) => self.control.free_spare(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.take_new_target();
            if tidied.elapsed() >= HOUSEKEEPING {
                self.sink.housekeep(Now::read());
                tidied = Instant::now();
            }
            if self.control.stopping.load(Ordering::Acquire) {
                self.write_queued();
                break;
            }
        }
    }

    fn write(&mut self, chunk: Chunk) {
        self.sink.write(&chunk, Now::read());
        self.control.give_back(chunk.bytes);
    }

    fn take_new_target(&mut self) {
        let pending = self.control.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(config) = pending {
            self.write_queued();
            self.sink = Sink::new(config, self.counts.clone());
            self.sink.housekeep(Now::read());
        }
    }

    /// Writes what is in the queue now; bounded, so that busy threads cannot keep a reload or the end waiting.
    fn write_queued(&mut self) {
        for _ in 0..QUEUE_CHUNKS {
            match self.receiver.try_recv() {
                Ok(Message::Chunk(chunk)) => self.write(chunk),
                Ok(Message::Wake) => {}
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests;
