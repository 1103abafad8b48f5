//! The database and the thread that has it: what cannot be written waits in memory, the oldest goes first, and is counted.

mod database;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use api::analytics::{Minute, RequestView, StoreStatus};
use api::roles::AnalyticsSettings;
use base::happening::Happening;
use base::time::Timestamp;

pub use self::database::{Database, DatabaseError};

/// Batches waiting for the thread; there is one a second or so.
const QUEUE: usize = 256;
/// Entries that wait while nothing can be written.
pub const MAX_WAITING: usize = 20_000;
/// Entries of one transaction.
const BATCH: usize = 512;
/// Pause after something could not be written.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the age and the size of what is kept are looked at.
const TIDY: Duration = Duration::from_secs(60);

/// One thing to keep.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Figures.
    Minute(Box<Minute>),
    /// A request.
    Sample(Box<RequestView>),
    /// An operational event.
    Happening(Box<Happening>),
    /// The beginning of a minute, and the requests in it that nobody was told of.
    Lost(Timestamp, u64),
}

enum Order {
    Keep(Vec<Entry>),
    Settings(AnalyticsSettings),
    Flush(SyncSender<()>),
}

/// The thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread that writes the database: {0}")]
pub struct StartError(#[source] std::io::Error);

/// The way to the thread.
#[derive(Clone)]
pub struct Store {
    orders: SyncSender<Order>,
    status: Arc<Mutex<StoreStatus>>,
    path: PathBuf,
}

impl Store {
    /// Starts the thread. A database that cannot be opened is no error: it is tried again.
    pub fn start(path: &Path) -> Result<Self, StartError> {
        let (orders, received) = sync_channel(QUEUE);
        let status = Arc::<Mutex<StoreStatus>>::default();
        let writer = Writer::new(path.to_owned(), status.clone());
        std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || writer.run(&received))
            .map_err(StartError)?;
        Ok(Self { orders, status, path: path.to_owned() })
    }

    /// Has these kept. Never waits: what the thread has no room for is dropped and counted.
    pub fn keep(&self, entries: Vec<Entry>) {
        if let Err(
            TrySendError::Full(Order::Keep(entries)) | TrySendError::Disconnected(Order::Keep(entries)),
        ) = self.orders.try_send(Order::Keep(entries))
        {
            lock(&self.status).dropped += entries.len() as u64;
        }
    }

    /// How long to keep, and how much. False when the thread has no room for the order; say it again then.
    #[must_use]
    pub fn set(&self, settings: AnalyticsSettings) -> bool {
        self.orders.try_send(Order::Settings(settings)).is_ok()
    }

    /// Waits until what was given is written, or could not be.
    pub fn flush(&self, wait: Duration) -> bool {
        let (done, finished) = sync_channel(1);
        self.orders.try_send(Order::Flush(done)).is_ok() && finished.recv_timeout(wait).is_ok()
    }

    /// How it does.
    pub fn status(&self) -> StoreStatus {
        lock(&self.status).clone()
    }

    /// A connection of one's own, to read with.
    pub fn reader(&self) -> Result<Database, DatabaseError> {
        Database::open_to_read(&self.path)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread.
struct Writer {
    path: PathBuf,
    status: Arc<Mutex<StoreStatus>>,
    database: Option<Database>,
    waiting: VecDeque<Entry>,
    settings: Option<AnalyticsSettings>,
    /// Nothing is tried before.
    again: Instant,
    tidied: Option<Instant>,
}

impl Writer {
    fn new(path: PathBuf, status: Arc<Mutex<StoreStatus>>) -> Self {
        let waiting = VecDeque::new();
        Self { path, status, database: None, waiting, settings: None, again: Instant::now(), tidied: None }
    }

    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(Duration::from_secs(1)) {
                Ok(Order::Keep(entries)) => {
                    self.wait(entries);
                    self.write();
                }
                Ok(Order::Settings(settings)) => {
                    self.settings = Some(settings);
                    self.tidied = None;
                }
                Ok(Order::Flush(done)) => {
                    self.again = Instant::now();
                    self.write();
                    // Nobody may be waiting any more.
                    crate::ignore(done.try_send(()));
                }
                Err(RecvTimeoutError::Timeout) => self.write(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tidy(Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()));
        }
        self.again = Instant::now();
        self.write();
    }

    /// Takes entries in; the oldest go when too many wait.
    fn wait(&mut self, entries: Vec<Entry>) {
        self.waiting.extend(entries);
        let over = self.waiting.len().saturating_sub(MAX_WAITING);
        self.waiting.drain(..over);
        let mut status = lock(&self.status);
        status.dropped += over as u64;
        status.waiting = self.waiting.len() as u64;
    }

    /// Writes what waits, as far as that goes.
    fn write(&mut self) {
        if Instant::now() < self.again {
            return;
        }
        while !self.waiting.is_empty() {
            let batch: Vec<&Entry> = self.waiting.iter().take(BATCH).collect();
            let written = match open(&mut self.database, &self.path) {
                Ok(database) => database.write(&batch),
                Err(error) => Err(error),
            };
            let count = batch.len();
            match written {
                Ok(()) => drop(self.waiting.drain(..count)),
                Err(error) => return self.trouble(&error),
            }
        }
        self.report(None);
    }

    fn tidy(&mut self, now: Timestamp) {
        let due = self.tidied.is_none_or(|at| at.elapsed() >= TIDY);
        let Some(settings) = self.settings.clone().filter(|_| due && Instant::now() >= self.again) else {
            return;
        };
        self.tidied = Some(Instant::now());
        let tidied = open(&mut self.database, &self.path).and_then(|database| database.tidy(&settings, now));
        if let Err(error) = tidied {
            self.trouble(&error);
        }
    }

    /// A damaged database is set aside; anything else is tried again after a while.
    fn trouble(&mut self, error: &DatabaseError) {
        self.database = None;
        if error.is_damage() {
            match database::set_aside(&self.path) {
                Ok(aside) => {
                    tracing::error!(%error, aside = %aside.display(), "the database of events is damaged and was set aside; a new one begins");
                }
                Err(failed) => {
                    tracing::error!(%error, %failed, "the database of events is damaged and could not be set aside");
                    self.again = Instant::now() + PAUSE;
                }
            }
        } else {
            tracing::warn!(%error, "the database of events takes nothing; what is new waits in memory");
            self.again = Instant::now() + PAUSE;
        }
        self.report(Some(error.to_string()));
    }

    fn report(&self, problem: Option<String>) {
        let mut status = lock(&self.status);
        status.problem = problem;
        status.waiting = self.waiting.len() as u64;
    }
}

fn open<'a>(slot: &'a mut Option<Database>, path: &Path) -> Result<&'a mut Database, DatabaseError> {
    match slot {
        Some(database) => Ok(database),
        None => Ok(slot.insert(Database::open(path)?)),
    }
}

#[cfg(test)]
mod tests;
