//! Generated requests with the answer their origin gives: everything RFC 9110 and 9112 allow that a lazy proxy spoils.

use base::random::Random;
use harness::wire::Field;

/// Methods, weighted by repetition: known ones, registered ones a proxy may not know, and one nobody registered.
const METHODS: [&str; 14] = [
    "GET",
    "GET",
    "GET",
    "HEAD",
    "HEAD",
    "POST",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "PROPFIND",
    "M-SEARCH",
    "x!custom~",
];
/// Pieces of targets: unreserved, sub-delims, encoded bytes of every sort, dot segments, empty segments, and what
/// browsers send without encoding although RFC 3986 would have it encoded.
const SEGMENTS: [&str; 24] = [
    "a",
    "index.html",
    "caf%C3%A9",
    "%2F",
    "%2e%2e",
    "..",
    ".",
    "",
    "%01",
    "%FF%fe",
    "a;b=c,d",
    "@user:pw",
    "~tilde",
    "!$&'()*+,;=",
    "%7B%7D",
    "a%20b",
    "UPPER%3acase",
    "very-long-segment-with-many-characters-0123456789",
    "|",
    "[x]",
    "%25",
    "%2525",
    "_",
    "-.-",
];
const QUERIES: [&str; 14] = [
    "",
    "a=1&b=2&a=3",
    "q=%20+%2B",
    "empty=&&",
    "x=?/?",
    "%00",
    "u=http://h:1/p?q",
    "=",
    "caf%C3%A9=%E4",
    "a[b]=c",
    "j={%22k%22:[1,2]}",
    "p=|",
    "sort=^x",
    "t=`",
];
const STATUSES: [u16; 46] = [
    200, 200, 200, 200, 201, 202, 203, 204, 205, 206, 207, 226, 299, 300, 301, 302, 303, 304, 304, 307, 308,
    400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 412, 413, 415, 416, 418, 422, 423, 425, 428, 429, 451,
    500, 503, 511, 599,
];
const REQUEST_FIELDS: [(&str, &str); 18] = [
    ("Accept", "text/html;q=0.9, */*;q=0.1"),
    ("Accept-Encoding", "gzip, br;q=0.5, identity"),
    ("Accept-Language", "de-CH,fr;q=0.5"),
    ("Authorization", "Basic YTpi"),
    ("Cache-Control", "no-cache"),
    ("Content-Type", "application/json; charset=utf-8"),
    ("Content-Encoding", "gzip"),
    ("DNT", "1"),
    ("If-None-Match", "\"a\", W/\"b\""),
    ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("Origin", "null"),
    ("Pragma", "no-cache"),
    ("Range", "bytes=0-0,-1"),
    ("Referer", "https://elsewhere.test/a?b=c"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) (nested (comment))"),
    ("X_Under_Score", "kept"),
    ("X-!#$%&'*+.^`|~", "every token character"),
    ("Priority", "u=1, i"),
];
const RESPONSE_FIELDS: [(&str, &str); 18] = [
    ("Age", "17"),
    ("Allow", "GET, HEAD"),
    ("Cache-Control", "public, max-age=60, stale-while-revalidate=30"),
    ("Content-Disposition", "attachment; filename*=UTF-8''%e2%82%ac"),
    ("Content-Encoding", "br"),
    ("Content-Language", "de, fr"),
    ("Content-Type", "text/html; charset=iso-8859-1"),
    ("Content-Security-Policy", "default-src 'self'; img-src *"),
    ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("ETag", "W/\"\u{e9}\""),
    ("Expires", "0"),
    ("Link", "<https://a.test/?x=1,2>; rel=\"next\", </b>; rel=prev"),
    ("Location", "/over/there?x=%20"),
    ("Retry-After", "120"),
    ("Server", "Scripted/1.0 (test)"),
    ("Vary", "Accept-Encoding, Cookie"),
    ("WWW-Authenticate", "Basic realm=\"a, b\", Digest nonce=\"c\""),
    ("X-Powered-By", "tests"),
];

/// Body of a request.
#[derive(Clone, Debug)]
pub enum Sent {
    /// None, and no Content-Length.
    Nothing,
    /// With Content-Length, possibly 0.
    Sized(Vec<u8>),
    /// In chunks, with trailer fields.
    Chunked(Vec<Vec<u8>>, Vec<Field>),
}

/// Framing of an answer's body.
#[derive(Clone, Debug)]
pub enum Framing {
    /// Status or method leaves no room for a body; a Content-Length may be told all the same (HEAD, 304).
    Bodiless(Option<usize>),
    /// Content-Length.
    Sized,
    /// Chunks of this size, and trailer fields.
    Chunked(usize, Vec<Field>),
    /// The end of the connection.
    UntilClose,
}

/// What the origin answers.
#[derive(Clone, Debug)]
pub struct Scripted {
    pub status: u16,
    pub fields: Vec<Field>,
    pub framing: Framing,
    pub body: Vec<u8>,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Case {
    pub number: usize,
    pub method: String,
    pub target: String,
    pub fields: Vec<Field>,
    pub body: Sent,
    pub reply: Scripted,
}

/// The first `count` cases of a seed.
pub fn generate(seed: u64, count: usize) -> Vec<Case> {
    let mut random = Random::seeded(seed);
    (0..count).map(|number| case(&mut random, number)).collect()
}

fn case(random: &mut Random, number: usize) -> Case {
    let method = pick(random, &METHODS).to_string();
    let mut fields = vec![field("X-Case", number.to_string())];
    for _ in 0..random.below(8) {
        fields.push(some_field(random, &REQUEST_FIELDS));
    }
    match random.below(12) {
        0 => fields.extend([
            field("Connection", "x-hop, close"),
            field("X-Hop", "1"),
            field("Keep-Alive", "5"),
        ]),
        1 => {
            fields.extend([field("Connection", "X-Hop"), field("x-hop", "1"), field("Proxy-Connection", "a")])
        }
        2..=4 => fields.extend([field("Cookie", "a=1; b=\"2\"; c="), field("TE", "trailers")]),
        _ => {}
    }
    let body = match (method.as_str(), random.below(5)) {
        ("GET" | "HEAD", 0..4) | (_, 0) => Sent::Nothing,
        (_, 1) => Sent::Sized(Vec::new()),
        (_, 2) => Sent::Sized(some_bytes(random, 20_000)),
        _ => {
            let pieces =
                (0..random.below(6)).map(|_| some_bytes(random, 3_000)).filter(|piece| !piece.is_empty());
            Sent::Chunked(pieces.collect(), trailers(random))
        }
    };
    let reply = reply(random, &method);
    Case { number, target: target(random), method, fields, body, reply }
}

fn target(random: &mut Random) -> String {
    let mut target = String::new();
    for _ in 0..1 + random.below(5) {
        target.push('/');
        target.push_str(pick::<&str>(random, &SEGMENTS));
    }
    if random.below(2) == 0 {
        target.push('?');
        target.push_str(pick::<&str>(random, &QUERIES));
    }
    target
}

fn reply(random: &mut Random, method: &str) -> Scripted {
    let status = *pick(random, &STATUSES);
    let mut fields: Vec<Field> = (0..random.below(9)).map(|_| some_field(random, &RESPONSE_FIELDS)).collect();
    for i in 0..[0, 0, 1, 3, 30][random.below(5) as usize] {
        fields.push(field(
            "Set-Cookie",
            format!("c{i}=\"v, {i}\"; Expires=Thu, 01 Jan 2099 00:00:00 GMT; Path=/"),
        ));
    }
    // Date and Server tell one thing about one sender; two of them would be a broken origin.
    for single in ["date", "server", "content-type", "age", "location", "retry-after", "etag"] {
        let mut seen = false;
        fields.retain(|(name, _)| {
            !name.eq_ignore_ascii_case(single.as_bytes()) || !std::mem::replace(&mut seen, true)
        });
    }
    let told = (random.below(2) == 0).then(|| random.below(100_000) as usize);
    let (framing, body) = match (method, status, random.below(6)) {
        (_, 204, _) => (Framing::Bodiless(None), Vec::new()),
        (_, 304, _) | ("HEAD", _, _) => (Framing::Bodiless(told), Vec::new()),
        (_, 205, _) => (Framing::Sized, Vec::new()),
        (_, _, 0) => (Framing::UntilClose, some_bytes(random, 10_000)),
        (_, _, 1..=2) => {
            (Framing::Chunked(1 + random.below(4_000) as usize, trailers(random)), some_bytes(random, 30_000))
        }
        _ => (Framing::Sized, some_bytes(random, 50_000)),
    };
    Scripted { status, fields, framing, body }
}

fn trailers(random: &mut Random) -> Vec<Field> {
    (0..random.below(4))
        .map(|i| field(&format!("X-Trailer-{i}"), ["", "v", "a, b", "\u{fc}"][random.below(4) as usize]))
        .collect()
}

/// A known field, or one with a made-up name and any bytes a value may hold (RFC 9110 section 5.5).
fn some_field(random: &mut Random, known: &[(&str, &str)]) -> Field {
    if random.below(3) > 0 {
        let (name, value) = pick(random, known);
        return field(name, value);
    }
    let name =
        ["X-Free", "x-free", "X-Other", "x-LONG-name-of-a-field-that-nobody-knows"][random.below(4) as usize];
    let mut value: Vec<u8> = (0..random.below(60)).map(|_| value_byte(random)).collect();
    // Blanks at the ends belong to the syntax around a value, not to the value.
    while value.first().is_some_and(|byte| b" \t".contains(byte)) {
        value.remove(0);
    }
    while value.last().is_some_and(|byte| b" \t".contains(byte)) {
        value.pop();
    }
    (name.into(), value)
}

fn value_byte(random: &mut Random) -> u8 {
    match random.below(10) {
        0 => b" \t"[random.below(2) as usize],
        1..=2 => 0x80 + random.below(0x80) as u8,
        _ => 0x21 + random.below(0x5e) as u8,
    }
}

fn some_bytes(random: &mut Random, at_most: u32) -> Vec<u8> {
    // Often tiny, sometimes large: the edges are where framing goes wrong.
    let bound = if random.below(2) == 0 { 20 } else { at_most };
    (0..random.below(bound)).map(|_| random.next_u64() as u8).collect()
}

fn pick<'a, T>(random: &mut Random, list: &'a [T]) -> &'a T {
    &list[random.below(list.len() as u32) as usize]
}

fn field(name: &str, value: impl AsRef<[u8]>) -> Field {
    (name.into(), value.as_ref().to_vec())
}

fn write_fields(out: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        out.extend_from_slice(&[name, &b": "[..], value, b"\r\n"].concat());
    }
}

fn write_chunk(out: &mut Vec<u8>, piece: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

fn write_end_of_chunks(out: &mut Vec<u8>, trailers: &[Field]) {
    out.extend_from_slice(b"0\r\n");
    write_fields(out, trailers);
    out.extend_from_slice(b"\r\n");
}

impl Case {
    /// The request as HTTP/1.1.
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target).into_bytes();
        write_fields(&mut out, &self.fields);
        match &self.body {
            Sent::Nothing => out.extend_from_slice(b"\r\n"),
            Sent::Sized(bytes) => {
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
            }
            Sent::Chunked(pieces, trailers) => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                pieces.iter().for_each(|piece| write_chunk(&mut out, piece));
                write_end_of_chunks(&mut out, trailers);
            }
        }
        out
    }

    /// Whether the client asks for the connection to be closed.
    pub fn closes(&self) -> bool {
        self.fields.iter().any(|(name, value)| name == b"Connection" && value.ends_with(b"close"))
    }

    /// Whether it holds fields that HTTP/2 forbids.
    pub fn has_hop_by_hop(&self) -> bool {
        self.fields.iter().any(|(name, _)| name == b"Connection")
    }

    /// The case in one line.
    pub fn describe(&self) -> String {
        let Self { number, method, target, reply, .. } = self;
        let body = match &self.body {
            Sent::Nothing => "no body".to_owned(),
            Sent::Sized(bytes) => format!("{} bytes", bytes.len()),
            Sent::Chunked(pieces, trailers) => {
                format!("{} chunks, {} trailers", pieces.len(), trailers.len())
            }
        };
        let framing = match &reply.framing {
            Framing::Bodiless(told) => format!("no body, {told:?} told"),
            Framing::Sized => "sized".to_owned(),
            Framing::Chunked(size, trailers) => format!("chunks of {size}, {} trailers", trailers.len()),
            Framing::UntilClose => "until close".to_owned(),
        };
        let (status, bytes) = (reply.status, reply.body.len());
        format!("case {number}: {method} {target} ({body}) -> {status}, {bytes} bytes ({framing})")
    }
}

impl Scripted {
    /// The answer as HTTP/1.1.
    pub fn bytes(&self, method: &str) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} As scripted\r\n", self.status).into_bytes();
        write_fields(&mut out, &self.fields);
        match &self.framing {
            Framing::Bodiless(None) => out.extend_from_slice(b"\r\n"),
            Framing::Bodiless(Some(told)) => {
                out.extend_from_slice(format!("Content-Length: {told}\r\n\r\n").as_bytes())
            }
            Framing::Sized => {
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
                out.extend_from_slice(&self.body);
            }
            Framing::Chunked(size, trailers) => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                self.body.chunks(*size).for_each(|piece| write_chunk(&mut out, piece));
                write_end_of_chunks(&mut out, trailers);
            }
            Framing::UntilClose => {
                out.extend_from_slice(b"Connection: close\r\n\r\n");
                out.extend_from_slice(&self.body);
            }
        }
        assert!(method != "HEAD" || self.body.is_empty(), "an answer to HEAD has no body");
        out
    }

    /// Whether the origin closes the connection after it.
    pub fn closes(&self) -> bool {
        matches!(self.framing, Framing::UntilClose)
    }
}
