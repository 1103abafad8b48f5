//! The answer made of a stored response: its head, and which bytes follow (RFC 9111 section 4, RFC 9110 sections 13 and 14).

use base::headers::HeaderList;
use base::time::Timestamp;

use super::Request;
use super::range::{Span, Wanted, wanted};
use super::settings::{BrowserLifetime, Settings};
use super::stored::Stored;
use super::validators::{not_modified, range_applies};

/// Fields of a 304 (RFC 9110 section 15.4.5), and what says how old it is.
const OF_NOT_MODIFIED: [&[u8]; 8] = [
    b"cache-control",
    b"cdn-cache-control",
    b"content-location",
    b"date",
    b"etag",
    b"expires",
    b"vary",
    b"last-modified",
];

/// An answer from the cache.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Its status.
    pub status: u16,
    /// Its fields, `Age` and those of its length included, `Date` as it was.
    pub fields: HeaderList,
    /// What follows.
    pub body: Body,
}

/// Bytes after a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// None.
    Nothing,
    /// All there are; how many is not known while they still come.
    Whole,
    /// These.
    Span(Span),
    /// Several, each after its own head, and what ends them (`multipart/byteranges`, RFC 9110 section 14.6).
    Parts(Vec<(Vec<u8>, Span)>, Vec<u8>),
}

/// Makes the answer to a request. `boundary` separates parts, if there are several: it must be in none of them, so random.
pub fn serve(
    stored: &Stored,
    request: &Request<'_>,
    settings: &Settings,
    now: Timestamp,
    boundary: &str,
) -> Serve {
    let mut fields = stored.fields.clone();
    fields.push("Age", stored.age_seconds(now).to_string());
    browser_lifetime(&mut fields, settings.browser);
    let is_head = request.method == b"HEAD";
    if (200..300).contains(&stored.status) && not_modified(request.fields, &stored.fields, since(stored)) {
        fields.retain(|name, _| {
            name.eq_ignore_ascii_case(b"age")
                || OF_NOT_MODIFIED.iter().any(|kept| name.eq_ignore_ascii_case(kept))
        });
        return Serve { status: 304, fields, body: Body::Nothing };
    }
    // Ranges are defined for GET alone (RFC 9110 section 14.2).
    let ranged = request.method == b"GET" && stored.status == 200 && request.fields.contains(b"range");
    if let (true, Some(length)) =
        (ranged && range_applies(request.fields, &stored.fields, stored.answered), stored.length)
    {
        match wanted(request.fields, length) {
            Wanted::Whole => {}
            Wanted::Unsatisfiable => return unsatisfiable(fields, length),
            Wanted::Spans(spans) => match spans.as_slice() {
                [span] => return one(fields, *span, length),
                spans => return several(fields, spans, length, boundary),
            },
        }
    }
    if let Some(length) = stored.length.filter(|_| stored.status != 204) {
        fields.push("Content-Length", length.to_string());
    }
    let body = if is_head || stored.status == 204 { Body::Nothing } else { Body::Whole };
    Serve { status: stored.status, fields, body }
}

/// When it was made, for `If-Modified-Since` where it has no `Last-Modified` (RFC 9111 section 4.3.2).
fn since(stored: &Stored) -> Timestamp {
    stored.fields.get(b"date").and_then(super::validators::date).unwrap_or(stored.answered)
}

fn one(mut fields: HeaderList, span: Span, length: u64) -> Serve {
    fields.push("Content-Range", content_range(span, length));
    fields.push("Content-Length", span.length().to_string());
    Serve { status: 206, fields, body: Body::Span(span) }
}

fn content_range(span: Span, length: u64) -> String {
    format!("bytes {}-{}/{length}", span.first, span.last)
}

fn unsatisfiable(mut fields: HeaderList, length: u64) -> Serve {
    fields.retain(|name, _| {
        !name.eq_ignore_ascii_case(b"content-type") && !name.eq_ignore_ascii_case(b"content-encoding")
    });
    fields.push("Content-Range", format!("bytes */{length}"));
    fields.push("Content-Length", "0");
    Serve { status: 416, fields, body: Body::Nothing }
}

fn several(mut fields: HeaderList, spans: &[Span], length: u64, boundary: &str) -> Serve {
    let kind = fields.get(b"content-type").map(<[u8]>::to_vec);
    fields.remove(b"content-type");
    fields.push("Content-Type", format!("multipart/byteranges; boundary={boundary}"));
    let part = |(position, span): (usize, &Span)| {
        let before = if position == 0 { "" } else { "\r\n" };
        let mut head = format!("{before}--{boundary}\r\n").into_bytes();
        if let Some(kind) = &kind {
            head.extend([b"Content-Type: ", &kind[..], b"\r\n"].concat());
        }
        head.extend(format!("Content-Range: {}\r\n\r\n", content_range(*span, length)).into_bytes());
        (head, *span)
    };
    let parts: Vec<(Vec<u8>, Span)> = spans.iter().enumerate().map(part).collect();
    let end = format!("\r\n--{boundary}--\r\n").into_bytes();
    let bytes =
        parts.iter().map(|(head, span)| head.len() as u64 + span.length()).sum::<u64>() + end.len() as u64;
    fields.push("Content-Length", bytes.to_string());
    Serve { status: 206, fields, body: Body::Parts(parts, end) }
}

/// What browsers are told in place of what the origin says.
pub fn browser_lifetime(fields: &mut HeaderList, wanted: BrowserLifetime) {
    let said = fields.contains(b"cache-control") || fields.contains(b"expires");
    let text = match wanted {
        BrowserLifetime::RespectOrigin => return,
        BrowserLifetime::OriginOnly if said => return,
        BrowserLifetime::OriginOnly | BrowserLifetime::NotKept => "no-store".to_owned(),
        BrowserLifetime::Override(time) => format!("max-age={}", time.as_secs()),
    };
    fields.retain(|name, _| {
        !name.eq_ignore_ascii_case(b"cache-control") && !name.eq_ignore_ascii_case(b"expires")
    });
    fields.push("Cache-Control", text);
}
