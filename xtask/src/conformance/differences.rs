//! Does the origin see what the client sent, and the client what the origin answered? Foreign vectors go through a target to
//! an origin that understands whatever it can, and a slow reading of the RFC says what should have come out.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use super::lax::{LaxOrigin, Recorded, Script, ScriptedOrigin};
use super::reading::{self, End, Request, Response};
use super::vectors::Vector;
use super::{Score, rempart};
use crate::peers::{Name, Place, Server};

/// How long a target may take over one vector; nobody who has read the end of the client's bytes needs it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Asked after each vector: it shows what was left behind on the connection to the origin.
const SENTINEL: &[u8] = b"GET /sentinel HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// How long nothing may come before a client of a whole run hangs up.
const QUIET: Duration = Duration::from_millis(120);
/// The same where thousands of vectors are tried; what then looks wrong is tried again with `QUIET`.
const HASTE: Duration = Duration::from_millis(6);
/// What is asked when the answer is the vector.
const QUESTION: &[u8] = b"GET /vector HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Fields that belong to one connection or to framing, or that a proxy writes itself.
const NOT_COMPARED: &[&str] = &[
    "cdn-loop",
    "connection",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "rempart-request-id",
    "server",
    "te",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// What became of one vector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// What came out is what went in.
    Same,
    /// Refused from where the RFC has it refused, or lets it.
    Refused,
    /// Taken where the RFC leaves a choice.
    Choice,
    /// Refused, although it says one thing only.
    Lost(String),
    /// Something else came out than went in.
    Different(String),
}

use Verdict::{Choice, Different, Lost, Refused, Same};

/// Requests through Rempart, in a whole run through nginx, and straight to the lax origin.
pub fn requests(place: &Place, vectors: &[Vector], whole: bool) -> Result<Vec<Score>> {
    let (origin, quiet) = (LaxOrigin::start()?, if whole { QUIET } else { HASTE });
    let run = |target: &str, port: u16, again: bool| {
        println!("requests against {target}: {} vectors", vectors.len());
        let verdicts = vectors
            .iter()
            .map(|vector| patiently(quiet, again, |quiet| request(vector, port, &origin, quiet)));
        Ok::<_, anyhow::Error>(score(target, vectors, &verdicts.collect::<Result<Vec<_>>>()?))
    };
    let server = rempart(place, origin.port)?;
    let mut scores = vec![run(server.name.shown(), server.plain_port, true)?];
    drop(server);
    if whole {
        let nginx = Server::start(place, Name::Nginx, origin.port)?;
        scores.push(run(nginx.name.shown(), nginx.plain_port, false)?);
    }
    let control = run("control: the origin itself", origin.port, false)?;
    scores.push(Score { control: true, ..control });
    Ok(scores)
}

/// Responses through Rempart, in a whole run through nginx, and straight from the origin.
pub fn responses(place: &Place, vectors: &[Vector], whole: bool) -> Result<Vec<Score>> {
    let (origin, quiet) = (ScriptedOrigin::start()?, if whole { QUIET } else { HASTE });
    let run = |target: &str, port: u16, again: bool| {
        println!("responses against {target}: {} vectors", vectors.len());
        let verdicts = vectors
            .iter()
            .map(|vector| patiently(quiet, again, |quiet| response(vector, port, &origin, quiet)));
        Ok::<_, anyhow::Error>(score(target, vectors, &verdicts.collect::<Result<Vec<_>>>()?))
    };
    let server = rempart(place, origin.port)?;
    let mut scores = vec![run(server.name.shown(), server.plain_port, true)?];
    drop(server);
    if whole {
        let nginx = Server::start(place, Name::Nginx, origin.port)?;
        scores.push(run(nginx.name.shown(), nginx.plain_port, false)?);
    }
    let control = run("control: the origin itself", origin.port, false)?;
    scores.push(Score { control: true, ..control });
    Ok(scores)
}

fn score(target: &str, vectors: &[Vector], verdicts: &[Verdict]) -> Score {
    let count = |is: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| is(verdict)).count();
    let misses = vectors.iter().zip(verdicts).filter_map(|(vector, verdict)| match verdict {
        Lost(what) => Some(format!("{}: refused, though clear ({what})", vector.name)),
        Different(what) => Some(format!("{}: SEEN DIFFERENTLY ({what})", vector.name)),
        _ => None,
    });
    let differently = count(|verdict| matches!(verdict, Different(_)));
    Score {
        target: target.to_owned(),
        counts: vec![
            ("right", count(|verdict| matches!(verdict, Same | Refused | Choice))),
            ("of these as sent", count(|verdict| *verdict == Same)),
            ("of these refused", count(|verdict| *verdict == Refused)),
            ("of these a choice", count(|verdict| *verdict == Choice)),
            ("refused, though clear", count(|verdict| matches!(verdict, Lost(_)))),
            ("seen differently", differently),
        ],
        misses: misses.collect(),
        control: false,
        defects: differently,
    }
}

/// Sends bytes, says that there are no more, and reads until the other side ends or dawdles.
///
/// It only says so when nothing has come for `quiet`: the end of the client's bytes is the end of the client.
fn exchange(port: u16, bytes: &[u8], quiet: Duration) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("the target is gone")?;
    let mut answer = Vec::new();
    // Whoever refuses hangs up early, and may reset what is left unread.
    drop(stream.write_all(bytes));
    stream.set_read_timeout(Some(quiet))?;
    drop(stream.read_to_end(&mut answer));
    stream.set_read_timeout(Some(PATIENCE))?;
    drop(stream.shutdown(Shutdown::Write).and_then(|()| stream.read_to_end(&mut answer)));
    Ok(answer)
}

/// An answer that came later than it was waited for looks like one that was lost: `again`, with more patience.
fn patiently(quiet: Duration, again: bool, once: impl Fn(Duration) -> Result<Verdict>) -> Result<Verdict> {
    match once(quiet)? {
        Lost(_) | Different(_) if again && quiet < QUIET => once(QUIET),
        verdict => Ok(verdict),
    }
}

/// One request vector.
fn request(vector: &Vector, port: u16, origin: &LaxOrigin, quiet: Duration) -> Result<Verdict> {
    let answer = exchange(port, &vector.bytes, quiet)?;
    let after = exchange(port, SENTINEL, quiet)?;
    let mut seen = origin.take();
    let last = seen.pop().unwrap_or_default();
    if !last.raw.starts_with(b"GET /sentinel ") || !after.windows(4).any(|window| window == b" 200") {
        return Ok(Different("the request after it did not arrive as it was sent".to_owned()));
    }
    Ok(judge_requests(&vector.bytes, &seen, answers(&answer)))
}

/// Final responses in an answer; no vector's body looks like a status line.
fn answers(answer: &[u8]) -> usize {
    let status = |window: &[u8]| {
        window.starts_with(b"HTTP/1.") && matches!(window.get(8..10), Some([b' ', b'2'..=b'5']))
    };
    answer.windows(10).filter(|window| status(window)).count()
}

/// Compares what the origin understood with what the client said.
fn judge_requests(sent: &[u8], seen: &[Recorded], answers: usize) -> Verdict {
    let (said, end) = reading::requests(sent);
    for (position, recorded) in seen.iter().enumerate() {
        let Some(said) = said.get(position) else {
            return match end {
                End::Choice(_) => Choice,
                _ => Different(format!(
                    "{} request(s) too many: {}",
                    seen.len() - position,
                    shown(&recorded.raw)
                )),
            };
        };
        let (read, read_end) = reading::requests(&recorded.raw);
        let [read] = read.as_slice() else {
            return Different(format!("the origin got {read_end:?}: {}", shown(&recorded.raw)));
        };
        if read.body != recorded.body {
            return Different(format!("origins disagree on the body: {}", shown(&recorded.raw)));
        }
        if let Some(difference) = difference(said, read) {
            return Different(format!("{difference}: {}", shown(&recorded.raw)));
        }
    }
    if answers < seen.len() {
        return Different(format!("{answers} answers to {} requests", seen.len()));
    }
    if seen.len() < said.len() {
        return Lost(format!("{} of {} requests arrived", seen.len(), said.len()));
    }
    if end == End::Clean { Same } else { Refused }
}

fn difference(said: &Request, read: &Request) -> Option<String> {
    let line = |request: &Request| format!("{} {} {}", request.method, request.authority, request.target);
    if line(said) != line(read)
        && !(said.authority.is_empty() && said.method == read.method && said.target == read.target)
    {
        return Some(format!("`{}` became `{}`", line(said), line(read)));
    }
    if said.body != read.body {
        return Some(format!("a body of {} bytes became one of {}", said.body.len(), read.body.len()));
    }
    changed_fields(&said.fields, &read.fields)
}

/// A field that came out changed, or only on one side, with the sender's connection options as the excuse.
fn changed_fields(said: &[(String, Vec<u8>)], read: &[(String, Vec<u8>)]) -> Option<String> {
    let options: Vec<String> = reading::list(said, "connection")
        .map(|option| String::from_utf8_lossy(option).to_ascii_lowercase())
        .collect();
    let compared = |fields: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
        let kept = |name: &String| !NOT_COMPARED.contains(&name.as_str()) && !options.contains(name);
        fields.iter().filter(|(name, _)| kept(name)).cloned().collect()
    };
    let (said, read) = (compared(said), compared(read));
    (said != read).then(|| {
        let odd = said
            .iter()
            .filter(|field| !read.contains(field))
            .chain(read.iter().filter(|field| !said.contains(field)));
        let names: Vec<&str> = odd.map(|(name, _)| name.as_str()).collect();
        format!("fields changed: {}", names.join(", "))
    })
}

/// One response vector.
fn response(vector: &Vector, port: u16, origin: &ScriptedOrigin, quiet: Duration) -> Result<Verdict> {
    // Left open where the message says itself how long it is, so that its connection could be used again.
    let close = reading::response(&vector.bytes, false).is_err();
    origin.play(Script { bytes: vector.bytes.clone(), close });
    let answer = exchange(port, QUESTION, quiet)?;
    let after = exchange(port, SENTINEL, quiet)?;
    let asked = origin.take();
    let said = reading::response(&vector.bytes, close);
    let verdict = judge_response(&said, &answer);
    if !after.ends_with(b"sentinel") {
        return Ok(Different("the next answer is not the next request's".to_owned()));
    }
    let on: Vec<usize> = asked.iter().map(|(connection, _)| *connection).collect();
    let may_be_reused =
        said.is_ok_and(|(response, left)| response.reusable && left == 0) || verdict == Choice;
    if let [first, second] = on.as_slice()
        && first == second
        && !may_be_reused
    {
        return Ok(Different("its connection was used again".to_owned()));
    }
    Ok(verdict)
}

/// Compares what the client got with what the origin answered.
fn judge_response(said: &Result<(Response, usize), End>, answer: &[u8]) -> Verdict {
    let got = reading::response(answer, true);
    match (said, got) {
        (_, Err(End::Choice(why) | End::Forbidden(why))) => {
            Different(format!("the client got {why}: {}", shown(answer)))
        }
        (Err(_), Err(_)) => Refused,
        (Ok(_), Err(_)) => Lost("the answer is cut".to_owned()),
        (Err(_), Ok((got, _))) if got.status == 502 => Refused,
        (Err(End::Choice(_)), Ok(_)) => Choice,
        (Err(end), Ok(_)) => Different(format!("{end:?} became a whole answer: {}", shown(answer))),
        (Ok(_), Ok((got, _))) if got.status == 502 => Lost("502".to_owned()),
        (Ok((said, _)), Ok((got, _))) => {
            if said.status != got.status || said.body != got.body {
                return Different(format!("another status or body: {}", shown(answer)));
            }
            changed_fields(&said.fields, &got.fields).map_or(Same, Different)
        }
    }
}

/// The beginning of some bytes, for people.
fn shown(bytes: &[u8]) -> String {
    let beginning = bytes.get(..120).unwrap_or(bytes);
    format!("`{}`", beginning.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(raw: &str, body: &str) -> Recorded {
        Recorded { raw: raw.as_bytes().to_vec(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn what_the_origin_understood_decides() {
        let post = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        let forwarded = "POST /a HTTP/1.1\r\nHost: A\r\nVia: 1.1 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        let judge = |sent: &str, seen: &[Recorded], answers| judge_requests(sent.as_bytes(), seen, answers);
        assert_eq!(judge(post, &[recorded(forwarded, "hi")], 1), Same);
        assert!(matches!(judge(post, &[], 1), Lost(_)));
        assert!(matches!(judge(post, &[recorded(forwarded, "h")], 1), Different(_)));
        assert!(matches!(judge(post, &[recorded(post, "hi"), recorded(post, "hi")], 2), Different(_)));
        assert!(matches!(judge(post, &[recorded(post, "hi")], 0), Different(_)));
        let other = post.replace("/a", "/b");
        assert!(matches!(judge(post, &[recorded(&other, "hi")], 1), Different(_)));
        let more = post.replace("Host", "Evil: 1\r\nHost");
        assert!(matches!(judge(post, &[recorded(&more, "hi")], 1), Different(_)));
        let bad = post.replace("Content-Length: 2", "Content-Length: +2");
        assert_eq!(judge(&bad, &[], 1), Refused);
        assert!(matches!(judge(&bad, &[recorded(post, "hi")], 1), Different(_)));
        let bare = post.replace("\r\n", "\n");
        assert_eq!(judge(&bare, &[recorded(post, "hi")], 1), Choice);
    }

    #[test]
    fn what_the_client_got_decides() {
        let judge =
            |said: &str, got: &str| judge_response(&reading::response(said.as_bytes(), true), got.as_bytes());
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let bad_gateway = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
        let ambiguous = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi";
        assert_eq!(judge(ok, ok), Same);
        assert_eq!(judge(ambiguous, bad_gateway), Refused);
        assert!(matches!(judge(ambiguous, ok), Different(_)));
        assert!(matches!(judge(ok, bad_gateway), Lost(_)));
        assert!(matches!(judge(ok, &ok.replace("hi", "ho")), Different(_)));
        assert!(matches!(judge(&ok.replace(": 2", ": 9"), ok), Different(_)));
        assert_eq!(answers(format!("HTTP/1.1 100 Continue\r\n\r\n{ok}{ok}").as_bytes()), 2);
    }
}
