//! Whether a response may be kept, and what is kept of it (RFC 9111 section 3).

use std::time::Duration;

use base::headers::HeaderList;
use base::time::Timestamp;

use super::directives::{Directives, contains_token, directives, targeted, wishes};
use super::lifetime::{initial_age, lifetime};
use super::range::{Held, content_range};
use super::settings::{EdgeLifetime, Settings, StatusLifetime};
use super::stored::Stored;
use super::validators::{strongly_equal, weakly_equal};
use super::vary::selecting;
use super::{Request, Response};

/// Tags of one response, and bytes of one tag; those beyond purge nothing, so a response with more is not kept.
const TAGS_MOST: usize = 1000;
const TAG_BYTES: usize = 1024;
/// Statuses whose meaning is known, for `must-understand` (section 5.2.2.3).
const UNDERSTOOD: [u16; 40] = [
    200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402, 403, 404, 405,
    406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426, 500, 501, 503, 504,
];
/// Fields of one connection (RFC 9110 section 7.6.1), and what is said anew with each answer.
const NOT_KEPT: [&[u8]; 14] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authentication-info",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"age",
    b"content-length",
    b"content-range",
    // For surrogates, of which this is the last (section 2.4 of the W3C note).
    b"surrogate-control",
];
/// Fields of the stored response that a 304 does not replace: they belong to the body (RFC 9111 section 3.2).
const OF_THE_BODY: [&[u8]; 5] =
    [b"content-encoding", b"content-length", b"content-md5", b"content-range", b"etag"];

/// Why a response is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The method of its request.
    Method,
    /// Its status.
    Status,
    /// A rule.
    Rule,
    /// `no-store`, of response or request.
    NoStore,
    /// `private`.
    Private,
    /// Its request had `Authorization`, and it does not say that it is for others too (section 3.5).
    Authorization,
    /// It sets a cookie.
    SetCookie,
    /// Its `Vary` selects nothing again, or depends on too much.
    Vary,
    /// It would always be asked anew, and has nothing to ask with.
    Useless,
    /// It is not what its name says.
    Deception,
    /// Its range cannot be kept.
    Range,
    /// It has too many tags.
    Tags,
}

impl Why {
    /// In one word, for logs and `Cache-Status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::Rule => "rule",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::Useless => "no-lifetime",
            Self::Deception => "deception",
            Self::Range => "range",
            Self::Tags => "tags",
        }
    }
}

/// Names of targeted fields, the most specific first (RFC 9213 section 2.2).
pub fn target_list(settings: &Settings) -> &'static [&'static [u8]] {
    const ALL: [&[u8]; 3] = [b"cloudflare-cdn-cache-control", b"cdn-cache-control", b"surrogate-control"];
    if settings.cloudflare { &ALL } else { &ALL[1..] }
}

/// What is kept of a response, or why it is not. `asked` and `answered` are when its request was sent and its head received.
pub fn keep(
    request: &Request<'_>,
    response: &Response<'_>,
    key: &[u8],
    settings: &Settings,
    (asked, answered): (Timestamp, Timestamp),
) -> Result<Box<Stored>, Why> {
    let fields = response.fields;
    let own = directives(fields);
    let targeted = targeted(fields, target_list(settings));
    may_be_kept(request, response, settings, (&own, targeted.as_ref()))?;
    let says = targeted.as_ref().unwrap_or(&own);
    let (lifetime, source) =
        lifetime(response.status, fields, (&own, targeted.as_ref()), settings, answered).ok_or(Why::Rule)?;
    let selecting = selecting(fields, request.fields).ok_or(Why::Vary)?;
    let (held, length) = held(response)?;
    let stored = Stored {
        key: key.into(),
        status: if response.status == 206 { 200 } else { response.status },
        fields: kept_fields(fields, says, settings),
        selecting,
        asked,
        answered,
        initial_age: initial_age(fields, asked, answered),
        lifetime,
        source,
        always_ask: says.no_cache && !overrides(settings),
        never_stale: says.must_revalidate || says.proxy_revalidate || says.s_maxage.is_some(),
        while_revalidate: says.stale_while_revalidate.unwrap_or_default(),
        if_error: says.stale_if_error,
        length,
        held,
        tags: tags(fields)?,
    };
    let asks = stored.fields.contains(b"etag") || stored.fields.contains(b"last-modified");
    if stored.lifetime.is_zero() && stored.while_revalidate.is_zero() && !asks {
        return Err(Why::Useless);
    }
    Ok(Box::new(stored))
}

/// Whether a rule says how long, whatever the origin says.
fn overrides(settings: &Settings) -> bool {
    matches!(settings.edge, EdgeLifetime::Override(_))
}

fn may_be_kept(
    request: &Request<'_>,
    response: &Response<'_>,
    settings: &Settings,
    (own, targeted): (&Directives, Option<&Directives>),
) -> Result<(), Why> {
    let (fields, says) = (response.fields, targeted.unwrap_or(own));
    let by_status = settings.by_status.iter().find(|(range, _)| range.contains(&response.status));
    let ruled = overrides(settings) || matches!(by_status, Some((_, StatusLifetime::For(_))));
    if settings.eligible == Some(false) {
        return Err(Why::Rule);
    }
    match request.method {
        b"GET" => {}
        // RFC 9110 section 9.3.3: as the answer to a GET of that URL, when it says so and for how long.
        b"POST"
            if names_itself(request, fields)
                && (says.s_maxage.or(says.max_age).is_some() || fields.contains(b"expires")) => {}
        _ => return Err(Why::Method),
    }
    if response.status < 200 || response.status == 304 {
        return Err(Why::Status);
    }
    let understood = UNDERSTOOD.contains(&response.status);
    if says.must_understand && !understood {
        return Err(Why::Status);
    }
    if says.no_store && !says.must_understand && !ruled {
        return Err(Why::NoStore);
    }
    if settings.heed_visitors && wishes(request.fields).no_store {
        return Err(Why::NoStore);
    }
    if says.private && !ruled {
        return Err(Why::Private);
    }
    let for_others = says.public || says.must_revalidate || says.s_maxage.is_some();
    if request.fields.contains(b"authorization") && !for_others {
        return Err(Why::Authorization);
    }
    let cookie_stays =
        fields.contains(b"set-cookie") && !says.withheld.iter().any(|name| name == b"set-cookie");
    if cookie_stays && !settings.strip_set_cookie {
        return Err(Why::SetCookie);
    }
    if settings.deception_armour && deceives(request.target, fields) {
        return Err(Why::Deception);
    }
    Ok(())
}

/// Whether the response to a POST says that it is what a GET of the same URL would have had.
fn names_itself(request: &Request<'_>, fields: &HeaderList) -> bool {
    let location = fields.get(b"content-location");
    location
        .and_then(|location| super::invalidate::same_origin(request, location))
        .is_some_and(|target| target == request.target)
}

/// A 206 is kept as a part of the whole, when it says which.
fn held(response: &Response<'_>) -> Result<(Held, Option<u64>), Why> {
    let length = || {
        let value = response.fields.get(b"content-length")?;
        std::str::from_utf8(value).ok()?.parse::<u64>().ok()
    };
    if response.status != 206 {
        return Ok((Held::Whole, length()));
    }
    let (span, length) = content_range(response.fields).ok_or(Why::Range)?;
    Held::Pieces(Vec::new()).with(span, length).map(|held| (held, length)).ok_or(Why::Range)
}

/// The fields that are kept: none of the connection, none that were named to be left out (RFC 9111 section 3.1).
fn kept_fields(fields: &HeaderList, says: &Directives, settings: &Settings) -> HeaderList {
    let named: Vec<&[u8]> = fields.all(b"connection").collect();
    let mut kept = fields.clone();
    kept.retain(|name, _| {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let left_out = NOT_KEPT.iter().any(|other| is(other))
            || says.withheld.iter().any(|other| is(other))
            || named.iter().any(|value| contains_token(value, name))
            || (settings.strip_set_cookie && is(b"set-cookie"))
            || (settings.cloudflare && is(b"cloudflare-cdn-cache-control"));
        !left_out
    });
    kept
}

/// What `Cache-Tag` names, in lower case.
fn tags(fields: &HeaderList) -> Result<Vec<Box<[u8]>>, Why> {
    let names =
        fields.all(b"cache-tag").flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut tags: Vec<Box<[u8]>> = names
        .filter(|name| !name.is_empty())
        .take(TAGS_MOST + 1)
        .map(|name| name.to_ascii_lowercase().into())
        .collect();
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_MOST || tags.iter().any(|tag| tag.len() > TAG_BYTES) {
        return Err(Why::Tags);
    }
    Ok(tags)
}

/// Endings of paths and the types that may stand behind them; another ending promises nothing.
const PROMISED: [(&[&str], &[&str]); 9] = [
    (&["jpg", "jpeg", "png", "gif", "webp", "avif", "svg", "ico", "bmp", "tif", "tiff"], &["image/"]),
    (&["css"], &["text/css"]),
    (&["js", "mjs"], &["text/javascript", "application/javascript", "application/x-javascript"]),
    (
        &["woff", "woff2", "ttf", "otf", "eot"],
        &["font/", "application/font", "application/x-font", "application/vnd.ms-fontobject"],
    ),
    (&["mp4", "webm", "avi", "mkv"], &["video/"]),
    (&["mp3", "ogg", "flac", "mid", "midi"], &["audio/", "video/ogg", "application/ogg"]),
    (&["pdf"], &["application/pdf"]),
    (
        &["zip", "gz", "bz2", "7z", "rar", "tar", "zst", "jar", "iso", "dmg", "exe", "apk", "bin"],
        &["application/"],
    ),
    (&["csv"], &["text/csv", "text/plain", "application/"]),
];

/// Whether a page hides behind the name of a file, as where `/account/photo.jpg` shows the account (web cache deception).
fn deceives(target: &[u8], fields: &HeaderList) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let ending = match name.rsplit_once_byte(b'.') {
        Some(ending) => String::from_utf8_lossy(ending).to_ascii_lowercase(),
        None => return false,
    };
    let Some((_, types)) = PROMISED.iter().find(|(endings, _)| endings.contains(&ending.as_str())) else {
        return false;
    };
    let told = fields.get(b"content-type").unwrap_or_default().to_ascii_lowercase();
    // What is not said is not known: only a type that contradicts the name is a deception.
    let unsaid = told.is_empty() || told.starts_with(b"application/octet-stream");
    !unsaid && !types.iter().any(|wanted| told.starts_with(wanted.as_bytes()))
}

trait AfterLast {
    fn rsplit_once_byte(&self, byte: u8) -> Option<&[u8]>;
}

impl AfterLast for [u8] {
    fn rsplit_once_byte(&self, byte: u8) -> Option<&[u8]> {
        self.iter().rposition(|one| *one == byte).and_then(|at| self.get(at + 1..))
    }
}

/// Whether a 304 is about this stored response (section 4.3.4): by its entity tag, else by its date, else because it was the one asked about.
pub fn confirms(stored: &Stored, response: &Response<'_>) -> bool {
    match (response.fields.get(b"etag"), stored.fields.get(b"etag")) {
        (Some(new), Some(old)) => return weakly_equal(new, old),
        (Some(_), None) => return false,
        (None, _) => {}
    }
    match (response.fields.get(b"last-modified"), stored.fields.get(b"last-modified")) {
        (Some(new), Some(old)) => new == old,
        _ => true,
    }
}

/// Whether the answer to a HEAD is about this stored response (section 4.3.5).
pub fn head_agrees(stored: &Stored, response: &Response<'_>) -> bool {
    let same = |name: &[u8]| {
        let (new, old) = (response.fields.get(name), stored.fields.get(name));
        new.is_none() || new == old
    };
    let length = response.fields.get(b"content-length");
    let length = length.and_then(|value| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
    response.status == stored.status
        && same(b"etag")
        && same(b"last-modified")
        && (length.is_none() || stored.length.is_none() || length == stored.length)
}

/// The stored response with what a 304, or the answer to a HEAD, says anew (section 3.2); an error when it may no longer be kept.
pub fn freshen(
    stored: &Stored,
    request: &Request<'_>,
    response: &Response<'_>,
    settings: &Settings,
    times: (Timestamp, Timestamp),
) -> Result<Box<Stored>, Why> {
    let replaced = |name: &[u8]| {
        let of_the_body = OF_THE_BODY.iter().any(|other| name.eq_ignore_ascii_case(other));
        !of_the_body && response.fields.contains(name)
    };
    let mut fields = stored.fields.clone();
    fields.retain(|name, _| !replaced(name));
    for (name, value) in response.fields.iter().filter(|(name, _)| replaced(name)) {
        fields.push(name, value);
    }
    let merged = Response { status: stored.status, fields: &fields };
    let as_get = Request { method: b"GET", ..*request };
    let mut new = keep(&as_get, &merged, &stored.key, settings, times)?;
    new.length = stored.length;
    new.held = stored.held.clone();
    Ok(new)
}

/// Whether a part that has come belongs to what is held already (section 3.4): the same strong validator.
pub fn combines(stored: &Stored, response: &Response<'_>) -> bool {
    let (Some(old), Some(new)) = (stored.fields.get(b"etag"), response.fields.get(b"etag")) else {
        return false;
    };
    strongly_equal(old, new)
        && content_range(response.fields).is_some_and(|(_, length)| length == stored.length)
}

/// For how long a site that has just said that something is not for the cache is believed, so that nobody waits for others in vain.
pub const HIT_FOR_MISS: Duration = Duration::from_secs(10);
