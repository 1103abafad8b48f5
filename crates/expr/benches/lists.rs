//! What one look-up costs in a list of a million addresses and networks, and what an entry takes: `cargo bench -p expr --bench lists`.
//!
//! Entries come from a seed, half of the look-ups are of listed addresses; what was found is counted against a second reading.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    reason = "a measurement reads the clock and prints"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use base::random::Random;
use expr::lists::AddressSet;

const ENTRIES: usize = 1_000_000;
/// Look-ups in one measurement, and measurements of which the median is taken.
const LOOK_UPS: usize = 100_000;
const MEASUREMENTS: usize = 31;
/// Nanoseconds of a look-up and bytes of an entry that are meant to suffice.
const MOST_NANOSECONDS: f64 = 150.0;
const MOST_BYTES: f64 = 32.0;

/// What an operator's list holds: single hosts and networks.
fn entry(random: &mut Random, six: bool) -> (IpAddr, IpAddr) {
    if six {
        let first = (0x2a00_u128 << 112) | (u128::from(random.next_u64()) << 48);
        let last = first | 0xffff_ffff_ffff_u128;
        return (Ipv6Addr::from(first).into(), Ipv6Addr::from(last).into());
    }
    let first = random.below(u32::MAX);
    let network = random.below(4) == 0;
    let (first, last) = if network { (first & !0xff, first | 0xff) } else { (first, first) };
    (Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into())
}

/// Sorted and searched, as anybody would at first.
struct Reading(Vec<(IpAddr, IpAddr)>);

impl Reading {
    fn contains(&self, address: IpAddr) -> bool {
        // Networks of one length each, so the nearest beginnings suffice: 256 hosts may begin within a network before it.
        let end = self.0.partition_point(|(first, _)| *first <= address);
        self.0[..end].iter().rev().take(600).any(|(_, last)| *last >= address)
    }
}

fn measure(name: &str, six: fn(usize) -> bool) {
    let mut random = Random::seeded(7);
    let entries: Vec<_> = (0..ENTRIES).map(|number| entry(&mut random, six(number))).collect();
    let set = AddressSet::new(entries.iter().copied());
    let wanted: Vec<IpAddr> = (0..LOOK_UPS)
        .map(|number| match number % 2 {
            0 => entries[random.below(ENTRIES as u32) as usize].1,
            _ => entry(&mut random, six(number / 2)).0,
        })
        .collect();
    let mut sorted = entries;
    sorted.sort_unstable();
    let reading = Reading(sorted);
    let expected = wanted.iter().filter(|address| reading.contains(**address)).count();
    let ranges: Vec<_> = set.iter().collect();
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..MEASUREMENTS {
        ours.push(timed(name, &wanted, expected, |address| set.contains(address)));
        plain.push(timed(name, &wanted, expected, |address| {
            let after = ranges.partition_point(|(first, _)| *first <= address);
            after.checked_sub(1).is_some_and(|at| ranges[at].1 >= address)
        }));
    }
    let (ours, plain) = (median(ours), median(plain));
    let bytes = set.memory() as f64 / set.ranges() as f64;
    println!(
        "{name}: {ours:.0} ns a look-up (at most {MOST_NANOSECONDS:.0}; a binary search {plain:.0}), {bytes:.1} bytes an entry of \
         {} (at most {MOST_BYTES:.0}); {expected} of {LOOK_UPS} found",
        set.ranges()
    );
    assert!(bytes <= MOST_BYTES, "{name}: {bytes} bytes an entry");
}

/// Nanoseconds of one look-up; as many have to be found as there are.
fn timed(name: &str, wanted: &[IpAddr], expected: usize, contains: impl Fn(IpAddr) -> bool) -> f64 {
    let begun = Instant::now();
    let found = wanted.iter().filter(|address| contains(black_box(**address))).count();
    let taken = begun.elapsed().as_nanos() as f64 / LOOK_UPS as f64;
    assert_eq!(found, expected, "{name}: {LOOK_UPS} look-ups");
    taken
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[MEASUREMENTS / 2]
}

fn main() {
    measure("IPv4", |_| false);
    measure("IPv6", |_| true);
    measure("both", |number| number % 2 == 1);
}
