//! Message bodies (RFC 9112 sections 6 and 7) read a second time: chunks, their extensions, trailers.
//!
//! Where the RFC leaves a choice, this takes the one the edge promises: at most 15 digits of a chunk size, 1 KiB of a
//! chunk line and 16 KiB of extensions, no white space before a `;`, and no trailer that would mean something in a head.

use super::head::{self, is_token};
use super::{Section, section};

/// Longest chunk line, CR LF included.
const LINE: usize = 1024;
/// Most bytes of extensions in one body.
const EXTENSIONS: usize = 16 * 1024;

/// Fields that must not stand behind a body.
const NEVER_BEHIND: &str = "authorization connection content-encoding content-length content-range content-type cookie \
    expect forwarded host keep-alive max-forwards proxy-authorization proxy-connection range set-cookie te trailer \
    transfer-encoding upgrade x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip";

/// What a body holds, as far as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Fields behind it; one character for each byte.
    pub trailers: Vec<(String, String)>,
    /// How it ends.
    pub ending: Ending,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its last byte.
    Complete,
    /// With the input, too soon.
    Incomplete,
    /// With something that is no body.
    Refused,
}

impl Body {
    /// The one of a message without one.
    pub fn none() -> Self {
        Self { content: Vec::new(), trailers: Vec::new(), ending: Ending::Complete }
    }

    /// `length` bytes; answers how many of `input` belong to it, too.
    pub fn of_length(input: &[u8], length: u64) -> (Self, usize) {
        let here = usize::try_from(length).unwrap_or(usize::MAX).min(input.len());
        let ending = if here as u64 == length { Ending::Complete } else { Ending::Incomplete };
        (Self { content: input[..here].to_vec(), trailers: Vec::new(), ending }, here)
    }

    /// Chunks; answers how many bytes of `input` belong to it, too.
    pub fn of_chunks(input: &[u8], limits: &edge::h1::parse::HeadLimits) -> (Self, usize) {
        let (mut at, mut extensions) = (0, 0);
        let mut body = Self { content: Vec::new(), trailers: Vec::new(), ending: Ending::Refused };
        loop {
            let rest = &input[at..];
            let Some(length) = rest.iter().take(LINE).position(|&byte| byte == b'\n') else {
                if rest.len() < LINE {
                    body.ending = Ending::Incomplete;
                }
                return (body, at);
            };
            let Some(line) = rest[..length].strip_suffix(b"\r") else { return (body, at) };
            let Some((size, extension)) = chunk_line(line) else { return (body, at) };
            extensions += extension;
            if extensions > EXTENSIONS {
                return (body, at);
            }
            at += length + 1;
            if size == 0 {
                break;
            }
            let (data, here) = Self::of_length(&input[at..], size);
            body.content.extend(data.content);
            at += here;
            let after = &input[at..];
            if data.ending == Ending::Incomplete || (after.len() < 2 && b"\r\n".starts_with(after)) {
                body.ending = Ending::Incomplete;
                return (body, at);
            }
            if !after.starts_with(b"\r\n") {
                return (body, at);
            }
            at += 2;
        }
        match section(&input[at..], limits.bytes) {
            Section::Incomplete => body.ending = Ending::Incomplete,
            Section::Bad => {}
            Section::Ends(length) => {
                if let Some(trailers) = trailers(&input[at..at + length], limits.fields) {
                    (body.trailers, body.ending) = (trailers, Ending::Complete);
                }
                at += length;
            }
        }
        (body, at)
    }
}

/// The size a chunk line tells, and the bytes of its extensions.
fn chunk_line(line: &[u8]) -> Option<(u64, usize)> {
    let text: String = line.iter().map(|&byte| char::from(byte)).collect();
    let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    let extension: Vec<char> = text.chars().skip(digits.len()).collect();
    if !extension.is_empty() && !is_extension(&extension) {
        return None;
    }
    Some((u64::from_str_radix(&digits, 16).ok()?, extension.len()))
}

/// `1*( ";" name [ "=" value ] )` with optional white space around the name and the `=`, not before the `;`.
fn is_extension(text: &[char]) -> bool {
    let mut at = 0;
    let white = |at: &mut usize| {
        while matches!(text.get(*at), Some(' ' | '\t')) {
            *at += 1;
        }
    };
    while at < text.len() {
        if text[at] != ';' {
            return false;
        }
        at += 1;
        white(&mut at);
        let Some(end) = word(text, at) else { return false };
        at = end;
        let before_white = at;
        white(&mut at);
        if text.get(at) == Some(&'=') {
            at += 1;
            white(&mut at);
            let Some(end) = word(text, at).or_else(|| quoted(text, at)) else { return false };
            at = end;
        } else {
            at = before_white;
        }
    }
    true
}

/// Where the token that begins here ends.
fn word(text: &[char], at: usize) -> Option<usize> {
    let length = text[at..].iter().take_while(|character| is_token(&character.to_string())).count();
    (length > 0).then_some(at + length)
}

/// Where the quoted string that begins here ends.
fn quoted(text: &[char], at: usize) -> Option<usize> {
    if text.get(at) != Some(&'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match *text.get(at)? {
            '"' => return Some(at + 1),
            '\\' if head::is_field_character(*text.get(at + 1)?) => at += 2,
            '\\' => return None,
            character if head::is_field_character(character) => at += 1,
            _ => return None,
        }
    }
}

/// The fields of a trailer section.
fn trailers(section: &[u8], most: usize) -> Option<Vec<(String, String)>> {
    let lines = head::lines(section)?;
    if lines.len() > most {
        return None;
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = head::field(&line)?;
        if NEVER_BEHIND.split(' ').any(|never| name.eq_ignore_ascii_case(never)) {
            return None;
        }
        fields.push((name, value));
    }
    Some(fields)
}
