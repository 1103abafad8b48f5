//! Hop-by-hop fields (RFC 9110 section 7.6.1): which header fields end here and which travel on.

use smallvec::SmallVec;

/// Connection options read from one message; more is refused, since no honest sender lists that many.
pub const MAX_CONNECTION_OPTIONS: usize = 32;

/// Fields that describe one connection only and are never forwarded, named in `Connection` or not.
///
/// RFC 9110 section 7.6.1 gives the first six; `HTTP2-Settings` belongs to the upgrade that RFC 9113 withdrew; the
/// `Proxy-Auth*` pair (section 11.7) is between a client and its own proxy; `Proxy` is no field at all, but a CGI
/// origin would read it as the variable HTTP_PROXY. `Trailer` is not here: trailers are forwarded, and so is their list.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy",
];

/// Fields a connection option cannot remove, because the message means something else without them.
///
/// A client that writes `Connection: close, Authorization` would otherwise make the edge remove what an earlier hop or
/// the edge itself put there. RFC 9110 section 7.6.1 forbids senders to list such fields; the option is ignored.
const END_TO_END: &[&str] = &[
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "cdn-loop",
    "clear-site-data",
    "cookie",
    "date",
    "dnt",
    "early-data",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "grpc-timeout",
    "host",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "origin",
    "permissions-policy",
    "pragma",
    "prefer",
    "priority",
    "range",
    "referer",
    "referrer-policy",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "traceparent",
    "tracestate",
    "trailer",
    "true-client-ip",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-content-type-options",
    "x-csrf-token",
    "x-frame-options",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
    "x-xsrf-token",
];

/// Families of such fields: representation, negotiation, conditions, fetch metadata, CORS, and what proxies assert.
const END_TO_END_PREFIXES: &[&str] = &[
    "accept",
    "access-control-",
    "cf-",
    "client-cert",
    "content-",
    "cross-origin-",
    "if-",
    "sec-",
    "x-auth",
    "x-forwarded-",
];

/// Why a message's `Connection` field cannot be acted on. In a request it deserves 400, in a response 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// More than `MAX_CONNECTION_OPTIONS` options.
    #[error("the Connection field lists more than {MAX_CONNECTION_OPTIONS} options")]
    TooManyOptions,
    /// An option is not a token (RFC 9110 section 5.6.2).
    #[error("the Connection field holds something that is not a token")]
    NotAToken,
}

/// What a message says about its own connection, and so what of it is forwarded.
#[derive(Debug, Default)]
pub struct ConnectionFields<'a> {
    /// Options other than the ones below, naming fields that go no further.
    removed: SmallVec<[&'a [u8]; 4]>,
    /// `Connection: close`: the sender ends the connection after this message (RFC 9112 section 9.6).
    pub close: bool,
    /// `Connection: keep-alive`: how an HTTP/1.0 sender asks for persistence (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Connection: upgrade`: without it the `Upgrade` field must be ignored (RFC 9110 section 7.8).
    pub upgrade: bool,
    /// `TE: trailers`: the sender takes trailers (RFC 9110 section 10.1.4); gRPC insists that it arrives.
    pub te_trailers: bool,
}

impl<'a> ConnectionFields<'a> {
    /// Reads `Connection` and `TE` of one message; `headers` are its (name, value) pairs, names in any case.
    ///
    /// HTTP/2 has no `Connection` field (RFC 9113 section 8.2.2): refusing one there is the codec's part.
    pub fn read(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, HopError> {
        let mut fields = Self::default();
        let mut count = 0;
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(b"te") {
                fields.te_trailers |= items(value).any(|item| item.eq_ignore_ascii_case(b"trailers"));
            }
            if !name.eq_ignore_ascii_case(b"connection") {
                continue;
            }
            for option in items(value) {
                count += 1;
                if count > MAX_CONNECTION_OPTIONS {
                    return Err(HopError::TooManyOptions);
                }
                fields.take(option)?;
            }
        }
        Ok(fields)
    }

    /// Whether the message names no fields of its own that go no further.
    pub fn removes_nothing(&self) -> bool {
        self.removed.is_empty()
    }

    /// Whether a field of this message is forwarded. Ask before the edge adds fields of its own, never after.
    pub fn forwards(&self, name: &[u8]) -> bool {
        !listed(HOP_BY_HOP, name) && !self.removed.iter().any(|option| option.eq_ignore_ascii_case(name))
    }

    fn take(&mut self, option: &'a [u8]) -> Result<(), HopError> {
        if !option.iter().copied().all(is_token_byte) {
            return Err(HopError::NotAToken);
        }
        if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if !is_end_to_end(option) {
            self.removed.push(option);
        }
        Ok(())
    }
}

/// Whether a field is one that no connection option may remove.
pub fn is_end_to_end(name: &[u8]) -> bool {
    listed(END_TO_END, name)
        || END_TO_END_PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        })
}

/// RFC 9110 section 5.6.2: the bytes of a token.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn listed(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|entry| entry.len() == name.len() && entry.as_bytes().eq_ignore_ascii_case(name))
}

/// The non-empty items of a comma-separated list without quoted strings (RFC 9110 section 5.6.1.2).
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `name: value` lines and tells which of the names are forwarded.
    fn forwarded(lines: &[&str]) -> Result<Vec<String>, HopError> {
        let pairs: Vec<(&[u8], &[u8])> = lines
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let fields = ConnectionFields::read(pairs.iter().copied())?;
        Ok(pairs
            .iter()
            .filter(|(name, _)| fields.forwards(name))
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect())
    }

    #[test]
    fn what_travels_on() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["Host: a", "Accept: */*"], &["Host", "Accept"]),
            // Always hop-by-hop, named or not, in any case.
            (
                &[
                    "Keep-Alive: timeout=5",
                    "TE: trailers",
                    "UPGRADE: websocket",
                    "transfer-encoding: chunked",
                ],
                &[],
            ),
            (&["Proxy-Connection: close", "Proxy-Authorization: x", "Proxy: http://evil", "X: 1"], &["X"]),
            (&["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"], &[]),
            // Named by the sender, over several lines and with empty items.
            (
                &[
                    "Connection: close, X-Hop",
                    "connection: , x-other,,",
                    "X-Hop: 1",
                    "X-OTHER: 1",
                    "X-Stays: 1",
                ],
                &["X-Stays"],
            ),
            // What may not be removed stays.
            (
                &[
                    "Connection: close, Host, content-length, AUTHORIZATION, Cookie, Forwarded, X-Forwarded-For",
                    "Host: a",
                    "Content-Length: 3",
                    "Authorization: b",
                    "Cookie: c",
                    "Forwarded: for=d",
                    "X-Forwarded-For: e",
                ],
                &["Host", "Content-Length", "Authorization", "Cookie", "Forwarded", "X-Forwarded-For"],
            ),
            (
                &[
                    "Connection: If-None-Match, CF-Connecting-IP, Trailer",
                    "If-None-Match: 1",
                    "CF-Connecting-IP: 2",
                    "Trailer: x",
                ],
                &["If-None-Match", "CF-Connecting-IP", "Trailer"],
            ),
            // A prefix of a protected name is not protected, nor a name that merely contains one.
            (&["Connection: hos, xhost", "Hos: 1", "xHost: 2"], &[]),
        ];
        for (lines, expected) in cases {
            assert_eq!(forwarded(lines).unwrap(), *expected, "{lines:?}");
        }
    }

    #[test]
    fn options_are_told_apart() {
        // (Connection, TE) -> close, keep-alive, upgrade, trailers
        for (connection, te, expected) in [
            ("close", "", (true, false, false, false)),
            ("Keep-Alive, Upgrade", "gzip;q=0.5, Trailers", (false, true, true, true)),
            ("closed", "trailersx", (false, false, false, false)),
            ("TE", "trailers;q=0", (false, false, false, false)),
        ] {
            let pairs =
                [(b"Connection".as_slice(), connection.as_bytes()), (b"te".as_slice(), te.as_bytes())];
            let read = ConnectionFields::read(pairs.into_iter()).unwrap();
            let got = (read.close, read.keep_alive, read.upgrade, read.te_trailers);
            assert_eq!(got, expected, "Connection: {connection}; TE: {te}");
        }
    }

    #[test]
    fn a_connection_field_out_of_bounds_is_refused() {
        let many = vec!["a"; MAX_CONNECTION_OPTIONS + 1].join(",");
        assert_eq!(forwarded(&[&format!("Connection: {many}")]), Err(HopError::TooManyOptions));
        let most = vec!["a"; MAX_CONNECTION_OPTIONS].join(",");
        assert_eq!(forwarded(&[&format!("Connection: {most}")]), Ok(vec![]));
        for bad in ["a b", "close;q=1", "\"close\"", "x\u{e9}"] {
            assert_eq!(forwarded(&[&format!("Connection: {bad}")]), Err(HopError::NotAToken), "{bad}");
        }
    }
}
