//! A shard against a list that says the same slowly, threads, and hit ratios beside two simulations.

mod ratio;

use std::collections::HashMap;

use base::random::Random;

use super::*;

#[derive(Debug, PartialEq, Eq)]
struct Object {
    variant: u32,
    bytes: usize,
}

impl Weigh for Object {
    fn weight(&self) -> usize {
        self.bytes
    }
}

fn object(variant: u32, bytes: usize) -> Arc<Object> {
    Arc::new(Object { variant, bytes })
}

/// As a keyed hash would spread it.
fn key(number: u64) -> KeyHash {
    let mixed = Random::seeded(number).next_u64();
    KeyHash((u128::from(mixed) << 64) | u128::from(mixed.rotate_left(17)))
}

#[test]
fn what_is_there_is_what_was_put_there_last_and_never_more_than_the_limit() {
    let mut random = Random::seeded(4);
    for limit in [200 << 10, 64 << 20] {
        let memory: Memory<Object> = Memory::new(limit);
        let mut put: HashMap<(u64, u32), usize> = HashMap::new();
        let (mut found, mut refused) = (0, 0);
        for _ in 0..60_000 {
            let (number, variant) = (u64::from(random.below(400)), random.below(3));
            match random.below(8) {
                0..=3 => {
                    let got = memory.get(key(number), |object| object.variant == variant);
                    let expected = put.get(&(number, variant));
                    if let Some(got) = got {
                        assert_eq!(Some(&got.bytes), expected);
                        found += 1;
                    }
                }
                4..=6 => {
                    let most = if random.below(50) == 0 { 100_000 } else { 4_000 };
                    let bytes = 1 + random.below(most) as usize;
                    let inserted =
                        memory.insert(key(number), object(variant, bytes), |old| old.variant == variant);
                    if inserted == Inserted::Kept {
                        put.insert((number, variant), bytes);
                    } else {
                        // The old one went all the same: it is not right any more.
                        assert!(memory.get(key(number), |object| object.variant == variant).is_none());
                        refused += 1;
                    }
                }
                _ => {
                    memory.remove(key(number), |object| object.variant == variant);
                    assert!(memory.get(key(number), |object| object.variant == variant).is_none());
                    put.remove(&(number, variant));
                }
            }
            let stats = memory.stats();
            assert!(stats.bytes <= limit, "{stats:?}");
        }
        assert!(found > 1_000, "{found}");
        assert_eq!(refused > 0, limit < 1 << 20, "{refused}");
    }
}

#[test]
fn bytes_are_counted_exactly_and_all_given_back() {
    let memory: Memory<Object> = Memory::new(32 << 20);
    for number in 0..1_000 {
        memory.insert(key(number), object(0, 100), |_| true);
    }
    let stats = memory.stats();
    let overhead = Shard::<Object>::new(Limit::of(1)).bytes();
    assert_eq!((stats.objects, stats.bytes % 1_000, overhead), (1_000, 0, 0));
    assert!(stats.bytes / 1_000 > 100 + size_of::<Object>(), "{stats:?}");
    for number in 0..1_000 {
        assert_eq!(memory.remove(key(number), |_| true), 1);
    }
    assert_eq!((memory.stats().objects, memory.stats().bytes), (0, 0));
}

#[test]
fn a_key_has_so_many_variants_and_the_oldest_goes_first() {
    let memory: Memory<Object> = Memory::new(32 << 20);
    for variant in 0..VARIANTS_MOST as u32 + 5 {
        memory.insert(key(1), object(variant, 10), |_| false);
    }
    let variants: Vec<u32> = memory.variants(key(1)).iter().map(|object| object.variant).collect();
    assert_eq!(variants, (5..VARIANTS_MOST as u32 + 5).collect::<Vec<_>>());
}

#[test]
fn a_smaller_limit_holds_at_once_and_a_larger_one_fills_again() {
    let memory: Memory<Object> = Memory::new(16 << 20);
    let fill = || {
        for number in 0..4_000 {
            memory.insert(key(number), object(0, 4_000), |_| true);
        }
    };
    fill();
    assert!(memory.stats().bytes > 15 << 20);
    memory.resize(1 << 20);
    assert!(memory.stats().bytes <= 1 << 20 && memory.stats().objects > 0);
    memory.resize(0);
    assert_eq!((memory.stats().objects, memory.stats().bytes), (0, 0));
    assert_eq!(memory.insert(key(1), object(0, 10), |_| true), Inserted::TooLarge);
    memory.resize(16 << 20);
    fill();
    assert!(memory.stats().bytes > 15 << 20);
    let largest = memory.largest(3);
    assert!(largest.len() == 3 && largest[0].0 >= 4_000);
}

#[test]
fn threads_see_whole_objects_and_the_limit_holds() {
    let memory: Memory<Object> = Memory::new(24 << 20);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let memory = &memory;
            scope.spawn(move || {
                let mut random = Random::seeded(thread);
                for _ in 0..40_000 {
                    let number = u64::from(random.below(20_000));
                    match memory.get(key(number), |_| true) {
                        // Each says which key it belongs to.
                        Some(found) => assert_eq!(u64::from(found.variant), number),
                        None => {
                            let bytes = random.below(8_000) as usize;
                            memory.insert(key(number), object(number as u32, bytes), |_| true);
                        }
                    }
                }
            });
        }
    });
    let stats = memory.stats();
    assert!(stats.bytes <= 24 << 20 && stats.hits > 10_000 && stats.evictions > 10_000, "{stats:?}");
}
