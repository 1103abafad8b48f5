//! Networks that are banned for a while, by signal. Nothing else here turns a visitor away for who they are.
//!
//! Bans come and go a few times an hour and are asked about with every connection, so the table is made anew with each change
//! and read without a lock. While there is none, asking is one relaxed load.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use base::address::canonical;
use base::time::Timestamp;
use ipnet::IpNet;

/// Bans at a time.
const MAX_BANS: usize = 65_536;

/// The bans of this process.
#[derive(Default)]
pub struct Bans {
    any: AtomicBool,
    table: ArcSwap<Table>,
    ends: Mutex<BTreeMap<IpNet, Timestamp>>,
}

/// Networks by the lengths of their prefixes, of which there are few.
#[derive(Default)]
struct Table(HashMap<(bool, u8), HashSet<IpNet>>);

impl Table {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|((four, length), networks)| {
            *four == address.is_ipv4()
                && IpNet::new(address, *length).is_ok_and(|network| networks.contains(&network.trunc()))
        })
    }
}

impl Bans {
    /// Whether this address is banned.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.any.load(Ordering::Relaxed) && self.table.load().contains(canonical(address))
    }

    /// Bans these networks, each until its end, and no others. What is beyond the most that can be banned is left out, those
    /// that end first: answers how many.
    pub fn set(&self, bans: &[(IpNet, Timestamp)]) -> usize {
        let mut bans: Vec<_> = bans.iter().map(|(network, until)| (network.trunc(), *until)).collect();
        bans.sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
        let beyond = bans.len().saturating_sub(MAX_BANS);
        bans.truncate(MAX_BANS);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.clear();
        // The first one in, which ends last, is the one that counts.
        for (network, until) in bans {
            ends.entry(network).or_insert(until);
        }
        self.publish(&ends);
        beyond
    }

    /// Lifts the bans whose time is over, once a second or so.
    pub fn expire(&self, now: Timestamp) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ends.len();
        ends.retain(|_, until| *until > now);
        if ends.len() != before {
            self.publish(&ends);
        }
    }

    /// All of them, with their ends.
    pub fn list(&self) -> Vec<(IpNet, Timestamp)> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().map(|(network, until)| (*network, *until)).collect()
    }

    fn publish(&self, ends: &BTreeMap<IpNet, Timestamp>) {
        let mut table = Table::default();
        for network in ends.keys() {
            let kind = (matches!(network, IpNet::V4(_)), network.prefix_len());
            table.0.entry(kind).or_default().insert(*network);
        }
        self.table.store(table.into());
        self.any.store(!ends.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_holds_for_its_network_and_its_time() {
        let bans = Bans::default();
        let banned = |text: &str| bans.contains(text.parse().unwrap());
        let set = |list: &[(&str, u64)]| {
            let list: Vec<_> =
                list.iter().map(|(network, until)| (network.parse().unwrap(), Timestamp(*until))).collect();
            bans.set(&list)
        };
        assert!(!banned("192.0.2.1"));
        set(&[("192.0.2.77/24", 10), ("2001:db8::/48", 20), ("192.0.2.0/24", 30)]);
        for (address, expected) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.3.1", false),
            ("2001:db8:0:ffff::1", true),
            ("2001:db8:1::1", false),
        ] {
            assert_eq!(banned(address), expected, "{address}");
        }
        bans.expire(Timestamp(20));
        assert!(banned("192.0.2.1") && !banned("2001:db8::1"));
        bans.expire(Timestamp(30));
        assert!(!banned("192.0.2.1") && bans.list().is_empty());
        set(&[("192.0.2.0/24", 90)]);
        set(&[]);
        assert!(!banned("192.0.2.1"), "those that are set replace those before");
    }

    #[test]
    fn there_are_only_so_many_and_those_that_last_stay() {
        let bans = Bans::default();
        let network = |number: usize| {
            let address = std::net::Ipv4Addr::from(u32::try_from(number).unwrap());
            IpNet::new(address.into(), 32).unwrap()
        };
        let list: Vec<_> =
            (0..=MAX_BANS).map(|number| (network(number), Timestamp(number as u64 + 1))).collect();
        assert_eq!(bans.set(&list), 1);
        assert!(!bans.contains("0.0.0.0".parse().unwrap()) && bans.contains("0.0.0.1".parse().unwrap()));
    }
}
