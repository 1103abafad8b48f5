//! Session tickets: a ring of keys given from outside, so that every edge process opens what any other has sealed.

use std::time::Duration;

use api::process::TicketKey;
use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base::time::Timestamp;
use rustls::server::ProducesTickets;

/// How long a ticket is good, in seconds. Its key should be forgotten soon after.
pub const TICKET_SECONDS: u32 = 12 * 3600;
/// Keys in the ring at most: rotated every few hours, twelve hours' worth is three or four.
pub const MAX_TICKET_KEYS: usize = 8;
/// Bytes of a sealed session; without a client certificate in it, a session has a few hundred.
const MAX_TICKET_BYTES: usize = 4096;
/// How far another machine's clock, or this one's before it was set, may be ahead.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Bytes that name a key in front of a ticket (RFC 5077 section 4).
const NAME_BYTES: usize = 16;
/// Bytes of a key of AES-256.
const SECRET_BYTES: usize = 32;
/// Bytes of the time of issue inside a ticket: seconds since 1970, big endian.
const ISSUED_BYTES: usize = 8;

/// The keys in use. Reading takes no lock; `set` replaces all of them at once.
///
/// A ticket is: key name (16 bytes), nonce (12), then encrypted by AES-256-GCM the time of issue (8) and the session,
/// then the tag (16): the shape RFC 5077 section 4 recommends, with one authenticated cipher for its two primitives.
pub struct TicketKeys {
    ring: ArcSwap<Vec<Key>>,
}

struct Key {
    name: [u8; NAME_BYTES],
    cipher: RandomizedNonceKey,
}

/// Why keys were not taken. Positions count from zero; secrets are never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeyError {
    /// No key at all.
    #[error("no session ticket key was given")]
    Empty,
    /// More keys than are held.
    #[error("{0} session ticket keys were given, at most {MAX_TICKET_KEYS} are held")]
    TooMany(usize),
    /// The name is not 32 hexadecimal digits.
    #[error("the name of session ticket key {0} is not 32 hexadecimal digits")]
    Name(usize),
    /// The secret is not 64 hexadecimal digits.
    #[error("the secret of session ticket key {0} is not 64 hexadecimal digits")]
    Secret(usize),
    /// Two keys have one name.
    #[error("session ticket key {0} has the name of an earlier one")]
    Repeated(usize),
    /// The machine has no randomness.
    #[error("this machine has no randomness for a session ticket key")]
    NoRandomness,
}

impl std::fmt::Debug for TicketKeys {
    /// Never prints a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKeys({})", self.ring.load().len())
    }
}

impl TicketKeys {
    /// A ring of one random key, for a process nobody gives keys to.
    pub fn random(now: Timestamp) -> Result<Self, TicketKeyError> {
        Ok(Self { ring: ArcSwap::from_pointee(ring(&[Self::generate(now)?])?) })
    }

    /// Makes a key to be handed to every process. `now` is written beside it.
    pub fn generate(now: Timestamp) -> Result<TicketKey, TicketKeyError> {
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; SECRET_BYTES]);
        aws_lc_rs::rand::fill(&mut name).map_err(|_| TicketKeyError::NoRandomness)?;
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| TicketKeyError::NoRandomness)?;
        Ok(TicketKey { name: super::hex(&name), secret: super::hex(&secret), made: now.seconds() })
    }

    /// Replaces the ring: newest first; the first one seals, all of them open. When refused, the old ring stays.
    pub fn set(&self, keys: &[TicketKey]) -> Result<(), TicketKeyError> {
        self.ring.store(ring(keys)?.into());
        Ok(())
    }

    /// Seals a session at this time; `None` when it is too long.
    pub(super) fn seal(&self, session: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        let ring = self.ring.load();
        let key = ring.first()?;
        let overhead = NAME_BYTES + NONCE_LEN + ISSUED_BYTES + AES_256_GCM.tag_len();
        if session.len() + overhead > MAX_TICKET_BYTES {
            return None;
        }
        let mut sealed = Vec::with_capacity(ISSUED_BYTES + session.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&now.seconds().to_be_bytes());
        sealed.extend_from_slice(session);
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(key.name), &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(session.len() + overhead);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    /// Opens a ticket at this time; `None` for one that is unknown, altered, too old, or from the future.
    pub(super) fn open(&self, ticket: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET_BYTES {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.ring.load();
        let key = ring.iter().find(|key| &key.name == name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.cipher.open_in_place(nonce, Aad::from(key.name), &mut opened).ok()?;
        let (issued, session) = opened.split_first_chunk::<ISSUED_BYTES>()?;
        let issued = u64::from_be_bytes(*issued);
        let in_time = issued <= now.plus(CLOCK_SKEW).seconds()
            && now.seconds().saturating_sub(issued) < u64::from(TICKET_SECONDS);
        in_time.then(|| session.to_vec())
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, super::wall_clock())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, super::wall_clock())
    }
}

fn ring(keys: &[TicketKey]) -> Result<Vec<Key>, TicketKeyError> {
    if keys.is_empty() {
        return Err(TicketKeyError::Empty);
    }
    if keys.len() > MAX_TICKET_KEYS {
        return Err(TicketKeyError::TooMany(keys.len()));
    }
    let mut ring: Vec<Key> = Vec::with_capacity(keys.len());
    for (position, key) in keys.iter().enumerate() {
        let name = unhex::<NAME_BYTES>(&key.name).ok_or(TicketKeyError::Name(position))?;
        let secret = unhex::<SECRET_BYTES>(&key.secret).ok_or(TicketKeyError::Secret(position))?;
        if ring.iter().any(|earlier| earlier.name == name) {
            return Err(TicketKeyError::Repeated(position));
        }
        let cipher =
            RandomizedNonceKey::new(&AES_256_GCM, &secret).map_err(|_| TicketKeyError::Secret(position))?;
        ring.push(Key { name, cipher });
    }
    Ok(ring)
}

/// Exactly `N` bytes written as hexadecimal digits of either case.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let &[high, low] = pair.first_chunk()?;
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}
