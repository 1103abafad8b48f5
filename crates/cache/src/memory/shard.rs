//! One shard: a slab of entries in two queues, a map to them, and the ghosts of those that have gone.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Inserted, Stats, Weigh};
use crate::key::KeyHash;

/// Variants of one key; the oldest goes for one more.
pub const VARIANTS_MOST: usize = 64;
/// An object takes no more than this part of its shard.
const LARGEST_PART: usize = 8;
/// The small queue's part of the bytes.
const SMALL_PART: usize = 10;
/// Times an object must have been asked for in the small queue to move to the main one.
const ASKED_AGAIN: u8 = 2;
/// Times that are counted.
const ASKED_MOST: u8 = 3;
/// No entry.
const NONE: u32 = u32::MAX;
/// Bytes of an `Arc` beside its value: two counters.
const ARC: usize = 16;
/// A map keeps an eighth of its places free, and doubles when it is full: 12/7 places an entry on average, each with a control byte.
const PLACES: (usize, usize) = (12, 7);

/// Bytes of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    bytes: usize,
    small: usize,
    largest: usize,
}

impl Limit {
    /// With so many bytes in all.
    pub fn of(bytes: usize) -> Self {
        Self { bytes, small: bytes / SMALL_PART, largest: bytes / LARGEST_PART }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Small,
    Main,
}

#[derive(Debug)]
struct Entry<V> {
    key: KeyHash,
    value: Arc<V>,
    weight: usize,
    /// Towards the end that goes first, and away from it.
    older: u32,
    newer: u32,
    queue: Queue,
    asked: u8,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    newest: u32,
    bytes: usize,
}

const EMPTY: Ends = Ends { oldest: NONE, newest: NONE, bytes: 0 };

/// Keys are hashes already.
#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = number as u64;
    }
}

type Map<K, T> = HashMap<K, T, BuildHasherDefault<AsItIs>>;
/// Mostly there is one variant.
type Places = SmallVec<[u32; 2]>;

/// The last keys that left the small queue, and how much they weighed.
#[derive(Debug, Default)]
struct Ghosts {
    order: VecDeque<(u64, u32)>,
    there: Map<u64, u32>,
    weight: usize,
}

/// Bytes a ghost takes.
const GHOST: usize = size_of::<(u64, u32)>() + (size_of::<(u64, u32)>() + 1) * PLACES.0 / PLACES.1;

impl Ghosts {
    fn add(&mut self, key: KeyHash, weight: usize, most: usize) {
        let units = u32::try_from(weight / 64 + 1).unwrap_or(u32::MAX);
        self.order.push_back((key.0 as u64, units));
        *self.there.entry(key.0 as u64).or_default() += 1;
        self.weight += units as usize;
        while self.weight > most / 64 {
            if !self.forget_oldest() {
                break;
            }
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((key, units)) = self.order.pop_front() else { return false };
        self.weight -= units as usize;
        if let Some(count) = self.there.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.there.remove(&key);
            }
        }
        true
    }

    fn has(&self, key: KeyHash) -> bool {
        self.there.contains_key(&(key.0 as u64))
    }

    fn bytes(&self) -> usize {
        self.order.len() * GHOST
    }
}

#[derive(Debug)]
pub struct Shard<V> {
    map: Map<u128, Places>,
    entries: Vec<Option<Entry<V>>>,
    free: Vec<u32>,
    small: Ends,
    main: Ends,
    ghosts: Ghosts,
    limit: Limit,
    evictions: u64,
    returned: u64,
}

impl<V: Weigh> Shard<V> {
    pub fn new(limit: Limit) -> Self {
        Self {
            map: Map::default(),
            entries: Vec::new(),
            free: Vec::new(),
            small: EMPTY,
            main: EMPTY,
            ghosts: Ghosts::default(),
            limit,
            evictions: 0,
            returned: 0,
        }
    }

    /// Bytes an entry takes beside what its value says: the value itself, its place, and that of its key.
    pub fn overhead() -> usize {
        let place = size_of::<Option<Entry<V>>>() + size_of::<u32>();
        let key = (size_of::<(u128, Places)>() + 1) * PLACES.0 / PLACES.1;
        // A slab doubles too.
        ARC + size_of::<V>() + place * 3 / 2 + key
    }

    pub fn get(&mut self, key: KeyHash, mut chosen: impl FnMut(&V) -> bool) -> Option<Arc<V>> {
        let places = self.map.get(&key.0)?;
        for place in places {
            let Some(Some(entry)) = self.entries.get_mut(*place as usize) else { continue };
            if chosen(&entry.value) {
                entry.asked = (entry.asked + 1).min(ASKED_MOST);
                return Some(entry.value.clone());
            }
        }
        None
    }

    pub fn variants(&self, key: KeyHash) -> Vec<Arc<V>> {
        let places = self.map.get(&key.0).into_iter().flatten();
        places
            .filter_map(|place| self.entries.get(*place as usize)?.as_ref())
            .map(|entry| entry.value.clone())
            .collect()
    }

    pub fn insert(
        &mut self,
        key: KeyHash,
        value: Arc<V>,
        replaces: impl FnMut(&V) -> bool,
        gone: &mut Vec<Arc<V>>,
    ) -> Inserted {
        let before = gone.len();
        self.remove(key, replaces, gone);
        let weight = Self::overhead() + value.weight();
        if weight > self.limit.largest {
            return Inserted::TooLarge;
        }
        let oldest = self.map.get(&key.0).filter(|places| places.len() >= VARIANTS_MOST);
        if let Some(place) = oldest.and_then(|places| places.first().copied()) {
            gone.extend(self.take(place).map(|entry| entry.value));
        }
        let returned = self.ghosts.has(key);
        self.returned += u64::from(returned);
        // What replaces something that was there has been asked for before.
        let queue = if returned || gone.len() > before { Queue::Main } else { Queue::Small };
        let entry = Entry { key, value, weight, older: NONE, newer: NONE, queue, asked: 0 };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.entries.push(None);
                // More than four thousand million objects of some hundred bytes fit into no limit.
                (self.entries.len() - 1) as u32
            }
        };
        if let Some(slot) = self.entries.get_mut(place as usize) {
            *slot = Some(entry);
        }
        self.map.entry(key.0).or_default().push(place);
        self.link(place, queue);
        self.make_room(gone);
        Inserted::Kept
    }

    pub fn remove(&mut self, key: KeyHash, mut which: impl FnMut(&V) -> bool, gone: &mut Vec<Arc<V>>) {
        let Some(places) = self.map.get(&key.0) else { return };
        let wanted: Places = places
            .iter()
            .copied()
            .filter(
                |place| matches!(self.entries.get(*place as usize), Some(Some(entry)) if which(&entry.value)),
            )
            .collect();
        for place in wanted {
            gone.extend(self.take(place).map(|entry| entry.value));
        }
    }

    pub fn resize(&mut self, limit: Limit, gone: &mut Vec<Arc<V>>) {
        self.limit = limit;
        self.make_room(gone);
    }

    pub fn add_to(&self, stats: &mut Stats) {
        stats.objects += self.entries.len() - self.free.len();
        stats.bytes += self.bytes();
        stats.evictions += self.evictions;
        stats.returned += self.returned;
    }

    pub fn largest(&self, count: usize) -> Vec<(usize, Arc<V>)> {
        let mut all: Vec<&Entry<V>> = self.entries.iter().flatten().collect();
        all.sort_by_key(|entry| std::cmp::Reverse(entry.weight));
        all.into_iter().take(count).map(|entry| (entry.weight, entry.value.clone())).collect()
    }

    /// Bytes of all there is.
    pub fn bytes(&self) -> usize {
        self.small.bytes + self.main.bytes + self.ghosts.bytes()
    }

    fn make_room(&mut self, gone: &mut Vec<Arc<V>>) {
        while self.bytes() > self.limit.bytes {
            let from_small = self.small.bytes > self.limit.small || self.main.oldest == NONE;
            let ended = if from_small { self.shrink_small(gone) } else { self.shrink_main(gone) };
            // With nothing left there are ghosts only.
            if ended && !self.ghosts.forget_oldest() {
                return;
            }
        }
    }

    /// Lets the oldest of the small queue go, or move on; true when there is none.
    fn shrink_small(&mut self, gone: &mut Vec<Arc<V>>) -> bool {
        let place = self.small.oldest;
        let Some(Some(entry)) = self.entries.get_mut(place as usize) else { return true };
        if entry.asked >= ASKED_AGAIN {
            entry.asked = 0;
            self.unlink(place);
            self.link(place, Queue::Main);
        } else if let Some(entry) = self.take(place) {
            self.ghosts.add(entry.key, entry.weight, self.limit.bytes - self.limit.small);
            self.evictions += 1;
            gone.push(entry.value);
        }
        false
    }

    /// Lets the oldest of the main queue go, or stay once more for each time it was asked for; true when there is none.
    fn shrink_main(&mut self, gone: &mut Vec<Arc<V>>) -> bool {
        let place = self.main.oldest;
        let Some(Some(entry)) = self.entries.get_mut(place as usize) else { return true };
        if entry.asked > 0 {
            entry.asked -= 1;
            self.unlink(place);
            self.link(place, Queue::Main);
        } else if let Some(entry) = self.take(place) {
            self.evictions += 1;
            gone.push(entry.value);
        }
        false
    }

    /// Takes an entry out of everything.
    fn take(&mut self, place: u32) -> Option<Entry<V>> {
        self.unlink(place);
        let entry = self.entries.get_mut(place as usize)?.take()?;
        self.free.push(place);
        if let Some(places) = self.map.get_mut(&entry.key.0) {
            places.retain(|one| *one != place);
            if places.is_empty() {
                self.map.remove(&entry.key.0);
            }
        }
        Some(entry)
    }

    fn ends(&mut self, queue: Queue) -> &mut Ends {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn entry(&mut self, place: u32) -> Option<&mut Entry<V>> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    /// Adds an entry to the end of a queue that goes last.
    fn link(&mut self, place: u32, queue: Queue) {
        let before = self.ends(queue).newest;
        let Some(entry) = self.entry(place) else { return };
        (entry.older, entry.newer, entry.queue) = (before, NONE, queue);
        let weight = entry.weight;
        if let Some(before) = self.entry(before) {
            before.newer = place;
        }
        let ends = self.ends(queue);
        ends.newest = place;
        ends.bytes += weight;
        if ends.oldest == NONE {
            ends.oldest = place;
        }
    }

    fn unlink(&mut self, place: u32) {
        let Some(entry) = self.entry(place) else { return };
        let (older, newer, queue, weight) = (entry.older, entry.newer, entry.queue, entry.weight);
        if let Some(older) = self.entry(older) {
            older.newer = newer;
        }
        if let Some(newer) = self.entry(newer) {
            newer.older = older;
        }
        let ends = self.ends(queue);
        ends.bytes -= weight;
        if ends.oldest == place {
            ends.oldest = newer;
        }
        if ends.newest == place {
            ends.newest = older;
        }
    }
}
