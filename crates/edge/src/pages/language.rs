//! Which language an error page comes in, chosen by `Accept-Language` (RFC 4647 section 3.4, lookup).

use super::weighted::elements;

/// Longest subtag of a language range, in bytes (RFC 4647 section 2.1).
const MAX_SUBTAG_BYTES: usize = 8;

/// A language the pages are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// English, also for everybody whose language is missing.
    English,
    /// French.
    French,
    /// German.
    German,
}

impl Language {
    /// Every language; the first is the default.
    pub const ALL: [Self; 3] = [Self::English, Self::French, Self::German];

    /// The language tag, for `Content-Language` and the `lang` attribute.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
            Self::German => "de",
        }
    }

    /// The language a client likes best, English when it likes none of them. Never fails.
    pub fn negotiate(accept_language: Option<&[u8]>) -> Self {
        let mut wanted: Vec<(&str, u16)> = accept_language
            .map(|field| elements(field).map(|element| (element.value, element.quality)).collect())
            .unwrap_or_default();
        wanted.retain(|(range, _)| is_range(range));
        let refused = |language: Self| {
            wanted.iter().any(|(range, quality)| *quality == 0 && range.eq_ignore_ascii_case(language.tag()))
        };
        let mut ordered: Vec<_> = wanted.iter().filter(|(_, quality)| *quality > 0).collect();
        // Stable: among equals, the first written is preferred.
        ordered.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
        for (range, _) in ordered {
            let found = match *range {
                // "Anything else": the default, unless the client ruled that out.
                "*" => Self::ALL.into_iter().find(|&language| !refused(language)),
                range => Self::lookup(range).filter(|&language| !refused(language)),
            };
            if let Some(language) = found {
                return language;
            }
        }
        Self::English
    }

    /// Shortens the range until a language has that tag. These tags are all one subtag, so the first one decides.
    fn lookup(range: &str) -> Option<Self> {
        let primary = range.split('-').next()?;
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary))
    }
}

/// A basic language range: `*`, or subtags of at most eight letters and digits, the first of letters only.
fn is_range(text: &str) -> bool {
    let fits = |subtag: &str| (1..=MAX_SUBTAG_BYTES).contains(&subtag.len());
    let mut subtags = text.split('-');
    let primary = subtags.next().unwrap_or_default();
    text == "*"
        || fits(primary)
            && primary.bytes().all(|byte| byte.is_ascii_alphabetic())
            && subtags.all(|subtag| fits(subtag) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::Language::{self, *};

    #[test]
    fn languages_follow_accept_language() {
        for (header, expected) in [
            ("fr", French),
            ("FR-ca", French),
            ("de-CH-1996", German),
            ("zh-Hant-TW, de;q=0.3", German),
            ("en-GB,en;q=0.9,fr;q=0.8", English),
            ("en;q=0.1, fr;q=0.2", French),
            ("fr;q=0.5, de;q=0.5", French),
            ("de, *", German),
            ("*", English),
            ("nl, *;q=0.1", English),
            ("en;q=0, *", French),
            ("en;q=0, fr;q=0, *;q=0.1", German),
            ("fr;q=0, fr-CA, de;q=0.1", German),
            ("de-AT;q=0, de", German),
            ("frr, de;q=0.1", German),
            ("nl", English),
            ("", English),
        ] {
            assert_eq!(Language::negotiate(Some(header.as_bytes())), expected, "{header}");
        }
        assert_eq!(Language::negotiate(None), English);
    }

    #[test]
    fn malformed_ranges_have_no_say() {
        for header in [
            &b"fr--ca"[..],
            b"fr_FR",
            b"fr;q=7",
            b"\xff",
            b"-fr",
            b"fr-abcdefghi",
            b"f r",
            b"*-fr",
            b"en;q=0",
        ] {
            assert_eq!(Language::negotiate(Some(header)), English, "{}", header.escape_ascii());
        }
        assert_eq!(Language::negotiate(Some(b"fr_FR, de")), German);
    }
}
