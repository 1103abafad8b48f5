//! The memory tier: objects by key, as many as fit into so many bytes, chosen by S3-FIFO.
//!
//! A new object waits in a small queue (a tenth of the bytes) and moves to the main one only if it was asked for again; what is asked
//! for once, as by whoever walks through a site, never pushes out what is asked for often. What left the small queue is remembered by
//! a ghost, and goes to the main queue at once if it comes back. A hit writes one counter.
//!
//! Keys are spread over shards, each with a lock of its own that is held for some tens of nanoseconds and never while a value is made,
//! compared by more than its head, or dropped.

mod shard;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use shard::VARIANTS_MOST;
use shard::{Limit, Shard};

use crate::key::KeyHash;

/// Shards of a large cache; a power of two.
const SHARDS_MOST: usize = 64;
/// A shard has at least so many bytes, or there are fewer: else a large object would empty it.
const SHARD_BYTES: usize = 8 << 20;
/// Objects named by `largest` at most.
const LARGEST_MOST: usize = 1000;

/// What is kept tells what it takes.
pub trait Weigh {
    /// Bytes on the heap that go when it is dropped, without the value itself.
    fn weight(&self) -> usize;
}

/// Objects by key, shared by all threads.
#[derive(Debug)]
pub struct Memory<V> {
    shards: Box<[Padded<V>]>,
    /// Bytes that all shards together may take.
    limit: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// On lines of its own, so that the lock of one shard does not slow the next.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<V>(Mutex<Shard<V>>);

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Kept,
    /// It is larger than an eighth of a shard: it would push out too many others.
    TooLarge,
}

/// How full it is, and what it has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Objects.
    pub objects: usize,
    /// Bytes they take, with all that is kept about them and about those that have gone.
    pub bytes: usize,
    /// Bytes they may take.
    pub limit: usize,
    /// Look-ups that found something.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Objects that had to go for others.
    pub evictions: u64,
    /// Objects that came back soon after they had gone.
    pub returned: u64,
}

impl<V: Weigh> Memory<V> {
    /// One of so many bytes.
    pub fn new(limit: usize) -> Self {
        let wanted = (limit / SHARD_BYTES).clamp(1, SHARDS_MOST);
        // The power of two below.
        let count = 1 << wanted.ilog2();
        let shards = (0..count).map(|_| Padded(Mutex::new(Shard::new(Limit::of(limit / count))))).collect();
        Self { shards, limit: AtomicUsize::new(limit), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The first variant of a key that is wanted: `chosen` compares the full key, and what it was made for.
    pub fn get(&self, key: KeyHash, chosen: impl FnMut(&V) -> bool) -> Option<Arc<V>> {
        let found = self.shard(key).and_then(|mut shard| shard.get(key, chosen));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Puts a value under a key, in place of those variants that it replaces.
    pub fn insert(&self, key: KeyHash, value: Arc<V>, replaces: impl FnMut(&V) -> bool) -> Inserted {
        let mut gone = Vec::new();
        let inserted = self.shard(key).map(|mut shard| shard.insert(key, value, replaces, &mut gone));
        // Values are dropped here, where no lock is held.
        drop(gone);
        inserted.unwrap_or(Inserted::TooLarge)
    }

    /// Takes variants of a key away; how many there were.
    pub fn remove(&self, key: KeyHash, which: impl FnMut(&V) -> bool) -> usize {
        let mut gone = Vec::new();
        if let Some(mut shard) = self.shard(key) {
            shard.remove(key, which, &mut gone);
        }
        gone.len()
    }

    /// Changes how many bytes there may be; what is too much goes at once.
    pub fn resize(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        for shard in &self.shards {
            let mut gone = Vec::new();
            locked(shard).resize(Limit::of(limit / self.shards.len()), &mut gone);
            drop(gone);
        }
    }

    /// How full it is.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            limit: self.limit.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            ..Stats::default()
        };
        for shard in &self.shards {
            locked(shard).add_to(&mut stats);
        }
        stats
    }

    /// The largest objects and what they take, the largest first; a thousand at most. Every object is looked at, one shard after the
    /// other.
    pub fn largest(&self, count: usize) -> Vec<(usize, Arc<V>)> {
        let count = count.min(LARGEST_MOST);
        let mut largest: Vec<(usize, Arc<V>)> = Vec::new();
        for shard in &self.shards {
            largest.extend(locked(shard).largest(count));
            largest.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
            largest.truncate(count);
        }
        largest
    }

    /// Every variant of a key.
    pub fn variants(&self, key: KeyHash) -> Vec<Arc<V>> {
        self.shard(key).map(|shard| shard.variants(key)).unwrap_or_default()
    }

    /// The upper bits choose, the lower ones are for the map inside. There is always one.
    fn shard(&self, key: KeyHash) -> Option<MutexGuard<'_, Shard<V>>> {
        self.shards.get((key.0 >> 96) as usize & (self.shards.len() - 1)).map(locked)
    }
}

/// A panic elsewhere leaves no shard half changed: none of its steps can panic in between.
fn locked<V>(shard: &Padded<V>) -> MutexGuard<'_, Shard<V>> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}
