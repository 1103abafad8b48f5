//! Building blocks of answers: bodies, headers, and numbers from a query.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode, Uri};

/// An answer of the demo site.
pub type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Answers with a body that is already there.
pub fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    with(reply, header::CONTENT_TYPE, content_type)
}

/// Answers with a body that is made while it is sent.
pub fn stream(
    content_type: &'static str,
    frames: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
) -> Reply {
    with(Response::new(StreamBody::new(frames).boxed_unsync()), header::CONTENT_TYPE, content_type)
}

/// Answers with JSON, indented so that a person can read it.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    uncached(full(status, "application/json", format!("{value:#}\n")))
}

/// Answers with one sentence of plain text.
pub fn text(status: StatusCode, sentence: &str) -> Reply {
    full(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

/// Sends the browser elsewhere with GET (RFC 9110 section 15.4.4).
pub fn see_other(place: &'static str) -> Reply {
    with(text(StatusCode::SEE_OTHER, place), header::LOCATION, place)
}

/// The path is right and the method is not (RFC 9110 section 15.5.6).
pub fn method_not_allowed(allowed: &'static str) -> Reply {
    let sentence = format!("This address answers to {allowed} only.");
    with(text(StatusCode::METHOD_NOT_ALLOWED, &sentence), header::ALLOW, allowed)
}

/// Keeps an answer that changes with every request out of caches.
pub fn uncached(reply: Reply) -> Reply {
    with(reply, header::CACHE_CONTROL, "no-store")
}

/// Sets a header; a value that HTTP does not allow is left out.
pub fn with(mut reply: Reply, name: HeaderName, value: impl AsRef<str>) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// A number from the query, held within `least..=most`; `usual` when it is missing or not a number.
pub fn number(uri: &Uri, name: &str, usual: u64, least: u64, most: u64) -> u64 {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    values.next().and_then(|value| value.parse().ok()).unwrap_or(usual).clamp(least, most)
}
