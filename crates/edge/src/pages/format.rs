//! Which format an error page comes in, chosen by `Accept` (RFC 9110 section 12.5.1).

use super::weighted::{Element, elements};

/// A format an error page comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For browsers.
    Html,
    /// RFC 9457 problem details.
    Problem,
    /// The same object, for clients that accept only plain JSON.
    Json,
    /// For people at a terminal, and for programs that read prose.
    Markdown,
    /// The Markdown text, for clients that accept only plain text.
    Plain,
}

impl Format {
    /// In order of preference among formats the client likes equally. A client without preference (`*/*`, or no
    /// `Accept` at all) is curl, wget or a script more often than not: prose reads better in a terminal than tags.
    pub const ALL: [Self; 5] = [Self::Markdown, Self::Plain, Self::Html, Self::Problem, Self::Json];

    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Problem => "application/problem+json",
            Self::Json => "application/json",
            Self::Markdown => "text/markdown; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
        }
    }

    /// The format a client likes best. Never fails: when nothing suits, the page comes as Markdown, because the
    /// failure itself matters more than a 406 about its description.
    pub fn negotiate(accept: Option<&[u8]>) -> Self {
        let ranges: Vec<Element> = accept.map(|field| elements(field).collect()).unwrap_or_default();
        let mut best: Option<(Match, Self)> = None;
        for format in Self::ALL {
            let Some(found) = format.find(&ranges).filter(|found| found.quality > 0) else { continue };
            if best.as_ref().is_none_or(|(highest, _)| found.beats(highest)) {
                best = Some((found, format));
            }
        }
        best.map_or(Self::Markdown, |(_, format)| format)
    }

    /// The weight of this format: that of the most specific range it lies in.
    fn find(self, ranges: &[Element]) -> Option<Match> {
        let matches = ranges.iter().enumerate().filter_map(|(position, range)| {
            let specificity = self.specificity(range)?;
            Some(Match { quality: range.quality, specificity, position })
        });
        matches.reduce(|best, next| if next.specificity > best.specificity { next } else { best })
    }

    /// How exactly a range names this format; `None` when the format lies outside it.
    ///
    /// `text/html;charset=utf-8` 4, `text/html` 3, `text/html;level=1` 2, `text/*` 1, `*/*` 0. A parameter that
    /// these pages do not have (`application/json;odata=verbose`) makes a range weaker instead of void.
    fn specificity(self, range: &Element) -> Option<u8> {
        let essence = self.content_type().split(';').next().unwrap_or_default();
        let (kind, _) = essence.split_once('/')?;
        // Old Java clients send a lone `*`.
        if range.value == "*/*" || range.value == "*" {
            return Some(0);
        }
        if range.value.strip_suffix("/*").is_some_and(|wanted| wanted.eq_ignore_ascii_case(kind)) {
            return Some(1);
        }
        if !range.value.eq_ignore_ascii_case(essence) {
            return None;
        }
        let is_ours = |&(name, value): &(&str, &str)| {
            name.eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8")
        };
        Some(match (range.parameters.is_empty(), range.parameters.iter().all(is_ours)) {
            (true, _) => 3,
            (false, true) => 4,
            (false, false) => 2,
        })
    }
}

/// How a format matched the client's list.
struct Match {
    quality: u16,
    specificity: u8,
    position: usize,
}

impl Match {
    /// Weight first; among equals the format the client named more exactly, then the one it named first.
    fn beats(&self, other: &Self) -> bool {
        let rank = |m: &Self| (m.quality, m.specificity, std::cmp::Reverse(m.position));
        rank(self) > rank(other)
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{self, *};

    #[test]
    fn formats_follow_accept() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8";
        for (accept, expected) in [
            (firefox, Html),
            (chromium, Html),
            ("*/*", Markdown),
            ("", Markdown),
            ("*", Markdown),
            ("text/html", Html),
            ("TEXT/HTML", Html),
            ("text/*", Markdown),
            ("application/*", Problem),
            ("application/json", Json),
            ("application/problem+json", Problem),
            ("application/json, application/problem+json", Json),
            ("application/problem+json, application/json", Problem),
            ("application/json, text/plain, */*", Json),
            ("text/plain", Plain),
            ("text/markdown", Markdown),
            ("text/markdown, text/html;q=0.9", Markdown),
            ("text/html, text/markdown", Html),
            ("text/html;q=0.4, application/json;q=0.5", Json),
            ("application/json;odata=verbose", Json),
            ("text/html;level=1;q=0.3, text/html;q=0.7, application/json;q=0.5", Html),
            ("text/html;charset=UTF-8;q=0.1, text/html, application/json;q=0.5", Json),
            ("text/html;charset=\"utf-8\"", Html),
        ] {
            assert_eq!(Format::negotiate(Some(accept.as_bytes())), expected, "{accept}");
        }
        assert_eq!(Format::negotiate(None), Markdown);
    }

    #[test]
    fn a_weight_of_zero_excludes() {
        for (accept, expected) in [
            ("text/markdown;q=0, */*", Plain),
            ("text/*;q=0, */*", Problem),
            ("text/*;q=0, application/problem+json;q=0, */*;q=0.1", Json),
            ("text/html;q=0, text/*;q=0.2", Markdown),
            ("text/*;q=0, text/html", Html),
        ] {
            assert_eq!(Format::negotiate(Some(accept.as_bytes())), expected, "{accept}");
        }
    }

    #[test]
    fn what_cannot_be_satisfied_or_read_gets_markdown() {
        for accept in [
            &b"image/png"[..],
            b"*/*;q=0",
            b"text/html;q=9",
            b"\xff\x00;;;,,,",
            b"text",
            b"/",
            b"text/html/x",
        ] {
            assert_eq!(Format::negotiate(Some(accept)), Markdown, "{}", accept.escape_ascii());
        }
    }
}
