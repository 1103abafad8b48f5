//! Counters of one site and of its origins: arrays of atomics, one copy per edge thread where every request counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use base::event::{Fault, RequestEvent};

use super::OTHER;
use super::labels::{
    Failures, INCOMPLETE, MAX_FAILURES, OriginConnection, OriginResult, PROTOCOLS, Retry, STATUS_SLOTS, Wait,
    incomplete_slot, protocol_slot, status_slot,
};

/// Origins of one site with a label of their own; those beyond it share the label `other`.
pub const MAX_ORIGINS_PER_SITE: usize = 64;

/// Upper bounds of the request duration histogram, in microseconds: 0.5 ms to 60 s.
pub(super) const BUCKETS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// The same in seconds, as label values.
pub(super) const BUCKET_LABELS: [&str; 16] = [
    "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5",
    "10", "30", "60",
];
/// Buckets, and one for everything slower.
pub(super) const BUCKET_SLOTS: usize = BUCKETS_US.len() + 1;

/// A fixed row of counters. A place that does not exist is not counted; it cannot be reached with the indices used here.
#[derive(Debug)]
pub(super) struct Counters<const N: usize>([AtomicU64; N]);

impl<const N: usize> Counters<N> {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }

    pub(super) fn add(&self, index: usize, amount: u64) {
        if let Some(counter) = self.0.get(index) {
            counter.fetch_add(amount, Relaxed);
        }
    }

    pub(super) fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |counter| counter.load(Relaxed))
    }

    pub(super) fn clear(&self) {
        self.0.iter().for_each(|counter| counter.store(0, Relaxed));
    }

    fn absorb(&self, other: &Self) {
        for (ours, theirs) in self.0.iter().zip(&other.0) {
            ours.fetch_add(theirs.load(Relaxed), Relaxed);
        }
    }
}

/// What one thread counts for one site; aligned so that no two threads write to the same cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct SiteShard {
    requests: [Counters<STATUS_SLOTS>; PROTOCOLS.len()],
    durations: Counters<BUCKET_SLOTS>,
    duration_us: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl SiteShard {
    fn new() -> Self {
        Self {
            requests: [const { Counters::new() }; PROTOCOLS.len()],
            durations: Counters::new(),
            duration_us: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }
}

/// A site's counters; they live as long as the process, or until the site is gone and its place is needed.
#[derive(Debug)]
pub(super) struct SiteCore {
    failures_seen: Arc<Failures>,
    shards: Box<[SiteShard]>,
    // Rare enough that threads may share them.
    failures: Counters<MAX_FAILURES>,
    retries: Counters<{ Retry::ALL.len() }>,
    waits: Counters<{ Wait::ALL.len() }>,
    waiting: AtomicU64,
    incomplete: Counters<{ INCOMPLETE.len() }>,
    origins: Mutex<BTreeMap<Arc<str>, Arc<OriginCore>>>,
}

/// An origin's counters.
#[derive(Debug)]
pub(super) struct OriginCore {
    label: Arc<str>,
    shards: Box<[OriginShard]>,
}

/// Exactly one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct OriginShard {
    requests: Counters<{ OriginResult::ALL.len() }>,
    connections: Counters<{ OriginConnection::ALL.len() }>,
}

/// Sums of a site, read once per scrape.
pub(super) struct SiteTotals {
    pub(super) requests: [[u64; STATUS_SLOTS]; PROTOCOLS.len()],
    pub(super) durations: [u64; BUCKET_SLOTS],
    pub(super) duration_us: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Requests that an origin was asked, and how many of those exchanges failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTotals {
    /// The origin's label; `other` when the site has more than `MAX_ORIGINS_PER_SITE`.
    pub origin: Arc<str>,
    /// Attempts made since the process started.
    pub requests: u64,
    /// Attempts for which `OriginResult::is_failure` holds.
    pub failures: u64,
}

impl SiteCore {
    pub(super) fn new(shards: usize, failures_seen: Arc<Failures>) -> Self {
        Self {
            failures_seen,
            shards: (0..shards).map(|_| SiteShard::new()).collect(),
            failures: Counters::new(),
            retries: Counters::new(),
            waits: Counters::new(),
            waiting: AtomicU64::new(0),
            incomplete: Counters::new(),
            origins: Mutex::default(),
        }
    }

    /// The counters of an origin, made on first sight; `other` once there are too many.
    pub(super) fn origin(&self, label: &Arc<str>) -> Arc<OriginCore> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = origins.get(label) {
            return known.clone();
        }
        if origins.len() >= MAX_ORIGINS_PER_SITE {
            // Only those that no generation uses any more can go.
            let gone: Vec<_> = origins.extract_if(.., |_, core| Arc::strong_count(core) == 1).collect();
            if !gone.is_empty() {
                let other =
                    origins.entry(OTHER.into()).or_insert_with(|| Arc::new(self.new_origin(OTHER.into())));
                gone.iter().for_each(|(_, core)| other.absorb(core));
            }
        }
        let label = if origins.len() < MAX_ORIGINS_PER_SITE { label.clone() } else { OTHER.into() };
        let core = origins.entry(label.clone()).or_insert_with(|| Arc::new(self.new_origin(label)));
        core.clone()
    }

    fn new_origin(&self, label: Arc<str>) -> OriginCore {
        OriginCore { label, shards: self.shards.iter().map(|_| OriginShard::new()).collect() }
    }

    pub(super) fn origins(&self) -> Vec<Arc<OriginCore>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn totals(&self) -> SiteTotals {
        let sum = |read: &dyn Fn(&SiteShard) -> u64| self.shards.iter().map(read).fold(0, u64::wrapping_add);
        SiteTotals {
            requests: std::array::from_fn(|protocol| {
                std::array::from_fn(|slot| {
                    sum(&|shard| shard.requests.get(protocol).map_or(0, |row| row.get(slot)))
                })
            }),
            durations: std::array::from_fn(|bucket| sum(&|shard| shard.durations.get(bucket))),
            duration_us: sum(&|shard| shard.duration_us.load(Relaxed)),
            bytes_in: sum(&|shard| shard.bytes_in.load(Relaxed)),
            bytes_out: sum(&|shard| shard.bytes_out.load(Relaxed)),
        }
    }

    pub(super) fn requests(&self) -> u64 {
        self.totals().requests.iter().flatten().sum()
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (Fault, &'static str, u64)> {
        (0..MAX_FAILURES).filter_map(|index| {
            let (fault, reason) = self.failures_seen.label(index)?;
            Some((fault, reason, self.failures.get(index))).filter(|(_, _, count)| *count > 0)
        })
    }

    pub(super) fn retries(&self, retry: Retry) -> u64 {
        self.retries.get(retry.index())
    }

    pub(super) fn waits(&self, wait: Wait) -> u64 {
        self.waits.get(wait.index())
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    pub(super) fn incomplete(&self, slot: usize) -> u64 {
        self.incomplete.get(slot)
    }

    /// Adds the counts of a site that is gone, so that sums over all sites never shrink.
    pub(super) fn absorb(&self, gone: &Self) {
        for (ours, theirs) in self.shards.iter().zip(&gone.shards) {
            for (row, other) in ours.requests.iter().zip(&theirs.requests) {
                row.absorb(other);
            }
            ours.durations.absorb(&theirs.durations);
            for (counter, other) in [
                (&ours.duration_us, &theirs.duration_us),
                (&ours.bytes_in, &theirs.bytes_in),
                (&ours.bytes_out, &theirs.bytes_out),
            ] {
                counter.fetch_add(other.load(Relaxed), Relaxed);
            }
        }
        self.failures.absorb(&gone.failures);
        self.retries.absorb(&gone.retries);
        self.waits.absorb(&gone.waits);
        self.incomplete.absorb(&gone.incomplete);
        let other = self.origin(&OTHER.into());
        gone.origins().iter().for_each(|origin| other.absorb(origin));
    }
}

impl OriginShard {
    fn new() -> Self {
        Self { requests: Counters::new(), connections: Counters::new() }
    }
}

impl OriginCore {
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn requests(&self, result: OriginResult) -> u64 {
        self.shards.iter().map(|shard| shard.requests.get(result.index())).sum()
    }

    pub(super) fn connections(&self, origin: OriginConnection) -> u64 {
        self.shards.iter().map(|shard| shard.connections.get(origin.index())).sum()
    }

    fn absorb(&self, gone: &Self) {
        for (ours, theirs) in self.shards.iter().zip(&gone.shards) {
            ours.requests.absorb(&theirs.requests);
            ours.connections.absorb(&theirs.connections);
        }
    }

    fn totals(&self) -> OriginTotals {
        let count = |wanted: &dyn Fn(OriginResult) -> bool| {
            OriginResult::ALL
                .iter()
                .filter(|result| wanted(**result))
                .map(|result| self.requests(*result))
                .sum()
        };
        OriginTotals {
            origin: self.label.clone(),
            requests: count(&|_| true),
            failures: count(&OriginResult::is_failure),
        }
    }
}

/// Keeps a request in the gauge of those that wait for a connection to an origin.
#[derive(Debug)]
#[must_use = "the request counts as one that left when this is dropped"]
pub struct Waiting {
    core: Arc<SiteCore>,
    outcome: Wait,
}

impl Waiting {
    /// How it ended.
    pub fn ended(mut self, outcome: Wait) {
        self.outcome = outcome;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.core.waiting.fetch_sub(1, Relaxed);
        self.core.waits.add(self.outcome.index(), 1);
    }
}

/// A generation's hold on the counters of one site. Recording takes no lock and looks up no string.
///
/// `thread` is `Shard::index` of the calling edge thread; a wrong one costs speed, not counts.
#[derive(Debug)]
pub struct SiteMetrics {
    core: Arc<SiteCore>,
    origins: Box<[Arc<OriginCore>]>,
}

impl SiteMetrics {
    pub(super) fn new(core: Arc<SiteCore>, origins: &[Arc<str>]) -> Self {
        let origins = origins.iter().map(|label| core.origin(label)).collect();
        Self { core, origins }
    }

    /// Counts a finished request. Every request counts once, whatever `weight` its event carries into the log.
    pub fn finish(&self, thread: usize, event: &RequestEvent) {
        let Some(shard) = self.core.shards.get(thread & (self.core.shards.len() - 1)) else { return };
        if let Some(row) = shard.requests.get(protocol_slot(event.protocol)) {
            row.add(status_slot(event.status), 1);
        }
        // How long a tunnel stays open says nothing about how fast the site answers.
        if event.status != 101 && &*event.method != "CONNECT" {
            shard.durations.add(BUCKETS_US.partition_point(|&bound| bound < event.duration_us), 1);
            shard.duration_us.fetch_add(event.duration_us, Relaxed);
        }
        if event.bytes_in > 0 {
            shard.bytes_in.fetch_add(event.bytes_in, Relaxed);
        }
        shard.bytes_out.fetch_add(event.bytes_out, Relaxed);
        if let Some(fault) = event.fault {
            self.core
                .failures
                .add(self.core.failures_seen.index(fault, event.reason.unwrap_or("unknown")), 1);
        }
        if let Some(slot) = incomplete_slot(event.completion) {
            self.core.incomplete.add(slot, 1);
        }
    }

    /// Counts an attempt at the origin at this position of the list given to `Metrics::site`.
    pub fn origin_request(&self, thread: usize, origin: usize, result: OriginResult) {
        if let Some(shard) = self.origin_shard(thread, origin) {
            shard.requests.add(result.index(), 1);
        }
    }

    /// Counts where the connection for an attempt came from.
    pub fn origin_connection(&self, thread: usize, origin: usize, connection: OriginConnection) {
        if let Some(shard) = self.origin_shard(thread, origin) {
            shard.connections.add(connection.index(), 1);
        }
    }

    /// Counts a retry made, or one that the budget did not allow.
    pub fn retry(&self, retry: Retry) {
        self.core.retries.add(retry.index(), 1);
    }

    /// A request begins to wait for a connection to an origin; it does until the guard is dropped.
    pub fn wait(&self) -> Waiting {
        self.core.waiting.fetch_add(1, Relaxed);
        Waiting { core: self.core.clone(), outcome: Wait::Left }
    }

    /// Requests of this site finished since the process started.
    pub fn requests(&self) -> u64 {
        self.core.requests()
    }

    /// Totals of the origins, in the order given to `Metrics::site`.
    pub fn origins(&self) -> Vec<OriginTotals> {
        self.origins.iter().map(|origin| origin.totals()).collect()
    }

    fn origin_shard(&self, thread: usize, origin: usize) -> Option<&OriginShard> {
        let shards = &self.origins.get(origin)?.shards;
        shards.get(thread & (shards.len() - 1))
    }
}
