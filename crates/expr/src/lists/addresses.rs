//! A set of addresses as sorted ranges that do not touch, found through a tree over their beginnings.
//!
//! An IPv4 range takes 8 bytes, one of whole IPv6 /64 networks 16, a smaller IPv6 network or host 24 and any other IPv6 range 32; the
//! tree takes up to a thirtieth of that. Real lists are clustered (all of IPv6 shares three bits, a provider's networks
//! thirty), so no table over upper bits would do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Beginnings in one node of the tree.
const NODE: usize = 16;

/// A set of addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    four: Ranges<u32>,
    /// Of whole /64 networks, by their upper halves.
    wide: Ranges<u64>,
    networks: Tree<Network>,
    /// What is none of these: where networks of different sizes touched and became one.
    six: Ranges<u128>,
}

/// What is kept for a range, with the number it is found by.
trait Entry: Copy {
    type Number: Copy + Ord;

    fn number(&self) -> Self::Number;
}

impl<N: Copy + Ord> Entry for (N, N) {
    type Number = N;

    fn number(&self) -> N {
        self.0
    }
}

/// Entries in order of their numbers, with every sixteenth number again in a row of its own, and every sixteenth of that, until few
/// are left. An entry is in one piece, so that the last step reaches for memory once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tree<E: Entry> {
    entries: Box<[E]>,
    /// The longest first.
    rows: Vec<Box<[E::Number]>>,
}

impl<E: Entry> Default for Tree<E> {
    fn default() -> Self {
        Self { entries: Box::default(), rows: Vec::new() }
    }
}

impl<E: Entry> Tree<E> {
    /// Of entries in order.
    fn new(entries: Vec<E>) -> Self {
        let mut rows: Vec<Box<[E::Number]>> = Vec::new();
        let mut row: Box<[E::Number]> = entries.iter().step_by(NODE).map(Entry::number).collect();
        while row.len() > 1 {
            let above = row.iter().step_by(NODE).copied().collect();
            rows.push(std::mem::replace(&mut row, above));
        }
        Self { entries: entries.into(), rows }
    }

    /// The place of the last whose number is not above this one.
    fn find(&self, number: E::Number) -> Option<usize> {
        let mut from = 0;
        for row in self.rows.iter().rev() {
            let node = row.get(from..(from + NODE).min(row.len()))?;
            // In the first node only there may be none; then there is none below either.
            from = (from + not_above(node, number, |one| *one).checked_sub(1)?) * NODE;
        }
        let node = self.entries.get(from..(from + NODE).min(self.entries.len()))?;
        Some(from + not_above(node, number, Entry::number).checked_sub(1)?)
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.entries) + self.rows.iter().map(|row| size_of_val(&**row)).sum::<usize>()
    }
}

/// How many of a node, which is in order, are not above a number. Counted without a branch: which way it went nobody could guess.
fn not_above<T, N: Copy + Ord>(node: &[T], number: N, of: impl Fn(&T) -> N) -> usize {
    match <&[T; NODE]>::try_from(node) {
        Ok(node) => node.iter().map(|one| u8::from(of(one) <= number)).sum::<u8>().into(),
        Err(_) => node.iter().filter(|one| of(one) <= number).count(),
    }
}

/// First and last of ranges in order that do not touch.
type Ranges<N> = Tree<(N, N)>;

impl<N: Copy + Ord> Ranges<N> {
    fn contains(&self, number: N) -> bool {
        self.find(number).and_then(|at| self.entries.get(at)).is_some_and(|range| number <= range.1)
    }
}

/// An IPv6 network smaller than a /64, or a host: the halves of its first address, and how many of its lower bits are its own. Most
/// addresses that are not listed are told by the upper half alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    upper: u64,
    lower: u64,
    bits: u8,
}

impl Entry for Network {
    type Number = u64;

    fn number(&self) -> u64 {
        self.upper
    }
}

impl Network {
    /// If a range is one.
    fn of(first: u128, last: u128) -> Option<Self> {
        let size = (last - first).checked_add(1)?;
        let whole = size >> 64 == 0 && size.is_power_of_two() && first.is_multiple_of(size);
        let bits = size.trailing_zeros() as u8;
        whole.then_some(Self { upper: (first >> 64) as u64, lower: first as u64, bits })
    }

    fn last(&self) -> u64 {
        self.lower | ((1 << self.bits) - 1)
    }

    fn range(&self) -> (u128, u128) {
        let upper = u128::from(self.upper) << 64;
        (upper | u128::from(self.lower), upper | u128::from(self.last()))
    }
}

impl Tree<Network> {
    fn contains(&self, number: u128) -> bool {
        let (upper, lower) = ((number >> 64) as u64, number as u64);
        let Some(end) = self.find(upper) else { return false };
        let among = |at: usize| self.entries.get(at).is_some_and(|network| network.upper == upper);
        if !among(end) {
            return false;
        }
        let begin = match upper.checked_sub(1) {
            _ if !end.checked_sub(1).is_some_and(among) => end,
            Some(before) => self.find(before).map_or(0, |at| at + 1),
            None => 0,
        };
        let here = self.entries.get(begin..=end).unwrap_or_default();
        let after = here.partition_point(|network| network.lower <= lower);
        after.checked_sub(1).and_then(|at| here.get(at)).is_some_and(|network| lower <= network.last())
    }
}

/// A number addresses are compared by.
trait Number: Copy + Ord {
    /// The one after it; nothing after the last.
    fn next(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Number for u64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// In order; those that overlap or touch become one.
fn merged<N: Number>(mut ranges: Vec<(N, N)>) -> Vec<(N, N)> {
    ranges.sort_unstable();
    let mut whole: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match whole.last_mut() {
            Some(before) if before.1.next().is_none_or(|next| first <= next) => before.1 = before.1.max(last),
            _ => whole.push((first, last)),
        }
    }
    whole
}

impl AddressSet {
    /// Of ranges, both ends included, in any order; what is no range (two families, or its end before its beginning) is left
    /// out, so check before.
    pub fn new(ranges: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> Self {
        let (mut four, mut wide, mut six) = (Vec::new(), Vec::new(), Vec::new());
        for range in ranges {
            match range {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                    four.push((first.to_bits(), last.to_bits()))
                }
                (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                    let (first, last) = (first.to_bits(), last.to_bits());
                    // Upper halves fit into half as many bits.
                    if first as u64 == 0 && last as u64 == u64::MAX {
                        wide.push(((first >> 64) as u64, (last >> 64) as u64));
                    } else {
                        six.push((first, last));
                    }
                }
                _ => {}
            }
        }
        let (mut networks, mut odd) = (Vec::new(), Vec::new());
        for (first, last) in merged(six) {
            match Network::of(first, last) {
                Some(network) => networks.push(network),
                None => odd.push((first, last)),
            }
        }
        Self {
            four: Tree::new(merged(four)),
            wide: Tree::new(merged(wide)),
            networks: Tree::new(networks),
            six: Tree::new(odd),
        }
    }

    /// Whether an address is in it. An IPv4 address in IPv6 form is that IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.four.contains(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.wide.contains((bits >> 64) as u64)
                    || self.networks.contains(bits)
                    || self.six.contains(bits)
            }
        }
    }

    /// Ranges left after those that touch have become one.
    pub fn ranges(&self) -> usize {
        let six = self.networks.entries.len() + self.six.entries.len();
        self.four.entries.len() + self.wide.entries.len() + six
    }

    /// Memory it takes, in bytes.
    pub fn memory(&self) -> usize {
        self.four.memory() + self.wide.memory() + self.networks.memory() + self.six.memory()
    }

    /// Its ranges, those of a kind in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        let four = self.four.entries.iter().map(|(first, last)| {
            (IpAddr::from(Ipv4Addr::from_bits(*first)), IpAddr::from(Ipv4Addr::from_bits(*last)))
        });
        let wide = self.wide.entries.iter().map(|(first, last)| {
            (u128::from(*first) << 64, (u128::from(*last) << 64) | u128::from(u64::MAX))
        });
        let networks = self.networks.entries.iter().map(Network::range);
        let six = wide.chain(networks).chain(self.six.entries.iter().copied());
        four.chain(
            six.map(|(first, last)| (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())),
        )
    }
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::*;

    /// Ranges that are often near each other, of both families.
    fn range(random: &mut Random) -> (IpAddr, IpAddr) {
        match random.below(4) {
            0 | 1 => {
                let first = 0x0a00_0000 + random.below(200_000);
                let last = first + random.below(5);
                (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into())
            }
            2 => {
                let first = (0x2001_0db8_0000_0000_u128 + u128::from(random.below(50_000))) << 64;
                let last = first + (u128::from(random.below(3)) << 64) + u128::from(u64::MAX);
                (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())
            }
            _ => {
                let first = (0x2001_0db9_u128 << 96) + u128::from(random.below(50_000));
                (
                    Ipv6Addr::from_bits(first).into(),
                    Ipv6Addr::from_bits(first + u128::from(random.below(3))).into(),
                )
            }
        }
    }

    #[test]
    fn what_is_found_is_what_a_scan_finds_with_few_ranges_and_with_many() {
        let mut random = Random::seeded(31);
        for count in [0, 1, 10, 30_000] {
            let ranges: Vec<_> = (0..count).map(|_| range(&mut random)).collect();
            let set = AddressSet::new(ranges.clone());
            let mut inside = 0;
            for _ in 0..2_000 {
                let (address, last) = range(&mut random);
                for address in [address, last] {
                    let same = |(first, last): &(IpAddr, IpAddr)| {
                        first.is_ipv4() == address.is_ipv4() && *first <= address && address <= *last
                    };
                    let expected = ranges.iter().any(same);
                    assert_eq!(set.contains(address), expected, "{address}");
                    inside += usize::from(expected);
                }
            }
            assert!(count < 30_000 || inside > 200, "{inside}");
            assert!(set.ranges() <= count);
            assert_eq!(AddressSet::new(set.iter()), set, "what it holds makes it again");
        }
    }

    #[test]
    fn ends_of_the_range_of_addresses_are_no_exception() {
        let all =
            |first: &str, last: &str| AddressSet::new([(first.parse().unwrap(), last.parse().unwrap())]);
        let four = all("0.0.0.0", "255.255.255.255");
        assert!(
            four.contains("0.0.0.0".parse().unwrap()) && four.contains("255.255.255.255".parse().unwrap())
        );
        assert!(four.contains("::ffff:1.2.3.4".parse().unwrap()) && !four.contains("::1".parse().unwrap()));
        let six = all("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert!(six.contains("::".parse().unwrap()) && !six.contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn an_entry_costs_no_more_than_its_two_ends() {
        let four = (0..100_000_u32).map(|number| Ipv4Addr::from_bits(number * 8).into());
        let set = AddressSet::new(four.map(|address: IpAddr| (address, address)));
        assert!(set.ranges() == 100_000 && set.memory() < 100_000 * 12, "{}", set.memory());
        let six = (0..100_000_u128).map(|number| Ipv6Addr::from_bits((0x2001 << 112) | (number * 8)).into());
        let set = AddressSet::new(six.map(|address: IpAddr| (address, address)));
        assert!(set.ranges() == 100_000 && set.memory() <= 100_000 * 26, "{}", set.memory());
    }
}
