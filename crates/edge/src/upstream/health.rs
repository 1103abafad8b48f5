//! Passive health: origins are set aside by what real requests experienced, process-wide and across reloads.
//!
//! ```text
//!            failures in a row                    ejection over             probe succeeds
//! in service ------------------> ejected (until) --------------> half-open ---------------> in service
//!                                   ^                               | probe fails: longer ejection
//!                                   +-------------------------------+
//! ```
//!
//! At most half of a site's origins are set aside. When every origin is failing, ejections are ignored (panic mode):
//! spreading the load over all is better than burying the last ones under it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use api::process::SetAside;
use snapshot::generation::PassiveHealth;

/// Origins of one site; `compile` has to refuse more. Any beyond are never chosen.
pub const MAX_ORIGINS: usize = 64;
/// Doublings of the ejection time that are counted; 2^16 seconds is beyond any sensible maximum.
const MAX_LEVEL: u32 = 16;

/// Origins that one process tells another about.
pub const MAX_SET_ASIDE: usize = 256;

/// What one attempt at an origin came to, as far as its health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The origin answered.
    Success,
    /// It did not, or not usefully.
    Failure(FailureKind),
}

/// How an origin failed; kept for status and metrics, all count the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// Its name did not resolve.
    Resolve = 1,
    /// No TCP connection.
    Connect,
    /// No TLS session, or the certificate was not accepted.
    Tls,
    /// A time limit ran out.
    Timeout,
    /// The connection broke before the response was complete.
    Closed,
    /// It answered something that is not HTTP.
    Protocol,
    /// It answered a status that says it cannot serve (502, 503, 504).
    Status,
}

impl FailureKind {
    const ALL: [Self; 7] =
        [Self::Resolve, Self::Connect, Self::Tls, Self::Timeout, Self::Closed, Self::Protocol, Self::Status];

    /// The name used in logs, metrics and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Status => "status",
        }
    }
}

/// Whether an origin may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Like any other.
    InService,
    /// Set aside.
    Ejected,
    /// The ejection is over and nobody has tried yet: one request may.
    HalfOpen,
    /// That one request is under way.
    Probing,
}

/// Shared health of one origin of one site. Survives reloads as long as site name and origin label stay.
#[derive(Debug, Default)]
pub struct OriginHealth {
    /// Failures since the last success.
    failures: AtomicU32,
    /// Tick at which the ejection ends; 0 is in service.
    until: AtomicU64,
    /// Whether the one probe of the half-open state is out.
    probing: AtomicBool,
    /// Requests under way.
    in_flight: AtomicU32,
    /// Doublings the next ejection begins with, before decay; written under the site's lock.
    level: AtomicU32,
    /// Tick of the last return to service, from which `level` decays.
    returned: AtomicU64,
    last_failure: AtomicU8,
    ejections: AtomicU64,
}

impl OriginHealth {
    /// Requests under way at this moment, over all threads.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How it failed last, if it ever did.
    pub fn last_failure(&self) -> Option<FailureKind> {
        let last = self.last_failure.load(Relaxed);
        FailureKind::ALL.into_iter().find(|kind| *kind as u8 == last)
    }

    /// How often it has been set aside since the process began.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    fn state(&self, tick: u64) -> State {
        match self.until.load(Relaxed) {
            0 => State::InService,
            until if tick < until => State::Ejected,
            _ if self.probing.load(Relaxed) => State::Probing,
            _ => State::HalfOpen,
        }
    }

    fn restore(&self, tick: u64) {
        self.failures.store(0, Relaxed);
        self.returned.store(tick, Relaxed);
        self.until.store(0, Relaxed);
    }
}

/// Health of all origins of a site, in the order of the generation.
#[derive(Debug)]
pub struct SiteHealth {
    labels: Box<[Arc<str>]>,
    origins: Box<[Arc<OriginHealth>]>,
    policy: PassiveHealth,
    epoch: Instant,
    /// Held while origins change state, so that two threads never set aside one too many.
    transition: Mutex<()>,
}

impl SiteHealth {
    fn new(
        labels: &[Arc<str>],
        policy: PassiveHealth,
        epoch: Instant,
        before: Option<&SiteHealth>,
        now: Instant,
    ) -> Self {
        let labels: Box<[Arc<str>]> = labels.iter().take(MAX_ORIGINS).cloned().collect();
        let mut known: Vec<(&Arc<str>, &Arc<OriginHealth>)> =
            before.map(|site| site.labels.iter().zip(&site.origins).collect()).unwrap_or_default();
        // Each is taken once, so the same label twice in a site stays two origins.
        let origins = labels.iter().map(|label| {
            let position = known.iter().position(|(other, _)| *other == label);
            position.map_or_else(Arc::default, |position| known.remove(position).1.clone())
        });
        let site = Self { origins: origins.collect(), labels, policy, epoch, transition: Mutex::new(()) };
        site.return_surplus(now);
        site
    }

    /// Number of origins, at most `MAX_ORIGINS`.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// True when the site has no origin at all, which `compile` rules out.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// One origin's counters, by its position in the generation.
    pub fn origin(&self, origin: usize) -> Option<&OriginHealth> {
        self.origins.get(origin).map(AsRef::as_ref)
    }

    /// Whether an origin may be asked at this moment.
    pub fn state(&self, origin: usize, now: Instant) -> State {
        let tick = self.tick(now);
        self.origins.get(origin).map_or(State::Ejected, |health| health.state(tick))
    }

    /// Whether an origin is set aside or not yet back for good.
    pub fn is_ejected(&self, origin: usize, now: Instant) -> bool {
        self.state(origin, now) != State::InService
    }

    /// Bit sets over the origins: those that may be asked, and those that are in half-open state among them.
    /// In panic mode all may be asked.
    pub(super) fn eligible(&self, now: Instant) -> (u64, u64) {
        let tick = self.tick(now);
        let (mut eligible, mut half_open, mut all) = (0u64, 0u64, 0u64);
        let mut panic = true;
        for (origin, health) in self.origins.iter().enumerate() {
            let bit = 1u64 << origin;
            all |= bit;
            match health.state(tick) {
                State::InService => {
                    eligible |= bit;
                    let failing =
                        self.policy.failures > 0 && health.failures.load(Relaxed) >= self.policy.failures;
                    panic &= failing;
                }
                State::HalfOpen => (eligible, half_open) = (eligible | bit, half_open | bit),
                State::Ejected | State::Probing => {}
            }
        }
        if panic { (all, 0) } else { (eligible, half_open) }
    }

    /// Origins that are set aside, for a process that takes over; `site` is their site's name. One whose time is over and
    /// that nobody has tried yet has nothing left to wait.
    pub fn set_aside(&self, site: &str, now: Instant) -> impl Iterator<Item = SetAside> {
        let tick = self.tick(now);
        self.labels.iter().zip(&self.origins).filter_map(move |(label, health)| {
            let until = health.until.load(Relaxed);
            (until != 0).then(|| SetAside {
                site: site.to_owned(),
                origin: label.to_string(),
                remaining_ms: until.saturating_sub(tick),
                times: health.level.load(Relaxed),
            })
        })
    }

    /// Sets an origin aside because another process had. What this process knows itself, its policy and the limit of one half
    /// come first.
    fn take_over(&self, aside: &SetAside, now: Instant) {
        let _held = self.transition.lock().unwrap_or_else(PoisonError::into_inner);
        let is_aside = |health: &Arc<OriginHealth>| health.until.load(Relaxed) != 0;
        if self.policy.failures == 0
            || self.origins.iter().filter(|o| is_aside(o)).count() >= self.most_ejected()
        {
            return;
        }
        let origins = self.labels.iter().zip(&self.origins);
        let Some((_, health)) =
            origins.into_iter().find(|(label, health)| ***label == *aside.origin && !is_aside(health))
        else {
            return;
        };
        let remaining = aside.remaining_ms.min(ticks(self.policy.max_ejection)).max(1);
        health.failures.store(self.policy.failures, Relaxed);
        health.level.store(aside.times.min(MAX_LEVEL), Relaxed);
        health.until.store(self.tick(now).saturating_add(remaining), Relaxed);
    }

    /// Counts a request in; the guard counts it out, reports for it, and never forgets a probe.
    ///
    /// `None` when `as_probe` is asked for and another thread was quicker, or for an origin that does not exist.
    pub(super) fn enter(self: &Arc<Self>, origin: usize, as_probe: bool, now: Instant) -> Option<InFlight> {
        let health = self.origins.get(origin)?;
        if as_probe && health.probing.swap(true, Relaxed) {
            return None;
        }
        health.in_flight.fetch_add(1, Relaxed);
        let despite_ejection = health.state(self.tick(now)) != State::InService;
        Some(InFlight { site: self.clone(), origin, as_probe, despite_ejection })
    }

    /// Takes in what a request experienced that was begun while the origin was in service.
    ///
    /// Says nothing about an origin that has been set aside since: such a request is older than the ejection.
    pub fn report(&self, origin: usize, outcome: Outcome, now: Instant) {
        self.take_in(origin, outcome, false, now);
    }

    fn take_in(&self, origin: usize, outcome: Outcome, despite_ejection: bool, now: Instant) {
        let Some(health) = self.origins.get(origin) else { return };
        let ejected = health.until.load(Relaxed) != 0;
        match outcome {
            Outcome::Success if ejected && despite_ejection => {
                let _held = self.transition.lock().unwrap_or_else(PoisonError::into_inner);
                health.restore(self.tick(now));
            }
            // The usual case writes nothing, so threads do not fight over the cache line.
            Outcome::Success if !ejected && health.failures.load(Relaxed) != 0 => {
                health.failures.store(0, Relaxed)
            }
            Outcome::Success => {}
            Outcome::Failure(kind) => {
                health.last_failure.store(kind as u8, Relaxed);
                if ejected && !despite_ejection {
                    return;
                }
                let failures = health.failures.fetch_add(1, Relaxed).saturating_add(1);
                if self.policy.failures != 0 && (ejected || failures >= self.policy.failures) {
                    self.eject(origin, health, now);
                }
            }
        }
    }

    /// Sets an origin aside, or for longer when its probe failed, unless half of the site is aside already.
    fn eject(&self, origin: usize, health: &OriginHealth, now: Instant) {
        let _held = self.transition.lock().unwrap_or_else(PoisonError::into_inner);
        let tick = self.tick(now);
        let aside = |other: &OriginHealth| other.until.load(Relaxed) != 0;
        let others =
            self.origins.iter().enumerate().filter(|(i, other)| *i != origin && aside(other)).count();
        if health.state(tick) == State::Ejected || others >= self.most_ejected() {
            return;
        }
        let level = if aside(health) { health.level.load(Relaxed) } else { self.decayed_level(health, tick) };
        let pause =
            self.policy.ejection.saturating_mul(1 << level.min(MAX_LEVEL)).min(self.policy.max_ejection);
        health.level.store((level + 1).min(MAX_LEVEL), Relaxed);
        health.ejections.fetch_add(1, Relaxed);
        health.until.store(tick.saturating_add(ticks(pause).max(1)), Relaxed);
    }

    /// One doubling is forgotten for every `ejection` spent in service since the last return.
    fn decayed_level(&self, health: &OriginHealth, tick: u64) -> u32 {
        let served = tick.saturating_sub(health.returned.load(Relaxed));
        let forgotten = served / ticks(self.policy.ejection).max(1);
        health.level.load(Relaxed).saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// A reload that takes origins away can leave more than half of the rest aside: the first to return, return now.
    fn return_surplus(&self, now: Instant) {
        let mut aside: Vec<&Arc<OriginHealth>> =
            self.origins.iter().filter(|health| health.until.load(Relaxed) != 0).collect();
        aside.sort_by_key(|health| health.until.load(Relaxed));
        let surplus = aside.len().saturating_sub(self.most_ejected());
        aside.iter().take(surplus).for_each(|health| health.restore(self.tick(now)));
    }

    fn most_ejected(&self) -> usize {
        self.origins.len() / 2
    }

    /// Milliseconds since the registry was made, from 1: 0 means "not ejected".
    fn tick(&self, now: Instant) -> u64 {
        ticks(now.saturating_duration_since(self.epoch)).saturating_add(1)
    }
}

fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One request under way at one origin. Dropping it, in whatever way the request ended, counts it out again.
#[derive(Debug)]
pub struct InFlight {
    site: Arc<SiteHealth>,
    origin: usize,
    /// Holds the one probe slot of the half-open state.
    as_probe: bool,
    /// Chosen although the origin was aside: what it finds decides whether the origin returns.
    despite_ejection: bool,
}

impl InFlight {
    /// The origin, by its position in the generation.
    pub fn origin(&self) -> usize {
        self.origin
    }

    /// Whether this request tries out an origin that had been set aside.
    pub fn is_probe(&self) -> bool {
        self.as_probe
    }

    /// Takes in what the request experienced. A request that ends without a report says nothing about the origin:
    /// the client went away.
    pub fn report(&mut self, outcome: Outcome, now: Instant) {
        self.site.take_in(self.origin, outcome, self.despite_ejection, now);
        self.release_probe();
    }

    fn release_probe(&mut self) {
        if std::mem::take(&mut self.as_probe)
            && let Some(health) = self.site.origins.get(self.origin)
        {
            health.probing.store(false, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.release_probe();
        if let Some(health) = self.site.origins.get(self.origin) {
            health.in_flight.fetch_sub(1, Relaxed);
        }
    }
}

/// Health of every site of the process, by site name.
///
/// Holds on to nothing: state lives as long as a generation that uses it. Build the new generation's view before
/// letting go of the old one, and health survives the reload.
#[derive(Debug)]
pub struct HealthRegistry {
    epoch: Instant,
    sites: Mutex<HashMap<Box<str>, Weak<SiteHealth>>>,
}

impl HealthRegistry {
    /// An empty registry; one per process.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, sites: Mutex::default() }
    }

    /// The health of a site whose origins have these labels, in this order. Origins known under the same site name
    /// and label keep their state. Threads that ask for the same get the same.
    pub fn site(
        &self,
        name: &str,
        labels: &[Arc<str>],
        policy: PassiveHealth,
        now: Instant,
    ) -> Arc<SiteHealth> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sites.get(name).and_then(Weak::upgrade);
        let wanted = labels.get(..MAX_ORIGINS).unwrap_or(labels);
        if let Some(same) = before.as_ref().filter(|site| *site.labels == *wanted && site.policy == policy) {
            return same.clone();
        }
        let site = Arc::new(SiteHealth::new(labels, policy, self.epoch, before.as_deref(), now));
        sites.retain(|_, site| site.strong_count() > 0);
        sites.insert(name.into(), Arc::downgrade(&site));
        site
    }

    /// Origins that are set aside, by name of their site, for a process that takes over; at most `MAX_SET_ASIDE`.
    pub fn export(&self, now: Instant) -> Vec<SetAside> {
        let mut sites: Vec<(Box<str>, Arc<SiteHealth>)> = {
            let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            sites.iter().filter_map(|(name, site)| Some((name.clone(), site.upgrade()?))).collect()
        };
        sites.sort_by(|(one, _), (other, _)| one.cmp(other));
        sites.iter().flat_map(|(name, site)| site.set_aside(name, now)).take(MAX_SET_ASIDE).collect()
    }

    /// Sets aside what another process had set aside, as far as a loaded generation has such a site and origin. Longer
    /// times than the site's policy allows are shortened.
    pub fn import(&self, aside: &[SetAside], now: Instant) {
        for one in aside.iter().take(MAX_SET_ASIDE) {
            let site = {
                let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
                sites.get(one.site.as_str()).and_then(Weak::upgrade)
            };
            if let Some(site) = site {
                site.take_over(one, now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
