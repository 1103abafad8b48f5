//! What each client network has open: connections and unfinished handshakes, and how fast new ones come. One table for the
//! process, in many small parts with a lock each, asked once per connection and never per request.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::address::canonical;
use snapshot::generation::AddressLimits;

/// Parts of the table, each with its own lock.
const SETS: usize = 1_024;
/// Networks remembered in one part: 131,072 in all, about 3 MiB when that many have come.
const WAYS: usize = 128;
/// New connections that may come at once, in seconds' worth of the rate.
const BURST_SECONDS: u64 = 5;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The table.
pub struct Sources {
    sets: Box<[Mutex<Vec<Entry>>]>,
    hasher: RandomState,
    epoch: Instant,
}

/// One client network.
struct Entry {
    network: u64,
    /// When its rate is used up to, in nanoseconds of the table's clock: the present or earlier is nothing used.
    used_to: u64,
    open: u32,
    shaking: u32,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its network has as many open as it may.
    #[error("too many open connections from one network")]
    Connections,
    /// Its network opens them too fast.
    #[error("new connections from one network come too fast")]
    Rate,
    /// Its network has as many unfinished handshakes as it may.
    #[error("too many unfinished handshakes from one network")]
    Handshakes,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            epoch: Instant::now(),
        }
    }
}

impl Sources {
    /// Counts a connection in, with a handshake still to come if `shaking`; it is counted out when the ticket is dropped.
    ///
    /// When the table has no place left because every network in that part of it has connections open, the connection is let
    /// through uncounted: an unknown network is not a guilty one.
    pub fn charge(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &AddressLimits,
        shaking: bool,
        now: Instant,
    ) -> Result<Ticket, Refused> {
        let network = network_of(address);
        let set = self.set_of(network);
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let mut entries = lock(set);
        let Some(entry) = find_or_enter(&mut entries, network, now) else {
            return Ok(Ticket { sources: None, network, shaking: false });
        };
        if entry.open as usize >= limits.connections {
            return Err(Refused::Connections);
        }
        if shaking && entry.shaking as usize >= limits.handshakes {
            return Err(Refused::Handshakes);
        }
        let each = NANOS_PER_SECOND / u64::from(limits.rate.max(1));
        let used_to = entry.used_to.max(now) + each;
        if used_to - now > BURST_SECONDS * NANOS_PER_SECOND {
            return Err(Refused::Rate);
        }
        entry.used_to = used_to;
        entry.open += 1;
        entry.shaking += u32::from(shaking);
        Ok(Ticket { sources: Some(self.clone()), network, shaking })
    }

    /// Connections that the network of this address has open.
    pub fn open(&self, address: IpAddr) -> usize {
        let network = network_of(address);
        lock(self.set_of(network))
            .iter()
            .find(|entry| entry.network == network)
            .map_or(0, |entry| entry.open as usize)
    }

    fn set_of(&self, network: u64) -> &Mutex<Vec<Entry>> {
        // The number of sets is a power of two, so the low bits of the hash choose evenly.
        let index = self.hasher.hash_one(network) as usize % SETS;
        &self.sets[index]
    }

    fn change(&self, network: u64, change: impl FnOnce(&mut Entry)) {
        let mut entries = lock(self.set_of(network));
        if let Some(entry) = entries.iter_mut().find(|entry| entry.network == network) {
            change(entry);
        }
    }
}

/// The entry of a network; a new one takes the place of the one that has had nothing open for the longest time.
fn find_or_enter(entries: &mut Vec<Entry>, network: u64, now: u64) -> Option<&mut Entry> {
    let known = entries.iter().position(|entry| entry.network == network);
    let place = match known {
        Some(place) => place,
        None => {
            let fresh = Entry { network, used_to: now, open: 0, shaking: 0 };
            if entries.len() < WAYS {
                entries.push(fresh);
                entries.len() - 1
            } else {
                let idle = entries.iter().enumerate().filter(|(_, entry)| entry.open == 0);
                let (place, _) = idle.min_by_key(|(_, entry)| entry.used_to)?;
                *entries.get_mut(place)? = fresh;
                place
            }
        }
    };
    entries.get_mut(place)
}

/// An IPv4 address as it is; of an IPv6 address the /64, which is what one customer gets.
fn network_of(address: IpAddr) -> u64 {
    match canonical(address) {
        // A prefix that no IPv6 network has (RFC 4291 section 2.4).
        IpAddr::V4(v4) => (1 << 32) | u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

fn lock(set: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One counted connection.
pub struct Ticket {
    /// `None` for one that is not counted.
    sources: Option<Arc<Sources>>,
    network: u64,
    shaking: bool,
}

impl Ticket {
    /// For a connection that nobody counts: a trusted proxy's, or one of this process.
    pub fn free() -> Self {
        Self { sources: None, network: 0, shaking: false }
    }

    /// Its handshake is over.
    pub fn shaken(&mut self) {
        if std::mem::take(&mut self.shaking)
            && let Some(sources) = &self.sources
        {
            sources.change(self.network, |entry| entry.shaking = entry.shaking.saturating_sub(1));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let shaking = u32::from(self.shaking);
        if let Some(sources) = &self.sources {
            sources.change(self.network, |entry| {
                entry.open = entry.open.saturating_sub(1);
                entry.shaking = entry.shaking.saturating_sub(shaking);
            });
        }
    }
}

/// How long after its last connection a network that used all of its rate has all of it again.
pub const RECOVERY: Duration = Duration::from_secs(BURST_SECONDS);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const LIMITS: AddressLimits = AddressLimits { connections: 3, rate: 2, handshakes: 1 };
    const MANY: AddressLimits =
        AddressLimits { connections: usize::MAX, rate: 1_000_000, handshakes: usize::MAX };

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn refusal(result: Result<Ticket, Refused>) -> Option<Refused> {
        result.err()
    }

    #[test]
    fn open_connections_of_one_network_are_bounded_and_come_free() {
        let (sources, now) = (Arc::new(Sources::default()), Instant::now());
        let mut held: Vec<_> = (0..3).map(|_| sources.charge(v4(1), &LIMITS, false, now).unwrap()).collect();
        assert_eq!(refusal(sources.charge(v4(1), &LIMITS, false, now)), Some(Refused::Connections));
        assert!(sources.charge(v4(2), &LIMITS, false, now).is_ok(), "another address has its own");
        assert_eq!(sources.open(v4(1)), 3);
        held.pop();
        assert_eq!(refusal(sources.charge(v4(1), &LIMITS, false, now)), None);
        drop(held);
        assert_eq!(sources.open(v4(1)), 0);
    }

    #[test]
    fn handshakes_count_until_they_are_over() {
        let (sources, now) = (Arc::new(Sources::default()), Instant::now());
        let mut first = sources.charge(v4(1), &LIMITS, true, now).unwrap();
        assert_eq!(refusal(sources.charge(v4(1), &LIMITS, true, now)), Some(Refused::Handshakes));
        assert!(sources.charge(v4(1), &LIMITS, false, now).is_ok(), "a plain connection has none");
        first.shaken();
        first.shaken();
        let second = sources.charge(v4(1), &LIMITS, true, now).unwrap();
        drop((first, second));
        assert!(sources.charge(v4(1), &LIMITS, true, now).is_ok());
    }

    #[test]
    fn a_burst_is_let_through_and_then_only_the_rate() {
        let (sources, start) = (Arc::new(Sources::default()), Instant::now());
        let come = |at: Duration| sources.charge(v4(1), &LIMITS, false, start + at).is_ok();
        let burst = (0..100).filter(|_| come(Duration::ZERO)).count() as u64;
        assert_eq!(burst, BURST_SECONDS * u64::from(LIMITS.rate));
        assert!(!come(Duration::from_millis(499)));
        assert!(come(Duration::from_millis(501)));
        let later = start + RECOVERY * 2;
        let again = (0..100).filter(|_| sources.charge(v4(1), &LIMITS, false, later).is_ok()).count() as u64;
        assert_eq!(again, burst);
    }

    #[test]
    fn one_ipv6_network_is_one_source_and_mapped_addresses_are_ipv4() {
        let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
        assert_eq!(network_of(v6("2001:db8:1:2:3::4")), network_of(v6("2001:db8:1:2:ffff::1")));
        assert_ne!(network_of(v6("2001:db8:1:2::1")), network_of(v6("2001:db8:1:3::1")));
        assert_eq!(network_of(v6("::ffff:192.0.2.1")), network_of("192.0.2.1".parse().unwrap()));
        assert_ne!(network_of(v6("::1")), network_of("0.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ten_thousand_sources_fit_and_a_million_do_not_make_it_grow() {
        let (sources, now) = (Arc::new(Sources::default()), Instant::now());
        let held: Vec<_> =
            (0..10_000).map(|number| sources.charge(v4(number), &MANY, false, now).unwrap()).collect();
        assert!((0..10_000).all(|number| sources.open(v4(number)) == 1), "every one of them is counted");
        for number in 10_000..1_000_000 {
            assert!(sources.charge(v4(number), &MANY, false, now).is_ok());
        }
        let places: usize = sources.sets.iter().map(|set| lock(set).capacity()).sum();
        assert!(places <= SETS * WAYS, "{places}");
        assert!((0..10_000).all(|number| sources.open(v4(number)) == 1), "open ones are never forgotten");
        drop(held);
        assert!((0..10_000).all(|number| sources.open(v4(number)) == 0));
    }

    #[test]
    fn a_part_full_of_open_connections_lets_strangers_through_uncounted() {
        let (sources, now) = (Arc::new(Sources::default()), Instant::now());
        let held: Vec<_> =
            (0..300_000).map(|number| sources.charge(v4(number), &MANY, false, now).unwrap()).collect();
        let counted = (0..300_000).filter(|number| sources.open(v4(*number)) == 1).count();
        assert_eq!(counted, held.iter().filter(|ticket| ticket.sources.is_some()).count());
        assert!(counted <= SETS * WAYS && counted > SETS * WAYS * 9 / 10, "{counted}");
    }
}
