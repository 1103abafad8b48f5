//! Tables for `health`: ejection, probes, panic mode, reloads.

use super::Outcome::{Failure, Success};
use super::State::{Ejected, HalfOpen, InService, Probing};
use super::*;

const BROKEN: Outcome = Failure(FailureKind::Connect);

fn policy() -> PassiveHealth {
    PassiveHealth { failures: 3, ejection: Duration::from_secs(10), max_ejection: Duration::from_secs(60) }
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
    assert_eq!([bench.state(0, 10), bench.state(0, 11)], [Ejected, HalfOpen], "neither shorter nor longer");
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

#[test]
fn a_process_that_takes_over_knows_what_was_set_aside() {
    let before = Bench::new(&["a", "b", "c", "d"]);
    before.fail(1, 3, 0);
    before.probe(1, BROKEN, 10);
    let told = before.registry.export(before.at(12));
    let aside = |remaining_ms, times| SetAside {
        site: "shop".to_owned(),
        origin: "b".to_owned(),
        remaining_ms,
        times,
    };
    assert_eq!(told, [aside(18_000, 2)]);
    assert_eq!(before.registry.export(before.at(31)), [aside(0, 2)], "half-open: to be tried at once");

    let after = Bench::new(&["b", "a", "e"]);
    after.registry.import(&told, after.at(100));
    assert_eq!([after.state(0, 117), after.state(0, 118)], [Ejected, HalfOpen]);
    assert_eq!(after.registry.export(after.at(100)), told);
    after.probe(0, BROKEN, 118);
    assert_eq!([after.state(0, 157), after.state(0, 158)], [Ejected, HalfOpen], "the doublings go on");
    after.probe(0, Success, 158);
    assert_eq!((after.state(0, 158), after.registry.export(after.at(158))), (InService, Vec::new()));
}

#[test]
fn what_another_process_tells_is_bounded_by_policy_and_by_half() {
    let bench = Bench::new(&["a", "b", "c"]);
    let tell = |site: &str, origin: &str, remaining_ms| SetAside {
        site: site.to_owned(),
        origin: origin.to_owned(),
        remaining_ms,
        times: u32::MAX,
    };
    bench.registry.import(&[tell("no such site", "a", 1), tell("shop", "no such origin", 1)], bench.at(0));
    assert_eq!(bench.registry.export(bench.at(0)), []);
    bench.registry.import(&[tell("shop", "a", u64::MAX), tell("shop", "b", 5_000)], bench.at(0));
    assert_eq!([bench.state(0, 59), bench.state(0, 60)], [Ejected, HalfOpen], "the longest the policy has");
    assert_eq!(bench.state(1, 0), InService, "half of three is one");
    bench.registry.import(&[tell("shop", "a", 1)], bench.at(30));
    assert_eq!(bench.state(0, 31), Ejected, "what is known here stays");

    let off = HealthRegistry::new(bench.start);
    let policy = PassiveHealth { failures: 0, ..policy() };
    let site = off.site("shop", &labels(&["a", "b"]), policy, bench.start);
    off.import(&[tell("shop", "a", 5_000)], bench.start);
    assert_eq!(site.state(0, bench.start), InService, "switched off is switched off");
}
