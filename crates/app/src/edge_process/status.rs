//! What this process tells of itself to `rempart status` and `rempart certs`.

use std::time::Instant;

use api::admin::{EdgeStatus, OriginStatus, SiteStatus};
use edge::generation::{Generation, SiteRuntime};

use super::EdgeProcess;
use crate::builder::{now, rfc3339};

impl EdgeProcess {
    pub(super) fn status(&self) -> EdgeStatus {
        let parts = self.lock();
        let generation = parts.in_force.as_ref().map(|ready| ready.generation.clone());
        let metrics = parts.ops.as_ref().map(|ops| ops.address().to_string());
        let log = parts.access_log.clone();
        drop(parts);
        let totals = self.metrics.totals();
        let mut warnings = Vec::new();
        if let Some(log) = log {
            warnings.extend(log.counts().problem().map(|problem| format!("access log: {problem}")));
            for (reason, lines) in log.counts().dropped() {
                if lines > 0 {
                    warnings.push(format!("access log: {lines} lines dropped ({reason})"));
                }
            }
        }
        warnings.extend(self.metrics.pressure().warnings());
        let (mut sites, mut certificates) = (Vec::new(), Vec::new());
        if let Some(generation) = &generation {
            let found = generation.certificates.warnings_at(now());
            warnings.extend(found.into_iter().map(|warning| warning.message));
            sites = generation.sites.iter().map(|site| site_status(site, generation)).collect();
            certificates = generation.certificates.statuses(now());
        }
        let (requests, connections) = (totals.requests, totals.connections);
        let held = self.builder.loader.artefacts().manifests();
        let artefacts = held.into_iter().map(|manifest| (manifest.name, manifest.content)).collect();
        let modules = self.module_status();
        EdgeStatus { warnings, metrics, sites, certificates, requests, connections, modules, artefacts }
    }
}

fn site_status(site: &SiteRuntime, generation: &Generation) -> SiteStatus {
    let at = Instant::now();
    let totals = site.metrics.origins();
    SiteStatus {
        name: site.site.name.to_string(),
        hosts: site.site.hosts.iter().map(ToString::to_string).collect(),
        origins: site
            .origins
            .iter()
            .zip(totals)
            .map(|(origin, totals)| OriginStatus {
                origin: origin.origin.label.to_string(),
                healthy: !site.health.is_ejected(origin.index, at),
                requests: totals.requests,
                failures: totals.failures,
            })
            .collect(),
        certificate_expires: generation.certificates.expiry(site.site.index).map(rfc3339),
    }
}
