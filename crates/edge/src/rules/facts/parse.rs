//! Reading what a request carries: arguments, cookies, languages, header fields by lower-case name. Lenient, as rules are about
//! what origins will read; nothing here refuses a request.

use crate::message::BodyLength;

/// Query arguments, not percent-decoded.
#[derive(Default)]
pub struct Arguments {
    /// Names with values, in order.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The names.
    pub names: Vec<Vec<u8>>,
    /// The values.
    pub values: Vec<Vec<u8>>,
}

impl Arguments {
    /// Those of a query or a form: `a=1&b&c=`.
    pub fn of(query: &[u8]) -> Self {
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = query
            .split(|byte| *byte == b'&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
                (part[..at].to_vec(), part.get(at + 1..).unwrap_or_default().to_vec())
            })
            .collect();
        Self::from(pairs)
    }

    /// The same, `+` and percent-encoding undone.
    pub fn decoded(form: &[u8]) -> Self {
        let found = Self::of(form).pairs.into_iter();
        Self::from(found.map(|(name, value)| (decode(&name, true), decode(&value, true))).collect::<Vec<_>>())
    }
}

impl From<Vec<(Vec<u8>, Vec<u8>)>> for Arguments {
    fn from(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let names = pairs.iter().map(|(name, _)| name.clone()).collect();
        let values = pairs.iter().map(|(_, value)| value.clone()).collect();
        Self { pairs, names, values }
    }
}

/// Header fields.
#[derive(Default)]
pub struct Headers {
    /// Lower-case names with values, in order.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names as they came.
    pub names: Vec<Vec<u8>>,
    /// Values.
    pub values: Vec<Vec<u8>>,
}

impl Headers {
    /// Fields, with `Host` first where there is one, and behind them the length where one is announced.
    pub fn of<'h>(
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        host: Option<&'h [u8]>,
        announced: BodyLength,
    ) -> Self {
        let mut found = Self::default();
        for (name, value) in host.map(|host| (&b"Host"[..], host)).into_iter().chain(fields) {
            found.push(name, value);
        }
        if let BodyLength::Exact(bytes) = announced {
            found.push(b"Content-Length", bytes.to_string().as_bytes());
        }
        found
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.pairs.push((name.to_ascii_lowercase(), value.to_vec()));
        self.names.push(name.to_vec());
        self.values.push(value.to_vec());
    }
}

/// Cookies of one line (RFC 6265 section 4.2.1), names percent-decoded.
pub fn cookies(line: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    line.split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            (
                decode(part[..at].trim_ascii(), false),
                part.get(at + 1..).unwrap_or_default().trim_ascii().to_vec(),
            )
        })
        .collect()
}

/// The media type of a `Content-Type`, lower case, without parameters.
pub fn media_type(content_type: &[u8]) -> Vec<u8> {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().to_ascii_lowercase()
}

/// Languages by preference (RFC 9110 section 12.5.4), those not wanted and `*` left out.
pub fn languages<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Vec<Vec<u8>> {
    let mut found: Vec<(u32, Vec<u8>)> = Vec::new();
    for part in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut pieces = part.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let language = pieces.next().unwrap_or_default();
        let weight = pieces.find_map(|piece| piece.strip_prefix(b"q=").or(piece.strip_prefix(b"Q=")));
        let weight = weight.map_or(1000, thousandths);
        if !language.is_empty() && language != b"*" && weight > 0 {
            found.push((weight, language.to_vec()));
        }
    }
    found.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    found.into_iter().map(|(_, language)| language).collect()
}

/// A weight as a number of thousandths (RFC 9110 section 12.4.2); 0 when it is none.
fn thousandths(text: &[u8]) -> u32 {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let weight = text.parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0);
    // At most 1000.
    (weight * 1000.0) as u32
}

/// The last segment's extension, lower case; empty for dotfiles and without one.
pub fn extension(path: &str) -> String {
    let segment = path.rsplit('/').next().unwrap_or_default();
    match segment.rsplit_once('.') {
        Some((front, extension)) if !front.is_empty() => extension.to_ascii_lowercase(),
        _ => String::new(),
    }
}

/// Undoes percent-encoding, and `+` for a space where that is meant; what is no encoding stays.
pub fn decode(bytes: &[u8], plus: bool) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                // Two digits of base 16 fit into a byte.
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', _) if plus => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: Vec<Vec<u8>>) -> Vec<String> {
        list.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
    }

    #[test]
    fn languages_come_by_weight() {
        for (line, expected) in [
            ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", vec!["fr-CH", "fr", "en", "de"]),
            ("en;q=0.5, de, fr;q=0", vec!["de", "en"]),
            ("", vec![]),
            ("en;q=x, de;q=2", vec![]),
        ] {
            assert_eq!(texts(languages(std::iter::once(line.as_bytes()))), expected, "{line}");
        }
    }

    #[test]
    fn extensions_are_those_of_the_last_segment() {
        for (path, expected) in
            [("/a/b.PNG", "png"), ("/a.b/c", ""), ("/.env", ""), ("/a.tar.gz", "gz"), ("/a.", ""), ("/", "")]
        {
            assert_eq!(extension(path), expected, "{path}");
        }
    }

    #[test]
    fn arguments_keep_order_and_repetition() {
        let found = Arguments::of(b"a=1&b&a=2&=x&c=%20+");
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", b"1"), (b"b", b""), (b"a", b"2"), (b"", b"x"), (b"c", b"%20+")];
        assert!(found.pairs.iter().map(|(name, value)| (&name[..], &value[..])).eq(expected));
        assert_eq!(Arguments::decoded(b"c=%20+%zz").values, [b"  %zz".to_vec()]);
    }

    #[test]
    fn cookies_are_read_as_browsers_send_them() {
        let found = cookies(b"a=1; b%20c=2;d ; =e; f==g");
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", b"1"), (b"b c", b"2"), (b"d", b""), (b"", b"e"), (b"f", b"=g")];
        assert!(found.iter().map(|(name, value)| (&name[..], &value[..])).eq(expected));
    }
}
