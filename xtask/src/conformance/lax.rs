//! Two origins for the differential suites: one that reads requests as laxly as can be and records them, and one that
//! answers with bytes it was given.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;

/// Bytes of one head line, and of one body, that are read at most.
const MAX_READ: u64 = 1 << 20;
/// Lines of one head, and chunks of one body, that are read at most.
const MAX_LINES: usize = 10_000;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as the lax origin took it.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Every byte of it.
    pub raw: Vec<u8>,
    /// Its body, framing taken off.
    pub body: Vec<u8>,
}

/// Takes any line end, the first of repeated fields, anything with `chunked` in it for chunked, and sizes with signs,
/// blanks and `0x`: whatever could be understood in another way, some origin does understand so.
pub struct LaxOrigin {
    pub port: u16,
    log: Arc<Mutex<Vec<Recorded>>>,
}

impl LaxOrigin {
    /// Listens on a free port for as long as this process lives.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (port, log) = (listener.local_addr()?.port(), Arc::new(Mutex::new(Vec::new())));
        let shared = log.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let log = shared.clone();
                // An error is the end of its connection and of nothing else.
                thread::spawn(move || drop(serve(stream, &log)));
            }
        });
        Ok(Self { port, log })
    }

    /// What was recorded since this was last asked.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut locked(&self.log))
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Recorded>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some((recorded, head)) = read_request(&mut reader, &mut writer)? {
        let body = if head { Vec::new() } else { recorded.body.clone() };
        locked(log).push(recorded);
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend(body);
        writer.write_all(&answer)?;
    }
    Ok(())
}

/// The next request, and whether it is HEAD; `None` at the end of the connection.
fn read_request(
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
) -> io::Result<Option<(Recorded, bool)>> {
    let mut recorded = Recorded::default();
    let (mut coding, mut length, mut expects, mut lines) = (None, None, false, 0);
    loop {
        let line = read_line(reader, &mut recorded.raw)?;
        if line.is_empty() {
            return Ok(None);
        }
        lines += 1;
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        if text.is_empty() {
            if lines > 1 || lines > MAX_LINES {
                break;
            }
            continue;
        }
        let (name, value) = text.split_once(':').unwrap_or_default();
        match name.trim().to_ascii_lowercase().as_str() {
            "transfer-encoding" => coding = coding.or(Some(value.to_ascii_lowercase())),
            "content-length" => length = length.or(Some(value.to_owned())),
            "expect" => expects = true,
            _ => {}
        }
    }
    if expects {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if coding.is_some_and(|coding| coding.contains("chunked")) {
        read_chunks(reader, &mut recorded)?;
    } else if let Some(length) = length {
        let digits: String =
            length.trim().trim_start_matches('+').chars().take_while(char::is_ascii_digit).collect();
        read_exactly(reader, digits.parse().unwrap_or(0), &mut recorded)?;
    }
    let head = recorded.raw.starts_with(b"HEAD ");
    Ok(Some((recorded, head)))
}

fn read_chunks(reader: &mut BufReader<TcpStream>, recorded: &mut Recorded) -> io::Result<()> {
    for _ in 0..MAX_LINES {
        let line = read_body_line(reader, &mut recorded.raw)?;
        let text = String::from_utf8_lossy(&line).trim().to_ascii_lowercase();
        let text = text.trim_start_matches('+').trim_start_matches("0x");
        let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
        let size = u64::from_str_radix(&digits, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        read_exactly(reader, size, recorded)?;
        read_body_line(reader, &mut recorded.raw)?;
    }
    for _ in 0..MAX_LINES {
        let line = read_body_line(reader, &mut recorded.raw)?;
        if line.iter().all(u8::is_ascii_whitespace) {
            break;
        }
    }
    Ok(())
}

/// A line of a body that has begun: even the laxest origin notices that the connection has ended before the body.
fn read_body_line(reader: &mut BufReader<TcpStream>, raw: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let line = read_line(reader, raw)?;
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}

/// A line with its end, noted; empty at the end of the connection.
fn read_line(reader: &mut BufReader<TcpStream>, raw: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_READ).read_until(b'\n', &mut line)?;
    raw.extend_from_slice(&line);
    Ok(line)
}

fn read_exactly(reader: &mut BufReader<TcpStream>, length: u64, recorded: &mut Recorded) -> io::Result<()> {
    let mut body = vec![0; usize::try_from(length.min(MAX_READ)).unwrap_or_default()];
    reader.read_exact(&mut body)?;
    recorded.raw.extend_from_slice(&body);
    recorded.body.extend_from_slice(&body);
    Ok(())
}

/// What the next request for anything but `/sentinel` is answered with.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub bytes: Vec<u8>,
    /// Ends the connection after them.
    pub close: bool,
}

/// Answers as told, and notes on which connection it was asked what.
pub struct ScriptedOrigin {
    pub port: u16,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<(usize, bool)>>>,
}

impl ScriptedOrigin {
    /// Listens on a free port for as long as this process lives.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (script, asked) = (Arc::<Mutex<Script>>::default(), Arc::<Mutex<_>>::default());
        let shared = (script.clone(), asked.clone());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (script, asked) = shared.clone();
                thread::spawn(move || drop(answer(stream, number, &script, &asked)));
            }
        });
        Ok(Self { port, script, asked })
    }

    /// Sets what is answered from now on.
    pub fn play(&self, script: Script) {
        *locked(&self.script) = script;
    }

    /// For each request since this was last asked: its connection's number, and whether it was for `/sentinel`.
    pub fn take(&self) -> Vec<(usize, bool)> {
        std::mem::take(&mut locked(&self.asked))
    }
}

fn answer(
    stream: TcpStream,
    number: usize,
    script: &Mutex<Script>,
    asked: &Mutex<Vec<(usize, bool)>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if read_line(&mut reader, &mut head)?.is_empty() {
                return Ok(());
            }
        }
        let sentinel = head.starts_with(b"GET /sentinel ");
        locked(asked).push((number, sentinel));
        if sentinel {
            writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsentinel")?;
            continue;
        }
        let Script { bytes, close } = locked(script).clone();
        writer.write_all(&bytes)?;
        if close {
            return writer.shutdown(Shutdown::Write);
        }
    }
}
