//! Literals, read as the type the other side of their operator has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ast::Literal;
use crate::error::{Fault, Span};
use crate::functions::masked;

pub(crate) fn bytes(literal: &Literal, span: Span) -> Result<Vec<u8>, Fault> {
    match literal {
        Literal::Text(bytes) => Ok(bytes.clone()),
        Literal::Word(word) => byte_pairs(word).ok_or_else(|| {
            Fault::new(span, "expected a string in quotes or bytes").hint(format!("did you mean \"{word}\"?"))
        }),
    }
}

/// `61:62:63`, with one of `:`, `-` and `.` between all pairs.
fn byte_pairs(word: &str) -> Option<Vec<u8>> {
    let separator = char::from(*word.as_bytes().get(2)?);
    if !":-.".contains(separator) {
        return None;
    }
    word.split(separator)
        .map(|pair| (pair.len() == 2 && !pair.starts_with('+')).then(|| u8::from_str_radix(pair, 16).ok())?)
        .collect()
}

pub(crate) fn int(literal: &Literal, span: Span) -> Result<i64, Fault> {
    let Literal::Word(word) = literal else {
        return Err(Fault::new(span, "expected a whole number").hint("numbers stand without quotes"));
    };
    number(word).ok_or_else(|| Fault::new(span, "expected a whole number of 64 bits"))
}

fn number(word: &str) -> Option<i64> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    let (radix, digits) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hexadecimal), _) => (16, hexadecimal),
        (None, Some(octal)) if !octal.is_empty() => (8, octal),
        _ => (10, digits),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let magnitude = plain.then(|| i128::from_str_radix(digits, radix).ok())??;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// A number or `a..b`.
pub(crate) fn int_range(literal: &Literal, span: Span) -> Result<(i64, i64), Fault> {
    let Literal::Word(word) = literal else { return int(literal, span).map(|value| (value, value)) };
    let (first, last) = word.split_once("..").unwrap_or((word, word));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        (Some(_), Some(_)) => {
            Err(Fault::new(span, "incompatible range bounds").hint("the smaller comes first"))
        }
        _ => Err(Fault::new(span, "expected a whole number or a range a..b")),
    }
}

pub(crate) fn ip(literal: &Literal, span: Span) -> Result<IpAddr, Fault> {
    let Literal::Word(word) = literal else {
        return Err(Fault::new(span, "expected an IP address").hint("addresses stand without quotes"));
    };
    word.parse().map_err(|_| {
        let fault = Fault::new(span, "expected an IP address");
        if word.contains('/') { fault.hint(format!("a network needs in: in {{{word}}}")) } else { fault }
    })
}

/// An address, a network whose host bits are 0, or `a..b` of one family.
pub(crate) fn ip_range(literal: &Literal, span: Span) -> Result<(IpAddr, IpAddr), Fault> {
    let Literal::Word(word) = literal else { return ip(literal, span).map(|value| (value, value)) };
    if let Some((first, last)) = word.split_once("..") {
        return match (first.parse::<IpAddr>(), last.parse::<IpAddr>()) {
            (Ok(first), Ok(last)) if first.is_ipv4() == last.is_ipv4() && first <= last => Ok((first, last)),
            (Ok(_), Ok(_)) => {
                Err(Fault::new(span, "incompatible range bounds")
                    .hint("both of one family, the smaller first"))
            }
            _ => Err(Fault::new(span, "expected a range of IP addresses")),
        };
    }
    let Some((address, bits)) = word.split_once('/') else {
        return ip(literal, span).map(|value| (value, value));
    };
    let refused = || Fault::new(span, "expected an IP address or a network");
    let address: IpAddr = address.parse().map_err(|_| refused())?;
    let plain = !bits.is_empty() && bits.bytes().all(|digit| digit.is_ascii_digit());
    let bits: i64 = plain.then(|| bits.parse().ok()).flatten().ok_or_else(refused)?;
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return Err(refused());
    }
    let first = masked(address, bits, bits);
    if first != address {
        return Err(
            Fault::new(span, "the network has host bits set").hint(format!("did you mean {first}/{bits}?"))
        );
    }
    Ok((first, last_of(first, bits)))
}

fn last_of(first: IpAddr, bits: i64) -> IpAddr {
    let bits = u32::try_from(bits).unwrap_or(0);
    match first {
        IpAddr::V4(four) => {
            IpAddr::V4(Ipv4Addr::from_bits(four.to_bits() | u32::MAX.checked_shr(bits).unwrap_or(0)))
        }
        IpAddr::V6(six) => {
            IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() | u128::MAX.checked_shr(bits).unwrap_or(0)))
        }
    }
}

/// Sorts ranges and makes one of those that overlap.
pub(crate) fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut whole: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match whole.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => whole.push((first, last)),
        }
    }
    whole
}
