//! What the edge tells about itself: one access-log line and one event per request, Prometheus metrics, and the loopback listener for both
//! metrics and health. Nothing here may block or fail a request.

pub mod access_log;
mod calendar;
pub mod events;
pub mod metrics;
pub mod ops;

#[cfg(test)]
mod cost;
#[cfg(test)]
mod samples;

/// Text of a header or target for an event: at most `limit` bytes, cut between characters, with bytes that are not UTF-8
/// replaced by U+FFFD. The limit counts the result.
pub fn bounded_text(bytes: &[u8], limit: usize) -> Box<str> {
    // Four bytes beyond the limit are enough to see whether the last character fits.
    let head = bytes.get(..limit.saturating_add(4)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head);
    Box::from(cut(&text, limit))
}

/// The longest prefix of at most `limit` bytes that ends between two characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        for (bytes, limit, kept) in [
            (&b"curl/8"[..], 256, "curl/8"),
            (b"curl/8", 4, "curl"),
            ("h\u{e9}llo".as_bytes(), 2, "h"),
            ("h\u{e9}llo".as_bytes(), 3, "h\u{e9}"),
            (b"a\xffb", 256, "a\u{fffd}b"),
            (b"a\xffb", 3, "a"),
            ("\u{1f512}\u{1f512}".as_bytes(), 5, "\u{1f512}"),
            (b"", 0, ""),
        ] {
            assert_eq!(&*bounded_text(bytes, limit), kept, "{bytes:?} at {limit}");
        }
    }
}
