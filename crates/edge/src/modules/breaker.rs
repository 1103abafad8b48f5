//! One breaker: a module that fails too often at a site is passed over there, and tried again now and then.
//!
//! Closed, it is not even looked at (`SiteModules` keeps a bit for that). It counts calls only once one has failed, so that it
//! can tell a module that is broken from a request that is: a visitor who makes a module fail does not switch it off for others.
//! Threads may meet here at the same moment; then a count may be missed, never a change of state.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Failures within `WINDOW` that open it, if they are at least `SHARE` per cent of the calls since the first.
const FAILURES: u32 = 5;
const SHARE: u64 = 50;
/// How long calls are counted after a failure.
const WINDOW: Duration = Duration::from_secs(10);
/// How long an open one stays open at first, and at most; it doubles each time.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The same for a module that an edge process hung in: trying it again may cost another process.
const SUSPECT_PAUSE: Duration = Duration::from_secs(60);
const MAX_SUSPECT_PAUSE: Duration = Duration::from_secs(3600);
/// A probe that has not come back by then never will; another one may go.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// Probes in a row that close it.
const PROBES: u32 = 3;
/// After so long without failure the next pause is the shortest one again.
const FORGET: Duration = Duration::from_secs(120);

const CLOSED: u8 = 0;
const WATCHING: u8 = 1;
const OPEN: u8 = 2;
const PROBING: u8 = 3;

/// A breaker. Moments are milliseconds of a clock that does not go back.
#[derive(Debug, Default)]
pub struct Breaker {
    state: AtomicU8,
    /// When watching began, or when it opened.
    since: AtomicU64,
    /// When the next probe may go.
    until: AtomicU64,
    /// When it closed last.
    closed: AtomicU64,
    calls: AtomicU32,
    failures: AtomicU32,
    /// How often in a row it has opened; the pause follows from it.
    times: AtomicU32,
    /// Probes in a row that went well.
    good: AtomicU32,
    /// An edge process hung in it.
    suspect: AtomicU8,
}

/// How a call was let through; handed back with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Like any other.
    Plain,
    /// Calls are being counted.
    Watched,
    /// To see whether the module works again.
    Probe,
}

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The module is passed over from now on.
    Opened,
    /// It is asked again.
    Closed,
}

/// How it stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Milliseconds since it opened.
    pub open_ms: u64,
    /// Milliseconds until the next probe; 0 when one may go at any moment.
    pub probe_in_ms: u64,
    /// An edge process hung in the module.
    pub suspect: bool,
}

impl Breaker {
    /// Whether calls must go through `admit`.
    pub fn needs_attention(&self) -> bool {
        self.state.load(Relaxed) != CLOSED
    }

    /// Whether this call may go ahead; `None` while the module is passed over. Only for a breaker that needs attention.
    pub fn admit(&self, now: u64) -> Option<Admission> {
        match self.state.load(Relaxed) {
            CLOSED => Some(Admission::Plain),
            WATCHING => {
                if now.saturating_sub(self.since.load(Relaxed)) >= milliseconds(WINDOW)
                    && self.goes(WATCHING, CLOSED)
                {
                    return Some(Admission::Plain);
                }
                self.calls.fetch_add(1, Relaxed);
                Some(Admission::Watched)
            }
            state => {
                let until = self.until.load(Relaxed);
                if now < until {
                    return None;
                }
                // Whoever moves `until` on is the one who probes.
                let next = now + milliseconds(PROBE_LIMIT);
                let mine = self.until.compare_exchange(until, next, Relaxed, Relaxed).is_ok();
                (mine && (state == PROBING || self.goes(OPEN, PROBING))).then_some(Admission::Probe)
            }
        }
    }

    /// Takes the result of a call.
    pub fn settle(&self, admission: Admission, failed: bool, now: u64) -> Option<Change> {
        match (admission, failed) {
            (Admission::Plain | Admission::Watched, false) => None,
            (Admission::Plain, true) => {
                if self.goes(CLOSED, WATCHING) {
                    self.since.store(now, Relaxed);
                    self.calls.store(1, Relaxed);
                    self.failures.store(1, Relaxed);
                } else {
                    // Let through before others had failed.
                    self.calls.fetch_add(1, Relaxed);
                    self.failures.fetch_add(1, Relaxed);
                }
                None
            }
            (Admission::Watched, true) => {
                let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
                let share = u64::from(failures) * 100 / u64::from(self.calls.load(Relaxed).max(1));
                let opens = failures >= FAILURES && share >= SHARE && self.goes(WATCHING, OPEN);
                opens.then(|| {
                    if now.saturating_sub(self.closed.load(Relaxed)) >= milliseconds(FORGET) {
                        self.times.store(0, Relaxed);
                    }
                    self.since.store(now, Relaxed);
                    self.pause(now);
                    Change::Opened
                })
            }
            (Admission::Probe, true) => {
                self.good.store(0, Relaxed);
                self.pause(now);
                self.state.store(OPEN, Relaxed);
                None
            }
            (Admission::Probe, false) => {
                if self.good.fetch_add(1, Relaxed) + 1 < PROBES {
                    self.until.store(now, Relaxed);
                    self.state.store(OPEN, Relaxed);
                    return None;
                }
                self.closed.store(now, Relaxed);
                self.close();
                Some(Change::Closed)
            }
        }
    }

    /// Opens it because an edge process hung in the module, so many times up to now.
    pub fn suspect(&self, times: u32, now: u64) {
        self.suspect.store(1, Relaxed);
        self.times.store(times.saturating_sub(1), Relaxed);
        self.since.store(now, Relaxed);
        self.pause(now);
        self.state.store(OPEN, Relaxed);
    }

    /// Closes it: what made it fail is gone.
    pub fn close(&self) {
        self.good.store(0, Relaxed);
        self.suspect.store(0, Relaxed);
        self.state.store(CLOSED, Relaxed);
    }

    /// How it stands; `None` while the module is asked.
    pub fn standing(&self, now: u64) -> Option<Standing> {
        matches!(self.state.load(Relaxed), OPEN | PROBING).then(|| Standing {
            open_ms: now.saturating_sub(self.since.load(Relaxed)),
            probe_in_ms: self.until.load(Relaxed).saturating_sub(now),
            suspect: self.suspect.load(Relaxed) != 0,
        })
    }

    fn goes(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    fn pause(&self, now: u64) {
        let times = self.times.fetch_add(1, Relaxed).min(16);
        let (first, longest) = match self.suspect.load(Relaxed) {
            0 => (PAUSE, MAX_PAUSE),
            _ => (SUSPECT_PAUSE, MAX_SUSPECT_PAUSE),
        };
        self.until.store(now + milliseconds(first.saturating_mul(1 << times).min(longest)), Relaxed);
    }
}

fn milliseconds(period: Duration) -> u64 {
    u64::try_from(period.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::*;

    /// One call at this moment: whether the module was asked, and what changed.
    fn call(breaker: &Breaker, fails: bool, now: u64) -> (bool, Option<Change>) {
        let admission = if breaker.needs_attention() { breaker.admit(now) } else { Some(Admission::Plain) };
        match admission {
            Some(admission) => (true, breaker.settle(admission, fails, now)),
            None => (false, None),
        }
    }

    #[test]
    fn what_always_fails_is_passed_over_soon_tried_ever_more_rarely_and_taken_back() {
        let breaker = Breaker::default();
        for round in 0..4 {
            assert_eq!(call(&breaker, true, round), (true, None), "{round}");
        }
        assert_eq!(call(&breaker, true, 4), (true, Some(Change::Opened)));
        assert_eq!(call(&breaker, false, 1003), (false, None));
        for (probe, next) in [(1004, 2000), (3004, 4000), (7004, 8000)] {
            assert_eq!(call(&breaker, true, probe), (true, None));
            assert_eq!(call(&breaker, true, probe + next - 1), (false, None), "after {probe}");
        }
        for _ in 0..2 {
            assert_eq!(call(&breaker, false, 100_000), (true, None));
            assert!(breaker.standing(100_000).is_some());
        }
        assert_eq!(call(&breaker, false, 100_000), (true, Some(Change::Closed)));
        assert_eq!((breaker.needs_attention(), breaker.standing(100_000)), (false, None));
    }

    #[test]
    fn a_few_bad_requests_among_many_good_ones_open_nothing() {
        let breaker = Breaker::default();
        for now in 0..100_000 {
            assert_eq!(call(&breaker, now % 3 == 0, now), (true, None), "{now}");
        }
        assert!(breaker.standing(0).is_none());
        assert_eq!(call(&breaker, false, 200_000), (true, None));
        assert!(!breaker.needs_attention(), "nothing is counted once it is over");
    }

    #[test]
    fn one_probe_at_a_time_and_one_that_never_comes_back_is_not_waited_for() {
        let breaker = Breaker::default();
        breaker.suspect(1, 0);
        assert_eq!(breaker.admit(59_999), None);
        assert_eq!(breaker.admit(60_000), Some(Admission::Probe));
        assert_eq!(breaker.admit(60_001), None);
        assert_eq!(breaker.admit(65_000), Some(Admission::Probe));
        breaker.suspect(3, 70_000);
        assert_eq!(breaker.standing(70_000).unwrap().probe_in_ms, 240_000);
    }

    /// Whatever comes, an open one lets through one call per pause at most, and a module that works gets asked again.
    #[test]
    fn over_random_times_it_neither_storms_nor_sticks() {
        for seed in 0..50 {
            let (mut random, breaker) = (Random::seeded(seed), Breaker::default());
            let (mut now, mut asked, mut opened) = (0, 0, None);
            while now < 600_000 {
                now += u64::from(random.below(50));
                let (went, change) = call(&breaker, true, now);
                if change == Some(Change::Opened) {
                    (opened, asked) = (Some(now), 0);
                }
                asked += u64::from(opened.is_some() && went);
            }
            assert!(asked <= 20, "seed {seed}: {asked} probes in ten minutes");
            let recovered =
                (now..now + 120_000).any(|now| call(&breaker, false, now).1 == Some(Change::Closed));
            assert!(recovered, "seed {seed}");
        }
    }
}
