//! Purges, effective at once: a purge is a mark with a stamp, and an object is judged by the marks that concern it when it is found.
//!
//! Nothing is searched for when something is purged: a tag with a million members is one mark. An object has the stamp of the moment
//! its fetch began, so what was asked for before a purge and comes after it is purged too. While nothing was purged since an object
//! came, judging it is one load.
//!
//! Marks are bounded. Beyond that the oldest become one of their whole site, which purges more than was asked for, never less.

pub mod journal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::key::KeyHash;
use crate::semantics::key::Secret;

/// Marks kept, unless told otherwise.
pub const MARKS_MOST: usize = 65_536;
/// Lengths of prefixes that differ, at one host; further ones purge the whole host.
const LENGTHS_MOST: usize = 64;
/// When there are too many marks, this part of them, the oldest, becomes wider.
const FOLDED_PART: usize = 8;

/// When the fetch of an object began, as a number of purges before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// What is purged, at one site or everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'t> {
    /// All there is, at every site.
    Everything,
    /// All of a site.
    Site(&'t str),
    /// All of a host of a site; in lower case.
    Host(&'t str, &'t [u8]),
    /// What begins with these bytes of a path, at a host of a site.
    Prefix(&'t str, &'t [u8], &'t [u8]),
    /// What has a tag, in lower case, at a site.
    Tag(&'t str, &'t [u8]),
    /// What is stored under a key, at a site.
    Key(&'t str, KeyHash),
}

/// What becomes of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// They are gone.
    Hard,
    /// They are stale: they may be served while they are fetched anew.
    Soft,
}

/// An object that is judged.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// Its site.
    pub site: &'s str,
    /// Its host, in lower case.
    pub host: &'s [u8],
    /// Its path, without a query.
    pub path: &'s [u8],
    /// Its key.
    pub key: KeyHash,
    /// Its tags, in lower case.
    pub tags: &'s [Box<[u8]>],
    /// When its fetch began.
    pub stamp: Stamp,
}

/// What marks say of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing.
    Good,
    /// It is stale.
    Stale,
    /// It is gone.
    Gone,
}

/// How many marks there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Marks.
    pub marks: usize,
    /// Marks that became wider because there were too many.
    pub folded: u64,
    /// The last purge.
    pub newest: Stamp,
}

/// Where a mark is found: a keyed hash of what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u128);

/// One mark: objects from before these stamps are gone, or stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    slot: Slot,
    /// That of its whole site, which it may become; of itself where there is nothing wider but everything.
    wider: Slot,
    /// Of a prefix: its length, and where the lengths of its host are kept.
    length: Option<(Slot, u32)>,
    hard: Stamp,
    soft: Stamp,
}

#[derive(Debug, Default)]
struct State {
    marks: HashMap<Slot, Mark>,
    /// Lengths of prefixes by host.
    lengths: HashMap<Slot, Vec<u32>>,
    folded: u64,
}

/// Every purge that still matters, shared by all threads.
#[derive(Debug)]
pub struct Marks {
    secret: Secret,
    most: usize,
    /// Stamp of the last purge.
    newest: AtomicU64,
    state: RwLock<State>,
    /// Held by whoever purges, also while that is written down.
    turn: Mutex<()>,
}

impl Marks {
    /// None yet. The secret is that of the keys, kept as long as any object.
    pub fn new(secret: Secret, most: usize) -> Self {
        Self {
            secret,
            most: most.max(2),
            newest: AtomicU64::new(0),
            state: RwLock::default(),
            turn: Mutex::default(),
        }
    }

    /// The stamp of an object whose fetch begins now.
    pub fn begin(&self) -> Stamp {
        Stamp(self.newest.load(Ordering::Acquire))
    }

    /// Purges all of these together, once `write` has written their records down: what it is given is in force when this returns, and
    /// nothing of it is when `write` fails. Purges wait for each other, since the stamp of one must not be given to another.
    pub fn purge<E>(
        &self,
        targets: &[Target<'_>],
        purge: Purge,
        write: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<Stamp, E> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp(self.newest.load(Ordering::Acquire) + 1);
        let marks: Vec<Mark> = targets.iter().map(|target| self.mark(target, purge, stamp)).collect();
        let records: Vec<u8> = marks.iter().flat_map(|mark| self.record(mark)).collect();
        write(&records)?;
        self.put(&marks);
        Ok(stamp)
    }

    fn mark(&self, target: &Target<'_>, purge: Purge, stamp: Stamp) -> Mark {
        let (slot, wider, length) = match *target {
            Target::Everything => (self.everything(), self.everything(), None),
            Target::Site(site) => (self.site(site), self.everything(), None),
            Target::Host(site, host) => (self.host(site, host), self.site(site), None),
            Target::Prefix(site, host, prefix) => {
                let length = u32::try_from(prefix.len()).unwrap_or(u32::MAX);
                (self.prefix(site, host, prefix), self.site(site), Some((self.host(site, host), length)))
            }
            Target::Tag(site, tag) => (self.slot(b't', &[site.as_bytes(), tag]), self.site(site), None),
            Target::Key(site, key) => (self.key(site, key), self.site(site), None),
        };
        let (hard, soft) = match purge {
            Purge::Hard => (stamp, Stamp(0)),
            Purge::Soft => (Stamp(0), stamp),
        };
        Mark { slot, wider, length, hard, soft }
    }

    /// Puts marks in force. Fetches that begin meanwhile are from before them: the stamp moves last.
    fn put(&self, marks: &[Mark]) {
        let mut state = self.write();
        marks.iter().for_each(|mark| state.put(*mark));
        if state.marks.len() > self.most {
            state.fold(self.most, self.everything());
        }
        let newest = marks.iter().map(|mark| mark.hard.max(mark.soft).0).max().unwrap_or(0);
        self.newest.fetch_max(newest, Ordering::Release);
    }

    /// Judges an object that was found.
    pub fn judge(&self, subject: &Subject<'_>) -> Verdict {
        if subject.stamp.0 >= self.newest.load(Ordering::Acquire) {
            return Verdict::Good;
        }
        let state = self.read();
        let host = self.host(subject.site, subject.host);
        let mut verdict = Verdict::Good;
        let mut look = |slot: Slot| {
            let Some(mark) = state.marks.get(&slot) else { return };
            verdict = verdict.max(match (subject.stamp < mark.hard, subject.stamp < mark.soft) {
                (true, _) => Verdict::Gone,
                (false, true) => Verdict::Stale,
                (false, false) => Verdict::Good,
            });
        };
        look(self.everything());
        look(self.site(subject.site));
        look(host);
        look(self.key(subject.site, subject.key));
        for tag in subject.tags {
            look(self.slot(b't', &[subject.site.as_bytes(), tag]));
        }
        for length in state.lengths.get(&host).into_iter().flatten() {
            if let Some(prefix) = subject.path.get(..*length as usize) {
                look(self.prefix(subject.site, subject.host, prefix));
            }
        }
        verdict
    }

    /// Forgets marks that concern no object any more: there is none with an older stamp than this.
    pub fn forget_below(&self, oldest: Stamp) {
        let mut state = self.write();
        state.marks.retain(|_, mark| mark.hard.max(mark.soft) > oldest);
        state.tidy_lengths();
    }

    /// Every mark, for whoever writes them down anew.
    pub fn all(&self) -> Vec<Mark> {
        self.read().marks.values().copied().collect()
    }

    /// How many there are.
    pub fn stats(&self) -> Stats {
        let state = self.read();
        Stats { marks: state.marks.len(), folded: state.folded, newest: self.begin() }
    }

    fn everything(&self) -> Slot {
        self.slot(b'e', &[])
    }

    fn site(&self, site: &str) -> Slot {
        self.slot(b's', &[site.as_bytes()])
    }

    fn host(&self, site: &str, host: &[u8]) -> Slot {
        self.slot(b'h', &[site.as_bytes(), host])
    }

    fn prefix(&self, site: &str, host: &[u8], prefix: &[u8]) -> Slot {
        self.slot(b'p', &[site.as_bytes(), host, prefix])
    }

    fn key(&self, site: &str, key: KeyHash) -> Slot {
        self.slot(b'k', &[site.as_bytes(), &key.0.to_le_bytes()])
    }

    /// Lengths stand before their parts, so that no two lists of parts look alike.
    fn slot(&self, kind: u8, parts: &[&[u8]]) -> Slot {
        let mut hasher = SipHasher13::new_with_key(&self.secret.0);
        hasher.write_u8(kind);
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        let hash = hasher.finish128();
        Slot((u128::from(hash.h1) << 64) | u128::from(hash.h2))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, mark: Mark) {
        if let Some((host, length)) = mark.length {
            let lengths = self.lengths.entry(host).or_default();
            if !lengths.contains(&length) {
                if lengths.len() >= LENGTHS_MOST {
                    self.folded += 1;
                    // The whole host, then.
                    return self.merge(Mark { slot: host, length: None, ..mark });
                }
                lengths.push(length);
            }
        }
        self.merge(mark);
    }

    fn merge(&mut self, mark: Mark) {
        let found = self.marks.entry(mark.slot).or_insert(mark);
        (found.hard, found.soft) = (found.hard.max(mark.hard), found.soft.max(mark.soft));
    }

    /// The oldest become marks of their whole sites, and these, if that is not enough, one of everything.
    fn fold(&mut self, most: usize, everything: Slot) {
        while self.marks.len() > most {
            let of_sites = |mark: &&Mark| mark.wider != everything;
            let wide = !self.marks.values().any(|mark| of_sites(&mark));
            let mut foldable: Vec<(Stamp, Slot)> = self
                .marks
                .values()
                .filter(|mark| if wide { mark.slot != everything } else { of_sites(mark) })
                .map(|mark| (mark.hard.max(mark.soft), mark.slot))
                .collect();
            foldable.sort_unstable();
            let count = (foldable.len() / FOLDED_PART).max(1);
            for (_, slot) in foldable.into_iter().take(count) {
                let Some(mark) = self.marks.remove(&slot) else { continue };
                self.folded += 1;
                self.merge(Mark { slot: mark.wider, wider: everything, length: None, ..mark });
            }
        }
        self.tidy_lengths();
    }

    fn tidy_lengths(&mut self) {
        let mut lengths: HashMap<Slot, Vec<u32>> = HashMap::new();
        for (host, length) in self.marks.values().filter_map(|mark| mark.length) {
            let known = lengths.entry(host).or_default();
            if !known.contains(&length) {
                known.push(length);
            }
        }
        self.lengths = lengths;
    }
}
