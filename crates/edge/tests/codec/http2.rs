//! Requests as HTTP/2 delivers them, turned into the edge's own form.

use std::fmt::Write;

use edge::h2::convert;
use edge::message::BodyLength;
use http::{HeaderName, HeaderValue};

use crate::messages::LIMITS;

/// What becomes of a request given as `name: value` lines, pseudo-header fields included. `end: stream` says that the
/// stream ends with the head.
pub fn request(input: &[u8]) -> String {
    let mut uri = http::uri::Parts::default();
    let mut builder = http::Request::builder().version(http::Version::HTTP_2);
    let mut ends_here = false;
    let mut fields = Vec::new();
    for line in input.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap();
        let colon = line.iter().skip(1).position(|&byte| byte == b':').unwrap() + 1;
        let (name, value) = (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap());
        match name {
            b":method" => builder = builder.method(value),
            b":scheme" => uri.scheme = Some(value.try_into().unwrap()),
            b":authority" => uri.authority = Some(value.try_into().unwrap()),
            b":path" => uri.path_and_query = Some(value.try_into().unwrap()),
            b"end" => ends_here = true,
            name => {
                let value = HeaderValue::from_bytes(value).unwrap();
                fields.push((HeaderName::from_bytes(name).unwrap(), value));
            }
        }
    }
    // As h2 does it: without an authority, the scheme finds no place in a URI.
    if uri.authority.is_none() {
        uri.scheme = None;
    }
    let mut request = builder.uri(http::Uri::from_parts(uri).unwrap()).body(()).unwrap();
    fields.into_iter().for_each(|(name, value)| {
        request.headers_mut().append(name, value);
    });
    let (head, length) = match convert::request_head(request.into_parts().0, ends_here, &LIMITS) {
        Ok(read) => read,
        Err(refusal) => return format!("{} {}\n", refusal.status, refusal.reason),
    };
    let mut out = format!("{} {} {}", head.method, head.authority, head.target);
    if head.expects_continue {
        out.push_str(" expects-continue");
    }
    if head.accepts_trailers {
        out.push_str(" accepts-trailers");
    }
    match length {
        BodyLength::Absent => {}
        BodyLength::Exact(length) => write!(out, " length={length}").unwrap(),
        BodyLength::Unknown => out.push_str(" length=?"),
    }
    out.push('\n');
    for (name, value) in head.headers.iter() {
        writeln!(out, "{}: {}", String::from_utf8_lossy(name), value.escape_ascii()).unwrap();
    }
    out
}
