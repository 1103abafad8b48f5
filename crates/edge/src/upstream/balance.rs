//! Which origin gets a request: weighted random, two draws, the one with less under way per weight.
//!
//! Two draws keep the load even without any shared turn counter (Mitzenmacher 2001), and with nothing under way the
//! first draw decides, so shares follow the weights exactly.

use std::sync::Arc;
use std::time::Instant;

use base::random::Random;

use super::health::{InFlight, MAX_ORIGINS, SiteHealth};

/// The origins one request has been sent to already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    /// Adds an origin.
    pub fn insert(&mut self, origin: usize) {
        self.0 |= bit(origin);
    }

    /// Whether the request has been sent there.
    pub fn contains(self, origin: usize) -> bool {
        self.0 & bit(origin) != 0
    }
}

/// Chooses an origin and counts the request in there; `None` only when the site has no origin.
///
/// `weights` are those of the generation, one per origin in its order; `random` is the thread's own. Preferred are
/// origins in service (or waiting for a probe) that are not in `tried`; then any in service; then any.
pub fn choose(
    site: &Arc<SiteHealth>,
    weights: &[u32],
    tried: Tried,
    random: &mut Random,
    now: Instant,
) -> Option<InFlight> {
    let known = u64::MAX.checked_shr(64 - weights.len().min(site.len()).min(MAX_ORIGINS) as u32).unwrap_or(0);
    let (eligible, half_open) = site.eligible(now);
    let (mut eligible, half_open) = (eligible & known, half_open & known);
    // A pass ends in a choice or takes one origin out whose probe another thread got; the last pass needs no probe.
    for _ in 0..=MAX_ORIGINS {
        let preferred = [eligible & !tried.0, eligible, known].into_iter().find(|set| *set != 0)?;
        let origin = pick(site, weights, preferred, random)?;
        let as_probe = half_open & bit(origin) != 0 && eligible != 0;
        if let Some(in_flight) = site.enter(origin, as_probe, now) {
            return Some(in_flight);
        }
        eligible &= !bit(origin);
    }
    None
}

/// Two draws without replacement; the less loaded one, relative to its weight, the first when equal.
fn pick(site: &SiteHealth, weights: &[u32], set: u64, random: &mut Random) -> Option<usize> {
    let first = draw(weights, set, random)?;
    let Some(second) = draw(weights, set & !bit(first), random) else { return Some(first) };
    let load = |origin: usize| site.origin(origin).map_or(0, |health| u64::from(health.in_flight()));
    let weight = |origin: usize| u64::from(weight_of(weights, origin));
    Some(if load(second) * weight(first) < load(first) * weight(second) { second } else { first })
}

fn draw(weights: &[u32], set: u64, random: &mut Random) -> Option<usize> {
    let members = || {
        std::iter::successors(Some(set), |rest| Some(rest & rest.wrapping_sub(1)))
            .take_while(|&rest| rest != 0)
            .map(|rest| rest.trailing_zeros() as usize)
    };
    let total = members().fold(0u32, |total, origin| total.saturating_add(weight_of(weights, origin)));
    let mut left = random.below(total);
    members().find(|&origin| {
        let weight = weight_of(weights, origin);
        let here = left < weight;
        left = left.saturating_sub(weight);
        here
    })
}

/// A weight is at least 1: an origin that is configured is wanted.
fn weight_of(weights: &[u32], origin: usize) -> u32 {
    weights.get(origin).copied().unwrap_or(1).max(1)
}

fn bit(origin: usize) -> u64 {
    u32::try_from(origin).ok().and_then(|origin| 1u64.checked_shl(origin)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use snapshot::generation::PassiveHealth;

    use super::super::health::{FailureKind, HealthRegistry, Outcome};
    use super::*;

    const BROKEN: Outcome = Outcome::Failure(FailureKind::Timeout);

    fn site(count: usize) -> (Arc<SiteHealth>, Instant) {
        let now = Instant::now();
        let labels: Vec<Arc<str>> = (0..count).map(|i| i.to_string().into()).collect();
        let policy = PassiveHealth {
            failures: 2,
            ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(60),
        };
        (HealthRegistry::new(now).site("s", &labels, policy, now), now)
    }

    fn tried(origins: &[usize]) -> Tried {
        let mut tried = Tried::default();
        origins.iter().for_each(|&origin| tried.insert(origin));
        tried
    }

    /// How often each origin is chosen in 10,000 requests one after the other.
    fn shares(site: &Arc<SiteHealth>, weights: &[u32], tried: Tried, now: Instant) -> Vec<u32> {
        let mut random = Random::seeded(5);
        let mut counts = vec![0; weights.len()];
        for _ in 0..10_000 {
            counts[choose(site, weights, tried, &mut random, now).unwrap().origin()] += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        let (site, now) = site(4);
        let weights = [1, 2, 7, 10];
        for (count, weight) in shares(&site, &weights, Tried::default(), now).into_iter().zip(weights) {
            let expected = 500 * weight;
            assert!(count.abs_diff(expected) < 60 + expected / 10, "{count} for {expected}");
        }
    }

    #[test]
    fn an_ejected_origin_gets_nothing_and_a_half_open_one_a_single_request() {
        let (site, now) = site(3);
        (0..2).for_each(|_| site.report(1, BROKEN, now));
        assert_eq!(shares(&site, &[1, 1, 1], Tried::default(), now)[1], 0);
        let later = now + Duration::from_secs(10);
        let mut random = Random::seeded(1);
        let held: Vec<InFlight> = (0..100)
            .map(|_| choose(&site, &[1, 1, 1], Tried::default(), &mut random, later).unwrap())
            .collect();
        let probes: Vec<_> = held.iter().filter(|guard| guard.is_probe()).map(InFlight::origin).collect();
        assert_eq!(probes, [1]);
        assert_eq!(held.iter().filter(|guard| guard.origin() == 1).count(), 1);
    }

    #[test]
    fn a_retry_prefers_what_was_not_tried() {
        let (site, now) = site(3);
        let weights = [100, 1, 1];
        assert_eq!(shares(&site, &weights, tried(&[0]), now)[0], 0);
        assert_eq!(shares(&site, &weights, tried(&[0, 1]), now), [0, 0, 10_000]);
        assert!(shares(&site, &weights, tried(&[0, 1, 2]), now)[0] > 9_000, "all tried: as if none");
        // The only untried one is set aside: better the tried ones again.
        (0..2).for_each(|_| site.report(2, BROKEN, now));
        assert_eq!(shares(&site, &weights, tried(&[0, 1]), now)[2], 0);
    }

    #[test]
    fn the_less_loaded_of_two_is_taken() {
        let (site, now) = site(2);
        let mut random = Random::seeded(9);
        let mut held = Vec::new();
        for _ in 0..300 {
            held.push(choose(&site, &[2, 1], Tried::default(), &mut random, now).unwrap());
        }
        let loads = [0, 1].map(|origin| site.origin(origin).unwrap().in_flight());
        assert!((199..=201).contains(&loads[0]), "{loads:?}: load per weight is even");
        drop(held);
        assert_eq!([0, 1].map(|origin| site.origin(origin).unwrap().in_flight()), [0, 0], "nothing leaks");
    }

    #[test]
    fn when_all_fail_all_are_used() {
        let (site, now) = site(2);
        for origin in [0, 1] {
            (0..2).for_each(|_| site.report(origin, BROKEN, now));
        }
        assert!(shares(&site, &[1, 1], Tried::default(), now).iter().all(|&count| count > 4_000));
    }

    #[test]
    fn every_size_of_site_has_an_answer() {
        let mut random = Random::seeded(2);
        for count in [0, 1, 2, 63, 64, 65, 100] {
            let (site, now) = site(count);
            let weights = vec![1; count];
            let mut seen = vec![false; count];
            for _ in 0..5_000 {
                if let Some(guard) = choose(&site, &weights, Tried::default(), &mut random, now) {
                    seen[guard.origin()] = true;
                }
            }
            let expected: Vec<bool> = (0..count).map(|origin| origin < MAX_ORIGINS).collect();
            assert_eq!(seen, expected, "{count} origins");
        }
    }

    #[test]
    fn a_single_origin_is_always_asked() {
        let (site, now) = site(1);
        (0..100).for_each(|_| site.report(0, BROKEN, now));
        assert_eq!(shares(&site, &[1], tried(&[0]), now), [10_000]);
    }
}
