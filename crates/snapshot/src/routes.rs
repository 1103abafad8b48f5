//! Where rules say a site's origins are: one rule's word, and what several say together.

use std::collections::HashSet;
use std::sync::Arc;

use crate::generation::{HostHeader, Origin, OriginHost, OriginTls};
use crate::rules::{Action, PhaseRules};

/// Ways to its origins a site may have through its rules. Each has origins of its own, with their health and connections, which are
/// made when a generation is loaded.
pub const ROUTES_MOST: usize = 256;

/// Where the origin is, and under what name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// `Host` sent.
    pub host_header: Option<Arc<str>>,
    /// Name or address to connect to.
    pub host: Option<Arc<str>>,
    /// Port to connect to.
    pub port: Option<u16>,
    /// Server name of the handshake.
    pub sni: Option<Arc<str>>,
}

/// Rules of one site that can come together in more than `ROUTES_MOST` ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rules that route can come together in more than {ROUTES_MOST} ways")]
pub struct TooManyRoutes;

impl Route {
    /// What both say; where both say something, the later one is right.
    pub fn then(&self, later: &Self) -> Self {
        Self {
            host_header: later.host_header.as_ref().or(self.host_header.as_ref()).cloned(),
            host: later.host.as_ref().or(self.host.as_ref()).cloned(),
            port: later.port.or(self.port),
            sni: later.sni.as_ref().or(self.sni.as_ref()).cloned(),
        }
    }
}

impl PhaseRules {
    /// Every route a request can get by any choice of these rules, each once.
    pub fn routes(&self) -> Result<HashSet<Route>, TooManyRoutes> {
        let mut routes = HashSet::new();
        for rule in self.rulesets.iter().flat_map(|ruleset| ruleset.all_rules()) {
            let Action::Route(route) = &rule.action else { continue };
            let further: Vec<Route> = routes.iter().map(|earlier: &Route| earlier.then(route)).collect();
            routes.insert(Route::clone(route));
            routes.extend(further);
            if routes.len() > ROUTES_MOST {
                return Err(TooManyRoutes);
            }
        }
        Ok(routes)
    }
}

impl Origin {
    /// This origin where a rule says it is, and under the names it says.
    pub fn routed(&self, route: &Route) -> Origin {
        let host = route.host.as_ref().map_or_else(
            || self.host.clone(),
            |host| match host.trim_matches(['[', ']']).parse() {
                Ok(address) => OriginHost::Address(address),
                Err(_) => OriginHost::Name(host.clone()),
            },
        );
        let port = route.port.unwrap_or(self.port);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let label = match &host {
            OriginHost::Address(address) => {
                format!("{scheme}://{}", std::net::SocketAddr::new(*address, port))
            }
            OriginHost::Name(name) => format!("{scheme}://{name}:{port}"),
        };
        let tls = self.tls.as_ref().map(|tls| OriginTls {
            server_name: route
                .sni
                .as_ref()
                .or(route.host.as_ref())
                .map_or_else(|| tls.server_name.clone(), Arc::clone),
            verify: tls.verify.clone(),
        });
        let host_header = match &route.host_header {
            Some(host) => HostHeader::Fixed(host.clone()),
            None => self.host_header.clone(),
        };
        Origin { label: label.into(), host, port, host_header, tls, ..self.clone() }
    }
}
