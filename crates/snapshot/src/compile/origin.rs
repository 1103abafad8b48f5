//! Origins: where requests are sent, and how.

use std::net::IpAddr;
use std::sync::Arc;

use super::Judge;
use super::host::{self, BadHost, Host};
use super::listen::loops_to;
use crate::desired;
use crate::diagnostic::quote;
use crate::generation::{
    HostHeader, HostTable, Listener, Origin, OriginHost, OriginHttp, OriginTimeouts, OriginTls, OriginVerify,
    ProxyProtocol,
};

/// An origin's URL, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    host: Host,
    port: u16,
}

impl Url {
    /// `http://host:port`, always with the port.
    fn label(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("{scheme}://[{address}]:{}", self.port),
            Host::Address(IpAddr::V4(address)) => format!("{scheme}://{address}:{}", self.port),
            Host::Name(name) => format!("{scheme}://{name}:{}", self.port),
        }
    }
}

impl Judge<'_> {
    pub(super) fn origins(
        &mut self,
        origins: &[desired::Origin],
        site: &str,
        listeners: &[Listener],
        hosts: &HostTable,
    ) -> Vec<Arc<Origin>> {
        if origins.is_empty() {
            self.review.error(
                &format!("{site}.origin"),
                "no-origin",
                "this site has no origin, so there is nothing to serve",
                "add below it: [[site.origin]] url = \"http://127.0.0.1:3000\"",
            );
        }
        let mut out: Vec<Arc<Origin>> = Vec::new();
        for (index, origin) in origins.iter().enumerate() {
            let place = format!("{site}.origin[{index}]");
            let Some(origin) = self.origin(origin, &place, listeners, hosts) else {
                continue;
            };
            if out.iter().any(|other| other.label == origin.label) {
                self.review.warning(
                    &format!("{place}.url"),
                    "duplicate-origin",
                    format!("{} is an origin of this site already", origin.label),
                    "to send it more requests than the others, raise its `weight`",
                );
            }
            out.push(Arc::new(origin));
        }
        out
    }

    fn origin(
        &mut self,
        origin: &desired::Origin,
        place: &str,
        listeners: &[Listener],
        hosts: &HostTable,
    ) -> Option<Origin> {
        let url_place = format!("{place}.url");
        let url = match parse_url(&origin.url) {
            Ok(url) => url,
            Err(error) => {
                self.review.error(&url_place, "bad-origin", error.message, error.hint);
                return None;
            }
        };
        self.loops(&url, &url_place, listeners, hosts);
        let host_header = self.host_header(&origin.host, &format!("{place}.host"));
        let tls = self.origin_tls(origin, &url, &format!("{place}.tls"));
        let (http, proxy_protocol) = self.origin_protocol(origin, place);
        Some(Origin {
            label: url.label().into(),
            port: url.port,
            weight: origin.weight,
            host_header,
            tls,
            http,
            max_idle: origin.max_idle,
            max_connections: origin.max_connections,
            queue: origin.queue,
            proxy_protocol,
            timeouts: OriginTimeouts {
                connect: origin.timeouts.connect.into(),
                queue: origin.timeouts.queue.into(),
                response: origin.timeouts.response.into(),
                idle: origin.timeouts.idle.into(),
                keep_alive: origin.timeouts.keep_alive.into(),
                resolve: origin.timeouts.resolve.into(),
            },
            host: match url.host {
                Host::Name(name) => OriginHost::Name(name.into()),
                Host::Address(address) => OriginHost::Address(address),
            },
        })
    }

    /// HTTP version and PROXY header, which must fit each other: a header tells one visitor, and over HTTP/2 a connection
    /// has the requests of many.
    fn origin_protocol(
        &mut self,
        origin: &desired::Origin,
        place: &str,
    ) -> (OriginHttp, Option<ProxyProtocol>) {
        let proxy_protocol = origin.proxy_protocol.map(|version| match version {
            desired::ProxyProtocol::V1 => ProxyProtocol::V1,
            desired::ProxyProtocol::V2 => ProxyProtocol::V2,
        });
        let http = match (origin.http, proxy_protocol) {
            (desired::OriginHttp::Auto, None) => OriginHttp::Auto,
            (desired::OriginHttp::Http1, _) | (desired::OriginHttp::Auto, Some(_)) => OriginHttp::Http1,
            (desired::OriginHttp::Http2, None) => OriginHttp::Http2,
            (desired::OriginHttp::Http2, Some(_)) => {
                self.review.error(
                    &format!("{place}.proxy_protocol"),
                    "conflicting-options",
                    "a PROXY header names one visitor, and a connection with HTTP/2 carries the requests of many",
                    "remove `http = \"2\"`, or `proxy_protocol`: `Forwarded` tells the origin who the visitor is, too",
                );
                OriginHttp::Http2
            }
        };
        (http, proxy_protocol)
    }

    /// Notices requests that would come back to this very Rempart.
    fn loops(&mut self, url: &Url, place: &str, listeners: &[Listener], hosts: &HostTable) {
        if let Some(listener) = loops_to(&url.host, url.port, listeners) {
            let line = self.review.places.line(&listener.place);
            self.review.error(
                place,
                "origin-loop",
                format!("{} is where Rempart itself listens, in line {line}: a loop", url.label()),
                "write the address of the server behind Rempart; it needs another port",
            );
        } else if let Host::Name(name) = &url.host
            && listeners.iter().any(|listener| listener.address.port() == url.port)
            // A `*` site takes every name, which says nothing about this one.
            && hosts.find(name).is_some_and(|site| hosts.find("") != Some(site))
        {
            self.review.warning(
                place,
                "origin-may-loop",
                format!("{} is also a host served here, so requests may come back", quote(name)),
                "write the address of the server behind Rempart, and its `host` if it needs one",
            );
        }
    }

    fn host_header(&mut self, text: &str, place: &str) -> HostHeader {
        if text == "preserve" {
            return HostHeader::Preserve;
        }
        match authority(text) {
            Ok(authority) => HostHeader::Fixed(authority.into()),
            Err(error) => {
                let hint = format!("{}; or \"preserve\" for the host that was asked for", error.hint);
                self.review.error(place, "bad-host", error.message, hint);
                HostHeader::Preserve
            }
        }
    }

    fn origin_tls(&mut self, origin: &desired::Origin, url: &Url, place: &str) -> Option<OriginTls> {
        if !url.tls {
            if origin.tls.is_some() {
                self.review.error(
                    place,
                    "conflicting-options",
                    format!("TLS settings have no effect on {}", quote(&origin.url)),
                    "write `https://` in the URL, or remove this table",
                );
            }
            return None;
        }
        let default = desired::OriginTls::default();
        let tls = origin.tls.as_ref().unwrap_or(&default);
        let server_name = match tls.server_name.as_deref().map(host::parse) {
            None => url.host.clone(),
            Some(Ok(host)) => host,
            Some(Err(error)) => {
                self.review.error(&format!("{place}.server_name"), "bad-host", error.message, error.hint);
                url.host.clone()
            }
        };
        let verify = match (&tls.authorities, tls.verify) {
            (Some(_), false) => {
                self.review.error(
                    &format!("{place}.verify"),
                    "conflicting-options",
                    "the certificate cannot be left unchecked and be checked against authorities",
                    "remove `verify = false`, or remove `authorities`",
                );
                OriginVerify::Off
            }
            (None, false) => OriginVerify::Off,
            (None, true) => OriginVerify::System,
            (Some(path), true) => {
                let place = format!("{place}.authorities");
                match self.file(path, &place) {
                    Some(pem) => {
                        self.authorities(&pem, path, &place);
                        OriginVerify::Authorities { pem, place }
                    }
                    None => OriginVerify::System,
                }
            }
        };
        let server_name = match server_name {
            Host::Name(name) => name,
            Host::Address(address) => address.to_string(),
        };
        Some(OriginTls { server_name: server_name.into(), verify })
    }
}

/// Reads scheme, host and port; a lone `/` at the end is harmless, everything else is refused.
fn parse_url(text: &str) -> Result<Url, BadHost> {
    let bad = |what: &str, hint: String| Err(BadHost { message: format!("{} {what}", quote(text)), hint });
    if text.is_empty() {
        return bad("is no URL", "write \"http://127.0.0.1:3000\"".to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return bad("has no scheme", format!("write {}", quote(&format!("http://{text}"))));
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        "ws" | "wss" => {
            let hint = "write http or https: WebSockets go over the same origin".to_owned();
            return bad("has a scheme of its own for WebSockets", hint);
        }
        _ => return bad("has an unknown scheme", "write http:// or https://".to_owned()),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let only = |authority: &str| {
        format!("write scheme, host and port only: {}", quote(&format!("{scheme}://{authority}")))
    };
    if let Some((_, host)) = authority.rsplit_once('@') {
        // The message does not repeat what may be a password.
        let message = format!("the URL of {} holds a user name or password, which is not sent", quote(host));
        return Err(BadHost { message, hint: only(host) });
    }
    if !matches!(path, "" | "/") {
        return bad("holds a path or query, which is not added to requests", only(authority));
    }
    let (host, port) = split_port(authority);
    let port = match port.map(host::port) {
        None => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(Some(port)) if port > 0 => port,
        Some(_) => return bad("has no valid port", "a port is a number from 1 to 65535".to_owned()),
    };
    if host.is_empty() {
        return bad("has no host", format!("write {}", quote(&format!("{scheme}://127.0.0.1:{port}"))));
    }
    Ok(Url { tls, host: host::parse(host)?, port })
}

/// Splits the port off, minding the colons of an IPv6 address.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Reads a host with an optional port, as `Host` carries it.
pub(super) fn authority(text: &str) -> Result<String, BadHost> {
    if text.contains(['/', '@']) {
        // Whatever this is, it is no host; which is what this says.
        host::parse(text)?;
    }
    let (host, port) = split_port(text);
    let host = match host::parse(host)? {
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        Host::Address(IpAddr::V4(address)) => address.to_string(),
        Host::Name(name) => name,
    };
    match port.map(host::port) {
        None => Ok(host),
        Some(Some(port)) => Ok(format!("{host}:{port}")),
        Some(None) => Err(BadHost {
            message: format!("{} has no valid port", quote(text)),
            hint: "a port is a number from 0 to 65535".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalised() {
        for (written, label) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("HTTP://App.Internal/", "http://app.internal:80"),
            ("https://bücher.example", "https://xn--bcher-kva.example:443"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
        ] {
            assert_eq!(parse_url(written).map(|url| url.label()), Ok(label.to_owned()), "{written}");
        }
    }

    #[test]
    fn what_is_no_origin_url_is_refused() {
        for written in [
            "127.0.0.1:3000",
            "ftp://a",
            "ws://a",
            "http://a/path",
            "http://a?q",
            "http://user:secret@a",
            "http://a:0",
            "http://a:99999",
            "http://:80",
            "http://",
            "http://a b",
            "",
        ] {
            assert!(parse_url(written).is_err(), "{written}");
        }
    }

    #[test]
    fn a_fixed_host_may_carry_a_port() {
        assert_eq!(authority("App.internal:81"), Ok("app.internal:81".to_owned()));
        assert_eq!(authority("[::1]:81"), Ok("[::1]:81".to_owned()));
        assert!(authority("a:b").is_err());
    }
}
