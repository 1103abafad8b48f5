//! What a process that has loaded a generation tells the supervisor about it.

use std::time::Duration;

use api::diagnostic::Diagnostic;
use api::process::{DrainLimits, Loaded, WantedListener, Watched};
use snapshot::generation::Snapshot;

use super::roles;
use crate::package::Sources;
use crate::sources;

/// Edge threads of a generation.
pub(super) fn threads(compiled: &Snapshot) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    compiled.limits.threads.unwrap_or(cores)
}

/// Everything a supervisor has to know of a generation.
pub(super) fn describe(
    number: u64,
    compiled: &Snapshot,
    sources: &Sources,
    places: &snapshot::Places,
    watched: Vec<Watched>,
    diagnostics: Vec<Diagnostic>,
) -> Loaded {
    let milliseconds = |period: Duration| u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    let wanted = |listener: &snapshot::generation::Listener| WantedListener {
        address: listener.address,
        tls: listener.tls,
        proxy_protocol: listener.proxy_protocol,
        location: Some(places.locate(&listener.place)),
    };
    Loaded {
        number,
        id: compiled.id.to_string(),
        file: sources.file.clone(),
        text_hash: blake3::hash(&sources.text).to_string(),
        listeners: compiled.listeners.iter().map(wanted).collect(),
        metrics: compiled.metrics,
        watched,
        standby: compiled.standby,
        bake_ms: milliseconds(compiled.bake),
        drain: DrainLimits {
            idle_ms: milliseconds(compiled.drain.idle),
            requests_ms: milliseconds(compiled.drain.requests),
            tunnels_ms: milliseconds(compiled.drain.tunnels),
        },
        acme: compiled.acme.as_ref().map(|acme| sources::acme_settings(acme, &sources.file)),
        roles: roles::wanted(compiled, &sources.file),
        threads: threads(compiled),
        diagnostics,
    }
}
