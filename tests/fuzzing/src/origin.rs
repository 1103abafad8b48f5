//! What an origin gets for a request that was taken: the same request, to somebody else who reads it.
//!
//! The head is put together here from the parts `upstream::deliver` puts it together from, in the same order.

use std::net::{IpAddr, Ipv4Addr};

use base::address::PrefixSet;
use base::event::Protocol;
use edge::forwarded::{self, Scheme, Visit, client_of};
use edge::h1::encode::{self, BodyFraming};
use edge::h1::parse::HeadLimits;
use edge::hop::ConnectionFields;
use snapshot::generation::Compatibility;

use crate::second_reading::body::{Body, Ending};
use crate::second_reading::head::{self, Reading};
use crate::second_reading::message::{self, End, Request};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OWN: &str = "edge";
/// Room for what the edge adds.
const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 64, target: 256 };
/// Fields the edge writes itself.
const WRITTEN: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "cdn-loop"];

/// Passes the request on and reads what arrives.
pub fn check(request: &Request) {
    let bytes =
        |text: &str| text.chars().map(|character| u8::try_from(character).unwrap()).collect::<Vec<u8>>();
    let fields: Vec<(Vec<u8>, Vec<u8>)> =
        request.head.fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
    let pairs = || fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let Ok(options) = ConnectionFields::read(pairs()) else { return };
    let passes =
        |name: &[u8]| options.forwards(name) && forwarded::passes(name, false, Compatibility::Neutral);

    let host = if request.head.authority.is_empty() { "origin.example" } else { &request.head.authority };
    let mut wire = format!("{} {} HTTP/1.1\r\n", request.head.method, request.head.target).into_bytes();
    encode::field(&mut wire, b"Host", host.as_bytes());
    for (name, value) in pairs().filter(|(name, _)| passes(name)) {
        encode::field(&mut wire, name, value);
    }
    write_own_fields(&mut wire, request, host, pairs());
    let framing = match request.head.body {
        head::Body::None => BodyFraming::None,
        head::Body::Length(length) => BodyFraming::Length(length),
        head::Body::Chunked => BodyFraming::Chunked,
    };
    encode::framing_field(&mut wire, framing);
    wire.extend_from_slice(b"\r\n");
    write_body(&mut wire, request, framing);

    let (arrived, end) = message::requests(&wire, &LIMITS);
    let shown = wire.escape_ascii().to_string();
    let complete = request.body.ending == Ending::Complete;
    assert_eq!(end, if complete { End::Between } else { End::Within }, "{shown}");
    let arrived = arrived.into_iter().next().unwrap_or_else(|| panic!("no request in {shown}"));
    let sent = Reading {
        authority: host.to_owned(),
        http10: false,
        keep_alive: true,
        fields: request.head.fields.iter().filter(|(name, _)| passes(&bytes(name))).cloned().collect(),
        method: request.head.method.clone(),
        target: request.head.target.clone(),
        body: match &request.head.body {
            head::Body::None => head::Body::None,
            head::Body::Length(length) => head::Body::Length(*length),
            head::Body::Chunked => head::Body::Chunked,
        },
    };
    let mut head = arrived.head;
    let before = head.fields.len();
    head.fields.retain(|(name, _)| !WRITTEN.iter().any(|written| name.eq_ignore_ascii_case(written)));
    assert!(
        before - head.fields.len() >= WRITTEN.len() - 1,
        "each once, the host only if it has one: {shown}"
    );
    assert_eq!(head, sent, "{shown}");
    let body = |body: &Body| (body.content.clone(), body.trailers.clone());
    if complete {
        assert_eq!(body(&arrived.body), body(&request.body), "{shown}");
    }
}

fn write_own_fields<'a>(
    wire: &mut Vec<u8>,
    request: &Request,
    host: &str,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) {
    let client = client_of(PEER, &PrefixSet::new([]), pairs.clone());
    let visit = Visit { client: &client, peer: PEER, scheme: Scheme::Https, host: host.as_bytes() };
    let mut value = Vec::new();
    let mut put = |name: &[u8], write: &dyn Fn(&mut Vec<u8>)| {
        value.clear();
        write(&mut value);
        encode::field(wire, name, &value);
    };
    let protocol = if request.head.http10 { Protocol::Http10 } else { Protocol::Http11 };
    put(b"Forwarded", &|value| visit.write_forwarded(pairs.clone(), value));
    put(b"X-Forwarded-For", &|value| visit.write_x_forwarded_for(pairs.clone(), value));
    put(b"X-Forwarded-Proto", &|value| value.extend_from_slice(visit.client_scheme().name().as_bytes()));
    if let Some(host) = visit.client_host() {
        put(b"X-Forwarded-Host", &|value| value.extend_from_slice(host.as_bytes()));
    }
    put(b"Via", &|value| forwarded::write_via(pairs.clone(), protocol, OWN, value));
    put(b"CDN-Loop", &|value| forwarded::write_cdn_loop(pairs.clone(), OWN, value));
}

/// The content in two chunks where it is chunked, and the trailers that came with it.
fn write_body(wire: &mut Vec<u8>, request: &Request, framing: BodyFraming) {
    let content = request.body.content.as_slice();
    if framing != BodyFraming::Chunked {
        wire.extend_from_slice(content);
        return;
    }
    let (front, back) = content.split_at(content.len() / 2);
    for chunk in [front, back].into_iter().filter(|chunk| !chunk.is_empty()) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    if request.body.ending == Ending::Complete {
        wire.extend_from_slice(b"0\r\n");
        for (name, value) in &request.body.trailers {
            let bytes = |text: &str| text.chars().map(|character| character as u8).collect::<Vec<u8>>();
            encode::field(wire, &bytes(name), &bytes(value));
        }
        wire.extend_from_slice(b"\r\n");
    }
}
