//! Sets of conditions that are met together, and tables of ranges that say which.

use std::net::IpAddr;

/// Ranges of one table may be covered this many times over, on average; wider ones are left out of it.
const COVERED_MOST: usize = 16;

/// Bits of conditions, in the form that is quickest to set.
#[derive(Clone, Debug)]
pub enum Posting {
    Few(Box<[u32]>),
    Many(Box<[u64]>),
}

impl Posting {
    /// Of bits, among so many words.
    pub fn new(mut bits: Vec<u32>, words: usize) -> Self {
        bits.sort_unstable();
        bits.dedup();
        if bits.len() <= words {
            return Posting::Few(bits.into());
        }
        let mut all = vec![0; words];
        for bit in bits {
            set(&mut all, bit);
        }
        Posting::Many(all.into())
    }

    pub fn mark(&self, bits: &mut [u64]) {
        match self {
            Posting::Few(few) => few.iter().for_each(|bit| set(bits, *bit)),
            Posting::Many(many) => bits.iter_mut().zip(many).for_each(|(word, more)| *word |= more),
        }
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + match self {
                Posting::Few(few) => size_of_val(&**few),
                Posting::Many(many) => size_of_val(&**many),
            }
    }
}

pub fn set(bits: &mut [u64], bit: u32) {
    if let Some(word) = bits.get_mut(bit as usize / 64) {
        *word |= 1 << (bit % 64);
    }
}

/// Addresses of both families, and numbers, in one order.
pub type Key = (u8, u128);

pub fn address(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(address) => (0, u128::from(address.to_bits())),
        IpAddr::V6(address) => (1, address.to_bits()),
    }
}

pub fn number(value: i64) -> Key {
    (0, u128::from(value.abs_diff(i64::MIN)))
}

/// Which ranges cover a value: the line is cut wherever a range begins or ends.
#[derive(Debug, Default)]
pub struct Ranges {
    cuts: Vec<Key>,
    /// What covers from each cut to the next.
    covers: Vec<Posting>,
}

impl Ranges {
    /// Also returns the bits that are met whatever the value, because their ranges would take too much room.
    pub fn new(mut ranges: Vec<(Key, Key, u32)>, words: usize) -> (Self, Vec<u32>) {
        if ranges.is_empty() {
            return (Self::default(), Vec::new());
        }
        let mut cuts: Vec<Key> =
            ranges.iter().flat_map(|(first, last, _)| [Some(*first), after(*last)]).flatten().collect();
        cuts.sort_unstable();
        cuts.dedup();
        let span = |first: Key, last: Key| {
            let from = cuts.partition_point(|cut| *cut < first);
            (from, cuts.partition_point(|cut| *cut <= last))
        };
        let width = |(first, last, _): &(Key, Key, u32)| {
            let (from, to) = span(*first, *last);
            to - from
        };
        ranges.sort_by_cached_key(width);
        let (mut covers, mut left) = (vec![Vec::new(); cuts.len()], cuts.len() * COVERED_MOST);
        let mut wide = Vec::new();
        for (first, last, bit) in ranges {
            let (from, to) = span(first, last);
            match left.checked_sub(to - from) {
                Some(rest) => left = rest,
                None => {
                    wide.push(bit);
                    continue;
                }
            }
            covers[from..to].iter_mut().for_each(|cover: &mut Vec<u32>| cover.push(bit));
        }
        let covers = covers.into_iter().map(|bits| Posting::new(bits, words)).collect();
        (Self { cuts, covers }, wide)
    }

    pub fn mark(&self, value: Key, bits: &mut [u64]) {
        let after = self.cuts.partition_point(|cut| *cut <= value);
        if let Some(cover) = after.checked_sub(1).and_then(|at| self.covers.get(at)) {
            cover.mark(bits);
        }
    }

    pub fn memory(&self) -> usize {
        size_of_val(&*self.cuts) + self.covers.iter().map(Posting::memory).sum::<usize>()
    }
}

fn after((family, value): Key) -> Option<Key> {
    value.checked_add(1).map(|next| (family, next))
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::{Posting, Ranges, number};

    #[test]
    fn a_value_meets_the_ranges_it_lies_in() {
        let mut random = Random::seeded(11);
        for round in 0..300 {
            let count = 1 + random.below(if round % 10 == 0 { 200 } else { 8 });
            let ranges: Vec<(i64, i64)> = (0..count)
                .map(|_| {
                    let first = i64::from(random.below(60)) - 30;
                    (first, if random.below(20) == 0 { i64::MAX } else { first + i64::from(random.below(9)) })
                })
                .collect();
            let bits =
                ranges.iter().zip(0..).map(|((first, last), bit)| (number(*first), number(*last), bit));
            let (table, wide) = Ranges::new(bits.collect(), 4);
            for value in (-45..45).chain([i64::MIN, i64::MAX]) {
                let mut found = [0; 4];
                table.mark(number(value), &mut found);
                for (bit, (first, last)) in (0..).zip(&ranges) {
                    let met = found[bit as usize / 64] >> (bit % 64) & 1 == 1;
                    assert_eq!(
                        met,
                        (first..=last).contains(&&value) && !wide.contains(&bit),
                        "{value} in {first}..{last}"
                    );
                }
            }
            assert!(count > 20 || wide.is_empty(), "{ranges:?}");
        }
    }

    #[test]
    fn many_bits_take_no_more_than_their_words() {
        let (few, many) = (Posting::new(vec![3, 700], 100), Posting::new((0..3_000).collect(), 100));
        assert!(matches!(few, Posting::Few(_)) && matches!(many, Posting::Many(_)));
        let mut bits = vec![0; 100];
        many.mark(&mut bits);
        assert_eq!(bits.iter().map(|word: &u64| word.count_ones()).sum::<u32>(), 3_000);
    }
}
