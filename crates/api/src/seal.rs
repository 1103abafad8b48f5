//! Ed25519 seals (RFC 8032) on what crosses processes and machines: who made it, and that nothing has changed since.
//!
//! A seal is made for a domain, so that one on a package is never one on a signal. Several keys are good at a time, each for
//! its own time, so that they can be changed without a gap.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes of a public key and of the seed of a private one.
pub const KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Keys of a ring.
const MAX_KEYS: usize = 32;

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The manifest of a package.
    Package,
    /// A signal.
    Signal,
}

impl Domain {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Package => b"rempart package v1\0",
            Self::Signal => b"rempart signal v1\0",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.prefix(), bytes].concat()
    }
}

/// Why a seal does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Nobody's key.
    #[error(
        "it was signed with the key {0}, which is not trusted here; add the public key to `keys` if it should be"
    )]
    UnknownKey(KeyId),
    /// A key that is good at another time.
    #[error("it was signed with the key {0}, whose time is over or has not begun")]
    KeyOutOfTime(KeyId),
    /// The key is known, and the signature is not of these bytes.
    #[error("its signature does not fit: it was changed or damaged on the way; fetch it again")]
    Forged,
}

/// Not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something else than hexadecimal digits, or too few or many of them.
    #[error("a key is 64 hexadecimal digits")]
    NotHexadecimal,
    /// The library refuses the seed.
    #[error("no private key can be made of this")]
    BadSeed,
    /// More than fit in a ring.
    #[error("at most {MAX_KEYS} keys can be trusted at a time")]
    TooMany,
}

/// Names a key: the first eight bytes of the BLAKE3 hash of its public half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A public key, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Its name.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        id.iter_mut().zip(blake3::hash(&self.0).as_bytes()).for_each(|(to, from)| *to = *from);
        KeyId(id)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        bytes_of(text).map(Self).ok_or(KeyError::NotHexadecimal)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A private key. Never printed.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// From 32 random bytes, which are the private key as it is kept.
    pub fn from_seed(seed: &[u8; KEY_BYTES]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| KeyError::BadSeed)
    }

    /// From the 64 hexadecimal digits a key file holds.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::from_seed(&bytes_of(text.trim()).ok_or(KeyError::NotHexadecimal)?)
    }

    /// The half that may be known.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        bytes.iter_mut().zip(self.0.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(bytes)
    }

    /// Seals bytes.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Seal {
        let mut signature = [0; SIGNATURE_BYTES];
        let signed = self.0.sign(&domain.message(bytes));
        signature.iter_mut().zip(signed.as_ref()).for_each(|(to, from)| *to = *from);
        Seal { key: self.public().id(), signature }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// A signature, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The key it was made with.
    pub key: KeyId,
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// A key that is trusted, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// Not before then.
    pub from: Option<Timestamp>,
    /// Not from then on.
    pub until: Option<Timestamp>,
}

impl From<PublicKey> for TrustedKey {
    fn from(key: PublicKey) -> Self {
        Self { key, from: None, until: None }
    }
}

/// The keys whose seals count. An empty ring trusts nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring(Vec<TrustedKey>);

impl Keyring {
    /// Of these keys.
    pub fn new(keys: impl IntoIterator<Item = TrustedKey>) -> Result<Self, KeyError> {
        let keys: Vec<_> = keys.into_iter().take(MAX_KEYS + 1).collect();
        if keys.len() > MAX_KEYS { Err(KeyError::TooMany) } else { Ok(Self(keys)) }
    }

    /// Of keys as they are written in a configuration.
    pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let keys = keys.into_iter().map(|text| text.parse().map(|key: PublicKey| key.into()));
        Self::new(keys.collect::<Result<Vec<TrustedKey>, _>>()?)
    }

    /// Whether the seal is a trusted one on these bytes.
    pub fn verify(&self, domain: Domain, bytes: &[u8], seal: &Seal, now: Timestamp) -> Result<(), SealError> {
        let mut known = self.0.iter().filter(|trusted| trusted.key.id() == seal.key).peekable();
        if known.peek().is_none() {
            return Err(SealError::UnknownKey(seal.key));
        }
        let in_time = |trusted: &&TrustedKey| {
            trusted.from.is_none_or(|from| now >= from) && trusted.until.is_none_or(|until| now < until)
        };
        let Some(trusted) = known.find(in_time) else { return Err(SealError::KeyOutOfTime(seal.key)) };
        UnparsedPublicKey::new(&ED25519, &trusted.key.0)
            .verify(&domain.message(bytes), &seal.signature)
            .map_err(|_| SealError::Forged)
    }
}

/// HMAC-SHA256 (RFC 2104) of bytes, for whoever shares the key; 32 bytes.
pub fn authentication_code(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    aws_lc_rs::hmac::sign(&key, bytes).as_ref().to_vec()
}

/// Lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn bytes_of(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_keys_in_their_time_count_and_only_for_what_they_signed() {
        let [ours, theirs] = [1, 2].map(|seed| SigningKey::from_seed(&[seed; KEY_BYTES]).unwrap());
        let now = Timestamp(50);
        let ring = |from, until| {
            Keyring::new([TrustedKey { key: ours.public(), from, until }, theirs.public().into()]).unwrap()
        };
        let always = ring(None, None);
        let seal = ours.sign(Domain::Package, b"bytes");
        let id = ours.public().id();
        assert_eq!(always.verify(Domain::Package, b"bytes", &seal, now), Ok(()));
        assert_eq!(always.verify(Domain::Signal, b"bytes", &seal, now), Err(SealError::Forged));
        assert_eq!(always.verify(Domain::Package, b"byte", &seal, now), Err(SealError::Forged));
        for at in 0..SIGNATURE_BYTES {
            let mut bad = seal;
            bad.signature[at] ^= 1;
            assert_eq!(always.verify(Domain::Package, b"bytes", &bad, now), Err(SealError::Forged), "{at}");
        }
        let stranger = Keyring::new([theirs.public().into()]).unwrap();
        assert_eq!(stranger.verify(Domain::Package, b"bytes", &seal, now), Err(SealError::UnknownKey(id)));
        assert_eq!(
            Keyring::default().verify(Domain::Package, b"bytes", &seal, now),
            Err(SealError::UnknownKey(id))
        );
        for (from, until, good) in
            [(Some(50), Some(51), true), (Some(51), None, false), (None, Some(50), false)]
        {
            let ring = ring(from.map(Timestamp), until.map(Timestamp));
            assert_eq!(
                ring.verify(Domain::Package, b"bytes", &seal, now).is_ok(),
                good,
                "{from:?} {until:?}"
            );
        }
    }

    #[test]
    fn keys_are_written_as_they_are_read() {
        let key = SigningKey::from_seed(&[7; KEY_BYTES]).unwrap();
        let text = key.public().to_string();
        assert_eq!(text.parse::<PublicKey>().unwrap(), key.public());
        assert_eq!(SigningKey::parse(&"07".repeat(32)).unwrap().public(), key.public());
        assert!(!format!("{key:?}").contains(&"07".repeat(8)));
        for bad in ["", "07", &"g7".repeat(32), &"+7".repeat(32), &"07".repeat(33)] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError::NotHexadecimal), "{bad:?}");
        }
    }
}
