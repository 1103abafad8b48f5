//! An origin's answer that could be read in two ways becomes 502, its connection is not used again, and an answer
//! that was cut is never passed on as a complete one.

use std::io;
use std::sync::{Mutex, mpsc};

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
    let rempart = Rempart::with(&config(&origin));
    (origin, rempart)
}

fn config(origin: &Origin) -> Config {
    // One thread has one pool, so a connection that was kept would be taken again.
    let config =
        Config::empty().raw("[metrics]\nlisten = \"off\"\n[log.access]\nto = \"off\"\n[limits]\nthreads = 1");
    let config = config.listeners().site("strict", &[HOST]).origin(origin.url());
    config.raw("[site.retry]\nattempts = 0\n[site.health]\nfailures = 0")
}

const AMBIGUOUS: &[(&str, &str)] = &[
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
    (
        "TE after CL",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    ("the same CL twice", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("list of the same CL", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc"),
    ("CL with a comma", "HTTP/1.1 200 OK\r\nContent-Length: 3,\r\n\r\nabc"),
    ("CL empty", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc"),
    ("CL folded", "HTTP/1.1 200 OK\r\nContent-Length:\r\n 3\r\n\r\nabc"),
    ("CL with an underscore", "HTTP/1.1 200 OK\r\nContent_Length: 3\r\nContent-Length: 1_0\r\n\r\nabc"),
    ("TE empty", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("TE other than chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
    (
        "TE nobody decodes before chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "TE on two lines",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "TE with a vertical tab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    ("fold before the first field", "HTTP/1.1 200 OK\r\n A: b\r\nContent-Length: 3\r\n\r\nabc"),
    ("bare CR in the status line", "HTTP/1.1 200 OK\rA: b\r\nContent-Length: 3\r\n\r\nabc"),
    ("bare CR after the head", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\rabc\r\n\r\n"),
    ("control byte in a value", "HTTP/1.1 200 OK\r\nA: b\u{1}c\r\nContent-Length: 3\r\n\r\nabc"),
    ("DEL in a value", "HTTP/1.1 200 OK\r\nA: b\u{7f}c\r\nContent-Length: 3\r\n\r\nabc"),
    ("NUL in the reason", "HTTP/1.1 200 O\0K\r\nContent-Length: 3\r\n\r\nabc"),
    ("empty name", "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 3\r\n\r\nabc"),
    ("name that is no token", "HTTP/1.1 200 OK\r\nA(b): c\r\nContent-Length: 3\r\n\r\nabc"),
    ("name beyond ASCII", "HTTP/1.1 200 OK\r\n\u{e9}: c\r\nContent-Length: 3\r\n\r\nabc"),
    ("version in lower case", "http/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("version with two digits", "HTTP/1.10 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("two blanks before the status", "HTTP/1.1  200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("tab before the status", "HTTP/1.1\t200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("status with a sign", "HTTP/1.1 +20 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("junk before the status line", "junk\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    (
        "interim answer with content",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "interim answer that is malformed",
        "HTTP/1.1 103 Early Hints\r\nA : b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "connection option that is no token",
        "HTTP/1.1 200 OK\r\nConnection: a b\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "first chunk, size with plus",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, size with minus",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, size with 0x",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, size with underscore",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1_0\r\nabc\r\n0\r\n\r\n",
    ),
    ("first chunk, size empty", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n"),
    (
        "first chunk, size not hexadecimal",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, size beyond 64 bits",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, blank before the size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, blank after the size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, bare LF after the size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, bare CR after the size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, empty extension",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, bare LF in a quoted extension",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"\n\"\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "first chunk, open quote in an extension",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\r\nabc\r\n0\r\n\r\n",
    ),
];

#[test]
fn an_ambiguous_answer_becomes_502_and_its_connection_is_not_used_again() {
    // `/bad/7` is answered with row 7.
    let origin = Origin::scripted(|connection| {
        while let Some(seen) = connection.request()? {
            let row = seen.target().strip_prefix("/bad/").and_then(|row| row.parse::<usize>().ok());
            let good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
            connection.send(row.map_or(good, |row| AMBIGUOUS[row].1))?;
        }
        Ok(())
    });
    let rempart = Rempart::with(&config(&origin));
    let mut wrong = Vec::new();
    for (row, (name, _)) in AMBIGUOUS.iter().enumerate() {
        origin.forget();
        match rempart.client().get(HOST, &format!("/bad/{row}")) {
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

/// Half an answer that the origin then hangs up on is no answer either.
#[test]
fn an_answer_that_ends_too_early_becomes_502() {
    for (name, bad) in [
        ("nothing", ""),
        ("half a status line", "HTTP/1.1 2"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"),
        ("only an interim answer", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ] {
        let (origin, rempart) = before(bad, true);
        assert_eq!(rempart.client().get(HOST, "/bad").unwrap().status, 502, "{name}");
        assert_eq!(rempart.client().get(HOST, "/good").unwrap().text(), "fine", "after {name}");
        assert_new_connection(&origin, name);
    }
}

/// The last request came on a connection that no other one had used.
fn assert_new_connection(origin: &Origin, name: &str) {
    let seen = origin.seen();
    let (last, before) = seen.split_last().unwrap();
    assert!(
        before.iter().all(|seen| seen.connection != last.connection),
        "after {name}: the connection was used again"
    );
}

/// Answers that have no content by what they are (RFC 9110 sections 6.4.1, 15.3.5 and 15.4.5): what follows is nobody's.
#[test]
fn content_where_there_is_none_is_thrown_away_with_its_connection() {
    const FIELDS: &str = "Content-Length: 4\r\n\r\nevil";
    for (method, status, expected_length) in [
        ("GET", "204 No Content", None),
        ("GET", "304 Not Modified", Some("4")),
        ("HEAD", "200 OK", Some("4")),
    ] {
        let (origin, rempart) = before(format!("HTTP/1.1 {status}\r\n{FIELDS}"), false);
        let mut client = rempart.client();
        let answer = client.exchange(format!("{method} /bad HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
        assert!(status.starts_with(&answer.status.to_string()), "{status}: {answer:?}");
        // RFC 9110 section 8.6: no Content-Length in a 204; in the others it tells what there would be.
        assert_eq!(answer.head.text("content-length").as_deref(), expected_length, "{status}");
        assert_eq!(client.get(HOST, "/good").unwrap().text(), "fine", "after {status}");
        assert_new_connection(&origin, status);
    }
}

/// RFC 9110 section 7.8: a server switches to what the client asked for, or not at all.
#[test]
fn a_switch_to_another_protocol_becomes_502() {
    for chosen in ["Upgrade: chat\r\n", "Upgrade: websocket, chat\r\n", ""] {
        let bad = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{chosen}\r\n");
        let (origin, rempart) = before(bad, false);
        let ask = "GET /bad HTTP/1.1\r\nHost: origin-strict.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(rempart.client().exchange(ask).unwrap().status, 502, "{chosen:?}");
        assert_eq!(rempart.client().get(HOST, "/good").unwrap().text(), "fine", "after {chosen:?}");
        assert_new_connection(&origin, chosen);
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

/// RFC 9112 section 9.2: what comes on a connection that was asked nothing is no answer to what is asked next.
#[test]
fn an_answer_before_its_question_is_nobodys_answer() {
    let (speak, told) = mpsc::sync_channel::<()>(1);
    let (spoken, heard) = mpsc::sync_channel::<()>(1);
    let told = Mutex::new(told);
    let origin = Origin::scripted(move |connection| {
        while connection.request()?.is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")?;
            if connection.number == 0 && told.lock().unwrap().recv().is_ok() {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")?;
                spoken.send(()).unwrap();
            }
        }
        Ok(())
    });
    let rempart = Rempart::with(&config(&origin));
    assert_eq!(rempart.client().get(HOST, "/first").unwrap().text(), "fine");
    speak.send(()).unwrap();
    heard.recv().unwrap();
    assert_eq!(rempart.client().get(HOST, "/second").unwrap().text(), "fine");
    assert_new_connection(&origin, "an answer nobody asked for");
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
        (
            "folded trailer",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\nA: b\r\n c\r\n\r\n",
        ),
        (
            "length in a trailer",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\nContent-Length: 4\r\n\r\n",
        ),
    ] {
        let (origin, rempart) = before(bad, name.contains("cut"));
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
        assert_new_connection(&origin, name);
    }
}
