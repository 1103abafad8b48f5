//! Which content codings a visitor accepts: the field `Accept-Encoding` (RFC 9110 section 12.5.3).

use super::Coding;

/// Weights in thousandths (RFC 9110 section 12.4.2); `None` where the visitor does not name the coding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    gzip: Option<u16>,
    brotli: Option<u16>,
    zstd: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Accepted {
    /// Reads the lines of the field. A member that cannot be read is as if it were not there.
    pub fn read<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut accepted = Self::default();
        for member in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let Some(weight) = parts.next().map_or(Some(1000), weight) else { continue };
            if let Some(place) = accepted.place(name)
                && parts.next().is_none()
            {
                place.get_or_insert(weight);
            }
        }
        accepted
    }

    fn place(&mut self, name: &[u8]) -> Option<&mut Option<u16>> {
        let is = |token: &str| name.eq_ignore_ascii_case(token.as_bytes());
        // RFC 9110 section 8.4.1.3: a recipient treats x-gzip as gzip.
        Some(if is("gzip") || is("x-gzip") {
            &mut self.gzip
        } else if is("br") {
            &mut self.brotli
        } else if is("zstd") {
            &mut self.zstd
        } else if is("identity") {
            &mut self.identity
        } else if is("*") {
            &mut self.any
        } else {
            return None;
        })
    }

    /// How much the visitor likes a coding; `None` when not at all, or less than content as it is.
    pub fn weight(&self, coding: Coding) -> Option<u16> {
        let named = match coding {
            Coding::Gzip => self.gzip,
            Coding::Brotli => self.brotli,
            Coding::Zstd => self.zstd,
        };
        named.or(self.any).filter(|weight| *weight > 0 && *weight >= self.identity.unwrap_or(0))
    }
}

/// `q=0.5` in thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = match parameter {
        [b'q' | b'Q', b'=', value @ ..] => value,
        _ => return None,
    };
    let (whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = u16::from(match whole {
        b'0' => 0_u8,
        b'1' => 1,
        _ => return None,
    });
    for place in 0..3 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        thousandths = thousandths * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (text, expected) in [
            ("q=1", Some(1000)),
            ("q=1.000", Some(1000)),
            ("Q=0.5", Some(500)),
            ("q=0.", Some(0)),
            ("q=0.001", Some(1)),
            ("q=1.001", None),
            ("q=2", None),
            ("q=0.0001", None),
            ("q=.5", None),
            ("q=", None),
            ("q= 1", None),
            ("x=1", None),
        ] {
            assert_eq!(weight(text.as_bytes()), expected, "{text}");
        }
    }
}
