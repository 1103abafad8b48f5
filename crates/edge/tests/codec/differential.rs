//! Generated and damaged request heads: the codec and the second reading have to agree on every one of them.

use base::event::Protocol;
use edge::h1::parse::{self, Framing, HeadEnd};

use crate::messages::{self, LIMITS};
use crate::second_reading::{self, Body, Reading};

/// Heads tried for each seed.
const HEADS: u32 = 50_000;
/// Different starts; a failure names the one it came from.
const SEEDS: [u64; 3] = [1, 0x9e37_79b9, 2112];

const METHODS: &[&str] =
    &["GET", "POST", "OPTIONS", "HEAD", "get", "CONNECT", "TRACE", "M-SEARCH", "G T", ""];
const TARGETS: &[&str] = &[
    "/",
    "/a?b=c",
    "//x",
    "*",
    "http://a",
    "http://a/x",
    "HTTPS://A:80?q",
    "http://b/",
    "http://u@a/",
    "http://",
    "ftp://a/",
    "a:80",
    "/#f",
    "/a b",
    "/%zz",
    "",
];
const VERSIONS: &[&str] =
    &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.3", "HTTP/2.0", "http/1.1"];
const HOSTS: &[&str] =
    &["a", "A", "a:80", "b", "[::1]:80", "[::1", "a%20", "a%2", "", "a,b", "a:x", "u@a", " a\t"];
const NAMES: &[&str] = &[
    "Host",
    "host",
    "Content-Length",
    "content-length",
    "Content_Length",
    "Transfer-Encoding",
    "TRANSFER-ENCODING",
    "transfer_encoding",
    "Connection",
    "Expect",
    "Upgrade",
    "Accept",
    "X Y",
    " X",
    "X ",
    "",
];
const VALUES: &[&str] = &[
    "chunked",
    " chunked ",
    "Chunked",
    "gzip, chunked",
    "chunked, chunked",
    "identity",
    "0",
    "5",
    "\t005",
    "+5",
    "5,5",
    "999999999999999999999",
    "close",
    "keep-alive",
    "x, Close",
    "100-continue",
    "100-Continue",
    "",
    " ",
    "a",
    "\u{e9}",
];
/// What damage puts in.
const BYTES: &[u8] = b"\0\t\n\x0b\r !\"#%+,-./01:;=?@A[]_a\x7f\x80\xff";

/// A reproducible sequence of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ (number >> 31)) % end as u64) as usize
    }

    /// Mostly the first of a list, which is good.
    fn one<'a>(&mut self, list: &[&'a str]) -> &'a str {
        if self.below(6) > 0 { list[0] } else { list[self.below(list.len())] }
    }

    fn head(&mut self) -> Vec<u8> {
        let mut text = format!("{} {} {}\r\n", self.one(METHODS), self.one(TARGETS), self.one(VERSIONS));
        if self.below(8) > 0 {
            text.push_str(&format!("Host:{}\r\n", self.one(HOSTS)));
        }
        for _ in 0..self.below(3) {
            let (name, value) = (self.below(NAMES.len()), self.below(VALUES.len()));
            text.push_str(&format!("{}:{}\r\n", NAMES[name], VALUES[value]));
        }
        if self.below(200) == 0 {
            text.push_str(&"x: 1\r\n".repeat(LIMITS.fields - self.below(3)));
        }
        text.push_str("\r\n");
        let mut head = text.into_bytes();
        if self.below(3) == 0 {
            for _ in 0..=self.below(2) {
                self.damage(&mut head);
            }
        }
        head
    }

    /// Changes, removes, adds or repeats something small.
    fn damage(&mut self, head: &mut Vec<u8>) {
        let at = self.below(head.len());
        let byte = BYTES[self.below(BYTES.len())];
        match self.below(5) {
            0 => head[at] = byte,
            1 => head.insert(at, byte),
            2 => {
                head.remove(at);
            }
            3 => head[at] ^= 0x20,
            _ => {
                let end = (at + self.below(30)).min(head.len());
                let again = head[at..end].to_vec();
                head.splice(at..at, again);
            }
        }
        if head.is_empty() {
            head.push(byte);
        }
    }
}

/// The codec's view in the words of the second reading.
fn codec(input: &[u8]) -> Option<Reading> {
    let HeadEnd::At(end) = parse::find_head_end(input, 0) else { return None };
    let parsed = parse::parse_request(&input[..end], &LIMITS).ok()?;
    let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
    Some(Reading {
        method: parsed.head.method.as_str().to_owned(),
        authority: parsed.head.authority,
        target: parsed.head.target,
        http10: parsed.head.protocol == Protocol::Http10,
        fields: parsed.head.headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
        body: match parsed.framing {
            Framing::None => Body::None,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked,
            Framing::Close => panic!("a request does not end with its connection"),
        },
        keep_alive: parsed.keep_alive,
    })
}

#[test]
fn two_readings_agree() {
    for seed in SEEDS {
        let mut random = Random(seed);
        let (mut taken, mut refused) = (0, 0);
        for number in 0..HEADS {
            let head = random.head();
            let (ours, theirs) = (codec(&head), second_reading::read(&head, &LIMITS));
            assert_eq!(ours, theirs, "seed {seed}, head {number}: {:?}", head.escape_ascii().to_string());
            if ours.is_some() { taken += 1 } else { refused += 1 }
        }
        // Heads that are all good or all bad would compare nothing.
        assert!(taken > HEADS / 10 && refused > HEADS / 10, "seed {seed}: {taken} taken, {refused} refused");
    }
}

#[test]
fn a_generated_request_in_two_reads_is_the_same_request() {
    let mut random = Random(7);
    for number in 0..HEADS {
        let mut input = random.head();
        input.extend_from_slice(b"5;a=b\r\nhello\r\n0\r\nx: 1\r\n\r\n");
        let (first, second) = input.split_at(1 + random.below(input.len() - 1));
        let whole = messages::request(&[&input]);
        let split = messages::request(&[first, second]);
        assert_eq!(
            split,
            whole,
            "head {number}: {:?} then {:?}",
            first.escape_ascii(),
            second.escape_ascii()
        );
    }
}
