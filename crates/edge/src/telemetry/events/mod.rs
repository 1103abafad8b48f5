//! Request events on their way to analytics: edge threads encode them into their own chunk, one sender thread takes the chunks
//! over a bounded queue and writes them to a unix socket. Whoever does not read costs events, which are counted, never a request.

mod sender;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base::event::wire::{self, MAX_FRAME, MAX_RECORD};
use base::event::{Fault, RequestEvent};
use base::random::Random;

use self::sender::Sender;

/// Bytes after which a thread hands its chunk over; a chunk is at most this and one record, which is less than a frame holds.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks between the edge threads and the sender: 8 MiB, about 25,000 ordinary events.
pub const QUEUE_CHUNKS: usize = 128;
/// What a chunk is made with: room for the record that crosses the limit.
const BUFFER_BYTES: usize = CHUNK_BYTES + MAX_RECORD;
/// Sent chunks kept for the threads to fill again.
const SPARE_BUFFERS: usize = 8;
/// Most that sampling halves: then one event stands for 64 requests.
const MAX_HALVINGS: u32 = 6;
/// So many halvings fewer are made of requests that failed: they are what is looked for.
const FAILURES_SPARED: u32 = 3;

const _: () = assert!(BUFFER_BYTES <= MAX_FRAME, "a chunk is sent as one frame");

/// The sender thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread that sends events: {0}")]
pub struct StartError(#[source] io::Error);

/// What became of the events; shared by the sender, the threads and the metrics.
#[derive(Debug, Default)]
pub struct EventCounts {
    sent: AtomicU64,
    queue_full: AtomicU64,
    unreachable: AtomicU64,
    stopped: AtomicU64,
}

impl EventCounts {
    /// Requests told of. A sampled event counts as all the requests it stands for.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Requests that nobody was told of, by reason: `queue_full` (analytics reads too slowly, or not at all), `unreachable` (it
    /// is not there), `stopped` (the process was ending).
    pub fn dropped(&self) -> [(&'static str, u64); 3] {
        [
            ("queue_full", self.queue_full.load(Ordering::Relaxed)),
            ("unreachable", self.unreachable.load(Ordering::Relaxed)),
            ("stopped", self.stopped.load(Ordering::Relaxed)),
        ]
    }
}

/// Events of one thread on their way to the sender.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// Records in it.
    records: u32,
    /// Requests they stand for.
    requests: u64,
}

/// What threads and sender share.
#[derive(Default)]
struct Control {
    enabled: AtomicBool,
    stopping: AtomicBool,
    /// Chunks in the queue.
    queued: AtomicU64,
    /// Requests that the next frame has to tell of as lost.
    lost: AtomicU64,
    counts: Arc<EventCounts>,
    /// Empty buffers; locked once per chunk.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Control {
    fn buffer(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// Requests nobody will hear of.
    fn lose(&self, why: &AtomicU64, requests: u64) {
        why.fetch_add(requests, Ordering::Relaxed);
        self.lost.fetch_add(requests, Ordering::Relaxed);
    }
}

/// The way to analytics. Nothing is made or sent until `enable`.
pub struct Events {
    queue: SyncSender<Chunk>,
    control: Arc<Control>,
    /// Closed when the sender has ended; nothing is ever sent.
    ended: Mutex<Receiver<()>>,
}

impl Events {
    /// Starts the sender thread; `socket` is where analytics listens, whenever it does.
    pub fn start(socket: PathBuf, counts: Arc<EventCounts>) -> Result<Self, StartError> {
        let (queue, chunks) = mpsc::sync_channel(QUEUE_CHUNKS);
        let (alive, ended) = mpsc::sync_channel(0);
        let control = Arc::new(Control { counts, ..Control::default() });
        let sender = Sender::new(socket, chunks, control.clone());
        let run = move || {
            sender.run();
            drop::<SyncSender<()>>(alive);
        };
        thread::Builder::new().name("events".to_owned()).spawn(run).map_err(StartError)?;
        Ok(Self { queue, control, ended: Mutex::new(ended) })
    }

    /// Switches events on or off, for every thread.
    pub fn enable(&self, enabled: bool) {
        self.control.enabled.store(enabled, Ordering::Relaxed);
    }

    /// A chunk for one edge thread.
    pub fn handle(&self, seed: u64) -> EventHandle {
        EventHandle {
            queue: self.queue.clone(),
            control: self.control.clone(),
            bytes: Vec::new(),
            records: 0,
            requests: 0,
            halvings: 0,
            random: Random::seeded(seed),
        }
    }

    /// What became of the events so far.
    pub fn counts(&self) -> &Arc<EventCounts> {
        &self.control.counts
    }

    /// Sends what is queued and ends the sender; answers false when that took longer than `wait`. To be called once the edge
    /// threads have dropped their handles.
    pub fn shutdown(&self, wait: Duration) -> bool {
        self.control.stopping.store(true, Ordering::Release);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout)
    }
}

/// One thread's end. `record` never waits: it encodes into memory, and hands over with a `try_send`.
pub struct EventHandle {
    queue: SyncSender<Chunk>,
    control: Arc<Control>,
    bytes: Vec<u8>,
    records: u32,
    requests: u64,
    /// One of 2^this requests is told, and stands for all of them.
    halvings: u32,
    random: Random,
}

impl EventHandle {
    /// Takes one finished request. Nothing happens while events are off.
    pub fn record(&mut self, event: &RequestEvent) {
        if !self.control.enabled.load(Ordering::Relaxed) {
            return;
        }
        let weight = self.weight(event);
        // Drawn, not counted: a pattern in the requests must not meet one in the sample.
        if weight > 1 && self.random.below(weight) != 0 {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = self.control.buffer();
        }
        wire::encode(&mut self.bytes, event, weight);
        self.records += 1;
        self.requests += u64::from(weight);
        if self.bytes.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// How many requests like this one an event stands for now.
    fn weight(&self, event: &RequestEvent) -> u32 {
        if self.halvings == 0 {
            return 1;
        }
        let failed = event.status >= 500 || matches!(event.fault, Some(Fault::Edge | Fault::Origin));
        1 << if failed { self.halvings.saturating_sub(FAILURES_SPARED) } else { self.halvings }
    }

    /// Hands over everything recorded so far; if the queue is full the events are counted as lost.
    pub fn flush(&mut self) {
        if self.records == 0 {
            return;
        }
        self.adapt();
        let requests = std::mem::take(&mut self.requests);
        let records = std::mem::take(&mut self.records);
        let chunk = Chunk { bytes: std::mem::take(&mut self.bytes), records, requests };
        self.control.queued.fetch_add(1, Ordering::Relaxed);
        let (why, chunk) = match self.queue.try_send(chunk) {
            Ok(()) => return,
            Err(TrySendError::Full(chunk)) => (&self.control.counts.queue_full, chunk),
            Err(TrySendError::Disconnected(chunk)) => (&self.control.counts.stopped, chunk),
        };
        self.control.queued.fetch_sub(1, Ordering::Relaxed);
        self.control.lose(why, requests);
        self.bytes = chunk.bytes;
        self.bytes.clear();
    }

    /// Tells of fewer requests while the queue is more than half full, of more again when it is nearly empty.
    fn adapt(&mut self) {
        let queued = self.control.queued.load(Ordering::Relaxed);
        if queued > QUEUE_CHUNKS as u64 / 2 {
            self.halvings = (self.halvings + 1).min(MAX_HALVINGS);
        } else if queued < QUEUE_CHUNKS as u64 / 8 {
            self.halvings = self.halvings.saturating_sub(1);
        }
    }
}

impl Drop for EventHandle {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
