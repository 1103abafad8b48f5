//! `Cache-Control` and the fields that stand in for it, read to the safe side: what cannot be read never makes a response fresher.

use std::time::Duration;

use base::headers::HeaderList;

/// Longest lifetime counted with, in seconds: larger numbers mean this (RFC 9111 section 1.2.2).
pub const SECONDS_MOST: u64 = 1 << 31;
/// Directives read of one message; a message with more is read as one that must not be kept.
const DIRECTIVES_MOST: usize = 64;

/// Directives of a request (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// No older than this.
    pub max_age: Option<Duration>,
    /// Stale for no longer than this; all the time, without a value.
    pub max_stale: Option<Duration>,
    /// Fresh for at least this long.
    pub min_fresh: Option<Duration>,
    /// Not without asking the origin.
    pub no_cache: bool,
    /// Nothing of request and answer is to be kept.
    pub no_store: bool,
    /// From the cache or not at all.
    pub only_if_cached: bool,
}

/// Directives of a response (RFC 9111 section 5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate`.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`.
    pub stale_if_error: Option<Duration>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without names.
    pub no_cache: bool,
    /// `private` without names.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `immutable`.
    pub immutable: bool,
    /// Fields named by `no-cache` and `private`, in lower case: they are not kept.
    pub withheld: Vec<Vec<u8>>,
    /// Whether there was any directive at all.
    pub any: bool,
}

/// What a request wishes. `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 section 5.4).
pub fn wishes(fields: &HeaderList) -> Wishes {
    let mut wishes = Wishes::default();
    let mut any = false;
    for value in fields.all(b"cache-control") {
        any = true;
        each(value, &mut |name, value| match name {
            b"max-age" => wishes.max_age = least(wishes.max_age, seconds(value)),
            // Without a value: however stale (section 5.2.1.2).
            b"max-stale" => {
                wishes.max_stale = Some(value.map_or(Duration::from_secs(SECONDS_MOST), |_| seconds(value)));
            }
            b"min-fresh" => wishes.min_fresh = Some(seconds(value)),
            b"no-cache" => wishes.no_cache = true,
            b"no-store" => wishes.no_store = true,
            b"only-if-cached" => wishes.only_if_cached = true,
            _ => {}
        });
    }
    if !any && fields.all(b"pragma").any(|value| contains_token(value, b"no-cache")) {
        wishes.no_cache = true;
    }
    wishes
}

/// What `Cache-Control` of a response says.
pub fn directives(fields: &HeaderList) -> Directives {
    let mut found = Directives::default();
    let mut count = 0;
    for value in fields.all(b"cache-control") {
        each(value, &mut |name, value| {
            count += 1;
            found.take(name, value);
        });
    }
    found.no_store |= count > DIRECTIVES_MOST;
    found
}

impl Directives {
    fn take(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.any = true;
        match name {
            b"max-age" => self.max_age = least(self.max_age, seconds(value)),
            b"s-maxage" => self.s_maxage = least(self.s_maxage, seconds(value)),
            b"stale-while-revalidate" => {
                self.stale_while_revalidate = least(self.stale_while_revalidate, seconds(value));
            }
            b"stale-if-error" => self.stale_if_error = least(self.stale_if_error, seconds(value)),
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache |= !self.withhold(value),
            b"private" => self.private |= !self.withhold(value),
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-transform" => self.no_transform = true,
            b"immutable" => self.immutable = true,
            _ => {}
        }
    }

    /// Notes the fields that a directive names; false when it names none and so means the whole response.
    fn withhold(&mut self, value: Option<&[u8]>) -> bool {
        let names = value.unwrap_or_default().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let before = self.withheld.len();
        self.withheld.extend(names.filter(|name| !name.is_empty()).map(<[u8]>::to_ascii_lowercase));
        self.withheld.len() > before
    }
}

/// What a targeted field says in place of `Cache-Control` and `Expires` (RFC 9213 section 2.1): the first of these names that is there
/// and can be read. `Surrogate-Control` is older and no structured field.
pub fn targeted(fields: &HeaderList, names: &[&[u8]]) -> Option<Directives> {
    names.iter().find_map(|name| {
        if !fields.contains(name) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"surrogate-control") {
            surrogate(fields)
        } else {
            structured(fields, name)
        }
    })
}

/// A field that is a structured dictionary; one that is empty or cannot be read is as if it were not there.
fn structured(fields: &HeaderList, name: &[u8]) -> Option<Directives> {
    let whole = fields.all(name).collect::<Vec<_>>().join(&b", "[..]);
    let read: sfv::Dictionary = sfv::Parser::new(&whole).parse().ok()?;
    let mut found = Directives::default();
    for (key, entry) in &read {
        let sfv::ListEntry::Item(item) = entry else { continue };
        let item = &item.bare_item;
        if item.as_boolean() == Some(false) {
            continue;
        }
        let number = item.as_integer().map(|number| i64::from(number).to_string());
        // Of a wrong type: as if not there (section 2.1), except where that would keep longer.
        let lasting =
            matches!(key.as_str(), "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error");
        if lasting && number.is_none() {
            continue;
        }
        found.take(key.as_str().as_bytes(), number.as_deref().map(str::as_bytes));
    }
    found.any.then_some(found)
}

/// `Surrogate-Control` (W3C note "Edge Architecture Specification" 1.0): `max-age=60+30` with a time to serve stale, each directive
/// possibly for a named surrogate only, which is never this one.
fn surrogate(fields: &HeaderList) -> Option<Directives> {
    let mut found = Directives::default();
    for value in fields.all(b"surrogate-control") {
        each(value, &mut |name, value| {
            let value = value.unwrap_or_default();
            if value.contains(&b';') || name.contains(&b';') {
                return;
            }
            let (seconds, stale) = match value.iter().position(|byte| *byte == b'+') {
                Some(at) => value.split_at(at),
                None => (value, &b""[..]),
            };
            if matches!(name, b"max-age" | b"no-store") {
                found.take(name, (!seconds.is_empty()).then_some(seconds));
            }
            if let Some(stale) = stale.strip_prefix(b"+") {
                found.take(b"stale-while-revalidate", Some(stale));
            }
        });
    }
    found.any.then_some(found)
}

/// Sees a name and a value.
type See<'s> = dyn FnMut(&[u8], Option<&[u8]>) + 's;

/// Shows each directive: its name in lower case, and its value without quotes.
fn each(value: &[u8], see: &mut See<'_>) {
    for part in split(value) {
        let (name, value) = match part.iter().position(|byte| *byte == b'=') {
            Some(at) => (part.get(..at).unwrap_or_default(), Some(part.get(at + 1..).unwrap_or_default())),
            None => (part, None),
        };
        let name = name.to_ascii_lowercase();
        see(&name, value.map(unquoted));
    }
}

/// The parts of a list, commas within quotes left alone (RFC 9110 section 5.6.1).
fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |byte| {
            match (*byte, quoted) {
                _ if escaped => escaped = false,
                (b'\\', true) => escaped = true,
                (b'"', _) => quoted = !quoted,
                (b',', false) => return true,
                _ => {}
            }
            false
        })
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty())
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// Seconds as written; what is none is 0: whoever wrote it wanted a limit (RFC 9111 section 4.2.1).
fn seconds(value: Option<&[u8]>) -> Duration {
    Duration::from_secs(delta_seconds(value.unwrap_or_default()).unwrap_or(0))
}

/// A number of seconds (RFC 9111 section 1.2.2), no larger than `SECONDS_MOST`.
pub fn delta_seconds(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(value).ok()?.parse::<u64>().unwrap_or(SECONDS_MOST);
    Some(number.min(SECONDS_MOST))
}

/// The same directive twice means the shorter time.
fn least(before: Option<Duration>, now: Duration) -> Option<Duration> {
    Some(before.map_or(now, |before| before.min(now)))
}

/// Whether a comma-separated list has this token, in any case.
pub fn contains_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> HeaderList {
        let mut fields = HeaderList::default();
        lines.iter().for_each(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            fields.push(name, value);
        });
        fields
    }

    fn max_age(value: &str) -> Option<u64> {
        directives(&of(&[&format!("Cache-Control: {value}")])).max_age.map(|age| age.as_secs())
    }

    #[test]
    fn times_are_read_to_the_safe_side() {
        for (value, expected) in [
            ("max-age=60", Some(60)),
            ("MaX-aGe=60", Some(60)),
            ("max-age=0060", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=99999999999999999999", Some(SECONDS_MOST)),
            ("max-age=-5", Some(0)),
            ("max-age=5.5", Some(0)),
            ("max-age='60'", Some(0)),
            ("max-age", Some(0)),
            ("max-age= 60", Some(0)),
            ("max-age =60", None),
            ("a=\"max-age=60\", max-age=1", Some(1)),
            ("max-age=1, a=\"b, max-age=60\"", Some(1)),
            ("a=\"\\\", max-age=60\"", None),
            ("max-age=60, max-age=10", Some(10)),
            ("max-age=10, max-age=60", Some(10)),
            (",,max-age=60,,", Some(60)),
        ] {
            assert_eq!(max_age(value), expected, "{value}");
        }
    }

    #[test]
    fn directives_that_name_fields_concern_these_alone() {
        let found = directives(&of(&[
            "cache-control: private=\"Set-Cookie\", no-cache=\"a, B\"",
            "Cache-Control: public",
        ]));
        assert!(!found.private && !found.no_cache && found.public);
        assert_eq!(found.withheld, [&b"set-cookie"[..], b"a", b"b"]);
        assert!(directives(&of(&["Cache-Control: private=\"\""])).private);
    }

    #[test]
    fn a_flood_of_directives_is_not_kept() {
        let flood = format!("Cache-Control: {}", "a,".repeat(100));
        assert!(directives(&of(&[&flood])).no_store);
    }

    #[test]
    fn wishes_of_a_request() {
        let found = wishes(&of(&["Cache-Control: max-stale, min-fresh=5, only-if-cached"]));
        assert_eq!(found.max_stale, Some(Duration::from_secs(SECONDS_MOST)));
        assert!(found.only_if_cached && found.min_fresh == Some(Duration::from_secs(5)));
        assert!(wishes(&of(&["Pragma: No-Cache"])).no_cache);
        assert!(!wishes(&of(&["Pragma: no-cache", "Cache-Control: max-age=5"])).no_cache);
    }

    #[test]
    fn targeted_fields_stand_in_for_cache_control() {
        let names: [&[u8]; 2] = [b"cdn-cache-control", b"surrogate-control"];
        let found = |line: &str| targeted(&of(&[line]), &names);
        assert_eq!(
            found("CDN-Cache-Control: max-age=60, no-store").unwrap().max_age,
            Some(Duration::from_secs(60))
        );
        assert!(found("CDN-Cache-Control: max-age=60, no-store").unwrap().no_store);
        // No structured field: upper case, no value.
        assert!(found("CDN-Cache-Control: Max-Age=60").is_none());
        assert!(found("CDN-Cache-Control: max-age=60.5").is_none());
        assert!(found("CDN-Cache-Control: ").is_none());
        assert_eq!(
            found("CDN-Cache-Control: max-age=60;a=b").unwrap().max_age,
            Some(Duration::from_secs(60))
        );
        let both = targeted(&of(&["Surrogate-Control: max-age=9", "CDN-Cache-Control: max-age=60"]), &names)
            .unwrap();
        assert_eq!(both.max_age, Some(Duration::from_secs(60)));
        let old = found("Surrogate-Control: max-age=9+30, content=\"ESI/1.0\"").unwrap();
        assert_eq!(
            (old.max_age, old.stale_while_revalidate),
            (Some(Duration::from_secs(9)), Some(Duration::from_secs(30)))
        );
        assert!(found("Surrogate-Control: max-age=9;someone-else").is_none());
    }
}
