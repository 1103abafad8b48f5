//! 500 generated requests go to the same origin directly and through Rempart, over HTTP/1.1 and HTTP/2: what the
//! origin saw and what the client got must be the same, but for a list of named differences.

mod cases;
mod compare;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use harness::client::Client;
use harness::config::Config;
use harness::http2::Http2;
use harness::origin::{Origin, Reply, Seen};
use harness::rempart::Rempart;
use harness::wire::{Field, Length};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use cases::{Case, Sent};
use compare::{Asked, Exchange, Got, differences};

const HOST: &str = "differential.test";
const CASES: usize = 500;
/// Chosen once; another number makes another 500 requests.
const SEED: u64 = 20_251_118;

/// An origin that answers each case as the case says.
fn origin(cases: &Arc<Vec<Case>>) -> Origin {
    let cases = cases.clone();
    Origin::answering(move |seen| match number(seen).and_then(|number| cases.get(number)) {
        Some(case) => Reply { bytes: case.reply.bytes(&case.method), close: case.reply.closes() },
        None => Reply::text(404, "no such case"),
    })
}

fn number(seen: &Seen) -> Option<usize> {
    seen.head.text("x-case")?.parse().ok()
}

/// What the origin saw, by case; a case seen twice is a mistake of its own.
fn asked(origin: &Origin) -> HashMap<usize, Asked> {
    let mut found = HashMap::new();
    for seen in origin.seen() {
        let number = number(&seen).expect("only cases are sent");
        assert!(found.insert(number, Asked::from(&seen)).is_none(), "case {number} was sent twice: {seen:?}");
    }
    found
}

/// Sends every case over HTTP/1.1; a connection is used as long as it lasts.
fn over_http1(cases: &[Case], origin: &Origin, connect: impl Fn() -> Client) -> Vec<Exchange> {
    let mut open: Option<Client> = None;
    let mut answers = Vec::new();
    for case in cases {
        let mut client = open.take().unwrap_or_else(&connect);
        client.send(case.bytes(HOST)).unwrap_or_else(|error| panic!("{}: {error}", case.describe()));
        let got =
            client.response(&case.method).unwrap_or_else(|error| panic!("{}: {error}", case.describe()));
        let closing = got.head.all("connection").iter().any(|value| value.eq_ignore_ascii_case(b"close"));
        if !closing && got.body.length != Length::UntilClose && !case.closes() {
            open = Some(client);
        }
        answers.push(Got::from(got));
    }
    let mut asked = asked(origin);
    answers.into_iter().enumerate().map(|(i, got)| Exchange { asked: asked.remove(&i), got }).collect()
}

/// Sends every case that HTTP/2 can express on one connection; `None` for the others.
fn over_http2(cases: &[Case], origin: &Origin, client: &mut Http2) -> Vec<Option<Exchange>> {
    let mut answers = Vec::new();
    for case in cases {
        let answer = http2_request(case).map(|(request, body, trailers)| {
            let answer = client.exchange(request, body, trailers);
            Got::from(answer.unwrap_or_else(|words| panic!("{} over h2: {words}", case.describe())))
        });
        answers.push(answer);
    }
    let mut asked = asked(origin);
    let exchange = |(i, got): (usize, Option<Got>)| got.map(|got| Exchange { asked: asked.remove(&i), got });
    answers.into_iter().enumerate().map(exchange).collect()
}

type Http2Request = (Request<()>, Vec<Bytes>, Option<HeaderMap>);

/// The case as HTTP/2, or `None` when that has no words for it (hop-by-hop fields, targets the library refuses).
fn http2_request(case: &Case) -> Option<Http2Request> {
    let uri: Uri = format!("https://{HOST}{}", case.target).parse().ok()?;
    if uri.path_and_query()?.as_str() != case.target || case.has_hop_by_hop() {
        return None;
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(case.method.as_bytes()).ok()?;
    *request.uri_mut() = uri;
    *request.headers_mut() = header_map(&case.fields)?;
    let (body, trailers) = match &case.body {
        Sent::Nothing => (Vec::new(), None),
        Sent::Sized(bytes) => {
            request.headers_mut().insert("content-length", bytes.len().into());
            (vec![Bytes::from(bytes.clone())], None)
        }
        Sent::Chunked(pieces, trailers) => {
            let body = pieces.iter().cloned().map(Bytes::from).collect();
            (body, if trailers.is_empty() { None } else { Some(header_map(trailers)?) })
        }
    };
    Some((request, body, trailers))
}

fn header_map(fields: &[Field]) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(map)
}

/// Fails with the first differing cases, if any.
fn judge(way: &str, cases: &[Case], direct: &[Exchange], through: &[Option<Exchange>]) {
    let mut reports = Vec::new();
    for ((case, direct), through) in cases.iter().zip(direct).zip(through) {
        let Some(through) = through else { continue };
        let found = differences(case, direct, through);
        if !found.is_empty() {
            reports.push(format!("{}\n    {}", case.describe(), found.join("\n    ")));
        }
    }
    let shown = reports.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(reports.is_empty(), "{way}: {} of {} cases differ:\n{shown}", reports.len(), cases.len());
}

fn generated() -> (Arc<Vec<Case>>, Origin, Vec<Exchange>) {
    let cases = Arc::new(cases::generate(SEED, CASES));
    let origin = origin(&cases);
    let direct = over_http1(&cases, &origin, || Client::plain(origin.address()).unwrap());
    assert!(
        direct.iter().all(|exchange| exchange.asked.is_some()),
        "the origin saw every case sent directly"
    );
    (cases, origin, direct)
}

#[test]
fn five_hundred_requests_are_the_same_directly_and_through_http1() {
    let (cases, origin, direct) = generated();
    let config = Config::new().listeners().site("differential", &[HOST]).origin(origin.url());
    let rempart = Rempart::with(&config);
    for (way, connect) in [
        ("HTTP/1.1", &(|| rempart.client()) as &dyn Fn() -> Client),
        ("HTTP/1.1 over TLS", &|| rempart.tls_client(HOST)),
    ] {
        origin.forget();
        let through = over_http1(&cases, &origin, connect);
        judge(way, &cases, &direct, &through.into_iter().map(Some).collect::<Vec<_>>());
    }
}

#[test]
fn five_hundred_requests_are_the_same_directly_and_through_http2() {
    let (cases, origin, direct) = generated();
    let config = Config::new().listeners().site("differential", &[HOST]).origin(origin.url());
    let rempart = Rempart::with(&config);
    origin.forget();
    let through = over_http2(&cases, &origin, &mut rempart.http2(HOST));
    let expressible = through.iter().flatten().count();
    assert!(expressible > CASES * 3 / 4, "only {expressible} cases can be said in HTTP/2");
    judge("HTTP/2", &cases, &direct, &through);
}

/// The control: the origin asked directly twice differs nowhere, and a way that meddles is found out everywhere.
#[test]
fn the_comparison_finds_what_was_changed_and_nothing_else() {
    let (cases, origin, direct) = generated();
    origin.forget();
    let again = over_http1(&cases, &origin, || Client::plain(origin.address()).unwrap());
    judge("direct", &cases, &direct, &again.into_iter().map(Some).collect::<Vec<_>>());
    for (case, exchange) in cases.iter().zip(&direct) {
        assert!(exchange.asked.as_ref().is_some_and(|asked| !asked.fields.is_empty()), "{}", case.describe());
        for (what, meddle) in compare::MEDDLERS {
            let mut changed = exchange.clone();
            meddle(&mut changed);
            assert!(
                !differences(case, exchange, &changed).is_empty(),
                "{what} went unseen: {}",
                case.describe()
            );
        }
    }
}
