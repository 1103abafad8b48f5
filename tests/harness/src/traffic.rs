//! Steady requests on kept connections while something happens to the server: each worker follows a timetable and
//! catches up when it falls behind, so a stall is not hidden by waiting for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::PATIENCE;
use crate::client::Client;
use crate::http2::Http2;

/// Failures kept with their words; the rest is only counted.
const MAX_FAILURES: usize = 20;

/// What a worker speaks.
#[derive(Clone, Debug)]
pub enum Speaks {
    /// HTTP/1.1 without TLS.
    Plain(SocketAddr),
    /// HTTP/1.1 over TLS.
    Tls(SocketAddr, Arc<ClientConfig>),
    /// HTTP/2 over TLS.
    Http2(SocketAddr, Arc<ClientConfig>),
}

/// What a request asks for and what must come back.
#[derive(Clone, Debug)]
pub struct Asks {
    /// Host of every request.
    pub host: String,
    /// Path of every request.
    pub path: String,
    /// The body that must come back, with status 200.
    pub expect: String,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests answered as expected.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Connections that ended or were asked to end.
    pub cut: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
    changed: Condvar,
}

/// Running workers.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    started: Instant,
}

impl Traffic {
    /// Starts one worker per entry, each with that many requests per second.
    pub fn start(workers: Vec<Speaks>, per_second: u32, asks: &Asks) -> Self {
        let shared = Arc::new(Shared::default());
        let workers = workers
            .into_iter()
            .map(|speaks| {
                let (shared, asks) = (shared.clone(), asks.clone());
                thread::spawn(move || work(&speaks, Duration::from_secs(1) / per_second, &asks, &shared))
            })
            .collect();
        Self { shared, workers, started: Instant::now() }
    }

    /// Waits until that many further requests were answered or failed.
    pub fn wait_for(&self, further: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut tally = self.shared.tally.lock().unwrap();
        let goal = tally.completed + tally.failed + further;
        while tally.completed + tally.failed < goal {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "traffic stands still: {tally:?}");
            tally = self.shared.changed.wait_timeout(tally, left).unwrap().0;
        }
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().unwrap().clone()
    }

    /// Ends all workers; answers what happened and for how long.
    pub fn stop(mut self) -> (Tally, Duration) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let took = self.started.elapsed();
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
        (self.tally(), took)
    }

    /// Ends all workers and fails the test unless every request was answered on a connection that stayed.
    pub fn stop_unharmed(self) -> Tally {
        let (tally, took) = self.stop();
        let rate = tally.completed as f64 / took.as_secs_f64();
        println!("{} requests in {took:.1?}, {rate:.0} a second", tally.completed);
        assert!(tally.failed == 0 && tally.cut == 0, "{tally:?}");
        assert!(tally.completed > 0, "no request was made at all");
        tally
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

enum Line {
    Http1(Box<Client>),
    Http2(Box<Http2>),
}

fn work(speaks: &Speaks, interval: Duration, asks: &Asks, shared: &Shared) {
    let mut line = None;
    let mut due = Instant::now();
    while !shared.stop.load(Ordering::SeqCst) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += interval;
        let outcome = once(speaks, asks, &mut line);
        let mut tally = shared.tally.lock().unwrap();
        match outcome {
            Ok(kept) => {
                tally.completed += 1;
                tally.cut += u64::from(!kept);
            }
            Err(words) => {
                tally.failed += 1;
                tally.cut += 1;
                if tally.failures.len() < MAX_FAILURES {
                    tally.failures.push(words);
                }
            }
        }
        shared.changed.notify_all();
    }
}

/// One request; answers whether the connection is kept.
fn once(speaks: &Speaks, asks: &Asks, line: &mut Option<Line>) -> Result<bool, String> {
    let mut open = match line.take() {
        Some(open) => open,
        None => connect(speaks, &asks.host).map_err(|words| format!("connecting: {words}"))?,
    };
    let (status, body, kept) = match &mut open {
        Line::Http1(client) => {
            let response =
                client.get(&asks.host, &asks.path).map_err(|error| format!("{speaks:.20?}: {error}"))?;
            let close = response.head.text("connection").is_some_and(|value| value.contains("close"));
            (response.status, response.body.bytes, !close)
        }
        Line::Http2(client) => {
            let answer = client.get(&asks.host, &asks.path)?;
            (answer.status, answer.body, true)
        }
    };
    if status != 200 || body != asks.expect.as_bytes() {
        return Err(format!("status {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
    }
    if kept {
        *line = Some(open);
    }
    Ok(kept)
}

fn connect(speaks: &Speaks, host: &str) -> Result<Line, String> {
    Ok(match speaks {
        Speaks::Plain(address) => Line::Http1(Box::new(Client::plain(*address).map_err(|e| e.to_string())?)),
        Speaks::Tls(address, config) => {
            Line::Http1(Box::new(Client::tls(*address, host, config.clone()).map_err(|e| e.to_string())?))
        }
        Speaks::Http2(address, config) => {
            Line::Http2(Box::new(Http2::connect(*address, host, config.clone())?))
        }
    })
}
