//! Which sites are asked, by which host, and what.

use http::Method;
use snapshot::generation::{Certificate, HostHeader, HostPattern, Site};

use super::golden::Golden;
use super::judge::{Echo, Expected, Trace};
use crate::generation::{Generation, SiteRuntime};
use crate::tls::LoadError;
use crate::visitor::{Question, Way};

/// Sites asked in any case, from the first on.
const FIRST_SITES: usize = 200;
/// Sites asked of those that follow, spread evenly.
const SAMPLED_SITES: usize = 50;
/// Labels tried before a suffix pattern or `*` whose names all belong to other sites is left alone.
const MADE_UP_NAMES: usize = 4;
/// A host that nobody has (RFC 6761 section 6.4).
const STRANGER: &str = "rempart-golden-request.invalid";
/// Body of the POST; less where the site takes less.
const BODY: &[u8] = b"golden request";
const TARGET: &str = "/golden/request?number=1&of=%41";

/// Positions of the sites that are asked.
pub fn sample(sites: usize) -> Vec<usize> {
    let rest = sites.saturating_sub(FIRST_SITES);
    let spread = (0..rest.min(SAMPLED_SITES)).map(|at| FIRST_SITES + at * rest / rest.min(SAMPLED_SITES));
    (0..sites.min(FIRST_SITES)).chain(spread).collect()
}

/// Whether a visitor without a certificate is turned away.
pub fn demands_certificate(site: &Site) -> bool {
    site.tls.client.as_ref().is_some_and(|client| client.required)
}

/// The warning that a given certificate is not for a host of its site.
pub fn uncovered(site: &Site, host: &str) -> Option<LoadError> {
    let Certificate::Pem { place, .. } = &site.certificate else { return None };
    Some(LoadError {
        place: place.clone(),
        code: "certificate-partly",
        message: format!("the certificate presented for \"{host}\" is not for that name"),
        hint: "use a certificate for every host of the site".to_owned(),
    })
}

/// One site, or none, reached in one way.
pub struct Visit {
    /// Position of the site.
    pub site: usize,
    /// How.
    pub way: Way,
    /// Name or address, as in the host table; the server name.
    pub host: String,
    /// The same for `Host`: an IPv6 address in brackets.
    pub authority: String,
}

impl Visit {
    /// To nobody's host.
    pub fn stranger(way: Way) -> Option<Self> {
        Some(Self { site: usize::MAX, way, host: STRANGER.to_owned(), authority: STRANGER.to_owned() })
    }

    /// To a site; `None` when no name leads there.
    pub fn of(generation: &Generation, index: usize, way: Way) -> Option<Self> {
        let site = generation.snapshot.sites.get(index)?;
        let exact = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(host) => Some(host.to_string()),
            _ => None,
        };
        let host = site.hosts.iter().find_map(exact).or_else(|| made_up(generation, site))?;
        let authority = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Some(Self { site: index, way, host, authority })
    }

    /// A GET.
    pub fn get<'a>(&'a self, target: &'a str) -> Question<'a> {
        super::get(&self.authority, target)
    }
}

/// A name that only this site's patterns have.
fn made_up(generation: &Generation, site: &Site) -> Option<String> {
    let names = site.hosts.iter().flat_map(|pattern| {
        (0..MADE_UP_NAMES).map(move |number| match pattern {
            HostPattern::Suffix(parent) => format!("golden-request-{number}.{parent}"),
            HostPattern::Exact(_) | HostPattern::Any => format!("golden-request-{number}.invalid"),
        })
    });
    let mut names = names;
    names.find(|name| generation.snapshot.hosts.find(name) == Some(site.index))
}

/// Everything the questions to one site depend on.
pub struct Scene<'a> {
    /// What is rehearsed.
    pub generation: &'a Generation,
    /// The site.
    pub site: &'a SiteRuntime,
    /// How it is reached.
    pub visit: &'a Visit,
    /// Who answers.
    pub golden: &'a Golden,
}

/// A question to a site.
pub struct SiteQuestion<'a> {
    method: Method,
    authority: &'a str,
    target: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: Option<&'static [u8]>,
}

impl SiteQuestion<'_> {
    /// As the visitor asks it.
    pub fn asked(&self) -> Question<'_> {
        let Self { method, authority, target, fields, body } = self;
        Question { method: method.clone(), authority, target, fields, body: *body }
    }
}

impl<'a> Scene<'a> {
    /// The trace, a GET with a query, and a POST with a body, each with what must come of it.
    pub fn questions(&self) -> Vec<(SiteQuestion<'a>, Expected)> {
        let limit = self.site.site.limits.body_bytes.and_then(|limit| usize::try_from(limit).ok());
        let body = BODY.get(..limit.unwrap_or(BODY.len())).unwrap_or(BODY);
        let ask = |method, target, body| SiteQuestion {
            method,
            authority: &self.visit.authority,
            target,
            fields: self.fields(),
            body,
        };
        vec![
            (ask(Method::GET, "/.rempart/trace", None), self.trace()),
            (ask(Method::GET, TARGET, None), self.delivery(Method::GET, b"")),
            (ask(Method::POST, TARGET, Some(body)), self.delivery(Method::POST, body)),
        ]
    }

    /// A forged address, unless this machine is a trusted proxy and would be believed.
    fn fields(&self) -> &'static [(&'static str, &'static str)] {
        if self.generation.snapshot.trusted_proxies.contains(std::net::Ipv4Addr::LOCALHOST.into()) {
            &[("User-Agent", "rempart-golden-request")]
        } else {
            &[("User-Agent", "rempart-golden-request"), ("X-Forwarded-For", "192.0.2.1")]
        }
    }

    fn trace(&self) -> Expected {
        let Visit { way, host, authority, .. } = self.visit;
        let named = *way != Way::Plain && host.parse::<std::net::IpAddr>().is_err();
        let trace = Expected::Trace(Trace {
            authority: authority.clone(),
            scheme: way.scheme(),
            protocol: way.protocol(),
            server_name: named.then(|| host.clone()),
            site: self.site.site.name.to_string(),
        });
        self.or_turned_away(trace, "/.rempart/trace")
    }

    /// The golden origin's answer, or where plain HTTP does not get that far, what it gets instead.
    fn delivery(&self, method: Method, body: &[u8]) -> Expected {
        let tls = self.generation.snapshot.listeners.iter().any(|listener| listener.tls);
        let redirect = self.visit.way == Way::Plain && self.site.site.tls.redirect;
        if redirect && tls {
            return self.redirect(TARGET);
        }
        let authority = self.visit.authority.clone();
        let hosts = self.site.site.origins.iter().map(|origin| match &origin.host_header {
            HostHeader::Fixed(host) => host.to_string(),
            HostHeader::Preserve => authority.clone(),
        });
        let echo = Expected::Echo(Box::new(Echo {
            mark: self.golden.mark.clone(),
            method,
            target: TARGET.to_owned(),
            body: body.to_vec(),
            hosts: hosts.collect(),
            scheme: self.visit.way.scheme(),
            via: self.generation.snapshot.via.to_string(),
            compatibility: self.site.site.compatibility,
            hsts: (self.visit.way != Way::Plain)
                .then(|| self.site.site.tls.hsts.as_ref().map(ToString::to_string))
                .flatten(),
            authority,
        }));
        self.or_turned_away(echo, TARGET)
    }

    fn redirect(&self, target: &str) -> Expected {
        Expected::Redirect { authority: self.visit.authority.clone(), target: target.to_owned() }
    }

    /// Where a site wants TLS or a certificate, plain HTTP may be redirected or refused before it gets there.
    fn or_turned_away(&self, expected: Expected, target: &str) -> Expected {
        let either = |one, other| Expected::Either(Box::new(one), Box::new(other));
        if self.visit.way != Way::Plain {
            return expected;
        }
        let tls = &self.site.site.tls;
        let expected = if tls.redirect { either(expected, self.redirect(target)) } else { expected };
        if !demands_certificate(&self.site.site) {
            return expected;
        }
        either(either(expected, Expected::Status(403)), Expected::Status(421))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sites_are_asked_and_a_spread_of_the_others() {
        for (sites, asked, last) in [
            (0, 0, None),
            (1, 1, Some(0)),
            (200, 200, Some(199)),
            (201, 201, Some(200)),
            (250, 250, Some(249)),
        ] {
            let sample = sample(sites);
            assert_eq!((sample.len(), sample.last().copied()), (asked, last), "{sites} sites");
        }
        let many = sample(10_000);
        assert_eq!(many.len(), FIRST_SITES + SAMPLED_SITES);
        assert!(many.is_sorted_by(|a, b| a < b) && many.last().is_some_and(|&last| last > 9_700), "{many:?}");
    }
}
