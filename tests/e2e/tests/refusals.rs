//! Ambiguous messages are refused, never repaired: 400, the connection closed, and the origin saw nothing of it.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::client::{Client, Response};
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::Rempart;
use harness::tools;

const HOST: &str = "strict.test";
/// How long a refusal is waited for; shorter than elsewhere, because a table of them that all fail would take for ever.
const REFUSAL: Duration = Duration::from_secs(5);

/// A head with these lines after `Host`, and a body.
fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /evil HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n\r\n{body}").into_bytes()
}

/// A GET with these lines after `Host`.
fn get(lines: &str) -> Vec<u8> {
    format!("GET /evil HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n\r\n").into_bytes()
}

/// A chunked POST with this body.
fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked", body)
}

struct Refused {
    name: &'static str,
    bytes: Vec<u8>,
    statuses: &'static [u16],
}

const fn refused(name: &'static str, bytes: Vec<u8>, statuses: &'static [u16]) -> Refused {
    Refused { name, bytes, statuses }
}

/// Framing that two readers could read differently (RFC 9112 sections 6 and 7).
fn ambiguous_framing() -> Vec<Refused> {
    const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: strict.test\r\n\r\n";
    let mut table = vec![
        refused("TE and CL", post("Content-Length: 6\r\nTransfer-Encoding: chunked", SMUGGLED), &[400]),
        refused("CL and TE", post("Transfer-Encoding: chunked\r\nContent-Length: 6", SMUGGLED), &[400]),
        refused("two different CL", post("Content-Length: 5\r\nContent-Length: 6", "123456"), &[400]),
        refused("list of different CL", post("Content-Length: 5, 6", "123456"), &[400]),
        refused("list of equal CL", post("Content-Length: 6, 6", "123456"), &[400]),
        refused(
            "TE in HTTP/1.0",
            b"POST /evil HTTP/1.0\r\nHost: strict.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            &[400],
        ),
    ];
    for (name, value) in [
        ("CL plus", "+5"),
        ("CL minus", "-5"),
        ("CL hexadecimal", "0x5"),
        ("CL empty", ""),
        ("CL comma", "5,"),
        ("CL blank inside", "5 5"),
        ("CL fraction", "5.0"),
        ("CL exponent", "5e0"),
        ("CL underscore", "5_0"),
        ("CL beyond 64 bits", "18446744073709551621"),
        ("CL beyond all bits", "99999999999999999999999999999999999"),
        ("CL full-width digit", "\u{ff15}"),
        ("CL word", "five"),
        ("CL quoted", "\"5\""),
    ] {
        table.push(refused(name, post(&format!("Content-Length: {value}"), "12345"), &[400, 413]));
    }
    for (name, value) in [
        ("TE unknown", "xchunked"),
        ("TE chunked not last", "chunked, identity"),
        ("TE twice chunked", "chunked, chunked"),
        ("TE identity", "identity"),
        ("TE gzip without chunked", "gzip"),
        ("TE empty", ""),
        ("TE quoted", "\"chunked\""),
        ("TE vertical tab", "\u{b}chunked"),
        ("TE with parameter", "chunked;a=b"),
        ("TE semicolon", "chunked;"),
        ("TE cow", "cow"),
        ("TE trailing comma and cow", "chunked, cow"),
    ] {
        table.push(refused(name, post(&format!("Transfer-Encoding: {value}"), SMUGGLED), &[400, 501]));
    }
    let twice = post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", SMUGGLED);
    table.push(refused("TE on two lines", twice, &[400]));
    let split = post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", SMUGGLED);
    table.push(refused("TE on two lines, last not chunked", split, &[400, 501]));
    table.push(refused(
        "TE with a blank before the colon",
        post("Transfer-Encoding : chunked", SMUGGLED),
        &[400],
    ));
    table.push(refused("CL folded", post("Content-Length:\r\n 5", "12345"), &[400]));
    table
}

/// Heads that are not what RFC 9112 sections 2 to 5 and RFC 9110 section 5 describe.
fn malformed_heads() -> Vec<Refused> {
    let raw = |text: &str| text.as_bytes().to_vec();
    let mut table = vec![
        refused("bare LF everywhere", raw("GET /evil HTTP/1.1\nHost: strict.test\n\n"), &[400]),
        refused(
            "bare LF after a field",
            raw("GET /evil HTTP/1.1\r\nHost: strict.test\nA: b\r\n\r\n"),
            &[400],
        ),
        refused("bare LF at the end", raw("GET /evil HTTP/1.1\r\nHost: strict.test\r\n\n"), &[400]),
        refused("bare CR in a value", get("A: b\rc: d"), &[400]),
        refused(
            "bare CR in the request line",
            raw("GET /evil\r HTTP/1.1\r\nHost: strict.test\r\n\r\n"),
            &[400],
        ),
        refused("obs-fold", get("A: b\r\n c"), &[400]),
        refused(
            "fold before the first field",
            raw("GET /evil HTTP/1.1\r\n Host: strict.test\r\n\r\n"),
            &[400],
        ),
        refused("blank before the colon", get("A : b"), &[400]),
        refused("tab before the colon", get("A\t: b"), &[400]),
        refused("no colon", get("A"), &[400]),
        refused("empty name", get(": b"), &[400]),
        refused("name that is no token", get("A(b): c"), &[400]),
        refused("name beyond ASCII", get("\u{e9}: c"), &[400]),
        refused("NUL in a name", get("A\0b: c"), &[400]),
        refused("NUL in a value", get("A: b\0c"), &[400]),
        refused("control byte in a value", get("A: b\u{1}c"), &[400]),
        refused("DEL in a value", get("A: b\u{7f}c"), &[400]),
        refused("NUL in the target", raw("GET /ev\0il HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused("blank in the target", raw("GET /ev il HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused("target beyond ASCII", raw("GET /\u{e9} HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused("target without a slash", raw("GET evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused(
            "encoded NUL in the path",
            raw("GET /a%00.jpg HTTP/1.1\r\nHost: strict.test\r\n\r\n"),
            &[400],
        ),
        refused("backslash in the path", raw("GET /a\\..\\b HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused("fragment", raw("GET /evil#a HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused(
            "two blanks in the request line",
            raw("GET  /evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"),
            &[400],
        ),
        refused("tab in the request line", raw("GET\t/evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused("blank before the method", raw(" GET /evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused(
            "blank after the version",
            raw("GET /evil HTTP/1.1 \r\nHost: strict.test\r\n\r\n"),
            &[400, 505],
        ),
        refused("method that is no token", raw("G{T /evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused("lower-case version", raw("GET /evil http/1.1\r\nHost: strict.test\r\n\r\n"), &[400, 505]),
        refused("version 2.0", raw("GET /evil HTTP/2.0\r\nHost: strict.test\r\n\r\n"), &[400, 505]),
        refused(
            "version with two digits",
            raw("GET /evil HTTP/1.10\r\nHost: strict.test\r\n\r\n"),
            &[400, 505],
        ),
        refused("no version", raw("GET /evil\r\nHost: strict.test\r\n\r\n"), &[400, 505]),
    ];
    table.push(refused("head too large", get(&format!("A: {}", "b".repeat(300_000))), &[431]));
    table.push(refused("too many fields", get(&vec!["A: b"; 2_000].join("\r\n")), &[431]));
    let long = format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "x".repeat(200_000));
    table.push(refused("target too long", long.into_bytes(), &[414]));
    table
}

/// Requests whose host is missing or could be read in two ways (RFC 9112 section 3.2), and tunnels to anywhere.
fn doubtful_hosts() -> Vec<Refused> {
    let raw = |text: &str| text.as_bytes().to_vec();
    vec![
        refused("no Host", raw("GET /evil HTTP/1.1\r\nA: b\r\n\r\n"), &[400]),
        refused("two Hosts", get("Host: strict.test"), &[400]),
        refused("two different Hosts", get("Host: other.test"), &[400]),
        refused("empty Host", raw("GET /evil HTTP/1.1\r\nHost:\r\n\r\n"), &[400, 421]),
        refused("Host with a path", raw("GET /evil HTTP/1.1\r\nHost: strict.test/x\r\n\r\n"), &[400]),
        refused("Host with a user", raw("GET /evil HTTP/1.1\r\nHost: a@strict.test\r\n\r\n"), &[400]),
        refused(
            "Host with a list",
            raw("GET /evil HTTP/1.1\r\nHost: strict.test, other.test\r\n\r\n"),
            &[400],
        ),
        refused("Host with a bad port", raw("GET /evil HTTP/1.1\r\nHost: strict.test:http\r\n\r\n"), &[400]),
        refused(
            "target and Host disagree",
            raw("GET http://other.test/evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"),
            &[400, 421],
        ),
        refused(
            "https target without TLS",
            raw("GET https://strict.test/evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"),
            &[421],
        ),
        refused(
            "user in the target",
            raw("GET http://a@strict.test/evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"),
            &[400],
        ),
        refused(
            "target without an authority",
            raw("GET http:///evil HTTP/1.1\r\nHost: strict.test\r\n\r\n"),
            &[400],
        ),
        refused("authority form", raw("GET strict.test:80 HTTP/1.1\r\nHost: strict.test:80\r\n\r\n"), &[400]),
        refused("asterisk form", raw("GET * HTTP/1.1\r\nHost: strict.test\r\n\r\n"), &[400]),
        refused(
            "Max-Forwards that is no number",
            raw("OPTIONS * HTTP/1.1\r\nHost: strict.test\r\nMax-Forwards: -1\r\n\r\n"),
            &[400],
        ),
        refused(
            "CONNECT",
            raw("CONNECT strict.test:443 HTTP/1.1\r\nHost: strict.test:443\r\n\r\n"),
            &[400, 405, 501],
        ),
    ]
}

/// Chunked bodies that are not what RFC 9112 section 7.1 describes.
fn malformed_chunks() -> Vec<Refused> {
    [
        ("size with plus", "+5\r\nabcde\r\n0\r\n\r\n"),
        ("size with minus", "-5\r\nabcde\r\n0\r\n\r\n"),
        ("size with 0x", "0x5\r\nabcde\r\n0\r\n\r\n"),
        ("size with underscore", "1_0\r\nabcdeabcdeabcdea\r\n0\r\n\r\n"),
        ("size empty", "\r\nabcde\r\n0\r\n\r\n"),
        ("size only an extension", ";a=b\r\nabcde\r\n0\r\n\r\n"),
        ("size not hexadecimal", "g\r\nabcde\r\n0\r\n\r\n"),
        ("size beyond 64 bits", "10000000000000005\r\nabcde\r\n0\r\n\r\n"),
        ("size of a hundred digits", &format!("{}5\r\nabcde\r\n0\r\n\r\n", "0".repeat(100_000))),
        ("blank before the size", " 5\r\nabcde\r\n0\r\n\r\n"),
        ("blank after the size", "5 \r\nabcde\r\n0\r\n\r\n"),
        ("bare LF after the size", "5\nabcde\r\n0\r\n\r\n"),
        ("bare CR after the size", "5\rabcde\r\n0\r\n\r\n"),
        ("bare LF after the data", "5\r\nabcde\n0\r\n\r\n"),
        ("no CRLF after the data", "5\r\nabcde0\r\n\r\n"),
        ("more data than told", "5\r\nabcdef\r\n0\r\n\r\n"),
        ("bare LF in an extension", "5;a\nb\r\nabcde\r\n0\r\n\r\n"),
        ("bare CR in an extension", "5;a\rb\r\nabcde\r\n0\r\n\r\n"),
        ("endless extension", &format!("5;{}\r\nabcde\r\n0\r\n\r\n", "a".repeat(300_000))),
        ("bare LF at the end", "5\r\nabcde\r\n0\n\n"),
        ("bare LF after the trailers", "5\r\nabcde\r\n0\r\nA: b\n\r\n"),
        ("blank before the colon of a trailer", "5\r\nabcde\r\n0\r\nA : b\r\n\r\n"),
        ("folded trailer", "5\r\nabcde\r\n0\r\nA: b\r\n c\r\n\r\n"),
        ("NUL in a trailer", "5\r\nabcde\r\n0\r\nA: b\0\r\n\r\n"),
        ("endless trailers", &format!("5\r\nabcde\r\n0\r\n{}\r\n", "A: b\r\n".repeat(50_000))),
    ]
    .map(|(name, body)| refused(name, chunked(body), &[400, 431]))
    .into()
}

fn strict() -> (Origin, Rempart) {
    let origin = Origin::answering(|_| Reply::text(200, "fine"));
    let rempart = Rempart::with(&Config::new().listeners().site("strict", &[HOST]).origin(origin.url()));
    (origin, rempart)
}

/// Sends a message that must be refused; the server may hang up before it has read all of it.
fn provoke(mut client: Client, bytes: &[u8]) -> io::Result<Response> {
    client.patience(REFUSAL)?;
    let _hung_up_early = client.send(bytes);
    let response = client.response("POST")?;
    // Method and host were understood well enough to go on; everything else leaves no common ground.
    if ![405, 421].contains(&response.status) {
        client.wire.closed()?;
    }
    Ok(response)
}

/// Runs a table; `whole` asks that not one byte reached the origin, not only that no whole request did.
fn check(table: &[Refused], whole: bool) {
    let (origin, rempart) = strict();
    let mut wrong = Vec::new();
    for Refused { name, bytes, statuses } in table {
        origin.forget();
        match provoke(rempart.client(), bytes) {
            Ok(response) if statuses.contains(&response.status) => {}
            Ok(response) => wrong.push(format!("{name}: {} instead of {statuses:?}", response.status)),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
        // A request after it tells when everything that was going to reach the origin has.
        assert_eq!(rempart.client().get(HOST, "/good").unwrap().text(), "fine", "after {name}");
        let seen = origin.seen();
        if seen.len() != 1 || seen[0].target() != "/good" {
            let targets: Vec<_> = seen.iter().map(|seen| seen.target()).collect();
            wrong.push(format!("{name}: the origin saw {targets:?}"));
        } else if whole && !origin.raw().starts_with(b"GET /good ") {
            wrong.push(format!("{name}: bytes reached the origin: {}", origin.raw().escape_ascii()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} not refused as they should be:\n{}",
        wrong.len(),
        table.len(),
        wrong.join("\n")
    );
}

#[test]
fn ambiguous_framing_is_refused_and_never_reaches_the_origin() {
    check(&ambiguous_framing(), true);
}

#[test]
fn malformed_heads_are_refused_and_never_reach_the_origin() {
    check(&malformed_heads(), true);
}

#[test]
fn doubtful_hosts_are_refused_and_never_reach_the_origin() {
    check(&doubtful_hosts(), true);
}

#[test]
fn malformed_chunks_never_become_a_whole_request() {
    check(&malformed_chunks(), false);
}

/// The control: the tables are judged by a server that takes everything, and nothing in them passes as refused.
#[test]
fn a_server_that_takes_everything_fails_the_tables() {
    let lax = Origin::scripted(|connection| connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    for Refused { name, bytes, statuses } in
        [ambiguous_framing(), malformed_heads(), doubtful_hosts(), malformed_chunks()].concat_all()
    {
        let answer = provoke(Client::plain(lax.address()).unwrap(), &bytes);
        assert!(!answer.is_ok_and(|response| statuses.contains(&response.status)), "{name}");
    }
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Refused>;
}

impl<const N: usize> ConcatAll for [Vec<Refused>; N] {
    fn concat_all(self) -> Vec<Refused> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn a_refused_request_takes_the_pipelined_ones_behind_it_along() {
    let (origin, rempart) = strict();
    let mut bytes = post("Content-Length: 5\r\nContent-Length: 6", "12345");
    bytes.extend_from_slice(format!("GET /behind HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
    assert_eq!(provoke(rempart.client(), &bytes).unwrap().status, 400);
    assert_eq!(rempart.client().get(HOST, "/good").unwrap().status, 200);
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(origin.seen()[0].target(), "/good");
}

/// HTTP/2 that is malformed, or that would become another message when written as HTTP/1.1.
#[test]
fn malformed_http2_is_refused_and_never_reaches_the_origin() {
    let (origin, rempart) = strict();
    let (script, authority) = (tools::script("h2_malformed.py"), rempart.authority_path());
    let arguments: [&Path; 2] = [&script, &authority];
    let mut command = Command::new(tools::python());
    let output = command.args(arguments).arg(rempart.tls().to_string()).arg(HOST).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all refused"), "{text}");
    let targets: Vec<_> = origin.seen().iter().map(|seen| seen.target()).collect();
    assert!(
        !targets.is_empty() && targets.iter().all(|target| target == "/good"),
        "the origin saw {targets:?}"
    );
}
