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

use snapshot::generation::PassiveHealth;

/// Origins of one site; `compile` has to refuse more. Any beyond are never chosen.
pub const MAX_ORIGINS: usize = 64;
/// Doublings of the ejection time that are counted; 2^16 seconds is beyond any sensible maximum.
const MAX_LEVEL: u32 = 16;

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
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Failure, Success};
    use super::State::{Ejected, HalfOpen, InService, Probing};
    use super::*;

    const BROKEN: Outcome = Failure(FailureKind::Connect);

    fn policy() -> PassiveHealth {
        PassiveHealth {
            failures: 3,
            ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(60),
        }
    }

    fn labels(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    struct Bench {
        registry: HealthRegistry,
        site: Arc<SiteHealth>,
        start: Instant,
    }

    impl Bench {
        fn new(names: &[&str]) -> Self {
            let start = Instant::now();
            let registry = HealthRegistry::new(start);
            let site = registry.site("shop", &labels(names), policy(), start);
            Self { registry, site, start }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn fail(&self, origin: usize, times: usize, seconds: u64) {
            (0..times).for_each(|_| self.site.report(origin, BROKEN, self.at(seconds)));
        }

        fn state(&self, origin: usize, seconds: u64) -> State {
            self.site.state(origin, self.at(seconds))
        }

        /// Sends one probe, which must be let through, and reports what it finds.
        fn probe(&self, origin: usize, outcome: Outcome, seconds: u64) {
            let mut probe = self.site.enter(origin, true, self.at(seconds)).unwrap();
            probe.report(outcome, self.at(seconds));
        }
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let bench = Bench::new(&["a", "b"]);
        bench.fail(0, 2, 0);
        bench.site.report(0, Success, bench.at(0));
        bench.fail(0, 2, 0);
        assert_eq!(bench.state(0, 0), InService);
        bench.fail(0, 1, 0);
        assert_eq!([bench.state(0, 0), bench.state(0, 9), bench.state(0, 10)], [Ejected, Ejected, HalfOpen]);
        assert!(bench.site.is_ejected(0, bench.at(10)), "half-open is not back for good");
        let health = bench.site.origin(0).unwrap();
        assert_eq!((health.last_failure(), health.ejections()), (Some(FailureKind::Connect), 1));
        assert_eq!(bench.site.origin(1).unwrap().last_failure(), None);
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let bench = Bench::new(&["a", "b"]);
        bench.fail(0, 3, 0);
        let mut probe = bench.site.enter(0, true, bench.at(10)).unwrap();
        assert_eq!(bench.state(0, 10), Probing);
        assert!(bench.site.enter(0, true, bench.at(10)).is_none(), "a second probe");
        // A probe whose client left says nothing, but frees the place.
        drop(probe);
        assert_eq!(bench.state(0, 10), HalfOpen);
        probe = bench.site.enter(0, true, bench.at(10)).unwrap();
        probe.report(Success, bench.at(11));
        assert_eq!(bench.state(0, 11), InService);
        // It returned with a clean record: again three failures are needed.
        bench.fail(0, 2, 11);
        assert_eq!(bench.state(0, 11), InService);
        drop(probe);
        assert_eq!(bench.site.origin(0).unwrap().in_flight(), 0);
    }

    #[test]
    fn ejections_double_up_to_the_longest_and_decay_in_service() {
        let bench = Bench::new(&["a", "b"]);
        bench.fail(0, 3, 0);
        let mut now = 0;
        for pause in [10, 20, 40, 60, 60] {
            assert_eq!(
                (bench.state(0, now + pause - 1), bench.state(0, now + pause)),
                (Ejected, HalfOpen),
                "{pause}"
            );
            now += pause;
            bench.probe(0, BROKEN, now);
        }
        // Back at `now`, healthy for three ejection times: three doublings of five are forgotten.
        now += 60;
        bench.probe(0, Success, now);
        now += 30;
        bench.fail(0, 3, now);
        assert_eq!((bench.state(0, now + 59), bench.state(0, now + 60)), (Ejected, HalfOpen));
        bench.probe(0, Success, now + 60);
        // And after a long time all of them.
        now += 10_000;
        bench.fail(0, 3, now);
        assert_eq!((bench.state(0, now + 9), bench.state(0, now + 10)), (Ejected, HalfOpen));
    }

    #[test]
    fn at_most_half_are_set_aside() {
        for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (MAX_ORIGINS, 32)] {
            let names: Vec<String> = (0..count).map(|i| i.to_string()).collect();
            let bench = Bench::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
            (0..count - 1).for_each(|origin| bench.fail(origin, 10, 0));
            let aside = (0..count).filter(|&origin| bench.site.is_ejected(origin, bench.at(1))).count();
            assert_eq!(aside, most.min(count - 1), "of {count}");
        }
    }

    #[test]
    fn when_all_fail_all_are_used_until_one_recovers() {
        let bench = Bench::new(&["a", "b", "c"]);
        bench.fail(0, 3, 0);
        assert_eq!(bench.site.eligible(bench.at(1)), (0b110, 0));
        bench.fail(1, 3, 1);
        assert_eq!(bench.site.eligible(bench.at(1)), (0b110, 0), "b fails too, c does not");
        bench.fail(2, 3, 1);
        assert_eq!(bench.site.eligible(bench.at(1)), (0b111, 0), "panic");
        // A request that finds the ejected origin well in panic mode brings it back.
        let mut lucky = bench.site.enter(0, false, bench.at(2)).unwrap();
        lucky.report(Success, bench.at(2));
        assert_eq!(bench.state(0, 2), InService);
        assert!(bench.site.eligible(bench.at(2)).0 & 1 == 1);
    }

    #[test]
    fn half_open_is_eligible_and_probing_is_not() {
        let bench = Bench::new(&["a", "b"]);
        bench.fail(0, 3, 0);
        assert_eq!(bench.site.eligible(bench.at(10)), (0b11, 0b01));
        let _probe = bench.site.enter(0, true, bench.at(10)).unwrap();
        assert_eq!(bench.site.eligible(bench.at(10)), (0b10, 0));
    }

    #[test]
    fn requests_older_than_the_ejection_do_not_touch_it() {
        let bench = Bench::new(&["a", "b"]);
        let [mut lucky, mut unlucky] = [(); 2].map(|()| bench.site.enter(0, false, bench.at(0)).unwrap());
        bench.fail(0, 3, 1);
        lucky.report(Success, bench.at(2));
        assert_eq!(bench.state(0, 2), Ejected);
        unlucky.report(BROKEN, bench.at(9));
        assert_eq!(
            [bench.state(0, 10), bench.state(0, 11)],
            [Ejected, HalfOpen],
            "neither shorter nor longer"
        );
        assert_eq!(bench.site.origin(0).unwrap().ejections(), 1);
    }

    #[test]
    fn zero_failures_switches_ejection_off() {
        let bench = Bench::new(&["a", "b"]);
        let site = bench.registry.site(
            "shop",
            &labels(&["a", "b"]),
            PassiveHealth { failures: 0, ..policy() },
            bench.start,
        );
        (0..100).for_each(|_| site.report(0, BROKEN, bench.at(0)));
        assert_eq!(site.eligible(bench.at(0)), (0b11, 0));
        assert_eq!(site.state(0, bench.at(0)), InService);
    }

    #[test]
    fn state_survives_a_reload_for_the_same_site_and_label() {
        let bench = Bench::new(&["a", "b", "c", "c"]);
        bench.fail(1, 3, 0);
        bench.fail(2, 3, 0);
        let same = bench.registry.site("shop", &labels(&["a", "b", "c", "c"]), policy(), bench.start);
        assert!(Arc::ptr_eq(&same, &bench.site));
        let next = bench.registry.site("shop", &labels(&["new", "c", "b", "c"]), policy(), bench.at(1));
        let states: Vec<State> = (0..4).map(|origin| next.state(origin, bench.at(1))).collect();
        assert_eq!(states, [InService, Ejected, Ejected, InService]);
        // Another site's origin of that name is another origin.
        let other = bench.registry.site("blog", &labels(&["b"]), policy(), bench.at(1));
        assert_eq!(other.state(0, bench.at(1)), InService);
        // In flight in the old generation counts in the new one.
        let guard = bench.site.enter(1, false, bench.at(1)).unwrap();
        assert_eq!(next.origin(2).unwrap().in_flight(), 1);
        drop(guard);
        assert_eq!(next.origin(2).unwrap().in_flight(), 0);
    }

    #[test]
    fn a_reload_with_fewer_origins_never_leaves_more_than_half_aside() {
        let bench = Bench::new(&["a", "b", "c", "d"]);
        bench.fail(0, 3, 0);
        bench.fail(1, 3, 5);
        let next = bench.registry.site("shop", &labels(&["a", "b", "c"]), policy(), bench.at(6));
        assert_eq!([next.state(0, bench.at(6)), next.state(1, bench.at(6))], [InService, Ejected]);
    }

    #[test]
    fn the_registry_forgets_sites_nobody_uses() {
        let start = Instant::now();
        let registry = HealthRegistry::new(start);
        for i in 0..100 {
            drop(registry.site(&i.to_string(), &labels(&["a"]), policy(), start));
        }
        assert!(registry.sites.lock().unwrap().len() <= 1);
    }

    #[test]
    fn threads_together_never_eject_more_than_half() {
        let names: Vec<String> = (0..8).map(|i| i.to_string()).collect();
        let bench = Bench::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let bench = &bench;
                scope.spawn(move || (0..200).for_each(|i| bench.fail((thread + i) % 8, 1, 0)));
            }
        });
        let aside = (0..8).filter(|&origin| bench.site.is_ejected(origin, bench.at(0))).count();
        assert_eq!(aside, 4);
    }
}
