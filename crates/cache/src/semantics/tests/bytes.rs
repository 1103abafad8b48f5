//! Heads as bytes: what is read is what was written, and nothing else is read.

use std::time::Duration;

use base::random::Random;
use base::time::Timestamp;

use super::super::range::{Held, Span};
use super::super::stored::{HEAD_MOST, Source, Stored};
use super::super::vary::Selecting;
use super::story::fields;

fn stored() -> Stored {
    Stored {
        key: b"a\0https\0a.test\0/\0"[..].into(),
        status: 200,
        fields: fields(&[("ETag", "\"a\""), ("X-Empty", ""), ("Content-Type", "text/html")]),
        selecting: Selecting(vec![(b"accept"[..].into(), Some(b"x"[..].into())), (b"foo"[..].into(), None)]),
        asked: Timestamp(5),
        answered: Timestamp(9),
        initial_age: Duration::from_micros(3),
        lifetime: Duration::from_secs(60),
        source: Source::SMaxage,
        always_ask: false,
        never_stale: true,
        while_revalidate: Duration::ZERO,
        if_error: Some(Duration::from_secs(1)),
        length: None,
        held: Held::Pieces(vec![Span { first: 0, last: 4 }, Span { first: 9, last: 9 }]),
        tags: vec![b"one"[..].into()],
    }
}

#[test]
fn what_is_read_is_what_was_written() {
    let stored = stored();
    let bytes = stored.encode().unwrap();
    let read = Stored::decode(&bytes).unwrap();
    assert_eq!(format!("{stored:?}"), format!("{read:?}"));
    assert_eq!(read.encode().unwrap(), bytes);
    let mut large = stored;
    large.fields.push("x", vec![b'x'; HEAD_MOST]);
    assert!(large.encode().is_none(), "too long to be kept");
}

#[test]
fn what_is_damaged_is_refused_or_reads_as_something_whole() {
    let bytes = stored().encode().unwrap();
    for end in 0..bytes.len() {
        assert!(Stored::decode(&bytes[..end]).is_none(), "cut at {end}");
    }
    let mut random = Random::seeded(11);
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(damaged.len() as u32) as usize;
            damaged[at] = random.next_u64() as u8;
        }
        match Stored::decode(&damaged) {
            None => refused += 1,
            // The same again: nothing was read beyond what is there.
            Some(read) => assert!(Stored::decode(&read.encode().unwrap()).is_some()),
        }
    }
    assert!(refused > 2_000, "{refused}");
}
