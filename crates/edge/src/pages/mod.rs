//! Error pages: what a visitor, a program or a person at a terminal is told when Rempart answers for itself.

mod catalog;
mod format;
mod html;
mod interface;
mod language;
mod text;
mod weighted;

use base::event::Fault;

use self::catalog::Words;
use self::format::Format;
use self::interface::Interface;
use self::language::Language;

/// Value of `Content-Security-Policy` under which the HTML page works: it has its style inside and loads nothing.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Value of `Vary`: the fields a page depends on (RFC 9110 section 12.5.5).
pub const VARY: &str = "Accept, Accept-Language";

/// A failure to be told.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// Status of the response.
    pub status: u16,
    /// Whose fault it is; marks the station of the path that failed.
    pub fault: Fault,
    /// Stable name, such as `origin_connect_refused`; an unknown one gets words by status and fault.
    pub reason: &'static str,
    /// The value of `Retry-After`, in seconds; 0 is the same as none.
    pub retry_after: Option<u32>,
    /// The request's id.
    pub receipt: &'a str,
    /// Host the request named: untrusted, may be empty.
    pub host: &'a str,
}

/// A page ready to be sent. The body never holds an address or the name of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// Value of `Content-Language`.
    pub language: &'static str,
    /// The body, at most 8 KiB.
    pub body: Vec<u8>,
}

/// Writes the page for a failure, in the format and language the client likes best.
///
/// `accept` and `accept_language` are the fields' values, several lines joined by commas. Never fails: whatever is
/// malformed in them has no say. Without preference the page is English Markdown.
pub fn render(failure: &Failure, accept: Option<&[u8]>, accept_language: Option<&[u8]>) -> Page {
    let language = Language::negotiate(accept_language);
    let format = Format::negotiate(accept);
    let content = Content::of(failure, language);
    let body = match format {
        Format::Html => html::write(&content),
        Format::Problem | Format::Json => text::problem(&content),
        Format::Markdown | Format::Plain => text::markdown(&content),
    };
    Page { content_type: format.content_type(), language: language.tag(), body }
}

/// Longest page, in bytes.
const MAX_PAGE_BYTES: usize = 8 * 1024;

/// Renders every page there is, in every language and format, with and without a time to wait; says which one is wrong.
pub fn rehearse() -> Result<(), String> {
    let each = catalog::all().flat_map(|entry| {
        let formats = Format::ALL.into_iter().map(move |format| (entry, format));
        formats.flat_map(|(entry, format)| Language::ALL.map(|language| (entry, format, language)))
    });
    for (entry, format, language) in each {
        let status = entry.statuses.first().copied().unwrap_or(500);
        for retry_after in [None, Some(30)] {
            let failure = Failure {
                status,
                fault: entry.fault,
                reason: entry.reason,
                retry_after,
                receipt: "00000000000000000000000000",
                host: "host.example",
            };
            let accept = format.content_type().split(';').next().map(str::as_bytes);
            let page = render(&failure, accept, Some(language.tag().as_bytes()));
            let fits = (1..=MAX_PAGE_BYTES).contains(&page.body.len());
            if !fits || page.content_type != format.content_type() || page.language != language.tag() {
                return Err(format!("the page for {} in {language:?} as {format:?} is wrong", entry.reason));
            }
        }
    }
    Ok(())
}

/// Everything a page says, before it has a format.
struct Content<'a> {
    failure: &'a Failure<'a>,
    words: &'static Words,
    interface: &'static Interface,
    language: Language,
}

impl<'a> Content<'a> {
    fn of(failure: &'a Failure<'a>, language: Language) -> Self {
        let words = catalog::find(failure.reason, failure.status, failure.fault).words(language);
        Self { failure, words, interface: interface::interface(language), language }
    }

    /// Seconds to wait, when there is something to wait for.
    fn wait(&self) -> Option<u32> {
        self.failure.retry_after.filter(|&seconds| seconds > 0)
    }

    /// Whether asking the same again can end better without anybody changing anything.
    fn can_be_repeated(&self) -> bool {
        matches!(self.failure.status, 408 | 500 | 502..=504 | 520..=526)
    }
}

/// Position of the station at fault on the path: you 0, Rempart 1, website 2.
fn failing_station(fault: Fault) -> usize {
    match fault {
        Fault::Visitor => 0,
        Fault::Edge => 1,
        Fault::Origin => 2,
    }
}

/// At most `limit` characters of untrusted text on one line: what cannot be seen, or could reorder the line, is
/// replaced by a visible mark.
fn shortened(text: &str, limit: usize) -> String {
    let visible = |character: char| match character {
        // Bidirectional and zero-width controls (Unicode Standard Annex 9) turn a host name into another one.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
            '\u{fffd}'
        }
        _ if character.is_control() || character.is_whitespace() => '\u{fffd}',
        _ => character,
    };
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(limit).map(visible).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
