//! What visitors ask for and what they must get: pure, so that an answer can be judged without asking the origin.

use std::fmt::Write as _;
use std::time::Duration;

/// Hosts of the two sites of every drill.
pub const HOSTS: [&str; 2] = ["shop.test", "news.test"];
/// Different pages of a site.
const PAGES: u64 = 512;
/// Lines of the longest page.
const LINES: u64 = 64;
/// Bytes of the longest upload.
const UPLOAD: u64 = 4096;
/// Arrivals after which the mix repeats itself.
const ROUND: u64 = 20;

/// How a visitor comes and what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// GET on a connection used before.
    Get,
    /// GET on a new connection.
    GetNew,
    /// POST with a body that comes back.
    Post,
    /// GET over TLS on a connection used before.
    TlsGet,
    /// GET over TLS on a new connection, session resumed.
    TlsGetNew,
    /// POST over TLS.
    TlsPost,
    /// One message over the WebSocket, which comes back.
    WebSocket,
}

impl Kind {
    /// Over TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::TlsGet | Self::TlsGetNew | Self::TlsPost)
    }

    /// On a connection of its own.
    pub fn is_new(self) -> bool {
        matches!(self, Self::GetNew | Self::TlsGetNew)
    }
}

/// One visitor's request and the body that must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How it comes.
    pub kind: Kind,
    /// Which site.
    pub host: &'static str,
    /// The bytes sent.
    pub request: Vec<u8>,
    /// The body expected.
    pub expected: Vec<u8>,
}

/// When the arrival of this number is due after the beginning: a fixed rate, whatever became of those before.
pub fn due(number: u64, rate: u32) -> Duration {
    let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Of twenty arrivals: nine GET, two new connections, three POST, four GET over TLS, one of them new, two POST over TLS.
pub fn kind(number: u64) -> Kind {
    match number % ROUND {
        3 | 13 => Kind::GetNew,
        5 | 10 | 16 => Kind::Post,
        2 | 7 | 12 => Kind::TlsGet,
        17 => Kind::TlsGetNew,
        9 | 19 => Kind::TlsPost,
        _ => Kind::Get,
    }
}

/// The request of the arrival of this number.
pub fn asked(number: u64) -> Asked {
    let kind = kind(number);
    let host = HOSTS.get(usize::from(number / ROUND % 2 == 1)).copied().unwrap_or(HOSTS[0]);
    match kind {
        Kind::Post | Kind::TlsPost => {
            let body = upload(number);
            let mut request = format!(
                "POST /echo/{number} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: drill\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            Asked { kind, host, request, expected: body }
        }
        _ => {
            let page_number = number.wrapping_mul(31) % PAGES;
            let request = get(host, &format!("/page/{page_number}"));
            Asked { kind, host, request, expected: page(host, page_number) }
        }
    }
}

/// A GET as bytes.
pub fn get(host: &str, target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: drill\r\n\r\n").into_bytes()
}

/// What the origins have under `/page/NUMBER`.
pub fn page(host: &str, number: u64) -> Vec<u8> {
    let mut text = String::new();
    for line in 0..=number % LINES {
        // Writing to a string cannot fail.
        writeln!(text, "{host} page {number} line {line}").unwrap_or_default();
    }
    text.into_bytes()
}

fn upload(number: u64) -> Vec<u8> {
    let length = number.wrapping_mul(131) % UPLOAD + 1;
    (0..length).map(|at| b'a' + u8::try_from((at + number) % 26).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate_however_many_there_have_been() {
        assert_eq!(due(0, 200), Duration::ZERO);
        assert_eq!(due(1, 200), Duration::from_millis(5));
        assert_eq!(due(200 * 3600, 200), Duration::from_secs(3600));
        // A rate that does not divide a second keeps it on average.
        assert_eq!(due(3_000_000, 3), Duration::from_secs(1_000_000));
    }

    #[test]
    fn every_round_has_every_kind_and_both_sites_get_all_of_them() {
        for host in HOSTS {
            let kinds: std::collections::HashSet<_> = (0..2 * ROUND)
                .map(asked)
                .filter(|asked| asked.host == host)
                .map(|asked| asked.kind)
                .collect();
            assert_eq!(kinds.len(), 6, "{host}: {kinds:?}");
        }
    }

    #[test]
    fn what_is_asked_says_how_long_it_is() {
        for number in 0..500 {
            let Asked { request, expected, kind, .. } = asked(number);
            assert!(!expected.is_empty());
            if matches!(kind, Kind::Post | Kind::TlsPost) {
                assert!(request.ends_with(&expected));
            }
        }
    }
}
