//! The request head of the loopback listener: which page is asked for, and whether the asker meant this machine.

use std::net::IpAddr;

/// Bytes of a request head.
pub(super) const MAX_HEAD_BYTES: usize = 8 * 1_024;
/// Header fields of a request.
const MAX_FIELDS: usize = 64;

/// A request worth an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
}

/// Why a request gets no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    TooSlow,
    TooLarge,
    ForeignHost,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Complete(Asked),
    Refused(Refusal),
    Partial,
}

/// Reads a head. The host is checked so that a web page whose name was made to resolve to this machine (DNS rebinding)
/// cannot read metrics through a visitor's browser.
pub(super) fn read(bytes: &[u8]) -> Read {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => {}
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Read::Refused(Refusal::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Read::Partial,
        Err(_) => return Read::Refused(Refusal::Malformed),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Read::Refused(Refusal::Malformed);
    };
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    // Exactly one, also in HTTP/1.0; and an absolute target, which would override it, is not taken.
    let (Some(host), None, true) = (hosts.next(), hosts.next(), target.starts_with('/')) else {
        return Read::Refused(Refusal::Malformed);
    };
    if !std::str::from_utf8(host.value).is_ok_and(names_this_machine) {
        return Read::Refused(Refusal::ForeignHost);
    }
    let path = target.split('?').next().unwrap_or_default();
    Read::Complete(Asked { method: method.to_owned(), path: path.to_owned() })
}

/// Whether a `Host` is `localhost` or a loopback address, with or without a port.
fn names_this_machine(host: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit());
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, rest)) => match rest.strip_prefix(':') {
            Some(port) => (address, Some(port)),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let address = name.parse::<IpAddr>();
    port.is_none_or(is_port)
        && (name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|address| address.to_canonical().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_served() {
        for host in ["localhost", "LocalHost:9000", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:65535"] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "example.org:9000",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "10.0.0.1",
            "[2001:db8::1]",
            "[::1]x",
            "[::1",
            "::1",
            "localhost:",
            "localhost:+1",
            "localhost:70000",
            "localhost:1:2",
            "localhost@example.org",
            " localhost",
            "0.0.0.0",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    #[test]
    fn heads_are_read_strictly() {
        let complete = Read::Complete(Asked { method: "GET".to_owned(), path: "/metrics".to_owned() });
        let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS));
        for (head, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", complete),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n", Read::Partial),
            ("", Read::Partial),
            ("GET /metrics HTTP/1.1\r\n\r\n", Read::Refused(Refusal::Malformed)),
            (
                "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
                Read::Refused(Refusal::Malformed),
            ),
            ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", Read::Refused(Refusal::Malformed)),
            ("\x16\x03\x01\x02", Read::Refused(Refusal::Malformed)),
            ("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", Read::Refused(Refusal::ForeignHost)),
            (&many, Read::Refused(Refusal::TooLarge)),
        ] {
            assert_eq!(read(head.as_bytes()), expected, "{head:?}");
        }
        let query = read(b"HEAD /health/live?verbose HTTP/1.1\r\nhost: [::1]:1\r\n\r\n");
        assert_eq!(
            query,
            Read::Complete(Asked { method: "HEAD".to_owned(), path: "/health/live".to_owned() })
        );
    }
}
