//! What may stand in rules as a name, a value, a host.

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(is_part)
}

/// RFC 9110 section 5.5, without what nobody uses.
pub(super) fn is_value(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A name or address, with a port where that may be.
pub(super) fn is_host(text: &str, with_port: bool) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if with_port && !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let name = |host: &str| {
        let part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !host.is_empty() && host.len() <= 253 && host.bytes().all(part)
    };
    let good = name(host) || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    good && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}
