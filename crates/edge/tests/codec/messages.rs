//! Feeds pieces of input to the HTTP/1.1 codec, as a connection would, and writes down what it makes of them.

use std::fmt::Write;
use std::task::{Context, Poll, Waker};

use edge::h1::body::{Decoded, Decoder};
use edge::h1::parse::{self, Framing, HeadEnd, HeadLimits};
use edge::io::ReadBuffer;
use edge::message::HeaderList;

use crate::cases::shown;

/// Small, so that cases can reach them.
pub const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 16, target: 256 };

/// Input that comes in pieces.
struct Input<'a> {
    pieces: std::slice::Iter<'a, &'a [u8]>,
    buffer: ReadBuffer,
}

impl<'a> Input<'a> {
    fn new(pieces: &'a [&'a [u8]]) -> Self {
        Self { pieces: pieces.iter(), buffer: ReadBuffer::default() }
    }

    /// Reads the next piece; false at the end.
    fn read(&mut self) -> bool {
        let Some(mut piece) = self.pieces.next().copied() else { return false };
        let mut cx = Context::from_waker(Waker::noop());
        while !piece.is_empty() {
            let read = self.buffer.poll_read(&mut cx, &mut piece, 8192);
            assert!(matches!(read, Poll::Ready(Ok(count)) if count > 0));
        }
        true
    }

    /// The head, or what is to be said about input that has none.
    fn head(&mut self) -> Result<Vec<u8>, &'static str> {
        let mut scanned = 0;
        loop {
            match parse::find_head_end(self.buffer.bytes(), scanned) {
                HeadEnd::At(end) => {
                    let head = self.buffer.bytes()[..end].to_vec();
                    self.buffer.consume(end);
                    return Ok(head);
                }
                HeadEnd::BadLineEnd => return Err("bad line end\n"),
                HeadEnd::Incomplete => scanned = self.buffer.bytes().len(),
            }
            if !self.read() {
                return Err("incomplete\n");
            }
        }
    }

    /// Writes down the body, and what follows it.
    fn body(&mut self, framing: Framing, out: &mut String) {
        let mut decoder = Decoder::new(framing, LIMITS);
        let mut content = Vec::new();
        let end = loop {
            match decoder.poll(&mut self.buffer) {
                Err(_) => break " refused",
                Ok(Decoded::End) => break "",
                Ok(Decoded::Data(count)) => {
                    content.extend_from_slice(&self.buffer.bytes()[..count]);
                    self.buffer.consume(count);
                    decoder.consumed(count);
                }
                Ok(Decoded::More) if self.read() => {}
                Ok(Decoded::More) => {
                    if decoder.end_of_stream().is_err() {
                        break " cut";
                    }
                }
            }
        };
        match framing {
            Framing::None => {}
            Framing::Length(length) => write!(out, "length {length}: ").unwrap(),
            Framing::Chunked => out.push_str("chunked: "),
            Framing::Close => out.push_str("until close: "),
        }
        if framing != Framing::None {
            writeln!(out, "{}{end}", shown(&content)).unwrap();
        }
        if !end.is_empty() {
            return;
        }
        if let Some(trailers) = decoder.take_trailers() {
            fields("+ ", &trailers, out);
        }
        while self.read() {}
        if !self.buffer.is_empty() {
            writeln!(out, "then: {}", shown(self.buffer.bytes())).unwrap();
        }
    }
}

fn fields(indent: &str, headers: &HeaderList, out: &mut String) {
    for (name, value) in headers.iter() {
        let line = format!("{indent}{}: {}", name.escape_ascii(), value.escape_ascii());
        writeln!(out, "{}", line.trim_end()).unwrap();
    }
}

/// What a server makes of these pieces.
pub fn request(pieces: &[&[u8]]) -> String {
    let mut input = Input::new(pieces);
    let head = match input.head() {
        Ok(head) => head,
        Err(why) => return why.to_owned(),
    };
    let parsed = match parse::parse_request(&head, &LIMITS) {
        Ok(parsed) => parsed,
        Err(refusal) => return format!("{} {}\n", refusal.status, refusal.reason),
    };
    let mut out = String::new();
    let head = parsed.head;
    let authority = if head.authority.is_empty() { "-" } else { &head.authority };
    let keep = if parsed.keep_alive { "keep" } else { "close" };
    let protocol = head.protocol.name();
    write!(out, "{} {authority} {} {protocol} {keep}", head.method, head.target).unwrap();
    if let Some(upgrade) = head.upgrade {
        write!(out, " upgrade={upgrade}").unwrap();
    }
    if head.expects_continue {
        out.push_str(" expects-continue");
    }
    if head.accepts_trailers {
        out.push_str(" accepts-trailers");
    }
    out.push('\n');
    fields("", &head.headers, &mut out);
    input.body(parsed.framing, &mut out);
    out
}

/// What a client that sent HEAD (or not) makes of these pieces.
pub fn response(pieces: &[&[u8]], to_head: bool) -> String {
    let mut input = Input::new(pieces);
    let head = match input.head() {
        Ok(head) => head,
        Err(why) => return why.to_owned(),
    };
    let Ok(parsed) = parse::parse_response(&head, &LIMITS, to_head) else { return "refused\n".to_owned() };
    let mut out = String::new();
    let keep = if parsed.keep_alive { "keep" } else { "close" };
    write!(out, "{} {keep}", parsed.head.status).unwrap();
    if let Some(reason) = &parsed.head.reason {
        write!(out, " {}", shown(reason)).unwrap();
    }
    out.push('\n');
    fields("", &parsed.head.headers, &mut out);
    input.body(parsed.framing, &mut out);
    out
}
