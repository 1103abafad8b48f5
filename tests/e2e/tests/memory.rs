//! Memory stays bounded: bodies of 1 GiB stream through in both directions, and readers who stop reading cost
//! little, because what they do not take is not fetched.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{iter, thread};

use harness::config::Config;
use harness::curl::Target;
use harness::memory;
use harness::origin::{Connection, Origin};
use harness::rempart::Rempart;
use harness::wire::Length;

use crate::heavy;

const HOST: &str = "large.test";
const GIB: u64 = 1 << 30;
/// What a running transfer may occupy above the idle process.
const MAX_GROWTH: u64 = 16 << 20;
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// An origin that sends `GET /BYTES` that many bytes and answers uploads with their length; counts what it sent.
fn bulk(sent: Arc<AtomicU64>) -> Origin {
    Origin::scripted(move |connection| serve(connection, &sent))
}

fn serve(connection: &mut Connection, sent: &AtomicU64) -> io::Result<()> {
    while let Some(head) = connection.wire.head()? {
        let (method, target, _) = head.request()?;
        if method == b"GET" {
            let bytes: u64 = String::from_utf8_lossy(&target[1..]).parse().map_err(io::Error::other)?;
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"))?;
            let mut left = bytes;
            while left > 0 {
                let piece = &PIECE[..left.min(PIECE.len() as u64) as usize];
                connection.send(piece)?;
                sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                left -= piece.len() as u64;
            }
        } else {
            let mut got = 0u64;
            connection.wire.body_to(head.request_length()?, |piece| got += piece.len() as u64)?;
            let text = got.to_string();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))?;
        }
    }
    Ok(())
}

fn before(origin: &Origin) -> Rempart {
    Rempart::with(&Config::new().listeners().site("large", &[HOST]).origin(origin.url()))
}

/// Memory above `idle` at the worst moment of the work.
fn growth(rempart: &Rempart, idle: u64, work: impl FnOnce()) -> u64 {
    let edge = rempart.edge_pid();
    memory::reset_peak(edge);
    work();
    memory::peak(edge).saturating_sub(idle)
}

fn download(rempart: &Rempart, bytes: u64) {
    let mut client = rempart.client();
    client.send(format!("GET /{bytes} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    let (_, head) = client.head().unwrap();
    let mut got = 0;
    client.wire.body_to(head.response_length("GET").unwrap(), |piece| got += piece.len() as u64).unwrap();
    assert_eq!((head.response_length("GET").unwrap(), got), (Length::Exactly(bytes), bytes));
}

fn upload(rempart: &Rempart, bytes: u64) {
    let mut client = rempart.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {bytes}\r\n\r\n")).unwrap();
    let mut left = bytes;
    while left > 0 {
        let piece = &PIECE[..left.min(PIECE.len() as u64) as usize];
        client.wire.stream_mut().write_all(piece).unwrap();
        left -= piece.len() as u64;
    }
    assert_eq!(client.response("POST").unwrap().text(), bytes.to_string());
}

fn http2_download(rempart: &Rempart, bytes: u64) {
    let got = Target::tls(rempart, HOST).curl(&format!("/{bytes}"), &["--http2", "--output", "/dev/null"]);
    assert_eq!((got.exit, got.version.as_str(), got.downloaded), (0, "2", bytes), "{got:?}");
}

fn http2_upload(rempart: &Rempart, bytes: u64) {
    let path = rempart.place().path("upload.bin");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    let got = Target::tls(rempart, HOST).curl("/", &["--http2", "--upload-file", path.to_str().unwrap()]);
    assert_eq!((got.exit, got.version.as_str(), got.text()), (0, "2", bytes.to_string()));
}

type Transfer = fn(&Rempart, u64);

#[test]
fn one_gib_down_and_up_streams_through_in_bounded_memory() {
    let _alone = heavy();
    let origin = bulk(Arc::default());
    let rempart = before(&origin);
    let transfers: [(&str, Transfer); 4] = [
        ("h1 download", download),
        ("h1 upload", upload),
        ("h2 download", http2_download),
        ("h2 upload", http2_upload),
    ];
    // One byte each, so that what a first connection sets up once does not count as growth.
    for (_, transfer) in transfers {
        transfer(&rempart, 1);
    }
    let idle = rempart.resident();
    for (name, transfer) in transfers {
        let grown = growth(&rempart, idle, || transfer(&rempart, GIB));
        println!("{name}: 1 GiB at {} KiB above idle ({} KiB)", grown / 1024, idle / 1024);
        assert!(grown < MAX_GROWTH, "{name} grew by {grown} bytes");
    }
}

#[test]
fn readers_that_stop_reading_cost_little_memory() {
    let _alone = heavy();
    let sent = Arc::new(AtomicU64::new(0));
    let origin = bulk(sent.clone());
    let rempart = before(&origin);
    download(&rempart, 1);
    let idle = rempart.resident();
    let grown = growth(&rempart, idle, || {
        let _stalled: Vec<_> = iter::repeat_with(|| {
            let mut client = rempart.client();
            client.send(format!("GET /{GIB} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
            client
        })
        .take(16)
        .collect();
        settle(&sent);
    });
    let total = sent.load(Ordering::SeqCst);
    println!("16 stalled readers: {} KiB above idle, {} KiB left the origin", grown / 1024, total / 1024);
    assert!(total < 16 * GIB / 2, "the origin was read to the end although nobody wanted it");
    assert!(grown < MAX_GROWTH, "stalled readers cost {grown} bytes");
}

/// Waits until a counter has stood still for a while; there is no event for "nothing happens any more".
pub fn settle(counter: &AtomicU64) {
    let mut last = u64::MAX;
    loop {
        let now = counter.load(Ordering::SeqCst);
        if now == last {
            return;
        }
        last = now;
        thread::sleep(Duration::from_millis(500));
    }
}
