//! Identifiers: the request id that is also the visitor's receipt, and the content hash that names a generation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Crockford's base 32 alphabet: no I, L, O or U, so a receipt can be read out on the telephone.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A request's id: 80 random bits, shown as 16 characters. On an error page it is the visitor's receipt.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// Draws a new id. Collisions need about 2^40 requests, and a receipt is looked up within one retention period.
    pub fn new(random: &mut Random) -> Self {
        let (high, low) = (random.next_u64(), random.next_u64());
        let mut text = [0; 16];
        for (i, byte) in text.iter_mut().enumerate() {
            let word = if i < 8 { high } else { low };
            *byte = ALPHABET.get((word >> (5 * (i % 8)) & 31) as usize).copied().unwrap_or(b'0');
        }
        Self(text)
    }

    /// The 16 characters, all upper-case ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("0000000000000000")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of everything a generation was compiled from: equal content, equal id, on every machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The first 12 hexadecimal digits: enough to tell generations apart when a person reads them.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        parse_hex(&text).map(Self).ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits"))
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_distinct_and_readable() {
        let mut random = Random::seeded(7);
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| RequestId::new(&mut random)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.as_str().bytes().all(|byte| ALPHABET.contains(&byte))));
    }

    #[test]
    fn a_content_hash_survives_its_text_form() {
        let hash = ContentHash(std::array::from_fn(|i| i as u8 * 7));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<ContentHash>(&json).unwrap(), hash);
        assert!(serde_json::from_str::<ContentHash>("\"zz\"").is_err());
    }
}
