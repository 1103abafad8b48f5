//! Purges against a list of all there ever were, and what a crash leaves of them.

use base::random::Random;

use super::journal::RECORD;
use super::*;

const SECRET: Secret = Secret([3; 16]);

/// A purge as people say it.
#[derive(Clone, Debug)]
enum Said {
    Everything,
    Site(&'static str),
    Host(&'static str, &'static str),
    Prefix(&'static str, &'static str, String),
    Tag(&'static str, &'static str),
    Key(&'static str, u128),
}

#[derive(Clone, Debug)]
struct Object {
    site: &'static str,
    host: &'static str,
    path: String,
    key: u128,
    tags: Vec<Box<[u8]>>,
    stamp: Stamp,
    /// Purges before it.
    after: usize,
}

impl Said {
    fn target(&self) -> Target<'_> {
        match self {
            Self::Everything => Target::Everything,
            Self::Site(site) => Target::Site(site),
            Self::Host(site, host) => Target::Host(site, host.as_bytes()),
            Self::Prefix(site, host, prefix) => Target::Prefix(site, host.as_bytes(), prefix.as_bytes()),
            Self::Tag(site, tag) => Target::Tag(site, tag.as_bytes()),
            Self::Key(site, key) => Target::Key(site, KeyHash(*key)),
        }
    }

    fn concerns(&self, object: &Object) -> bool {
        match self {
            Self::Everything => true,
            Self::Site(site) => object.site == *site,
            Self::Host(site, host) => object.site == *site && object.host == *host,
            Self::Prefix(site, host, prefix) => {
                object.site == *site && object.host == *host && object.path.starts_with(prefix)
            }
            Self::Tag(site, tag) => {
                object.site == *site && object.tags.iter().any(|one| **one == *tag.as_bytes())
            }
            Self::Key(site, key) => object.site == *site && object.key == *key,
        }
    }
}

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u32) as usize]
}

/// Purges without writing anything down.
fn purge(marks: &Marks, target: Target<'_>, purge: Purge) {
    marks.purge::<()>(&[target], purge, |_| Ok(())).unwrap();
}

const SITES: [&str; 2] = ["shop", "news"];
const HOSTS: [&str; 2] = ["a.test", "b.test"];
const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/a/bc", "/ab", "/b/c/d"];
const TAGS: [&str; 3] = ["red", "green", "blue"];

fn said(random: &mut Random) -> Said {
    let (site, host) = (pick(random, &SITES), pick(random, &HOSTS));
    match random.below(12) {
        0 => Said::Everything,
        1 => Said::Site(site),
        2 => Said::Host(site, host),
        3..=5 => Said::Prefix(site, host, pick(random, &PATHS).to_owned()),
        6..=8 => Said::Tag(site, pick(random, &TAGS)),
        _ => Said::Key(site, u128::from(random.below(6))),
    }
}

fn object(random: &mut Random, marks: &Marks, after: usize) -> Object {
    let tags = TAGS.iter().filter(|_| random.below(3) == 0).map(|tag| tag.as_bytes().into()).collect();
    let at = random.below(6) as usize;
    Object {
        site: pick(random, &SITES),
        host: pick(random, &HOSTS),
        path: PATHS[at].to_owned(),
        key: at as u128,
        tags,
        stamp: marks.begin(),
        after,
    }
}

fn judged(marks: &Marks, object: &Object) -> Verdict {
    let Object { site, host, path, key, tags, stamp, .. } = object;
    marks.judge(&Subject {
        site,
        host: host.as_bytes(),
        path: path.as_bytes(),
        key: KeyHash(*key),
        tags,
        stamp: *stamp,
    })
}

fn expected(history: &[(Said, Purge)], object: &Object) -> Verdict {
    let since = history[object.after..].iter().filter(|(said, _)| said.concerns(object));
    since
        .map(|(_, purge)| if *purge == Purge::Hard { Verdict::Gone } else { Verdict::Stale })
        .max()
        .unwrap_or(Verdict::Good)
}

#[test]
fn an_object_is_what_the_purges_since_its_fetch_began_make_of_it() {
    let mut verdicts = [0; 3];
    for seed in 0..400 {
        let mut random = Random::seeded(seed);
        let marks = Marks::new(SECRET, MARKS_MOST);
        let (mut history, mut objects) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            if random.below(3) == 0 {
                let said = said(&mut random);
                let purge = if random.below(3) == 0 { Purge::Soft } else { Purge::Hard };
                self::purge(&marks, said.target(), purge);
                history.push((said, purge));
            } else {
                objects.push(object(&mut random, &marks, history.len()));
            }
            for object in &objects {
                let verdict = judged(&marks, object);
                assert_eq!(verdict, expected(&history, object), "{seed}: {object:?} {history:?}");
                verdicts[verdict as usize] += 1;
            }
        }
    }
    assert!(verdicts.iter().all(|count| *count > 5_000), "{verdicts:?}");
}

#[test]
fn with_too_many_marks_more_is_purged_and_never_less() {
    let mut more = 0;
    for seed in 0..200 {
        let mut random = Random::seeded(seed);
        let marks = Marks::new(SECRET, 6);
        let (mut history, mut objects) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            if random.below(2) == 0 {
                let said = said(&mut random);
                purge(&marks, said.target(), Purge::Hard);
                history.push((said, Purge::Hard));
                assert!(marks.stats().marks <= 6, "{:?}", marks.stats());
            } else {
                objects.push(object(&mut random, &marks, history.len()));
            }
            for object in &objects {
                let (verdict, expected) = (judged(&marks, object), expected(&history, object));
                assert!(verdict >= expected, "{seed}: {object:?}");
                more += usize::from(verdict > expected);
            }
        }
        // What comes now is judged by what comes after it alone.
        assert_eq!(judged(&marks, &object(&mut random, &marks, 0)), Verdict::Good);
    }
    assert!(more > 100, "{more}");
}

#[test]
fn more_prefixes_than_lengths_purge_their_host() {
    let marks = Marks::new(SECRET, MARKS_MOST);
    let mut random = Random::seeded(1);
    let mut other = object(&mut random, &marks, 0);
    (other.site, other.host) = ("shop", "a.test");
    for length in 0..LENGTHS_MOST + 1 {
        let prefix = "/x".repeat(length + 1);
        assert_eq!(judged(&marks, &other), Verdict::Good);
        purge(&marks, Target::Prefix("shop", b"a.test", prefix.as_bytes()), Purge::Hard);
    }
    assert_eq!((judged(&marks, &other), marks.stats().folded), (Verdict::Gone, 1));
    other.host = "b.test";
    assert_eq!(judged(&marks, &other), Verdict::Good);
}

#[test]
fn what_was_written_whole_is_in_force_again_wherever_a_crash_cuts() {
    let mut random = Random::seeded(9);
    let marks = Marks::new(SECRET, MARKS_MOST);
    let mut journal = Vec::new();
    let mut history = Vec::new();
    let objects: Vec<Object> = (0..40).map(|_| object(&mut random, &marks, 0)).collect();
    for _ in 0..12 {
        let said = said(&mut random);
        let write = |records: &[u8]| {
            journal.extend_from_slice(records);
            Ok::<(), ()>(())
        };
        marks.purge(&[said.target()], Purge::Hard, write).unwrap();
        history.push((said, Purge::Hard));
    }
    for end in 0..=journal.len() {
        let again = Marks::new(SECRET, MARKS_MOST);
        let good = again.replay(&journal[..end]);
        assert_eq!(good, end / RECORD * RECORD);
        assert_eq!(again.begin(), Stamp((end / RECORD) as u64), "stamps go on");
        for object in &objects {
            assert_eq!(judged(&again, object), expected(&history[..end / RECORD], object));
        }
    }
    for at in 0..journal.len() {
        let mut damaged = journal.clone();
        damaged[at] ^= 1 << random.below(8);
        assert_eq!(Marks::new(SECRET, MARKS_MOST).replay(&damaged), at / RECORD * RECORD);
    }
    // Written anew, all of it is there.
    let again = Marks::new(SECRET, MARKS_MOST);
    let records: Vec<u8> = marks.all().iter().flat_map(|mark| marks.record(mark)).collect();
    assert_eq!(again.replay(&records), records.len());
    objects.iter().for_each(|object| assert_eq!(judged(&again, object), judged(&marks, object)));
    assert_eq!(again.begin(), marks.begin());
}

#[test]
fn what_cannot_be_written_down_is_not_in_force() {
    let marks = Marks::new(SECRET, MARKS_MOST);
    let object = object(&mut Random::seeded(2), &marks, 0);
    let refused = marks.purge(&[Target::Everything, Target::Site("shop")], Purge::Hard, |_| Err("full"));
    assert_eq!((refused, judged(&marks, &object), marks.begin()), (Err("full"), Verdict::Good, Stamp(0)));
}

#[test]
fn a_fetch_that_begins_while_others_purge_is_purged_by_whoever_ends_after_it() {
    let marks = Marks::new(SECRET, MARKS_MOST);
    std::thread::scope(|scope| {
        for tag in ["red", "green"] {
            let marks = &marks;
            scope.spawn(move || {
                for _ in 0..20_000 {
                    let (stamp, tags) = (marks.begin(), [tag.as_bytes().into()]);
                    purge(marks, Target::Tag("shop", tag.as_bytes()), Purge::Hard);
                    let subject = Subject {
                        site: "shop",
                        host: b"a.test",
                        path: b"/",
                        key: KeyHash(0),
                        tags: &tags,
                        stamp,
                    };
                    assert_eq!(marks.judge(&subject), Verdict::Gone);
                }
            });
        }
    });
    assert_eq!(marks.begin(), Stamp(40_000));
}

#[test]
fn marks_no_object_is_older_than_are_forgotten() {
    let marks = Marks::new(SECRET, MARKS_MOST);
    for tag in 0..100_u8 {
        purge(&marks, Target::Tag("shop", &[tag]), Purge::Hard);
    }
    marks.forget_below(Stamp(90));
    assert_eq!((marks.stats().marks, marks.begin()), (10, Stamp(100)));
}
