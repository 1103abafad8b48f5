//! Prometheus metrics: counters that edge threads add to without a lock, summed when somebody reads them.

mod labels;
mod process;
mod render;
mod site;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use api::process::Supervision;
use base::event::Protocol;
use base::id::ContentHash;
use base::time::Timestamp;

pub use self::labels::{
    ClientCut, ConnectionRefused, Flood, Handshake, OriginConnection, OriginResult, Retry, Wait,
};
use self::labels::{Failures, PROTOCOLS, protocol_slot};
use self::site::{Counters, SiteCore};
pub use self::site::{MAX_ORIGINS_PER_SITE, OriginTotals, SiteMetrics, Waiting};
use super::access_log::LogCounts;
use super::events::EventCounts;
use crate::modules::{MODULES, Modules, OUTCOMES};
use crate::pressure::Pressure;

/// Sites with a label of their own; those beyond it share the label `other`. Sites of older generations make room.
pub const MAX_SITES: usize = 512;
/// Copies of each site's counters; with more edge threads than that, some share a copy.
pub const MAX_SITE_SHARDS: usize = 64;
/// Per-thread shards; more threads than that share them.
pub const MAX_SHARDS: usize = 1_024;
/// Certificates with an expiry of their own in the metrics.
pub const MAX_CERTIFICATES: usize = 512;

/// Label of everything beyond a limit. A site or origin that is really called this shares its counters.
const OTHER: &str = "other";
/// Label of requests for a host that no site has.
const NO_SITE: &str = "none";

/// All metrics of the process. Made once, before the edge threads start.
#[derive(Debug)]
pub struct Metrics {
    site_shards: usize,
    failures_seen: Arc<Failures>,
    sites: Mutex<BTreeMap<Arc<str>, Arc<SiteCore>>>,
    unmatched: Arc<SiteMetrics>,
    shards: Mutex<Vec<Arc<Shard>>>,
    log: Arc<LogCounts>,
    events: Arc<EventCounts>,
    state: Mutex<State>,
    pressure: Arc<Pressure>,
    modules: OnceLock<Arc<Modules>>,
    started: Timestamp,
}

/// What changes with a reload.
#[derive(Debug, Default)]
struct State {
    generation: Option<(u64, ContentHash)>,
    reload: Option<(bool, Timestamp)>,
    supervision: Option<Supervision>,
    certificates: BTreeMap<Arc<str>, Timestamp>,
}

/// Sums for `rempart status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Requests finished since the process started, over all sites.
    pub requests: u64,
    /// Client connections open now.
    pub connections: u64,
}

/// Sums for signs of life, over all edge threads; cheap to take several times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Requests finished.
    pub requests: u64,
    /// Of those, answered by the edge with a failure for which `failure::speaks_against_us` holds.
    pub failures: u64,
    /// Connections accepted, without those refused.
    pub accepted: u64,
}

impl Metrics {
    /// For this many edge threads; `log` is what the access log counts into.
    pub fn new(threads: usize, log: Arc<LogCounts>) -> Self {
        let site_shards = threads.clamp(1, MAX_SITE_SHARDS).next_power_of_two();
        let failures_seen = Arc::new(Failures::new());
        let unmatched = Arc::new(SiteCore::new(site_shards, failures_seen.clone()));
        Self {
            site_shards,
            failures_seen,
            sites: Mutex::new(BTreeMap::from([(Arc::from(NO_SITE), unmatched.clone())])),
            unmatched: Arc::new(SiteMetrics::new(unmatched, &[])),
            shards: Mutex::default(),
            log,
            events: Arc::default(),
            state: Mutex::default(),
            pressure: Arc::default(),
            modules: OnceLock::new(),
            started: Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()),
        }
    }

    /// A shard for one edge thread, which keeps it to its end.
    pub fn register_shard(&self) -> Arc<Shard> {
        let mut shards = lock(&self.shards);
        if shards.len() < MAX_SHARDS {
            let shard = Arc::new(Shard::new(shards.len()));
            shards.push(shard.clone());
            return shard;
        }
        // Prefer a shard whose thread has ended; sharing one is right too, only slower.
        let free = shards.iter().min_by_key(|shard| Arc::strong_count(shard));
        free.cloned().unwrap_or_else(|| Arc::new(Shard::new(0)))
    }

    /// A generation's hold on a site's counters: the same counters as before if a site of that name has run already.
    /// `origins` are the labels in the order in which the generation numbers its origins.
    pub fn site(&self, name: &Arc<str>, origins: &[Arc<str>]) -> Arc<SiteMetrics> {
        Arc::new(SiteMetrics::new(self.site_core(name), origins))
    }

    /// Counters for requests whose host no site has; shown with the label `none`.
    pub fn unmatched(&self) -> &Arc<SiteMetrics> {
        &self.unmatched
    }

    /// The generation now in force.
    pub fn set_generation(&self, number: u64, id: ContentHash) {
        lock(&self.state).generation = Some((number, id));
    }

    /// A reload (or the start) has taken the configuration, or has refused it.
    pub fn reload_finished(&self, success: bool, at: Timestamp) {
        lock(&self.state).reload = Some((success, at));
    }

    /// What the supervisor has counted.
    pub fn set_supervision(&self, supervision: Supervision) {
        lock(&self.state).supervision = Some(supervision);
    }

    /// How short the process is of resources; looked at by the edge.
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }

    /// Whose modules are shown; the first ones given, as there is one loader in a process.
    pub fn show_modules(&self, modules: &Arc<Modules>) {
        self.modules.get_or_init(|| modules.clone());
    }

    /// What the access log counts into.
    pub fn log_counts(&self) -> Arc<LogCounts> {
        self.log.clone()
    }

    /// What events count into.
    pub fn event_counts(&self) -> Arc<EventCounts> {
        self.events.clone()
    }

    /// When the certificates now served end, by site; replaces what was known before.
    pub fn set_certificates(&self, expiries: impl IntoIterator<Item = (Arc<str>, Timestamp)>) {
        lock(&self.state).certificates = expiries.into_iter().take(MAX_CERTIFICATES).collect();
    }

    /// Sums for `rempart status`.
    pub fn totals(&self) -> Totals {
        let requests = self.all_sites().iter().map(|(_, core)| core.requests()).sum();
        Totals { requests, connections: self.open_connections() }
    }

    /// Sets the counts of connections and handshakes back; those open now stay counted.
    pub(crate) fn forget_connections(&self) {
        for shard in self.all_shards() {
            shard.connections.clear();
            shard.handshakes.clear();
            [&shard.requests, &shard.failures, &shard.accepted]
                .iter()
                .for_each(|count| count.store(0, Relaxed));
        }
    }

    /// Sums for signs of life.
    pub fn pulse(&self) -> Pulse {
        let shards = lock(&self.shards);
        let sum = |read: &dyn Fn(&Shard) -> &AtomicU64| {
            shards.iter().map(|shard| read(shard).load(Relaxed)).fold(0, u64::wrapping_add)
        };
        Pulse {
            requests: sum(&|shard| &shard.requests),
            failures: sum(&|shard| &shard.failures),
            accepted: sum(&|shard| &shard.accepted),
        }
    }

    /// Everything in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        render::render(self)
    }

    fn site_core(&self, name: &Arc<str>) -> Arc<SiteCore> {
        let mut sites = lock(&self.sites);
        if let Some(known) = sites.get(name) {
            return known.clone();
        }
        if sites.len() >= MAX_SITES {
            self.make_room(&mut sites);
        }
        let label = if sites.len() < MAX_SITES { name.clone() } else { OTHER.into() };
        sites.entry(label).or_insert_with(|| self.new_core()).clone()
    }

    /// Folds the counters of sites that no generation holds any more into `other`.
    fn make_room(&self, sites: &mut BTreeMap<Arc<str>, Arc<SiteCore>>) {
        let gone: Vec<_> = sites.extract_if(.., |_, core| Arc::strong_count(core) == 1).collect();
        if !gone.is_empty() {
            let other = sites.entry(OTHER.into()).or_insert_with(|| self.new_core());
            gone.iter().for_each(|(_, core)| other.absorb(core));
        }
    }

    fn new_core(&self) -> Arc<SiteCore> {
        Arc::new(SiteCore::new(self.site_shards, self.failures_seen.clone()))
    }

    fn all_sites(&self) -> Vec<(Arc<str>, Arc<SiteCore>)> {
        lock(&self.sites).iter().map(|(name, core)| (name.clone(), core.clone())).collect()
    }

    fn all_shards(&self) -> Vec<Arc<Shard>> {
        lock(&self.shards).clone()
    }

    fn open_connections(&self) -> u64 {
        let open: i64 = self.all_shards().iter().map(|shard| shard.open.load(Relaxed)).sum();
        // A connection that closes while this is being summed may be missed on one side.
        u64::try_from(open).unwrap_or(0)
    }
}

/// What one edge thread counts about connections; aligned so that threads do not share cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    index: usize,
    open: AtomicI64,
    /// By protocol, plain first and TLS second.
    connections: Counters<{ 2 * PROTOCOLS.len() }>,
    handshakes: Counters<{ Handshake::ALL.len() }>,
    /// From clients, then from origins.
    floods: [Counters<{ Flood::ALL.len() }>; 2],
    requests: AtomicU64,
    failures: AtomicU64,
    accepted: AtomicU64,
    introductions_failed: AtomicU64,
    refused: Counters<{ ConnectionRefused::ALL.len() }>,
    cut: Counters<{ ClientCut::ALL.len() }>,
    modules: [Counters<{ OUTCOMES.len() }>; MODULES],
}

impl Shard {
    fn new(index: usize) -> Self {
        Self {
            index,
            open: AtomicI64::new(0),
            connections: Counters::new(),
            handshakes: Counters::new(),
            floods: [const { Counters::new() }; 2],
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            introductions_failed: AtomicU64::new(0),
            refused: Counters::new(),
            cut: Counters::new(),
            modules: [const { Counters::new() }; MODULES],
        }
    }

    /// The number of this shard, which `SiteMetrics` takes as `thread`.
    pub fn index(&self) -> usize {
        self.index
    }

    /// A client connection has been accepted; it counts as open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        self.open.fetch_add(1, Relaxed);
        self.accepted.fetch_add(1, Relaxed);
        OpenConnection(self.clone())
    }

    /// A client connection was closed as soon as it had been accepted.
    pub fn connection_refused(&self, reason: ConnectionRefused) {
        self.refused.add(reason.index(), 1);
    }

    /// A client was too slow, or its connection had to make room.
    pub fn client_cut(&self, reason: ClientCut) {
        self.cut.add(reason.index(), 1);
    }

    /// A trusted proxy's connection was closed because it did not begin with a PROXY header as it should.
    pub fn introduction_failed(&self) {
        self.introductions_failed.fetch_add(1, Relaxed);
    }

    /// A module has been asked, with this outcome (of `modules::OUTCOMES`).
    pub fn module_said(&self, module: usize, outcome: usize) {
        if let Some(counters) = self.modules.get(module) {
            counters.add(outcome, 1);
        }
    }

    /// A request has ended; `failed` as in `Pulse::failures`.
    pub fn request_finished(&self, failed: bool) {
        self.requests.fetch_add(1, Relaxed);
        if failed {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// The protocol of a client connection is known: after ALPN, or with its first bytes.
    pub fn connection_speaks(&self, protocol: Protocol, tls: bool) {
        self.connections.add(connection_slot(protocol, tls), 1);
    }

    /// A client's HTTP/2 connection was closed because of a flood.
    pub fn client_flooded(&self, flood: Flood) {
        self.floods[0].add(flood.index(), 1);
    }

    /// An origin's HTTP/2 connection was closed because of a flood.
    pub fn origin_flooded(&self, flood: Flood) {
        self.floods[1].add(flood.index(), 1);
    }

    /// A TLS handshake with a client has ended.
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.add(outcome.index(), 1);
    }
}

/// Keeps a client connection in the gauge of open ones.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct OpenConnection(Arc<Shard>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

fn connection_slot(protocol: Protocol, tls: bool) -> usize {
    2 * protocol_slot(protocol) + usize::from(tls)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
