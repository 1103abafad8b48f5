//! Sites: names, hosts, and the limits and habits of each.

use std::collections::HashMap;
use std::sync::Arc;

use super::Judge;
use super::acme::{AcmePlan, SiteHosts};
use super::host::{self, Host};
use super::lists::Known;
use super::tls::Entrances;
use crate::desired::{self, Desired};
use crate::diagnostic::quote;
use crate::generation::{
    Acme, Compatibility, ConnectionLimits, HostPattern, HostTable, Listener, PassiveHealth, Retry, Site,
    SiteLimits,
};
use crate::rules::{Normalization, Normalize};
use crate::units::{ByteSize, OptionalSize};

/// Characters of a site's name; it is a label of every metric.
const NAME_CHARACTERS: usize = 64;

impl Judge<'_> {
    /// The sites, and what they want of certificate authorities.
    pub(super) fn sites(
        &mut self,
        desired: &Desired,
        listeners: &[Listener],
        table: &mut HostTable,
        known: Known,
    ) -> (Vec<Arc<Site>>, Option<Acme>) {
        let sites = &desired.site;
        if sites.is_empty() {
            self.review.error(
                "site",
                "no-site",
                "there is no `[[site]]`, so there is nothing to serve",
                "add: [[site]] hosts = [\"example.org\"] and [[site.origin]] url = \"http://127.0.0.1:3000\"",
            );
        }
        let mut host_places = HashMap::new();
        let mut patterns = Vec::new();
        for (index, site) in sites.iter().enumerate() {
            patterns.push(self.hosts(site, index, table, &mut host_places));
        }
        let hosts = SiteHosts { patterns: &patterns, table, places: &host_places };
        let AcmePlan { settings, sites: wanted } = self.acme(desired, &hosts, listeners);
        let entrances = Entrances::new(listeners, &desired.trust);
        let mut names: HashMap<String, String> = HashMap::new();
        let mut book = self.rule_book(desired, known);
        let mut out = Vec::new();
        // Origins are judged after all hosts are known: an origin may be one of them.
        for (((index, site), hosts), wanted) in sites.iter().enumerate().zip(patterns).zip(wanted) {
            let place = format!("site[{index}]");
            let certificate = self.certificate(site, index, &hosts, wanted, table, entrances);
            let name = self.site_name(site, &place, &hosts, &mut names);
            let rules = self.site_rules(site, &place, &name, &mut book);
            if rules.reads_body {
                self.inspected_memory(&desired.limits, site, &place);
            }
            out.push(Arc::new(Site {
                index,
                name,
                rules,
                normalize: normalize(&site.normalize),
                compatibility: match site.compatibility {
                    desired::Compatibility::Neutral => Compatibility::Neutral,
                    desired::Compatibility::Cloudflare => Compatibility::Cloudflare,
                },
                certificate,
                tls: self.site_tls(site, &place, entrances),
                origins: self.origins(&site.origin, &place, listeners, table),
                health: self.health(&site.health, &place),
                retry: Retry { attempts: site.retry.attempts, budget_percent: site.retry.budget_percent },
                limits: SiteLimits {
                    body_bytes: site.limits.body_bytes.0.map(|size| size.get()),
                    body: site.limits.body.into(),
                    body_rate: super::rate(site.limits.body_rate),
                    tunnel: site.limits.tunnel.into(),
                    inspect_body: site.limits.inspect_body.as_usize(),
                },
                policy: self.policy(site.policy.as_ref(), &place),
                hosts,
            }));
        }
        self.unused_rulesets(desired, &book);
        (out, settings)
    }

    /// Bodies that rules look into must fit into the memory there is, however many come at once.
    fn inspected_memory(&mut self, limits: &desired::Limits, site: &desired::Site, place: &str) {
        let Some(OptionalSize(Some(memory))) = limits.memory else { return };
        let inspect = site.limits.inspect_body;
        // How many threads a machine makes of a missing number is for the process that is about to serve to judge.
        let threads = limits.threads.unwrap_or(1);
        let wanted = ConnectionLimits::from(limits).inspected_bytes(threads, inspect.as_usize());
        if wanted > memory.get() {
            let wanted = ByteSize::bytes(wanted);
            let message = format!(
                "bodies that rules look into take up to {wanted} with {threads} threads and inspect_body = \"{inspect}\", \
                 which is more than limits.memory = \"{memory}\""
            );
            let hint =
                "make inspect_body, limits.threads or limits.connections smaller, or limits.memory larger";
            self.review.error(&format!("{place}.limits.inspect_body"), "inspect-memory", message, hint);
        }
    }

    fn hosts(
        &mut self,
        site: &desired::Site,
        index: usize,
        table: &mut HostTable,
        places: &mut HashMap<HostPattern, String>,
    ) -> Vec<HostPattern> {
        if site.hosts.is_empty() {
            self.review.error(
                &format!("site[{index}].hosts"),
                "no-host",
                "this site has no host",
                "write the names it is reached by: hosts = [\"example.org\"], or [\"*\"] for every one",
            );
        }
        let mut patterns = Vec::new();
        for (position, text) in site.hosts.iter().enumerate() {
            let place = format!("site[{index}].hosts[{position}]");
            let pattern = match pattern(text) {
                Ok(pattern) => pattern,
                Err(error) => {
                    self.review.error(&place, "bad-host", error.message, error.hint);
                    continue;
                }
            };
            if let Err(other) = table.insert(&pattern, index) {
                let line = places.get(&pattern).map_or(0, |place| self.review.places.line(place));
                let (whose, hint) = if other == index {
                    ("in this site", "remove it")
                } else {
                    ("by another site", "a host can belong to one site only: remove it from one of the two")
                };
                let message = format!("host {} is already used {whose}, in line {line}", quote(text));
                self.review.error(&place, "duplicate-host", message, hint);
                continue;
            }
            places.insert(pattern.clone(), place);
            patterns.push(pattern);
        }
        patterns
    }

    /// The name as configured, or the first host.
    fn site_name(
        &mut self,
        site: &desired::Site,
        place: &str,
        hosts: &[HostPattern],
        names: &mut HashMap<String, String>,
    ) -> Arc<str> {
        let name = match (&site.name, hosts.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(host)) => host.to_string(),
            // Without a host the site was refused already; its name is never seen.
            (None, None) => return "".into(),
        };
        let place = format!("{place}.name");
        let length = name.chars().count();
        if site.name.is_some() && (length == 0 || length > NAME_CHARACTERS || name.contains(char::is_control))
        {
            self.review.error(
                &place,
                "bad-name",
                format!("{} cannot be the name of a site", quote(&name)),
                format!("use 1 to {NAME_CHARACTERS} characters: name = \"shop\""),
            );
        } else if let Some(other) = names.get(&name) {
            let line = self.review.places.line(other);
            self.review.error(
                &place,
                "duplicate-site",
                format!("the site in line {line} is named {} too", quote(&name)),
                "give each site a `name` of its own: logs and metrics tell them apart by it",
            );
        } else {
            names.insert(name.clone(), place);
        }
        name.into()
    }

    fn health(&mut self, health: &desired::Health, place: &str) -> PassiveHealth {
        if health.ejection > health.max_ejection {
            let written = [format!("{place}.health.ejection"), format!("{place}.health.max_ejection")];
            let place =
                written.iter().find(|place| self.review.places.contains(place)).unwrap_or(&written[0]);
            self.review.error(
                place,
                "conflicting-limits",
                format!(
                    "an ejection of {} is longer than the longest one, {}",
                    health.ejection, health.max_ejection
                ),
                "make ejection at most as long as max_ejection",
            );
        }
        PassiveHealth {
            failures: health.failures,
            ejection: health.ejection.into(),
            max_ejection: health.max_ejection.into(),
        }
    }
}

/// Reads `example.org`, `*.example.org` and `*`.
pub(super) fn pattern(text: &str) -> Result<HostPattern, host::BadHost> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    let (suffix, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    if name.contains('*') {
        return Err(host::BadHost {
            message: format!("{} has a wildcard in the wrong place", quote(text)),
            hint: "a `*` stands alone, or in front of the first dot: \"*.example.org\"".to_owned(),
        });
    }
    match (host::parse(name)?, suffix) {
        (Host::Name(name), false) => Ok(HostPattern::Exact(name.into())),
        (Host::Name(name), true) => Ok(HostPattern::Suffix(name.into())),
        (Host::Address(address), false) => Ok(HostPattern::Exact(address.to_string().into())),
        (Host::Address(address), true) => Err(host::BadHost {
            message: format!("{} has a wildcard in front of an address", quote(text)),
            hint: format!("write {}", quote(&address.to_string())),
        }),
    }
}

fn normalize(normalize: &desired::Normalize) -> Option<Normalize> {
    let way = match normalize.way {
        desired::NormalizeType::Cloudflare => Normalization::Cloudflare,
        desired::NormalizeType::Rfc3986 => Normalization::Rfc3986,
    };
    match normalize.scope {
        desired::NormalizeScope::None => None,
        desired::NormalizeScope::Incoming => Some(Normalize { way, for_origin: false }),
        desired::NormalizeScope::Both => Some(Normalize { way, for_origin: true }),
    }
}
