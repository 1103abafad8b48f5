//! `regex_replace` and `wildcard_replace`.

use super::{Arguments, Outcome, made};
use crate::eval::{Machine, TEXT_MOST};
use crate::pattern::Pattern;
use crate::plan::{Base, Operand};
use crate::regular::Regular;
use crate::value::{Fetched, Value};

/// References to captures a replacement may have.
const REFERENCES_MOST: usize = 8;

/// A part of a replacement: text, or the capture of a number.
enum Part {
    Text(Vec<u8>),
    Capture(usize),
}

/// `${n}` stands for a capture, `$$` for a dollar sign; any other `$` for itself.
fn parts(text: &[u8]) -> Vec<Part> {
    let (mut parts, mut plain, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        let rest = &text[at + 1..];
        if *byte == b'$' && rest.first() == Some(&b'$') {
            plain.push(b'$');
            at += 2;
            continue;
        }
        let digits =
            rest.strip_prefix(b"{").map(|inner| inner.iter().take_while(|d| d.is_ascii_digit()).count());
        if *byte == b'$'
            && let Some(length @ 1..=3) = digits
            && rest.get(length + 1) == Some(&b'}')
        {
            let number = rest[1..=length].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Capture(number));
            at += length + 3;
            continue;
        }
        plain.push(*byte);
        at += 1;
    }
    parts.push(Part::Text(plain));
    parts
}

/// Whether the replacement's references are few enough and exist.
pub(crate) fn check_replacement(text: &[u8], captures: usize) -> Result<(), String> {
    let parts = parts(text);
    let numbers = parts.iter().filter_map(|part| match part {
        Part::Capture(number) => Some(*number),
        Part::Text(_) => None,
    });
    if numbers.clone().count() > REFERENCES_MOST {
        return Err(format!("a replacement may have at most {REFERENCES_MOST} capture references"));
    }
    match numbers.max() {
        Some(highest) if highest > captures => Err(format!("there is no capture {highest}")),
        _ => Ok(()),
    }
}

fn filled(template: &[u8], capture: impl Fn(usize) -> Option<Vec<u8>>, into: &mut Vec<u8>) -> bool {
    for part in parts(template) {
        match part {
            Part::Text(text) => into.extend_from_slice(&text),
            Part::Capture(number) => into.extend(capture(number).unwrap_or_default()),
        }
        if into.len() > TEXT_MOST {
            return false;
        }
    }
    true
}

/// The regex or pattern of a call, compiled with the expression.
#[derive(Debug)]
pub(crate) enum Remembered {
    Regex(Box<Regular>),
    Pattern(Pattern),
}

impl Remembered {
    pub fn is_regex(&self) -> bool {
        matches!(self, Remembered::Regex(_))
    }
}

/// Where the compiled form of a call's second argument is kept: in place of the text.
pub(crate) fn remembered(operand: &mut Operand, compiled: Remembered) {
    operand.base = Base::Remembered(compiled);
}

impl<'e> Arguments<'e> {
    fn compiled(&self) -> Option<&'e Remembered> {
        match &self.all.get(1)?.base {
            Base::Remembered(compiled) => Some(compiled),
            _ => None,
        }
    }
}

/// `regex_replace(source, regex, replacement)`: the first match only.
pub fn regex_replace<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let text = arguments.text(machine, 0)?;
    let template = arguments.text(machine, 2)?;
    let Some(Remembered::Regex(regex)) = arguments.compiled() else { return Ok(Fetched::Unknown) };
    let Some(found) = regex.captures(&text, machine) else { return Ok(Fetched::Unknown) };
    let Some(found) = found else { return Ok(Fetched::Value(Value::Bytes(text.clone()))) };
    let Some(whole) = found.get(0) else { return Ok(Fetched::Unknown) };
    let mut result = text[..whole.start()].to_vec();
    let capture = |number| found.get(number).map(|group| group.as_bytes().to_vec());
    if !filled(&template, capture, &mut result) {
        return Ok(Fetched::Unknown);
    }
    result.extend_from_slice(&text[whole.end()..]);
    made(result)
}

/// `wildcard_replace(source, pattern, replacement[, "s"])`: the whole value, or it stays as it is.
pub fn wildcard_replace<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let text = arguments.text(machine, 0)?;
    let template = arguments.text(machine, 2)?;
    let Some(Remembered::Pattern(pattern)) = arguments.compiled() else { return Ok(Fetched::Unknown) };
    if !machine.steps.spend(pattern.cost(text.len())) {
        return Ok(Fetched::Unknown);
    }
    let Some(stars) = pattern.captures(&text) else { return Ok(Fetched::Value(Value::Bytes(text.clone()))) };
    let capture = |number: usize| match number.checked_sub(1) {
        None => Some(text.to_vec()),
        Some(star) => stars.get(star).map(|bytes| bytes.to_vec()),
    };
    let mut result = Vec::new();
    if !filled(&template, capture, &mut result) {
        return Ok(Fetched::Unknown);
    }
    made(result)
}
