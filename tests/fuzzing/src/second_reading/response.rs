//! A response read a second time: interim ones, the final one, and its body (RFC 9112 sections 4 and 6.3).

use edge::h1::parse::HeadLimits;

use super::body::{Body, Ending};
use super::head;
use super::{Section, section};

/// Interim responses taken before the final one.
pub const MOST_INTERIM: usize = 16;

/// A response, as the answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
    /// Its status.
    pub status: u16,
    /// Its reason phrase; one character for each byte.
    pub reason: String,
    /// Its fields but the framing ones; with the informative `Content-Length` where there is no body to measure.
    pub fields: Vec<(String, String)>,
    /// Whether another one may follow on the connection.
    pub keep_alive: bool,
    /// Its body.
    pub body: Body,
    /// Bytes behind it.
    pub after: usize,
}

/// What came instead of one.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing that could be passed on.
    Refused,
    /// Too little.
    Incomplete,
}

/// Reads the answer to a request; `to_head`: the request was HEAD.
pub fn response(input: &[u8], limits: &HeadLimits, to_head: bool) -> Result<Response, Failure> {
    let mut rest = input;
    let mut interim = Vec::new();
    loop {
        let end = match section(rest.strip_prefix(b"\r\n").unwrap_or(rest), limits.bytes) {
            Section::Incomplete if rest.len() < limits.bytes => return Err(Failure::Incomplete),
            Section::Incomplete | Section::Bad => return Err(Failure::Refused),
            Section::Ends(end) => end,
        };
        let (text, after) = rest.split_at(end);
        let mut response = read(text, limits, to_head).ok_or(Failure::Refused)?;
        rest = after;
        if response.head.status >= 200 {
            let (body, length) = body(&response, after, limits);
            // What the connection's end delimits leaves nothing behind it.
            let head = &mut response.head;
            let behind = if body.ending == Ending::Complete { after.len() - length } else { 0 };
            (head.interim, head.body, head.after) = (interim, body, behind);
            return Ok(response.head);
        }
        // Nobody asked for another protocol.
        interim.push(response.head.status);
        if response.head.status == 101 || interim.len() > MOST_INTERIM {
            return Err(Failure::Refused);
        }
    }
}

/// A head, and what says how long its body is.
struct Head {
    head: Response,
    bodiless: bool,
    chunked: bool,
    length: Option<u64>,
}

fn read(text: &[u8], limits: &HeadLimits, to_head: bool) -> Option<Head> {
    let lines = head::lines(text)?;
    let (status_line, field_lines) = lines.split_first()?;
    let version: Vec<char> = status_line.strip_prefix("HTTP/1.")?.chars().take(2).collect();
    let [minor, ' '] = version.as_slice() else { return None };
    if !minor.is_ascii_digit() {
        return None;
    }
    // RFC 9110 section 2.5: what is newer than 1.1 is read as 1.1.
    let http11 = *minor != '0';
    let digits: Vec<char> = status_line.chars().skip(9).take(3).collect();
    if digits.len() != 3 || !digits.iter().all(char::is_ascii_digit) {
        return None;
    }
    let status: u16 = digits.iter().collect::<String>().parse().ok()?;
    let after: Vec<char> = status_line.chars().skip(12).collect();
    let reason: String = after.iter().skip(1).collect();
    let good_reason = after.first().is_none_or(|first| *first == ' ');
    if !(100..=599).contains(&status) || !good_reason || !reason.chars().all(head::is_field_character) {
        return None;
    }
    if field_lines.len() > limits.fields {
        return None;
    }
    let mut fields = Vec::new();
    for line in field_lines {
        let (name, value) = line.split_once(':')?;
        if !head::is_token(name) || !value.chars().all(head::is_field_character) {
            return None;
        }
        fields.push((name.to_owned(), head::trimmed(value).to_owned()));
    }
    framed(status, reason, fields, http11, to_head)
}

/// RFC 9112 section 6.3, rule by rule.
fn framed(
    status: u16,
    reason: String,
    mut fields: Vec<(String, String)>,
    http11: bool,
    to_head: bool,
) -> Option<Head> {
    let lengths = head::values(&fields, "content-length");
    let length = match lengths.as_slice() {
        [] => None,
        [length] => {
            let digits = !length.is_empty() && length.chars().all(|character| character.is_ascii_digit());
            Some(length.parse::<u64>().ok().filter(|_| digits && length.len() <= 18)?)
        }
        _ => return None,
    };
    let codings = head::values(&fields, "transfer-encoding");
    let chunked = match codings.as_slice() {
        [] => false,
        [coding] if coding.eq_ignore_ascii_case("chunked") && http11 && length.is_none() => true,
        _ => return None,
    };
    let never_any = status < 200 || status == 204;
    let bodiless = never_any || to_head || status == 304;
    let misframed = never_any && (chunked || length.is_some_and(|length| length > 0));
    if misframed && status < 200 {
        return None;
    }
    let options: Vec<String> = head::values(&fields, "connection")
        .iter()
        .flat_map(|value| value.split(','))
        .map(|option| head::trimmed(option).to_ascii_lowercase())
        .collect();
    let has = |wanted: &str| options.iter().any(|option| option == wanted);
    let delimited = bodiless || chunked || length.is_some();
    let keep_alive = delimited && !misframed && !has("close") && (http11 || has("keep-alive"));
    let informative = bodiless && !never_any;
    fields.retain(|(name, _)| {
        !name.eq_ignore_ascii_case("transfer-encoding")
            && (informative || !name.eq_ignore_ascii_case("content-length"))
    });
    let (interim, body) = (Vec::new(), Body::none());
    let head = Response { interim, status, reason, fields, keep_alive, body, after: 0 };
    Some(Head { head, bodiless, chunked, length })
}

fn body(head: &Head, after: &[u8], limits: &HeadLimits) -> (Body, usize) {
    match head.length {
        _ if head.bodiless => (Body::none(), 0),
        _ if head.chunked => Body::of_chunks(after, limits),
        Some(length) => Body::of_length(after, length),
        None => {
            let body = Body { content: after.to_vec(), trailers: Vec::new(), ending: Ending::Complete };
            (body, after.len())
        }
    }
}
