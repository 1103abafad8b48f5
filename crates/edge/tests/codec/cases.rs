//! Case files: a name, the bytes that come in (`>`), and what the codec makes of them, one `check` for all.
//!
//! ```text
//! == name of the case
//! > GET / HTTP/1.1
//! > Host: a
//! >
//! GET a / HTTP/1.1 keep
//! ```
//!
//! An input line ends in CR LF, unless its last character is a backslash: then nothing is added. `\r`, `\n`, `\t`, `\\`
//! and `\x7f` are bytes, and `\{ab*3}` is `ababab`. `#` begins a comment between cases.

use std::fmt::Write;
use std::path::Path;

use crate::{http2, messages};

/// One case of a file.
pub struct Case {
    /// File and name, for messages.
    pub name: String,
    /// The bytes that come in.
    pub input: Vec<u8>,
    /// What is expected, line by line.
    pub expected: String,
}

/// The cases of every file in a folder, in the order of the file names.
pub fn read(folder: &str) -> Vec<Case> {
    // Where the folder is now: a program out of a cache may have been built elsewhere.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let folder = Path::new(&here).join("tests/codec/cases").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let file = file.file_stem().unwrap().to_string_lossy().into_owned();
        for case in text.split("\n== ").skip(1) {
            let (name, body) = case.split_once('\n').unwrap();
            let name = format!("{file}: {name}");
            let (mut input, mut expected) = (Vec::new(), String::new());
            for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                match line.strip_prefix('>') {
                    Some(line) if expected.is_empty() => {
                        unescape(line.strip_prefix(' ').unwrap_or(line), &mut input);
                    }
                    Some(_) => panic!("{name}: input after what is expected"),
                    None => writeln!(expected, "{line}").unwrap(),
                }
            }
            assert!(!input.is_empty() && !expected.is_empty(), "{name}: half a case");
            cases.push(Case { name, input, expected });
        }
    }
    cases
}

/// The bytes of one input line.
fn unescape(line: &str, input: &mut Vec<u8>) {
    let (mut rest, mut end) = (line, &b"\r\n"[..]);
    while let Some((plain, escape)) = rest.split_once('\\') {
        input.extend_from_slice(plain.as_bytes());
        let length = match escape.as_bytes().first() {
            None => {
                end = b"";
                0
            }
            Some(b'{') => {
                let (text, count) = escape[1..escape.find('}').unwrap()].rsplit_once('*').unwrap();
                input.extend_from_slice(text.repeat(count.parse().unwrap()).as_bytes());
                escape.find('}').unwrap() + 1
            }
            Some(b'x') => {
                input.push(u8::from_str_radix(&escape[1..3], 16).unwrap());
                3
            }
            Some(letter) => {
                let at = b"rnt\\".iter().position(|known| known == letter).unwrap();
                input.push(b"\r\n\t\\"[at]);
                1
            }
        };
        rest = &escape[length..];
    }
    input.extend_from_slice(rest.as_bytes());
    input.extend_from_slice(end);
}

/// Bytes as a case file shows them.
pub fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// Reads every case of a folder and compares; all differences are shown at once.
fn check(folder: &str, at_least: usize, read_one: impl Fn(&Case) -> String) {
    let cases = read(folder);
    let mut wrong = String::new();
    for case in &cases {
        let seen = read_one(case);
        if seen != case.expected {
            writeln!(wrong, "{}\nexpected:\n{}came:\n{seen}", case.name, case.expected).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases.len() >= at_least, "{folder}: only {} cases were read", cases.len());
}

#[test]
fn requests() {
    check("requests", 100, |case| messages::request(&[&case.input]));
}

#[test]
fn responses() {
    check("responses", 30, |case| messages::response(&[&case.input], case.name.contains("HEAD")));
}

#[test]
fn http2_requests() {
    check("http2", 25, |case| http2::request(&case.input));
}

#[test]
fn a_message_in_two_reads_is_the_same_message() {
    for case in read("requests") {
        let whole = messages::request(&[&case.input]);
        for at in 1..case.input.len() {
            let (first, second) = case.input.split_at(at);
            assert_eq!(messages::request(&[first, second]), whole, "{}, split at {at}", case.name);
        }
    }
    for case in read("responses") {
        let to_head = case.name.contains("HEAD");
        let whole = messages::response(&[&case.input], to_head);
        for at in 1..case.input.len() {
            let (first, second) = case.input.split_at(at);
            assert_eq!(messages::response(&[first, second], to_head), whole, "{}, split at {at}", case.name);
        }
    }
}
