//! Host names as an operator writes them, to host names as they arrive: lower case, A-labels, no port.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use crate::diagnostic::quote;

/// Octets of a host name (RFC 1035 section 2.3.4, without the root label).
const HOST_OCTETS: usize = 253;
/// Octets of one label (RFC 1035 section 2.3.4).
const LABEL_OCTETS: usize = 63;

/// Why a text is no host, and the way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadHost {
    pub message: String,
    pub hint: String,
}

impl BadHost {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// A host: a name in A-labels, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

/// Reads a host without port: `example.org`, `bücher.example`, `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`.
pub(super) fn parse(text: &str) -> Result<Host, BadHost> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Ok(Host::Address(address.into()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    reject_url_parts(text)?;
    let name = ascii(text)?;
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadHost::new(
            format!("{} is neither a name nor an address", quote(text)),
            "a name does not end in a number, and an IPv4 address has four of them, up to 255",
        ));
    }
    Ok(Host::Name(name))
}

/// Reads a port: digits only, unlike `u16::from_str`, which takes a `+`.
pub(super) fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Says clearly what a host with something around it is.
fn reject_url_parts(text: &str) -> Result<(), BadHost> {
    if text.is_empty() {
        return Err(BadHost::new("a host name is missing", "write one, such as \"example.org\""));
    }
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let (host, port) = host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let what = match (scheme, port) {
        (Some(_), _) => "a scheme",
        (None, Some(_)) => "a port",
        (None, None) if host != text => "more than a host name",
        (None, None) => return Ok(()),
    };
    Err(BadHost::new(
        format!("{} holds {what}", quote(text)),
        format!("write only the host: {}", quote(host)),
    ))
}

/// The name in lower-case A-labels (RFC 5890), checked for length and letters.
fn ascii(text: &str) -> Result<String, BadHost> {
    // One trailing dot means the same name.
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.contains(char::is_whitespace) || text.contains(char::is_control) {
        return Err(BadHost::new(
            format!("{} holds a space or another invisible character", quote(text)),
            "write the name without it",
        ));
    }
    let name: Cow<'_, str> =
        idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY).map_err(|_| {
            BadHost::new(format!("{} is not a valid host name", quote(text)), "check its letters (RFC 5891)")
        })?;
    if name.len() > HOST_OCTETS {
        let message = format!("a host name of {} octets is too long", name.len());
        return Err(BadHost::new(message, format!("at most {HOST_OCTETS} are allowed")));
    }
    for label in name.split('.') {
        check_label(label).map_err(|what| {
            BadHost::new(
                format!("{} {what}", quote(text)),
                "a name is made of letters, digits and hyphens, with dots between: \"www.example.org\"",
            )
        })?;
    }
    Ok(name.into_owned())
}

/// One label: letters, digits, hyphens. Underscores are let through, because hosts inside companies have them.
fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("has two dots in a row, or one at its beginning".to_owned());
    }
    if label.len() > LABEL_OCTETS {
        return Err(format!("has a part of more than {LABEL_OCTETS} octets"));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("has a part with a hyphen at an end".to_owned());
    }
    match label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_') {
        Some(c) => Err(format!("holds {}, which no host name may", quote(&c.to_string()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalised() {
        for (written, meant) in [
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("my_host.internal", "my_host.internal"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(parse(written), Ok(Host::Name(meant.to_owned())), "{written}");
        }
        for (written, meant) in [("192.0.2.1", "192.0.2.1"), ("[::1]", "::1"), ("2001:DB8::1", "2001:db8::1")]
        {
            assert_eq!(parse(written), Ok(Host::Address(meant.parse().unwrap())), "{written}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_with_a_way_out() {
        for (written, part) in [
            ("https://example.org/a", "a scheme"),
            ("example.org:8080", "a port"),
            ("example.org/path", "more than"),
            ("a..b", "two dots"),
            (".a", "two dots"),
            ("-a.b", "hyphen"),
            ("a b", "invisible"),
            ("300.1.1.1", "neither"),
            ("a*b.example", "\"*\""),
            ("", "missing"),
        ] {
            let error = parse(written).unwrap_err();
            assert!(error.message.contains(part), "{written}: {}", error.message);
        }
        assert!(parse(&"a".repeat(64)).is_err());
        assert!(parse(&"a.".repeat(150)).is_err());
    }
}
