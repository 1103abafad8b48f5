//! Whether a stored response answers a request, and what the origin is asked otherwise (RFC 9111 sections 4 and 4.3, RFC 5861).

use std::time::Duration;

use base::headers::HeaderList;
use base::time::Timestamp;

use super::Request;
use super::directives::wishes;
use super::settings::Settings;
use super::stored::Stored;

/// Stale for so long when the origin cannot be reached and nobody has said anything else.
const UNREACHABLE: Duration = Duration::from_secs(24 * 3600);

/// What may be done with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It answers.
    Fresh,
    /// It answers, stale, because the visitor does not mind.
    StaleByWish,
    /// It answers, stale, and is fetched anew meanwhile.
    StaleWhileRevalidate,
    /// The origin is asked first.
    Ask,
}

/// Judges a stored response that a request selects. `soft_purged`: it is stale whatever it says.
pub fn reuse(
    stored: &Stored,
    request: &Request<'_>,
    settings: &Settings,
    now: Timestamp,
    soft_purged: bool,
) -> Reuse {
    let wishes = if settings.heed_visitors { wishes(request.fields) } else { Default::default() };
    let (age, left) = (stored.age(now), stored.lifetime.saturating_sub(stored.age(now)));
    // `max-stale` widens what `max-age` asks for (section 5.2.1.1).
    let too_old = wishes.max_age.is_some_and(|most| age > most) && wishes.max_stale.is_none();
    if stored.always_ask || wishes.no_cache || too_old || wishes.min_fresh.is_some_and(|least| left < least) {
        return Reuse::Ask;
    }
    let staleness = if soft_purged { Some(Duration::ZERO) } else { stored.staleness(now) };
    let Some(staleness) = staleness else { return Reuse::Fresh };
    if stored.never_stale && !soft_purged {
        return Reuse::Ask;
    }
    if wishes.max_stale.is_some_and(|most| staleness <= most) {
        return Reuse::StaleByWish;
    }
    // RFC 5861 section 3. A soft purge asks for just that.
    let allowed = settings.serve_stale && (soft_purged || staleness < stored.while_revalidate);
    if allowed { Reuse::StaleWhileRevalidate } else { Reuse::Ask }
}

/// Whether the visitor wants an answer from the cache or none: 504 (section 5.2.1.7).
pub fn only_if_cached(request: &Request<'_>) -> bool {
    wishes(request.fields).only_if_cached
}

/// How the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer.
    Unreachable,
    /// An answer with this status.
    Status(u16),
}

/// Whether a stale response answers in place of a failure (section 4.2.4, RFC 5861 section 4).
pub fn instead_of(stored: &Stored, failure: Failure, settings: &Settings, now: Timestamp) -> bool {
    if stored.always_ask || stored.never_stale || !settings.serve_stale {
        return false;
    }
    let most = match failure {
        Failure::Unreachable => stored.if_error.unwrap_or(UNREACHABLE),
        Failure::Status(500 | 502 | 503 | 504) => stored.if_error.unwrap_or(Duration::ZERO),
        Failure::Status(_) => return false,
    };
    stored.staleness(now).is_none_or(|staleness| staleness < most)
}

/// Fields of conditions, which are between the visitor and this cache when it asks the origin itself.
const CONDITIONS: [&[u8]; 5] =
    [b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"];

/// The fields of a request as the origin is asked whether a stored response is still right (section 4.3.1): the visitor's own
/// conditions and range are not sent, those of the stored response are.
pub fn conditional(request: &HeaderList, stored: &Stored) -> HeaderList {
    let mut fields = unconditional(request);
    if let Some(tag) = stored.fields.get(b"etag") {
        fields.push("If-None-Match", quoted(tag));
    }
    if let Some(changed) = stored.fields.get(b"last-modified") {
        fields.push("If-Modified-Since", changed);
    }
    fields
}

/// The fields of a request as the origin is asked for the whole.
pub fn unconditional(request: &HeaderList) -> HeaderList {
    let mut fields = request.clone();
    fields.retain(|name, _| {
        !CONDITIONS.iter().any(|other| name.eq_ignore_ascii_case(other))
            && !name.eq_ignore_ascii_case(b"range")
    });
    fields
}

/// An entity tag as the grammar wants it, when its origin forgot the quotes.
fn quoted(tag: &[u8]) -> Vec<u8> {
    let proper = tag.ends_with(b"\"") || tag.contains(&b'"');
    if proper { tag.to_vec() } else { [b"\"", tag, b"\""].concat() }
}
