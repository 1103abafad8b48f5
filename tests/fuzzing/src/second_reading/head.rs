//! A second reading of RFC 9112, slow and obvious, that shares nothing with the codec but the limits.
//!
//! Where the RFC leaves a choice, this takes the one the edge promises: what two readers could read in two ways is refused.
//! That is: a bare LF, a folded line, Content-Length beside Transfer-Encoding or more than once, a transfer coding other
//! than chunked, `Content_Length`, a Host that differs from an absolute target, and the methods CONNECT and TRACE.

use edge::h1::parse::HeadLimits;

/// How the body is delimited.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked,
}

/// What a request head says.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading {
    pub method: String,
    pub authority: String,
    pub target: String,
    pub http10: bool,
    /// All but Host, Expect and the framing fields; one character for each byte.
    pub fields: Vec<(String, String)>,
    pub body: Body,
    pub keep_alive: bool,
}

/// Reads the head at the beginning of `input`; `None` when it has to be refused, or is not all there.
pub fn read(input: &[u8], limits: &HeadLimits) -> Option<Reading> {
    let lines = lines(input)?;
    let (request_line, field_lines) = lines.split_first()?;
    let words: Vec<&str> = request_line.split(' ').collect();
    let [method, target, version] = words.as_slice() else { return None };
    if !is_token(method) || method.len() > 32 || *method == "CONNECT" || *method == "TRACE" {
        return None;
    }
    let http10 = match *version {
        "HTTP/1.0" => true,
        "HTTP/1.1" | "HTTP/1.2" | "HTTP/1.3" | "HTTP/1.4" | "HTTP/1.5" | "HTTP/1.6" | "HTTP/1.7"
        | "HTTP/1.8" | "HTTP/1.9" => false,
        _ => return None,
    };
    if target.is_empty() || target.len() > limits.target {
        return None;
    }
    if target.chars().any(|character| !('!'..='~').contains(&character) || character == '#') {
        return None;
    }
    if field_lines.len() > limits.fields {
        return None;
    }
    let mut fields = Vec::new();
    for line in field_lines {
        fields.push(field(line)?);
    }

    let body = body(&fields, http10)?;
    let host = host(&fields, http10)?;
    let (authority, target) = authority_and_target(method, target, host)?;
    if values(&fields, "expect").iter().any(|value| !value.eq_ignore_ascii_case("100-continue")) {
        return None;
    }
    let options: Vec<String> = values(&fields, "connection")
        .iter()
        .flat_map(|value| value.split(','))
        .map(|option| trimmed(option).to_ascii_lowercase())
        .collect();
    let has = |wanted: &str| options.iter().any(|option| option == wanted);
    let keep_alive = if http10 { has("keep-alive") && !has("close") } else { !has("close") };
    let taken = ["host", "expect", "content-length", "transfer-encoding"];
    fields.retain(|(name, _)| !taken.contains(&name.to_ascii_lowercase().as_str()));
    Some(Reading { method: (*method).to_owned(), authority, target, http10, fields, body, keep_alive })
}

/// The lines before the first empty one, one character for each byte; every line has to end in CR LF.
pub fn lines(input: &[u8]) -> Option<Vec<String>> {
    let text: String = input.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = Vec::new();
    let mut rest = text.as_str();
    loop {
        let (line, after) = rest.split_once('\n')?;
        let line = line.strip_suffix('\r')?;
        if line.is_empty() {
            return Some(lines);
        }
        lines.push(line.to_owned());
        rest = after;
    }
}

/// Name and value of a field line.
pub fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    if !is_token(name) {
        return None;
    }
    if !value.chars().all(is_field_character) {
        return None;
    }
    let lookalike = name.to_ascii_lowercase().replace('_', "-");
    if name.contains('_') && (lookalike == "content-length" || lookalike == "transfer-encoding") {
        return None;
    }
    Some((name.to_owned(), trimmed(value).to_owned()))
}

/// What may stand in a field value: no control characters but the tab.
pub fn is_field_character(character: char) -> bool {
    let visible = (' '..='~').contains(&character);
    let beyond_ascii = character >= '\u{80}';
    visible || beyond_ascii || character == '\t'
}

fn body(fields: &[(String, String)], http10: bool) -> Option<Body> {
    let codings = values(fields, "transfer-encoding");
    let lengths = values(fields, "content-length");
    match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Some(Body::None),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") && !http10 => Some(Body::Chunked),
        ([], [length]) => {
            let digits = !length.is_empty() && length.chars().all(|character| character.is_ascii_digit());
            if !digits || length.len() > 18 {
                return None;
            }
            length.parse().ok().map(Body::Length)
        }
        _ => None,
    }
}

/// The value of the one Host; empty when HTTP/1.0 has none.
fn host(fields: &[(String, String)], http10: bool) -> Option<String> {
    match values(fields, "host").as_slice() {
        [] if http10 => Some(String::new()),
        [host] if is_authority(host) => Some(host.clone()),
        _ => None,
    }
}

fn authority_and_target(method: &str, target: &str, host: String) -> Option<(String, String)> {
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Some((host, target.to_owned()));
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))?;
    let rest = &target[scheme.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_authority(authority) || !(host.is_empty() || host.eq_ignore_ascii_case(authority)) {
        return None;
    }
    let path = match path.chars().next() {
        None if method == "OPTIONS" => "*".to_owned(),
        None => "/".to_owned(),
        Some('?') => format!("/{path}"),
        Some(_) => path.to_owned(),
    };
    Some((authority.to_owned(), path))
}

fn is_authority(text: &str) -> bool {
    let (host_is_good, after) = match text.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, after)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), after),
            None => return false,
        },
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (is_registered_name(&text[..end]), &text[end..])
        }
    };
    let port_is_good = match after.strip_prefix(':') {
        None => after.is_empty(),
        Some("") => true,
        Some(port) => {
            port.len() <= 5
                && port.chars().all(|character| character.is_ascii_digit())
                && port.parse::<u32>().is_ok_and(|port| port <= 65_535)
        }
    };
    host_is_good && port_is_good
}

/// `1*( unreserved / pct-encoded / sub-delims )` of RFC 3986.
fn is_registered_name(name: &str) -> bool {
    let characters: Vec<char> = name.chars().collect();
    let mut at = 0;
    while at < characters.len() {
        let character = characters[at];
        if character == '%' {
            let digits = characters.get(at + 1..at + 3);
            if !digits.is_some_and(|digits| digits.iter().all(char::is_ascii_hexdigit)) {
                return false;
            }
            at += 3;
        } else if character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(character) {
            at += 1;
        } else {
            return false;
        }
    }
    !characters.is_empty()
}

/// `1*tchar` of RFC 9110.
pub fn is_token(text: &str) -> bool {
    let is_token_character =
        |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
    !text.is_empty() && text.chars().all(is_token_character)
}

/// The values of all fields of this name.
pub fn values(fields: &[(String, String)], name: &str) -> Vec<String> {
    let wanted = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    wanted.map(|(_, value)| value.clone()).collect()
}

/// Without white space at its ends.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
