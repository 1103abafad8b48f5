//! The retry budget: retries are a bounded share of requests, so that a failing origin is not also multiplied upon.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Seconds the share is measured over: the current second and the nine before it.
pub const WINDOW_SECONDS: u64 = 10;
/// Retries allowed per window however few requests there are, or a quiet site could never retry.
pub const FLOOR: u64 = 3;

/// Retries of one site, shared by all threads: at most `percent` of the requests of the last ten seconds, or `FLOOR`.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u32,
    epoch: Instant,
    requests: Window,
    retries: Window,
}

impl RetryBudget {
    /// A budget of so many per cent of requests; 0 allows no retry at all, not even the floor.
    pub fn new(percent: u32, now: Instant) -> Self {
        Self { percent, epoch: now, requests: Window::default(), retries: Window::default() }
    }

    /// Counts a request; once for each, not for its retries.
    pub fn deposit(&self, now: Instant) {
        self.requests.add(self.second(now));
    }

    /// Whether one more retry may be made; if so it is counted.
    ///
    /// Counts first and takes back if that was too many: threads at the limit together may all be refused, never all let through.
    pub fn try_withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        if self.percent == 0 {
            return false;
        }
        self.retries.add(second);
        let share = self.requests.sum(second).saturating_mul(u64::from(self.percent)) / 100;
        let allowed = self.retries.sum(second) <= share.max(FLOOR);
        if !allowed {
            self.retries.take_back(second);
        }
        allowed
    }

    /// Seconds since the budget was made, from 1, so that an untouched slot belongs to no second; wraps after 136 years.
    fn second(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.epoch).as_secs() as u32).wrapping_add(1)
    }
}

/// Counts per second in a ring. A slot is `second << 32 | count`, so that it changes hands in one step.
#[derive(Debug, Default)]
struct Window([AtomicU64; WINDOW_SECONDS as usize]);

impl Window {
    fn add(&self, second: u32) {
        let Some(slot) = self.slot(second) else { return };
        let mut current = slot.load(Relaxed);
        // Most often the slot is of this second already and one addition does it.
        while (current >> 32) as u32 != second {
            match slot.compare_exchange_weak(current, u64::from(second) << 32 | 1, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => current = now,
            }
        }
        slot.fetch_add(1, Relaxed);
    }

    /// Undoes one `add`, unless the slot has meanwhile passed to a later second.
    fn take_back(&self, second: u32) {
        let Some(slot) = self.slot(second) else { return };
        let mut current = slot.load(Relaxed);
        while (current >> 32) as u32 == second && current as u32 != 0 {
            match slot.compare_exchange_weak(current, current - 1, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => current = now,
            }
        }
    }

    fn sum(&self, second: u32) -> u64 {
        let counts = self
            .0
            .iter()
            .map(|slot| slot.load(Relaxed))
            .filter(|slot| u64::from(second.wrapping_sub((slot >> 32) as u32)) < WINDOW_SECONDS);
        counts.map(|slot| u64::from(slot as u32)).sum()
    }

    fn slot(&self, second: u32) -> Option<&AtomicU64> {
        self.0.get(second as usize % self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Withdraws until refused.
    fn drain(budget: &RetryBudget, now: Instant) -> u64 {
        (0..1_000_000).take_while(|_| budget.try_withdraw(now)).count() as u64
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        // (per cent, requests) -> retries
        for (percent, requests, expected) in [
            (10, 0, FLOOR),
            (10, 29, FLOOR),
            (10, 100, 10),
            (10, 109, 10),
            (25, 100, 25),
            (100, 7, 7),
            (0, 1000, 0),
        ] {
            let now = Instant::now();
            let budget = RetryBudget::new(percent, now);
            (0..requests).for_each(|_| budget.deposit(now));
            assert_eq!(drain(&budget, now), expected, "{percent} % of {requests}");
            assert_eq!(drain(&budget, now), 0, "nothing is left");
        }
    }

    #[test]
    fn the_window_slides() {
        let start = Instant::now();
        let budget = RetryBudget::new(10, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        (0..1000).for_each(|_| budget.deposit(at(0)));
        assert_eq!(drain(&budget, at(0)), 100);
        (0..500).for_each(|_| budget.deposit(at(5)));
        assert_eq!(drain(&budget, at(9)), 50, "the first second is still in it");
        // At 10 s its 1000 requests and 100 retries are out: 500 requests, 50 retries.
        assert_eq!(drain(&budget, at(10)), 0);
        (0..100).for_each(|_| budget.deposit(at(10)));
        assert_eq!(drain(&budget, at(14)), 10);
        // At 15 s only the 100 requests of second 10 count, against 50 + 10 retries; at 19 s against 10; at 24 s nothing.
        assert_eq!(drain(&budget, at(15)), 0);
        assert_eq!(drain(&budget, at(24)), FLOOR);
        assert_eq!(drain(&budget, at(100_000)), FLOOR);
    }

    #[test]
    fn threads_together_stay_within_the_budget() {
        let now = Instant::now();
        let budget = RetryBudget::new(10, now);
        let granted: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..2_500).for_each(|_| budget.deposit(now));
                        (0..2_500).filter(|_| budget.try_withdraw(now)).count() as u64
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((1..=1_000).contains(&granted), "{granted}");
        let left = drain(&budget, now);
        assert_eq!(granted + left, 1_000, "every refusal was taken back");
    }
}
