//! Request and response heads: bytes in, a head and its body's framing out, or a refusal that names the reason.

use base::event::Protocol;
use http::Method;

use super::syntax;
use crate::message::{HeaderList, RequestHead, ResponseHead};

/// Limits a head is held to.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

/// Why a request is not served: the status to answer, and a stable reason for page, log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 4xx or 5xx.
    pub status: u16,
    /// Stable name, as in `pages`.
    pub reason: &'static str,
}

impl Refusal {
    const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }
}

/// How a message's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Up to the end of the connection; responses only.
    Close,
}

/// A parsed request head.
#[derive(Debug)]
pub struct ParsedRequest {
    /// The head, framing fields taken out.
    pub head: RequestHead,
    /// How its body is delimited.
    pub framing: Framing,
    /// Whether the client wants the connection kept.
    pub keep_alive: bool,
    /// Whether the target is an `https` URI, which only a secured connection may serve (RFC 9110 section 7.4).
    pub names_https: bool,
}

/// A parsed response head.
#[derive(Debug)]
pub struct ParsedResponse {
    /// The head; framing fields are taken out, except the informative `Content-Length` of a response to HEAD and of a 304.
    pub head: ResponseHead,
    /// How its body is delimited.
    pub framing: Framing,
    /// Whether the connection can be used again once the body has ended.
    pub keep_alive: bool,
}

/// Where a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadEnd {
    /// Not all here yet.
    Incomplete,
    /// Ends before this offset.
    At(usize),
    /// A line ended in a bare LF, or a CR stood alone: refuse now instead of waiting for an end that may never come.
    BadLineEnd,
}

/// Looks for the empty line that ends a head. `from` is how far an earlier call on the same bytes has looked.
pub fn find_head_end(bytes: &[u8], from: usize) -> HeadEnd {
    // A line feed is judged by what lies before it, so no byte is looked at twice.
    let mut at = from;
    while let Some(offset) = memchr::memchr(b'\n', bytes.get(at..).unwrap_or_default()) {
        let line_feed = at + offset;
        let before = bytes.get(..line_feed).unwrap_or_default();
        if !before.ends_with(b"\r") {
            return HeadEnd::BadLineEnd;
        }
        if before.ends_with(b"\r\n\r") {
            return HeadEnd::At(line_feed + 1);
        }
        at = line_feed + 1;
    }
    HeadEnd::Incomplete
}

/// Cuts the next line off; every line of a head that `find_head_end` accepted ends in CR LF.
fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let at = memchr::memchr(b'\n', rest)?;
    let line = rest.get(..at)?.strip_suffix(b"\r")?;
    *rest = rest.get(at + 1..)?;
    Some(line)
}

/// What the framing and connection fields said.
#[derive(Default)]
struct Control {
    length: Option<u64>,
    chunked: bool,
    other_coding: bool,
    close: bool,
    keep_alive: bool,
    upgrade_token: bool,
    host_count: usize,
    te_trailers: bool,
    expectation: Option<bool>,
}

/// Reads field lines up to the empty line. Fails on the first one that is not exactly a field (RFC 9112 section 5).
fn parse_fields(
    rest: &mut &[u8],
    limits: &HeadLimits,
    headers: &mut HeaderList,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, Refusal>,
) -> Result<(), Refusal> {
    let mut count = 0;
    while let Some(line) = next_line(rest) {
        if line.is_empty() {
            return Ok(());
        }
        count += 1;
        if count > limits.fields {
            return Err(Refusal { status: 431, reason: "headers_too_large" });
        }
        let Some(colon) = memchr::memchr(b':', line) else { return Err(Refusal::bad("bad_header")) };
        let (name, value) =
            (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        // A leading space is obs-fold, a trailing one hides the name from stricter readers: neither is a token.
        if !syntax::is_token(name) || !syntax::is_field_value(value) {
            return Err(Refusal::bad("bad_header"));
        }
        let value = syntax::trim(value);
        if each(name, value)? {
            headers.push(name, value);
        }
    }
    Err(Refusal::bad("bad_header"))
}

/// Notes what a field says about framing or the connection; answers whether the field is kept in the list.
fn note_control(control: &mut Control, name: &[u8], value: &[u8]) -> Result<bool, Refusal> {
    const BAD: Refusal = Refusal::bad("bad_framing");
    let is = |field: &[u8]| name.eq_ignore_ascii_case(field);
    match name.len() {
        14 if is(b"content-length") => {
            // Even identical repetitions are refused: the next hop may count differently.
            let length = syntax::content_length(value).filter(|_| control.length.is_none()).ok_or(BAD)?;
            control.length = Some(length);
            Ok(false)
        }
        17 if is(b"transfer-encoding") => {
            if control.chunked || control.other_coding {
                return Err(BAD);
            }
            if value.eq_ignore_ascii_case(b"chunked") {
                control.chunked = true;
            } else if syntax::elements(value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"))
                && syntax::elements(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count()
                    == 1
            {
                control.other_coding = true;
            } else {
                return Err(BAD);
            }
            Ok(false)
        }
        10 if is(b"connection") => {
            for token in syntax::elements(value) {
                control.close |= token.eq_ignore_ascii_case(b"close");
                control.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                control.upgrade_token |= token.eq_ignore_ascii_case(b"upgrade");
            }
            Ok(true)
        }
        2 if is(b"te") => {
            control.te_trailers |=
                syntax::elements(value).any(|element| element.eq_ignore_ascii_case(b"trailers"));
            Ok(true)
        }
        _ => Ok(true),
    }
}

/// Parses a request head, the empty line included.
pub fn parse_request(head: &[u8], limits: &HeadLimits) -> Result<ParsedRequest, Refusal> {
    let mut rest = head;
    let line = next_line(&mut rest).ok_or(Refusal::bad("bad_request"))?;
    let (method, target, protocol) = parse_request_line(line, limits)?;

    let mut control = Control::default();
    let mut host: Vec<u8> = Vec::new();
    let mut headers = HeaderList::with_capacity(24, head.len());
    let mut upgrade = None;
    parse_fields(&mut rest, limits, &mut headers, |name, value| {
        match name.len() {
            // RFC 9112 section 3.3: an empty one is refused too, as an http URI needs an authority.
            4 if name.eq_ignore_ascii_case(b"host") => {
                control.host_count += 1;
                if !syntax::is_authority(value) {
                    return Err(Refusal::bad("missing_host"));
                }
                host = value.to_vec();
                return Ok(false);
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                let continues = value.eq_ignore_ascii_case(b"100-continue");
                control.expectation = Some(continues && control.expectation != Some(false));
                return Ok(false);
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") && upgrade.is_none() => {
                upgrade = Some(
                    std::str::from_utf8(value)
                        .ok()
                        .filter(|_| syntax::is_tunnel_protocol(value))
                        .map(Box::from),
                );
            }
            14 | 17 if syntax::is_framing_lookalike(name) => return Err(Refusal::bad("bad_framing")),
            _ => {}
        }
        note_control(&mut control, name, value)
    })?;

    let framing = request_framing(&control, protocol)?;
    let names_https = target.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https:"));
    let (authority, target) = resolve_target(&method, target, host, &control, protocol)?;
    if control.expectation == Some(false) {
        return Err(Refusal { status: 417, reason: "expectation_failed" });
    }
    let keep_alive = !control.close && (protocol == Protocol::Http11 || control.keep_alive);
    let head = RequestHead {
        method,
        authority,
        target,
        protocol,
        headers,
        // RFC 9110 section 7.8: ignored in HTTP/1.0, and without the matching connection option.
        upgrade: upgrade.flatten().filter(|_| control.upgrade_token && protocol == Protocol::Http11),
        // RFC 9110 section 10.1.1: ignored in HTTP/1.0, and when there is no body to wait for.
        expects_continue: control.expectation == Some(true)
            && protocol == Protocol::Http11
            && !matches!(framing, Framing::None | Framing::Length(0)),
        accepts_trailers: control.te_trailers,
    };
    Ok(ParsedRequest { head, framing, keep_alive, names_https })
}

fn parse_request_line<'a>(
    line: &'a [u8],
    limits: &HeadLimits,
) -> Result<(Method, &'a [u8], Protocol), Refusal> {
    const BAD: Refusal = Refusal::bad("bad_request");
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    let protocol = match version {
        b"HTTP/1.1" => Protocol::Http11,
        b"HTTP/1.0" => Protocol::Http10,
        // RFC 9110 section 2.5: a higher minor version is read as the highest one known.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Protocol::Http11,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal { status: 505, reason: "version_not_supported" });
        }
        _ => return Err(BAD),
    };
    if !syntax::is_token(method) {
        return Err(BAD);
    }
    // RFC 9112 section 3: too long for any method known here.
    if method.len() > MAX_METHOD {
        return Err(METHOD_NOT_SUPPORTED);
    }
    if target.len() > limits.target {
        return Err(Refusal { status: 414, reason: "target_too_long" });
    }
    if !syntax::is_target(target) {
        return Err(Refusal::bad("bad_target"));
    }
    let method = Method::from_bytes(method).map_err(|_| BAD)?;
    Ok((method, target, protocol))
}

/// Longest method name taken, in bytes; the longest registered one has 17.
const MAX_METHOD: usize = 32;

/// CONNECT asks for a forward proxy. TRACE would show a script what the edge adds and what the browser hides from it, such
/// as cookies (RFC 9110 section 9.3.8).
pub(crate) const METHOD_NOT_SUPPORTED: Refusal = Refusal { status: 501, reason: "method_not_supported" };

fn request_framing(control: &Control, protocol: Protocol) -> Result<Framing, Refusal> {
    let encoded = control.chunked || control.other_coding;
    if encoded && (control.length.is_some() || protocol == Protocol::Http10) {
        return Err(Refusal::bad("bad_framing"));
    }
    if control.other_coding {
        // RFC 9112 section 6.1: a transfer coding the server does not understand.
        return Err(Refusal { status: 501, reason: "transfer_coding_not_supported" });
    }
    Ok(match control.length {
        _ if control.chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::None,
    })
}

/// The four forms of a request target (RFC 9112 section 3.2), down to authority and origin form.
fn resolve_target(
    method: &Method,
    target: &[u8],
    host: Vec<u8>,
    control: &Control,
    protocol: Protocol,
) -> Result<(String, String), Refusal> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(METHOD_NOT_SUPPORTED);
    }
    if control.host_count > 1 || (control.host_count == 0 && protocol == Protocol::Http11) {
        return Err(Refusal::bad("missing_host"));
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::bad("bad_target"));
    if target.starts_with(b"/") || (target == b"*" && method == Method::OPTIONS) {
        return Ok((text(&host)?, text(target)?));
    }
    let (authority, path) = split_absolute(target).ok_or(Refusal::bad("bad_target"))?;
    if !syntax::is_authority(authority) || (!host.is_empty() && !host.eq_ignore_ascii_case(authority)) {
        return Err(Refusal::bad("missing_host"));
    }
    // RFC 9112 section 3.2.4: OPTIONS for a whole server is `*` in origin form.
    let path = match path {
        b"" if method == Method::OPTIONS => "*".to_owned(),
        b"" => "/".to_owned(),
        query if query.starts_with(b"?") => format!("/{}", text(query)?),
        path => text(path)?,
    };
    Ok((text(authority)?, path))
}

/// `http://authority/path?query` into authority and the rest.
fn split_absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let scheme_end = target.windows(3).position(|window| window == b"://")?;
    let scheme = target.get(..scheme_end)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = target.get(scheme_end + 3..)?;
    let end = rest.iter().position(|&byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
    rest.split_at_checked(end)
}

/// Parses a response head, the empty line included. `to_head`: the request was HEAD.
///
/// Any refusal means that the origin's answer cannot be passed on; its status is not used.
pub fn parse_response(head: &[u8], limits: &HeadLimits, to_head: bool) -> Result<ParsedResponse, Refusal> {
    const BAD: Refusal = Refusal { status: 502, reason: "origin_bad_response" };
    let mut rest = head;
    let line = next_line(&mut rest).ok_or(BAD)?;
    let (version, after) = line.split_at_checked(9).ok_or(BAD)?;
    let http11 = match version {
        b"HTTP/1.0 " => false,
        // RFC 9110 section 2.5: a higher minor version is read as the highest one known.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9', b' '] => true,
        _ => return Err(BAD),
    };
    let (code, reason) = after.split_at_checked(3).ok_or(BAD)?;
    let status = std::str::from_utf8(code).ok().and_then(|code| code.parse::<u16>().ok()).ok_or(BAD)?;
    let reason = match reason {
        b"" => b"",
        [b' ', reason @ ..] if syntax::is_field_value(reason) => reason,
        _ => return Err(BAD),
    };
    if !(100..=599).contains(&status) || !code.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }

    let mut control = Control::default();
    let mut headers = HeaderList::with_capacity(24, head.len());
    let contentless = status < 200 || status == 204;
    let bodiless = (to_head && !contentless) || status == 304;
    parse_fields(&mut rest, limits, &mut headers, |name, value| {
        let keep = note_control(&mut control, name, value)?;
        Ok(keep || (bodiless && name.len() == 14))
    })
    .map_err(|_| BAD)?;
    let encoded = control.chunked || control.other_coding;
    if control.other_coding || (encoded && (control.length.is_some() || !http11)) {
        return Err(BAD);
    }
    let framing = match control.length {
        _ if bodiless || contentless => Framing::None,
        _ if control.chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    };
    // RFC 9112 section 6.1: neither belongs into these; what follows on such a connection is anybody's guess.
    let misframed = contentless && (encoded || control.length.is_some_and(|length| length > 0));
    if misframed && status < 200 {
        return Err(BAD);
    }
    let keep_alive =
        !control.close && !misframed && framing != Framing::Close && (http11 || control.keep_alive);
    let usual = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let reason = (usual.map(str::as_bytes) != Some(reason)).then(|| Box::from(reason));
    Ok(ParsedResponse { head: ResponseHead { status, reason, headers }, framing, keep_alive })
}

/// Whether a field must not stand in a trailer section, because it would change framing, routing, authentication or the
/// meaning of the content (RFC 9110 section 6.5.1), or what the edge says about the client.
pub fn is_forbidden_in_trailers(name: &[u8]) -> bool {
    const FORBIDDEN: [&str; 24] = [
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
    ];
    FORBIDDEN.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
        || syntax::is_framing_lookalike(name)
}

/// Parses a trailer section (RFC 9112 section 7.1.2), its empty line included; a forbidden field refuses it.
pub fn parse_trailers(section: &[u8], limits: &HeadLimits) -> Result<HeaderList, Refusal> {
    let mut rest = section;
    let mut trailers = HeaderList::default();
    parse_fields(&mut rest, limits, &mut trailers, |name, _| {
        if is_forbidden_in_trailers(name) {
            return Err(Refusal::bad("bad_header"));
        }
        Ok(true)
    })?;
    Ok(trailers)
}
