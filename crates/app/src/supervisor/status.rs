//! What `rempart status` and `rempart certs` are told: what the supervisor knows, and what the edge says of itself.

use std::sync::Arc;
use std::time::Duration;

use api::admin::{EdgeStatus, GenerationSource, ListenerStatus, ProcessRole, ProcessStatus, Status};
use api::certificates::{CertificateSource, CertificateStatus};
use api::process::{Reply, Task};

use super::child::Child;
use super::{Origin, Supervisor};
use crate::builder::{now, rfc3339};
use crate::sources;

/// Time for the edge to tell of itself; the rest of the answer does not wait for it.
const EDGE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// State for `rempart status`. Answers even when no edge does.
    pub fn status(&self) -> Status {
        let edge = self.edge_status();
        let fleet = self.fleet();
        let mut warnings: Vec<String> =
            fleet.force.warnings.iter().map(|found| found.message.clone()).collect();
        warnings.extend(self.warnings_about_source(fleet.force.source));
        if fleet.refused.is_none() {
            warnings.extend(self.warning_about_file(&fleet.force.loaded.text_hash));
        }
        let EdgeStatus {
            warnings: own, metrics, sites, requests, connections, mut modules, artefacts, ..
        } = match edge {
            Ok(edge) => edge,
            Err(problem) => EdgeStatus { warnings: vec![problem], ..EdgeStatus::default() },
        };
        warnings.extend(own);
        if modules.switches.is_empty() {
            modules.switches.clone_from(&fleet.switches);
        }
        let listeners = fleet.sockets.in_force().iter().map(|listener| ListenerStatus {
            configured: listener.configured.to_string(),
            address: listener.address.to_string(),
            tls: listener.tls,
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            processes: self.processes(&fleet.processes()),
            supervision: fleet.supervision.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            number: fleet.force.loaded.number,
            generation: fleet.force.loaded.id.clone(),
            active_since: rfc3339(fleet.force.since),
            source: fleet.force.source,
            config: match &self.origin {
                Origin::File(path) => Some(path.display().to_string()),
                Origin::Text { .. } => None,
            },
            refused: fleet.refused.clone(),
            warnings,
            listeners: listeners.collect(),
            metrics,
            sites,
            requests,
            connections,
            baking: fleet.force.bake.is_some(),
            artefacts: fleet.artefacts.status(&artefacts),
            bans: fleet.bans.iter().filter(|ban| ban.until > now()).cloned().collect(),
            modules,
        }
    }

    pub fn edge_status(&self) -> Result<EdgeStatus, String> {
        let active = self.fleet().active.clone();
        let Some(active) = active else {
            return Err("no edge runs at the moment; one is being started".to_owned());
        };
        match active.ask(Task::Status, &[], EDGE) {
            Ok((Reply::Status(status), _)) => Ok(*status),
            Ok(_) => Err("the edge answered something unexpected".to_owned()),
            Err(error) => Err(format!("the edge tells nothing of itself: {error}")),
        }
    }

    fn processes(&self, children: &[(ProcessRole, Arc<Child>)]) -> Vec<ProcessStatus> {
        let own = std::process::id();
        let supervisor = ProcessStatus {
            role: ProcessRole::Supervisor,
            pid: own,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            resident_bytes: super::child::resident(own),
        };
        let others = children.iter().map(|(role, child)| ProcessStatus {
            role: *role,
            pid: child.pid,
            version: child.version.clone(),
            uptime_seconds: child.started.elapsed().as_secs(),
            resident_bytes: child.resident(),
        });
        std::iter::once(supervisor).chain(others).collect()
    }

    fn warnings_about_source(&self, source: GenerationSource) -> Option<String> {
        match source {
            GenerationSource::LastGood => Some(
                "the last good generation is served, because the configuration could not be used".to_owned(),
            ),
            GenerationSource::Defaults => Some(
                "NO GENERATION CAN BE USED: every request is answered with 503; correct the configuration and run \
                 `rempart reload`"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn warning_about_file(&self, hash: &str) -> Option<String> {
        let Origin::File(path) = &self.origin else { return None };
        match sources::read_config(path) {
            Err(reason) => Some(format!("{} cannot be read now: {reason}", path.display())),
            Ok(text) if blake3::hash(&text).to_string() != hash => Some(format!(
                "{} has changed since it was read; `rempart check` shows the difference, `rempart reload` applies it",
                path.display()
            )),
            Ok(_) => None,
        }
    }

    /// State for `rempart certs`.
    pub fn certificates(&self) -> Result<Vec<CertificateStatus>, String> {
        let mut certificates = self.edge_status()?.certificates;
        for certificate in &mut certificates {
            if certificate.source == CertificateSource::Acme
                && let Some(name) = certificate.names.first()
                && let Some(kept) = acme::read_status(self.state.path(), name)
            {
                certificate.renews = kept.renews;
                certificate.problem = kept.problem;
            }
        }
        Ok(certificates)
    }
}
