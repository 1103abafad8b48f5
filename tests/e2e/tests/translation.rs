//! HTTP/2 frames written by hand become the HTTP/1.1 request they say, or none: what the origin recorded decides. The same
//! with a second Rempart in between, so that the first one writes HTTP/2.

use std::io;

use harness::client::Client;
use harness::config::Config;
use harness::origin::{Origin, Reply, Seen};
use harness::rempart::Rempart;
use harness::wire::all;

const HOST: &str = "translated.test";
/// What a client says first (RFC 9113 section 3.4), with empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A string of RFC 7541 section 5.2, not Huffman-coded, with its length in one or two bytes.
fn string(text: &[u8]) -> Vec<u8> {
    let length = match text.len() {
        short @ 0..127 => vec![short as u8],
        long => vec![127, u8::try_from(long - 127).unwrap()],
    };
    [length, text.to_vec()].concat()
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A field section of literals without indexing (RFC 7541 section 6.2.2): nothing looks at them on the way out.
fn section(fields: &Fields) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

fn pairs(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// What is sent, as frames on stream 1.
#[derive(Clone)]
struct Case {
    name: String,
    frames: Vec<u8>,
}

fn case(name: impl Into<String>, fields: &Fields, body: Option<&str>, trailers: Option<&Fields>) -> Case {
    let last = |last: bool| if last { END_STREAM } else { 0 };
    let head_ends = last(body.is_none() && trailers.is_none());
    let mut frames = frame(HEADERS, END_HEADERS | head_ends, &section(fields));
    if let Some(body) = body {
        frames.extend(frame(DATA, last(trailers.is_none()), body.as_bytes()));
    }
    if let Some(trailers) = trailers {
        frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, &section(trailers)));
    }
    Case { name: name.into(), frames }
}

/// A request that is fine.
fn base(method: &str) -> Fields {
    pairs(&[(":method", method), (":scheme", "http"), (":authority", HOST), (":path", "/evil")])
}

fn with(method: &str, more: &[(&str, &str)]) -> Fields {
    [base(method), pairs(more)].concat()
}

fn replaced(name: &str, value: &str) -> Fields {
    let mut fields = base("GET");
    fields.iter_mut().filter(|(field, _)| field == name.as_bytes()).for_each(|field| field.1 = value.into());
    fields
}

fn without(name: &str) -> Fields {
    base("GET").into_iter().filter(|(field, _)| field != name.as_bytes()).collect()
}

/// Heads that no HTTP/1.1 request may be made of (RFC 9113 sections 8.2 and 8.3).
fn malformed_heads() -> Vec<Case> {
    const BAD: [&str; 10] =
        ["a\r\nx: 1", "a\nb", "a\rb", "a\0b", " a", "a ", "\ta", "a\t", "a\u{1}b", "a\u{7f}b"];
    let mut cases = Vec::new();
    for bad in BAD {
        cases.push(case(format!("value {bad:?}"), &with("GET", &[("x", bad)]), None, None));
        cases.push(case(format!("cookie {bad:?}"), &with("GET", &[("cookie", bad)]), None, None));
        cases.push(case(
            format!("path with {bad:?}"),
            &replaced(":path", &format!("/evil{bad}")),
            None,
            None,
        ));
        for pseudo in [":method", ":authority", ":scheme", ":path"] {
            cases.push(case(format!("{pseudo} {bad:?}"), &replaced(pseudo, bad), None, None));
        }
    }
    for bad in ["X", "x y", "x:y", "x\r\ny", "x\ny", "x\0y", "", "x\u{e9}", " x", "x ", "x\t", "\u{7f}"] {
        cases.push(case(format!("name {bad:?}"), &with("GET", &[(bad, "1")]), None, None));
    }
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("host", "other.test"),
        ("host", ""),
        ("content_length", "5"),
        (":evil", "1"),
        (":status", "200"),
        (":path", "/evil"),
        (":method", "GET"),
        (":authority", HOST),
        (":scheme", "http"),
        (":protocol", "websocket"),
    ] {
        cases.push(case(format!("{name}: {value}"), &with("GET", &[(name, value)]), None, None));
    }
    for name in [":method", ":scheme", ":path", ":authority"] {
        cases.push(case(format!("no {name}"), &without(name), None, None));
        cases.push(case(format!("empty {name}"), &replaced(name, ""), None, None));
        let mut late = without(name);
        late.push(("x".into(), "1".into()));
        late.extend(base("GET").into_iter().filter(|(field, _)| field == name.as_bytes()));
        cases.push(case(format!("{name} after a field"), &late, None, None));
    }
    for path in ["evil", "*", "http://other.test/evil", "/evil HTTP/1.1\r\nx: 1", "/a\\b", "/%00", "/\u{e9}"]
    {
        cases.push(case(format!("path {path:?}"), &replaced(":path", path), None, None));
    }
    for authority in
        ["a@translated.test", "translated.test/x", "translated.test:x", "translated.test, other.test"]
    {
        cases.push(case(format!("authority {authority}"), &replaced(":authority", authority), None, None));
    }
    let twice = with("GET", &[("host", HOST), ("host", HOST)]);
    cases.push(case("two hosts", &twice, None, None));
    cases.push(case("scheme ftp", &replaced(":scheme", "ftp"), None, None));
    cases
}

/// Bodies, trailers and tunnels that would not be what they seem.
fn malformed_bodies() -> Vec<Case> {
    const SMUGGLED: &str = "0\r\n\r\nGET /evil HTTP/1.1\r\nHost: translated.test\r\n\r\n";
    let mut cases = Vec::new();
    for (value, body) in [
        ("1", Some("12345")),
        ("10", Some("12345")),
        ("0", Some("12345")),
        ("5", None),
        ("5, 5", Some("12345")),
        ("+5", Some("12345")),
        ("0x5", Some("12345")),
        ("5 ", Some("12345")),
        ("", Some("12345")),
        ("18446744073709551621", Some("12345")),
    ] {
        let fields = with("POST", &[("content-length", value)]);
        cases.push(case(format!("content-length {value:?} and {body:?}"), &fields, body, None));
    }
    for second in ["5", "6"] {
        let fields = with("POST", &[("content-length", "5"), ("content-length", second)]);
        cases.push(case(format!("content-length 5 and {second}"), &fields, Some("12345"), None));
    }
    let coded = with("POST", &[("transfer-encoding", "chunked")]);
    cases.push(case("transfer-encoding with a body", &coded, Some(SMUGGLED), None));
    cases.push(case(
        "CONNECT",
        &pairs(&[(":method", "CONNECT"), (":authority", HOST)]),
        Some(SMUGGLED),
        None,
    ));
    cases.push(case("CONNECT with a path", &base("CONNECT"), Some(SMUGGLED), None));
    for protocol in ["websocket\r\nx: 1", "h2c", "connect-udp", ""] {
        let fields = with("CONNECT", &[(":protocol", protocol)]);
        cases.push(case(format!("CONNECT for {protocol:?}"), &fields, Some(SMUGGLED), None));
    }
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("connection", "x"),
        ("X", "1"),
        ("x\r\ny", "1"),
        ("x", "1\r\ny: 2"),
    ] {
        let trailers = pairs(&[(name, value)]);
        cases.push(case(
            format!("trailer {name:?}: {value:?}"),
            &base("POST"),
            Some("12345"),
            Some(&trailers),
        ));
    }
    // An index beyond both tables: a COMPRESSION_ERROR for the whole connection (RFC 7541 section 2.3.3).
    for (name, index) in
        [("indexed field", &[0xff, 0x00][..]), ("literal with an index", &[0x0f, 0x70, 1, b'x'])]
    {
        let section = [section(&base("GET")), index.to_vec()].concat();
        let frames = frame(HEADERS, END_HEADERS | END_STREAM, &section);
        cases.push(Case { name: format!("{name} out of range"), frames });
    }
    cases
}

/// What the origin has to see of a request that is served.
struct Served {
    case: Case,
    line: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
}

fn served() -> Vec<Served> {
    let serve = |name: &str, fields: Fields, body: Option<&str>, line, seen, arrived| Served {
        case: case(name, &fields, body, None),
        line,
        fields: seen,
        body: arrived,
    };
    let get = "GET /evil";
    vec![
        serve("plain", base("GET"), None, get, &[("host", HOST)], ""),
        serve("own method", base("x-y"), None, "x-y /evil", &[], ""),
        serve("host beside authority", with("GET", &[("host", "TRANSLATED.test")]), None, get, &[], ""),
        serve(
            "only host",
            [without(":authority"), pairs(&[("host", HOST)])].concat(),
            None,
            get,
            &[("host", HOST)],
            "",
        ),
        serve(
            "everything",
            [
                replaced(":path", "*")[3..].to_vec(),
                pairs(&[(":method", "OPTIONS"), (":scheme", "http"), (":authority", HOST)]),
            ]
            .concat(),
            None,
            "OPTIONS *",
            &[],
            "",
        ),
        // `h2` takes a fragment off before anybody sees it; edge and origin agree on what is left.
        serve("fragment", replaced(":path", "/evil#a"), None, get, &[], ""),
        serve("query", replaced(":path", "/a|b?c=\\&d=%00"), None, "GET /a|b?c=\\&d=%00", &[], ""),
        serve(
            "values as they are",
            with("GET", &[("x", "a\tb  c"), ("x", ""), ("y", "\u{e9}")]),
            None,
            get,
            &[("x", "a\tb  c"), ("x", ""), ("y", "\u{e9}")],
            "",
        ),
        serve(
            "cookie crumbs",
            with("GET", &[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("cookie", "c=3")]),
            None,
            get,
            &[("cookie", "a=1; b=2; c=3")],
            "",
        ),
        serve(
            "body with a length",
            with("POST", &[("content-length", "5")]),
            Some("12345"),
            "POST /evil",
            &[],
            "12345",
        ),
        serve("body without a length", base("POST"), Some("12345"), "POST /evil", &[], "12345"),
        serve(
            "empty body with a length",
            with("POST", &[("content-length", "0")]),
            None,
            "POST /evil",
            &[],
            "",
        ),
        serve(
            "body that looks like requests",
            base("POST"),
            Some("0\r\n\r\nGET /evil HTTP/1.1\r\nHost: translated.test\r\n\r\n"),
            "POST /evil",
            &[],
            "0\r\n\r\nGET /evil HTTP/1.1\r\nHost: translated.test\r\n\r\n",
        ),
    ]
}

/// Fields the edge writes into a request.
const OWN: [&str; 10] = [
    "host",
    "forwarded",
    "via",
    "cdn-loop",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "content-length",
    "transfer-encoding",
];

/// An origin that records, and one or two Remparts before it; the first one is asked.
struct World {
    origin: Origin,
    _inner: Option<Rempart>,
    outer: Rempart,
}

impl World {
    fn new(over_http2: bool) -> Self {
        let origin = Origin::answering(|_| Reply::text(200, "fine"));
        if !over_http2 {
            let outer =
                Rempart::with(&Config::new().listeners().site("translated", &[HOST]).origin(origin.url()));
            return Self { origin, _inner: None, outer };
        }
        let named = Config::empty().raw("via = \"inner\"").raw(Config::new().text());
        let inner = Rempart::with(&named.listeners().site("translated", &[HOST]).origin(origin.url()));
        let config = Config::new().listeners().site("translated", &[HOST]);
        let outer = Rempart::with(&config.origin(format!("http://{}", inner.plain())).raw("http = \"2\""));
        Self { origin, _inner: Some(inner), outer }
    }

    /// Sends the frames on a connection of their own, waits for the end of the stream, and answers with what the origin has
    /// seen. A good request at the end tells that everything that was going to arrive has.
    fn seen(&self, case: &Case) -> Vec<Seen> {
        self.origin.forget();
        let mut client = Client::plain(self.outer.plain()).unwrap();
        client.send([PREFACE, &case.frames].concat()).unwrap();
        let _the_connection_may_end_as_well = until_ended(&mut client);
        assert_eq!(self.outer.client().get(HOST, "/good").unwrap().text(), "fine", "after {}", case.name);
        let mut seen = self.origin.seen();
        assert_eq!(seen.pop().map(|seen| seen.target()).as_deref(), Some("/good"), "{}", case.name);
        seen
    }
}

/// Reads frames until stream 1 has its answer, or ends in another way.
fn until_ended(client: &mut Client) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        client.wire.exactly(9, &mut |bytes: &[u8]| head.extend_from_slice(bytes))?;
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        client.wire.exactly(length, &mut |_: &[u8]| {})?;
        let (kind, flags, on_stream) = (head[3], head[4], head[8] == 1);
        let ends = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
        if kind == GOAWAY || (on_stream && (ends || kind == RESET)) {
            return Ok(());
        }
    }
}

fn check_refused(over_http2: bool) {
    let world = World::new(over_http2);
    let cases = [malformed_heads(), malformed_bodies()].concat();
    let mut wrong = Vec::new();
    for case in &cases {
        let seen = world.seen(case);
        if !seen.is_empty() || !world.origin.raw().starts_with(b"GET /good ") {
            wrong.push(format!("{}: {}", case.name, world.origin.raw().escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} reached the origin:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn check_served(over_http2: bool) {
    let world = World::new(over_http2);
    for Served { case, line, fields, body } in served() {
        let seen = world.seen(&case);
        let [seen] = &seen[..] else { panic!("{}: the origin saw {} requests", case.name, seen.len()) };
        assert_eq!(
            format!("{} {}", seen.method(), seen.target().replace("\\\\", "\\")),
            line,
            "{}",
            case.name
        );
        assert_eq!(seen.body.bytes, body.as_bytes(), "{}", case.name);
        for (name, _) in fields {
            let wanted = fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_bytes());
            assert_eq!(all(&seen.head.fields, name), wanted.collect::<Vec<_>>(), "{}: {name}", case.name);
        }
        let sent = ["x", "y", "cookie"];
        let odd = seen.head.fields.iter().map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase());
        let odd: Vec<_> = odd.filter(|name| !OWN.contains(&&**name) && !sent.contains(&&**name)).collect();
        assert!(odd.is_empty(), "{}: {odd:?} came from nowhere", case.name);
    }
}

#[test]
fn malformed_frames_become_no_http1_request() {
    check_refused(false);
}

#[test]
fn malformed_frames_become_no_http2_request() {
    check_refused(true);
}

#[test]
fn good_frames_become_the_same_http1_request() {
    check_served(false);
}

#[test]
fn good_frames_become_the_same_http2_request() {
    check_served(true);
}

/// Fields no trailer may be are left out (RFC 9110 section 6.5.1), as is a pseudo field, of which `h2` does not tell; what
/// arrives is the body with the rest.
#[test]
fn trailers_arrive_without_what_would_change_the_request() {
    let trailers = [
        (":path", "/other"),
        ("x-sum", "1"),
        ("content-length", "1"),
        ("host", "other.test"),
        ("cookie", "a=1"),
    ];
    for over_http2 in [false, true] {
        let world = World::new(over_http2);
        let fields = with("POST", &[("te", "trailers")]);
        let seen = world.seen(&case("trailers", &fields, Some("12345"), Some(&pairs(&trailers))));
        assert_eq!((seen.len(), seen[0].target().as_str()), (1, "/evil"));
        assert_eq!(seen[0].body.bytes, b"12345");
        assert_eq!(seen[0].body.trailers, [(b"x-sum".to_vec(), b"1".to_vec())]);
    }
}
