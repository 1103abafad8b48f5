//! Open-loop traffic: visitors arrive at a fixed rate whatever became of those before, so that a stall cannot hide itself.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::error::DrillError;
use crate::exchange::{Answer, exchange};
use crate::golden::{self, Corpus, Told};
use crate::plan::{self, Asked, Kind};
use crate::probe::{self, Probed};
use crate::websocket;
use crate::wire::{self, Wire};

/// How long a visitor waits, from the moment it should have been served.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Visitors waiting at once, at most; those beyond are counted as turned away.
const MAX_WAITING: usize = 4096;
/// Records kept, at most: two hours at 200 a second.
const MAX_RECORDS: usize = 1_500_000;
/// Unused connections kept for each site, with and without TLS.
const MAX_IDLE: usize = 64;

/// The clock of a drill: time since it began, never stepping back.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What became of one visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Got what it asked for.
    Good,
    /// Rempart answered with this 5xx itself.
    Platform(u16),
    /// The origin answered with this 5xx.
    Origin(u16),
    /// Another status than the one expected, such as a visitor who was blocked.
    Unexpected(u16),
    /// The connection ended before the answer was complete.
    Reset,
    /// Nobody accepted the connection.
    Refused,
    /// The answer was not the page asked for.
    WrongBody,
    /// No answer in ten seconds.
    TimedOut,
    /// So many were waiting that this one was not even sent.
    NotSent,
}

impl Class {
    /// What an answer is worth.
    pub fn of_answer(answer: &Answer, expected: &[u8]) -> Self {
        match answer.status {
            200 if answer.is_of_origin() && answer.body == expected => Self::Good,
            200 => Self::WrongBody,
            500..=599 if answer.is_of_origin() => Self::Origin(answer.status),
            500..=599 => Self::Platform(answer.status),
            other => Self::Unexpected(other),
        }
    }

    /// What a failure is.
    pub fn of_error(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Reset,
        }
    }
}

/// One visitor.
#[derive(Clone, Debug)]
pub struct Record {
    /// How it came.
    pub kind: Kind,
    /// When it was due; latency counts from here.
    pub scheduled: Duration,
    /// When its request was sent; `None` when there never was a connection.
    pub sent: Option<Duration>,
    /// When it had its answer, or knew that there will be none.
    pub ended: Duration,
    /// What became of it.
    pub class: Class,
    /// In words, when something went wrong.
    pub detail: Option<String>,
}

impl Record {
    /// Since when something could happen to it: since it was sent, or due when it never was.
    pub fn began(&self) -> Duration {
        self.sent.unwrap_or(self.scheduled)
    }
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Visitors.
    pub records: Vec<Record>,
    /// Golden requests.
    pub golden: Vec<Told>,
    /// Looks at the origins that do not go through Rempart.
    pub probes: Vec<Probed>,
    /// Records that did not fit.
    pub dropped: u64,
}

/// Where visitors note what they saw.
#[derive(Clone, Debug)]
pub struct Witness {
    /// The clock of the drill.
    pub clock: Clock,
    over: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
}

impl Witness {
    /// Whether no more shall come.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what became of a visitor.
    pub fn note(&self, record: Record) {
        let mut log = self.log();
        if log.records.len() < MAX_RECORDS {
            log.records.push(record);
        } else {
            log.dropped += 1;
        }
    }

    /// Notes how a golden request was answered.
    pub fn note_golden(&self, told: Told) {
        let mut log = self.log();
        if log.golden.len() < MAX_RECORDS {
            log.golden.push(told);
        }
    }

    /// Notes a look at an origin.
    pub fn note_probe(&self, probed: Probed) {
        let mut log = self.log();
        if log.probes.len() < MAX_RECORDS {
            log.probes.push(probed);
        }
    }
}

/// Where visitors go.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Without TLS.
    pub plain: SocketAddr,
    /// With TLS.
    pub tls: SocketAddr,
    /// The origins, for probes.
    pub origins: [SocketAddr; crate::origin::COUNT],
}

/// Traffic that is going on, in a thread of its own.
#[derive(Debug)]
pub struct Traffic {
    witness: Witness,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Begins.
    pub fn start(
        addresses: Addresses,
        rate: u32,
        clock: Clock,
        corpus: Arc<Corpus>,
    ) -> Result<Self, DrillError> {
        let failed = || DrillError::system("the traffic of the drill could not be started");
        let witness = Witness { clock, over: Arc::default(), log: Arc::default() };
        let connector = wire::connector().map_err(|error| DrillError::Unexpected(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed())?;
        let thread = std::thread::Builder::new().name("drill-traffic".to_owned()).spawn({
            let witness = witness.clone();
            move || {
                let local = tokio::task::LocalSet::new();
                local.spawn_local(golden::ask_on(addresses.plain, corpus, witness.clone()));
                local.spawn_local(probe::look_on(addresses.origins, witness.clone()));
                let talking = witness.clone();
                local.spawn_local(async move { websocket::talk(addresses.plain, &talking).await });
                local.block_on(&runtime, arrive(addresses, rate, connector, witness));
            }
        });
        Ok(Self { witness, thread: Some(thread.map_err(failed())?) })
    }

    /// What was seen so far.
    pub fn so_far(&self) -> Log {
        self.witness.log().clone()
    }

    /// No more shall come; those who wait are waited for.
    pub fn stop(mut self) -> Log {
        self.end();
        std::mem::take(&mut *self.witness.log())
    }

    fn end(&mut self) {
        self.witness.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there shows as visitors that are missing, which the verdict counts.
            drop(thread.join());
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

/// What visitors share.
struct Crowd {
    addresses: Addresses,
    connector: TlsConnector,
    witness: Witness,
    waiting: Cell<usize>,
    idle: RefCell<HashMap<(bool, &'static str), Vec<Wire>>>,
}

async fn arrive(addresses: Addresses, rate: u32, connector: TlsConnector, witness: Witness) {
    let crowd = Rc::new(Crowd {
        addresses,
        connector,
        witness: witness.clone(),
        waiting: Cell::new(0),
        idle: RefCell::default(),
    });
    let (began, first) = (tokio::time::Instant::now(), witness.clock.now());
    for number in 0.. {
        let due = plan::due(number, rate);
        sleep_until(began + due).await;
        if witness.is_over() {
            break;
        }
        let scheduled = first + due;
        let asked = plan::asked(number);
        if crowd.waiting.get() >= MAX_WAITING {
            let (kind, ended) = (asked.kind, witness.clock.now());
            witness.note(Record { kind, scheduled, sent: None, ended, class: Class::NotSent, detail: None });
            continue;
        }
        crowd.waiting.set(crowd.waiting.get() + 1);
        let crowd = crowd.clone();
        tokio::task::spawn_local(async move {
            crowd.visit(asked, scheduled).await;
            crowd.waiting.set(crowd.waiting.get().saturating_sub(1));
        });
    }
    while crowd.waiting.get() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Crowd {
    async fn visit(&self, asked: Asked, scheduled: Duration) {
        let sent = Cell::new(None);
        let outcome = timeout(PATIENCE, self.ask(&asked, &sent)).await;
        let (class, detail) = match outcome {
            Ok(Ok(answer)) => {
                let class = Class::of_answer(&answer, &asked.expected);
                let said = || answer.field("date").map(|_| format!("status {}", answer.status));
                (class, if class == Class::Good { None } else { said() })
            }
            Ok(Err(error)) => (Class::of_error(&error), Some(error.to_string())),
            Err(_) => (Class::TimedOut, None),
        };
        let (kind, ended) = (asked.kind, self.witness.clock.now());
        self.witness.note(Record { kind, scheduled, sent: sent.get(), ended, class, detail });
    }

    async fn ask(&self, asked: &Asked, sent: &Cell<Option<Duration>>) -> io::Result<Answer> {
        let key = (asked.kind.is_tls(), asked.host);
        let used = if asked.kind.is_new() { None } else { self.take_idle(key) };
        let mut wire = match used {
            Some(wire) => wire,
            None if asked.kind.is_tls() => {
                Wire::connect(self.addresses.tls, Some((&self.connector, asked.host))).await?
            }
            None => Wire::connect(self.addresses.plain, None).await?,
        };
        sent.set(Some(self.witness.clock.now()));
        let answer = exchange(&mut wire, &asked.request).await?;
        if answer.keeps_alive() && !asked.kind.is_new() {
            let mut idle = self.idle.borrow_mut();
            let kept = idle.entry(key).or_default();
            if kept.len() < MAX_IDLE {
                kept.push(wire);
            }
        }
        Ok(answer)
    }

    /// A connection used before that is still open.
    fn take_idle(&self, key: (bool, &'static str)) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&key)?;
        while let Some(wire) = kept.pop() {
            if !wire.is_closed() {
                return Some(wire);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::SIGNATURE;

    fn answer(status: u16, signed: bool, body: &[u8]) -> Answer {
        let fields = if signed { vec![(SIGNATURE.to_owned(), "0".to_owned())] } else { Vec::new() };
        Answer { status, fields, body: body.to_vec() }
    }

    #[test]
    fn who_made_an_error_decides_whose_it_is() {
        for (status, signed, body, class) in [
            (200, true, "page", Class::Good),
            (200, true, "other", Class::WrongBody),
            // A 200 that no origin signed is not what was asked for, whatever it says.
            (200, false, "page", Class::WrongBody),
            (503, false, "page", Class::Platform(503)),
            (503, true, "page", Class::Origin(503)),
            (403, false, "page", Class::Unexpected(403)),
        ] {
            assert_eq!(Class::of_answer(&answer(status, signed, body.as_bytes()), b"page"), class);
        }
    }

    #[test]
    fn ends_of_connections_are_told_apart() {
        for (kind, class) in [
            (io::ErrorKind::ConnectionReset, Class::Reset),
            (io::ErrorKind::UnexpectedEof, Class::Reset),
            (io::ErrorKind::BrokenPipe, Class::Reset),
            (io::ErrorKind::ConnectionRefused, Class::Refused),
            (io::ErrorKind::TimedOut, Class::TimedOut),
        ] {
            assert_eq!(Class::of_error(&kind.into()), class);
        }
    }

    /// A server that stalls is asked all the same, and its stall shows in every latency.
    #[test]
    fn a_stalled_server_does_not_slow_the_arrivals() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let corpus = Arc::new(Corpus::default());
        let addresses = Addresses { plain: address, tls: address, origins: [address; 2] };
        let traffic = Traffic::start(addresses, 500, Clock::start(), corpus).unwrap();
        // It accepts twenty connections, answers none of them, and hangs up on all at once.
        let held: Vec<_> = (0..20).map(|_| listener.accept().unwrap()).collect();
        assert!(traffic.so_far().records.is_empty(), "nobody has an answer, and still they come");
        drop((held, listener));
        let log = traffic.stop();
        assert!(log.records.len() >= 15, "{}", log.records.len());
        assert!(log.records.iter().all(|record| record.class != Class::Good));
        let mut scheduled: Vec<_> =
            log.records.iter().filter(|r| r.kind != Kind::WebSocket).map(|r| r.scheduled).collect();
        scheduled.sort_unstable();
        let gap = Duration::from_millis(2);
        assert!(
            scheduled.windows(2).all(|pair| pair[1] - pair[0] == gap),
            "at the fixed rate: {scheduled:?}"
        );
    }
}
