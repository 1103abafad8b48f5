//! Visitors who stay: a download, an upload, a WebSocket, an HTTP/2 stream and an event stream that go on until the
//! test ends them. Everything is numbered, so a piece that is missing, doubled or cut off is seen.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::client::{Client, tls_config};
use crate::http2::Http2;
use crate::origin::{Connection, Origin};
use crate::rempart::Rempart;
use crate::websocket;
use crate::wire::Length;

/// Between two pieces.
const INTERVAL: Duration = Duration::from_millis(50);
/// Between two messages of a WebSocket.
const TALK: Duration = Duration::from_millis(100);
/// Bytes of one piece: ten digits and a line end.
const PIECE: usize = 11;

/// What an origin and the companions behind it share.
#[derive(Debug, Default)]
struct Common {
    ending: AtomicBool,
    answered: AtomicU64,
}

/// An origin for load and companions: `/ok`, `/trickle`, `/events`, `/upload`, `/talk`.
#[derive(Debug)]
pub struct Host {
    origin: Origin,
    common: Arc<Common>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Starts it.
    pub fn new() -> Self {
        let common = Arc::new(Common::default());
        let theirs = common.clone();
        Self { origin: Origin::scripted(move |connection| serve(connection, &theirs)), common }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.origin.url()
    }

    /// How often `/ok` was asked for.
    pub fn answered(&self) -> u64 {
        self.common.answered.load(Ordering::SeqCst)
    }
}

fn serve(connection: &mut Connection, common: &Common) -> io::Result<()> {
    while let Some(head) = connection.wire.head()? {
        match head.request()?.1 {
            b"/trickle" => trickle(connection, common, "text/plain", "")?,
            b"/events" => trickle(connection, common, "text/event-stream", "data: ")?,
            b"/upload" => {
                let mut pieces = Numbered::default();
                connection.wire.body_to(head.request_length()?, |bytes| pieces.take(bytes))?;
                let text = pieces.verdict().unwrap_or_else(|words| words);
                connection
                    .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))?;
            }
            b"/talk" => return talk(connection),
            _ => {
                // No body: load asks with GET.
                common.answered.fetch_add(1, Ordering::SeqCst);
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
        }
    }
    Ok(())
}

/// One numbered piece per interval until the end is wished for.
fn trickle(connection: &mut Connection, common: &Common, kind: &str, prefix: &str) -> io::Result<()> {
    connection.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
    ))?;
    let mut number = 0u64;
    while !common.ending.load(Ordering::SeqCst) {
        let end = if prefix.is_empty() { "" } else { "\n" };
        let piece = format!("{prefix}{number:010}\n{end}");
        connection.send(format!("{:x}\r\n{piece}\r\n", piece.len()))?;
        number += 1;
        thread::sleep(INTERVAL);
    }
    connection.send("0\r\n\r\n")
}

/// Sends back each masked frame of the client, unmasked, until it is a close frame.
fn talk(connection: &mut Connection) -> io::Result<()> {
    connection.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        websocket::ACCEPT
    ))?;
    loop {
        let mut frame = Vec::new();
        connection.wire.exactly(6, &mut |piece| frame.extend_from_slice(piece))?;
        let (opcode, length) = (frame[0], frame[1] & 0x7f);
        let mut payload = Vec::new();
        connection.wire.exactly(length.into(), &mut |piece| payload.extend_from_slice(piece))?;
        payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= frame[2 + i % 4]);
        connection.send([&[opcode, length], &payload[..]].concat())?;
        if opcode & 0x0f == 0x8 {
            return Ok(());
        }
    }
}

/// Numbered pieces as they come in, wherever they are divided; what is not a digit stands between two.
#[derive(Debug, Default)]
struct Numbered {
    pieces: u64,
    pending: Vec<u8>,
    wrong: Option<String>,
}

impl Numbered {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte.is_ascii_digit() {
                self.pending.push(byte);
            } else if byte == b'\n' && !self.pending.is_empty() {
                let text = String::from_utf8_lossy(&self.pending).into_owned();
                if text != format!("{:010}", self.pieces) && self.wrong.is_none() {
                    self.wrong = Some(format!("piece {} reads {text}", self.pieces));
                }
                self.pieces += 1;
                self.pending.clear();
            }
        }
    }

    /// How many pieces came, or what was wrong with them.
    fn verdict(self) -> Result<String, String> {
        match self.wrong {
            Some(words) => Err(words),
            None if self.pending.is_empty() => Ok(self.pieces.to_string()),
            None => Err(format!("{} pieces and a broken one", self.pieces)),
        }
    }
}

/// What a companion does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// HTTP/1.1 over TLS: a response that trickles.
    Download,
    /// HTTP/1.1: a request body that trickles.
    Upload,
    /// A WebSocket that says something and hears it again.
    WebSocket,
    /// HTTP/2: a response that trickles.
    Stream,
    /// HTTP/1.1: server-sent events.
    Events,
}

impl Habit {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Download, Self::Upload, Self::WebSocket, Self::Stream, Self::Events];
}

#[derive(Debug, Default)]
struct Progress {
    pieces: Mutex<(u64, Option<String>)>,
    changed: Condvar,
    leaving: AtomicBool,
}

impl Progress {
    fn step(&self, pieces: u64) {
        self.pieces.lock().unwrap().0 = pieces;
        self.changed.notify_all();
    }
}

/// A visitor who stays until told to leave.
#[derive(Debug)]
pub struct Companion {
    habit: Habit,
    progress: Arc<Progress>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Companion {
    /// Arrives; its first piece has come when this returns.
    pub fn arrive(habit: Habit, rempart: &Rempart, host: &str) -> Self {
        let progress = Arc::new(Progress::default());
        let (theirs, host, place) = (progress.clone(), host.to_owned(), Addresses::of(rempart));
        let thread = thread::spawn(move || {
            let outcome = live(habit, &place, &host, &theirs);
            if let Err(words) = &outcome {
                theirs.pieces.lock().unwrap().1 = Some(words.clone());
                theirs.changed.notify_all();
            }
            outcome
        });
        let companion = Self { habit, progress, thread };
        companion.moves_on();
        companion
    }

    /// Waits for two further pieces. Fails the test when the companion was cut or stands still.
    pub fn moves_on(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.progress.pieces.lock().unwrap();
        let goal = state.0 + 2;
        while state.0 < goal {
            assert!(state.1.is_none(), "{:?} was cut after {} pieces: {:?}", self.habit, state.0, state.1);
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{:?} stands still after {} pieces", self.habit, state.0);
            state = self.progress.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// All companions of a test.
#[derive(Debug)]
pub struct Companions {
    common: Arc<Common>,
    all: Vec<Companion>,
}

impl Companions {
    /// One of each kind.
    pub fn arrive(rempart: &Rempart, host: &Host, name: &str) -> Self {
        let all = Habit::ALL.map(|habit| Companion::arrive(habit, rempart, name));
        Self { common: host.common.clone(), all: all.into() }
    }

    /// One more.
    pub fn join(&mut self, habit: Habit, rempart: &Rempart, name: &str) {
        self.all.push(Companion::arrive(habit, rempart, name));
    }

    /// Waits until each has got further.
    pub fn move_on(&self) {
        self.all.iter().for_each(Companion::moves_on);
    }

    /// Ends each in order; answers how many pieces went through, or who was cut and how.
    pub fn leave(self) -> Result<u64, Vec<String>> {
        self.common.ending.store(true, Ordering::SeqCst);
        let (mut pieces, mut cut) = (0, Vec::new());
        for companion in self.all {
            companion.progress.leaving.store(true, Ordering::SeqCst);
            match companion.thread.join() {
                Ok(Ok(count)) => pieces += count,
                Ok(Err(words)) => cut.push(format!("{:?}: {words}", companion.habit)),
                Err(_) => cut.push(format!("{:?} panicked", companion.habit)),
            }
        }
        if cut.is_empty() { Ok(pieces) } else { Err(cut) }
    }
}

/// Where a companion connects, apart from the `Rempart`, which may be restarted meanwhile.
struct Addresses {
    plain: std::net::SocketAddr,
    tls: std::net::SocketAddr,
    authority: String,
}

impl Addresses {
    fn of(rempart: &Rempart) -> Self {
        Self { plain: rempart.plain(), tls: rempart.tls(), authority: rempart.authority() }
    }
}

fn live(habit: Habit, place: &Addresses, host: &str, progress: &Progress) -> Result<u64, String> {
    match habit {
        Habit::Download => download(place, host, "/trickle", true, progress),
        Habit::Events => download(place, host, "/events", false, progress),
        Habit::Upload => upload(place, host, progress),
        Habit::WebSocket => converse(place, host, progress),
        Habit::Stream => stream(place, host, progress),
    }
    .map_err(|error| error.to_string())
}

fn download(place: &Addresses, host: &str, path: &str, tls: bool, progress: &Progress) -> io::Result<u64> {
    let mut client = if tls {
        Client::tls(place.tls, host, tls_config(&place.authority, &["http/1.1"]))?
    } else {
        Client::plain(place.plain)?
    };
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
    let (_, head) = client.head()?;
    let length = head.response_length("GET")?;
    if head.status()? != 200 || length != Length::Chunked {
        return Err(io::Error::other(format!("not the download: {head:?}")));
    }
    let mut pieces = Numbered::default();
    client.wire.body_to(length, |bytes| {
        pieces.take(bytes);
        progress.step(pieces.pieces);
    })?;
    finish(pieces)
}

fn finish(pieces: Numbered) -> io::Result<u64> {
    let count = pieces.pieces;
    pieces.verdict().map(|_| count).map_err(io::Error::other)
}

/// The connection is looked at between pieces: an upload that was cut is answered or closed early.
fn upload(place: &Addresses, host: &str, progress: &Progress) -> io::Result<u64> {
    let mut client = Client::plain(place.plain)?;
    client.send(format!("POST /upload HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"))?;
    let mut number = 0u64;
    while !progress.leaving.load(Ordering::SeqCst) {
        client.send(format!("{PIECE:x}\r\n{number:010}\n\r\n"))?;
        number += 1;
        progress.step(number);
        client.patience(INTERVAL)?;
        match client.wire.closed() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
            Ok(()) => return Err(ErrorKind::UnexpectedEof.into()),
        }
    }
    client.patience(PATIENCE)?;
    client.send("0\r\n\r\n")?;
    let answer = client.response("POST")?;
    if answer.status == 200 && answer.text() == number.to_string() {
        Ok(number)
    } else {
        Err(io::Error::other(format!("{number} pieces sent: {} {}", answer.status, answer.text())))
    }
}

fn converse(place: &Addresses, host: &str, progress: &Progress) -> io::Result<u64> {
    let mut client = Client::plain(place.plain)?;
    websocket::open(&mut client, host, "/talk")?;
    let mut number = 0u64;
    while !progress.leaving.load(Ordering::SeqCst) {
        let text = format!("{number:010}");
        websocket::send_text(&mut client.wire, &text)?;
        let heard = websocket::receive(&mut client.wire)?;
        if heard != (1, text.into_bytes()) {
            return Err(io::Error::other(format!("message {number} came back as {heard:?}")));
        }
        number += 1;
        progress.step(number);
        thread::sleep(TALK);
    }
    websocket::send_close(&mut client.wire)?;
    match websocket::receive(&mut client.wire)? {
        (8, _) => Ok(number),
        other => Err(io::Error::other(format!("instead of a close: {other:?}"))),
    }
}

fn stream(place: &Addresses, host: &str, progress: &Progress) -> io::Result<u64> {
    let config = tls_config(&place.authority, &["h2"]);
    let client = Http2::connect(place.tls, host, config).map_err(io::Error::other)?;
    let mut pieces = Numbered::default();
    client
        .download(host, "/trickle", |bytes| {
            pieces.take(bytes);
            progress.step(pieces.pieces);
        })
        .map_err(io::Error::other)?;
    finish(pieces)
}

/// Waits until an address takes no connections any more.
pub fn refuses(address: std::net::SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
        assert!(Instant::now() < deadline, "{address} still takes connections");
        thread::yield_now();
    }
}
