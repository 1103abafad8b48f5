//! Validators: entity tags and dates, compared as conditions ask for (RFC 9110 sections 8.8 and 13).

use base::headers::HeaderList;
use base::time::Timestamp;

/// Entity tags looked at in one list.
const TAGS_MOST: usize = 256;

/// An HTTP date in any of its three forms (RFC 9110 section 5.6.7), in whole seconds.
pub fn date(value: &[u8]) -> Option<Timestamp> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(Timestamp::from_unix)
}

/// An HTTP date as it is written today.
pub fn written(time: Timestamp) -> String {
    let since = std::time::Duration::from_secs(time.seconds());
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + since)
}

/// Whether an entity tag is a strong one. One that is not quoted, as some origins send it, is weak: nobody knows what it means.
pub fn is_strong(tag: &[u8]) -> bool {
    tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

/// What is compared: without the mark of a weak one, and without quotes where an origin forgot them.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    tag.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(tag)
}

/// Weak comparison (RFC 9110 section 8.8.3.2).
pub fn weakly_equal(one: &[u8], other: &[u8]) -> bool {
    opaque(one) == opaque(other)
}

/// Strong comparison.
pub fn strongly_equal(one: &[u8], other: &[u8]) -> bool {
    is_strong(one) && one == other
}

/// The entity tags of a list; commas within quotes belong to the tag.
fn tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        })
        .map(<[u8]>::trim_ascii)
        .filter(|tag| !tag.is_empty())
        .take(TAGS_MOST)
}

/// Whether a list of entity tags names this one, weakly; `*` names any.
pub fn names(fields: &HeaderList, list: &[u8], tag: Option<&[u8]>) -> bool {
    fields.all(list).any(|value| {
        value.trim_ascii() == b"*" || tag.is_some_and(|tag| tags(value).any(|one| weakly_equal(one, tag)))
    })
}

/// Whether a visitor has this response already and may be told so with 304 (RFC 9110 sections 13.1.2, 13.1.3, 13.2.2):
/// `If-None-Match` decides where it is there, `If-Modified-Since` otherwise.
pub fn not_modified(request: &HeaderList, stored: &HeaderList, since: Timestamp) -> bool {
    if request.contains(b"if-none-match") {
        return names(request, b"if-none-match", stored.get(b"etag"));
    }
    let Some(asked) = request.get(b"if-modified-since").and_then(date) else { return false };
    // RFC 9111 section 4.3.2: without Last-Modified, Date counts, and without that, when it was received.
    let changed = stored.get(b"last-modified").and_then(date).unwrap_or(since);
    changed.seconds() <= asked.seconds()
}

/// Whether a `Range` may be answered from this response, by its `If-Range` (RFC 9110 section 13.1.5): a strong tag that is equal, or a
/// date equal to Last-Modified where that is a strong one.
pub fn range_applies(request: &HeaderList, stored: &HeaderList, answered: Timestamp) -> bool {
    let Some(condition) = request.get(b"if-range") else { return true };
    if condition.starts_with(b"\"") || condition.starts_with(b"W/") {
        return stored.get(b"etag").is_some_and(|tag| strongly_equal(tag, condition));
    }
    let (Some(asked), Some(changed)) = (date(condition), stored.get(b"last-modified").and_then(date)) else {
        return false;
    };
    // Section 8.8.2.2: strong once a second has passed in which it might have changed again.
    let sent = stored.get(b"date").and_then(date).unwrap_or(answered);
    asked == changed && sent.seconds() > changed.seconds()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> HeaderList {
        let mut fields = HeaderList::default();
        fields.push(name, value);
        fields
    }

    #[test]
    fn tags_compare_weakly_and_strongly() {
        // The table of RFC 9110 section 8.8.3.2.
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let (one, other) = (one.as_bytes(), other.as_bytes());
            assert_eq!((strongly_equal(one, other), weakly_equal(one, other)), (strong, weak));
        }
        assert!(names(&of("If-None-Match", "\"a,b\", W/\"c\""), b"if-none-match", Some(b"\"c\"")));
        assert!(names(&of("If-None-Match", "\"a,b\", W/\"c\""), b"if-none-match", Some(b"\"a,b\"")));
        assert!(!names(&of("If-None-Match", "\"a,b\""), b"if-none-match", Some(b"\"a\"")));
        assert!(names(&of("If-None-Match", "*"), b"if-none-match", None));
    }

    #[test]
    fn dates_in_all_three_forms() {
        let expected = Some(Timestamp(784_111_777 * 1_000_000));
        for form in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(date(form.as_bytes()), expected, "{form}");
        }
        assert_eq!(date(b"0"), None);
        assert_eq!(written(Timestamp(784_111_777 * 1_000_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn ranges_apply_to_the_very_same_response_only() {
        let answered = Timestamp(784_111_777 * 1_000_000);
        assert!(range_applies(&of("If-Range", "\"a\""), &of("ETag", "\"a\""), answered));
        assert!(!range_applies(&of("If-Range", "W/\"a\""), &of("ETag", "W/\"a\""), answered));
        let when = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(
            !range_applies(&of("If-Range", when), &of("Last-Modified", when), answered),
            "the same second"
        );
        let later = Timestamp(answered.0 + 1_000_000);
        assert!(range_applies(&of("If-Range", when), &of("Last-Modified", when), later));
    }
}
