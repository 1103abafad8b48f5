//! A whole request, and the ones behind it on the same connection.

use edge::h1::parse::HeadLimits;

use super::body::{Body, Ending};
use super::head::{self, Reading};
use super::{Section, section};

/// Empty lines a sender may put in front of a request (RFC 9112 section 2.2), as many as the edge overlooks.
pub const EMPTY_LINES: usize = 1;

/// A request whose head was good.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Its head.
    pub head: Reading,
    /// What it wants beyond that.
    pub wishes: Wishes,
    /// Its body.
    pub body: Body,
}

/// What a head asks for that only this connection can give.
#[derive(Debug, PartialEq, Eq)]
pub struct Wishes {
    /// The protocols to switch to (RFC 9110 section 7.8).
    pub upgrade: Option<String>,
    /// To be told to go on before it sends its body (section 10.1.1).
    pub to_continue: bool,
    /// Trailers behind the response (section 10.1.4).
    pub trailers: bool,
}

/// What ends a connection's requests.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The input, between two requests.
    Between,
    /// The input, within a head or body.
    Within,
    /// A request that is refused.
    Refused,
    /// A request after which the connection is not used again; so many bytes follow it.
    Closed(usize),
}

/// The requests of a connection on which this comes.
pub fn requests(input: &[u8], limits: &HeadLimits) -> (Vec<Request>, End) {
    let mut rest = input;
    let mut requests = Vec::new();
    loop {
        for _ in 0..EMPTY_LINES {
            rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        }
        if rest.is_empty() {
            return (requests, End::Between);
        }
        // One more empty line is a request line that is none, but its head goes on to the next.
        let end = match section(rest.strip_prefix(b"\r\n").unwrap_or(rest), limits.bytes) {
            // A head as long as the limit has no room for its end.
            Section::Incomplete if rest.len() < limits.bytes => return (requests, End::Within),
            Section::Incomplete | Section::Bad => return (requests, End::Refused),
            Section::Ends(end) => end,
        };
        let (text, after) = rest.split_at(end);
        let Some(head) = head::read(text, limits) else { return (requests, End::Refused) };
        let wishes = wishes(text, &head);
        let (body, length) = match head.body {
            head::Body::None => (Body::none(), 0),
            head::Body::Length(length) => Body::of_length(after, length),
            head::Body::Chunked => Body::of_chunks(after, limits),
        };
        let (ending, last) = (body.ending, !head.keep_alive || wishes.upgrade.is_some());
        requests.push(Request { head, wishes, body });
        rest = &after[length..];
        match ending {
            Ending::Complete if last => return (requests, End::Closed(rest.len())),
            Ending::Complete => {}
            Ending::Incomplete => return (requests, End::Within),
            Ending::Refused => return (requests, End::Refused),
        }
    }
}

fn wishes(text: &[u8], head: &Reading) -> Wishes {
    let expects = head::lines(text)
        .unwrap_or_default()
        .iter()
        .any(|line| line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("expect")));
    let lists = |name: &str, wanted: &str| {
        head::values(&head.fields, name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|element| head::trimmed(element).eq_ignore_ascii_case(wanted))
    };
    let bodiless = matches!(head.body, head::Body::None | head::Body::Length(0));
    let upgrade = head::values(&head.fields, "upgrade").into_iter().next();
    Wishes {
        upgrade: upgrade.filter(|value| lists("connection", "upgrade") && !head.http10 && may_follow(value)),
        to_continue: expects && !head.http10 && !bodiless,
        trailers: lists("te", "trailers"),
    }
}

/// A list of `name[/version]`, none of them HTTP or TLS: behind those nobody would see the requests.
fn may_follow(upgrade: &str) -> bool {
    let elements: Vec<&str> =
        upgrade.split(',').map(head::trimmed).filter(|element| !element.is_empty()).collect();
    let good = |element: &&str| {
        let (name, version) = element.split_once('/').unwrap_or((element, "1"));
        let never = ["h2c", "h2", "http", "tls"].iter().any(|never| name.eq_ignore_ascii_case(never));
        head::is_token(name) && head::is_token(version) && !never
    };
    !elements.is_empty() && elements.iter().all(good)
}
