//! `lookup_json_string` and `lookup_json_integer`: one value of a JSON text, found without building the whole.

use super::{Arguments, Outcome, made};
use crate::eval::Machine;
use crate::value::{Fetched, Value};

/// How deep arrays and objects may nest; deeper text counts as no JSON.
const DEPTH_MOST: usize = 64;

/// `lookup_json_string(source, key...)`: missing when there is no such string.
pub fn string<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    match looked_up(machine, &mut arguments)? {
        Some(Found::Text(bytes)) => made(bytes),
        _ => Ok(Fetched::Missing),
    }
}

/// `lookup_json_integer(source, key...)`: missing when there is no such whole number; `42.0` is none.
pub fn integer<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    Ok(match looked_up(machine, &mut arguments)? {
        Some(Found::Number(number)) => {
            number.map_or(Fetched::Missing, |number| Fetched::Value(Value::Int(number)))
        }
        _ => Fetched::Missing,
    })
}

enum Found {
    Text(Vec<u8>),
    /// None for a number that is not whole or too large.
    Number(Option<i64>),
    Other,
}

fn looked_up<'e>(
    machine: &mut Machine<'e, '_>,
    arguments: &mut Arguments<'e>,
) -> Result<Option<Found>, Fetched<'e>> {
    let text = arguments.text(machine, 0)?;
    let mut reader = Reader { text: &text, at: 0 };
    for position in 1..arguments.count() {
        reader.space();
        let entered = match arguments.get(machine, position) {
            Fetched::Value(Value::Bytes(name)) => reader.enter_object(&name),
            Fetched::Value(Value::Int(place)) => reader.enter_array(place),
            _ => return Err(Fetched::Unknown),
        };
        if entered.is_none() {
            return Ok(None);
        }
    }
    reader.space();
    Ok(reader.value(0))
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Stops before the value of a name; of a repeated name, the first counts.
    fn enter_object(&mut self, name: &[u8]) -> Option<()> {
        self.take(b'{')?;
        loop {
            self.space();
            let found = self.string()? == name;
            self.space();
            self.take(b':')?;
            self.space();
            if found {
                return Some(());
            }
            self.value(1)?;
            self.space();
            self.take(b',')?;
        }
    }

    /// Stops before the value at a position.
    fn enter_array(&mut self, place: i64) -> Option<()> {
        self.take(b'[')?;
        let mut left = u64::try_from(place).ok()?;
        loop {
            self.space();
            if left == 0 {
                return (self.peek()? != b']').then_some(());
            }
            self.value(1)?;
            self.space();
            self.take(b',')?;
            left -= 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Found> {
        if depth > DEPTH_MOST {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(Found::Text),
            b'{' => self.container(b'}', depth),
            b'[' => self.container(b']', depth),
            b'-' | b'0'..=b'9' => self.number().map(Found::Number),
            _ => {
                let word = [&b"true"[..], b"false", b"null"]
                    .into_iter()
                    .find(|word| self.text[self.at..].starts_with(word))?;
                self.at += word.len();
                Some(Found::Other)
            }
        }
    }

    fn container(&mut self, end: u8, depth: usize) -> Option<Found> {
        self.at += 1;
        self.space();
        if self.take(end).is_some() {
            return Some(Found::Other);
        }
        loop {
            self.space();
            if end == b'}' {
                self.string()?;
                self.space();
                self.take(b':')?;
                self.space();
            }
            self.value(depth + 1)?;
            self.space();
            if self.take(end).is_some() {
                return Some(Found::Other);
            }
            self.take(b',')?;
        }
    }

    fn number(&mut self) -> Option<Option<i64>> {
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte)).count();
        self.at += length;
        Some(std::str::from_utf8(&rest[..length]).ok()?.parse().ok())
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        self.take(b'"')?;
        let mut bytes = Vec::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(bytes),
                b'\\' => self.escape(&mut bytes)?,
                other => bytes.push(other),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        bytes.push(match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'"' | b'\\' | b'/' => byte,
            b'u' => {
                let mut code = self.unit()?;
                // Two escapes make one character beyond the basic plane (RFC 8259, section 7).
                if (0xd800..0xdc00).contains(&code) && self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    code = 0x10000 + ((code - 0xd800) << 10) + self.unit()?.checked_sub(0xdc00)?;
                }
                let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        });
        Some(())
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = std::str::from_utf8(self.text.get(self.at..self.at + 4)?).ok()?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}
