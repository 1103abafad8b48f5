//! The store through crashes, damage and many generations.

use api::seal::SigningKey;
use base::time::Timestamp;
use snapshot::kind;
use snapshot::package::{Draft, pack};

use super::*;

fn made(generation: u64) -> Vec<u8> {
    let kind = kind::find("table").unwrap();
    let text = format!("#columns key:text\nrow-{generation}\n");
    let content = kind.read(text.as_bytes(), Timestamp(1)).unwrap();
    let draft = Draft {
        name: "features".to_owned(),
        generation,
        created: Timestamp(1),
        expires: None,
        source: String::new(),
        query_hash: None,
    };
    let key = SigningKey::from_seed(&[1; 32]).unwrap();
    pack(draft, kind::describe(kind, &content), text.as_bytes(), &key).unwrap()
}

fn numbers(store: &Store) -> Vec<u64> {
    store.candidates().into_iter().map(|(generation, _)| generation).collect()
}

#[test]
fn five_are_kept_and_those_that_matter_come_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    assert_eq!((numbers(&store), store.highest_ever()), (vec![], 0));
    for generation in 1..=9 {
        store.put(&made(generation), generation).unwrap();
        if generation == 2 {
            store.mark_good(2).unwrap();
        }
        if generation == 3 {
            store.mark_active(3).unwrap();
        }
    }
    assert_eq!(numbers(&store), [3, 2, 9, 8, 7, 6, 5]);
    assert_eq!((store.active(), store.good(), store.highest_ever()), (Some(3), Some(2), 9));
    fs::remove_file(store.file(9)).unwrap();
    assert_eq!(store.highest_ever(), 9, "numbers never go back");
    assert!(Store::open(folder.path(), "../x").is_err());
}

#[test]
fn what_is_damaged_is_set_aside_and_the_one_before_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    for generation in 1..=2 {
        store.put(&made(generation), generation).unwrap();
        store.mark_active(generation).unwrap();
    }
    let path = store.file(2);
    let good = fs::read(&path).unwrap();
    for cut in [0, 1, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..cut]).unwrap();
        assert_eq!(numbers(&store), [1], "cut at {cut}");
        assert!(!path.exists());
    }
    fs::write(store.marks_file(), "{\"active\":").unwrap();
    assert_eq!((numbers(&store), store.active()), (vec![1], None));
    store.mark_active(1).unwrap();
    assert_eq!(store.active(), Some(1));
}

#[test]
fn a_half_written_file_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    store.put(&made(1), 1).unwrap();
    // What a crash in the middle of `put` and of `mark_active` leaves behind.
    fs::write(store.file(2).with_extension("new"), &made(2)[..40]).unwrap();
    fs::write(store.marks_file().with_extension("new"), "{").unwrap();
    assert_eq!((numbers(&store), store.highest_ever()), (vec![1], 1));
    store.put(&made(2), 2).unwrap();
    assert_eq!(numbers(&store), [2, 1]);
}

#[test]
fn a_number_belongs_to_the_bytes_that_had_it_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    store.put(&made(1), 1).unwrap();
    store.put(&made(1), 1).unwrap();
    let refused = store.put(&made(2), 1).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    assert!(store.put_in_force(&made(2), 1, false).is_err());
    assert_eq!((store.candidates(), store.active()), (vec![(1, made(1))], None));
    // What is damaged belongs to nobody.
    fs::write(store.file(1), "torn").unwrap();
    store.put(&made(1), 1).unwrap();
    assert_eq!(numbers(&store), [1]);
}

#[test]
fn what_was_given_up_stays_so_for_who_opens_the_store_next() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    for generation in 1..=3 {
        store.put_in_force(&made(generation), generation, generation == 3).unwrap();
    }
    assert_eq!(store.unconfirmed(), Some(3));
    store.mark_confirmed(2).unwrap();
    assert_eq!(store.unconfirmed(), Some(3), "another one was confirmed");
    store.mark_good(3).unwrap();
    store.take_back(3, None, &"x".repeat(REASON + 1)).unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    assert_eq!(numbers(&store), [2, 1], "the newest file is not a candidate");
    assert_eq!((store.active(), store.good(), store.unconfirmed()), (None, None, None));
    assert_eq!(store.given_up(3).unwrap(), Some("x".repeat(REASON)));
    assert_eq!((store.given_up(2).unwrap(), store.highest_ever()), (None, 3));
    for generation in 100..200 {
        store.give_up(generation, &"\"".repeat(REASON)).unwrap();
    }
    assert_eq!(store.given_up(135).unwrap(), None, "the oldest are forgotten");
    assert!(store.given_up(136).unwrap().is_some(), "the marks never outgrow what is read of them");
}

#[test]
fn a_package_whose_writer_died_before_its_mark_has_not_used_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "features").unwrap();
    store.put_in_force(&made(1), 1, false).unwrap();
    fs::write(store.file(2), made(2)).unwrap();
    assert_eq!((store.highest_ever(), store.active()), (1, Some(1)));
    store.put_in_force(&made(2), 2, false).unwrap();
    assert_eq!((store.highest_ever(), store.active()), (2, Some(2)));
}
