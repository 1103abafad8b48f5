//! `is_timed_hmac_valid_v0`: signed links that expire.

use std::borrow::Cow;

use super::text::{base64, percent_decoded};
use super::{Arguments, Outcome};
use crate::eval::Machine;
use crate::value::{Fetched, Value};

/// Digits of the time in a message.
const TIME_DIGITS: usize = 10;
/// Bytes of a SHA-256.
const MAC_BYTES: usize = 32;

/// `is_timed_hmac_valid_v0(key, message, ttl, now[, separator length[, flags]])`.
///
/// The message is text, separator, time in ten digits, `-`, and the MAC of text and time in base64: percent-encoded,
/// or with flag `s` in the alphabet for URLs.
pub fn timed_hmac<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let key = arguments.text(machine, 0)?;
    let message = arguments.text(machine, 1)?;
    let lifetime = arguments.int(machine, 2)?;
    let now = arguments.int(machine, 3)?;
    let separator = if arguments.count() > 4 { arguments.int(machine, 4)? } else { 0 };
    let flags = if arguments.count() > 5 { arguments.text(machine, 5)? } else { Cow::Borrowed(&b""[..]) };
    let separator = usize::try_from(separator).unwrap_or(usize::MAX);
    let no = Ok(Fetched::Value(Value::Bool(false)));
    let Some((text, time, mac)) = taken_apart(&message, separator, flags.contains(&b's')) else { return no };
    // A time to come, or one whose lifetime is over, ends the link without any cryptography.
    let age = now.saturating_sub(time.1);
    if age < 0 || age > lifetime {
        return no;
    }
    let signed = [text, time.0].concat();
    let Some(right) = machine.context.hmac_sha256(&key, &signed) else { return Ok(Fetched::Unknown) };
    Ok(Fetched::Value(Value::Bool(same(&right, &mac))))
}

type Taken<'m> = (&'m [u8], (&'m [u8], i64), Vec<u8>);

fn taken_apart(message: &[u8], separator: usize, url_safe: bool) -> Option<Taken<'_>> {
    // The MAC's own alphabet may have `-`, so the dash is the one that follows ten digits.
    let dashes = (0..message.len()).rev().filter(|at| message[*at] == b'-');
    for dash in dashes.take(MAC_BYTES * 2) {
        let Some(digits) = dash.checked_sub(TIME_DIGITS).map(|start| (start, &message[start..dash])) else {
            continue;
        };
        if !digits.1.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let time = digits.1.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        let end = digits.0.checked_sub(separator).filter(|end| *end > 0)?;
        let encoded = &message[dash + 1..];
        let mac = if url_safe {
            (!encoded.iter().any(|byte| b"+/=".contains(byte))).then(|| base64(encoded))??
        } else {
            // `+` is a digit of base64, not a space.
            let plus_kept: Vec<u8> = encoded
                .iter()
                .flat_map(|byte| if *byte == b'+' { b"%2B".to_vec() } else { vec![*byte] })
                .collect();
            base64(&percent_decoded(&plus_kept, false))?
        };
        return (mac.len() == MAC_BYTES).then_some((&message[..end], (digits.1, time), mac));
    }
    None
}

/// Compares without telling by its time where the difference is.
fn same(right: &[u8; MAC_BYTES], given: &[u8]) -> bool {
    right.len() == given.len() && right.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
