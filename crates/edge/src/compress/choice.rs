//! Whether a response is compressed, and how: what the rule wants, what the visitor accepts, what the response is.

use http::Method;
use snapshot::rules::Algorithm;

use super::Coding;
use super::accept::Accepted;
use super::media::{Worth, worth};
use crate::message::{BodyLength, ResponseHead};

/// The statuses whose content is compressed, as at Cloudflare. All others have no content of their own, a part of it, or
/// are seldom long.
const STATUSES: [u16; 3] = [200, 403, 404];

/// Shorter content grows by being compressed, in bytes; Cloudflare's figures.
const fn shortest(coding: Coding) -> u64 {
    match coding {
        Coding::Gzip => 48,
        Coding::Brotli | Coding::Zstd => 50,
    }
}

/// What `auto` and `default` try, the best first among those the visitor likes equally: decision 0021 has the figures.
const PREFERENCE: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

/// The coding to use. `wanted` is a rule's list, `[Default]` without one; an empty list wants nothing.
///
/// The first algorithm of the list that the visitor accepts is it. `auto` and `default` go by the visitor's weights.
pub fn choose<'a>(
    wanted: &[Algorithm],
    accept_encoding: impl Iterator<Item = &'a [u8]>,
    response: &ResponseHead,
    length: BodyLength,
    method: &Method,
) -> Option<Coding> {
    if !may_change(response, length, method) {
        return None;
    }
    let accepted = Accepted::read(accept_encoding);
    let usable = |coding: Coding| accepted.weight(coding).filter(|_| is_long_enough(length, coding));
    for algorithm in wanted {
        match fixed(*algorithm) {
            Some(coding) if usable(coding).is_some() => return Some(coding),
            Some(_) => {}
            None if !suits(*algorithm, response) => return None,
            // Of equals `max_by_key` takes the last.
            None => {
                return PREFERENCE
                    .into_iter()
                    .rev()
                    .filter(|c| usable(*c).is_some())
                    .max_by_key(|c| usable(*c));
            }
        }
    }
    None
}

/// Whether some visitor would get this response compressed. Then it depends on `Accept-Encoding`, for all of them.
pub fn is_eligible(
    wanted: &[Algorithm],
    response: &ResponseHead,
    length: BodyLength,
    method: &Method,
) -> bool {
    let some = |coding: Coding| is_long_enough(length, coding);
    may_change(response, length, method)
        && wanted.iter().take_while(|algorithm| **algorithm != Algorithm::None).any(|algorithm| {
            fixed(*algorithm)
                .map_or_else(|| suits(*algorithm, response) && PREFERENCE.into_iter().any(some), some)
        })
}

/// The one coding an algorithm stands for.
const fn fixed(algorithm: Algorithm) -> Option<Coding> {
    match algorithm {
        Algorithm::Gzip => Some(Coding::Gzip),
        Algorithm::Brotli => Some(Coding::Brotli),
        Algorithm::Zstd => Some(Coding::Zstd),
        Algorithm::None | Algorithm::Auto | Algorithm::Default => None,
    }
}

/// Whether an algorithm that leaves the choice open is for this type of content. One that names its coding is for all.
fn suits(algorithm: Algorithm, response: &ResponseHead) -> bool {
    let worth = || worth(response.headers.get(b"content-type").unwrap_or_default());
    match algorithm {
        Algorithm::None => false,
        Algorithm::Default => worth() == Worth::Packs,
        Algorithm::Auto => worth() != Worth::Packed,
        Algorithm::Gzip | Algorithm::Brotli | Algorithm::Zstd => true,
    }
}

/// Whether this content may be compressed at all, whatever a rule says.
fn may_change(response: &ResponseHead, length: BodyLength, method: &Method) -> bool {
    let headers = &response.headers;
    STATUSES.contains(&response.status)
        && *method != Method::HEAD
        && *method != Method::CONNECT
        && length != BodyLength::Absent
        && !headers.contains(b"content-encoding")
        && !headers.contains(b"content-range")
        // Events and calls go on for hours: each would hold a compressor's memory for as long.
        && !response.is_lasting()
        && !forbids_change(response)
}

/// RFC 9111 section 5.2.2.6.
fn forbids_change(response: &ResponseHead) -> bool {
    let directives = |line: &[u8]| {
        line.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    };
    response.headers.all(b"cache-control").any(directives)
}

const fn is_long_enough(length: BodyLength, coding: Coding) -> bool {
    match length {
        BodyLength::Absent => false,
        BodyLength::Exact(bytes) => bytes >= shortest(coding),
        BodyLength::Unknown => true,
    }
}
