//! The certificates of one generation: read and checked when it is loaded, chosen by server name in each handshake.

mod acme;
mod development;
mod given;
pub mod ocsp;
mod status;
mod wanted;

use std::net::IpAddr;
use std::sync::Arc;

use base::time::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use snapshot::generation::{Certificate, HostPattern, Site, Snapshot};

use self::acme::Acme;
use self::development::{Development, Owner};
use self::given::{Given, Stapled};
pub use self::wanted::{MAX_WANTED, Wanted};
use super::LoadError;
use super::authority::{DevelopmentAuthority, Leaf, timestamp};

/// What to do with a given certificate whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Refuse the generation: the rule for every new one.
    Refuse,
    /// Serve it with a warning: for the last good generation at start, where refusing would take down every site.
    Serve,
}

/// The certificates of one generation. Shared between threads; implements rustls' choice by server name.
pub struct Certificates {
    snapshot: Arc<Snapshot>,
    /// In the order of `Snapshot::sites`; empty when no listener speaks TLS.
    slots: Vec<Slot>,
    /// The site whose certificate answers clients that send no server name.
    nameless: usize,
    warnings: Vec<LoadError>,
    wanted: Arc<Wanted>,
}

enum Slot {
    Given { leaf: Leaf, stapled: Option<Stapled> },
    Development(Development),
    Acme(Acme),
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificates({} sites)", self.slots.len())
    }
}

impl Certificates {
    /// True when a visitor can need a development certificate and a listener speaks TLS: only then open the authority.
    pub fn needs_development(snapshot: &Snapshot) -> bool {
        snapshot.listeners.iter().any(|listener| listener.tls)
            && (snapshot.is_defaults
                || snapshot.sites.iter().any(|site| match &site.certificate {
                    Certificate::Development => true,
                    Certificate::Pem { .. } => false,
                    Certificate::Acme { names, on_demand, .. } => {
                        acme::needs_development(site, names, on_demand)
                    }
                }))
    }

    /// Reads and checks every site's certificate; all findings at once. `wanted` is told of names to be had on demand.
    pub fn load(
        snapshot: &Arc<Snapshot>,
        development: Option<&Arc<DevelopmentAuthority>>,
        now: Timestamp,
        expired: Expired,
        wanted: &Arc<Wanted>,
    ) -> Result<Self, Vec<LoadError>> {
        let (mut slots, mut errors, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        if snapshot.listeners.iter().any(|listener| listener.tls) {
            for site in &snapshot.sites {
                match slot(site, development, now, expired, &mut warnings) {
                    Ok(slot) => slots.push(slot),
                    Err(found) => errors.extend(found),
                }
            }
        }
        if snapshot.is_defaults && snapshot.listeners.iter().any(|listener| listener.tls) {
            // Nobody's names: visitors get past the warning to a page that says what is wrong, instead of a broken handshake.
            match Development::sign(&NOBODY, development, now) {
                Ok(slot) => slots.push(Slot::Development(slot)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let (snapshot, wanted) = (snapshot.clone(), wanted.clone());
        Ok(Self { slots, nameless: nameless(&snapshot), snapshot, warnings, wanted })
    }

    /// What was served although it should not be left so when the generation was loaded: certificates out of their time,
    /// and OCSP responses left out. For what time brings afterwards see `warnings_at`.
    pub fn warnings(&self) -> &[LoadError] {
        &self.warnings
    }

    /// When the first certificate of the site at this position ends; `None` without TLS or such a site.
    pub fn expiry(&self, site: usize) -> Option<Timestamp> {
        match self.slots.get(site)? {
            Slot::Given { leaf, .. } => Some(leaf.expires),
            Slot::Development(development) => Some(development.own().expires),
            Slot::Acme(acme) => acme.expires(),
        }
    }

    /// The generation they belong to.
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The position of the site that answers this server name (lower case), or a client that sent none; and whether the
    /// name is one of its own rather than nobody's.
    pub(super) fn site(&self, name: Option<&str>) -> (usize, bool) {
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name));
        match name.and_then(|name| self.snapshot.hosts.find(name)) {
            Some(site) => (site, true),
            None => (self.nameless, false),
        }
    }

    /// The certificate for a server name (lower case), or for a client that sent none.
    ///
    /// A name nobody has gets the nameless site's: the visitor then sees an error page rather than a broken handshake.
    pub fn choose(&self, name: Option<&str>, now: impl FnOnce() -> Timestamp) -> Option<Arc<CertifiedKey>> {
        let (site, own) = self.site(name);
        // With its site known, the name itself counts: it may have a certificate, or have one signed.
        let name = name.filter(|_| own).map(|name| name.strip_suffix('.').unwrap_or(name));
        let hosts = || self.snapshot.sites.get(site).map_or(&[][..], |site| &site.hosts);
        match self.slots.get(site)? {
            Slot::Given { leaf, stapled: None } => Some(leaf.key.clone()),
            Slot::Given { leaf, stapled: Some(stapled) } => {
                // A response past its end makes visitors refuse what they would accept without one.
                let shown = stapled.until.is_none_or(|until| now() < until);
                Some(if shown { stapled.key.clone() } else { leaf.key.clone() })
            }
            Slot::Development(development) => Some(development.choose(name, hosts(), now())),
            Slot::Acme(acme) => acme.choose(name, hosts(), &self.wanted, now),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case already.
        self.choose(hello.server_name(), super::wall_clock)
    }
}

fn slot(
    site: &Site,
    development: Option<&Arc<DevelopmentAuthority>>,
    now: Timestamp,
    expired: Expired,
    warnings: &mut Vec<LoadError>,
) -> Result<Slot, Vec<LoadError>> {
    match &site.certificate {
        Certificate::Development => {
            sign(site, development, now).map(Slot::Development).map_err(|error| vec![error])
        }
        Certificate::Pem { chain, key, ocsp, place } => {
            let given = Given { place, name: None, chain, key };
            let leaf = given.load(now, expired, warnings).map_err(|error| vec![error])?;
            let stapled = match ocsp {
                Some(response) => {
                    given.staple(&leaf, response, now, warnings).map_err(|error| vec![error])?
                }
                None => None,
            };
            Ok(Slot::Given { leaf, stapled })
        }
        Certificate::Acme { names, demanded, on_demand, place } => {
            let settings = acme::Settings { names, demanded, on_demand, place };
            Acme::load(site, &settings, development, now, warnings).map(Slot::Acme)
        }
    }
}

/// Whose certificate answers while nothing but the defaults can be used.
const NOBODY: Owner<'static> =
    Owner { place: "listen", name: "the built-in defaults", hosts: &[HostPattern::Any] };

/// A development certificate for the hosts of a site.
fn sign(
    site: &Site,
    development: Option<&Arc<DevelopmentAuthority>>,
    now: Timestamp,
) -> Result<Development, LoadError> {
    let (place, name) = (format!("site[{}].tls", site.index), format!("site \"{}\"", site.name));
    Development::sign(&Owner { place: &place, name: &name, hosts: &site.hosts }, development, now)
}

/// Who sends no server name connected by address: the site with an address among its hosts, then `*`, then the first.
fn nameless(snapshot: &Snapshot) -> usize {
    let first = |wanted: fn(&HostPattern) -> bool| {
        snapshot.sites.iter().position(|site| site.hosts.iter().any(wanted))
    };
    first(|host| matches!(host, HostPattern::Exact(name) if name.parse::<IpAddr>().is_ok()))
        .or_else(|| first(|host| matches!(host, HostPattern::Any)))
        .unwrap_or(0)
}

fn day(time: Timestamp) -> String {
    let seconds = i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "an unknown day".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}
