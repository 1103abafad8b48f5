//! Packages over random sequences: what goes in comes out, no change passes, and what is in force has passed every check.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use api::seal::{Keyring, SigningKey};
use base::random::Random;
use base::time::Timestamp;
use snapshot::kind::{self, Kind, check, describe, find};
use snapshot::package::{
    Caps, Described, Draft, MAX_BYTES, Manifest, Package, PackageError, open, pack, peek,
};

const NOW: Timestamp = Timestamp(1_000_000_000_000);
const CAPS: Caps = Caps { bytes: 20_000, entries: 200, memory: 200_000 };

fn table_kind() -> &'static dyn Kind {
    find("table").unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn ring() -> Keyring {
    Keyring::new([key(1).public().into(), key(2).public().into()]).unwrap()
}

fn draft(random: &mut Random, generation: u64) -> Draft {
    let name = |random: &mut Random| {
        (0..=random.below(63)).map(|_| char::from(b"abcxyz019-"[random.below(10) as usize])).collect()
    };
    Draft {
        name: name(random),
        generation,
        created: Timestamp(random.next_u64()),
        expires: (random.below(2) == 0).then(|| Timestamp(NOW.0 + 1 + random.next_u64() / 2)),
        source: (0..random.below(30))
            .map(|_| ['a', 'é', '"', '\\', '/', '\u{2028}', '𝄞'][random.below(7) as usize])
            .collect(),
        query_hash: (random.below(2) == 0).then(|| format!("{:064x}", random.next_u64())),
    }
}

fn payload(random: &mut Random) -> Vec<u8> {
    let (length, alphabet) = (random.below(3000), 1 + random.below(256));
    (0..length).map(|_| u8::try_from(random.below(alphabet)).unwrap()).collect()
}

fn described(payload: &[u8]) -> Described {
    let keys_digest = format!("{:064x}", payload.len());
    Described { kind: "table", schema: 1, consumers: (1, 1), entries: 1, keys_digest, memory: 1 }
}

#[test]
fn what_goes_in_comes_out_and_is_written_in_one_way() {
    for seed in 0..200 {
        let random = &mut Random::seeded(seed);
        let (draft, payload, signer) =
            (draft(random, u64::from(seed == 0)), payload(random), key(1 + (seed % 2) as u8));
        let bytes = pack(draft.clone(), described(&payload), &payload, &signer).unwrap();
        let package =
            open(&bytes, &ring(), NOW, MAX_BYTES, true).unwrap_or_else(|found| panic!("{seed}: {found}"));
        let Manifest { name, created, expires, source, query_hash, generation, .. } =
            package.manifest.clone();
        assert_eq!(Draft { name, generation, created, expires, source, query_hash }, draft, "seed {seed}");
        assert_eq!((&*package.payload, package.key), (&payload[..], signer.public().id()), "seed {seed}");
        assert_eq!(peek(&bytes).unwrap(), package.manifest);
        assert_eq!(pack(draft, described(&payload), &payload, &signer).unwrap(), bytes, "seed {seed}");
    }
}

/// Damage of one sort: bits, bytes, pieces moved, doubled, left out.
fn damaged(random: &mut Random, good: &[u8]) -> Vec<u8> {
    let at = |random: &mut Random| random.below(u32::try_from(good.len()).unwrap()) as usize;
    let (from, to) = (at(random), at(random));
    let (from, to) = (from.min(to), from.max(to));
    let mut bad = good.to_vec();
    match random.below(6) {
        0 => bad[from] ^= 1 << random.below(8),
        1 => bad.truncate(from),
        2 => bad.insert(from, random.below(256) as u8),
        3 => drop(bad.drain(from..to)),
        4 => bad[from..to].reverse(),
        _ => bad.extend_from_slice(&good[from..]),
    }
    bad
}

#[test]
fn no_damage_passes() {
    for seed in 0..40 {
        let random = &mut Random::seeded(seed);
        let payload = payload(random);
        let good = pack(draft(random, 3), described(&payload), &payload, &key(1)).unwrap();
        for _ in 0..50 {
            let bad = damaged(random, &good);
            let found = open(&bad, &ring(), NOW, MAX_BYTES, true);
            assert!(bad == good || found.is_err(), "seed {seed}: {found:?}");
            // Other keys, a later time, a smaller limit: each is its own error.
            let stranger = Keyring::new([key(9).public().into()]).unwrap();
            assert!(matches!(open(&good, &stranger, NOW, MAX_BYTES, true), Err(PackageError::Seal(_))));
        }
    }
}

fn text(rows: &[(u32, i32)]) -> String {
    let row = |(key, weight): &(u32, i32)| format!("feature-{key}\t{}\n", f64::from(*weight) / 8.0);
    std::iter::once("#columns name:text weight:number\n".to_owned()).chain(rows.iter().map(row)).collect()
}

/// A package as its maker would make it, who believes what the text says.
fn made(generation: u64, text: &str, content: &str) -> Package {
    let counted = table_kind().read(content.as_bytes(), NOW).unwrap();
    let draft = Draft { generation, expires: None, ..draft(&mut Random::seeded(generation), 0) };
    let bytes = pack(draft, describe(table_kind(), &counted), text.as_bytes(), &key(1)).unwrap();
    open(&bytes, &ring(), NOW, MAX_BYTES, true).unwrap()
}

/// A good successor: weights move, one row of twenty goes, a few come.
fn next(random: &mut Random, rows: &[(u32, i32)], fresh: &mut u32) -> Vec<(u32, i32)> {
    let mut next: Vec<_> = rows
        .iter()
        .map(|(key, weight)| (*key, (weight + 1 - random.below(3) as i32).clamp(-80, 80)))
        .collect();
    next[0].1 = 80;
    next[1].1 = -80;
    for _ in 0..random.below(1 + u32::try_from(rows.len() / 20).unwrap()) {
        next.remove(2 + random.below(u32::try_from(next.len()).unwrap() - 2) as usize);
    }
    while next.len() < 200 && random.below(3) > 0 {
        *fresh += 1;
        next.push((*fresh, 0));
    }
    next
}

/// One fault put into good rows: the code it must be refused with, and whether force lifts it.
fn spoilt(random: &mut Random, rows: &[(u32, i32)], generation: u64) -> (Package, &'static str, bool) {
    let good = text(rows);
    let number = generation + 1 + u64::from(random.below(5));
    let honest = |text: &str| made(number, text, text);
    let believed = |text: &str| made(number, text, &good);
    let more = |count: u32| {
        text(&rows.iter().copied().chain((0..count).map(|key| (1_000_000 + key, 1))).collect::<Vec<_>>())
    };
    match random.below(12) {
        0 => (believed(&(good.clone() + "feature-x\t1\nfeature-x\t1\n")), "duplicate-keys", false),
        1 => (believed(&(good.clone() + "feature-x\t1\t1\n")), "bad-row", false),
        2 => (believed(&(good.clone() + "feature-x\tNaN\n")), "not-finite", false),
        3 => (believed(&good[..good.len() - 1]), "truncated", false),
        4 => (honest("#columns name:text weight:number\n"), "empty", false),
        5 => (honest(&more(201)), "too-many-entries", false),
        6 => (honest("#columns name:text weight:number\nfeature-1\t1\n"), "shrinks-too-much", true),
        7 => (honest(&text(&rows[..rows.len() - rows.len() / 20 - 2])), "shrinks-too-much", true),
        8 => (made(generation - u64::from(random.below(2)), &good, &good), "not-newer", false),
        9 => (believed(&(good.clone() + "feature-x\t1\n")), "manifest-disagrees", false),
        10 => (honest(&text(&rows.iter().map(|(key, _)| (*key, 0)).collect::<Vec<_>>())), "one-value", true),
        _ => (
            honest(&text(&rows.iter().map(|(key, weight)| (*key, weight * 11)).collect::<Vec<_>>())),
            "out-of-range",
            true,
        ),
    }
}

#[test]
fn what_is_in_force_has_passed_every_check_and_generations_never_go_back() {
    let mut refused = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let random = &mut Random::seeded(seed);
        let (mut rows, mut fresh): (Vec<_>, u32) = ((0..60).map(|key| (key, key as i32)).collect(), 60);
        rows[0].1 = 80;
        rows[1].1 = -80;
        let mut in_force = made(10, &text(&rows), &text(&rows));
        for _ in 0..30 {
            let generation = in_force.manifest.generation;
            if random.below(2) == 0 {
                let (bad, code, lifted) = spoilt(random, &rows, generation);
                let found = check(&bad, Some(&in_force), CAPS, false, NOW).err().unwrap_or_default();
                assert!(
                    found.iter().any(|finding| finding.code == code),
                    "seed {seed}: {code}, not {found:?}"
                );
                assert!(found.iter().all(|finding| finding.hint.is_some()), "a way out: {found:?}");
                assert_eq!(
                    check(&bad, Some(&in_force), CAPS, true, NOW).is_ok(),
                    lifted,
                    "seed {seed}: {code} forced"
                );
                refused.insert(code);
            } else {
                rows = next(random, &rows, &mut fresh);
                let good = made(generation + 1, &text(&rows), &text(&rows));
                let checked = check(&good, Some(&in_force), CAPS, false, NOW);
                let checked = checked.unwrap_or_else(|found| panic!("seed {seed}: {found:?}"));
                assert_eq!(checked.content.classes[0].keys.len(), rows.len());
                assert!(table_kind().exercise(&checked.content).is_ok());
                in_force = good;
            }
        }
    }
    assert_eq!(refused.len(), 11, "{refused:?}");
}

#[test]
fn every_kind_refuses_any_bytes_with_a_reason_and_a_way_out() {
    for seed in 0..300 {
        let random = &mut Random::seeded(seed);
        let payload = payload(random);
        for kind in kind::KINDS {
            let Err(found) = kind::read(*kind, &payload, kind.caps(), NOW) else { continue };
            assert!(!found.is_empty(), "{}: refused without a finding", kind.name());
            assert!(found.iter().all(|finding| finding.hint.is_some()), "{}: {found:?}", kind.name());
        }
    }
}
