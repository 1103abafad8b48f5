//! Tests of the store: order, what stays, what is set aside, and what is left after a kill at any moment.

use std::process::{Command, Stdio};

use super::*;
use crate::testing::table;

fn numbers(store: &Store) -> Vec<u64> {
    store.candidates().into_iter().map(|(number, _)| number).collect()
}

fn filled(folder: &Path, generations: impl IntoIterator<Item = u64>) -> Store {
    let store = Store::open(folder, "features").unwrap();
    generations.into_iter().for_each(|number| store.put(&table(number, 0..number), number).unwrap());
    store
}

#[test]
fn what_is_in_force_comes_first_then_the_good_one_then_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), 1..=3);
    assert_eq!(numbers(&store), [3, 2, 1]);
    store.mark_good(1).unwrap();
    store.mark_active(2).unwrap();
    assert_eq!(numbers(&store), [2, 1, 3]);
    (4..=9).for_each(|number| store.put(&table(number, 0..number), number).unwrap());
    assert_eq!(numbers(&store), [2, 1, 9, 8, 7], "five are kept, and those that are needed always");
    let again = Store::open(folder.path(), "features").unwrap();
    assert_eq!((again.active(), again.good(), again.highest_ever()), (Some(2), Some(1), 9));
    assert!(store.mark_active(6).is_err(), "it is not there any more");
}

#[test]
fn numbers_never_go_back_and_are_never_used_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), [5]);
    store.put(&table(5, 0..5), 5).unwrap();
    assert!(store.put(&table(5, 0..6), 5).is_err(), "another one with the same number");
    assert!(store.put(&table(4, 0..4), 4).is_err(), "an older one");
    fs::remove_file(store.file(5)).unwrap();
    assert_eq!(Store::open(folder.path(), "features").unwrap().highest_ever(), 5);
    assert!(store.put(&table(5, 0..6), 5).is_err());
}

#[test]
fn only_whole_packages_of_this_feed_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    let good = table(3, 0..9);
    assert!(store.put(&good, 4).is_err());
    assert!(store.put(&good[..good.len() - 1], 3).is_err());
    assert!(Store::open(folder.path(), "other").unwrap().put(&good, 3).is_err());
    assert!(Store::open(folder.path(), "../features").is_err());
    assert_eq!(numbers(&store), [0; 0]);
}

#[test]
fn a_damaged_one_is_set_aside_and_the_next_one_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), 1..=3);
    store.mark_active(3).unwrap();
    store.mark_good(2).unwrap();
    let mut bytes = fs::read(store.file(3)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(store.file(3), bytes).unwrap();
    assert_eq!(numbers(&store), [2, 1]);
    assert_eq!(store.highest_ever(), 3);
    assert!(store.mark_active(3).is_err());
    store.put(&table(3, 0..3), 3).unwrap();
    assert_eq!(numbers(&store), [3, 2, 1], "fetched again, it is as it was");
    fs::write(store.pointers_file(), "nonsense").unwrap();
    assert_eq!((store.active(), store.highest_ever()), (None, 3));
}

#[test]
fn damaged_ones_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    for number in 1..=9 {
        store.put(&table(number, 0..9), number).unwrap();
        fs::write(store.file(number), "x").unwrap();
        assert!(store.candidates().is_empty());
    }
    assert_eq!(store.listed(DAMAGED).unwrap(), [9, 8, 7, 6, 5]);
}

/// Where the child of the tests below works.
const CRASH_FOLDER: &str = "REMPART_FEED_CRASH_FOLDER";

/// Puts one generation after the other in force and says so, until it is killed.
#[test]
#[ignore = "run as a child by the tests of kills"]
fn writes_until_killed() {
    let folder = std::env::var_os(CRASH_FOLDER).expect("run as a child");
    let store = Store::open(Path::new(&folder), "features").unwrap();
    loop {
        let number = store.highest_ever() + 1;
        store.put(&table(number, 0..200), number).unwrap();
        store.mark_active(number).unwrap();
        if number.is_multiple_of(3) {
            store.mark_good(number).unwrap();
        }
        println!("in force {number}");
    }
}

/// Kills a writer again and again: after it said so many lines, and a random while later.
fn survives_kills(kills: u64) {
    use std::io::BufRead as _;
    let folder = tempfile::tempdir().unwrap();
    let (mut seed, mut last, mut said) = (0x9e37_79b9_7f4a_7c15_u64, 0, 0);
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::writes_until_killed", "--ignored", "--nocapture"])
            .env(CRASH_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut told = lines.filter_map(|line| line.strip_prefix("in force ").and_then(|it| it.parse().ok()));
        said = told.next().expect("the writer writes");
        (seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17);
        // One generation takes some hundred microseconds, so this ends in any part of it.
        std::thread::sleep(std::time::Duration::from_micros(seed % 3000));
        child.kill().unwrap();
        child.wait().unwrap();
        said = told.last().unwrap_or(said);
        let store = Store::open(folder.path(), "features").unwrap();
        let active = store.active().expect("one was in force");
        let (first, bytes) = store.candidates().into_iter().next().unwrap();
        assert_eq!(first, active, "kill {kill}: the one in force is whole");
        assert_eq!(bytes, table(active, 0..200), "kill {kill}");
        assert!(active >= last && active >= said, "kill {kill}: {active} after {last}, {said} was said");
        assert!(store.highest_ever() >= active && store.good() <= Some(active), "kill {kill}");
        assert_eq!(store.listed(DAMAGED).unwrap(), [0; 0], "kill {kill}: nothing is ever torn");
        last = active;
    }
    assert!(last >= kills && said > 0);
}

#[test]
fn fifty_kills_tear_nothing() {
    survives_kills(50);
}

#[test]
#[ignore = "slow: half a thousand kills"]
fn five_hundred_kills_tear_nothing() {
    survives_kills(500);
}
