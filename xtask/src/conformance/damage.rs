//! Foreign vectors with something small changed, so that more is tried than what somebody once wrote down. The same seed
//! always gives the same ones.

use super::vectors::Vector;

/// What is put in, besides single bytes and pieces of the vector itself.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\x7f",
    b"\xa0",
    b"\xff",
    b":",
    b";",
    b",",
    b"\"",
    b"\\",
    b"#",
    b"%00",
    b"+",
    b"-",
    b"0",
    b"0x",
    b"_",
    b";a=\"b\"",
    b";a=\"b\n\"",
    b"\r\n ",
    b"\r\n\r\n",
    b"chunked",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0",
    b"\r\nTransfer_Encoding: chunked",
    b"\r\nHost: other",
    b"\r\nConnection: close",
    b"\r\nConnection: host, x",
    b"\r\nExpect: 100-continue",
    b"\r\nTE: trailers",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"http://other/",
    b"0\r\n\r\n",
    b"5\r\nabcde\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
];

/// A reproducible sequence of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((number ^ (number >> 31)) % end.max(1) as u64).unwrap_or_default()
    }

    fn one<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }
}

/// `count` vectors, each made of one of these by one or two changes.
pub fn damaged(vectors: &[Vector], count: usize, seed: u64) -> Vec<Vector> {
    let mut random = Random(seed);
    let mut made = Vec::new();
    for number in 0..count {
        let Some(vector) = random.one(vectors) else { break };
        let mut bytes = vector.bytes.clone();
        for _ in 0..=random.below(2) {
            change(&mut bytes, &mut random);
        }
        made.push(Vector { name: format!("{}, changed ({seed}/{number})", vector.name), bytes });
    }
    made
}

fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1).min(bytes.len());
    let end = (at + random.below(12)).min(bytes.len());
    match random.below(5) {
        0 | 1 => {
            let piece = random.one(PIECES).copied().unwrap_or_default();
            bytes.splice(at..at, piece.iter().copied());
        }
        2 => drop(bytes.drain(at..end)),
        3 => {
            let again = bytes.get(at..end).unwrap_or_default().to_vec();
            bytes.splice(at..at, again);
        }
        _ => {
            let piece = random.one(PIECES).copied().unwrap_or_default();
            bytes.splice(at..end, piece.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_vectors() {
        let vectors = [Vector { name: "a".to_owned(), bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec() }];
        let bytes = |seed| damaged(&vectors, 50, seed).into_iter().map(|one| one.bytes).collect::<Vec<_>>();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        assert!(bytes(1).iter().filter(|made| **made != vectors[0].bytes).count() > 40);
    }
}
