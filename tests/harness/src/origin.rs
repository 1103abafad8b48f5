//! An origin in this process that records exactly the bytes it received and answers by script, one thread per
//! connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use crate::PATIENCE;
use crate::wire::{Body, Head, Wire};

/// Raw bytes kept over all connections; what comes after is counted only.
const MAX_RAW: usize = 8 << 20;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Number of the connection it came on, from 0.
    pub connection: u64,
    /// Request line and fields.
    pub head: Head,
    /// Body with framing and trailers.
    pub body: Body,
}

impl Seen {
    /// Method as text.
    pub fn method(&self) -> String {
        self.word(0)
    }

    /// Request target as text; bytes beyond ASCII are escaped.
    pub fn target(&self) -> String {
        self.word(1)
    }

    fn word(&self, index: usize) -> String {
        let word = self.head.start.split(|&byte| byte == b' ').nth(index);
        word.unwrap_or_default().escape_ascii().to_string()
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Bytes to send as they are.
    pub bytes: Vec<u8>,
    /// Whether the connection is closed after them.
    pub close: bool,
}

impl Reply {
    /// Exactly these bytes; the connection stays open.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), close: false }
    }

    /// A complete plain-text response with Content-Length.
    pub fn text(status: u16, text: &str) -> Self {
        let length = text.len();
        Self::raw(format!(
            "HTTP/1.1 {status} Scripted\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}"
        ))
    }

    /// The same, and then the connection is closed.
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }
}

type Script = dyn Fn(&mut Connection) -> io::Result<()> + Send + Sync;

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
    raw: Mutex<Vec<u8>>,
    received: AtomicU64,
    accepted: AtomicU64,
    open: Mutex<Vec<(u64, TcpStream)>>,
    stopping: AtomicBool,
}

/// The stream of a connection, with its bytes noted as they arrive.
#[derive(Debug)]
pub struct Tap {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.shared.received.fetch_add(count as u64, Ordering::SeqCst);
        let mut raw = self.shared.raw.lock().unwrap();
        let room = MAX_RAW.saturating_sub(raw.len()).min(count);
        raw.extend_from_slice(&buffer[..room]);
        Ok(count)
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// One connection, as its script sees it.
#[derive(Debug)]
pub struct Connection {
    /// Its number, from 0.
    pub number: u64,
    /// What comes and goes.
    pub wire: Wire<Tap>,
    shared: Arc<Shared>,
}

impl Connection {
    /// Reads a whole request and records it; `None` when the connection ended before one began.
    pub fn request(&mut self) -> io::Result<Option<Seen>> {
        let Some(head) = self.wire.head()? else { return Ok(None) };
        let body = self.wire.body(head.request_length()?)?;
        Ok(Some(self.record(head, body)))
    }

    /// Records a request whose parts were read one by one.
    pub fn record(&self, head: Head, body: Body) -> Seen {
        let seen = Seen { connection: self.number, head, body };
        self.shared.seen.lock().unwrap().push(seen.clone());
        self.shared.changed.notify_all();
        seen
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }
}

/// The origin. Stops listening and closes every connection when dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl Origin {
    /// Reads requests in full, records them, and answers each by the function.
    pub fn answering(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::scripted(move |connection| {
            while let Some(seen) = connection.request()? {
                let reply = answer(&seen);
                connection.send(&reply.bytes)?;
                if reply.close {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Hands every connection to the script, which may do with it what it wants; it is closed after that.
    pub fn scripted(script: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script)
    }

    /// The same on a given address.
    pub fn on(
        address: SocketAddr,
        script: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (script, theirs) = (Arc::<Script>::from(Box::new(script) as Box<Script>), shared.clone());
        let acceptor = thread::spawn(move || accept(&listener, &script, &theirs));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Waits until that many requests came, and answers with all of them.
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.shared.seen.lock().unwrap();
        while seen.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the origin saw {} of {count} requests", seen.len());
            seen = self.shared.changed.wait_timeout(seen, left).unwrap().0;
        }
        seen.clone()
    }

    /// Forgets what it saw.
    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
        self.shared.raw.lock().unwrap().clear();
    }

    /// The bytes received since the last `forget`, over all connections.
    pub fn raw(&self) -> Vec<u8> {
        self.shared.raw.lock().unwrap().clone()
    }

    /// How many bytes came in since the start.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// How many connections were accepted since the start.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Closes every open connection; the listener goes on.
    pub fn close_connections(&self) {
        for (_, stream) in self.shared.open.lock().unwrap().drain(..) {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, script: &Arc<Script>, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let _best_effort = stream.set_nodelay(true);
        let Ok(handle) = stream.try_clone() else { continue };
        shared.open.lock().unwrap().push((number, handle));
        let (script, shared) = (script.clone(), shared.clone());
        thread::spawn(move || {
            let tap = Tap { stream, shared: shared.clone() };
            let mut connection = Connection { number, wire: Wire::new(tap), shared: shared.clone() };
            let _the_client_sees_it = script(&mut connection);
            let _gone_already = connection.wire.stream().stream.shutdown(Shutdown::Both);
            shared.open.lock().unwrap().retain(|(other, _)| *other != number);
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // The acceptor sleeps in accept(2); a connection wakes it.
        let _wake = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ended = acceptor.join();
        }
        self.close_connections();
    }
}
