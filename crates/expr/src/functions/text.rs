//! Functions that take strings apart and put them together.

use std::borrow::Cow;

use super::{Arguments, Outcome, made};
use crate::eval::{ELEMENTS_MOST, Machine, TEXT_MOST};
use crate::value::{Array, Fetched, Value};

/// Times `url_decode` with `r` decodes again at most.
const DECODINGS_MOST: usize = 16;

/// `concat(...)`: strings, or arrays of one type; what is missing counts as empty.
pub fn concat<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let (mut text, mut elements, mut is_array) = (Vec::new(), Vec::new(), false);
    for position in 0..arguments.count() {
        match arguments.get(machine, position) {
            Fetched::Missing => (),
            Fetched::Unknown => return Ok(Fetched::Unknown),
            Fetched::Value(Value::Bytes(bytes)) => {
                if !machine.pay(bytes.len()) || text.len() + bytes.len() > TEXT_MOST {
                    return Ok(Fetched::Unknown);
                }
                text.extend_from_slice(&bytes);
            }
            Fetched::Value(Value::Array(array)) => {
                is_array = true;
                elements.extend(listed(machine, array)?);
            }
            Fetched::Value(_) => return Ok(Fetched::Unknown),
        }
    }
    if is_array {
        return Ok(Fetched::Value(Value::Array(Array::Made(elements))));
    }
    made(text)
}

/// The elements of an array, bounded and paid for.
fn listed<'e>(machine: &mut Machine<'e, '_>, array: Array<'e>) -> Result<Vec<Value<'e>>, Fetched<'e>> {
    let mut elements = Vec::new();
    let mut whole = true;
    array.visit(&mut |value| {
        whole = machine.pay(0) && elements.len() < ELEMENTS_MOST;
        elements.push(value);
        whole
    });
    if whole { Ok(elements) } else { Err(Fetched::Unknown) }
}

/// `starts_with`, `ends_with`.
pub fn affix<'e>(
    machine: &mut Machine<'e, '_>,
    mut arguments: Arguments<'e>,
    holds: fn(&[u8], &[u8]) -> bool,
) -> Outcome<'e> {
    let text = arguments.text(machine, 0)?;
    let affix = arguments.text(machine, 1)?;
    Ok(Fetched::Value(Value::Bool(holds(&text, &affix))))
}

/// `join(array, separator)`.
pub fn join<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let array = match arguments.get(machine, 0) {
        Fetched::Value(Value::Array(array)) => array,
        Fetched::Value(_) => return Ok(Fetched::Unknown),
        other => return Ok(other),
    };
    let separator = arguments.text(machine, 1)?;
    let mut joined = Vec::new();
    for (position, element) in listed(machine, array)?.into_iter().enumerate() {
        let Value::Bytes(bytes) = element else { return Ok(Fetched::Unknown) };
        if joined.len() + separator.len() + bytes.len() > TEXT_MOST {
            return Ok(Fetched::Unknown);
        }
        if position > 0 {
            joined.extend_from_slice(&separator);
        }
        joined.extend_from_slice(&bytes);
    }
    made(joined)
}

/// `len`: bytes of a string, elements of an array.
pub fn len<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let length = match arguments.get(machine, 0) {
        Fetched::Value(Value::Bytes(bytes)) => bytes.len(),
        Fetched::Value(Value::Array(array)) => {
            let length = array.count();
            if !machine.steps.spend(length) {
                return Ok(Fetched::Unknown);
            }
            length
        }
        Fetched::Value(_) => return Ok(Fetched::Unknown),
        other => return Ok(other),
    };
    Ok(Fetched::Value(Value::Int(i64::try_from(length).unwrap_or(i64::MAX))))
}

/// `lower`, `upper`: ASCII letters only.
pub fn cased<'e>(
    machine: &mut Machine<'e, '_>,
    mut arguments: Arguments<'e>,
    change: fn(&mut [u8]),
) -> Outcome<'e> {
    let mut text = arguments.text(machine, 0)?.into_owned();
    change(&mut text);
    made(text)
}

/// `remove_bytes(source, bytes)`: every byte that occurs in the second argument goes.
pub fn remove_bytes<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let text = arguments.text(machine, 0)?;
    let unwanted = arguments.text(machine, 1)?;
    let mut table = [false; 256];
    for byte in unwanted.iter() {
        table[usize::from(*byte)] = true;
    }
    made(text.iter().copied().filter(|byte| !table[usize::from(*byte)]).collect())
}

/// `remove_query_args(query, name...)`: the other arguments stay as they are, in order.
pub fn remove_query_args<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let query = arguments.text(machine, 0)?;
    let mut names = Vec::new();
    for position in 1..arguments.count() {
        names.push(arguments.text(machine, position)?);
    }
    if !machine.pay(query.len().saturating_mul(names.len())) {
        return Ok(Fetched::Unknown);
    }
    let kept: Vec<&[u8]> = query
        .split(|byte| *byte == b'&')
        .filter(|part| {
            let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
            !names.iter().any(|unwanted| &**unwanted == name)
        })
        .collect();
    made(kept.join(&b'&'))
}

/// `split(source, separator, limit)`: at most `limit` elements, the last is what remains.
pub fn split<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let text = arguments.text(machine, 0)?;
    let separator = arguments.text(machine, 1)?;
    let limit = arguments.int(machine, 2)?;
    let (mut parts, mut rest) = (Vec::new(), &*text);
    while parts.len() as i64 + 1 < limit
        && let Some(at) = memchr::memmem::find(rest, &separator)
    {
        parts.push(Value::Bytes(Cow::Owned(rest[..at].to_vec())));
        rest = &rest[at + separator.len()..];
    }
    parts.push(Value::Bytes(Cow::Owned(rest.to_vec())));
    Ok(Fetched::Value(Value::Array(Array::Made(parts))))
}

/// `substring(source, start[, end])`: byte positions, negative ones from the end; empty when the end comes first.
pub fn substring<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let text = arguments.text(machine, 0)?;
    let length = text.len();
    let place = |position: i64| {
        let from_end = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
        if position < 0 { length.saturating_sub(from_end) } else { from_end.min(length) }
    };
    let start = place(arguments.int(machine, 1)?);
    let end = if arguments.count() > 2 { place(arguments.int(machine, 2)?) } else { length };
    Ok(Fetched::Value(Value::Bytes(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(start..end).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(text.get(start..end).unwrap_or_default().to_vec()),
    })))
}

/// `to_string` of a number, a truth or an address.
pub fn to_string<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let text = match arguments.get(machine, 0) {
        Fetched::Value(Value::Int(value)) => value.to_string(),
        Fetched::Value(Value::Bool(value)) => value.to_string(),
        Fetched::Value(Value::Ip(value)) => value.to_string(),
        Fetched::Value(_) => return Ok(Fetched::Unknown),
        other => return Ok(other),
    };
    made(text.into_bytes())
}

/// `uuidv4(bytes)`: the first 16 bytes as a random UUID (RFC 9562, section 5.4).
pub fn uuidv4<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let source = arguments.text(machine, 0)?;
    let Some(mut bytes) = source.first_chunk::<16>().copied() else { return Ok(Fetched::Missing) };
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    made(text.into_bytes())
}

/// `decode_base64(source)`: missing when it is not base64.
pub fn decode_base64<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let text = arguments.text(machine, 0)?;
    match base64(&text) {
        Some(bytes) => made(bytes),
        None => Ok(Fetched::Missing),
    }
}

/// The bytes of a base64 text of either alphabet (RFC 4648, sections 4 and 5), padded or not.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    if digits.len() % 4 == 1 || padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(digits.len() * 3 / 4), 0u32, 0);
    for digit in digits {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

/// `url_decode(source[, options])`: `+` and `%XX`; `r` until nothing changes, `u` also `%uXXXX`.
pub fn url_decode<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let mut text = arguments.text(machine, 0)?.into_owned();
    let options = if arguments.count() > 1 { arguments.text(machine, 1)? } else { Cow::Borrowed(&b""[..]) };
    let (again, wide) = (options.contains(&b'r'), options.contains(&b'u'));
    for _ in 0..DECODINGS_MOST {
        if !machine.pay(text.len()) {
            return Ok(Fetched::Unknown);
        }
        let decoded = percent_decoded(&text, wide);
        if !again || decoded == text {
            return made(decoded);
        }
        text = decoded;
    }
    Ok(Fetched::Unknown)
}

pub(super) fn percent_decoded(text: &[u8], wide: bool) -> Vec<u8> {
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0u32, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
    };
    let (mut decoded, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        let rest = &text[at + 1..];
        let plain = rest.get(..2).and_then(number);
        let unit = rest.get(1..5).filter(|_| wide && rest[0] == b'u').and_then(number);
        match (byte, plain, unit) {
            (b'+', ..) => decoded.push(b' '),
            (b'%', Some(value), _) => {
                decoded.push(value as u8);
                at += 2;
            }
            (b'%', None, Some(unit)) => {
                let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += 5;
            }
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    decoded
}
