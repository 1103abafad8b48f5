//! HTTP/1.1 read by the letter of RFC 9112, slowly and obviously: what a sequence of bytes says, and where it stops saying
//! one thing only.
//!
//! It is the judge of the differential suites and shares nothing with the product. Where the RFC leaves the reader a choice
//! ("MAY", or "either reject or replace"), reading stops with `End::Choice`: whoever refuses there is right, and what
//! whoever goes on makes of it is not judged.

/// One request as the RFC reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query, or `*`.
    pub target: String,
    /// Host and port, in lower case; empty when HTTP/1.0 named none.
    pub authority: String,
    /// Names in lower case; values trimmed; in order.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// No further request may be read from the connection (RFC 9112 section 9.6).
    pub last: bool,
}

/// One response as the RFC reads it, the interim ones before it read over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// As in `Request`.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// The connection may serve another request.
    pub reusable: bool,
}

/// Why nothing more was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was read, or what follows is no message by the one before it.
    Clean,
    /// The last message is not all there.
    Cut,
    /// The RFC lets the reader refuse or go on.
    Choice(&'static str),
    /// The RFC has it refused.
    Forbidden(&'static str),
}

use End::{Choice, Clean, Cut, Forbidden};

/// Fields that must not stand in a trailer section (RFC 9110 section 6.5.1), by what they do.
const NOT_IN_TRAILERS: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "max-forwards",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads requests until the bytes end or stop being clear.
pub fn requests(bytes: &[u8]) -> (Vec<Request>, End) {
    let mut rest = bytes;
    let mut read = Vec::new();
    loop {
        // RFC 9112 section 2.2: at least one empty line before a request line should be ignored.
        if rest.starts_with(b"\r\n") {
            rest = rest.get(2..).unwrap_or_default();
        }
        if rest.is_empty() {
            return (read, Clean);
        }
        match request(&mut rest) {
            Err(end) => return (read, end),
            Ok(request) => {
                let last = request.last;
                read.push(request);
                if last {
                    return (read, Clean);
                }
            }
        }
    }
}

fn request(rest: &mut &[u8]) -> Result<Request, End> {
    let start = line(rest)?;
    let words: Vec<&[u8]> = start.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words.as_slice() else { return Err(request_line_end(start)) };
    if !is_token(method) {
        return Err(Forbidden("the method is not a token"));
    }
    let minor = minor(version).ok_or(Forbidden("the version is not HTTP/1.x"))?;
    if target.is_empty() {
        return Err(Choice("white space in the request line"));
    }
    let fields = fields(rest)?;
    if fields.iter().any(|(name, _)| {
        ["content_length", "transfer_encoding"].contains(&&*name.replace('-', "_")) && name.contains('_')
    }) {
        return Err(Choice("a field that CGI takes for a framing field"));
    }
    let (method, target) = (text(method), text(target));
    let (authority, target) = resolve(&method, &target, &fields, minor)?;
    let framing = framing(&fields, minor)?;
    if matches!(method.as_str(), "CONNECT" | "TRACE") || method.len() > 32 {
        return Err(Choice("a method that need not be supported"));
    }
    if values(&fields, "expect").iter().any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Choice("an expectation that need not be met"));
    }
    let last = closes(&fields, minor)?;
    let body = match framing {
        Framing::Nothing => Vec::new(),
        Framing::Length(length) => sized(rest, length)?,
        Framing::Chunked => chunked(rest)?,
    };
    Ok(Request { method, target, authority, fields, body, last })
}

/// What is to be said about a request line that is not three words (RFC 9112 section 3).
fn request_line_end(line: &[u8]) -> End {
    let words =
        line.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b).filter(|word| !word.is_empty());
    match words.count() {
        0 => Choice("more than one empty line before a request"),
        3 => Choice("white space in the request line"),
        _ => Forbidden("the request line is not method, target and version"),
    }
}

/// `HTTP/1.minor`.
fn minor(version: &[u8]) -> Option<u8> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => Some(minor - b'0'),
        _ => None,
    }
}

/// Authority and origin form of a target (RFC 9112 sections 3.2 and 3.3).
fn resolve(
    method: &str,
    target: &str,
    fields: &[(String, Vec<u8>)],
    minor: u8,
) -> Result<(String, String), End> {
    let hosts = values(fields, "host");
    let host = match hosts.as_slice() {
        [] if minor == 0 => String::new(),
        [host] if is_authority(&text(host)) => text(host).to_ascii_lowercase(),
        [[]] => return Err(Choice("an empty Host")),
        _ => return Err(Forbidden("Host is missing, repeated or malformed")),
    };
    if target.chars().any(|character| !('!'..='~').contains(&character) || character == '#') {
        return Err(Choice("the target is not a URI"));
    }
    let path = target.split('?').next().unwrap_or_default();
    if path.contains('\\') || path.contains("%00") {
        return Err(Choice("a path with a backslash or an encoded NUL"));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((host, target.to_owned()));
    }
    let Some((scheme, after)) = target.split_once("://") else {
        return Err(if method == "CONNECT" {
            Choice("CONNECT")
        } else {
            Forbidden("the target has no form")
        });
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Choice("a target of another scheme"));
    }
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (authority, path) = after.split_at_checked(end).unwrap_or_default();
    if !is_authority(authority) {
        return Err(Forbidden("the target's authority is malformed"));
    }
    let authority = authority.to_ascii_lowercase();
    if !host.is_empty() && host != authority {
        return Err(Choice("target and Host name different hosts"));
    }
    Ok((
        authority,
        match path {
            "" if method == "OPTIONS" => "*".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            query => format!("/{query}"),
        },
    ))
}

/// Reads a response to a GET. `closed`: the sender has ended the connection after these bytes.
pub fn response(bytes: &[u8], closed: bool) -> Result<(Response, usize), End> {
    let mut rest = bytes;
    loop {
        let (status, minor) = status_line(line(&mut rest)?)?;
        let fields = fields(&mut rest)?;
        let framing = framing(&fields, minor);
        if status == 101 {
            return Err(Forbidden("a switch nobody asked for"));
        }
        if matches!(status, 100..200 | 204) {
            // RFC 9112 section 6.1, RFC 9110 section 8.6: neither field belongs into these.
            match framing {
                Ok(Framing::Nothing | Framing::Length(0)) => {}
                _ => return Err(Choice("framing in a response without content")),
            }
        }
        if status < 200 {
            continue;
        }
        let reusable = !closes(&fields, minor)?;
        let (framing, counted) = match framing {
            Err(_) if matches!(status, 204 | 304) => {
                return Err(Choice("malformed framing that frames nothing"));
            }
            _ if matches!(status, 204 | 304) => (Framing::Nothing, true),
            Ok(framing) => {
                let counted = framing != Framing::Nothing;
                (framing, counted)
            }
            Err(end) => return Err(end),
        };
        let body = match framing {
            Framing::Length(length) => sized(&mut rest, length)?,
            Framing::Chunked => chunked(&mut rest)?,
            Framing::Nothing if counted => Vec::new(),
            Framing::Nothing if !closed => return Err(Cut),
            Framing::Nothing => std::mem::take(&mut rest).to_vec(),
        };
        let response = Response { status, fields, body, reusable: reusable && counted };
        return Ok((response, rest.len()));
    }
}

/// Status and minor version (RFC 9112 section 4). A missing blank before an empty reason is what many servers send.
fn status_line(line: &[u8]) -> Result<(u16, u8), End> {
    const BAD: End = Forbidden("the status line is malformed");
    let (version, after) = line.split_at_checked(8).ok_or(BAD)?;
    let minor = minor(version).ok_or(BAD)?;
    let code = match after {
        [b' ', a, b, c] | [b' ', a, b, c, b' ', ..] => [*a, *b, *c],
        _ => return Err(BAD),
    };
    if after.iter().any(|&byte| !is_field_byte(byte)) {
        return Err(Choice("control characters in the reason"));
    }
    match text(&code).parse() {
        Ok(code @ 100..=599) if after.get(1..4).is_some_and(|code| code.iter().all(u8::is_ascii_digit)) => {
            Ok((code, minor))
        }
        Ok(600..=999) => Err(Choice("a status beyond 599")),
        _ => Err(BAD),
    }
}

/// The next line without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], End> {
    let Some(at) = rest.iter().position(|&byte| byte == b'\n') else {
        // A CR that nothing but a LF may follow settles the line before its end is here.
        let settled = rest.iter().rev().skip(1).any(|&byte| byte == b'\r');
        return Err(if settled { Choice("a CR without LF") } else { Cut });
    };
    let line = rest.get(..at).unwrap_or_default();
    *rest = rest.get(at + 1..).unwrap_or_default();
    let Some(line) = line.strip_suffix(b"\r") else { return Err(Choice("a LF without CR")) };
    if line.contains(&b'\r') {
        return Err(Choice("a CR without LF"));
    }
    Ok(line)
}

/// The field lines up to the empty line (RFC 9112 section 5, RFC 9110 section 5).
fn fields(rest: &mut &[u8]) -> Result<Vec<(String, Vec<u8>)>, End> {
    let mut fields = Vec::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Ok(fields);
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Choice("a folded line"));
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Err(Forbidden("a field line without a colon"));
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        if !is_token(name) {
            return Err(Forbidden("a field name that is not a token"));
        }
        let value = value.get(1..).unwrap_or_default();
        if value.iter().any(|&byte| !is_field_byte(byte)) {
            return Err(Choice("control characters in a field value"));
        }
        let name = text(name).to_ascii_lowercase();
        fields.push((name, trimmed(value).to_vec()));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Nothing,
    Length(usize),
    Chunked,
}

/// RFC 9112 sections 6.1 to 6.3.
fn framing(fields: &[(String, Vec<u8>)], minor: u8) -> Result<Framing, End> {
    let codings: Vec<String> =
        list(fields, "transfer-encoding").map(|coding| text(coding).to_ascii_lowercase()).collect();
    let lengths: Vec<&[u8]> = list_with_empty(fields, "content-length").collect();
    let has_codings = !values(fields, "transfer-encoding").is_empty();
    if !has_codings {
        let Some(first) = lengths.first() else { return Ok(Framing::Nothing) };
        let digits = |length: &&[u8]| !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        if !lengths.iter().all(digits) || lengths.iter().any(|length| length != first) {
            return Err(Forbidden("Content-Length is not one number"));
        }
        if lengths.len() > 1 {
            return Err(Choice("the same Content-Length more than once"));
        }
        return text(first)
            .parse()
            .map(Framing::Length)
            .map_err(|_| Forbidden("Content-Length is too large"));
    }
    if codings.last().is_none_or(|last| last != "chunked")
        || codings.iter().filter(|coding| *coding == "chunked").count() != 1
    {
        return Err(Forbidden("chunked is not the last transfer coding"));
    }
    if !lengths.is_empty() {
        return Err(Choice("Content-Length beside Transfer-Encoding"));
    }
    if minor == 0 {
        return Err(Choice("Transfer-Encoding in HTTP/1.0"));
    }
    if codings.len() > 1 || values(fields, "transfer-encoding") != [b"chunked".as_slice()] {
        let lone = codings.len() == 1 && values(fields, "transfer-encoding").len() == 1;
        let plain = lone && values(fields, "transfer-encoding").iter().all(|value| !value.contains(&b','));
        if !plain {
            return Err(Choice("transfer codings that need not be understood"));
        }
    }
    Ok(Framing::Chunked)
}

/// Whether the sender's last message on its connection is this (RFC 9112 section 9.3).
fn closes(fields: &[(String, Vec<u8>)], minor: u8) -> Result<bool, End> {
    let options: Vec<String> =
        list(fields, "connection").map(|option| text(option).to_ascii_lowercase()).collect();
    if options.iter().any(|option| !is_token(option.as_bytes())) {
        return Err(Choice("a connection option that is not a token"));
    }
    let has = |wanted: &str| options.iter().any(|option| option == wanted);
    Ok(has("close") || (minor == 0 && !has("keep-alive")))
}

fn sized(rest: &mut &[u8], length: usize) -> Result<Vec<u8>, End> {
    let (body, after) = rest.split_at_checked(length).ok_or(Cut)?;
    *rest = after;
    Ok(body.to_vec())
}

/// RFC 9112 section 7.1.
fn chunked(rest: &mut &[u8]) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    loop {
        let size = chunk_size(chunk_line(rest)?)?;
        if size == 0 {
            let trailers = fields(rest)?;
            let forbidden = |(name, _): &(String, Vec<u8>)| NOT_IN_TRAILERS.contains(&name.as_str());
            return if trailers.iter().any(forbidden) {
                Err(Choice("a field no trailer may be"))
            } else {
                Ok(body)
            };
        }
        let (data, after) = rest.split_at_checked(size).ok_or(Cut)?;
        body.extend_from_slice(data);
        *rest = match after {
            [b'\r', b'\n', after @ ..] => after,
            [] | [b'\r'] => return Err(Cut),
            _ => return Err(Forbidden("a chunk is longer than its size")),
        };
    }
}

/// The leniencies of section 2.2 are for start lines and fields; a chunk's line ends in CR LF.
fn chunk_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], End> {
    // Junk is junk whether its line ends or not.
    let begins_well = rest.first().is_none_or(u8::is_ascii_hexdigit);
    match line(rest) {
        Err(Choice(_)) => Err(Forbidden("a chunk's line does not end in CR LF")),
        Err(Cut) if !begins_well => Err(Forbidden("a chunk size that is not hexadecimal")),
        outcome => outcome,
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, End> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at_checked(digits).unwrap_or_default();
    if size.is_empty() {
        return Err(Forbidden("a chunk size that is not hexadecimal"));
    }
    let significant = text(size).trim_start_matches('0').to_owned();
    if significant.len() > 15 {
        return Err(Forbidden("a chunk size that is too large"));
    }
    if !extension.is_empty() && !extension.starts_with(b";") {
        let after = trimmed(extension);
        return Err(if after.starts_with(b";") {
            Choice("white space before a chunk extension")
        } else {
            Forbidden("something between chunk size and extension")
        });
    }
    extensions(extension).ok_or(Forbidden("a malformed chunk extension"))?;
    if size.len() > 15 {
        return Err(Choice("a chunk size of many digits"));
    }
    Ok(if significant.is_empty() { 0 } else { usize::from_str_radix(&significant, 16).unwrap_or(usize::MAX) })
}

/// `*( ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn extensions(extension: &[u8]) -> Option<()> {
    let mut rest = extension;
    while !rest.is_empty() {
        rest = trimmed_start(rest.strip_prefix(b";")?);
        rest = token(rest)?;
        if let Some(value) = trimmed_start(rest).strip_prefix(b"=") {
            let value = trimmed_start(value);
            rest = if value.starts_with(b"\"") { quoted(value)? } else { token(value)? };
        }
    }
    Some(())
}

fn token(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().take_while(|&&byte| is_token(&[byte])).count();
    bytes.get(end..).filter(|_| end > 0)
}

fn quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return bytes.get(at + 1..),
            b'\\' if is_field_byte(*bytes.get(at + 1)?) => at += 2,
            byte if is_field_byte(*byte) => at += 1,
            _ => return None,
        }
    }
}

/// `uri-host [":" port]` without userinfo, not empty.
fn is_authority(text: &str) -> bool {
    let (host, after) = match text.strip_prefix('[').and_then(|literal| literal.split_once(']')) {
        Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("literal", after),
        _ => text.split_at_checked(text.find(':').unwrap_or(text.len())).unwrap_or_default(),
    };
    let name = |character: char| character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=%".contains(character);
    let encoded = host.split('%').skip(1).all(|after| {
        after.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    });
    let port = after.strip_prefix(':').map_or(after.is_empty(), |port| {
        port.is_empty() || (port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok())
    });
    !host.is_empty() && host.chars().all(name) && encoded && port
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// All values of a field.
pub fn values<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_slice()).collect()
}

fn list_with_empty<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> impl Iterator<Item = &'a [u8]> {
    values(fields, name).into_iter().flat_map(|value| value.split(|&byte| byte == b',')).map(trimmed)
}

/// The elements of a list field.
pub fn list<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> impl Iterator<Item = &'a [u8]> {
    list_with_empty(fields, name).filter(|element| !element.is_empty())
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let mut bytes = trimmed_start(bytes);
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn trimmed_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// One character for each byte.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> (usize, End) {
        let (requests, end) = requests(input.as_bytes());
        (requests.len(), end)
    }

    #[test]
    fn requests_are_read_to_where_they_stop_being_clear() {
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), (2, Clean));
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET"), (1, Clean));
        assert_eq!(read("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc"), (0, Cut));
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(read(&format!("{chunked}3;a=\"\\\"\"\r\nabc\r\n0\r\nX: y\r\n\r\n")), (1, Clean));
        for (body, expected) in [
            ("3 \r\nabc\r\n0\r\n\r\n", "something between chunk size and extension"),
            ("+3\r\nabc\r\n0\r\n\r\n", "a chunk size that is not hexadecimal"),
            ("3\nabc\r\n0\r\n\r\n", "a chunk's line does not end in CR LF"),
            ("3\r\nabcd\r\n0\r\n\r\n", "a chunk is longer than its size"),
            ("3;\r\nabc\r\n0\r\n\r\n", "a malformed chunk extension"),
        ] {
            assert_eq!(read(&format!("{chunked}{body}")), (0, Forbidden(expected)), "{body:?}");
        }
        let both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(read(both), (0, Choice(_))));
        assert!(matches!(read("GET / HTTP/1.1\nHost: a\n\n"), (0, Choice(_))));
        assert!(matches!(read("GET / HTTP/1.1\r\n\r\n"), (0, Forbidden(_))));
        assert!(matches!(read("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"), (0, Forbidden(_))));
    }

    #[test]
    fn targets_come_down_to_origin_form() {
        let (requests, _) = requests(b"GET HTTP://A:80?q HTTP/1.1\r\nHost: a:80\r\n\r\n");
        let found: Vec<_> =
            requests.iter().map(|one| (one.authority.as_str(), one.target.as_str())).collect();
        assert_eq!(found, [("a:80", "/?q")]);
    }

    #[test]
    fn responses_are_read_with_what_is_left_over() {
        let read = |input: &str, closed| {
            response(input.as_bytes(), closed)
                .map(|(response, left)| (response.body, response.reusable, left))
        };
        let (hi, ok) = (b"hi".to_vec(), "HTTP/1.1 200 OK\r\n");
        assert_eq!(read(&format!("{ok}Content-Length: 2\r\n\r\nhi!"), false), Ok((hi.clone(), true, 1)));
        assert_eq!(read(&format!("HTTP/1.1 103 E\r\n\r\n{ok}\r\nhi"), true), Ok((hi, false, 0)));
        assert_eq!(read(&format!("{ok}Content-Length: 3\r\n\r\nhi"), true), Err(Cut));
        assert!(matches!(read("HTTP/1.1 20 OK\r\n\r\n", true), Err(Forbidden(_))));
        assert!(matches!(read("HTTP/1.1 101 S\r\n\r\n", true), Err(Forbidden(_))));
    }
}
