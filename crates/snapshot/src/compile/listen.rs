//! Listeners and the metrics address: who may bind what.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Judge;
use super::host::{Host, port};
use crate::desired;
use crate::diagnostic::quote;
use crate::generation::Listener;

/// Ports on which connections are encrypted when nothing is said.
const TLS_PORTS: [u16; 2] = [443, 8443];

impl Judge<'_> {
    pub(super) fn listeners(&mut self, listen: &[desired::Listen], trust: &desired::Trust) -> Vec<Listener> {
        if listen.is_empty() {
            self.review.error(
                "listen",
                "no-listener",
                "there is no `[[listen]]`, so nobody could connect",
                "add: [[listen]] address = \":443\"",
            );
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for (index, listener) in listen.iter().enumerate() {
            let place = format!("listen[{index}].address");
            let Some(address) = self.address(&listener.address, &place, address_hint) else {
                continue;
            };
            let same = |other: &&Listener| other.address == address && address.port() != 0;
            if let Some(other) = listeners.iter().find(same) {
                let line = self.review.places.line(&other.place);
                self.review.error(
                    &place,
                    "duplicate-listener",
                    format!("{address} is already listened on, in line {line}"),
                    "remove one of the two",
                );
                continue;
            }
            let tls = listener.tls.unwrap_or_else(|| TLS_PORTS.contains(&address.port()));
            if listener.proxy_protocol && trust.proxies.is_empty() {
                self.review.error(
                    &format!("listen[{index}].proxy_protocol"),
                    "proxy-protocol-from-nobody",
                    "nobody's PROXY header is believed, because `trust.proxies` is empty",
                    "name the proxies in front: [trust] proxies = [\"192.0.2.1\"], or remove this line",
                );
            }
            listeners.push(Listener { address, tls, proxy_protocol: listener.proxy_protocol, place });
        }
        listeners
    }

    pub(super) fn metrics(
        &mut self,
        metrics: &desired::Metrics,
        listeners: &[Listener],
    ) -> Option<SocketAddr> {
        let place = "metrics.listen";
        if metrics.listen == "off" {
            return None;
        }
        let hint = |_: &str| "write \"127.0.0.1:9145\" or another loopback address, or \"off\"".to_owned();
        let address = self.address(&metrics.listen, place, hint)?;
        if !address.ip().to_canonical().is_loopback() {
            self.review.error(
                place,
                "metrics-not-loopback",
                format!("metrics on {address} could be read by others"),
                "use an address of this machine alone, such as \"127.0.0.1:9145\", or \"off\"",
            );
        } else if let Some(listener) = listeners.iter().find(|listener| reaches(listener.address, address)) {
            // A default that is in the way is told at the listener, which is what the operator wrote.
            let (place, hint) = if self.review.places.contains(place) {
                (place.to_owned(), "give one of the two another port".to_owned())
            } else {
                let hint = "use another port here, or for metrics: [metrics] listen = \"127.0.0.1:9146\"";
                (listener.place.clone(), hint.to_owned())
            };
            let message =
                format!("{} and the metrics on {address} are in each other's way", listener.address);
            self.review.error(&place, "metrics-on-listener", message, hint);
        }
        Some(address)
    }

    /// Reads `address:port`, `[address]:port` or `:port`.
    pub(super) fn address(
        &mut self,
        text: &str,
        place: &str,
        hint: fn(&str) -> String,
    ) -> Option<SocketAddr> {
        let shorthand = || {
            let port = port(text.strip_prefix(':')?)?;
            Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
        };
        let parsed = text.parse().ok().or_else(shorthand);
        if parsed.is_none() {
            self.review.error(
                place,
                "bad-address",
                format!("{} is not an address with a port", quote(text)),
                hint(text),
            );
        }
        parsed
    }
}

fn address_hint(text: &str) -> String {
    if port(text).is_some() {
        return format!("for every address of this machine write \":{text}\"");
    }
    if text.contains("://") {
        return "write address and port only, and `tls = true` below for HTTPS".to_owned();
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => return format!("add a port: \"{address}:443\""),
        Ok(IpAddr::V6(address)) => return format!("add brackets and a port: \"[{address}]:443\""),
        Err(_) => {}
    }
    match text.rsplit_once(':') {
        Some((_, digits)) if port(digits).is_none() => "a port is a number from 0 to 65535".to_owned(),
        Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
        Some((host, port)) if host.contains(':') => {
            format!("an IPv6 address stands in brackets: \"[{host}]:{port}\"")
        }
        _ => "write an IP address and a port: \"192.0.2.1:443\", \"[::]:443\" or \":443\"".to_owned(),
    }
}

/// Whether a connection to `target` from this machine ends up at a listener bound to `listener`.
pub(super) fn reaches(listener: SocketAddr, target: SocketAddr) -> bool {
    let (bound, wanted) = (listener.ip().to_canonical(), target.ip().to_canonical());
    if listener.port() != target.port() || listener.port() == 0 {
        return false;
    }
    match bound {
        // A dual-stack socket: `[::]` takes IPv4 as well.
        IpAddr::V6(any) if any.is_unspecified() => wanted.is_loopback() || wanted.is_unspecified(),
        IpAddr::V4(any) if any.is_unspecified() => {
            wanted.is_ipv4() && (wanted.is_loopback() || wanted.is_unspecified())
        }
        bound => {
            bound == wanted || wanted.is_unspecified() && bound.is_loopback() && same_family(bound, wanted)
        }
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// The listener that an origin's host and port lead back to, if there is one.
pub(super) fn loops_to<'l>(host: &Host, port: u16, listeners: &'l [Listener]) -> Option<&'l Listener> {
    let addresses = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
            vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(Ipv6Addr::LOCALHOST)]
        }
        Host::Name(_) => return None,
    };
    listeners.iter().find(|listener| {
        addresses.iter().any(|address| reaches(listener.address, SocketAddr::new(*address, port)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_reached_through_wildcards_and_loopback() {
        for (listener, target, reached) in [
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "127.8.8.8:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("192.0.2.1:80", "192.0.2.1:80", true),
            ("192.0.2.1:80", "127.0.0.1:80", false),
            ("[::]:80", "192.0.2.1:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (listener, target) = (listener.parse().unwrap(), target.parse().unwrap());
            assert_eq!(reaches(listener, target), reached, "{listener} {target}");
        }
    }
}
