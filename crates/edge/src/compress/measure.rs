//! What a level costs and saves, on this project's own pages and tables; decision 0021 rests on it.
//!
//! `cargo test --release -p edge --lib compress::measure -- --ignored --nocapture`

use std::time::{Duration, Instant};

use super::Coding;
use super::coder::{Coder, Step, level};
use crate::message::BodyLength;

const TEXTS: [(&str, &[u8]); 3] = [
    ("html", include_bytes!("../../../../docs/drills/02-module-panic.html")),
    ("json", include_bytes!("../../../../docs/reference/rempart.schema.json")),
    ("small json", b"{\"id\":4711,\"name\":\"one of many\",\"tags\":[\"first\",\"second\"],\"price\":{\"amount\":\"12.50\",\"currency\":\"EUR\"},\"stock\":[{\"place\":\"north\",\"pieces\":12},{\"place\":\"south\",\"pieces\":0},{\"place\":\"west\",\"pieces\":311}],\"links\":{\"self\":\"/goods/4711\",\"pictures\":\"/goods/4711/pictures\",\"similar\":\"/goods/4711/similar\"}}"),
];

const LEVELS: [(Coding, &[i32]); 3] = [
    (Coding::Gzip, &[1, 2, 3, 4, 5, 6, 9]),
    (Coding::Brotli, &[2, 3, 4, 5, 6]),
    (Coding::Zstd, &[1, 2, 3, 4, 5, 6]),
];

/// Compresses `text`, flushing after every `piece` bytes; gives back how many bytes came out.
fn once(coding: Coding, level: i32, length: BodyLength, text: &[u8], piece: usize) -> usize {
    let mut coder = Coder::with_level(coding, level, length).unwrap();
    let (mut output, mut bytes) = (vec![0; 16 << 10], 0);
    for (index, piece) in text.chunks(piece).enumerate() {
        let mut flushed = index == 0;
        while !flushed {
            let done = coder.step(&[], &mut output, Step::Flush).unwrap();
            bytes += done.written;
            flushed = done.whole;
        }
        let mut left = piece;
        while !left.is_empty() {
            let done = coder.step(left, &mut output, Step::Write).unwrap();
            bytes += done.written;
            left = &left[done.read..];
        }
    }
    loop {
        let done = coder.step(&[], &mut output, Step::Finish).unwrap();
        bytes += done.written;
        if done.whole {
            return bytes;
        }
    }
}

#[test]
#[ignore = "measures; asserts nothing about time"]
fn levels() {
    println!("text        bytes  coding level  MB/s  us each  left%  left% flushed each 4 KiB");
    for (name, text) in TEXTS {
        for (coding, levels) in LEVELS {
            for each in levels {
                let length = BodyLength::Exact(text.len() as u64);
                let (begin, mut rounds, mut made) = (Instant::now(), 0_u32, 0);
                while begin.elapsed() < Duration::from_millis(300) {
                    made = once(coding, *each, length, text, usize::MAX);
                    rounds += 1;
                }
                assert!(made > 0 && made < text.len());
                let seconds = begin.elapsed().as_secs_f64() / f64::from(rounds);
                let share = |made: usize| 100.0 * made as f64 / text.len() as f64;
                println!(
                    "{name:10} {:6}  {:6} {each:4}{} {:6.0} {:8.1} {:6.1} {:6.1}",
                    text.len(),
                    coding.name(),
                    if *each == level(coding) { '*' } else { ' ' },
                    text.len() as f64 / seconds / 1e6,
                    seconds * 1e6,
                    share(made),
                    share(once(coding, *each, BodyLength::Unknown, text, 4096)),
                );
            }
        }
    }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
#[ignore = "measures the process's memory, which other tests share; run it alone"]
fn memory() {
    const MANY: usize = 64;
    // Ever new words, so that tables and windows are used up to their ends.
    let mut state = 1_u64;
    let text: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:x} ", state >> 40).into_bytes()
    })
    .take(512 << 10)
    .flatten()
    .collect();
    for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
        let before = resident();
        let mut output = vec![0; 16 << 10];
        let coders: Vec<Coder> = (0..MANY)
            .map(|_| {
                let mut coder = Coder::new(coding, BodyLength::Unknown).unwrap();
                for mut left in text.chunks(64 << 10) {
                    while !left.is_empty() {
                        let done = coder.step(left, &mut output, Step::Write).unwrap();
                        left = &left[done.read..];
                    }
                }
                coder
            })
            .collect();
        let each = (resident() - before) / MANY;
        println!("{:6} {} KiB each, said {} KiB", coding.name(), each >> 10, coding.memory() >> 10);
        assert!(each <= coding.memory(), "{coding:?}");
        drop(coders);
    }
}
