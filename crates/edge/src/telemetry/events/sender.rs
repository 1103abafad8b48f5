//! The thread that has the socket: connects when there is something to say, waits for a slow reader, gives up on none.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use base::event::wire::Head;

use super::{Chunk, Control};

/// How often is looked whether the process ends.
const LOOK: Duration = Duration::from_millis(250);
/// Pause after analytics was not there; doubles from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Why a chunk was not sent.
enum Unsent {
    /// Nobody listens, or whoever did has gone.
    Unreachable,
    /// The process ends and the reader does not read.
    Stopping,
}

pub(super) struct Sender {
    socket: PathBuf,
    chunks: Receiver<Chunk>,
    control: Arc<Control>,
    stream: Option<UnixStream>,
    pause: Duration,
    /// Not tried again before.
    again: Instant,
}

impl Sender {
    pub(super) fn new(socket: PathBuf, chunks: Receiver<Chunk>, control: Arc<Control>) -> Self {
        Self { socket, chunks, control, stream: None, pause: FIRST_PAUSE, again: Instant::now() }
    }

    /// Runs until the queue is closed, or until the process ends and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            match self.chunks.recv_timeout(LOOK) {
                Ok(chunk) => self.send(chunk),
                Err(RecvTimeoutError::Timeout) if self.control.stopping.load(Ordering::Acquire) => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn send(&mut self, chunk: Chunk) {
        self.control.queued.fetch_sub(1, Ordering::Relaxed);
        // Taken before the frame is sent, given back when it is not: no lost request is told of twice.
        let lost = self.control.lost.swap(0, Ordering::Relaxed);
        let length = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        let head = Head { length, records: chunk.records, lost }.to_bytes();
        let counts = self.control.counts.clone();
        match self.write(&head).and_then(|()| self.write(&chunk.bytes)) {
            Ok(()) => {
                counts.sent.fetch_add(chunk.requests, Ordering::Relaxed);
            }
            Err(unsent) => {
                self.stream = None;
                self.control.lost.fetch_add(lost, Ordering::Relaxed);
                let why = match unsent {
                    Unsent::Unreachable => &counts.unreachable,
                    Unsent::Stopping => &counts.stopped,
                };
                self.control.lose(why, chunk.requests);
            }
        }
        self.control.give_back(chunk.bytes);
    }

    /// Writes all of it, however long the reader takes, unless the process ends.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Unsent> {
        self.connect()?;
        let Some(stream) = &mut self.stream else { return Err(Unsent::Unreachable) };
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(0) => return Err(Unsent::Unreachable),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.control.stopping.load(Ordering::Acquire) {
                        return Err(Unsent::Stopping);
                    }
                }
                Err(_) => return Err(Unsent::Unreachable),
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), Unsent> {
        if self.stream.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        if now < self.again {
            return Err(Unsent::Unreachable);
        }
        let connected = UnixStream::connect(&self.socket)
            .and_then(|stream| stream.set_write_timeout(Some(LOOK)).map(|()| stream));
        match connected {
            Ok(stream) => {
                self.stream = Some(stream);
                self.pause = FIRST_PAUSE;
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, "analytics cannot be reached; events are dropped and counted");
                self.again = now + self.pause;
                self.pause = (self.pause * 2).min(LAST_PAUSE);
                Err(Unsent::Unreachable)
            }
        }
    }
}
