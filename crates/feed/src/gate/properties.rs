//! Random sequences of good, bad and forced packages, confirmations, reversions, crashes and restarts: what is in force always
//! passed every check.

use std::collections::BTreeMap;

use base::random::Random;

use super::tests::{key, made, settings};
use super::*;
use crate::store::Store;

const SEQUENCES: u64 = 40;
const STEPS: u32 = 60;

/// What the test knows without asking the gate: how many rows each good package has.
struct World {
    folder: tempfile::TempDir,
    random: Random,
    /// Rows of every package that was made well, by generation.
    good: BTreeMap<u64, usize>,
    /// The same of those that only take away more than they may, which somebody may force.
    shrunk: BTreeMap<u64, usize>,
    /// What was taken back and must never come again.
    gone: Vec<u64>,
    rows: usize,
    next: u64,
    activated: Vec<u64>,
    memory: String,
}

impl World {
    fn store(&self) -> Store {
        Store::open(self.folder.path(), "features").unwrap()
    }

    /// A process that begins with what is on disk.
    fn start(&mut self) -> Gate {
        let feed = Feed::new(&settings(&key())).unwrap();
        let store = self.store();
        if store.active().is_none()
            && let Some((generation, _)) = store.candidates().first()
        {
            // As the supervisor does at its start.
            store.mark_active(*generation).unwrap();
            self.activated.push(*generation);
            self.rows = self.good[generation];
        }
        let in_force = store.active().and_then(|active| {
            let (generation, bytes) = store.candidates().into_iter().next()?;
            (generation == active).then(|| feed.stored(&bytes, NOW).unwrap())
        });
        // One time in four, what the gate remembered is lost as well.
        let memory = if self.random.below(4) == 0 { "{}" } else { &self.memory };
        Gate::new(feed, in_force, serde_json::from_str(memory).unwrap(), store.highest_ever())
    }

    fn candidate(&mut self) -> Vec<u8> {
        self.next += 1;
        let (generation, salt) = (self.next, self.random.next_u64() % 1000);
        let rows = self.rows;
        match self.random.below(10) {
            0 => made(generation, rows + 201, salt),
            1 => {
                let fewer = rows - rows / 10 - 2;
                // With nothing in force, there is nothing it takes away.
                if self.store().active().is_none() {
                    self.good.insert(generation, fewer);
                } else {
                    self.shrunk.insert(generation, fewer);
                }
                made(generation, fewer, salt)
            }
            2 => {
                let newest = self.activated.iter().max().copied().unwrap_or(0);
                made(self.random.next_u64() % (newest + 1), rows, salt)
            }
            3 => {
                let mut bytes = made(generation, rows, salt);
                let at = self.random.next_u64() as usize % bytes.len();
                bytes[at] ^= 1 << self.random.below(8);
                bytes
            }
            4 => {
                let bytes = made(generation, rows, salt);
                bytes[..self.random.next_u64() as usize % bytes.len()].to_vec()
            }
            _ => {
                let rows = (rows + self.random.below(5) as usize).saturating_sub(2).clamp(50, 190);
                self.good.insert(generation, rows);
                made(generation, rows, salt)
            }
        }
    }

    /// What the supervisor does with an offer, with a crash at any of its steps.
    fn put_in_force(&mut self, gate: &mut Gate, offer: Offer, bytes: &[u8]) -> bool {
        if offer.forced {
            let rows = self.shrunk.get(&offer.generation).expect("forced, for it takes away too much");
            self.good.insert(offer.generation, *rows);
        }
        assert!(self.good.contains_key(&offer.generation), "{offer:?}");
        let newest = self.activated.iter().max().copied().unwrap_or(0);
        assert!(offer.generation > newest, "{offer:?} after {newest}");
        let store = self.store();
        let crash = self.random.below(12);
        if crash == 0 {
            return false;
        }
        if self.random.below(8) == 0 {
            gate.offered(&[finding("taster-died", String::new())], NOW);
            return true;
        }
        assert_eq!(store.given_up(offer.generation).unwrap(), None);
        if crash == 1 {
            let file = format!("features/{:020}.package", offer.generation);
            std::fs::write(self.folder.path().join(file), bytes).unwrap();
            return false;
        }
        store.put_in_force(bytes, offer.generation, offer.forced).unwrap();
        self.activated.push(offer.generation);
        self.rows = self.good[&offer.generation];
        if crash == 2 {
            return false;
        }
        gate.offered(&[], NOW);
        if !offer.forced && self.random.below(3) == 0 {
            store.mark_good(offer.generation).unwrap();
        }
        true
    }

    fn take_back(&mut self, gate: &mut Gate) {
        let store = self.store();
        let Some(bad) = store.active() else { return };
        let good = store.good().filter(|good| *good != bad);
        store.take_back(bad, good, "a test").unwrap();
        self.gone.push(bad);
        let before = good.map(|good| {
            self.rows = self.good[&good];
            let (generation, bytes) = store.candidates().swap_remove(0);
            assert_eq!(generation, good);
            gate.feed().stored(&bytes, NOW).unwrap()
        });
        gate.changed(before, NOW);
    }

    /// Somebody looks at what was forced, or time passes without that.
    fn confirm(&mut self, gate: &mut Gate) {
        let store = self.store();
        let Some(forced) = store.unconfirmed() else { return };
        assert_eq!(Some(forced), store.active(), "only what is in force waits for a confirmation");
        assert_ne!(Some(forced), store.good());
        match self.random.below(4) {
            0 => store.mark_confirmed(forced).unwrap(),
            1 => self.take_back(gate),
            _ => {}
        }
    }

    fn holds(&self, highest: &mut u64) {
        let store = self.store();
        assert!(store.highest_ever() >= *highest, "{} after {highest}", store.highest_ever());
        *highest = store.highest_ever();
        let known = store.candidates();
        assert!(known.iter().all(|(number, _)| !self.gone.contains(number)), "{:?} came again", self.gone);
        let Some(active) = store.active() else { return };
        let (generation, bytes) = store.candidates().swap_remove(0);
        assert_eq!(generation, active);
        let feed = Feed::new(&settings(&key())).unwrap();
        let stored = feed.stored(&bytes, NOW).unwrap();
        assert_eq!(
            Some(&stored.content.classes[0].keys.len()),
            self.good.get(&active),
            "generation {active}"
        );
        assert!(self.activated.contains(&active));
    }
}

const NOW: Timestamp = Timestamp(1_000_000_000_000);

#[test]
fn what_is_in_force_always_passed_every_check_and_numbers_never_go_back() {
    let (mut activated, mut refused, mut frozen, mut forced, mut gone) = (0, 0, 0, 0, 0);
    for seed in 0..SEQUENCES {
        let mut world = World {
            folder: tempfile::tempdir().unwrap(),
            random: Random::seeded(seed),
            good: BTreeMap::new(),
            shrunk: BTreeMap::new(),
            gone: Vec::new(),
            rows: 100,
            next: 0,
            activated: Vec::new(),
            memory: "{}".to_owned(),
        };
        let mut gate = world.start();
        let mut highest = 0;
        for _ in 0..STEPS {
            let bytes = world.candidate();
            let before = world.activated.len();
            if gate.memory().frozen.is_none() && world.random.below(4) == 0 {
                gate.take(true).unwrap();
            }
            let lives = match gate.look(&bytes, NOW) {
                Some(offer) => {
                    forced += u32::from(offer.forced);
                    world.put_in_force(&mut gate, offer, &bytes)
                }
                None => {
                    refused += 1;
                    true
                }
            };
            activated += world.activated.len() - before;
            world.memory = serde_json::to_string(gate.memory()).unwrap();
            if world.random.below(15) == 0 {
                world.take_back(&mut gate);
            }
            world.confirm(&mut gate);
            if gate.memory().frozen.is_some() {
                frozen += 1;
                if world.random.below(3) == 0 {
                    gate.thaw(NOW).unwrap();
                }
            }
            if !lives || world.random.below(10) == 0 {
                gate = world.start();
            }
            world.holds(&mut highest);
        }
        gone += world.gone.len();
    }
    // Otherwise nothing was seen.
    let seen = format!("{activated} {refused} {frozen} {forced} {gone}");
    assert!(activated > 60 && refused > 60 && frozen > 6 && forced > 6 && gone > 6, "{seen}");
}
