//! Bodies that take their time: events, drips, downloads with ranges, uploads, trailers, and one that breaks off.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::json;

use super::Site;
use super::reply::{self, Reply, number, text, uncached, with};

/// Events one connection gets; the browser then connects again and goes on where it was.
const MAX_EVENTS: u64 = 3600;
/// Time between two events, and between two drips.
const BEAT: Duration = Duration::from_secs(1);
/// Longest wait of the slow pages, in seconds.
const MAX_SECONDS: u64 = 30;
/// Largest download and largest upload, in bytes.
pub const MAX_TRANSFER_BYTES: u64 = 4 << 30;
/// Bytes of a download made at a time.
const CHUNK_BYTES: u64 = 64 * 1024;
/// Length of a line of a download. It tells its own offset, so a piece shows where it belongs.
pub const LINE_BYTES: u64 = 32;

/// Where a line has its offset; ten digits reach far beyond the largest download.
const OFFSET_DIGITS: std::ops::Range<usize> = 16..26;
const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

const PLAIN: &str = "text/plain; charset=utf-8";

/// One event per second, numbered; goes on after `Last-Event-ID` (HTML Standard, section 9.2).
pub fn events(request: &Request<Incoming>, site: &Site) -> Reply {
    let seen = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let first = seen.and_then(|id| id.parse::<u64>().ok()).map_or(1, |id| id.saturating_add(1));
    let open = site.open.clone();
    let events = stream::unfold((first, open), move |(id, mut open)| async move {
        if id - first >= MAX_EVENTS {
            return None;
        }
        if id > first {
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                _ = open.changed() => return None,
            }
        }
        let retry = if id == first { "retry: 1000\n" } else { "" };
        let now = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default();
        let event = format!("{retry}id: {id}\nevent: tick\ndata: {{\"number\":{id},\"at\":\"{now}\"}}\n\n");
        Some((Ok(Frame::data(Bytes::from(event))), (id.checked_add(1)?, open)))
    });
    uncached(reply::stream("text/event-stream", events))
}

/// Answers after `seconds`, at most 30.
pub async fn slow(request: &Request<Incoming>) -> Reply {
    let seconds = number(request.uri(), "seconds", 5, 0, MAX_SECONDS);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    uncached(text(StatusCode::OK, &format!("The website took {seconds} s to answer, on purpose.")))
}

/// Answers at once, then sends one line per second.
pub fn drip(request: &Request<Incoming>) -> Reply {
    let seconds = number(request.uri(), "seconds", 5, 0, MAX_SECONDS);
    let lines = stream::unfold(0, move |line| async move {
        if line > seconds {
            return None;
        }
        if line > 0 {
            tokio::time::sleep(BEAT).await;
        }
        Some((Ok(Frame::data(Bytes::from(format!("drip {line} of {seconds}\n")))), line + 1))
    });
    uncached(reply::stream(PLAIN, lines))
}

/// Sends `bytes` bytes, or the range of them that is asked for (RFC 9110 section 14).
pub fn download(request: &Request<Incoming>) -> Reply {
    let size = number(request.uri(), "bytes", 1 << 20, 0, MAX_TRANSFER_BYTES);
    let tag = format!("\"demo-{size}\"");
    let headers = request.headers();
    // A range that was meant for another version is answered with the whole (RFC 9110 section 13.1.5).
    let same = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == tag.as_bytes());
    let wanted = headers.get(header::RANGE).filter(|_| same).and_then(|value| value.to_str().ok());
    let (status, start, end) = match wanted.map_or(Range::Whole, |wanted| range(wanted, size)) {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Range::Beyond => {
            let refusal = text(StatusCode::RANGE_NOT_SATISFIABLE, "There is nothing in that range.");
            return with(refusal, header::CONTENT_RANGE, format!("bytes */{size}"));
        }
    };
    let pieces = stream::unfold(start, move |offset| async move {
        let next = end.min(offset + CHUNK_BYTES);
        (offset < end).then(|| (Ok(Frame::data(piece(offset, next))), next))
    });
    let mut reply = reply::stream("application/octet-stream", pieces);
    *reply.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        reply = with(reply, header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
    }
    let reply = with(reply, header::CONTENT_LENGTH, (end - start).to_string());
    let reply = with(reply, header::CONTENT_DISPOSITION, "attachment; filename=\"demo.txt\"");
    with(with(reply, header::ACCEPT_RANGES, "bytes"), header::ETAG, tag)
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Everything: no range, several, or one in a unit or form not understood.
    Whole,
    /// From the first offset up to, not including, the second.
    Part(u64, u64),
    /// Nothing that exists.
    Beyond,
}

/// Reads `bytes=first-last`, `bytes=first-` or `bytes=-length` (RFC 9110 section 14.1.2).
fn range(field: &str, size: u64) -> Range {
    let Some((first, last)) = field.strip_prefix("bytes=").and_then(|spec| spec.trim().split_once('-'))
    else {
        return Range::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Range::Whole,
        (Ok(first), _) if first >= size && (last.is_empty() || last.parse::<u64>().is_ok()) => Range::Beyond,
        (Ok(first), Ok(last)) => Range::Part(first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => Range::Part(first, size),
        (Err(_), Ok(length)) if first.is_empty() && (length == 0 || size == 0) => Range::Beyond,
        (Err(_), Ok(length)) if first.is_empty() => Range::Part(size.saturating_sub(length), size),
        _ => Range::Whole,
    }
}

/// The bytes of every download from `start` up to `end`: lines that each tell their own offset.
pub fn piece(start: u64, end: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(usize::try_from(end - start + 2 * LINE_BYTES).unwrap_or_default());
    let aligned = start - start % LINE_BYTES;
    let mut offset = aligned;
    while offset < end {
        bytes.extend_from_slice(&line(offset));
        offset += LINE_BYTES;
    }
    let within = |place: u64| usize::try_from(place - aligned).unwrap_or(usize::MAX).min(bytes.len());
    Bytes::from(bytes.get(within(start)..within(end)).unwrap_or_default().to_vec())
}

/// `demo, at byte 0x00000003e0 ....`: written by hand, for a download has tens of millions of lines.
fn line(offset: u64) -> [u8; LINE_BYTES as usize] {
    let mut line = *b"demo, at byte 0x0000000000 ....\n";
    let digits = line.get_mut(OFFSET_DIGITS).unwrap_or_default();
    let mut rest = offset;
    for digit in digits.iter_mut().rev() {
        *digit = HEXADECIMAL.get((rest % 16) as usize).copied().unwrap_or(b'0');
        rest /= 16;
    }
    line
}

/// Counts and hashes what is sent, without keeping it.
pub async fn upload(request: Request<Incoming>) -> Reply {
    let framing = match request.headers().contains_key(header::CONTENT_LENGTH) {
        true => "content-length",
        false => "chunked",
    };
    let mut body = request.into_body();
    let mut hasher = blake3::Hasher::new();
    let (mut bytes, mut trailers) = (0u64, 0usize);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return text(StatusCode::BAD_REQUEST, "The upload did not arrive whole.");
        };
        if let Some(data) = frame.data_ref() {
            bytes += data.len() as u64;
            hasher.update(data);
        }
        if bytes > MAX_TRANSFER_BYTES {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "The demo site counts up to 4 GiB.");
        }
        trailers += frame.trailers_ref().map_or(0, HeaderMap::len);
    }
    let hash = hasher.finalize().to_hex();
    let counted =
        json!({ "bytes": bytes, "blake3": hash.as_str(), "framing": framing, "trailers": trailers });
    reply::json(StatusCode::OK, &counted)
}

/// Three lines, then trailers (RFC 9110 section 6.5); hyper sends them to a client that says `TE: trailers`.
pub fn trailers() -> Reply {
    let lines = ["first line\n", "second line\n", "third line\n"];
    let mut frames: Vec<io::Result<Frame<Bytes>>> =
        lines.iter().map(|line| Ok(Frame::data(Bytes::from_static(line.as_bytes())))).collect();
    let hash = blake3::hash(lines.concat().as_bytes()).to_hex();
    let mut fields = HeaderMap::new();
    fields.insert("demo-lines", HeaderValue::from(lines.len()));
    if let Ok(value) = HeaderValue::from_str(&hash) {
        fields.insert("demo-blake3", value);
    }
    frames.push(Ok(Frame::trailers(fields)));
    let reply = reply::stream(PLAIN, stream::iter(frames));
    uncached(with(reply, header::TRAILER, "demo-lines, demo-blake3"))
}

/// Begins an answer and breaks off in the middle.
pub fn cut() -> Reply {
    let frames = stream::unfold(false, |begun| async move {
        if !begun {
            let beginning = Bytes::from_static(b"This answer was announced with 1000 bytes, and then\n");
            return Some((Ok(Frame::data(beginning)), true));
        }
        // hyper throws away what it has not sent yet when a body fails; this lets it send first.
        tokio::task::yield_now().await;
        Some((Err(io::Error::other("the demo site was asked to break off")), true))
    });
    with(reply::stream(PLAIN, frames), header::CONTENT_LENGTH, "1000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (field, size, expected) in [
            ("bytes=0-9", 100, Range::Part(0, 10)),
            ("bytes=90-", 100, Range::Part(90, 100)),
            ("bytes=-10", 100, Range::Part(90, 100)),
            ("bytes=-1000", 100, Range::Part(0, 100)),
            ("bytes=0-18446744073709551615", 100, Range::Part(0, 100)),
            ("bytes=100-", 100, Range::Beyond),
            ("bytes=100-200", 100, Range::Beyond),
            ("bytes=-0", 100, Range::Beyond),
            ("bytes=-5", 0, Range::Beyond),
            ("bytes=9-0", 100, Range::Whole),
            ("bytes=0-1,5-6", 100, Range::Whole),
            ("bytes=", 100, Range::Whole),
            ("bytes=-", 100, Range::Whole),
            ("lines=0-9", 100, Range::Whole),
        ] {
            assert_eq!(range(field, size), expected, "{field} of {size}");
        }
    }

    #[test]
    fn pieces_fit_together() {
        let whole = piece(0, 1000);
        assert_eq!(whole.len(), 1000);
        for (start, end) in [(0, 32), (1, 2), (31, 33), (100, 900), (999, 1000), (5, 5)] {
            assert_eq!(piece(start, end), whole.slice(start as usize..end as usize), "{start}..{end}");
        }
        let line = piece(MAX_TRANSFER_BYTES - LINE_BYTES, MAX_TRANSFER_BYTES);
        assert_eq!(line.len() as u64, LINE_BYTES);
        assert_eq!(
            &line[..],
            format!("demo, at byte 0x{:010x} ....\n", MAX_TRANSFER_BYTES - LINE_BYTES).as_bytes()
        );
    }
}
