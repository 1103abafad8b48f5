//! Slow clients: those that make no headway are cut, whatever they dribble; those that are only slow are served; and who
//! leaves is noticed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use harness::client::Client;
use harness::config::Config;
use harness::origin::{Connection, Origin};
use harness::rempart::Rempart;
use harness::{PATIENCE, client};
use rustix::net::{AddressFamily, SocketType, sockopt};

const HOST: &str = "slow.test";
/// A receive buffer as small as the kernel makes it.
const SMALL_BUFFER: usize = 4 * 1024;
/// Between two drops of whoever dribbles.
const DRIBBLE: Duration = Duration::from_millis(30);
/// What `GET /large` brings.
const LARGE: usize = 16 << 20;
/// What `GET /medium` brings.
const MEDIUM: usize = 1 << 20;

/// Frames, flags and fields of HTTP/2 (RFC 9113 section 6, RFC 7541 appendix A).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const GET: u8 = 0x82;
const POST: u8 = 0x83;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Limits small enough for a test: a second to be behind, and some KiB a second.
const LIMITS: &str = "[limits]\nheader = \"1s\"\nwrite = \"1s\"\nwrite_rate = \"32KiB\"";
const SITE_LIMITS: &str = "[site.limits]\nbody = \"1s\"\nbody_rate = \"4KiB\"";

fn start(origin: &Origin) -> Rempart {
    let metrics = "[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"stdout\"";
    let config = Config::empty().raw(metrics).raw(LIMITS).listeners();
    Rempart::with(&config.site("slow", &[HOST]).origin(origin.url()).raw(SITE_LIMITS))
}

/// Answers uploads with their length, and GETs with as much as their path says.
fn origin() -> Origin {
    Origin::scripted(|connection| {
        while let Some(seen) = connection.request()? {
            match seen.target().as_str() {
                "/large" => send(connection, LARGE)?,
                "/medium" => send(connection, MEDIUM)?,
                _ => {
                    let text = seen.body.bytes.len().to_string();
                    let length = text.len();
                    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"))?;
                }
            }
        }
        Ok(())
    })
}

fn send(connection: &mut Connection, bytes: usize) -> io::Result<()> {
    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"))?;
    connection.send(vec![b'x'; bytes])
}

/// A connection that buffers next to nothing.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, SMALL_BUFFER).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The value of a sample of `/metrics`, 0 when there is none.
fn metric(rempart: &Rempart, sample: &str) -> u64 {
    let text = client::get(rempart.metrics(), "localhost", "/metrics").unwrap().text();
    text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok()).unwrap_or(0)
}

fn is_cut(rempart: &Rempart, reason: &str) -> bool {
    metric(rempart, &format!("rempart_clients_cut_total{{reason=\"{reason}\"}}")) > 0
}

/// Does something again and again until it says that it is enough; fails the test when it never does.
fn dribble(what: &str, mut drop: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !drop() {
        assert!(Instant::now() < deadline, "{what} goes on for ever");
        thread::sleep(DRIBBLE);
    }
}

/// Writes one byte after the other of something endless, until there is an answer; reads all of it.
fn answer_to_dribble(stream: &mut TcpStream, byte: u8) -> String {
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    dribble("a request in single bytes", || {
        let closed = stream.write_all(&[byte]).is_err();
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => true,
            Ok(count) => {
                answer.extend_from_slice(&piece[..count]);
                false
            }
            Err(_) => closed,
        }
    });
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_head_that_dribbles_is_given_up() {
    let origin = origin();
    let rempart = start(&origin);
    let mut stream = TcpStream::connect(rempart.plain()).unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nA: ").as_bytes()).unwrap();
    assert!(answer_to_dribble(&mut stream, b'a').starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_body_that_dribbles_is_given_up_and_one_that_is_only_slow_is_served() {
    let origin = origin();
    let rempart = start(&origin);
    for framing in ["Content-Length: 1000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffff;"] {
        let mut stream = TcpStream::connect(rempart.plain()).unwrap();
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}").as_bytes()).unwrap();
        let answer = answer_to_dribble(&mut stream, b'a');
        assert!(answer.starts_with("HTTP/1.1 408 "), "{framing:?}: {answer}");
    }
    assert!(is_cut(&rempart, "slow_body"));

    const PIECE: usize = 1024;
    const PIECES: usize = 48;
    let mut slow = rempart.client();
    slow.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES))
        .unwrap();
    for _ in 0..PIECES {
        slow.send([b'a'; PIECE]).unwrap();
        thread::sleep(DRIBBLE);
    }
    let answer = slow.response("POST").unwrap();
    assert_eq!((answer.status, answer.text()), (200, (PIECE * PIECES).to_string()));
}

#[test]
fn an_origin_that_does_not_read_is_not_the_clients_fault() {
    const BYTES: usize = 32 << 20;
    let reads = Arc::new(AtomicBool::new(false));
    let gate = reads.clone();
    let origin = Origin::scripted(move |connection| {
        let Some(head) = connection.wire.head()? else { return Ok(()) };
        while !gate.load(Ordering::SeqCst) {
            thread::sleep(DRIBBLE);
        }
        let mut got = 0;
        connection.wire.body_to(head.request_length()?, |piece| got += piece.len())?;
        let text = got.to_string();
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))
    });
    let rempart = start(&origin);
    let mut client = rempart.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {BYTES}\r\n\r\n")).unwrap();
    let opener = thread::spawn(move || {
        // Longer than the client may take: the time is what is tried here.
        thread::sleep(Duration::from_secs(3));
        reads.store(true, Ordering::SeqCst);
    });
    client.wire.stream_mut().write_all(&vec![b'a'; BYTES]).unwrap();
    opener.join().unwrap();
    let answer = client.response("POST").unwrap();
    assert_eq!((answer.status, answer.text()), (200, BYTES.to_string()));
    assert!(!is_cut(&rempart, "slow_body"));
}

#[test]
fn who_reads_a_byte_at_a_time_is_cut_and_who_reads_slowly_is_served() {
    let origin = origin();
    let rempart = start(&origin);
    let mut trickle = narrow(rempart.plain());
    trickle.write_all(format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).unwrap();
    dribble("a reader of single bytes", || {
        trickle.read_exact(&mut [0]).unwrap();
        is_cut(&rempart, "slow_reader")
    });
    let mut rest = Vec::new();
    let ended = trickle.read_to_end(&mut rest);
    assert!(rest.len() < LARGE, "{ended:?}: it got all of it");
    let line = rempart.output().wait_for(|line| line.contains("/large")).unwrap();
    assert!(line.contains("timed_out"), "{line}");

    let mut slow = narrow(rempart.plain());
    let request = format!("GET /medium HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    slow.write_all(request.as_bytes()).unwrap();
    let (mut got, mut piece) = (0, [0; 8 * 1024]);
    loop {
        match slow.read(&mut piece).unwrap() {
            0 => break,
            count => got += count,
        }
        thread::sleep(DRIBBLE);
    }
    assert!(got > MEDIUM, "{got} of {MEDIUM} bytes and a head");
}

/// One frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn a_window_that_opens_by_single_bytes_holds_no_stream() {
    let origin = origin();
    let rempart = start(&origin);
    let mut client = http2(&rempart, &[0, 4, 0, 0, 4, 0]);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(GET, "/medium"))).unwrap();
    dribble("a window in single bytes", || {
        client.send(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).unwrap();
        is_cut(&rempart, "slow_reader")
    });
    assert_eq!(until(&mut client, RST_STREAM).unwrap(), CANCEL);
}

/// A client that speaks HTTP/2 without TLS, after its preface.
fn http2(rempart: &Rempart, settings: &[u8]) -> Client {
    let mut client = rempart.client();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    client.send(frame(SETTINGS, 0, 0, settings)).unwrap();
    client
}

/// A field block in HPACK (RFC 7541): method, `:scheme http`, then `:path` and `:authority` as literals.
fn block(method: u8, path: &str) -> Vec<u8> {
    let literal = |index: u8, text: &str| [&[index, text.len() as u8], text.as_bytes()].concat();
    [vec![method, 0x86], literal(0x04, path), literal(0x01, HOST)].concat()
}

/// Reads frames up to one of this kind; its payload.
fn until(client: &mut Client, wanted: u8) -> io::Result<Vec<u8>> {
    loop {
        let (mut head, mut payload) = (Vec::new(), Vec::new());
        client.wire.exactly(9, &mut |piece| head.extend_from_slice(piece))?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        client.wire.exactly(length.into(), &mut |piece| payload.extend_from_slice(piece))?;
        if head[3] == wanted {
            return Ok(payload);
        }
    }
}

#[test]
fn a_field_block_in_pieces_is_given_up_whatever_else_goes_on() {
    let (origin, _said) = silent_origin("");
    let rempart = start(&origin);
    let mut client = http2(&rempart, &[]);
    // A request that goes on keeps the connection from being idle.
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(GET, "/silent"))).unwrap();
    client.send(frame(HEADERS, END_STREAM, 3, &block(GET, "/"))).unwrap();
    let rest = frame(CONTINUATION, END_HEADERS, 3, &[0; 8_000]);
    client.send(&rest[..9]).unwrap();
    dribble("a field block in single bytes", || {
        let sent = client.send([0]);
        is_cut(&rempart, "slow_head") || sent.is_err()
    });
    assert!(is_cut(&rempart, "slow_head"));
    assert!(until(&mut client, RST_STREAM).is_err(), "the connection has ended");
}

#[test]
fn a_stream_whose_body_dribbles_is_answered_408() {
    let origin = origin();
    let rempart = start(&origin);
    let mut client = http2(&rempart, &[]);
    client.send(frame(HEADERS, END_HEADERS, 1, &block(POST, "/"))).unwrap();
    dribble("a body in single bytes", || {
        client.send(frame(DATA, 0, 1, b"a")).unwrap();
        is_cut(&rempart, "slow_body")
    });
    let block = until(&mut client, HEADERS).unwrap();
    // `:status`, and 408 in Huffman's code.
    assert!(block.starts_with(&[0x48, 0x83, 0x68, 0x0f, 0x7f]), "{block:?}");
}

/// Says what it is sent: the request, then how the connection went on.
fn silent_origin(after_head: &'static str) -> (Origin, mpsc::Receiver<&'static str>) {
    let (say, said) = mpsc::channel();
    let origin = Origin::scripted(move |connection| {
        if connection.request()?.is_some() {
            connection.send(after_head)?;
            tell(&say, "asked");
            // Blocks until the other side closes.
            tell(&say, if connection.wire.line()?.is_none() { "left" } else { "spoke" });
        }
        Ok(())
    });
    (origin, said)
}

fn tell(say: &mpsc::Sender<&'static str>, what: &'static str) {
    say.send(what).unwrap();
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    for after_head in ["", events] {
        let (origin, said) = silent_origin(after_head);
        let rempart = start(&origin);
        let request = format!("GET /silent HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let leave: [fn(&Rempart, &str) -> Client; 2] = [
            |rempart, request| {
                let mut client = rempart.client();
                client.send(request).unwrap();
                client
            },
            |rempart, request| {
                let mut client = rempart.tls_client(HOST);
                client.send(request).unwrap();
                client
            },
        ];
        for arrive in leave {
            let client = arrive(&rempart, &request);
            assert_eq!(said.recv_timeout(PATIENCE), Ok("asked"));
            drop(client);
            assert_eq!(said.recv_timeout(PATIENCE), Ok("left"), "after {after_head:?}");
        }
        // To end one's own side is to leave, too.
        let mut client = arrive_half(&rempart, &request);
        assert_eq!(said.recv_timeout(PATIENCE), Ok("asked"));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(said.recv_timeout(PATIENCE), Ok("left"));
        let mut rest = Vec::new();
        end(client.read_to_end(&mut rest));
        let line = rempart.output().wait_for(|line| line.contains("/silent")).unwrap();
        assert!(line.contains("client_gone"), "{line}");
    }
}

fn arrive_half(rempart: &Rempart, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(rempart.plain()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Ended or reset: either is an end.
fn end(_: io::Result<usize>) {}

#[test]
fn what_is_sent_early_is_kept_for_its_turn() {
    let (opens, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::scripted(move |connection| {
        while let Some(seen) = connection.request()? {
            if seen.target() == "/first" {
                gate.lock().unwrap().recv_timeout(PATIENCE).map_err(io::Error::other)?;
            }
            let text = seen.target();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))?;
        }
        Ok(())
    });
    let rempart = start(&origin);
    let mut client = rempart.client();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    client.send(get("/first")).unwrap();
    origin.wait_for(1);
    client.send(get("/second") + &get("/third")).unwrap();
    opens.send(()).unwrap();
    for path in ["/first", "/second", "/third"] {
        assert_eq!(client.response("GET").unwrap().text(), path);
    }
}
