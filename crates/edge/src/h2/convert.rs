//! Heads between HTTP/2 and the edge's own form. What would mean something else in HTTP/1.1 is refused (RFC 9113 section 8).

use base::event::Protocol;
use h2::ext::Protocol as ExtendedProtocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::h1::parse::{self, HeadLimits, METHOD_NOT_SUPPORTED, Refusal};
use crate::h1::syntax;
use crate::message::{BodyLength, HeaderList, RequestHead, ResponseHead};

/// Fields that have no meaning in HTTP/2 and must not occur (RFC 9113 section 8.2.2).
const CONNECTION_FIELDS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A request as received, and the length its body announces.
pub fn request_head(
    parts: http::request::Parts,
    ends_here: bool,
    limits: &HeadLimits,
) -> Result<(RequestHead, BodyLength), Refusal> {
    const fn bad(reason: &'static str) -> Refusal {
        Refusal { status: 400, reason }
    }
    let protocol = parts.extensions.get::<ExtendedProtocol>();
    // CONNECT opens a WebSocket (RFC 8441); without `:protocol` it asks for a forward proxy. `h2` checks no more than that
    // the name is UTF-8: a line end in it would write fields of its own into an HTTP/1.1 head.
    let supported = match protocol {
        None => !matches!(parts.method, Method::CONNECT | Method::TRACE),
        Some(protocol) => {
            parts.method == Method::CONNECT && protocol.as_str().eq_ignore_ascii_case("websocket")
        }
    };
    if !supported {
        return Err(METHOD_NOT_SUPPORTED);
    }
    let upgrade = protocol.map(|protocol| Box::from(protocol.as_str()));
    let authority = parts.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host =
        parts.headers.get_all(http::header::HOST).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    let authority = match (authority, host.as_slice()) {
        (authority, []) => authority.as_bytes(),
        ("", [host]) => host,
        (authority, [host]) if host.eq_ignore_ascii_case(authority.as_bytes()) => host,
        _ => return Err(bad("missing_host")),
    };
    if !syntax::is_authority(authority) {
        return Err(bad("missing_host"));
    }
    // Another scheme names another resource, which this server does not have (RFC 9110 section 7.4).
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(bad("bad_target"));
    }
    let target = match parts.uri.path_and_query().map(|target| target.as_str()) {
        None | Some("") => "/",
        Some(target) => target,
    };
    if target.len() > limits.target {
        return Err(Refusal { status: 414, reason: "target_too_long" });
    }
    let asterisk = target == "*" && parts.method == Method::OPTIONS;
    if !syntax::is_target(target.as_bytes()) || !(target.starts_with('/') || asterisk) {
        return Err(bad("bad_target"));
    }
    if parts.headers.len() > limits.fields {
        return Err(Refusal { status: 431, reason: "headers_too_large" });
    }
    let mut fields = Fields::default();
    for (name, value) in &parts.headers {
        fields.take(name, value.as_bytes())?;
    }
    let length = match fields.length {
        Some(length) => BodyLength::Exact(length),
        None if ends_here => BodyLength::Absent,
        None => BodyLength::Unknown,
    };
    let has_body = !ends_here;
    let head = RequestHead {
        method: if upgrade.is_some() { Method::GET } else { parts.method },
        authority: String::from_utf8(authority.to_vec()).map_err(|_| bad("missing_host"))?,
        target: target.to_owned(),
        protocol: Protocol::Http2,
        headers: fields.finish(),
        // A tunnel's first answer is the final one, and `h2` would send a 100 even after that.
        expects_continue: fields_expect(&parts.headers)? && has_body && upgrade.is_none(),
        upgrade,
        accepts_trailers: fields_accept_trailers(&parts.headers),
    };
    Ok((head, length))
}

fn fields_expect(headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut expectations = headers.get_all(http::header::EXPECT).iter().peekable();
    let expects = expectations.peek().is_some();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal { status: 417, reason: "expectation_failed" });
    }
    Ok(expects)
}

fn fields_accept_trailers(headers: &HeaderMap) -> bool {
    let te = headers.get_all(http::header::TE);
    te.iter().flat_map(|value| syntax::elements(value.as_bytes())).any(|element| element == b"trailers")
}

/// Gathers fields for the list; cookie crumbs become one field again (RFC 9113 section 8.2.3).
#[derive(Default)]
struct Fields {
    list: HeaderList,
    cookie: Vec<u8>,
    length: Option<u64>,
}

impl Fields {
    fn take(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Refusal> {
        const BAD: Refusal = Refusal { status: 400, reason: "bad_header" };
        let name = name.as_str();
        // Leading or trailing white space is malformed in HTTP/2 and would be trimmed in HTTP/1.1: two readings.
        if !syntax::is_token(name.as_bytes())
            || !syntax::is_field_value(value)
            || syntax::trim(value) != value
        {
            return Err(BAD);
        }
        if CONNECTION_FIELDS.contains(&name) || (name == "te" && value != b"trailers") {
            return Err(BAD);
        }
        match name {
            "host" | "expect" => {}
            "content-length" => {
                const FRAMING: Refusal = Refusal { status: 400, reason: "bad_framing" };
                let length = syntax::content_length(value).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(FRAMING)?);
            }
            _ if syntax::is_framing_lookalike(name.as_bytes()) => {
                return Err(Refusal { status: 400, reason: "bad_framing" });
            }
            "cookie" => {
                if !self.cookie.is_empty() {
                    self.cookie.extend_from_slice(b"; ");
                }
                self.cookie.extend_from_slice(value);
            }
            _ => self.list.push(name, value),
        }
        Ok(())
    }

    fn finish(mut self) -> HeaderList {
        if !self.cookie.is_empty() {
            self.list.push("cookie", &self.cookie);
        }
        self.list
    }
}

/// Fields of the edge's form as an `http` map; what only means something in HTTP/1.1 is left out.
pub fn header_map(headers: &HeaderList) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers.shared() {
        let (Ok(name), Ok(value)) = (header_name(name), HeaderValue::from_maybe_shared(value)) else {
            continue;
        };
        if !CONNECTION_FIELDS.contains(&name.as_str()) {
            map.append(name, value);
        }
    }
    map
}

/// A name for the map; for the one that is in every response, without making it anew.
fn header_name(name: &[u8]) -> Result<HeaderName, http::header::InvalidHeaderName> {
    const REQUEST_ID: HeaderName = HeaderName::from_static("rempart-request-id");
    if name == b"Rempart-Request-Id" { Ok(REQUEST_ID) } else { HeaderName::from_bytes(name) }
}

/// A response head for the wire. 101 becomes 200, which is how RFC 8441 accepts a WebSocket.
pub fn response(head: &ResponseHead, length: BodyLength) -> http::Response<()> {
    let mut response = http::Response::new(());
    let status = if head.status == 101 { 200 } else { head.status };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut headers = header_map(&head.headers);
    if head.status == 101 {
        headers.remove(http::header::SEC_WEBSOCKET_ACCEPT);
    }
    if let BodyLength::Exact(length) = length {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.headers_mut() = headers;
    response
}

/// Trailer fields as the edge's list; what must not stand in a trailer section is left out (RFC 9110 section 6.5.1).
pub fn trailers(map: &HeaderMap) -> HeaderList {
    let mut list = HeaderList::default();
    for (name, value) in map {
        let (name, value) = (name.as_str().as_bytes(), syntax::trim(value.as_bytes()));
        if syntax::is_token(name) && syntax::is_field_value(value) && !parse::is_forbidden_in_trailers(name) {
            list.push(name, value);
        }
    }
    list
}

/// A response from an HTTP/2 origin, and the length of its body. `None`: it cannot be passed on.
pub fn response_head(
    parts: http::response::Parts,
    to_head: bool,
    ends_here: bool,
) -> Option<(ResponseHead, BodyLength)> {
    let status = parts.status.as_u16();
    let mut headers = HeaderList::with_capacity(parts.headers.len(), 512);
    let mut length = None;
    let contentless = matches!(status, 100..200 | 204);
    let bodiless = (to_head && !contentless) || status == 304;
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str(), value.as_bytes());
        if CONNECTION_FIELDS.contains(&name) || !syntax::is_field_value(value) {
            return None;
        }
        if name == "content-length" {
            let declared = syntax::content_length(value).filter(|_| length.is_none())?;
            length = Some(declared);
            if !bodiless {
                continue;
            }
        }
        headers.push(name, syntax::trim(value));
    }
    let length = match length {
        _ if bodiless || contentless => BodyLength::Absent,
        Some(length) => BodyLength::Exact(length),
        None if ends_here => BodyLength::Exact(0),
        None => BodyLength::Unknown,
    };
    Some((ResponseHead { status, reason: None, headers }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 8, target: 64 };

    #[test]
    fn extended_connect_opens_websockets_and_nothing_else() {
        let check = |method: Method, protocol: Option<&'static str>, expected: Result<&str, u16>| {
            let mut request = http::Request::builder().method(method).uri("https://a/chat").body(()).unwrap();
            if let Some(protocol) = protocol {
                request.extensions_mut().insert(ExtendedProtocol::from_static(protocol));
            }
            let read = request_head(request.into_parts().0, false, &LIMITS);
            let seen = read.map(|(head, _)| {
                assert_eq!(head.method, Method::GET);
                head.upgrade.unwrap_or_default()
            });
            assert_eq!(seen.map_err(|refusal| refusal.status), expected.map(Box::from), "{protocol:?}");
        };
        check(Method::CONNECT, Some("websocket"), Ok("websocket"));
        check(Method::CONNECT, Some("WebSocket"), Ok("WebSocket"));
        check(Method::GET, None, Ok(""));
        check(Method::CONNECT, None, Err(501));
        for bad in ["connect-udp", "h2c", "websocket\r\nX: 1", "web socket", ""] {
            check(Method::CONNECT, Some(bad), Err(501));
        }
        check(Method::GET, Some("websocket"), Err(501));
    }

    #[test]
    fn forbidden_trailers_are_left_out() {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("grpc-status", "0"),
            ("transfer-encoding", "chunked"),
            ("host", "b"),
            ("x", " 1 "),
            ("cookie", "c"),
        ] {
            map.append(name, HeaderValue::from_static(value));
        }
        let kept = trailers(&map);
        assert_eq!(
            kept.iter().collect::<Vec<_>>(),
            [(&b"grpc-status"[..], &b"0"[..]), (&b"x"[..], &b"1"[..])]
        );
    }
}
