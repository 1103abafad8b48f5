//! Negotiation as a table; bodies against the decoders, in every cutting; what the head says.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use http::Method;
use snapshot::rules::Algorithm::{self, Auto, Brotli, Default, Gzip, None as Nothing, Zstd};

use super::*;
use crate::message::{BodyError, BodyLength, BodySource, Fill, HeaderList};

const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Brotli, Coding::Zstd];

fn page(fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new(200);
    for (name, value) in fields {
        head.headers.push(name, value);
    }
    if !head.headers.contains(b"content-type") {
        head.headers.push("Content-Type", "text/html; charset=utf-8");
    }
    head
}

fn chosen(wanted: &[Algorithm], accept: &str, head: &ResponseHead) -> Option<Coding> {
    let lines = std::iter::once(accept.as_bytes());
    choose(wanted, lines, head, BodyLength::Exact(1000), &Method::GET)
}

#[test]
fn what_the_visitor_accepts_decides() {
    const BROWSER: &str = "gzip, deflate, br, zstd";
    let rows: &[(&[Algorithm], &str, Option<Coding>)] = &[
        (&[Default], BROWSER, Some(Coding::Zstd)),
        (&[Default], "gzip, deflate, br", Some(Coding::Brotli)),
        (&[Default], "X-GZip", Some(Coding::Gzip)),
        (&[Default], "", None),
        (&[Default], "identity", None),
        (&[Default], "deflate, compress", None),
        (&[Default], "*", Some(Coding::Zstd)),
        (&[Default], "*;q=0", None),
        (&[Default], "gzip;q=1.0, *;q=0", Some(Coding::Gzip)),
        (&[Default], "zstd;q=0, *;q=0.5", Some(Coding::Brotli)),
        (&[Default], "gzip;q=0.9, br;q=0.5, zstd;q=0.1", Some(Coding::Gzip)),
        (&[Default], "gzip;q=0.5, identity;q=0.6", None),
        (&[Default], "gzip;q=0.5, identity;q=0.5", Some(Coding::Gzip)),
        (&[Default], "gzip ; q=0.5 , br ;q=0", Some(Coding::Gzip)),
        (&[Default], "gzip;q=high", None),
        (&[Default], "gzip;level=9", None),
        (&[Default], ",,gzip,", Some(Coding::Gzip)),
        // The rule's order comes before the visitor's weights, but never before what is accepted at all.
        (&[Gzip, Auto], BROWSER, Some(Coding::Gzip)),
        (&[Gzip, Auto], "br", Some(Coding::Brotli)),
        (&[Brotli, Gzip], "gzip;q=1, br;q=0.1", Some(Coding::Brotli)),
        (&[Brotli, Gzip], "gzip, br;q=0", Some(Coding::Gzip)),
        (&[Brotli], "gzip", None),
        (&[Zstd, Nothing], "gzip", None),
        (&[Nothing], BROWSER, None),
        (&[], BROWSER, None),
    ];
    for (wanted, accept, expected) in rows {
        assert_eq!(chosen(wanted, accept, &page(&[])), *expected, "{wanted:?} {accept}");
    }
    let lines = [&b"gzip;q=0.1"[..], b"br"].into_iter();
    let several = choose(&[Auto], lines, &page(&[]), BodyLength::Unknown, &Method::GET);
    assert_eq!(several, Some(Coding::Brotli));
    let without = choose(&[Auto], std::iter::empty(), &page(&[]), BodyLength::Unknown, &Method::GET);
    assert_eq!(without, None, "a visitor who says nothing gets the content as it is");
}

#[test]
fn what_the_response_is_decides() {
    type Fields<'a> = &'a [(&'a str, &'a str)];
    let rows: &[(&[Algorithm], Fields<'_>, bool)] = &[
        (&[Default], &[], true),
        (&[Default], &[("Content-Type", "Application/JSON;charset=utf-8")], true),
        (&[Default], &[("Content-Type", "text/csv")], false),
        (&[Auto], &[("Content-Type", "text/csv")], true),
        (&[Auto], &[("Content-Type", "image/png")], false),
        (&[Auto], &[("Content-Type", "video/mp4")], false),
        (&[Default], &[("Content-Type", "text/html5")], false),
        // Who names a coding means it.
        (&[Gzip], &[("Content-Type", "image/png")], true),
        (&[Gzip], &[("Content-Encoding", "br")], false),
        (&[Gzip], &[("Content-Range", "bytes 0-9/10")], false),
        (&[Gzip], &[("Cache-Control", "max-age=1"), ("cache-control", "public, No-Transform")], false),
        (&[Gzip], &[("Cache-Control", "x-no-transform")], true),
        (&[Gzip], &[("Content-Type", "text/event-stream")], false),
        (&[Gzip], &[("Content-Type", "application/grpc+proto")], false),
    ];
    for (wanted, fields, expected) in rows {
        let head = page(fields);
        assert_eq!(chosen(wanted, "gzip", &head).is_some(), *expected, "{wanted:?} {fields:?}");
        assert_eq!(is_eligible(wanted, &head, BodyLength::Unknown, &Method::GET), *expected, "{fields:?}");
    }
    for status in [101, 201, 204, 206, 304, 416, 500, 502] {
        let head = ResponseHead { status, ..page(&[]) };
        assert_eq!(chosen(&[Gzip], "gzip", &head), None, "{status}");
    }
    for status in [200, 403, 404] {
        let head = ResponseHead { status, ..page(&[]) };
        assert_eq!(chosen(&[Gzip], "gzip", &head), Some(Coding::Gzip), "{status}");
    }
}

#[test]
fn short_content_and_requests_without_content_are_left() {
    let choice = |method: Method, length, accept: &str| {
        choose(&[Default], std::iter::once(accept.as_bytes()), &page(&[]), length, &method)
    };
    for (length, accept, expected) in [
        (BodyLength::Exact(47), "gzip, br", None),
        (BodyLength::Exact(48), "gzip, br", Some(Coding::Gzip)),
        (BodyLength::Exact(49), "br, zstd", None),
        (BodyLength::Exact(50), "gzip, br", Some(Coding::Brotli)),
        (BodyLength::Unknown, "gzip", Some(Coding::Gzip)),
        (BodyLength::Absent, "gzip", None),
    ] {
        assert_eq!(choice(Method::GET, length, accept), expected, "{length:?} {accept}");
    }
    assert_eq!(choice(Method::HEAD, BodyLength::Exact(5000), "gzip"), None);
    assert_eq!(choice(Method::CONNECT, BodyLength::Unknown, "gzip"), None);
    assert_eq!(choice(Method::POST, BodyLength::Unknown, "gzip"), Some(Coding::Gzip));
}

#[test]
fn the_head_says_what_became_of_the_content() {
    let room = Room::new(ROOM_PER_THREAD);
    let mut head = page(&[
        ("ETag", "\"one\""),
        ("Vary", "Origin"),
        ("vary", "Accept"),
        ("Accept-Ranges", "bytes"),
        ("Content-MD5", "x"),
        ("Digest", "x"),
        ("Content-Digest", "x"),
        ("Repr-Digest", "x"),
        ("X-Kept", "y"),
    ]);
    let body = Body::Full(vec![b'a'; 1000].into());
    let body = apply(&[Brotli], std::iter::once(&b"br"[..]), &Method::GET, &mut head, body, &room);
    assert_eq!(body.length(), BodyLength::Unknown);
    let fields: Vec<_> = head.headers.iter().map(|(n, v)| [n, b": ", v].concat()).collect();
    let expected = [
        "X-Kept: y",
        "Content-Type: text/html; charset=utf-8",
        "Vary: Origin, Accept, Accept-Encoding",
        "Content-Encoding: br",
        "ETag: W/\"one\"",
    ];
    let mut fields: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field)).collect();
    fields.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(fields, expected);
}

#[test]
fn vary_is_said_to_whom_it_concerns() {
    let room = Room::new(ROOM_PER_THREAD);
    for (wanted, accept, before, after) in [
        (Default, "", None, Some("Accept-Encoding")),
        (Default, "gzip", Some("accept-encoding, Origin"), Some("accept-encoding, Origin")),
        (Default, "gzip", Some("*"), Some("*")),
        (Default, "", Some(""), Some("Accept-Encoding")),
        (Nothing, "gzip", None, None),
    ] {
        let mut head = page(&[]);
        if let Some(value) = before {
            head.headers.push("Vary", value);
        }
        let body = Body::Full(vec![b'a'; 1000].into());
        let accept = std::iter::once(accept.as_bytes());
        drop(apply(&[wanted], accept, &Method::GET, &mut head, body, &room));
        assert_eq!(head.headers.get(b"vary"), after.map(str::as_bytes), "{wanted:?} {before:?}");
    }
    let mut weak = page(&[("ETag", "W/\"one\"")]);
    drop(compress(&mut weak, Body::Full(vec![b'a'; 1000].into()), Coding::Gzip, &room));
    assert_eq!(weak.headers.get(b"etag"), Some(&b"W/\"one\""[..]));
}

#[test]
fn without_room_content_stays_as_it_is() {
    let room = Room::new(Coding::Gzip.memory());
    let content = || Body::Full(vec![b'a'; 1000].into());
    let (mut first, mut second) = (page(&[]), page(&[]));
    let held = compress(&mut first, content(), Coding::Gzip, &room);
    let body = compress(&mut second, content(), Coding::Gzip, &room);
    assert_eq!(body.length(), BodyLength::Exact(1000));
    assert!(!second.headers.contains(b"content-encoding") && second.headers.contains(b"vary"));
    drop(held);
    assert_eq!(room.used(), 0);
    let body = compress(&mut second, content(), Coding::Gzip, &room);
    assert_eq!((body.length(), room.used()), (BodyLength::Unknown, Coding::Gzip.memory()));
}

/// What a source does when it is asked.
enum Turn {
    Piece(Vec<u8>),
    Wait,
}

/// A source with its turns written down, and how it ends. Counts what was not woken.
struct Script {
    turns: std::vec::IntoIter<Turn>,
    chunk: Vec<u8>,
    end: Result<(), BodyError>,
    length: BodyLength,
    asked: Rc<Cell<usize>>,
}

impl BodySource for Script {
    fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        self.asked.set(self.asked.get() + 1);
        if !self.chunk.is_empty() {
            return Poll::Ready(Ok(Fill::Data));
        }
        match self.turns.next() {
            Some(Turn::Piece(piece)) => {
                self.chunk = piece;
                Poll::Ready(Ok(Fill::Data))
            }
            Some(Turn::Wait) => Poll::Pending,
            None => Poll::Ready(self.end.map(|()| Fill::End)),
        }
    }

    fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, count: usize) {
        self.chunk.drain(..count);
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        let mut fields = HeaderList::default();
        fields.push("Repr-Digest", "x");
        fields.push("X-Sum", "y");
        Some(fields)
    }

    fn length(&self) -> BodyLength {
        self.length
    }
}

fn script(turns: Vec<Turn>, end: Result<(), BodyError>, length: BodyLength) -> (Body, Rc<Cell<usize>>) {
    let asked = Rc::new(Cell::new(0));
    let source = Script { turns: turns.into_iter(), chunk: Vec::new(), end, length, asked: asked.clone() };
    (Body::stream(source), asked)
}

fn packed(body: Body, coding: Coding) -> Body {
    compress(&mut page(&[]), body, coding, &Room::new(ROOM_PER_THREAD))
}

/// As much of the content as can be read of `bytes`; an error when they are not a whole one.
fn unpack(coding: Coding, bytes: &[u8]) -> (Vec<u8>, std::io::Result<usize>) {
    let mut content = Vec::new();
    let result = match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut content),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut content),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut content),
    };
    (content, result)
}

#[derive(std::default::Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads to the end, past every pause, taking at most `bite` bytes at a time.
fn read_all(body: &mut Body, bite: usize) -> (Vec<u8>, Result<(), BodyError>) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = Vec::new();
    loop {
        match body.poll_fill(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(Fill::Data)) => {
                assert!(!body.chunk().is_empty());
                bytes.extend_from_slice(&body.take(bite));
            }
            Poll::Ready(Ok(Fill::End)) => return (bytes, Ok(())),
            Poll::Ready(Err(error)) => return (bytes, Err(error)),
        }
    }
}

/// A multiplicative generator; the same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// Text, noise, or one byte many times; of many lengths.
    fn content(&mut self) -> Vec<u8> {
        let length = [0, 1, 60, 3000, 70_000, 300_000][self.below(6)];
        let letters = [1, 5, 256][self.below(3)];
        (0..length).map(|_| self.below(letters) as u8).collect()
    }

    fn turns(&mut self, content: &[u8]) -> Vec<Turn> {
        let most = [1 + content.len() / 50, 1500, 16 << 10, 1 << 20][self.below(4)];
        let mut turns = Vec::new();
        let mut left = content;
        while !left.is_empty() {
            if self.below(4) == 0 {
                turns.push(Turn::Wait);
            }
            let (piece, rest) = left.split_at(left.len().min(1 + self.below(most)));
            turns.push(Turn::Piece(piece.to_vec()));
            left = rest;
        }
        turns
    }
}

#[test]
fn whatever_the_pieces_the_content_is_the_same() {
    let mut random = Random(11);
    for round in 0..150 {
        let content = random.content();
        let coding = CODINGS[round % 3];
        let length = [BodyLength::Unknown, BodyLength::Exact(content.len() as u64)][random.below(2)];
        let (source, _) = script(random.turns(&content), Ok(()), length);
        let mut body = packed(source, coding);
        let bite = [1 + random.below(50), 16 << 10, usize::MAX][random.below(3)];
        let (bytes, end) = read_all(&mut body, bite);
        assert_eq!(end, Ok(()));
        let (read, whole) = unpack(coding, &bytes);
        assert!(whole.is_ok() && read == content, "{coding:?}, round {round}: {whole:?}");
        let trailers = body.trailers().unwrap();
        assert!(trailers.contains(b"x-sum") && !trailers.contains(b"repr-digest"));
    }
}

#[test]
fn a_cut_body_stays_cut() {
    let mut random = Random(12);
    for (round, error) in
        [BodyError::Cut, BodyError::Framing, BodyError::TimedOut].into_iter().cycle().take(45).enumerate()
    {
        let content = random.content();
        let coding = CODINGS[round / 3 % 3];
        // Half of them were said to be longer.
        let length = [BodyLength::Unknown, BodyLength::Exact(content.len() as u64 + 100)][random.below(2)];
        let (source, _) = script(random.turns(&content), Err(error), length);
        let mut body = packed(source, coding);
        let (bytes, end) = read_all(&mut body, usize::MAX);
        assert_eq!(end, Err(error), "{coding:?}");
        let (read, whole) = unpack(coding, &bytes);
        assert!(whole.is_err() || bytes.is_empty(), "{coding:?}, round {round}: taken for whole");
        assert!(content.starts_with(&read));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(body.poll_fill(&mut cx), Poll::Ready(Err(error)), "and again");
    }
}

#[test]
fn what_is_at_hand_is_not_held_back() {
    for coding in CODINGS {
        let turns = vec![
            Turn::Piece(b"first words, ".to_vec()),
            Turn::Wait,
            Turn::Wait,
            Turn::Piece(b"second ones".to_vec()),
            Turn::Wait,
            Turn::Wait,
        ];
        let (source, asked) = script(turns, Ok(()), BodyLength::Unknown);
        let mut body = packed(source, coding);
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = Vec::new();
        for expected in ["first words, ", "first words, second ones"] {
            while let Poll::Ready(Ok(Fill::Data)) = body.poll_fill(&mut cx) {
                bytes.extend_from_slice(&body.take(usize::MAX));
            }
            let (read, whole) = unpack(coding, &bytes);
            assert_eq!(String::from_utf8_lossy(&read), expected, "{coding:?}");
            assert!(whole.is_err(), "{coding:?}: not the end yet");
        }
        // With nothing new at hand nothing is sent, and the source is asked once each time the body is.
        let before = asked.get();
        let (rest, end) = read_all(&mut body, usize::MAX);
        bytes.extend_from_slice(&rest);
        let (read, whole) = unpack(coding, &bytes);
        assert!(end == Ok(()) && whole.is_ok() && read == b"first words, second ones", "{coding:?}");
        assert_eq!(asked.get() - before, 1, "{coding:?}");
    }
}

#[test]
fn other_connections_get_their_turn() {
    for coding in CODINGS {
        let content = vec![b'x'; 1 << 20];
        let mut body = packed(Body::Full(content.into()), coding);
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut cx = Context::from_waker(&waker);
        let (mut turns, mut bytes) = (0, Vec::new());
        loop {
            match body.poll_fill(&mut cx) {
                Poll::Pending => {
                    turns += 1;
                    assert_eq!(counter.0.load(Ordering::Relaxed), turns, "who pauses by itself wakes itself");
                }
                Poll::Ready(Ok(Fill::Data)) => bytes.extend_from_slice(&body.take(usize::MAX)),
                Poll::Ready(end) => {
                    assert_eq!(end, Ok(Fill::End));
                    break;
                }
            }
        }
        assert_eq!(turns, 16, "once for every 64 KiB");
        assert!(bytes.len() < 4096, "{coding:?}: a pause is no reason to flush: {}", bytes.len());
    }
}
