//! Byte classes and small grammars of HTTP/1.1 (RFC 9110 section 5.6, RFC 9112 sections 2 to 5, RFC 3986).

const TOKEN: u8 = 1;
const FIELD: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;

/// One look-up per byte, shared by every check below.
const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let token = b.is_ascii_alphanumeric() || is_one_of(b, b"!#$%&'*+-.^_`|~");
        let field = b == b'\t' || (b >= 0x20 && b != 0x7f);
        // Visible ASCII without '#': a fragment never travels, and anything else must be percent-encoded.
        let target = b > 0x20 && b < 0x7f && b != b'#';
        let host = b.is_ascii_alphanumeric() || is_one_of(b, b"-._~%!$&'()*+,;=");
        table[byte] =
            (token as u8) * TOKEN + (field as u8) * FIELD + (target as u8) * TARGET + (host as u8) * HOST;
        byte += 1;
    }
    table
};

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

#[expect(clippy::indexing_slicing, reason = "a u8 always indexes a table of 256")]
fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

/// `token` (RFC 9110 section 5.6.2): not empty.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is(byte, TOKEN))
}

/// Bytes allowed in a field value (RFC 9110 section 5.5): no control characters but HTAB; obs-text is allowed.
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| is(byte, FIELD))
}

/// Whether this can be a request target: visible ASCII without a fragment, and a path that everybody splits alike.
///
/// What browsers send although RFC 3986 has it encoded (`|`, `"`, a lone `%`) is taken: it delimits nothing.
pub fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is(byte, TARGET)) && is_plain_path(bytes)
}

/// No backslash, which is a slash to some origins and which browsers never send in a path, and no `%00`, which ends a file
/// name in others and should be rejected (RFC 3986 section 7.3). A query may hold both: it is data.
fn is_plain_path(target: &[u8]) -> bool {
    let mut rest = target;
    while let Some(at) = memchr::memchr3(b'\\', b'%', b'?', rest) {
        let after = rest.get(at + 1..).unwrap_or_default();
        match rest.get(at) {
            Some(b'?') => return true,
            Some(b'%') if !after.starts_with(b"00") => rest = after,
            _ => return false,
        }
    }
    true
}

/// `uri-host [":" port]` (RFC 9110 section 7.2, RFC 3986 section 3.2.2): no userinfo, not empty.
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = split_port(bytes);
    let host_ok = match host.strip_prefix(b"[") {
        Some(literal) => literal
            .strip_suffix(b"]")
            .and_then(|inside| std::str::from_utf8(inside).ok())
            .is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.iter().all(|&byte| is(byte, HOST)) && is_percent_encoded(host),
    };
    let port_ok = port.is_none_or(|port| {
        port.len() <= 5
            && port.iter().all(u8::is_ascii_digit)
            && (port.is_empty() || parse_port(port).is_some())
    });
    host_ok && port_ok
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Every `%` is followed by two hexadecimal digits.
fn is_percent_encoded(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return false,
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    true
}

/// Splits `host:port`; the colons inside an IPv6 literal do not count.
pub fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match authority.iter().rposition(|&byte| byte == b':' || byte == b']') {
        Some(at) if authority.get(at) == Some(&b':') => {
            (authority.get(..at).unwrap_or_default(), authority.get(at + 1..))
        }
        _ => (authority, None),
    }
}

/// Removes optional white space (SP, HTAB) at both ends (RFC 9110 section 5.6.3).
pub fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_start(bytes);
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Removes optional white space at the front.
fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// `Content-Length` as a number: digits only, no sign, no list, fits 63 bits.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110 section 5.6.1).
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Whether a tunnel may be opened for this `Upgrade` value (RFC 9110 section 7.8): a list of `name[/version]`, none of
/// them HTTP or TLS. Behind those the client would talk to the origin in requests the edge does not see.
pub fn is_tunnel_protocol(value: &[u8]) -> bool {
    const NEVER: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];
    let is_good = |element: &[u8]| {
        let mut parts = element.splitn(2, |&byte| byte == b'/');
        let name = parts.next().unwrap_or_default();
        is_token(name)
            && parts.next().is_none_or(is_token)
            && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never))
    };
    elements(value).next().is_some() && elements(value).all(is_good)
}

/// `Content_Length` and the like: no framing field here, but one to every origin that turns field names into variables.
pub fn is_framing_lookalike(name: &[u8]) -> bool {
    let reads_as = |field: &[u8]| {
        name.len() == field.len()
            && name.contains(&b'_')
            && name.iter().zip(field).all(|(&byte, &expected)| match byte {
                b'_' => expected == b'-',
                byte => byte.eq_ignore_ascii_case(&expected),
            })
    };
    reads_as(b"content-length") || reads_as(b"transfer-encoding")
}

/// `1*( ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`: the extensions of a chunk (RFC 9112 section 7.1.1).
///
/// White space before a `;` is refused although the grammar has it: no sender writes it, and readers disagree on it.
pub fn is_chunk_extension(extension: &[u8]) -> bool {
    let mut rest = extension;
    while let Some(after) = rest.strip_prefix(b";") {
        let Some(after) = after_token(trim_start(after)) else { return false };
        rest = match trim_start(after).strip_prefix(b"=").map(trim_start) {
            None => after,
            Some(value) => match after_token(value).or_else(|| after_quoted_string(value)) {
                Some(after) => after,
                None => return false,
            },
        };
    }
    rest.is_empty() && !extension.is_empty()
}

/// What follows the token at the front, if there is one.
fn after_token(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|&byte| !is(byte, TOKEN)).unwrap_or(bytes.len());
    bytes.get(end..).filter(|_| end > 0)
}

/// What follows the quoted string at the front, if there is one (RFC 9110 section 5.6.4).
fn after_quoted_string(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', escaped, after @ ..] if is(*escaped, FIELD) => after,
            [b'\\', ..] => return None,
            [byte, after @ ..] if is(*byte, FIELD) => after,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_never_opened_for_http_itself() {
        for good in ["websocket", "WebSocket, foo/1.0", "connect-udp"] {
            assert!(is_tunnel_protocol(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ",",
            "h2c",
            "H2C",
            "websocket, h2c",
            "HTTP/2.0",
            "TLS/1.2",
            "a b",
            "websocket\r\nX: 1",
            "a/",
            "a/b/c",
        ] {
            assert!(!is_tunnel_protocol(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn targets() {
        for good in
            ["/", "*", "/a|b", "/100%", "/%2e%2e/", "/%0d%0a", "/a?b=\\&c=%00", "http://a/b?%00", "/%0"]
        {
            assert!(is_target(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "/a b",
            "/a#b",
            "/\u{e9}",
            "/\0",
            "/a\\b",
            "/..\\..",
            "/a%00",
            "/%00?b",
            "http://a/%00b",
            "/%41%00",
        ] {
            assert!(!is_target(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn authorities() {
        for good in
            ["example.org", "example.org:8080", "example.org:", "127.0.0.1:1", "[::1]", "[::1]:443", "a_b"]
        {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "user@host",
            "a/b",
            "[::1",
            "::1",
            "[::g]",
            "h:65536",
            "h:8a",
            "h:-1",
            "a\u{e9}",
            "a%zz",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn content_lengths() {
        assert_eq!(content_length(b"0042"), Some(42));
        for bad in ["", "+1", "-1", "1 ", "0x10", "1,1", "1_0", "9999999999999999999"] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
