//! A set of addresses as sorted ranges that do not touch, found by their upper bits first.
//!
//! An IPv4 range takes 8 bytes, one of whole IPv6 /64 networks 16, any other IPv6 range 32. From some thousand ranges on, a table
//! over the upper 16 bits leaves few to search among.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges from which on the table pays.
const INDEXED: usize = 4096;
/// Entries of the table, and one more: where the last part ends.
const PARTS: usize = 1 << 16;

/// A set of addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    four: Ranges<u32>,
    /// Of whole /64 networks, by their upper halves.
    wide: Ranges<u64>,
    six: Ranges<u128>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<N> {
    first: Box<[N]>,
    last: Box<[N]>,
    /// Where the ranges of each upper part begin; empty for few.
    parts: Box<[u32]>,
}

impl<N> Default for Ranges<N> {
    fn default() -> Self {
        Self { first: Box::default(), last: Box::default(), parts: Box::default() }
    }
}

/// A number addresses are compared by.
trait Number: Copy + Ord {
    /// Its upper 16 bits.
    fn part(self) -> usize;
    /// The one after it; nothing after the last.
    fn next(self) -> Option<Self>;
}

impl Number for u32 {
    fn part(self) -> usize {
        (self >> 16) as usize
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Number for u64 {
    fn part(self) -> usize {
        (self >> 48) as usize
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Number for u128 {
    fn part(self) -> usize {
        (self >> 112) as usize
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl<N: Number> Ranges<N> {
    /// Ranges in any order; those that overlap or touch become one.
    fn new(mut ranges: Vec<(N, N)>) -> Self {
        ranges.sort_unstable();
        let mut whole: Vec<(N, N)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match whole.last_mut() {
                Some(before) if before.1.next().is_none_or(|next| first <= next) => {
                    before.1 = before.1.max(last)
                }
                _ => whole.push((first, last)),
            }
        }
        let first: Box<[N]> = whole.iter().map(|range| range.0).collect();
        let last = whole.iter().map(|range| range.1).collect();
        let parts = if first.len() < INDEXED {
            Box::default()
        } else {
            let begin = |part| first.partition_point(|number| number.part() < part);
            (0..=PARTS).map(|part| u32::try_from(begin(part)).unwrap_or(u32::MAX)).collect()
        };
        Self { first, last, parts }
    }

    fn contains(&self, number: N) -> bool {
        let part = number.part();
        let (from, to) = match (self.parts.get(part), self.parts.get(part + 1)) {
            (Some(from), Some(to)) => (*from as usize, *to as usize),
            _ => (0, self.first.len()),
        };
        let here = self.first.get(from..to).unwrap_or_default();
        // The range before may reach into this part.
        let after = from + here.partition_point(|first| *first <= number);
        after.checked_sub(1).and_then(|at| self.last.get(at)).is_some_and(|last| number <= *last)
    }

    fn memory(&self) -> usize {
        2 * size_of_val(&*self.first) + size_of_val(&*self.parts)
    }
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
        Self { four: Ranges::new(four), wide: Ranges::new(wide), six: Ranges::new(six) }
    }

    /// Whether an address is in it. An IPv4 address in IPv6 form is that IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.four.contains(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.wide.contains((bits >> 64) as u64) || self.six.contains(bits)
            }
        }
    }

    /// Ranges left after those that touch have become one.
    pub fn ranges(&self) -> usize {
        self.four.first.len() + self.wide.first.len() + self.six.first.len()
    }

    /// Memory it takes, in bytes.
    pub fn memory(&self) -> usize {
        self.four.memory() + self.wide.memory() + self.six.memory()
    }

    /// Its ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        let four = self.four.first.iter().zip(&self.four.last);
        let four =
            four.map(|(first, last)| (Ipv4Addr::from_bits(*first).into(), Ipv4Addr::from_bits(*last).into()));
        let wide = self.wide.first.iter().zip(&self.wide.last).map(|(first, last)| {
            let last = (u128::from(*last) << 64) | u128::from(u64::MAX);
            (Ipv6Addr::from_bits(u128::from(*first) << 64).into(), Ipv6Addr::from_bits(last).into())
        });
        let six = self.six.first.iter().zip(&self.six.last);
        let six =
            six.map(|(first, last)| (Ipv6Addr::from_bits(*first).into(), Ipv6Addr::from_bits(*last).into()));
        four.chain(wide).chain(six)
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
        assert!(set.ranges() == 100_000 && set.memory() <= 100_000 * 35, "{}", set.memory());
    }
}
