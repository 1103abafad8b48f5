//! A site whose certificates an authority issues: one per name, and a development certificate until there is one.

use std::collections::HashMap;
use std::sync::Arc;

use base::time::Timestamp;
use rustls::sign::CertifiedKey;
use snapshot::generation::{HostPattern, Site};

use super::Expired;
use super::development::Development;
use super::given::Given;
use super::wanted::Wanted;
use crate::tls::LoadError;
use crate::tls::authority::{DevelopmentAuthority, Leaf};

/// A name and what has been issued for it.
type Name = (Arc<str>, Option<Arc<[u8]>>);

/// The certificates of one site, by name.
pub(super) struct Acme {
    /// Every name, in the order wanted, those on demand after them.
    certificates: Vec<(Arc<str>, Option<Leaf>)>,
    /// Name to position above.
    exact: HashMap<Arc<str>, usize>,
    /// What stands behind `*.` to position above.
    wildcard: HashMap<Arc<str>, usize>,
    on_demand: Vec<HostPattern>,
    /// For names without a certificate; `None` when there can be none.
    development: Option<Development>,
}

/// What the configuration says of it.
pub(super) struct Settings<'a> {
    pub names: &'a [Name],
    pub demanded: &'a [(Arc<str>, Arc<[u8]>)],
    pub on_demand: &'a [HostPattern],
    pub place: &'a str,
}

/// Whether a visitor of this site can ask for a name nothing has been issued for.
pub(super) fn needs_development(site: &Site, names: &[Name], on_demand: &[HostPattern]) -> bool {
    let has = |host: &HostPattern| match host {
        HostPattern::Exact(host) => {
            names.iter().any(|(name, _)| name == host || is_below(host, name.strip_prefix("*.")))
        }
        // A wildcard certificate covers one label only; deeper names still are without.
        HostPattern::Suffix(_) | HostPattern::Any => false,
    };
    !on_demand.is_empty() || names.iter().any(|(_, issued)| issued.is_none()) || !site.hosts.iter().all(has)
}

fn is_below(host: &str, parent: Option<&str>) -> bool {
    host.split_once('.').is_some_and(|(_, rest)| Some(rest) == parent)
}

impl Acme {
    /// Reads what has been issued; all findings at once. What has ended is served with a warning.
    pub fn load(
        site: &Site,
        settings: &Settings<'_>,
        development: Option<&Arc<DevelopmentAuthority>>,
        now: Timestamp,
        warnings: &mut Vec<LoadError>,
    ) -> Result<Self, Vec<LoadError>> {
        let (mut certificates, mut errors) = (Vec::new(), Vec::new());
        let demanded = settings.demanded.iter().map(|(name, pem)| (name, Some(pem)));
        for (name, pem) in settings.names.iter().map(|(name, pem)| (name, pem.as_ref())).chain(demanded) {
            let leaf = pem.map(|pem| {
                Given { place: settings.place, name: Some(name), chain: pem, key: pem }.load(
                    now,
                    Expired::Serve,
                    warnings,
                )
            });
            match leaf.transpose() {
                Ok(leaf) => certificates.push((name.clone(), leaf)),
                Err(error) => errors.push(error),
            }
        }
        let needed = needs_development(site, settings.names, settings.on_demand);
        let development = needed.then(|| super::sign(site, development, now)).transpose();
        match development {
            Ok(development) if errors.is_empty() => {
                let (exact, wildcard) = positions(&certificates);
                let on_demand = settings.on_demand.to_vec();
                Ok(Self { certificates, exact, wildcard, on_demand, development })
            }
            Ok(_) => Err(errors),
            Err(error) => {
                errors.push(error);
                Err(errors)
            }
        }
    }

    /// Every name with what has been issued for it.
    pub fn certificates(&self) -> &[(Arc<str>, Option<Leaf>)] {
        &self.certificates
    }

    /// When the first of its certificates ends; without any, when its development certificate does.
    pub fn expires(&self) -> Option<Timestamp> {
        let issued = self.certificates.iter().filter_map(|(_, leaf)| Some(leaf.as_ref()?.expires)).min();
        issued.or_else(|| Some(self.development.as_ref()?.own().expires))
    }

    /// The certificate for a name of this site, or for none. A name that may be had on demand is noted.
    pub fn choose(
        &self,
        name: Option<&str>,
        hosts: &[HostPattern],
        wanted: &Wanted,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<Arc<CertifiedKey>> {
        let mut any = self.certificates.iter().filter_map(|(_, leaf)| leaf.as_ref());
        let chosen = match name {
            Some(name) => self.issued_for(name),
            None => any.next(),
        };
        if let Some(leaf) = chosen {
            return Some(leaf.key.clone());
        }
        if let Some(name) = name
            && self.on_demand.iter().any(|pattern| matches(pattern, name))
        {
            wanted.note(name);
        }
        match &self.development {
            Some(development) => Some(development.choose(name, hosts, now())),
            None => any.next().map(|leaf| leaf.key.clone()),
        }
    }

    fn issued_for(&self, name: &str) -> Option<&Leaf> {
        let issued = |position: &usize| self.certificates.get(*position)?.1.as_ref();
        let wildcard = || self.wildcard.get(name.split_once('.')?.1).and_then(issued);
        self.exact.get(name).and_then(issued).or_else(wildcard)
    }
}

type Positions = HashMap<Arc<str>, usize>;

/// A name that has a certificate goes before the same one without.
fn positions(certificates: &[(Arc<str>, Option<Leaf>)]) -> (Positions, Positions) {
    let (mut exact, mut wildcard) = (Positions::new(), Positions::new());
    for (position, (name, leaf)) in certificates.iter().enumerate() {
        let (table, key) = match name.strip_prefix("*.") {
            Some(parent) => (&mut wildcard, Arc::from(parent)),
            None => (&mut exact, name.clone()),
        };
        if leaf.is_some() {
            table.entry(key).or_insert(position);
        }
    }
    (exact, wildcard)
}

fn matches(pattern: &HostPattern, name: &str) -> bool {
    match pattern {
        HostPattern::Exact(host) => **host == *name,
        HostPattern::Suffix(parent) => {
            name.strip_suffix(&**parent).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        }
        HostPattern::Any => true,
    }
}
