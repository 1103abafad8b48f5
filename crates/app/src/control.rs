//! The one place where generations come into force: at start, on reload, and when a certificate file changes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::admin::{
    GenerationSource, ListenerStatus, OriginStatus, Refusal, ReloadOutcome, SiteStatus, Status,
};
use api::diagnostic::{Diagnostic, Severity};
use base::time::Timestamp;
use edge::generation::Generation;
use edge::telemetry::access_log::{AccessLog, LogCounts};
use edge::telemetry::metrics::Metrics;
use edge::telemetry::ops::{self, Health, Ops};
use edge::tls::Certificates;
use edge::{Edge, EdgeOptions};
use snapshot::Mode;

use crate::builder::{Builder, Built, cannot_start, diagnose, now, rfc3339};
use crate::sources;
use crate::state::{Sources, StateFolder, Stored};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file, read again on every reload.
    File(PathBuf),
    /// Text made from the command line or by the demo; it has no file to change.
    Text {
        /// The configuration.
        text: Arc<[u8]>,
        /// Which of the two.
        source: GenerationSource,
    },
}

impl Origin {
    fn source(&self) -> GenerationSource {
        match self {
            Self::File(_) => GenerationSource::Config,
            Self::Text { source, .. } => *source,
        }
    }

    /// The name used in diagnostics.
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { .. } => COMMAND_LINE.to_owned(),
        }
    }
}

/// A running Rempart, as seen by whoever controls it.
pub struct Controller {
    origin: Origin,
    state: StateFolder,
    builder: Builder,
    access_log: Arc<AccessLog>,
    /// What `/health/ready` answers.
    pub health: Arc<Health>,
    started: Instant,
    /// The metrics listener.
    ops: Mutex<Option<(SocketAddr, Ops)>>,
    /// The edge; taken out when the process drains.
    edge: Mutex<Option<Edge>>,
    active: Mutex<Active>,
}

/// What is in force.
struct Active {
    sources: Sources,
    source: GenerationSource,
    since: Timestamp,
    highest: u64,
    refused: Option<Refusal>,
    warnings: Vec<Diagnostic>,
}

/// Name of a configuration that came from options.
const COMMAND_LINE: &str = "command line";
/// Warnings about what should have followed a change and did not; a reload tries again.
const NOT_KEPT: &str = "not-kept";
const METRICS_NOT_SERVED: &str = "metrics-not-served";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why nothing could be started.
pub struct StartError(pub Vec<Diagnostic>);

impl Controller {
    /// Starts the edge with the configuration, or with the last good generation when that cannot be used.
    pub fn start(origin: Origin, state: StateFolder) -> anyhow::Result<Result<Self, StartError>> {
        let counts = Arc::new(LogCounts::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let metrics = Arc::new(Metrics::new(cores, counts.clone()));
        let builder = Builder::new(metrics.clone(), Some(state.authority()))?;
        let highest = state.highest();

        let read = read_sources(&origin);
        let attempt = read.and_then(|sources| {
            let built = builder.build(&sources, highest + 1, Mode::Fresh)?;
            let started = start_edge(built, metrics.clone(), counts.clone(), cores)?;
            Ok((sources, highest + 1, started))
        });
        let (refused, sources, number, started, source) = match attempt {
            Ok((sources, number, started)) => (None, sources, number, started, origin.source()),
            Err(diagnostics) => {
                let refusal = Refusal { at: rfc3339(now()), diagnostics: diagnostics.clone() };
                let fallback = match origin {
                    Origin::File(_) => last_good(&state, &builder, &metrics, &counts, cores),
                    Origin::Text { .. } => None,
                };
                let Some((stored, started)) = fallback else { return Ok(Err(StartError(diagnostics))) };
                (Some(refusal), stored.sources, stored.number, started, GenerationSource::LastGood)
            }
        };
        let controller = Self {
            origin,
            state,
            builder,
            access_log: started.access_log,
            health: Arc::new(Health::default()),
            started: Instant::now(),
            ops: Mutex::default(),
            edge: Mutex::new(Some(started.edge)),
            active: Mutex::new(Active {
                sources,
                source,
                since: now(),
                highest: highest.max(number),
                refused,
                warnings: started.warnings,
            }),
        };
        if let Some(generation) = controller.current() {
            controller.came_into_force(
                &mut controller.lock_active(),
                &generation,
                source != GenerationSource::LastGood,
            );
        }
        Ok(Ok(controller))
    }

    fn lock_active(&self) -> MutexGuard<'_, Active> {
        lock(&self.active)
    }

    /// Keeps what is now in force on disk and tells metrics and health. What fails here costs a warning, not the change.
    fn came_into_force(&self, active: &mut Active, generation: &Generation, keep: bool) {
        if keep && let Err(error) = self.state.keep(generation.number, &active.sources) {
            tracing::error!(%error, "the generation is in force but could not be kept on disk");
            active.warnings.push(warning(
                NOT_KEPT,
                format!("the generation in force could not be kept on disk: {error}"),
                "make room in the state folder, then run `rempart reload`",
            ));
        }
        if let Err(error) = self.serve_metrics(generation) {
            tracing::error!(%error, "metrics are not served");
            active.warnings.push(warning(
                METRICS_NOT_SERVED,
                format!("metrics are not served: {error:#}"),
                "choose another port for [metrics] listen, or \"off\"",
            ));
        }
        self.health.activate(generation.number);
        let metrics = &self.builder.loader.metrics;
        metrics.set_generation(generation.number, generation.snapshot.id);
        metrics.reload_finished(active.refused.is_none(), now());
        let expiries = generation.sites.iter().filter_map(|site| {
            Some((site.site.name.clone(), generation.certificates.expiry(site.site.index)?))
        });
        metrics.set_certificates(expiries);
    }

    /// Reads the configuration again and puts it in force if it is good; else everything stays as it is.
    pub fn reload(&self) -> ReloadOutcome {
        self.change(|_| (read_sources(&self.origin), self.origin.source()))
    }

    /// Opens, moves or closes the metrics listener.
    fn serve_metrics(&self, generation: &Generation) -> anyhow::Result<()> {
        let mut running = lock(&self.ops);
        let wanted = generation.snapshot.metrics;
        if running.as_ref().map(|(configured, _)| *configured) == wanted {
            return Ok(());
        }
        *running = None;
        if let Some(address) = wanted {
            let listener = std::net::TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address}"))?;
            *running = Some((address, ops::serve(listener, self.metrics(), self.health.clone())?));
        }
        Ok(())
    }

    /// Takes changed certificate files into the configuration in force, whatever the configuration file says meanwhile.
    pub fn refresh_files(&self) -> ReloadOutcome {
        self.change(|active| {
            (Ok(sources::gather(&active.sources.file, active.sources.text.clone())), active.source)
        })
    }

    /// One change at a time, reading included: what was read before another change must not undo it.
    fn change(
        &self,
        read: impl FnOnce(&Active) -> (Result<Sources, Vec<Diagnostic>>, GenerationSource),
    ) -> ReloadOutcome {
        let mut active = self.lock_active();
        let edge = lock(&self.edge);
        let Some(edge) = &*edge else {
            return outcome(false, false, None, vec![draining()]);
        };
        let number = active.highest + 1;
        let (sources, source) = read(&active);
        let built = sources.and_then(|sources| {
            let built = self.builder.build(&sources, number, Mode::Fresh)?;
            Ok((sources, built))
        });
        let current = edge.current();
        let (sources, built) = match built {
            Ok(built) => built,
            Err(diagnostics) => return self.refuse(active, &current, diagnostics),
        };
        let Built { generation, warnings, compiled, places } = built;
        if compiled.id == current.snapshot.id && active.source == source {
            let before = std::mem::replace(&mut active.warnings, warnings);
            active.refused = None;
            // A comment may have changed: this text is the one to compare the file with.
            active.sources = sources;
            // What did not work when this generation came into force is tried again.
            let unfinished = before.iter().any(|found| matches!(&*found.code, NOT_KEPT | METRICS_NOT_SERVED));
            if unfinished {
                self.came_into_force(&mut active, &current, true);
            }
            self.builder.loader.metrics.reload_finished(true, now());
            return outcome(true, false, Some(&current), active.warnings.clone());
        }
        if let Err(errors) = edge.activate(generation) {
            let errors = errors.iter().map(|error| diagnose(error, Severity::Error, &places)).collect();
            return self.refuse(active, &current, errors);
        }
        self.access_log.reconfigure(&compiled.access_log);
        let (refused, highest, since) = (None, number, now());
        *active = Active { sources, source, since, highest, refused, warnings };
        let current = edge.current();
        tracing::info!(generation = current.number, id = %compiled.id.short(), "a new generation is in force");
        self.came_into_force(&mut active, &current, true);
        outcome(true, true, Some(&current), active.warnings.clone())
    }

    fn refuse(
        &self,
        mut active: MutexGuard<'_, Active>,
        current: &Generation,
        diagnostics: Vec<Diagnostic>,
    ) -> ReloadOutcome {
        for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error) {
            let place = diagnostic.location.as_ref().map(|place| format!("{}:{}", place.file, place.line));
            tracing::error!(code = diagnostic.code, place, "configuration refused: {}", diagnostic.message);
        }
        active.refused = Some(Refusal { at: rfc3339(now()), diagnostics: diagnostics.clone() });
        self.builder.loader.metrics.reload_finished(false, now());
        outcome(false, false, Some(current), diagnostics)
    }

    /// The generation in force; `None` while the process ends.
    pub fn current(&self) -> Option<Arc<Generation>> {
        lock(&self.edge).as_ref().map(Edge::current)
    }

    /// Fingerprints of the files that the generation in force refers to.
    pub fn watched(&self) -> Vec<sources::Fingerprint> {
        sources::fingerprints(&self.lock_active().sources)
    }

    /// Counters, for the metrics listener.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.builder.loader.metrics.clone()
    }

    /// State for `rempart status`.
    pub fn status(&self) -> Option<Status> {
        let generation = self.current()?;
        let listeners = lock(&self.edge).as_ref().map(Edge::listeners)?;
        let active = self.lock_active();
        let totals = self.builder.loader.metrics.totals();
        Some(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            number: generation.number,
            generation: generation.snapshot.id.to_string(),
            active_since: rfc3339(active.since),
            source: active.source,
            config: match &self.origin {
                Origin::File(path) => Some(path.display().to_string()),
                Origin::Text { .. } => None,
            },
            refused: active.refused.clone(),
            warnings: self.warnings(&active),
            listeners: listeners
                .into_iter()
                .map(|listener| ListenerStatus {
                    configured: listener.configured.to_string(),
                    address: listener.address.to_string(),
                    tls: listener.tls,
                })
                .collect(),
            metrics: lock(&self.ops).as_ref().map(|(_, ops)| ops.address().to_string()),
            sites: generation.sites.iter().map(|site| site_status(site, &generation.certificates)).collect(),
            requests: totals.requests,
            connections: totals.connections,
        })
    }

    fn warnings(&self, active: &Active) -> Vec<String> {
        let mut warnings: Vec<String> = active.warnings.iter().map(|found| found.message.clone()).collect();
        if active.source == GenerationSource::LastGood {
            warnings
                .push("the last good generation is served, because the configuration was refused".to_owned());
        }
        if let Origin::File(path) = &self.origin {
            match sources::read_config(path) {
                Err(reason) => warnings.push(format!("{} cannot be read now: {reason}", path.display())),
                Ok(text) if text != active.sources.text && active.refused.is_none() => warnings.push(format!(
                    "{} has changed since it was read; `rempart check` shows the difference, `rempart reload` applies it",
                    path.display()
                )),
                Ok(_) => {}
            }
        }
        let counts = self.access_log.counts();
        warnings.extend(counts.problem().map(|problem| format!("access log: {problem}")));
        for (reason, lines) in counts.dropped() {
            if lines > 0 {
                warnings.push(format!("access log: {lines} lines dropped ({reason})"));
            }
        }
        warnings
    }

    /// The generation in force as sorted lines, for `rempart check`.
    pub fn outline(&self) -> Option<(String, Vec<String>)> {
        let generation = self.current()?;
        Some((generation.snapshot.id.to_string(), snapshot::outline::outline(&generation.snapshot)))
    }

    /// Lets requests finish and ends the edge.
    pub fn drain(&self, limit: Duration) {
        self.health.drain();
        let edge = lock(&self.edge).take();
        if let Some(edge) = edge
            && !edge.drain(limit)
        {
            tracing::warn!("some requests were still running at the end of the drain time");
        }
        self.access_log.shutdown(Duration::from_secs(5));
    }
}

fn read_sources(origin: &Origin) -> Result<Sources, Vec<Diagnostic>> {
    let name = origin.name();
    match origin {
        Origin::Text { text, .. } => Ok(sources::gather(&name, text.clone())),
        Origin::File(path) => match sources::read_config(path) {
            Ok(text) => Ok(sources::gather(&name, text)),
            Err(reason) => Err(vec![snapshot::unreadable(&name, &reason)]),
        },
    }
}

/// Sources of a configuration file, for `rempart check`.
pub fn read_file(path: &Path) -> Result<Sources, Vec<Diagnostic>> {
    read_sources(&Origin::File(path.to_owned()))
}

struct Started {
    edge: Edge,
    access_log: Arc<AccessLog>,
    warnings: Vec<Diagnostic>,
}

fn start_edge(
    built: Built,
    metrics: Arc<Metrics>,
    counts: Arc<LogCounts>,
    cores: usize,
) -> Result<Started, Vec<Diagnostic>> {
    let Built { generation, warnings, compiled, places } = built;
    let plain = |error: anyhow::Error| vec![cannot_start(&error)];
    let access_log = AccessLog::start(&compiled.access_log, counts).map_err(|error| plain(error.into()))?;
    let access_log = Arc::new(access_log);
    let seed = getrandom::u64()
        .map_err(|error| plain(anyhow::anyhow!("this machine has no randomness: {error}")))?;
    let threads = compiled.limits.threads.unwrap_or(cores);
    let options = EdgeOptions { threads, seed, metrics, access_log: access_log.clone() };
    match Edge::start(options, generation) {
        Ok(edge) => Ok(Started { edge, access_log, warnings }),
        Err(errors) => Err(errors.iter().map(|error| diagnose(error, Severity::Error, &places)).collect()),
    }
}

/// The newest stored generation that still runs.
fn last_good(
    state: &StateFolder,
    builder: &Builder,
    metrics: &Arc<Metrics>,
    counts: &Arc<LogCounts>,
    cores: usize,
) -> Option<(Stored, Started)> {
    // What was once made from options is nothing a file can fall back to.
    for stored in state.stored().into_iter().filter(|stored| stored.sources.file != COMMAND_LINE) {
        let started = builder
            .build(&stored.sources, stored.number, Mode::Stored)
            .and_then(|built| start_edge(built, metrics.clone(), counts.clone(), cores));
        match started {
            Ok(started) => return Some((stored, started)),
            Err(found) => {
                let first = found.first().map(|diagnostic| diagnostic.message.as_str()).unwrap_or_default();
                tracing::warn!(number = stored.number, "a stored generation cannot run: {first}");
            }
        }
    }
    None
}

fn warning(code: &str, message: String, hint: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: code.to_owned(),
        message,
        location: None,
        hint: Some(hint.to_owned()),
    }
}

fn draining() -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "draining".to_owned(),
        message: "Rempart is ending and takes no new configuration".to_owned(),
        location: None,
        hint: Some("start it again".to_owned()),
    }
}

fn outcome(
    active: bool,
    changed: bool,
    current: Option<&Generation>,
    diagnostics: Vec<Diagnostic>,
) -> ReloadOutcome {
    ReloadOutcome {
        active,
        changed,
        number: current.map_or(0, |generation| generation.number),
        generation: current.map(|generation| generation.snapshot.id.to_string()).unwrap_or_default(),
        diagnostics,
    }
}

fn site_status(site: &edge::generation::SiteRuntime, certificates: &Certificates) -> SiteStatus {
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
        certificate_expires: certificates.expiry(site.site.index).map(rfc3339),
    }
}
