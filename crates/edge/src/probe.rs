//! Probes: whether an edge answers on its real listeners, as a visitor would find out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use api::process::ListenerOrder;
use base::address::PrefixSet;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Method;
use snapshot::generation::HostPattern;

use crate::generation::Generation;
use crate::visitor::{self, Question, VisitError, Visitor, Way};

/// Time for one connection with its request.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Connections to one listener: two for each of its sockets, so that hardly one is left out, and at most this many.
const PER_SOCKET: usize = 2;
const MAX_PROBES: usize = 32;
/// Sockets taken for granted where their number is not told.
const UNTOLD_SOCKETS: usize = 8;
/// Failures that are told; the rest is more of the same.
const MAX_FAILURES: usize = 20;
/// Sites that are asked in turn.
const MAX_SITES: usize = 16;

/// Asks for `/.rempart/trace` on each of these listeners, over several new connections, and says what went wrong.
///
/// Unspecified addresses are asked on the loopback interface. The process that answers must be `instance`, unless that
/// is empty. A listener all whose sites demand a certificate is alive when it refuses by a TLS alert. Blocks for two
/// seconds per listener at most.
pub fn probe(listeners: &[ListenerOrder], generation: &Generation, instance: &str) -> Vec<String> {
    let asked = visitor::apart("probe", async || {
        let mut failures = Vec::new();
        for listener in listeners {
            failures.extend(listener_failures(listener, generation, instance).await);
            if failures.len() >= MAX_FAILURES {
                break;
            }
        }
        failures.truncate(MAX_FAILURES);
        failures
    });
    asked.unwrap_or_else(|error| vec![format!("the probe could not be made: {error}")])
}

/// One listener, all its connections at once; each kind of failure once.
async fn listener_failures(listener: &ListenerOrder, generation: &Generation, instance: &str) -> Vec<String> {
    let sockets = if listener.sockets == 0 { UNTOLD_SOCKETS } else { listener.sockets };
    let count = sockets.saturating_mul(PER_SOCKET).min(MAX_PROBES);
    let visits = visits(generation, listener.tls);
    let proxies = listener.proxy_protocol.then_some(&generation.snapshot.trusted_proxies);
    let mut probes: FuturesUnordered<_> =
        visits.iter().cycle().take(count).map(|visit| one(listener, visit, proxies, instance)).collect();
    let mut failures: Vec<(String, usize)> = Vec::new();
    while let Some(outcome) = probes.next().await {
        let Err(failure) = outcome else { continue };
        match failures.iter_mut().find(|(known, _)| *known == failure) {
            Some((_, times)) => *times += 1,
            None => failures.push((failure, 1)),
        }
    }
    let told = |(failure, times)| format!("{}: {failure} ({times} of {count} connections)", listener.address);
    failures.into_iter().map(told).collect()
}

/// One request: whom it is for, and what may come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Visit {
    host: String,
    authority: String,
    /// The site demands a certificate.
    demands: bool,
    /// Plain HTTP is redirected, maybe even here.
    redirects: bool,
    /// There is no site: 503 is right.
    defaults: bool,
}

impl Visit {
    fn new(host: &str, demands: bool, redirects: bool, defaults: bool) -> Self {
        let authority = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self { host: host.to_owned(), authority, demands, redirects, defaults }
    }
}

/// Whom to ask for: where there are any, only sites that answer everybody.
fn visits(generation: &Generation, tls: bool) -> Vec<Visit> {
    let snapshot = &generation.snapshot;
    let mut visits: Vec<Visit> = snapshot
        .sites
        .iter()
        .filter_map(|site| {
            let demands = site.tls.client.as_ref().is_some_and(|client| client.required);
            let host = site.hosts.iter().find_map(|pattern| match pattern {
                HostPattern::Exact(host) => Some(host.to_string()),
                HostPattern::Suffix(parent) => Some(format!("rempart-probe.{parent}")),
                HostPattern::Any => None,
            });
            let host = host.unwrap_or_else(|| "rempart-probe.invalid".to_owned());
            (snapshot.hosts.find(&host) == Some(site.index))
                .then(|| Visit::new(&host, demands, site.tls.redirect && !tls, false))
        })
        .collect();
    let open = |visit: &Visit| !visit.demands && !visit.redirects;
    if visits.iter().any(open) {
        visits.retain(open);
    }
    visits.truncate(MAX_SITES);
    if visits.is_empty() {
        visits.push(Visit::new("rempart-probe.invalid", false, false, snapshot.is_defaults));
    }
    visits
}

/// One connection and its request; the error in words.
async fn one(
    listener: &ListenerOrder,
    visit: &Visit,
    proxies: Option<&PrefixSet>,
    instance: &str,
) -> Result<(), String> {
    let address = reachable(listener.address);
    let question = Question {
        method: Method::GET,
        authority: &visit.authority,
        target: "/.rempart/trace",
        fields: &[("User-Agent", "rempart-probe")],
        body: None,
    };
    if listener.tls && visit.demands {
        let asked =
            visitor::ask_without_certificate(address, &question, &visit.host, PROBE_TIME, proxies).await;
        return match asked {
            Ok(_) | Err(VisitError::Alert(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
    }
    let way = if listener.tls { Way::Tls } else { Way::Plain };
    let asked = tokio::time::timeout(PROBE_TIME, async {
        Visitor::connect(address, way, &visit.host, PROBE_TIME, proxies).await?.ask(&question).await
    });
    let answer = match asked.await.unwrap_or(Err(VisitError::Late(PROBE_TIME))) {
        Ok(answer) => answer,
        // Compiled-in defaults have no certificate to shake hands with, and refuse in so many words.
        Err(VisitError::Alert(_)) if visit.defaults => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    match answer.head.status {
        200 => who_answered(&answer.body, instance),
        503 if visit.defaults => Ok(()),
        301 | 308 if visit.redirects => Ok(()),
        403 | 421 if visit.demands => Ok(()),
        status => Err(format!("status {status} instead of 200")),
    }
}

/// Compares the trace's `instance` line, where there is one.
fn who_answered(trace: &[u8], instance: &str) -> Result<(), String> {
    let text = String::from_utf8_lossy(trace);
    let Some(found) = text.lines().find_map(|line| line.strip_prefix("instance=")) else { return Ok(()) };
    if instance.is_empty() || found == instance {
        return Ok(());
    }
    Err(format!("process {found} answered instead of {instance}"))
}

/// The address to connect to; nobody can connect to all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_can_be_connected_to() {
        for (bound, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:443", "[::1]:443"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn the_process_that_answers_is_the_one_meant() {
        for (trace, instance, right) in [
            ("h=a\ninstance=abc\n", "abc", true),
            ("h=a\ninstance=abc\n", "abd", false),
            ("h=a\ninstance=\n", "abc", false),
            ("h=a\ninstance=abc\n", "", true),
            ("h=a\n", "abc", true),
        ] {
            assert_eq!(who_answered(trace.as_bytes(), instance).is_ok(), right, "{trace}");
        }
    }
}
