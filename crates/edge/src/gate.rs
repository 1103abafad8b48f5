//! What encryption asks of a request: an authority's challenge, a visitor's certificate, a redirect to `https`; and HSTS on
//! the way back.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use snapshot::generation::{Listener, Site};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::forwarded::{Client, Scheme};
use crate::h1::parse::Refusal;
use crate::h1::syntax;
use crate::hop::{self, Travel};
use crate::message::{HeaderList, RequestHead, ResponseHead};
use crate::pipeline::Own;

/// Where an authority looks for challenges (RFC 8555 section 8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
/// The port that `https` means without saying so.
const HTTPS_PORT: u16 = 443;
/// The port that `http` means without saying so.
const HTTP_PORT: u16 = 80;

/// How a request got here, as far as the gate cares.
#[derive(Clone, Copy, Debug)]
pub struct Approach {
    /// The scheme the visitor used, a trusted proxy's word included.
    pub scheme: Scheme,
    /// Port of this end of the connection.
    port: u16,
    /// Whether the connection itself is encrypted.
    tls: bool,
    /// Whether a trusted proxy stands in front, with or without a PROXY header.
    via_trusted: bool,
    /// Whether the connection showed a certificate the site asks for.
    certificate: bool,
}

impl Approach {
    /// How a request for this site came over this connection.
    pub fn of(connection: &Connection, client: &Client, site: &Site) -> Self {
        let own = if connection.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let shown = connection.tls.as_ref().zip(site.tls.client.as_ref());
        Self {
            scheme: client.scheme.unwrap_or(own),
            port: connection.local.port(),
            tls: connection.tls.is_some(),
            via_trusted: client.via_trusted || connection.introduced,
            certificate: shown.is_some_and(|(facts, asked)| facts.satisfies(asked)),
        }
    }
}

/// Where a request goes from here.
pub enum Gate {
    /// On to the site.
    Pass,
    /// Back with an answer of the edge's own: to come again over `https`, or because it goes no further.
    Answer(Own),
    /// Nowhere.
    Refuse(Failure),
}

/// Answers when the request is an authority's, for a token that is pending: `pending` has the content then.
pub fn challenge(head: &RequestHead, pending: impl Fn(&str) -> Option<Arc<str>>) -> Option<Own> {
    let token = head.target.strip_prefix(CHALLENGE_PATH)?;
    let token = token.split_once('?').map_or(token, |(token, _)| token);
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    let content = pending(token)?;
    let mut answer = ResponseHead::new(200);
    answer.headers.push("Content-Type", "text/plain");
    answer.headers.push("Cache-Control", "no-store");
    Some(Own { head: answer, body: Bytes::copy_from_slice(content.as_bytes()) })
}

/// Lets a request through to its site, or tells what stands in the way.
pub fn pass(head: &RequestHead, site: &Site, approach: Approach, listeners: &[Listener]) -> Gate {
    let redirected = site.tls.redirect
        && approach.scheme == Scheme::Http
        // Authorities follow redirects only if they like the certificate, which may be what they are asked for.
        && !head.target.starts_with(CHALLENGE_PATH);
    let certificate_missing =
        site.tls.client.as_ref().is_some_and(|client| client.required) && !approach.certificate;
    match (certificate_missing, approach.tls, redirected) {
        // Over HTTP/2 a client may use a connection for every name its certificate covers (RFC 9113 section 9.1.1);
        // 421 tells it to make one for this name, where it is asked for its own certificate.
        (true, true, _) => Gate::Refuse(Failure::ClientCertificateElsewhere),
        (_, _, true) => redirect(head, approach, listeners),
        (true, false, false) => Gate::Refuse(Failure::ClientCertificate),
        (false, _, false) => Gate::Pass,
    }
}

/// Puts the site's HSTS policy in place of the origin's own; over plain HTTP there must be none (RFC 6797 section 7.2).
pub fn tell_hsts(headers: &mut HeaderList, site: &Site, scheme: Scheme) {
    let Some(policy) = &site.tls.hsts else { return };
    headers.remove(b"strict-transport-security");
    if scheme == Scheme::Https {
        headers.push("Strict-Transport-Security", policy.as_bytes());
    }
}

/// Counts `Max-Forwards` down (RFC 9110 section 7.6.2).
pub fn travel(head: &mut RequestHead) -> Gate {
    match hop::travel(&head.method, &head.headers) {
        Ok(Travel::On) => Gate::Pass,
        Ok(Travel::Counted(left)) => {
            head.headers.remove(b"max-forwards");
            head.headers.push("Max-Forwards", left.to_string());
            Gate::Pass
        }
        // What the origin allows is not known here, so no more is said than that somebody is there.
        Ok(Travel::EndsHere) => Gate::Answer(Own { head: ResponseHead::new(200), body: Bytes::new() }),
        Err(_) => Gate::Refuse(Failure::Refused(Refusal { status: 400, reason: "bad_header" })),
    }
}

/// The same target over `https`. Only GET and HEAD may be 301: clients turn other methods into GET then (RFC 9110
/// section 15.4.2).
fn redirect(head: &RequestHead, approach: Approach, listeners: &[Listener]) -> Gate {
    let (host, port) = syntax::split_port(head.authority.as_bytes());
    let Ok(host) = std::str::from_utf8(host) else { return Gate::Refuse(Failure::Internal) };
    if host.is_empty() {
        // HTTP/1.0 without Host: there is no name to send it to.
        return Gate::Refuse(Failure::Refused(Refusal { status: 400, reason: "missing_host" }));
    }
    let asked = match port {
        None | Some([]) => Some(HTTP_PORT),
        Some(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
    };
    // `OPTIONS *` is about the server as a whole, which has no URL of its own.
    let target = if head.target.starts_with('/') { head.target.as_str() } else { "/" };
    let mut location = String::with_capacity("https://:65535".len() + host.len() + target.len());
    location.push_str("https://");
    location.push_str(host);
    if let Some(port) = https_port(asked, approach, listeners) {
        location.push(':');
        location.push_str(itoa::Buffer::new().format(port));
    }
    location.push_str(target);
    let status = if matches!(head.method, Method::GET | Method::HEAD) { 301 } else { 308 };
    let mut answer = ResponseHead::new(status);
    answer.headers.push("Location", location);
    Gate::Answer(Own { head: answer, body: Bytes::new() })
}

/// The port to name in a redirect, if any.
///
/// A visitor who asked for another port than the one he arrived at came through something that forwards ports, or through a
/// proxy. What they have outside is not known here, so it is taken to be the usual port; as is a port the system chose.
fn https_port(asked: Option<u16>, approach: Approach, listeners: &[Listener]) -> Option<u16> {
    let encrypted =
        || listeners.iter().filter(|listener| listener.tls).map(|listener| listener.address.port());
    let forwarded = approach.via_trusted || asked != Some(approach.port);
    if forwarded || encrypted().any(|port| port == HTTPS_PORT) {
        return None;
    }
    encrypted().find(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::event::Protocol;
    use snapshot::generation::{
        Certificate, ClientAuth, Compatibility, HostPattern, PassiveHealth, Retry, SiteLimits, SiteTls,
    };

    use super::*;

    fn head(method: Method, authority: &str, target: &str) -> RequestHead {
        RequestHead {
            method,
            authority: authority.to_owned(),
            target: target.to_owned(),
            protocol: Protocol::Http11,
            headers: HeaderList::default(),
            upgrade: None,
            expects_continue: false,
            accepts_trailers: false,
        }
    }

    fn site(tls: SiteTls) -> Site {
        let second = Duration::from_secs(1);
        Site {
            index: 0,
            name: "site".into(),
            hosts: vec![HostPattern::Any],
            compatibility: Compatibility::Neutral,
            certificate: Certificate::Development,
            tls,
            origins: Vec::new(),
            health: PassiveHealth { failures: 0, ejection: second, max_ejection: second },
            retry: Retry { attempts: 0, budget_percent: 0 },
            limits: SiteLimits {
                body_bytes: None,
                body: second,
                body_rate: None,
                tunnel: second,
                inspect_body: 0,
            },
            policy: None,
            rules: Default::default(),
            normalize: None,
        }
    }

    fn listeners(list: &[(&str, bool)]) -> Vec<Listener> {
        let listener = |(address, tls): &(&str, bool)| Listener {
            address: address.parse().unwrap(),
            tls: *tls,
            proxy_protocol: false,
            place: String::new(),
        };
        list.iter().map(listener).collect()
    }

    /// Plain HTTP straight to port 80.
    const PLAIN: Approach =
        Approach { scheme: Scheme::Http, port: 80, tls: false, via_trusted: false, certificate: false };
    const ENCRYPTED: Approach =
        Approach { scheme: Scheme::Https, port: 443, tls: true, via_trusted: false, certificate: false };

    /// `pass`, `301 URL` or the reason of the refusal with its status.
    fn outcome(head: &RequestHead, site: &Site, approach: Approach, listeners: &[Listener]) -> String {
        match pass(head, site, approach, listeners) {
            Gate::Pass => "pass".to_owned(),
            Gate::Answer(own) => {
                assert!(own.body.is_empty());
                let location = String::from_utf8(own.head.headers.get(b"location").unwrap().to_vec());
                format!("{} {}", own.head.status, location.unwrap())
            }
            Gate::Refuse(failure) => {
                let verdict = failure.verdict(Compatibility::Cloudflare);
                format!("{} {}", verdict.status, verdict.reason)
            }
        }
    }

    #[test]
    fn a_pending_challenge_is_answered_and_nothing_else() {
        let pending = |token: &str| (token == "tok-en_1").then(|| Arc::from("tok-en_1.thumbprint"));
        let challenge = |method, target: &str| {
            let own = challenge(&head(method, "example.org", target), pending)?;
            assert_eq!(
                (own.head.status, own.head.headers.get(b"cache-control")),
                (200, Some(&b"no-store"[..]))
            );
            Some(own.body)
        };
        let answer = Some(Bytes::from("tok-en_1.thumbprint"));
        assert_eq!(challenge(Method::GET, "/.well-known/acme-challenge/tok-en_1"), answer);
        assert_eq!(challenge(Method::HEAD, "/.well-known/acme-challenge/tok-en_1?x"), answer);
        for (method, target) in [
            (Method::POST, "/.well-known/acme-challenge/tok-en_1"),
            (Method::GET, "/.well-known/acme-challenge/unknown"),
            (Method::GET, "/.well-known/acme-challenge/"),
            (Method::GET, "/.well-known/acme-challenge/tok-en_1/"),
            (Method::GET, "/.well-known/acme-challenge"),
            (Method::GET, "/.Well-Known/acme-challenge/tok-en_1"),
            (Method::GET, "/tok-en_1"),
        ] {
            assert_eq!(challenge(method, target), None, "{target}");
        }
    }

    #[test]
    fn plain_http_is_redirected_unchanged() {
        let site = site(SiteTls { redirect: true, ..SiteTls::default() });
        let usual = listeners(&[("[::]:80", false), ("[::]:443", true)]);
        for (method, authority, target, expected) in [
            (Method::GET, "example.org", "/a?b=c%20d", "301 https://example.org/a?b=c%20d"),
            (Method::HEAD, "Example.org:80", "/", "301 https://Example.org/"),
            (Method::POST, "example.org", "/form", "308 https://example.org/form"),
            (Method::OPTIONS, "example.org", "*", "308 https://example.org/"),
            (Method::GET, "[2001:db8::1]:80", "//x//", "301 https://[2001:db8::1]//x//"),
            (Method::GET, "", "/", "400 missing_host"),
            (Method::GET, "example.org", "/.well-known/acme-challenge/x?y", "pass"),
            (Method::GET, "example.org", "/.well-known/other", "301 https://example.org/.well-known/other"),
            (
                Method::GET,
                "example.org",
                "/?/.well-known/acme-challenge/x",
                "301 https://example.org/?/.well-known/acme-challenge/x",
            ),
        ] {
            let head = head(method, authority, target);
            assert_eq!(outcome(&head, &site, PLAIN, &usual), expected, "{head:?}");
            assert_eq!(outcome(&head, &site, ENCRYPTED, &usual), "pass");
        }
        let head = head(Method::GET, "example.org", "/");
        let site = self::site(SiteTls::default());
        assert_eq!(outcome(&head, &site, PLAIN, &usual), "pass", "nothing is redirected unasked");
    }

    #[test]
    fn the_word_of_a_trusted_proxy_counts() {
        let site = site(SiteTls { redirect: true, ..SiteTls::default() });
        let head = head(Method::GET, "example.org", "/");
        let proxied = Approach { via_trusted: true, ..PLAIN };
        let told = Approach { scheme: Scheme::Https, ..proxied };
        assert_eq!(outcome(&head, &site, told, &[]), "pass");
        assert_eq!(outcome(&head, &site, proxied, &[]), "301 https://example.org/");
        let behind = Approach { scheme: Scheme::Http, via_trusted: true, ..ENCRYPTED };
        assert_eq!(outcome(&head, &site, behind, &[]), "301 https://example.org/", "plain until the proxy");
    }

    #[test]
    fn another_port_is_named_when_it_is_known() {
        let site = site(SiteTls { redirect: true, ..SiteTls::default() });
        for (authority, port, via_trusted, bound, expected) in [
            ("a:8080", 8080, false, &[("[::]:8443", true), ("[::]:8080", false)][..], "https://a:8443/"),
            ("a", 80, false, &[("[::]:8443", true)], "https://a:8443/"),
            ("a", 8080, false, &[("[::]:8443", true)], "https://a/"),
            ("a:8080", 8080, true, &[("[::]:8443", true)], "https://a/"),
            ("a:8080", 8080, false, &[("[::]:8443", true), ("[::]:443", true)], "https://a/"),
            ("a:8080", 8080, false, &[("127.0.0.1:0", true)], "https://a/"),
            ("a:8080", 8080, false, &[("127.0.0.1:0", true), ("127.0.0.1:9443", true)], "https://a:9443/"),
            ("a:99999", 8080, false, &[("[::]:8443", true)], "https://a/"),
        ] {
            let approach = Approach { port, via_trusted, ..PLAIN };
            let head = head(Method::GET, authority, "/");
            let found = outcome(&head, &site, approach, &listeners(bound));
            assert_eq!(found, format!("301 {expected}"), "{authority} at {port}, {bound:?}");
        }
    }

    #[test]
    fn a_required_certificate_is_waited_for_where_it_can_be_shown() {
        let asking = |required, redirect| {
            let client = ClientAuth { authorities: Arc::from(*b""), required, place: String::new() };
            site(SiteTls { client: Some(client), redirect, ..SiteTls::default() })
        };
        let shown = Approach { certificate: true, ..ENCRYPTED };
        let told = Approach { scheme: Scheme::Https, via_trusted: true, ..PLAIN };
        for (required, redirect, approach, expected) in [
            (true, false, shown, "pass"),
            (true, false, ENCRYPTED, "421 client_certificate_required"),
            (true, true, ENCRYPTED, "421 client_certificate_required"),
            (true, false, PLAIN, "403 client_certificate_required"),
            (true, true, PLAIN, "301 https://a/"),
            (true, true, told, "403 client_certificate_required"),
            (false, false, ENCRYPTED, "pass"),
            (false, false, PLAIN, "pass"),
            (false, true, PLAIN, "301 https://a/"),
        ] {
            let head = head(Method::GET, "a", "/");
            let found = outcome(&head, &asking(required, redirect), approach, &[]);
            assert_eq!(found, expected, "required {required}, redirect {redirect}, {approach:?}");
        }
        let challenge = head(Method::GET, "a", "/.well-known/acme-challenge/x");
        let found = outcome(&challenge, &asking(true, true), PLAIN, &[]);
        assert_eq!(found, "403 client_certificate_required", "a path is no way around it");
    }

    #[test]
    fn hsts_is_told_over_https_and_nowhere_else() {
        let ours = site(SiteTls { hsts: Some("max-age=1".into()), ..SiteTls::default() });
        for (site, scheme, expected) in [
            (&ours, Scheme::Https, &[&b"max-age=1"[..]][..]),
            (&ours, Scheme::Http, &[]),
            (&site(SiteTls::default()), Scheme::Https, &[b"max-age=9", b"max-age=8"]),
        ] {
            let mut headers = HeaderList::default();
            headers.push("strict-transport-security", "max-age=9");
            headers.push("X", "y");
            headers.push("Strict-Transport-Security", "max-age=8");
            tell_hsts(&mut headers, site, scheme);
            assert_eq!(headers.all(b"strict-transport-security").collect::<Vec<_>>(), expected);
            assert!(headers.contains(b"x"));
        }
    }
}
