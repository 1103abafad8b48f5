//! The characters of an expression: spaces, words, the three kinds of strings.

use crate::ast::Literal;
use crate::error::{Fault, Span};

/// A raw string may be opened by at most this many `#`.
const MOST_HASHES: usize = 255;

/// A place in the source.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'s> {
    pub source: &'s str,
    pub at: usize,
}

impl<'s> Cursor<'s> {
    pub fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// Space, carriage return and line feed; a tab is none, as Cloudflare has it.
    pub fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\r', '\n']).len();
    }

    pub fn from(&self, start: usize) -> Span {
        Span { start, end: self.at }
    }

    /// The place of the next character, for faults about what is missing here.
    pub fn here(&self) -> Span {
        let length = self.rest().chars().next().map_or(0, char::len_utf8);
        Span { start: self.at, end: self.at + length }
    }

    /// Takes a symbol if it stands here.
    pub fn take(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    /// The word that stands here: letters, digits and the marks of addresses, numbers and ranges.
    pub fn peek_word(&self) -> &'s str {
        let rest = self.rest();
        let end =
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.:/-".contains(byte)).count();
        &rest[..end]
    }

    /// The name that stands here: letters, digits, `_` and `.`.
    pub fn peek_name(&self) -> &'s str {
        let rest = self.rest();
        let end =
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(byte)).count();
        &rest[..end]
    }

    /// Takes an English operator, which must not run on into another word.
    pub fn take_name(&mut self, name: &str) -> bool {
        let found = self.peek_name() == name;
        if found {
            self.at += name.len();
        }
        found
    }

    /// True where a quoted or raw string begins.
    pub fn at_string(&self) -> bool {
        let rest = self.rest();
        rest.starts_with('"')
            || rest.strip_prefix('r').is_some_and(|raw| raw.trim_start_matches('#').starts_with('"'))
    }

    /// A literal: a string or a bare word.
    pub fn literal(&mut self) -> Result<(Literal, Span), Fault> {
        let start = self.at;
        if self.at_string() {
            let text = self.string()?;
            return Ok((Literal::Text(text), self.from(start)));
        }
        let word = self.peek_word();
        if word.is_empty() {
            return Err(Fault::new(self.here(), "expected a literal"));
        }
        self.at += word.len();
        Ok((Literal::Word(word.to_owned()), self.from(start)))
    }

    /// A quoted or raw string.
    pub fn string(&mut self) -> Result<Vec<u8>, Fault> {
        if self.rest().starts_with('r') {
            return Ok(self.raw_string()?.as_bytes().to_vec());
        }
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let Some(&byte) = self.rest().as_bytes().first() else {
                return Err(Fault::new(Span { start, end: self.at }, "could not find an ending quote"));
            };
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(bytes);
                }
                b'\\' => bytes.push(self.escape()?),
                _ => {
                    bytes.push(byte);
                    // Bytes of one character are pushed one after the other; slices are only taken at `"` and `\`.
                    self.at += 1;
                    while !self.source.is_char_boundary(self.at) {
                        bytes.push(self.source.as_bytes()[self.at]);
                        self.at += 1;
                    }
                }
            }
        }
    }

    /// `\"`, `\\`, `\xHH` and `\OOO`.
    fn escape(&mut self) -> Result<u8, Fault> {
        let rest = &self.source.as_bytes()[self.at + 1..];
        let number = |digits: Option<&[u8]>, radix| {
            let text = std::str::from_utf8(digits?).ok()?;
            let plain = text.bytes().all(|digit| digit.is_ascii_hexdigit());
            if plain { u8::from_str_radix(text, radix).ok() } else { None }
        };
        let found = match rest.first() {
            Some(byte @ (b'"' | b'\\')) => Some((*byte, 2)),
            Some(b'x') => number(rest.get(1..3), 16).map(|byte| (byte, 4)),
            Some(b'0'..=b'7') => number(rest.get(..3), 8).map(|byte| (byte, 4)),
            _ => None,
        };
        let Some((byte, length)) = found else {
            let next = self.rest()[1..].chars().next().map_or(0, char::len_utf8);
            let span = Span { start: self.at, end: self.at + 1 + next };
            return Err(Fault::new(span, "expected \", \\, xHH or OOO after \\")
                .hint("write \\\\ for a backslash, or use a raw string r\"...\""));
        };
        self.at += length;
        Ok(byte)
    }

    fn raw_string(&mut self) -> Result<&'s str, Fault> {
        let start = self.at;
        self.at += 1;
        let hashes = self.rest().bytes().take_while(|byte| *byte == b'#').count();
        if hashes > MOST_HASHES {
            return Err(Fault::new(
                Span { start, end: self.at + hashes },
                format!("a raw string may have at most {MOST_HASHES} #"),
            ));
        }
        self.at += hashes + 1;
        let closing = format!("\"{}", "#".repeat(hashes));
        let Some(length) = self.rest().find(&closing) else {
            return Err(Fault::new(Span { start, end: self.at }, "could not find an ending quote"));
        };
        let text = &self.rest()[..length];
        self.at += length + closing.len();
        Ok(text)
    }

    /// A regular expression: in quotes only `\"` is unescaped, and a quote inside `[...]` does not end it.
    pub fn regex(&mut self) -> Result<String, Fault> {
        let start = self.at;
        if !self.at_string() {
            return Err(Fault::new(self.here(), "expected a regular expression in quotes"));
        }
        if self.rest().starts_with('r') {
            return Ok(self.raw_string()?.to_owned());
        }
        self.at += 1;
        let (mut text, mut in_class) = (String::new(), false);
        let mut characters = self.rest().char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' if !in_class => {
                    self.at += offset + 1;
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, '"')) if !in_class => text.push('"'),
                    Some((_, next)) => text.extend(['\\', next]),
                    None => break,
                },
                '[' => {
                    in_class = true;
                    text.push('[');
                }
                ']' => {
                    in_class = false;
                    text.push(']');
                }
                other => text.push(other),
            }
        }
        Err(Fault::new(Span { start, end: start + 1 }, "could not find an ending quote"))
    }
}
