//! An origin's answer that could be read in two ways becomes 502, its connection is not used again, and an answer
//! that was cut is never passed on as a complete one.

use std::io;

use harness::config::Config;
use harness::origin::{Connection, Origin};
use harness::rempart::Rempart;

const HOST: &str = "origin-strict.test";

/// Answers `/bad` with these bytes and keeps the connection open for more; `/good` with a proper answer.
fn serve(connection: &mut Connection, bad: &[u8], close: bool) -> io::Result<()> {
    while let Some(seen) = connection.request()? {
        if seen.target() == "/bad" {
            connection.send(bad)?;
            if close {
                return Ok(());
            }
        } else {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")?;
        }
    }
    Ok(())
}

fn before(bad: impl Into<Vec<u8>>, close: bool) -> (Origin, Rempart) {
    let bad = bad.into();
    let origin = Origin::scripted(move |connection| serve(connection, &bad, close));
    // One thread has one pool, so a connection that was kept would be taken again.
    let config =
        Config::empty().raw("[metrics]\nlisten = \"off\"\n[log.access]\nto = \"off\"\n[limits]\nthreads = 1");
    let config = config.listeners().site("strict", &[HOST]).origin(origin.url());
    (origin, Rempart::with(&config.raw("[site.retry]\nattempts = 0\n[site.health]\nfailures = 0")))
}

const AMBIGUOUS: [(&str, &str); 28] = [
    (
        "TE and CL",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    ("two different CL", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"),
    ("list of different CL", "HTTP/1.1 200 OK\r\nContent-Length: 3, 5\r\n\r\nabcde"),
    ("CL plus", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
    ("CL minus", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
    ("CL hexadecimal", "HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc"),
    ("CL word", "HTTP/1.1 200 OK\r\nContent-Length: three\r\n\r\nabc"),
    ("CL beyond 64 bits", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551619\r\n\r\nabc"),
    ("TE unknown", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    (
        "TE chunked not last",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "TE twice chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    ("TE in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("obs-fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 3\r\n\r\nabc"),
    ("blank before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc"),
    ("bare CR in a value", "HTTP/1.1 200 OK\r\nA: b\rc: d\r\nContent-Length: 3\r\n\r\nabc"),
    ("bare LF after a field", "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 3\r\n\r\nabc"),
    ("bare LF everywhere", "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"),
    ("NUL in a value", "HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 3\r\n\r\nabc"),
    ("NUL in a name", "HTTP/1.1 200 OK\r\nA\0: b\r\nContent-Length: 3\r\n\r\nabc"),
    ("no colon", "HTTP/1.1 200 OK\r\nA\r\nContent-Length: 3\r\n\r\nabc"),
    ("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("status that is no number", "HTTP/1.1 abc OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("version 2.0", "HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    (
        "101 nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ),
    ("HTTP/0.9", "<html>hello</html>\r\n\r\n"),
];

#[test]
fn an_ambiguous_answer_becomes_502_and_its_connection_is_not_used_again() {
    let mut wrong = Vec::new();
    for (name, bad) in AMBIGUOUS {
        let (origin, rempart) = before(bad, false);
        let mut client = rempart.client();
        match client.get(HOST, "/bad") {
            Ok(response) if response.status == 502 && !response.text().contains("abc") => {}
            Ok(response) => wrong.push(format!("{name}: {}", response.status)),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
        let good = rempart.client().get(HOST, "/good");
        if !good.as_ref().is_ok_and(|response| response.text() == "fine") {
            wrong.push(format!("{name}: the request after it got {good:?}"));
        }
        let seen = origin.seen();
        if seen.len() != 2 || seen[0].connection == seen[1].connection {
            wrong.push(format!("{name}: the connection was used again ({} requests)", seen.len()));
        }
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn endless_heads_of_an_origin_become_502() {
    for (name, bad) in [
        ("endless field", format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(8 << 20))),
        ("endless fields", format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(1 << 20))),
        ("endless interim answers", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100_000)),
    ] {
        let (_origin, rempart) = before(bad, false);
        let mut client = rempart.client();
        client.send(format!("GET /bad HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
        let response = client.response("GET").unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(response.status, 502, "{name}");
    }
}

/// What follows an answer belongs to nobody: a client that came later must not get it.
#[test]
fn bytes_after_an_answer_are_nobodys_answer() {
    for extra in ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "x", "\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{extra}");
        let (origin, rempart) = before(answer, false);
        assert_eq!(rempart.client().get(HOST, "/bad").unwrap().text(), "ok");
        assert_eq!(rempart.client().get(HOST, "/good").unwrap().text(), "fine", "after {extra:?}");
        let seen = origin.wait_for(2);
        assert_ne!(
            seen[0].connection, seen[1].connection,
            "the connection with {extra:?} on it was used again"
        );
    }
}

#[test]
fn a_cut_or_malformed_body_is_never_passed_off_as_complete() {
    for (name, bad) in [
        ("sized, cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
        ("chunked, cut in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this"),
        ("chunked, cut between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n"),
        (
            "chunked, cut before the last CRLF",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\n",
        ),
        (
            "chunk size with plus",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n+1\r\nx\r\n0\r\n\r\n",
        ),
        (
            "chunk without CRLF",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonlyx\r\n0\r\n\r\n",
        ),
        (
            "chunk with bare LF",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n1\nx\r\n0\r\n\r\n",
        ),
    ] {
        let (_origin, rempart) = before(bad, true);
        match rempart.client().get(HOST, "/bad") {
            // An edge that notices before it has sent the head may still answer properly.
            Ok(response) => assert_eq!(response.status, 502, "{name} over h1: {response:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{name} over h1: {error}"),
        }
        let answer = rempart.http2(HOST).get(HOST, "/bad");
        assert!(
            answer.as_ref().is_err() || answer.as_ref().is_ok_and(|answer| answer.status == 502),
            "{name} over h2: {answer:?}"
        );
        assert_eq!(rempart.client().get(HOST, "/good").unwrap().text(), "fine", "after {name}");
    }
}
